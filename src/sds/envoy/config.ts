/** What an Envoy would have to be told to do what the listeners of a configuration do, with secrets from Scute. Pure. */
import type { Config, HttpConfig, InboundConfig, OutboundConfig, SdsConfig, SdsMatchers } from '../../config/config.ts';
import type { XfccMode } from '../../http1/identity-fields.ts';
import type { Address } from '../../config/units.ts';
import type { SvidChoice } from '../../identity/snapshot.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import type { RuleRef } from '../../policy/explain.ts';
import { parseSpiffeId, pathOf, trustDomainId, type SpiffeId } from '../../spiffe/spiffe-id.ts';
import type { Policy } from '../../policy/policy.ts';
import { AS_JUDGED, askedBundle, extAuthzFilter, extAuthzOf, mayAsk } from './ext-authz.ts';
import { OTHER_WAY, sayRules } from '../expression.ts';
import { HINT_PREFIX } from '../secrets.ts';

const TLS = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3';

/** Why there is no bootstrap. */
export interface EnvoyProblem {
  /** A sentence. */
  readonly message: string;
  /** The name of the listener that it is about, and the rule of it; undefined if it is about none. */
  readonly listener?: string | undefined;
  readonly rule?: RuleRef | undefined;
}

/** A whole bootstrap, to be written as YAML. */
export function buildEnvoyConfig(config: Config): Result<object, EnvoyProblem> {
  const { sds } = config;
  if (sds === undefined) return err({ message: 'there is no sds section: Envoy would have nowhere to get its certificates from' });
  const { listen } = sds;
  if (listen.kind === 'tcp' && listen.port === 0) {
    return err({ message: 'sds.listen has port 0, another one at each start: Envoy would not find it' });
  }
  const unpinned = [...config.inbound, ...config.outbound].find(({ identity }) => identity.by === 'default');
  if (sds.identity.by !== 'default' && unpinned !== undefined) {
    const message = `${unpinned.name} presents the first SVID, and ${JSON.stringify(sds.defaultSvidName)} is another one: give it an identity`;
    return err({ message, listener: unpinned.name });
  }
  const [problem] = [...config.inbound.flatMap((inbound) => unsaidOfInbound(inbound, sds)), ...config.outbound.flatMap(unsaidOfOutbound)];
  if (problem !== undefined) return err(problem);
  const names = new Set([...config.inbound, ...config.outbound].map(({ name }) => name));
  const source: SecretSource = { sds, cluster: names.has('scute') ? freeName('scute-sds', names) : 'scute' };
  const listeners: object[] = [];
  const clusters: object[] = [];
  for (const inbound of config.inbound) {
    // To Envoy, no matchers are everybody.
    if (admitsNobody(inbound.policy)) continue;
    const said = validation(source, 'inbound', inbound);
    const asks = !said.ok && mayAsk(sds, inbound);
    const context = asks ? askedValidation(source, inbound) : said;
    if (!context.ok) return context;
    listeners.push(inboundListener(inbound, source, context.value, asks));
    clusters.push(cluster(inbound, undefined));
  }
  for (const outbound of config.outbound) {
    const context = validation(source, 'outbound', outbound);
    if (!context.ok) return context;
    const serverName = outbound.serverName ?? nameIn(outbound.to);
    const tls = {
      name: 'envoy.transport_sockets.tls',
      typed_config: {
        '@type': `${TLS}.UpstreamTlsContext`,
        ...(serverName !== undefined && { sni: serverName }),
        max_session_keys: 0,
        // Envoy stops at TLS 1.2 as a client, where everybody on the way reads the certificate.
        common_tls_context: {
          tls_params: { tls_maximum_protocol_version: 'TLSv1_3' },
          ...commonTls(source, outbound, context.value),
        },
      },
    };
    listeners.push({ name: outbound.name, address: boundAddress(outbound), filter_chains: [{ filters: [tcpProxy(outbound)] }] });
    clusters.push(cluster(outbound, tls));
  }
  return ok({ node: { id: 'envoy', cluster: 'envoy' }, static_resources: { listeners, clusters: [...clusters, sdsCluster(source)] } });
}

/** Whether nobody may connect to a listener with such a policy, so that there is none for it. */
export function admitsNobody({ entries, mode }: Policy): boolean {
  return entries.length === 0 && mode !== 'audit';
}

