import { systemClock, type Clock } from '../../src/lib/clock.ts';
import type { HttpLimits } from '../../src/config/config.ts';
import { buildIdentityFields } from '../../src/http1/identity-fields.ts';
import { Fields } from '../../src/http1/fields.ts';
import { forwardHttp, type HttpForwardOptions } from '../../src/forward/http1-forwarder.ts';
import { Session } from '../../src/forward/session.ts';
import { ok, type Result } from '../../src/lib/result.ts';
import type { Verdict } from '../../src/policy/verdict.ts';
import { requireSpiffeId, type SpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { emptyCounters, type RequestRecord } from '../../src/telemetry/log/records.ts';
import { MemoryConnection } from './memory-connection.ts';

export const PEER = requireSpiffeId('spiffe://example.org/web');
const OWN = 'spiffe://example.org/api';
const identity = buildIdentityFields(
  { xfcc: 'sanitize-set', spiffeIdHeader: 'X-Peer' },
  { peerId: PEER, ownId: OWN, leafSha256: 'ab'.repeat(32) },
  () => false,
);

const LIMITS: HttpLimits = {
  maxHeadBytes: 4096,
  maxFields: 20,
  maxBodyBytes: undefined,
  headTimeoutMs: 10_000,
  minBodyBytesPerSecond: undefined,
  responseTimeoutMs: 10_000,
  upstreamIdleTimeoutMs: undefined,
};

/** What forwarders of both versions of HTTP are given alike. */
export function forwarderOptions(denies: () => boolean) {
  return {
    session: new Session('test', 0),
    counters: emptyCounters(),
    ticker: { tick: 0, lets: () => true },
    clock: systemClock,
    limits: LIMITS,
    identity,
    judge: () => verdict(PEER, !denies()),
    broken: () => undefined,
  };
}

/** The fields that the forwarder adds. */
export const IDENTITY_LINES: string = identity.lines.toString('latin1');

export interface MemoryForwarder {
  readonly session: Session;
  readonly downstream: MemoryConnection;
  /** In the order in which they were opened. */
  readonly upstreams: readonly MemoryConnection[];
  readonly records: readonly RequestRecord[];
  readonly isDone: () => boolean;
  /** Every request is refused, from now on. */
  denies: boolean;
}

export interface MemoryForwarderOptions {
  readonly clock?: Clock;
  readonly limits?: Partial<HttpLimits>;
  /** Every request is refused. */
  readonly denies?: boolean;
  /** The peer was let in only to be told that it is not allowed. */
  readonly denied?: boolean;
  /** No write is taken without a pause after it. */
  readonly slow?: boolean;
  /** The client is at a Unix socket. */
  readonly unix?: boolean;
  /** Away from the application: the upstream is who is judged. */
  readonly outbound?: boolean;
  readonly upgrades?: readonly string[];
  /** Instead of one that knows no tokens. */
  readonly more?: Partial<Pick<HttpForwardOptions, 'judge' | 'tokens' | 'credential'>>;
}

/** What a policy says of every request. */
export function verdict(peer: SpiffeId, isAllowed: boolean): Result<Verdict, string> {
  if (isAllowed) return ok({ allowed: true, peer, rule: peer, audited: undefined });
  return ok({ allowed: false, peer, reason: 'not_allowed', rule: undefined, detail: 'no' });
}

/** Forwards HTTP between connections in memory, of which the test plays the other sides. */
export function startMemoryForwarder(options: MemoryForwarderOptions = {}): MemoryForwarder {
  const { clock = systemClock, denied = false, slow = false, unix = false, outbound = false, upgrades = [] } = options;
  const shared = forwarderOptions(() => stage.denies);
  const { session } = shared;
  if (denied) session.denied = 'not_allowed';
  const downstream = new MemoryConnection({ slow, remoteAddress: unix ? 'unix' : 'memory' });
  const upstreams: MemoryConnection[] = [];
  const records: RequestRecord[] = [];
  let done = false;
  const stage: MemoryForwarder = { session, downstream, upstreams, records, isDone: () => done, denies: options.denies ?? false };
  const limits = { ...LIMITS, ...options.limits };
  forwardHttp({
    ...shared,
    downstream,
    clock,
    limits,
    upgrades,
    scratch: new Fields(limits.maxFields),
    judged: outbound ? 'upstream' : 'downstream',
    judge: () => verdict(PEER, !stage.denies),
    open(done_) {
      let isOff = false;
      queueMicrotask(() => {
        if (isOff) return;
        const connection = new MemoryConnection({ slow });
        upstreams.push(connection);
        done_({ ok: true, connection });
      });
      return { abort: () => (isOff = true) };
    },
    released: () => undefined,
    dismissed: () => undefined,
    requestFinished: (record) => records.push(record),
    done: () => (done = true),
    ...options.more,
  });
  return stage;
}
