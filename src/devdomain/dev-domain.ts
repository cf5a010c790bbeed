import { dirname } from 'node:path';
import { create, type DescMessage, equals, type MessageShape } from '@bufbuild/protobuf';
import { type Metadata, status } from '@grpc/grpc-js';
import { JWTBundlesResponseSchema, X509BundlesResponseSchema, X509SVIDResponseSchema, X509SVIDSchema } from '../gen/workload_pb.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { oneAtATime } from '../lib/in-turn.ts';
import { type Service, startAll, stopAll } from '../lib/service.ts';
import type { Watch } from '../lib/watch.ts';
import { toPem } from '../spiffe/x509/pem.ts';
import { parseSpiffeId, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { chainPem, type IssuedSvid } from './authority.ts';
import { type DevConfig, type DevTrustDomain, type DevWorkload, rotationPeriodMs, workloadName } from './config.ts';
import { createFootprint } from './files.ts';
import { createJwtAnswers } from './jwt-answers.ts';
import { createTrustDomainAuthorities, type IssueOptions, type TrustDomainAuthorities } from './trust-domain-authorities.ts';
import {
  type Answer,
  createAnswers,
  createWorkloadApiServer,
  refusal,
  type WorkloadApiAnswers,
  type WorkloadApiServer,
} from './workload-api-server.ts';

export interface DevDomainDeps {
  readonly clock: Clock;
  /** A rotation failed; what was issued before stays in force. */
  readonly onFailure: (failure: unknown) => void;
  /** Told of each Workload API call, also of those refused. */
  readonly onCall?: ((workload: string, method: string, metadata: Metadata) => void) | undefined;
}

export interface IssuedPem extends IssuedSvid {
  readonly certPem: string;
  /** Leaf and intermediates. */
  readonly chainPem: string;
  /** The authorities of the trust domain that signed. */
  readonly bundlePem: string;
  /** PKCS #8. */
  readonly keyPem: string;
}

/** Trust domains in memory, with a Workload API socket for each workload. To try and to test with; never in production. */
export interface DevDomain extends Service {
  /** In the order of the configuration. */
  workloads(): readonly { readonly name: string; readonly endpoint: string; readonly ids: readonly string[] }[];
  /** The value for SPIFFE_ENDPOINT_SOCKET of a workload. */
  endpoint(workload: string): string;
  /** New SVIDs for every workload of one trust domain, or of all. */
  rotate(trustDomain?: string): Promise<void>;
  /** A new authority takes over: first every bundle holds both, then SVIDs are signed by the new one. The old one stays in the bundle. */
  rotateRoot(trustDomain: string): Promise<void>;
  /** First half of `rotateRoot`: a second authority in the bundle, which does not sign yet. */
  prepareRoot(trustDomain: string): Promise<void>;
  /** Second half: new SVIDs, signed by the authority that was prepared. */
  activateRoot(trustDomain: string): Promise<void>;
  /** The authorities that no longer sign leave the bundle. */
  retireRoots(trustDomain: string): Promise<void>;
  /** The workload has no identity: PermissionDenied on its streams. */
  withdraw(workload: string): Promise<void>;
  restore(workload: string): Promise<void>;
  /** The trust domains whose bundles the workloads of `trustDomain` get from now on. */
  setFederation(trustDomain: string, others: readonly string[]): Promise<void>;
  /** Puts serial numbers on the revocation list of their trust domain. */
  revoke(trustDomain: string, serial: Uint8Array): Promise<void>;
  /** A certificate that goes to nobody's socket. Signed by the trust domain of `id`, or by another one. */
  issue(id: string, options?: IssueOptions & { readonly signedBy?: string | undefined }): Promise<IssuedPem>;
  bundlePem(trustDomain: string): string;
  /** Ends the open streams of a workload, as an agent that restarts does. */
  endStreams(workload: string, code?: status): void;
  /** What the workload is told. Whoever sets it sends any message, until the next change of the trust domain. */
  answers(workload: string): WorkloadApiAnswers;
}

interface DomainState {
  readonly config: DevTrustDomain;
  readonly authorities: TrustDomainAuthorities;
  federatesWith: readonly TrustDomain[];
  writtenBundle: string | undefined;
  nextRotation: { readonly wallMs: number; readonly monotonicMs: number };
}

interface WorkloadEntry {
  readonly name: string;
  readonly config: DevWorkload;
  readonly domain: DomainState;
  readonly answers: WorkloadApiAnswers;
  readonly server: WorkloadApiServer;
  svids: readonly IssuedSvid[];
  withdrawn: boolean;
}

/** How often clocks are looked at. Both, because monotonic time stands still while the machine sleeps. */
const LONGEST_NAP_MS = 10_000;

export function createDevDomain(config: DevConfig, deps: DevDomainDeps): DevDomain {
  const { clock } = deps;
  const footprint = createFootprint();
  const domains = new Map<string, DomainState>();
  const workloads = new Map<string, WorkloadEntry>();
  let timer: Timer | undefined;
  let running = false;

  // One change at a time, so that none publishes what another has already replaced.
  const inTurn = oneAtATime();

  const domainOf = (name: string): DomainState => required(domains.get(name), `no trust domain ${JSON.stringify(name)}`);
  const workloadOf = (name: string): WorkloadEntry => required(workloads.get(name), `no workload ${JSON.stringify(name)}`);

  const addWorkload = (workload: DevWorkload, domain: DomainState): void => {
    const name = workloadName(workload);
    const answers = createAnswers(
      createJwtAnswers({
        identities: () => (entry.withdrawn ? [] : workload.ids),
        domains: () => visibleDomains(domain, domains),
        now: () => clock.now(),
      }),
    );
    const endpoint =
      workload.socket === undefined
        ? { kind: 'tcp' as const, port: workload.unsafeTcpPort ?? 0 }
        : { kind: 'unix' as const, path: workload.socket, mode: workload.socketMode };
    const onCall = (method: string, metadata: Metadata): void => deps.onCall?.(name, method, metadata);
    const server = createWorkloadApiServer({ name, endpoint, answers, onCall });
    const entry: WorkloadEntry = { name, config: workload, domain, answers, server, svids: [], withdrawn: false };
    workloads.set(name, entry);
  };

  const issueSvids = async (domain: DomainState): Promise<void> => {
    for (const workload of workloads.values()) {
      if (workload.domain !== domain) continue;
      workload.svids = await Promise.all(workload.config.ids.map(({ id, dnsNames }) => domain.authorities.issue(id, { dnsNames })));
    }
    const period = rotationPeriodMs(domain.config);
    domain.nextRotation = { wallMs: clock.now() + period, monotonicMs: clock.monotonic() + period };
  };

  const publish = async (): Promise<void> => {
    for (const workload of workloads.values()) publishAnswers(workload, visibleDomains(workload.domain, domains));
    for (const domain of domains.values()) {
      const pem = domain.authorities.bundlePem();
      if (domain.config.bundleFile === undefined || domain.writtenBundle === pem) continue;
      await footprint.makeFolder(dirname(domain.config.bundleFile));
      await footprint.writePublicFile(domain.config.bundleFile, pem);
      domain.writtenBundle = pem;
    }
  };

  const change = (body: () => Promise<void> | void): Promise<void> =>
    inTurn(async () => {
      await body();
      await publish();
    });

  const rotateDue = async (): Promise<void> => {
    for (const domain of domains.values()) {
      const { wallMs, monotonicMs } = domain.nextRotation;
      if (clock.now() < wallMs && clock.monotonic() < monotonicMs) continue;
      await domain.authorities.age();
      await issueSvids(domain);
      await publish();
    }
  };

  const arm = (): void => {
    if (!running) return;
    const waits = [...domains.values()].map(({ nextRotation }) => nextRotation.monotonicMs - clock.monotonic());
    timer = clock.after(Math.min(LONGEST_NAP_MS, ...waits), () => {
      inTurn(rotateDue)
        .catch((failure: unknown) => {
          deps.onFailure(failure);
          const retry = { wallMs: clock.now() + LONGEST_NAP_MS, monotonicMs: clock.monotonic() + LONGEST_NAP_MS };
          for (const domain of domains.values()) domain.nextRotation = retry;
        })
        .finally(arm)
        .catch(deps.onFailure);
    });
  };

  return {
    name: 'embedded trust domain',
    async start(signal) {
      for (const domain of config.trustDomains) {
        const authorities = await createTrustDomainAuthorities(domain, () => clock.now());
        const nextRotation = { wallMs: 0, monotonicMs: 0 };
        const state: DomainState = {
          config: domain,
          authorities,
          federatesWith: domain.federatesWith,
          writtenBundle: undefined,
          nextRotation,
        };
        domains.set(domain.name, state);
        for (const workload of domain.workloads) addWorkload(workload, state);
      }
      for (const domain of domains.values()) await issueSvids(domain);
      try {
        await publish();
        for (const { config: workload } of workloads.values()) {
          if (workload.socket !== undefined) await footprint.makeFolder(dirname(workload.socket));
        }
        signal.throwIfAborted();
        await startAll(
          [...workloads.values()].map(({ server }) => server),
          signal,
        );
      } catch (cause) {
        await footprint.remove();
        throw cause;
      }
      running = true;
      arm();
    },
    async stop(deadline) {
      running = false;
      timer?.cancel();
      await inTurn(() => Promise.resolve());
      const failures = await stopAll(
        [...workloads.values()].map(({ server }) => server),
        deadline,
      );
      await footprint.remove();
      if (failures.length > 0) throw new AggregateError(failures, 'the embedded trust domain did not stop cleanly');
    },
    workloads: () =>
      [...workloads.values()].map(({ name, server, config: { ids } }) => ({
        name,
        endpoint: server.endpoint(),
        ids: ids.map(({ id }) => id),
      })),
    endpoint: (workload) => workloadOf(workload).server.endpoint(),
    rotate: (trustDomain) =>
      change(async () => {
        for (const domain of trustDomain === undefined ? domains.values() : [domainOf(trustDomain)]) await issueSvids(domain);
      }),
    async rotateRoot(trustDomain) {
      await this.prepareRoot(trustDomain);
      await this.activateRoot(trustDomain);
    },
    prepareRoot: (trustDomain) => change(() => domainOf(trustDomain).authorities.prepare()),
    activateRoot: (trustDomain) =>
      change(async () => {
        const domain = domainOf(trustDomain);
        await domain.authorities.activate();
        await issueSvids(domain);
      }),
    retireRoots: (trustDomain) => change(() => domainOf(trustDomain).authorities.retire()),
    withdraw: (workload) =>
      change(() => {
        workloadOf(workload).withdrawn = true;
      }),
    restore: (workload) =>
      change(() => {
        workloadOf(workload).withdrawn = false;
      }),
    setFederation: (trustDomain, others) =>
      change(() => {
        domainOf(trustDomain).federatesWith = others.map((other) => domainOf(other).config.name);
      }),
    revoke: (trustDomain, serial) => change(() => domainOf(trustDomain).authorities.revoke(serial)),
    async issue(id, { signedBy, ...options } = {}) {
      const parsed = parseSpiffeId(id);
      const signer = signedBy ?? (parsed.ok ? trustDomainOf(parsed.value) : '');
      const { authorities } = domainOf(signer);
      const svid = await authorities.issue(id, options);
      return {
        ...svid,
        certPem: svid.chainDer
          .slice(0, 1)
          .map((der) => toPem(der))
          .join(''),
        chainPem: chainPem(svid),
        bundlePem: authorities.bundlePem(),
        keyPem: svid.key.export({ type: 'pkcs8', format: 'pem' }),
      };
    },
    bundlePem: (trustDomain) => domainOf(trustDomain).authorities.bundlePem(),
    endStreams: (workload, code = status.UNAVAILABLE) => workloadOf(workload).server.endStreams(code, 'the agent restarts'),
    answers: (workload) => workloadOf(workload).answers,
  };
}

/** Its own trust domain first, then those that it federates with. */
function visibleDomains(domain: DomainState, all: ReadonlyMap<string, DomainState>): Map<TrustDomain, TrustDomainAuthorities> {
  const visible = new Map([[domain.config.name, domain.authorities]]);
  for (const name of domain.federatesWith) {
    const other = all.get(name);
    if (other !== undefined) visible.set(name, other.authorities);
  }
  return visible;
}

function publishAnswers(workload: WorkloadEntry, visible: ReadonlyMap<TrustDomain, TrustDomainAuthorities>): void {
  const { answers, domain } = workload;
  const x509Bundles: Record<string, Uint8Array> = {};
  const jwtBundles: Record<string, Uint8Array> = {};
  const federatedBundles: Record<string, Uint8Array> = {};
  const crl: Uint8Array[] = [];
  for (const [name, authorities] of visible) {
    const key = `spiffe://${name}`;
    x509Bundles[key] = authorities.bundleDer();
    jwtBundles[key] = authorities.jwks();
    if (name !== domain.config.name) federatedBundles[key] = authorities.bundleDer();
    const list = authorities.revocationList();
    if (list !== undefined) crl.push(list);
  }
  const bundle = domain.authorities.bundleDer();
  const svids = workload.svids.map((svid, index) =>
    create(X509SVIDSchema, {
      spiffeId: svid.id,
      x509Svid: Buffer.concat(svid.chainDer),
      x509SvidKey: svid.key.export({ type: 'pkcs8', format: 'der' }),
      bundle,
      hint: workload.config.ids[index]?.hint ?? '',
    }),
  );
  const withoutIdentity = workload.withdrawn || svids.length === 0 ? refusal(status.PERMISSION_DENIED, 'no identity issued') : undefined;
  const bundlesRefused = domain.config.bundlesWithoutIdentity ? undefined : withoutIdentity;
  // Bundles first: whoever is told of a new SVID can be sure that bundles already admit it.
  setIfChanged(
    answers.x509Bundles,
    X509BundlesResponseSchema,
    bundlesRefused ?? message(create(X509BundlesResponseSchema, { bundles: x509Bundles, crl })),
  );
  setIfChanged(
    answers.jwtBundles,
    JWTBundlesResponseSchema,
    bundlesRefused ?? message(create(JWTBundlesResponseSchema, { bundles: jwtBundles })),
  );
  setIfChanged(
    answers.x509Svids,
    X509SVIDResponseSchema,
    withoutIdentity ?? message(create(X509SVIDResponseSchema, { svids, federatedBundles, crl })),
  );
}

function message<T>(value: T): Answer<T> {
  return { kind: 'message', message: value };
}

function setIfChanged<Schema extends DescMessage>(
  watch: Watch<Answer<MessageShape<Schema>>>,
  schema: Schema,
  answer: Answer<MessageShape<Schema>>,
): void {
  const held = watch.get();
  if (held?.kind === 'message' && answer.kind === 'message' && equals(schema, held.message, answer.message)) return;
  watch.set(answer);
}

function required<T>(value: T | undefined, problem: string): T {
  if (value === undefined) throw new Error(problem);
  return value;
}