/** What a listener has and the printed one would be without: left out it would be lost unseen. */
function unsaidOfInbound(inbound: InboundConfig, sds: SdsConfig): EnvoyProblem[] {
  const { name: listener, proxyProtocol, http, jwt } = inbound;
  const settings = [
    ...(proxyProtocol.send === 'off' ? [] : ['proxyProtocol.send cannot be said here, and the application waits for it']),
    ...(proxyProtocol.acceptFrom.length === 0 ? [] : ['proxyProtocol.acceptFrom cannot be said here']),
    ...(jwt === undefined ? [] : ['jwt cannot be said here, and the tokens of requests would be verified by nobody']),
    ...(http?.limits.maxBodyBytes === undefined ? [] : ['http.maxBodyBytes cannot be said here']),
  ];
  return [
    ...unsaidOfSocket(inbound),
    ...(mayAsk(sds, inbound) ? [] : unsaidOfPolicy('inbound', inbound)),
    ...settings.map((setting) => ({ message: `inbound ${listener}: ${setting}`, listener })),
  ];
}

function unsaidOfOutbound(outbound: OutboundConfig): EnvoyProblem[] {
  const { name: listener, protocol } = outbound;
  return [
    ...unsaidOfSocket(outbound),
    ...unsaidOfPolicy('outbound', outbound),
    ...(protocol === 'tcp' ? [] : [{ message: `outbound ${listener}: protocol: ${protocol} cannot be said here`, listener }]),
  ];
}

function unsaidOfPolicy(direction: 'inbound' | 'outbound', { name: listener, policy }: InboundConfig | OutboundConfig): EnvoyProblem[] {
  const said = sayRules(policy);
  if (said.ok) return [];
  const { detail, rule } = said.error;
  return [{ message: `${direction} ${listener}: ${detail}${direction === 'inbound' ? `. ${OTHER_WAY}` : ''}`, listener, rule }];
}

function unsaidOfSocket({ name: listener, socketGid }: InboundConfig | OutboundConfig): EnvoyProblem[] {
  if (socketGid === undefined) return [];
  return [{ message: `${listener}: socketGroup cannot be said here: Envoy gives its sockets to no group`, listener }];
}

/** Where Envoy gets secrets. */
interface SecretSource {
  readonly sds: SdsConfig;
  /** The name of the cluster, which is that of no listener. */
  readonly cluster: string;
}

function freeName(wanted: string, taken: ReadonlySet<string>): string {
  let name = wanted;
  while (taken.has(name)) name += '-';
  return name;
}

function inboundListener(inbound: InboundConfig, source: SecretSource, context: object, asks: boolean): object {
  const transport_socket = {
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': `${TLS}.DownstreamTlsContext`,
      require_client_certificate: true,
      // A peer is judged at each connection: Envoy does not judge a resumed session again.
      disable_stateless_session_resumption: true,
      disable_stateful_session_resumption: true,
      common_tls_context: commonTls(source, inbound, context),
    },
  };
  const filter = inbound.http === undefined ? tcpProxy(inbound) : httpFilter(inbound, inbound.http, asks ? source.cluster : undefined);
  const chain = { filters: [filter], transport_socket, transport_socket_connect_timeout: seconds(inbound.limits.handshakeTimeoutMs) };
  return { name: inbound.name, address: boundAddress(inbound), filter_chains: [chain] };
}

/** Whoever is of a trust domain that may be admitted may connect, and is judged by Scute. */
function askedValidation(source: SecretSource, { name: listener, policy }: InboundConfig): Result<object, EnvoyProblem> {
  const bundle = askedBundle(source.sds, policy);
  return bundle.ok
    ? ok({ validation_context_sds_secret_config: secret(source, bundle.value) })
    : err({ message: `inbound ${listener}: ${bundle.error}`, listener });
}

function commonTls(
  source: SecretSource,
  { identity, alpn }: Pick<InboundConfig | OutboundConfig, 'identity' | 'alpn'>,
  context: object,
): object {
  return {
    ...(alpn.length > 0 && { alpn_protocols: alpn }),
    tls_certificate_sds_secret_configs: [secret(source, certificateName(source.sds, identity))],
    ...context,
  };
}

function certificateName(sds: SdsConfig, identity: SvidChoice): string {
  switch (identity.by) {
    case 'default':
      return sds.defaultSvidName;
    case 'id':
      return identity.id;
    case 'hint':
      return `${HINT_PREFIX}${identity.hint}`;
  }
}

