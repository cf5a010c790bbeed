/** Services that are loaded when something asks for them: what a configuration does not name costs nothing at its start. */
import type { BundleEndpointConfig, Config, FederationConfig, OutboundConfig, SdsConfig } from './config/config.ts';
import type { Credentials, CredentialsDeps } from './credentials/service.ts';
import { parseEndpoint, type Address } from './config/units.ts';
import type { FederationClient } from './federation/client.ts';
import type { BundleEndpoint } from './federation/endpoint.ts';
import type { EndpointBundles } from './identity/snapshot.ts';
import type { IdentityPublisher, IdentityView } from './identity/store.ts';
import type { Clock } from './lib/clock.ts';
import type { Service } from './lib/service.ts';
import type { Watch } from './lib/watch.ts';
import type { Policy } from './policy/policy.ts';
import type { DenyList } from './policy/deny-list.ts';
import type { InboundListener } from './proxy/inbound.ts';
import type { SdsServer } from './sds/server.ts';
import type { JwtSource } from './workload-api/jwt-source.ts';
import type { Events } from './telemetry/events/events.ts';
import type { EndpointStatus, RelationStatus } from './telemetry/log/federation-records.ts';
import type { SdsStatus } from './telemetry/log/sds-records.ts';
import type { Refusals } from './telemetry/log/refusals.ts';
import type { TlsContexts } from './tls/contexts.ts';
import type { WebAuthorities } from './tls/web-authorities.ts';

/** Undefined where nothing leads to the public web. */
export async function webAuthorities(
  { outbound, credentials }: Config,
  { events, clock }: { readonly events: Events; readonly clock: Clock },
): Promise<WebAuthorities | undefined> {
  const web = [...outbound.flatMap(({ webPki }) => webPki ?? []), ...usedOf(outbound, credentials)];
  if (web.length === 0) return undefined;
  const { createWebAuthorities } = await import('./tls/web-authorities.ts');
  const files = [...new Set(web.flatMap(({ caFile }) => caFile ?? []))];
  return createWebAuthorities({ files, clock, reloaded: (file, outcome) => events.authoritiesReloaded(file, outcome) });
}

/** The credentials that a listener puts on requests: no others are fetched. */
function usedOf(outbound: readonly OutboundConfig[], credentials: Config['credentials']): Config['credentials'] {
  const names = new Set(outbound.map(({ attach }) => (attach?.token.kind === 'credential' ? attach.token.name : undefined)));
  return credentials.filter(({ name }) => names.has(name));
}

interface CredentialsParts extends Pick<CredentialsDeps, 'identity' | 'contexts' | 'clock' | 'random'> {
  readonly events: Events;
  /** Undefined until the Workload API is asked for anything. */
  readonly jwt: () => JwtSource | undefined;
}

/** Undefined where no token is put on requests or written to files: then nothing of it is loaded. */
export async function credentialsService(
  { outbound, credentials, files }: Config,
  authorities: WebAuthorities | undefined,
  { events, jwt, ...parts }: CredentialsParts,
): Promise<Credentials | undefined> {
  const attached = outbound.flatMap(({ name, attach }) => (attach === undefined ? [] : [{ listener: name, attach }]));
  const written = files.flatMap(({ name, jwtSvids }) => jwtSvids.map((file) => ({ set: name, file })));
  if (attached.length === 0 && written.length === 0) return undefined;
  const { createCredentials } = await import('./credentials/service.ts');
  return createCredentials({
    ...parts,
    credentials: usedOf(outbound, credentials),
    attached,
    written,
    authorities,
    events: events.credentials,
    jwt: (request, signal) =>
      jwt()?.fetch(request, signal) ??
      Promise.resolve({ ok: false, error: { code: 'agent_unavailable', message: 'the Workload API was not asked for anything yet' } }),
  });
}

/** Whether JWT-SVIDs of ours are fetched, which are verified by the JWT bundle of our own trust domain, or JWT bundles are written to files. */
export function needsOwnJwt({ outbound, credentials, files }: Config): boolean {
  if (files.some(({ jwtSvids, names }) => jwtSvids.length > 0 || names.jwtBundle !== undefined)) return true;
  return outbound.some(({ attach }) => attach?.token.kind === 'jwt') || usedOf(outbound, credentials).some(({ jwt }) => jwt !== undefined);
}

interface SdsParts {
  readonly config: SdsConfig;
  readonly identity: IdentityView;
  readonly policies: () => ReadonlyMap<string, Policy>;
  readonly denyList: () => DenyList;
  readonly events: Events;
  readonly clock: Clock;
  readonly random: () => number;
  /** Whose policy checks of Envoy are answered by. */
  readonly listener: (name: string) => InboundListener | undefined;
  readonly refusals: Refusals;
}

