import type { Clock, Timer } from '../lib/clock.ts';
import { ok, type Result } from '../lib/result.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import { EMPTY_DENY_LIST, type DenyList } from '../policy/deny-list.ts';
import { authorise } from '../policy/judge.ts';
import type { Policy } from '../policy/policy.ts';
import type { Verdict } from '../policy/verdict.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { PeerProblem } from '../spiffe/peer-problems.ts';
import type { PeerRefusal } from '../spiffe/verify.ts';
import { authenticateAgain, type ProvenPeer } from '../tls/peer.ts';
import type { CloseReason } from '../telemetry/records.ts';
import type { Session } from '../forward/session.ts';

export interface ConnectionLimits {
  readonly idleTimeoutMs: number | undefined;
  readonly maxLifetimeMs: number | undefined;
}

/** How many live connections are judged again before others get a turn: one takes a fraction of a millisecond, */
const JUDGED_PER_TURN = 64;
/** or many, if whoever issued its chain wants that: so no further one after this. */
const TURN_MS = 10;
const LONGEST_SWEEP_MS = 1000;
const SHORTEST_SWEEP_MS = 10;

/** The live connections of one listener: their age and idleness, judging them again, and draining them. */
export class Connections {
  /** Counts sweeps; sessions note it when a byte moves, which costs less than asking a clock. */
  tick = 0;
  readonly #clock: Clock;
  readonly #limits: () => ConnectionLimits;
  readonly #denyList: () => DenyList;
  readonly #live = new Set<Session>();
  #timer: Timer | undefined;
  #sweepMs = LONGEST_SWEEP_MS;
  #judging = 0;
  #whenEmpty: (() => void) | undefined;

  /** `denyList` is the one in force. */
  constructor(clock: Clock, limits: () => ConnectionLimits, denyList: () => DenyList = () => EMPTY_DENY_LIST) {
    this.#clock = clock;
    this.#limits = limits;
    this.#denyList = denyList;
  }

  get size(): number {
    return this.#live.size;
  }

  /** In no order: who was judged again goes to the end. */
  get sessions(): Iterable<Session> {
    return this.#live;
  }

  add(session: Session): void {
    session.lastActiveTick = this.tick;
    this.#live.add(session);
    this.#arm();
  }

