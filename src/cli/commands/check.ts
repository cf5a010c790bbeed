import type {
  BundleEndpointConfig,
  Config,
  FederationConfig,
  InboundConfig,
  MetricsConfig,
  OutboundConfig,
  SdsConfig,
  SocketConfig,
} from '../../config/config.ts';
import type { FileSetConfig, NotifyConfig } from '../../config/file-sets.ts';
import type { XfccMode } from '../../http1/identity-fields.ts';
import { readDenyFile } from '../../config/policy/deny-file.ts';
import { formatIssues, formatPlace } from '../../config/issue.ts';
import { unsafeKeepsOf } from '../../config/policy/live-rules.ts';
import { loadLocatedConfig, type Located } from '../../config/load.ts';
import { formatAddress, formatTarget } from '../../config/units.ts';
import type { SvidChoice } from '../../identity/snapshot.ts';
import type { Policy } from '../../policy/policy.ts';
import { OTHER_WAY, sayRules } from '../../sds/expression.ts';
import { describeWithheld, sdsPolicies, withheldMatchers, type WithheldMatchers } from '../../sds/withheld.ts';
import { readAuthoritiesPem } from '../../tls/web-authorities.ts';
import { undeniedParents } from '../../policy/undenied-parents.ts';
import { EXIT_OK, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { findListener, placeOf } from '../question.ts';

/** `scute check`: every problem of a configuration, or what it means. */
export async function check(file: string, { env, stdout, stderr }: CommandEnvironment): Promise<number> {
  const loaded = await loadLocatedConfig({ file, flags: {}, env });
  if (!loaded.ok) {
    stderr(`${formatIssues(loaded.error)}\n`);
    return EXIT_USAGE;
  }
  const { value: config } = loaded.value;
  const files = new Set(
    [...config.outbound.flatMap(({ webPki }) => webPki ?? []), ...config.credentials].flatMap(({ caFile }) => caFile ?? []),
  );
  const unusable = (await Promise.all([...files].map(readAuthoritiesPem))).flatMap((read) => (read.ok ? [] : [read.error]));
  if (unusable.length > 0) {
    stderr(`${unusable.join('\n')}\n`);
    return EXIT_USAGE;
  }
  const { revocations } = config;
  const denied = revocations && (await readDenyFile(revocations.file));
  if (denied?.ok === false) {
    stderr(`${formatIssues(denied.error)}\n`);
    return EXIT_USAGE;
  }
  const revoked = denied === undefined ? '' : `deny list  ${revocations?.file}: ${denied.value.size} entries\n`;
  stdout(`${file} is valid\n${describeConfig(config)}${revoked}${describeAllWithheld(loaded.value)}`);
  return EXIT_OK;
}

/** What Envoy will not be given, and where to look. */
function describeAllWithheld({ value: config, locate }: Located<Config>): string {
  const placeOfMatchers = ({ matchers, rule }: WithheldMatchers): string => {
    const placed = matchers.listener === undefined ? undefined : findListener(config, matchers.listener);
    if (placed?.ok === true) return placeOf(placed.value, rule, locate);
    const index = config.sds?.matchers.indexOf(matchers) ?? 0;
    return formatPlace(locate(['sds', 'matchers', index, ...(rule === undefined ? [] : ['allow', rule.index])], 'value'));
  };
  const withheld = withheldMatchers(config);
  const lines = withheld.map((each) => `warning: ${placeOfMatchers(each)}: sds: ${describeWithheld(each)}\n`);
  return `${lines.join('')}${withheld.some(({ problem }) => problem === 'inexpressible') ? `  ${OTHER_WAY}\n` : ''}`;
}

/** What would listen where, and who is admitted. */
export function describeConfig(config: Config): string {
  const lines = [`workload API  ${config.workloadApi.endpoint}`];
  for (const listener of config.inbound) lines.push(...describeInbound(listener));
  for (const listener of config.outbound) lines.push(...describeOutbound(listener));
  lines.push(...config.credentials.map(describeCredential));
  if (config.metrics !== undefined) lines.push(...describeMetrics(config.metrics));
  if (config.admin !== undefined) lines.push(`admin  ${describeSocket(config.admin)}`);
  if (config.sds !== undefined) lines.push(...describeSds(config, config.sds));
  for (const relation of config.federation) lines.push(...describeFederation(relation));
  if (config.bundleEndpoint !== undefined) lines.push(...describeEndpoint(config.bundleEndpoint));
  for (const set of config.files) lines.push(...describeFileSet(set));
  return `${lines.join('\n')}\n`;
}

function describeMetrics(metrics: MetricsConfig): string[] {
  const probes = metrics.probes.map(({ path, to, target }) => `  ${path} is the status of ${target} at ${formatAddress(to)} (plain)`);
  return [`metrics  ${describeSocket(metrics)}`, ...probes];
}

function describeFederation({ trustDomain, url, profile }: FederationConfig): string[] {
  const whom = profile.kind === 'https_spiffe' ? `which is ${profile.endpointSpiffeId}` : `by ${profile.caFile ?? 'the public web'}`;
  return [`federation ${trustDomain}  bundle from ${url} (${profile.kind}), ${whom}`];
}

function describeEndpoint({ listen, path, identity, profile }: BundleEndpointConfig): string[] {
  return [
    `bundleEndpoint  https://${formatAddress(listen)}${path} (${profile.kind}), for anybody`,
    ...(identity.by === 'default' ? [] : [`  of the trust domain of ${describeChoice(identity)}`]),
  ];
}

function describeFileSet(set: FileSetConfig): string[] {
  const { name, directory, format, layout, identity, names, jwtSvids, mergedBundle, unsafeDisk, notify } = set;
  return [
    `files ${name}  ${directory} (${names.svid === undefined ? 'JWT files alone' : format}, ${layout})`,
    ...(identity.by === 'default' ? [] : [`  of ${describeChoice(identity)}`]),
    ...jwtSvids.map(({ fileName, audience, identity: whose }) =>
      [`  ${fileName}: a JWT-SVID for ${audience.join(', ')}`, ...(whose.by === 'id' ? [`of ${whose.id}`] : [])].join(' '),
    ),
    ...notify.map((each) => `  then ${describeNotify(each)}`),
    ...(mergedBundle ? ['  note: whoever reads its bundle lets every trust domain vouch for every name'] : []),
    ...(unsafeDisk ? ['  note: private key and tokens may be on a disk, where they may outlive their deletion'] : []),
  ];
}

function describeNotify(notify: NotifyConfig): string {
  switch (notify.kind) {
    case 'signal':
      return `${notify.signal} to the process in ${notify.pidFile}`;
    case 'command':
      return notify.command.join(' ');
    case 'http':
      return `${notify.method} ${notify.url}`;
    case 'child':
      return `${notify.signal} to the application of scute exec`;
  }
}

function describeSds(config: Config, sds: SdsConfig): string[] {
  const withheld = withheldMatchers(config);
  return [
    `sds  ${describeSocket(sds)}`,
    '  note: who may open this holds the identity, private key and all',
    ...(sds.identity.by === 'default' ? [] : [`  ${JSON.stringify(sds.defaultSvidName)} is ${describeChoice(sds.identity)}`]),
    ...sds.matchers.flatMap((matchers) => {
      const { secret, listener, policy } = matchers;
      if (withheld.some((each) => each.matchers === matchers)) return [`  ${JSON.stringify(secret)} is withheld`];
      const whom = policy === undefined ? `whom listener ${listener} admits` : policy.entries.map(describeEntry).join(', ') || 'nobody';
      return [
        `  ${JSON.stringify(secret)} admits ${whom}`,
        ...(config.revocations !== undefined && hasPatterns(config, secret)
          ? ['  note: of a pattern, Envoy admits whom the deny list names, unless an entry of it names all of the pattern']
          : []),
      ];
    }),
  ];
}

function hasPatterns(config: Config, secret: string): boolean {
  const policy = sdsPolicies(config).get(secret);
  const said = policy && sayRules(policy);
  return said?.ok === true && said.value.some(({ entry }) => 'regex' in entry);
}

function describeInbound(listener: InboundConfig): string[] {
  const { entries, mode } = listener.policy;
  return [
    `inbound ${listener.name}  ${describeSocket(listener)} (mTLS) to ${formatAddress(listener.to)} (plain)`,
    ...describeIdentity(listener),
    ...describeHttp(listener),
    ...describeTokens(listener),
    ...describeProxyProtocol(listener),
    ...(entries.length === 0 ? ['  admits nobody: the allow list is empty'] : entries.map((entry) => `  admits ${describeEntry(entry)}`)),
    ...describeDeny(listener.policy),
    ...describeFiles(listener),
    ...describeLive(listener),
    ...(mode === 'audit' ? ['  note: the policy is in audit, so everybody with a valid SVID is let in all the same'] : []),
  ];
}

function describeTokens({ jwt }: InboundConfig): string[] {
  if (jwt === undefined) return [];
  const { audiences, header, isRequired, subjectHeader, forwardsToken } = jwt;
  return [
    `  ${isRequired ? 'asks each request for' : 'looks at'} a JWT-SVID in ${header} for ${audiences.join(' or ')}, and tells the application its SPIFFE ID in ${subjectHeader}`,
    ...(forwardsToken ? ['  note: the application gets the token itself, which it can use as the caller'] : []),
  ];
}

function describeDeny(policy: Policy): string[] {
  return [
    ...policy.rules.filter(({ effect }) => effect === 'deny').map(({ text }) => `  denies ${text.replace(/^deny /, '')}`),
    ...undeniedParents(policy).map((path) => `  note: ${path}/** is denied, and ${path} itself is not: deny both, if both are meant`),
  ];
}

function describeFiles({ policy, policyFile }: InboundConfig | OutboundConfig): string[] {
  return [
    ...(policyFile === undefined ? [] : [`  by the policy file ${policyFile}`]),
    ...[...policy.lists].map(([file, { size }]) => `  list ${file}: ${size} SPIFFE IDs`),
  ];
}

function describeLive(listener: InboundConfig | OutboundConfig): string[] {
  return unsafeKeepsOf(listener).map(
    (key) => `  note: ${key} is unsafeKeep, so open connections go on whose peers would not be let in now`,
  );
}

function describeProxyProtocol({ proxyProtocol: { send, spiffeIdTlv, acceptFrom } }: InboundConfig): string[] {
  const tlv = send === 'tls' || send === 'tls-full' ? `, SPIFFE ID in TLV 0x${spiffeIdTlv.toString(16).toUpperCase()}` : '';
  return [
    ...(send === 'off' ? [] : [`  sends the application a PROXY header (${send}${tlv})`]),
    ...acceptFrom.map(({ text }) => `  requires a PROXY header from ${text}`),
  ];
}

function describeOutbound(listener: OutboundConfig): string[] {
  const { webPki } = listener;
  return [
    `outbound ${listener.name}  ${describeSocket(listener)} (plain) to ${formatTarget(listener.to)} (${webPki === undefined ? 'mTLS' : 'TLS'})`,
    ...(webPki === undefined ? [] : [`  a server of the public web, by ${webPki.caFile ?? 'its authorities'}; our SVID is not presented`]),
    ...describeIdentity(listener),
    ...describeOutboundHttp(listener),
    ...describeAttached(listener),
    ...listener.policy.entries.map((entry) => `  expects ${describeEntry(entry)}`),
    ...describeDeny(listener.policy),
    ...describeFiles(listener),
    ...describeLive(listener),
    ...(listener.listen.kind === 'tcp' && (webPki === undefined || listener.attach !== undefined)
      ? ['  note: whoever reaches this address acts with this identity; a Unix socket can be kept to one user or group']
      : []),
  ];
}

function describeAttached({ attach }: OutboundConfig): string[] {
  if (attach === undefined) return [];
  const { header, replace, token } = attach;
  const what = token.kind === 'jwt' ? `a JWT-SVID for ${JSON.stringify(token.jwt.audience)}` : `the access token of ${token.name}`;
  return [`  puts ${what} in ${header} of each request${replace ? '' : ' that has none'}`];
}

function describeCredential({ name, grant, tokenEndpoint, clientAuth }: Config['credentials'][number]): string {
  const how = clientAuth === 'mtls' ? 'our X.509-SVID' : 'a JWT-SVID';
  return `credential ${name}  access tokens of ${tokenEndpoint} for ${how} (${grant}, ${clientAuth})`;
}

function describeHttp({ http, alpn }: InboundConfig): string[] {
  if (http === undefined) return [];
  const tellsXfcc = http.xfcc === 'sanitize-set' || http.xfcc === 'unsafe-append';
  const fields = [tellsXfcc ? 'X-Forwarded-Client-Cert' : undefined, http.spiffeIdHeader].filter((name) => name !== undefined);
  return [
    `  serves ${describeAlpn(alpn)}, and tells the application who asks in ${fields.length === 0 ? 'no field' : fields.join(' and ')}`,
    ...(http.application === 'h2c'
      ? ['  note: the application speaks h2c, so peers must speak HTTP/2: one that speaks HTTP/1.1 is refused in the handshake']
      : []),
    ...(http.translation === 'http-proxy' ? ['  carries HTTP/2 to HTTP/1.1 by http-proxy'] : []),
    ...(http.application === 'h2c' ? describeConnect(http.extendedConnect, 'the application') : describeUpgraded(http.extendedConnect)),
    ...describeUnsafeXfcc(http.xfcc, 'peer'),
  ];
}

function describeOutboundHttp({ http }: OutboundConfig): string[] {
  if (http === undefined) return [];
  const isHttp2 = http.application === 'h2c';
  return [
    isHttp2 ? '  serves HTTP/2, from the first byte on (h2c), and the server must speak it, too' : '  serves HTTP/1.1',
    ...describeConnect(http.extendedConnect, 'the server'),
    ...describeUnsafeXfcc(http.xfcc, 'application'),
  ];
}

function describeConnect(isTaken: boolean, who: string): string[] {
  return isTaken ? [`  serves WebSockets over HTTP/2 (extended CONNECT) if ${who} does, to which rules for GET do not apply`] : [];
}

function describeUpgraded(isTaken: boolean): string[] {
  return isTaken ? ['  serves WebSockets over HTTP/2 (extended CONNECT) as the GET with Upgrade that they are over HTTP/1.1'] : [];
}

/** What `protocol: http` serves, by the names that are offered; a client that names none speaks HTTP/1.1, if that is among them or nothing is. */
function describeAlpn(alpn: readonly string[]): string {
  const spoken = alpn.map((name) => (name === 'h2' ? 'HTTP/2' : 'HTTP/1.1'));
  return spoken.length === 0 ? 'HTTP/1.1' : spoken.join(' and ');
}

function describeUnsafeXfcc(mode: XfccMode, who: string): string[] {
  return mode.startsWith('unsafe-') ? [`  note: X-Forwarded-Client-Cert may name anybody whom the ${who} likes (${mode})`] : [];
}

function describeIdentity({ identity }: InboundConfig | OutboundConfig): string[] {
  return identity.by === 'default' ? [] : [`  presents ${describeChoice(identity)}`];
}

function describeChoice(identity: Exclude<SvidChoice, { readonly by: 'default' }>): string {
  return identity.by === 'id' ? identity.id : `the SVID with hint ${JSON.stringify(identity.hint)}`;
}

function describeSocket({ listen, socketMode, socketGid }: SocketConfig): string {
  if (listen.kind === 'tcp') return formatAddress(listen);
  const group = socketGid === undefined ? '' : `, group ${socketGid}`;
  return `${formatAddress(listen)} (mode 0${socketMode.toString(8)}${group})`;
}

function describeEntry(entry: string): string {
  return /^spiffe:\/\/[^/]+\/\*\*$/.test(entry) ? `${entry} (the whole trust domain)` : entry;
}
