import type { HttpLimits } from '../config/config.ts';
import type { IdentityFields } from '../http1/identity-fields.ts';
import type { Clock } from '../lib/clock.ts';
import type { ListenerCounters, RequestRecord } from '../telemetry/log/records.ts';
import type { FileAccount } from '../transport/file-budget.ts';
import type { RequestTokens } from './bearer.ts';
import type { Session, Ticker } from './session.ts';
import type { Side } from './tcp-forwarder.ts';

/** What whoever forwards requests of one connection is given, of whichever version of HTTP they are. */
export interface HttpForwarding {
  /** Its `drop`, `dismiss`, `wind`, `drain`, `hasDenied`, `endDenied` and `endTokens` are set. */
  readonly session: Session;
  readonly counters: ListenerCounters;
  readonly ticker: Ticker;
  readonly clock: Clock;
  readonly limits: HttpLimits;
  readonly identity: IdentityFields;
  /** Undefined where nobody looks at tokens. */
  readonly tokens?: RequestTokens | undefined;
  requestFinished(record: RequestRecord): void;
  /** One side broke, with the error if there was one. */
  broken(side: Side, error: Error | undefined): void;
  /** Everything is closed. Called once. */
  done(): void;
}

/** As `HttpForwarding`, of a client that speaks HTTP/2. */
export interface Http2Forwarding extends HttpForwarding {
  /** Requests at once, and connections to an application that speaks HTTP/1.1. */
  readonly maxConcurrentStreams: number;
  /** Also of each request: one that stands still is ended, whatever goes on beside it. */
  readonly idleTimeoutMs: number | undefined;
  /** A place for one connection to the application was taken with the client's. */
  readonly files: FileAccount;
}
