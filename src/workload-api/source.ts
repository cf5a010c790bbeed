import { createBackoff, type Backoff, type BackoffOptions } from '../lib/backoff.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import type { Service } from '../lib/service.ts';
import type { Watch } from '../lib/watch.ts';
import { readOnlyMap } from '../identity/read-only-map.ts';
import type { EndpointBundles, HeldIdentity, IdentitySnapshot, NoIdentity } from '../identity/snapshot.ts';
import type { IdentityPublisher } from '../identity/store.ts';
import type { Events } from '../telemetry/events/events.ts';
import type { JwtEvents } from '../telemetry/events/jwt-events.ts';
import type { BundleDocument } from '../spiffe/bundle-document.ts';
import { jwtBundleOf, type JwtBundles } from '../spiffe/jwt-bundle.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { Ageing } from './ageing.ts';
import type { WorkloadApiClient } from './client.ts';
import { ClockWatch } from './clock-watch.ts';
import { decodeX509Bundles, decodeX509Svids, type Bundles, type DecodedSvids, type UpdateProblem } from './decode.ts';
import { WorkloadApiError } from './errors.ts';
import { JwtBundleStream } from './jwt-bundles.ts';
import { StreamKeeper, type Reception } from './stream.ts';

export interface SourceDeps {
  readonly client: WorkloadApiClient;
  readonly publisher: IdentityPublisher;
  /** What bundle endpoints gave: for trust domains that the Workload API says nothing of. */
  readonly endpointBundles?: Pick<Watch<EndpointBundles>, 'get' | 'subscribe'> | undefined;
  readonly events: Pick<
    Events,
    'workloadApiConnected' | 'workloadApiStreamFailed' | 'identityUpdated' | 'endpointBundlesUpdated' | 'identityUpdateRejected'
  >;
  /** Who is told of JWT bundles. Undefined: nobody needs them, and no call of the JWT profile is made. */
  readonly jwt?: Omit<JwtEvents, 'countTokens'> | undefined;
  readonly clock: Clock;
  /** Uniform in [0, 1), for the jitter of the back-off. */
  readonly random: () => number;
}

const RETRY: Omit<BackoffOptions, 'random'> = { initialMs: 100, maxMs: 30_000 };
/** How often to look for a clock that jumped and an SVID that ages. */
const TICK_MS = 2000;

/** Keeps the identity store up to date from the Workload API, and adds what bundle endpoints gave. The only writer of identity. `start` does not wait for a first SVID. */
export function createWorkloadApiSource(deps: SourceDeps): Service {
  return new WorkloadApiSource(deps);
}

class WorkloadApiSource implements Service {
  readonly name = 'workload-api';
  readonly #deps: SourceDeps;
  readonly #stopping = new AbortController();
  readonly #running = new Set<Promise<void>>();
  readonly #svids: StreamKeeper;
  readonly #clockWatch: ClockWatch;
  readonly #ageing: Ageing;
  readonly #jwt: JwtBundleStream | undefined;
  #held: IdentitySnapshot | undefined;
  /** The last message that gave us SVIDs, while they are held. */
  #given: DecodedSvids | undefined;
  #leaveEndpoints: (() => void) | undefined;
  #svidsFingerprint: string | undefined;
  #bundlesFingerprint: string | undefined;
  #endBundles: AbortController | undefined;
  #tick: Timer | undefined;