/** The trust bundle, and who may be at the other end: said by Scute if it has matchers for the listener, else by Envoy itself. */
function validation(
  source: SecretSource,
  direction: 'inbound' | 'outbound',
  { name: listener, policy }: InboundConfig | OutboundConfig,
): Result<object, EnvoyProblem> {
  const { sds } = source;
  const problem = (what: string, rule?: RuleRef): Result<never, EnvoyProblem> =>
    err({ message: `${direction} ${listener}: ${what}`, listener, rule });
  const said = sayRules(policy);
  // It was found good before.
  if (!said.ok) return problem(said.error.detail, said.error.rule);
  const [domain, ...others] = new Set(said.value.map(({ entry }) => entry.trustDomain));
  if (domain === undefined) return problem('a list that admits nobody cannot be said in matchers: without one Envoy admits everybody');
  // Envoy binds a certificate to the trust domain of one of its URIs, and would admit it by another.
  if (others.length > 0)
    return problem(`${[domain, ...others].join(' and ')} cannot be kept apart in one list: give each a listener of its own`);
  const name = trustDomainId(domain);
  const ours =
    direction === 'inbound'
      ? sds.matchers.find((matchers) => matchers.listener === listener && mayBeServed(sds, matchers, name))
      : undefined;
  if (ours !== undefined) return ok({ validation_context_sds_secret_config: secret(source, ours.secret) });
  const timed = said.value.find(({ times }) => times !== undefined)?.rule;
  if (timed !== undefined) {
    const instead = direction === 'inbound' ? `: let Scute say it, by sds.matchers with listener: ${listener}` : '';
    return problem(
      `the rule ${JSON.stringify(timed.text)} holds at some times, and a list that is printed would hold at all of them${instead}`,
      timed,
    );
  }
  if (sds.matchers.some((taken) => taken.secret === name))
    return problem(
      `${JSON.stringify(name)} has matchers of others, and Envoy would admit those as well: give them another name of that bundle`,
    );
  const matchers = said.value.map(({ entry }) => ({
    san_type: 'URI',
    matcher: 'exact' in entry ? { exact: entry.exact } : { safe_regex: { regex: entry.regex } },
  }));
  return ok({
    combined_validation_context: {
      default_validation_context: { match_typed_subject_alt_names: matchers },
      validation_context_sds_secret_config: secret(source, name),
    },
  });
}

/** Whether a secret of Scute's with the list of a listener, which names the trust domain `name` alone, is one that is ever sent. */
function mayBeServed(sds: SdsConfig, { secret }: SdsMatchers, name: SpiffeId): boolean {
  const id = parseSpiffeId(secret);
  if (id.ok && pathOf(id.value) === '') return id.value === name;
  return secret !== sds.defaultAllBundlesName || secret === sds.defaultBundleName || !sds.disableSpiffeCertValidation;
}

function secret({ cluster: cluster_name }: SecretSource, name: string): object {
  const grpc_services = [{ envoy_grpc: { cluster_name } }];
  return {
    name,
    sds_config: { resource_api_version: 'V3', api_config_source: { api_type: 'GRPC', transport_api_version: 'V3', grpc_services } },
  };
}

function tcpProxy({ name, limits: { idleTimeoutMs = 0, maxLifetimeMs } }: InboundConfig | OutboundConfig): object {
  const typed_config = {
    '@type': 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
    stat_prefix: name,
    cluster: name,
    // To Envoy, none at all is 0.
    idle_timeout: seconds(idleTimeoutMs),
    ...(maxLifetimeMs !== undefined && { max_downstream_connection_duration: seconds(maxLifetimeMs) }),
  };
  return { name: 'envoy.filters.network.tcp_proxy', typed_config };
}

const XFCC: Readonly<Record<XfccMode, string>> = {
  'sanitize-set': 'SANITIZE_SET',
  sanitize: 'SANITIZE',
  'unsafe-forward': 'ALWAYS_FORWARD_ONLY',
  'unsafe-append': 'APPEND_FORWARD',
};