/** The SDS server, and with it gRPC, which is loaded when the other addresses are bound. */
export function sdsService({ events, listener, refusals, ...parts }: SdsParts): Service &
  Pick<SdsServer, 'address' | 'policyChanged'> & {
    status(): SdsStatus | undefined;
    describe(): unknown;
  } {
  let server: SdsServer | undefined;
  let status: SdsStatus | undefined;
  let describe: (() => unknown) | undefined;
  return {
    name: 'SDS',
    address: () => server?.address(),
    policyChanged: () => server?.policyChanged(),
    status: () => status,
    describe: () => describe?.(),
    async start(signal) {
      const { authorization: limits } = parts.config;
      const [{ createSdsServer }, { describeSds, sdsStatus }, ofChecks] = await Promise.all([
        import('./sds/server.ts'),
        import('./sds/status.ts'),
        limits && import('./ext-authz/service.ts'),
      ]);
      const checks = limits && ofChecks?.createCheckService({ ...parts, limits, listener, refusals, events: events.checks });
      const made = createSdsServer({ ...parts, events: events.sds, checks });
      server = made;
      status = sdsStatus(made);
      describe = () => describeSds(made);
      await server.start(signal);
    },
    async stop(deadline) {
      await server?.stop(deadline);
    },
  };
}

interface FederationParts {
  readonly relations: readonly FederationConfig[];
  readonly identity: IdentityView;
  readonly publish: (bundles: EndpointBundles) => void;
  readonly denyList: () => DenyList;
  readonly events: Events;
  readonly clock: Clock;
  readonly random: () => number;
}

/** The clients of bundle endpoints, and with them Node's HTTP, which are loaded when the addresses are bound. */
export function federationService({ events, ...parts }: FederationParts): Service & { status(): readonly RelationStatus[] } {
  let client: FederationClient | undefined;
  return {
    name: 'federation',
    status: () => client?.status() ?? [],
    async start(signal) {
      const { createFederationClient } = await import('./federation/client.ts');
      client = createFederationClient({ ...parts, events: events.federation });
      await client.start(signal);
    },
    async stop(deadline) {
      await client?.stop(deadline);
    },
  };
}

interface BundleEndpointParts {
  readonly config: BundleEndpointConfig;
  readonly identity: IdentityView;
  readonly contexts: TlsContexts;
  readonly events: Events;
  readonly clock: Clock;
  readonly maxConnections: number;
}

/** Our own bundle endpoint, and with it Node's HTTP. */
export function bundleEndpointService({ events, ...parts }: BundleEndpointParts): Service & {
  address(): Address | undefined;
  status(): EndpointStatus | undefined;
  connections(): number;
} {
  let endpoint: BundleEndpoint | undefined;
  return {
    name: 'bundle endpoint',
    address: () => endpoint?.address(),
    status: () => endpoint?.status(),
    connections: () => endpoint?.connections() ?? 0,
    async start(signal) {
      const { createBundleEndpoint } = await import('./federation/endpoint.ts');
      endpoint = createBundleEndpoint({ ...parts, events: events.federation });
      await endpoint.start(signal);
    },
    async stop(deadline) {
      await endpoint?.stop(deadline);
    },
  };
}

interface SourceParts {
  readonly identity: IdentityView;
  readonly events: Events;
  /** Somebody needs JWT bundles, or JWT-SVIDs of ours: if not, no call is made about them. */
  readonly needsJwt: boolean;
  readonly clock: Clock;
  readonly publisher: IdentityPublisher;
  readonly endpointBundles: Watch<EndpointBundles>;
  readonly random: () => number;
}

/** The Workload API source, and with it gRPC, which is loaded when the addresses are bound. */
export function workloadApi(
  endpointText: string,
  { needsJwt, identity, events, clock, publisher, endpointBundles, random }: SourceParts,
): Service & { tokens(): JwtSource | undefined } {
  let source: Service | undefined;
  let tokens: JwtSource | undefined;
  return {
    name: 'workload API source',
    tokens: () => tokens,
    async start(signal) {
      const endpoint = parseEndpoint(endpointText);
      if (!endpoint.ok) throw new Error(endpoint.error);
      const [{ createWorkloadApiClient }, { createWorkloadApiSource }, ofTokens] = await Promise.all([
        import('./workload-api/client.ts'),
        import('./workload-api/source.ts'),
        needsJwt ? import('./workload-api/jwt-source.ts') : undefined,
      ]);
      const client = createWorkloadApiClient({ endpoint: endpoint.value, clock });
      tokens = ofTokens?.createJwtSource({ client, bundles: () => identity.current()?.jwtBundles, clock });
      source = createWorkloadApiSource({
        client,
        publisher,
        endpointBundles,
        events,
        jwt: needsJwt ? events.jwt : undefined,
        clock,
        random,
      });
      await source.start(signal);
    },
    async stop(deadline) {
      await source?.stop(deadline);
    },
  };
}