  constructor(deps: SourceDeps) {
    this.#deps = deps;
    this.#clockWatch = new ClockWatch(deps.clock);
    this.#ageing = new Ageing(deps.clock, deps.random);
    this.#svids = new StreamKeeper(
      {
        subscription: deps.client.x509Svids(),
        connected: () => deps.events.workloadApiConnected(deps.client.endpoint),
        receive: (message) => this.#receiveSvids(message),
        ended: (error, retryInMs) => {
          if (error.meansNoIdentity()) this.#withdraw(error);
          this.#report(error, retryInMs);
        },
      },
      deps.clock,
      this.#backoff(),
    );
    const { client, clock, jwt } = deps;
    this.#jwt =
      jwt && new JwtBundleStream({ client, clock, events: jwt, backoff: this.#backoff(), changed: () => this.#jwtBundlesChanged() });
  }

  start(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.reject(signal.reason);
    this.#leaveEndpoints = this.#deps.endpointBundles?.subscribe(() => this.#endpointsChanged());
    this.#run(this.#svids, this.#stopping.signal);
    if (this.#jwt !== undefined) this.#run(this.#jwt, this.#stopping.signal);
    this.#armTick();
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#leaveEndpoints?.();
    this.#endBundles?.abort();
    this.#tick?.cancel();
    await Promise.all(this.#running);
  }

  #receiveSvids(message: Uint8Array): Reception {
    const decoded = decodeX509Svids(message);
    if (!decoded.ok) return this.#reject(decoded.error);
    if (decoded.value.fingerprint === this.#svidsFingerprint) return 'same';
    const built = decoded.value.build(this.#deps.clock.now());
    if (!built.ok) return this.#reject(built.error);
    this.#leaveBundles();
    this.#given = built.value;
    this.#deps.events.identityUpdated(this.#publishHeld(built.value, this.#deps.clock.now()));
    this.#svidsFingerprint = decoded.value.fingerprint;
    this.#ageing.renewed(built.value.svids[0]);
    return 'new';
  }

  /** PermissionDenied: everything is withdrawn; authorities alone may still be had from FetchX509Bundles. */
  #withdraw(error: WorkloadApiError): void {
    if (this.#held?.kind === 'none') return;
    this.#svidsFingerprint = undefined;
    this.#given = undefined;
    this.#ageing.renewed(undefined);
    this.#publishNone(new Map(), `the Workload API gives us no identity: ${error.message}`);
    this.#watchBundles();
  }

  #watchBundles(): void {
    const { client, clock } = this.#deps;
    const end = new AbortController();
    const keeper = new StreamKeeper(
      {
        subscription: client.x509Bundles(),
        connected: () => {},
        receive: (message) => this.#receiveBundles(message),
        ended: (error, retryInMs) => {
          // That we have no identity is known, and reported, from the stream of SVIDs.
          if (!error.meansNoIdentity()) this.#report(error, retryInMs);
          else this.#keepBundles(new Map(), undefined);
        },
      },
      clock,
      this.#backoff(),
    );
    this.#endBundles = end;
    this.#run(keeper, end.signal);
  }

  #receiveBundles(message: Uint8Array): Reception {
    const decoded = decodeX509Bundles(message);
    if (!decoded.ok) return this.#reject(decoded.error);
    if (decoded.value.fingerprint === this.#bundlesFingerprint) return 'same';
    const built = decoded.value.build(this.#deps.clock.now());
    if (!built.ok) return this.#reject(built.error);
    this.#keepBundles(built.value, decoded.value.fingerprint);
    return 'new';
  }

  #keepBundles(bundles: Bundles, fingerprint: string | undefined): void {
    if (this.#held?.kind !== 'none') return;
    this.#bundlesFingerprint = fingerprint;
    if (bundles.size > 0 || this.#held.bundles.size > 0) this.#publishNone(bundles, this.#held.reason);
  }

  #leaveBundles(): void {
    this.#endBundles?.abort();
    this.#endBundles = undefined;
    this.#bundlesFingerprint = undefined;
  }

  #publishNone(bundles: Bundles, reason: string): void {
    // Without an identity we cannot say which trust domain is ours: nothing of endpoints is put beside it.
    const content = { kind: 'none', reason, bundles, receivedAtMs: this.#deps.clock.now() } as const;
    this.#deps.events.identityUpdated(this.#publish<NoIdentity>(content));
  }

  #publishHeld(given: DecodedSvids, receivedAtMs: number): IdentitySnapshot {
    const { svids } = given;
    return this.#publish<HeldIdentity>({
      kind: 'held',
      svids,
      receivedAtMs,
      ...withEndpointBundles(given, this.#deps.endpointBundles?.get()),
    });
  }

  /** The Workload API has said nothing new, so it is still that time which the snapshot has. */
  #endpointsChanged(): void {
    if (this.#given === undefined || this.#held?.kind !== 'held') return;
    this.#deps.events.endpointBundlesUpdated(this.#publishHeld(this.#given, this.#held.receivedAtMs));
  }

  /** They are of a profile of their own: what we hold of X.509 is as it was. Before there is anything of it, they wait for that. */
  #jwtBundlesChanged(): void {
    if (this.#held === undefined) return;
    const { generation: _, ...content } = this.#held;
    this.#deps.jwt?.bundlesUpdated(this.#publish<IdentitySnapshot>(content));
  }

  #publish<S extends IdentitySnapshot>(content: Omit<S, 'generation'>): S {
    const generation = (this.#held?.generation ?? 0) + 1;
    const jwtBundles = withEndpointKeys(
      this.#jwt?.current,
      'endpointBundles' in content ? (content.endpointBundles as EndpointBundles) : NOTHING,
    );
    const snapshot = Object.freeze({ ...content, jwtBundles, generation }) as unknown as S;
    this.#held = snapshot;
    this.#deps.publisher.publish(snapshot);
    return snapshot;
  }

  #reject(problem: UpdateProblem): Reception {
    this.#deps.events.identityUpdateRejected(problem);
    return 'rejected';
  }

  #report(error: WorkloadApiError, retryInMs: number): void {
    this.#deps.events.workloadApiStreamFailed({ code: error.endCode, message: error.message }, retryInMs);
  }

