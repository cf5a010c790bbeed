import type { Backoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import { readOnlyMap } from '../identity/read-only-map.ts';
import type { JwtBundles } from '../spiffe/jwt-bundle.ts';
import type { WorkloadApiClient } from './client.ts';
import { decodeJwtBundles, type JwtBundleProblem } from './decode.ts';
import type { JwtEvents } from '../telemetry/events/jwt-events.ts';
import type { WorkloadApiError } from './errors.ts';
import { StreamKeeper, type Reception } from './stream.ts';

export interface JwtBundlesDeps {
  readonly client: Pick<WorkloadApiClient, 'jwtBundles'>;
  readonly clock: Clock;
  readonly backoff: Backoff;
  readonly events: Pick<JwtEvents, 'bundlesRejected' | 'streamFailed'>;
  /** `current` is another value now. */
  changed(): void;
}

/**
 * The JWT bundles of the Workload API (section 6.2.2), from a stream of their own: each message is the whole of what there is, the last
 * good one stays in force, and PermissionDenied withdraws all.
 */
export class JwtBundleStream {
  readonly #deps: JwtBundlesDeps;
  readonly #keeper: StreamKeeper;
  #current: JwtBundles | undefined;
  #fingerprint: string | undefined;

  constructor(deps: JwtBundlesDeps) {
    this.#deps = deps;
    this.#keeper = new StreamKeeper(
      {
        subscription: deps.client.jwtBundles(),
        connected: () => {},
        receive: (message) => this.#receive(message),
        ended: (error, retryInMs) => {
          if (error.meansNoIdentity()) this.#set(NONE, undefined);
          deps.events.streamFailed({ code: error.endCode, message: error.message }, retryInMs);
        },
      },
      deps.clock,
      deps.backoff,
    );
  }

  /** Undefined until the agent has said something. */
  get current(): JwtBundles | undefined {
    return this.#current;
  }

  /** Returns when `signal` aborts. */
  run(signal: AbortSignal): Promise<void> {
    return this.#keeper.run(signal);
  }

  /** Ends the stream for `reason` and opens another. */
  reconnect(reason: WorkloadApiError): void {
    this.#keeper.reconnect(reason);
  }

  #receive(message: Uint8Array): Reception {
    const decoded = decodeJwtBundles(message);
    if (!decoded.ok) return this.#reject(decoded.error);
    if (decoded.value.fingerprint === this.#fingerprint) return 'same';
    const built = decoded.value.build();
    if (!built.ok) return this.#reject(built.error);
    this.#set(built.value, decoded.value.fingerprint);
    return 'new';
  }

  #set(bundles: JwtBundles, fingerprint: string | undefined): void {
    const isSame = bundles.size === 0 && this.#current?.size === 0;
    this.#fingerprint = fingerprint;
    if (isSame) return;
    this.#current = bundles;
    this.#deps.changed();
  }

  #reject(problem: JwtBundleProblem): Reception {
    this.#deps.events.bundlesRejected(problem);
    return 'rejected';
  }
}

const NONE: JwtBundles = readOnlyMap([]);
