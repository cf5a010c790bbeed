import type { FederationConfig } from '../config/config.ts';
import { readOnlyMap } from '../identity/read-only-map.ts';
import type { EndpointBundles, IdentitySnapshot } from '../identity/snapshot.ts';
import type { IdentityView } from '../identity/store.ts';
import { createBackoff, type Backoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { Service } from '../lib/service.ts';
import { parseBundleDocument } from '../spiffe/bundle-document.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import { buildTrustBundle, type TrustBundle } from '../spiffe/trust-bundle.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import type { FederationEvents } from '../telemetry/events/federation-events.ts';
import type { FetchProblem, RefreshProblem, RelationStatus } from '../telemetry/log/federation-records.ts';
import { strangersWords } from '../telemetry/log/scrub.ts';
import type { DenyList } from '../policy/deny-list.ts';
import { spiffeTrust, webTrust, type EndpointTrust } from '../tls/endpoint-trust.ts';
import { fetchDocument } from './fetch.ts';
import { FederationFileError, readAuthorities } from './files.ts';
import { compareDocuments, refreshInterval, type HeldDocument } from './refresh.ts';

export interface FederationDeps {
  readonly relations: readonly FederationConfig[];
  readonly identity: IdentityView;
  /** The Workload API source, which alone decides what becomes of them. Called when something changed. */
  readonly publish: (bundles: EndpointBundles) => void;
  /** The one in force: it names endpoints, too. */
  readonly denyList: () => DenyList;
  readonly events: FederationEvents;
  readonly clock: Clock;
  /** Uniform in [0, 1): jitter. */
  readonly random: () => number;
}

export interface FederationClient extends Service {
  status(): readonly RelationStatus[];
}

/** A partner chooses what is quoted in it. */
const MAX_DETAIL = 500;
/** While nothing is held, an endpoint that is not there yet is asked soon. */
const FIRST_RETRY = { initialMs: 1000, maxMs: 60_000 };
/** The share of an interval that is left to chance, so that many sidecars do not ask at once. */
const JITTER = 0.1;

/**
 * Fetches the bundles of other trust domains from their endpoints, over and over. The last good one is kept. `start` fails if a file cannot
 * be used, and waits for no endpoint.
 */
export function createFederationClient({ relations, identity, publish, ...deps }: FederationDeps): FederationClient {
  const stopping = new AbortController();
  const bundles = new Map<TrustDomain, TrustBundle>();
  const all = relations.map(
    (config) =>
      new Relation(config, {
        ...deps,
        identity,
        bundleOf: (domain) => identity.current()?.bundles.get(domain) ?? bundles.get(domain),
        taken(bundle) {
          bundles.set(bundle.trustDomain, bundle);
          publish(
            readOnlyMap(all.flatMap(({ document, trustDomain }) => (document === undefined ? [] : [[trustDomain, document] as const]))),
          );
        },
      }),
  );
  let running: Promise<unknown> = Promise.resolve();
  return {
    name: 'federation',
    async start(signal) {
      signal.throwIfAborted();
      for (const relation of all) await relation.checkFile();
      running = Promise.all(all.map((relation) => relation.run(stopping.signal)));
      // A refresh that fails is the daily work of a relation. Should it fail itself, that is a mistake of ours, and ends the process.
      running.catch((mistake: unknown) => {
        queueMicrotask(() => {
          throw mistake;
        });
      });
    },
    async stop() {
      stopping.abort();
      await running;
    },
    status: () => all.map((relation) => relation.status()),
  };
}

interface RelationDeps extends Pick<FederationDeps, 'identity' | 'events' | 'clock' | 'random' | 'denyList'> {
  /** The newest that is known: in force, or fetched. */
  bundleOf(domain: TrustDomain): TrustBundle | undefined;
  taken(bundle: TrustBundle): void;
}

/** One endpoint, and what it gave. */
class Relation {
  readonly trustDomain: TrustDomain;
  readonly #config: FederationConfig;
  readonly #deps: RelationDeps;
  readonly #url: URL;
  readonly #firstRetry: Backoff;
  #held: HeldDocument | undefined;
  #lastSuccessMs: number | undefined;
  #nextRefreshMs: number | undefined;
  #problem: FetchProblem | undefined;

  constructor(config: FederationConfig, deps: RelationDeps) {
    this.#config = config;
    this.#deps = deps;
    this.trustDomain = config.trustDomain;
    this.#url = new URL(config.url);
    this.#firstRetry = createBackoff({ ...FIRST_RETRY, random: deps.random });
    deps.events.relation(config.trustDomain);
  }

  get document() {
    return this.#held?.document;
  }

  async checkFile(): Promise<void> {
    const file = fileOf(this.#config);
    if (file === undefined) return;
    const read = await readAuthorities(file);
    if (!read.ok) throw new FederationFileError(`federation with ${this.trustDomain}: ${read.error}`);
  }

  async run(signal: AbortSignal): Promise<void> {
    const { identity, clock } = this.#deps;
    let nap = new AbortController();
    const leave = identity.subscribe((snapshot) => {
      // Said at once, and not when the next refresh is due.
      if (isOurs(this.trustDomain, snapshot) && this.#problem?.reason !== 'own_trust_domain') nap.abort();
    });
    while (!signal.aborted) {
      nap = new AbortController();
      const waitMs = await this.#refresh(signal);
      await clock.sleep(waitMs, AbortSignal.any([signal, nap.signal]));
    }
    leave();
  }

  status(): RelationStatus {
    const snapshot = this.#deps.identity.current();
    const fetched = snapshot?.kind === 'held' && snapshot.endpointBundles.has(this.trustDomain);
    return {
      trustDomain: this.trustDomain,
      url: this.#config.url,
      inForce: fetched ? 'bundle_endpoint' : snapshot?.bundles.has(this.trustDomain) === true ? 'workload_api' : undefined,
      sequence: this.document?.sequence,
      jwtAuthorities: this.document?.jwtAuthorities.length ?? 0,
      lastSuccessMs: this.#lastSuccessMs,
      nextRefreshMs: this.#nextRefreshMs,
      problem: this.#problem,
    };
  }

  /** Asks once. Returns how long to wait. */
  async #refresh(signal: AbortSignal): Promise<number> {
    const { clock, events } = this.#deps;
    const fetched = await this.#fetch(signal);
    if (signal.aborted) return 0;
    if (!fetched.ok) return this.#failed(fetched.error);
    const parsed = parseBundleDocument(fetched.value);
    if (!parsed.ok) return this.#failed({ reason: parsed.error.code, detail: parsed.error.message });
    const compared = compareDocuments(this.#held, parsed.value, clock.monotonic());
    const bundle = trustBundle(this.trustDomain, compared.held.document.authorities);
    if (!bundle.ok) return this.#failed({ reason: 'bad_key', detail: bundle.error });
    this.#held = compared.held;
    if (compared.kind === 'older') return this.#failed({ reason: 'older', detail: compared.detail });
    this.#problem = undefined;
    this.#firstRetry.reset();
    this.#lastSuccessMs = clock.now();
    const waitMs = this.#plan(this.#interval());
    if (compared.kind === 'unchanged') events.bundleUnchanged(this.trustDomain, waitMs);
    else {
      const { sequence, authorities, jwtAuthorities } = parsed.value;
      const counts = { authorities: authorities.length, jwtAuthorities: jwtAuthorities.length };
      events.bundleTaken(this.trustDomain, { sequence, ...counts }, waitMs);
      this.#deps.taken(bundle.value);
    }
    return waitMs;
  }

  async #fetch(signal: AbortSignal): Promise<Result<Uint8Array, FetchProblem>> {
    if (isOurs(this.trustDomain, this.#deps.identity.current()))
      return refuse('own_trust_domain', `${this.trustDomain} is our own trust domain, whose bundle comes from the Workload API alone`);
    const trust = await this.#trust();
    return trust.ok ? fetchDocument(this.#url, trust.value, this.#deps.clock, signal) : trust;
  }

  /** By what the endpoint is judged this time: its own trust domain's bundle as it is known now, or what a file says. */
  async #trust(): Promise<Result<EndpointTrust, FetchProblem>> {
    const { profile } = this.#config;
    const file = fileOf(this.#config);
    if (profile.kind === 'https_spiffe') {
      const domain = trustDomainOf(profile.endpointSpiffeId);
      const known = this.#deps.bundleOf(domain);
      if (known !== undefined) return ok(spiffeTrust(profile.endpointSpiffeId, known, this.#deps.denyList));
      if (file === undefined) return refuse('no_bundle', `there is no bundle of ${domain} to judge ${profile.endpointSpiffeId} by`);
      const authorities = await readAuthorities(file);
      if (!authorities.ok) return refuse('bad_file', authorities.error);
      const bundle = trustBundle(domain, authorities.value);
      return bundle.ok ? ok(spiffeTrust(profile.endpointSpiffeId, bundle.value, this.#deps.denyList)) : refuse('bad_file', bundle.error);
    }
    if (file === undefined) return ok(webTrust('web'));
    const authorities = await readAuthorities(file);
    return authorities.ok ? ok(webTrust(authorities.value.map((authority) => authority.pem()))) : refuse('bad_file', authorities.error);
  }

  #failed({ reason, detail }: FetchProblem): number {
    const problem = { reason, detail: strangersWords(detail, MAX_DETAIL) };
    this.#problem = problem;
    const waitMs = this.#plan(this.#held === undefined && reason !== 'own_trust_domain' ? this.#firstRetry.next() : this.#interval());
    this.#deps.events.refreshFailed(this.trustDomain, problem, waitMs);
    return waitMs;
  }

  #interval(): number {
    return refreshInterval(this.document) * (1 - JITTER * this.#deps.random());
  }

  #plan(waitMs: number): number {
    this.#nextRefreshMs = this.#deps.clock.now() + waitMs;
    return waitMs;
  }
}

function fileOf({ profile }: FederationConfig): string | undefined {
  return profile.kind === 'https_spiffe' ? profile.bundleFile : profile.caFile;
}

/** Whether the Workload API has given us an identity of this trust domain. */
function isOurs(domain: TrustDomain, snapshot: IdentitySnapshot | undefined): boolean {
  return snapshot?.kind === 'held' && snapshot.svids.some(({ id }) => trustDomainOf(id) === domain);
}

function trustBundle(domain: TrustDomain, authorities: readonly Certificate[]): Result<TrustBundle, string> {
  const built = buildTrustBundle(domain, Buffer.concat(authorities.map((authority) => authority.der())));
  return built.ok ? built : err(built.error.message);
}

function refuse(reason: RefreshProblem, detail: string): Result<never, FetchProblem> {
  return err({ reason, detail });
}