  delete(session: Session): void {
    this.#live.delete(session);
    if (this.#live.size === 0) this.#whenEmpty?.();
  }

  /** Limits changed: the next sweep comes as soon as the new ones need. */
  limitsChanged(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#arm();
  }

  /**
   * Judges every admitted peer against a newer snapshot, deny list, policy and time, and dismisses those that would not be let in now. A
   * certificate that merely expired since its handshake is let be. A later call overtakes one that is still at work, and
   * begins with those that were judged longest ago: however fast updates come, everybody has a turn.
   */
  judgeAgain(snapshot: IdentitySnapshot, policy: Policy): void {
    const round = ++this.#judging;
    const denyList = this.#denyList();
    const ownIds = snapshot.kind === 'held' ? new Set(snapshot.svids.map((svid) => svid.id)) : undefined;
    // Connections of one peer share what it proved.
    const answers = new Map<ProvenPeer, Again>();
    const authenticate = (proven: ProvenPeer): Again => {
      const known = answers.get(proven);
      if (known !== undefined) return known;
      const again = authenticateAgain(proven, snapshot, this.#clock.now(), denyList);
      const answer = again.ok ? ok(again.value.id) : again;
      answers.set(proven, answer);
      return answer;
    };
    const verdicts = new Map<SpiffeId, Verdict>();
    const judge = (peer: SpiffeId): Verdict => {
      const verdict = verdicts.get(peer) ?? authorise(peer, policy, this.#clock.now());
      verdicts.set(peer, verdict);
      return verdict;
    };
    // Whoever is admitted from now on was judged by these very rules, or newer ones.
    const sessions = [...this.#live].values();
    const some = (): void => {
      if (round !== this.#judging) return;
      const untilMs = this.#clock.monotonic() + TURN_MS;
      for (let judged = 0; judged < JUDGED_PER_TURN && (judged === 0 || this.#clock.monotonic() < untilMs); judged++) {
        const next = sessions.next();
        if (next.done === true) return;
        const session = next.value;
        if (session.ended) continue;
        const problem = problemOf(session, authenticate, ownIds, judge);
        if (problem !== undefined) session.dismiss(problem.reason, problem.detail);
        else session.clearedBy = denyList;
        // The last place: it was judged just now. A dismissed one leaves the set when it is closed.
        if (this.#live.delete(session)) this.#live.add(session);
      }
      setImmediate(some);
    };
    some();
  }

  /** Resolves to the number of connections that had to be dropped: none, if all ended before `deadline` aborted. */
  async drain(deadline: AbortSignal): Promise<number> {
    for (const session of this.#live) session.wind();
    if (this.#live.size > 0 && !deadline.aborted) {
      await new Promise<void>((resolve) => {
        const finish = (): void => {
          deadline.removeEventListener('abort', late);
          this.#whenEmpty = undefined;
          resolve();
        };
        // What came before the deadline may still have to be read.
        const late = (): void => void setImmediate(finish);
        this.#whenEmpty = finish;
        deadline.addEventListener('abort', late, { once: true });
      });
    }
    const rest = [...this.#live];
    for (const session of rest) drop(session, 'shutdown', 'still open at the drain deadline');
    this.#timer?.cancel();
    return rest.length;
  }

  #arm(): void {
    if (this.#timer !== undefined || this.#live.size === 0) return;
    const { idleTimeoutMs, maxLifetimeMs } = this.#limits();
    const shortest = Math.min(idleTimeoutMs ?? Infinity, maxLifetimeMs ?? Infinity);
    this.#sweepMs = Math.min(Math.max(shortest / 4, SHORTEST_SWEEP_MS), LONGEST_SWEEP_MS);
    this.#timer = this.#clock.after(this.#sweepMs, () => {
      this.#timer = undefined;
      this.#sweep();
      this.#arm();
    });
  }

  #sweep(): void {
    this.tick += 1;
    const { idleTimeoutMs, maxLifetimeMs } = this.#limits();
    const oldestTick = idleTimeoutMs === undefined ? -Infinity : this.tick - Math.ceil(idleTimeoutMs / this.#sweepMs);
    const oldestStartMs = maxLifetimeMs === undefined ? -Infinity : this.#clock.monotonic() - maxLifetimeMs;
    const now = this.#clock.now();
    for (const session of this.#live) {
      if (session.expiresAtMs <= now) {
        session.expiresAtMs = Infinity;
        session.expire();
      } else if (session.startedAtMs < oldestStartMs) drop(session, 'lifetime', `open for more than ${maxLifetimeMs} ms`);
      else if (session.lastActiveTick < oldestTick) drop(session, 'idle_timeout', `no byte moved for ${idleTimeoutMs} ms`);
    }
  }
}

/** Who a peer still is. No more than that is kept until all have been judged. */
type Again = Result<SpiffeId, PeerRefusal>;

function problemOf(
  session: Session,
  authenticate: (proven: ProvenPeer) => Again,
  ownIds: ReadonlySet<string> | undefined,
  judge: (peer: SpiffeId) => Verdict,
): { reason: CloseReason; detail: string } | undefined {
  const { proven, ownId, isToldOnly } = session;
  if (proven === undefined || ownId === undefined) return undefined;
  if (ownIds === undefined || !ownIds.has(ownId)) {
    return { reason: 'identity_withdrawn', detail: `the Workload API no longer gives us ${ownId}` };
  }
  const again = authenticate(proven);
  if (!again.ok) {
    return { reason: closeReasonFor(again.error.problem), detail: again.error.detail };
  }
  // Who is here to be told that it is not allowed must still be who it was: a later list may admit it on this very connection.
  // A request may have been denied before the sweep came to its connection, on which others are answered still: that is no excuse.
  if (isToldOnly) return undefined;
  const verdict = judge(again.value);
  if (verdict.allowed) {
    // It may ask for something still, and not for what is under way.
    if (session.stillAllowed()) return undefined;
    return { reason: 'policy', detail: `${again.value} is no longer allowed the request that is under way` };
  }
  const { rule } = verdict;
  return { reason: 'policy', detail: `${again.value} is no longer allowed${rule === undefined ? '' : `: ${rule}`}` };
}

/** Why a connection ends whose peer would not be authenticated now. */
export function closeReasonFor(problem: PeerProblem): CloseReason {
  return problem === 'revoked' ? 'revoked' : 'authority_removed';
}

function drop(session: Session, reason: CloseReason, detail: string): void {
  session.because(reason, detail);
  session.drop();
}