/** `asked` is the cluster that leads to Scute, if it is asked. With the caller's SPIFFE ID in the fields that the application is to find it in, in place of any that the caller sent. */
function httpFilter(
  inbound: InboundConfig,
  { xfcc, spiffeIdHeader, maxConcurrentStreams, upgrades, extendedConnect, limits }: HttpConfig,
  asked: string | undefined,
): object {
  const { name } = inbound;
  const { idleTimeoutMs = 0, maxLifetimeMs } = inbound.limits;
  const route = { cluster: name, timeout: seconds(limits.responseTimeoutMs ?? 0) };
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
      stat_prefix: name,
      forward_client_cert_details: XFCC[xfcc],
      // The chain is for Scute: the filter shows the leaf alone.
      set_current_client_cert_details: { uri: true, ...(asked !== undefined && { chain: true }) },
      ...(asked !== undefined && AS_JUDGED),
      // Many an application takes "_" for "-", so that a field with it would pass for one of ours.
      common_http_protocol_options: {
        headers_with_underscores_action: 'DROP_HEADER',
        idle_timeout: seconds(idleTimeoutMs),
        ...(maxLifetimeMs !== undefined && { max_connection_duration: seconds(maxLifetimeMs) }),
      },
      stream_idle_timeout: seconds(idleTimeoutMs),
      request_headers_timeout: seconds(limits.headTimeoutMs),
      http2_protocol_options: { max_concurrent_streams: maxConcurrentStreams, ...(extendedConnect && { allow_connect: true }) },
      upgrade_configs: ['websocket', ...upgrades].map((upgrade_type) => ({ upgrade_type })),
      route_config: {
        virtual_hosts: [
          { name, domains: ['*'], routes: [{ match: { prefix: '/' }, route }], ...(asked !== undefined && extAuthzOf(name)) },
        ],
        ...(spiffeIdHeader !== undefined && {
          request_headers_to_remove: [spiffeIdHeader],
          request_headers_to_add: [
            { header: { key: spiffeIdHeader, value: '%DOWNSTREAM_PEER_URI_SAN%' }, append_action: 'OVERWRITE_IF_EXISTS_OR_ADD' },
          ],
        }),
      },
      http_filters: [
        ...(asked === undefined ? [] : [extAuthzFilter(asked)]),
        {
          name: 'envoy.filters.http.router',
          typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' },
        },
      ],
    },
  };
}

function seconds(ms: number): string {
  return `${ms / 1000}s`;
}

/** The host of an address, if it is a name. */
function nameIn(to: Address): string | undefined {
  return to.kind === 'tcp' && !/^[0-9.]+$|:/.test(to.host) ? to.host : undefined;
}

function cluster(listener: InboundConfig | OutboundConfig, transport_socket: object | undefined): object {
  const { name, to, limits, http } = listener;
  return {
    name,
    // As Scute: one address of the name after the other. `localhost` always has one of IPv6 to Envoy, and STRICT_DNS makes a server of each.
    ...(nameIn(to) === undefined ? { type: 'STATIC' } : { type: 'LOGICAL_DNS', dns_lookup_family: 'ALL' }),
    // Of Envoy, the handshake is in it.
    connect_timeout: seconds(limits.connectTimeoutMs + (transport_socket === undefined ? 0 : limits.handshakeTimeoutMs)),
    // It closes idle connections, and Envoy should before it does.
    ...(http !== undefined && {
      typed_extension_protocol_options: upstreamOptions({
        common_http_protocol_options: { idle_timeout: seconds(http.limits.upstreamIdleTimeoutMs ?? 0) },
        explicit_http_config:
          http.application === 'h2c'
            ? { http2_protocol_options: { ...(http.extendedConnect && { allow_connect: true }) } }
            : { http_protocol_options: {} },
      }),
    }),
    load_assignment: endpoints(name, to),
    ...(transport_socket !== undefined && { transport_socket }),
  };
}

function sdsCluster({ sds, cluster: name }: SecretSource): object {
  return {
    name,
    type: 'STATIC',
    typed_extension_protocol_options: upstreamOptions({ explicit_http_config: { http2_protocol_options: {} } }),
    load_assignment: endpoints(name, sds.listen),
  };
}

function upstreamOptions(options: object): object {
  const type = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
  return { [type]: { '@type': `type.googleapis.com/${type}`, ...options } };
}

function endpoints(cluster_name: string, to: Address): object {
  return { cluster_name, endpoints: [{ lb_endpoints: [{ endpoint: { address: address(to) } }] }] };
}

/** Envoy leaves the mode of a socket to its umask unless it is told, and takes `::` for IPv6 alone. */
function boundAddress({ listen, socketMode }: InboundConfig | OutboundConfig): object {
  if (listen.kind === 'unix') return { pipe: { path: listen.path, mode: socketMode } };
  const { host, port } = listen;
  return { socket_address: { address: host, port_value: port, ...(host === '::' && { ipv4_compat: true }) } };
}

function address(of: Address): object {
  return of.kind === 'unix' ? { pipe: { path: of.path } } : { socket_address: { address: of.host, port_value: of.port } };
}