  #armTick(): void {
    this.#tick = this.#deps.clock.after(TICK_MS, () => {
      this.#look();
      if (!this.#stopping.signal.aborted) this.#armTick();
    });
  }

  /** A stream that is silent because nothing changed looks like one that is dead. Two signs make us ask again. */
  #look(): void {
    const jumpedMs = this.#clockWatch.jumpedByMs();
    if (jumpedMs !== 0) {
      // What is valid now is another question than before: the next message is judged afresh, even if it says the same.
      this.#svidsFingerprint = undefined;
      const text = `the wall clock jumped by ${Math.round(jumpedMs / 1000)} s: asking for the current identity`;
      const reason = new WorkloadApiError(text, { endCode: 'CLOCK_JUMPED' });
      this.#svids.reconnect(reason);
      this.#jwt?.reconnect(reason);
    } else if (this.#svids.streaming && this.#ageing.isDue()) {
      const text = 'two thirds of the life of the default SVID are over and no newer one came: asking for it';
      const reason = new WorkloadApiError(text, { endCode: 'SVID_AGEING' });
      this.#svids.reconnect(reason);
      // One that is dead to the one stream may be so to the other.
      this.#jwt?.reconnect(reason);
    }
  }

  #run(keeper: Pick<StreamKeeper, 'run'>, signal: AbortSignal): void {
    // Streams that fail are the keeper's daily work. Should it fail itself, that is a mistake of ours, and ends the process.
    const running = keeper.run(signal).finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  #backoff(): Backoff {
    return createBackoff({ ...RETRY, random: this.#deps.random });
  }
}

const NOTHING: EndpointBundles = readOnlyMap([]);

/** As for X.509: bundle endpoints are heard of trust domains of which the Workload API says nothing. */
function withEndpointKeys(given: JwtBundles | undefined, endpoints: EndpointBundles): JwtBundles | undefined {
  if (given === undefined || endpoints.size === 0) return given;
  const bundles = new Map(given);
  for (const [domain, { jwtAuthorities }] of endpoints) if (!given.has(domain)) bundles.set(domain, jwtBundleOf(domain, jwtAuthorities));
  return readOnlyMap(bundles);
}

/** The Workload API's word on a trust domain, ours above all, is the only one: endpoints are heard where it says nothing. */
function withEndpointBundles(given: DecodedSvids, endpoints: EndpointBundles = NOTHING): Pick<HeldIdentity, 'bundles' | 'endpointBundles'> {
  if (endpoints.size === 0) return { bundles: given.bundles, endpointBundles: NOTHING };
  const bundles = new Map(given.bundles);
  const heard = new Map<TrustDomain, BundleDocument>();
  for (const [domain, document] of endpoints) {
    if (given.bundles.has(domain)) continue;
    const built = given.buildBundle(domain, Buffer.concat(document.authorities.map((authority) => authority.der())));
    // Without a bundle nobody of the trust domain is trusted.
    if (!built.ok) continue;
    bundles.set(domain, Object.freeze({ ...built.value, notes: Object.freeze([...document.notes, ...built.value.notes]) }));
    heard.set(domain, document);
  }
  return { bundles: readOnlyMap(bundles), endpointBundles: readOnlyMap(heard) };
}
