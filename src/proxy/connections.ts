import type { Protocol } from '../config/config.ts';
import type { LiveRules } from '../config/policy/live-rules.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import type { DenyList } from '../policy/deny-list.ts';
import { authorise } from '../policy/judge.ts';
import type { Policy } from '../policy/policy.ts';
import type { Verdict } from '../policy/verdict.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { PeerProblem } from '../spiffe/peer-problems.ts';
import type { PeerRefusal } from '../spiffe/verify.ts';
import { authenticateAgain, revocationBesides, type ProvenPeer } from '../tls/peer.ts';
import type { CloseReason } from '../telemetry/log/records.ts';
import { noteYoungBytes } from '../transport/garbage.ts';
import type { Draining, Grounds, Session, Ticker } from '../forward/session.ts';
import type { Turns } from './turns.ts';

export interface ConnectionRules extends LiveRules {
  readonly protocol: Protocol;
  readonly idleTimeoutMs: number | undefined;
  readonly maxLifetimeMs: number | undefined;
  /** How long each that drains may take. */
  readonly drainTimeoutMs: number;
}

export interface ConnectionsOptions {
  readonly clock: Clock;
  /** Shared with other listeners: the turns of the event loop in which many connections are dealt with. */
  readonly turns: Turns;
  /** In force at the time. */
  readonly rules: () => ConnectionRules;
  readonly denyList: () => DenyList;
}

/**
 * Of the certificates that are read to judge one peer again: left to itself the collector waits for a thousand of them, and takes 20 ms for
 * their native halves.
 */
const JUDGED_BYTES = 32 * 1024;
const LONGEST_SWEEP_MS = 1000;
const SHORTEST_SWEEP_MS = 10;

/** The live connections of one listener: their age and idleness, judging them again, and draining them. */
export class Connections implements Ticker {
  /** Counts sweeps; sessions note it when a byte moves, which costs less than asking a clock. */
  tick = 0;
  readonly #clock: Clock;
  readonly #turns: Turns;
  readonly #rules: () => ConnectionRules;
  readonly #denyList: () => DenyList;
  readonly #live = new Set<Session>();
  #timer: Timer | undefined;
  #sweepMs = LONGEST_SWEEP_MS;
  #judging = 0;
  /** The round that is under way. */
  #round: Judges | undefined;
  #grounds: Grounds | undefined;
  /** Those that wait for their turn to be drained, or to be ended by a sweep: nobody waits twice. */
  readonly #toDrain = new Set<Session>();
  readonly #due = new Set<Session>();
  #whenEmpty: (() => void) | undefined;

  constructor({ clock, turns, rules, denyList }: ConnectionsOptions) {
    this.#clock = clock;
    this.#turns = turns;
    this.#rules = rules;
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

  /** Rules changed: the next sweep comes as soon as the new ones need. */
  rulesChanged(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#arm();
  }

  /**
   * Judges every admitted peer against a newer snapshot, deny list, policy and time, and does with those that would not be let in now what
   * the rules say. A certificate that merely expired since its handshake is not asked about here. A later call overtakes one that is still
   * at work, and begins with those that were judged longest ago: however fast updates come, everybody has a turn.
   */
  judgeAgain(snapshot: IdentitySnapshot, policy: Policy): void {
    const round = ++this.#judging;
    const rules = this.#rules();
    const grounds = this.grounds(snapshot, rules);
    // Connections of one peer share what it proved.
    const refusals = new Map<ProvenPeer, PeerRefusal | undefined>();
    const refusal = (proven: ProvenPeer): PeerRefusal | undefined => {
      if (refusals.has(proven)) return refusals.get(proven);
      const found = refusalOf(proven, snapshot, this.#clock.now(), grounds);
      refusals.set(proven, found);
      noteYoungBytes(JUDGED_BYTES);
      return found;
    };
    const verdicts = new Map<SpiffeId, Verdict>();
    const judge = (peer: SpiffeId): Verdict => {
      const verdict = verdicts.get(peer) ?? authorise(peer, policy, this.#clock.now());
      verdicts.set(peer, verdict);
      return verdict;
    };
    const listings = new Map<SpiffeId, string | undefined>();
    const listed = (peer: SpiffeId): string | undefined => {
      if (!listings.has(peer)) listings.set(peer, grounds.denyList.refusal(peer, []));
      return listings.get(peer);
    };
    const judges = { round, rules, grounds, refusal, listed, judge };
    this.#round = judges;
    const judgeOne = (session: Session): void => {
      if (session.ended) return;
      if (session.judgedIn !== round) this.#judge(session, judges);
      // The last place: it was judged just now. A dismissed one leaves the set when it is closed.
      if (this.#live.delete(session)) this.#live.add(session);
    };
    // Whoever is admitted from now on was judged by these very rules, or newer ones.
    this.#turns.begin(
      [...this.#live],
      judgeOne,
      () => round === this.#judging,
      () => {
        if (this.#round === judges) this.#round = undefined;
      },
    );
  }

  lets(session: Session): boolean {
    const judges = this.#round;
    if (judges === undefined || session.judgedIn === judges.round || session.ended) return true;
    if (session.judgedBy === judges.grounds) return this.#judge(session, judges);
    // To verify certificates takes too long to do it for everybody at once; all else does not.
    return !this.#endsUnverified(session, judges);
  }

  /**
   * What peers are judged by now, besides the policy and the time: the same object for as long as none of it changes. `snapshot` is the
   * newest.
   */
  grounds(snapshot: IdentitySnapshot, { onAuthorityRemoved }: Pick<LiveRules, 'onAuthorityRemoved'>): Grounds {
    const { generation } = snapshot;
    const denyList = this.#denyList();
    const known = this.#grounds;
    if (known?.generation === generation && known.denyList === denyList && known.onAuthorityRemoved === onAuthorityRemoved) return known;
    const ownIds = new Set(snapshot.kind === 'held' ? snapshot.svids.map((svid) => svid.id) : []);
    this.#grounds = { generation, denyList, onAuthorityRemoved, ownIds };
    return this.#grounds;
  }

  /** False if it was ended. */
  #judge(session: Session, judges: Judges): boolean {
    const { round, rules, grounds, refusal } = judges;
    session.judgedIn = round;
    const { proven, ownId } = session;
    if (proven === undefined || ownId === undefined) return true;
    if (this.#endsWithIdentity(session, judges)) return false;
    // Who was judged by these already is asked about the policy alone.
    const refused = session.judgedBy === grounds ? undefined : refusal(proven);
    const onRefusal = refused === undefined ? 'unsafeKeep' : remedyOf(refused, grounds);
    if (refused !== undefined && onRefusal === 'close') {
      this.#dismiss(session, closeReasonFor(refused.problem), refused.detail);
      return false;
    }
    session.judgedBy = grounds;
    if (this.#closesFor(session, judges)) return false;
    session.endTokens();
    if (session.ended) return false;
    const verdict = verdictOn(session, judges);
    // It may ask for something still, and not for what is under way.
    const hasDenied = verdict?.allowed === true && rules.onPolicyChange !== 'unsafeKeep' && session.hasDenied();
    const ofRequest = hasDenied ? `${proven.authenticated.id} is no longer allowed the request that is under way` : undefined;
    if (ofRequest !== undefined && rules.onPolicyChange === 'close') session.endDenied('policy', ofRequest);
    if (refused !== undefined && onRefusal === 'drain') this.#drain(session, closeReasonFor(refused.problem), refused.detail, false);
    else if (rules.onPolicyChange === 'drain') {
      if (verdict?.allowed === false) this.#drain(session, 'policy', denialOf(verdict), false);
      else if (ofRequest !== undefined) this.#drain(session, 'policy', ofRequest, true);
    }
    return true;
  }

  /** True if it was ended for something that is found without its certificates. */
  #endsUnverified(session: Session, judges: Judges): boolean {
    if (this.#endsWithIdentity(session, judges)) return true;
    const { proven } = session;
    const listed = proven && judges.listed(proven.authenticated.id);
    if (listed === undefined) {
      if (this.#closesFor(session, judges)) return true;
      session.endTokens();
      return session.ended;
    }
    this.#dismiss(session, 'revoked', listed);
    return true;
  }

  #endsWithIdentity(session: Session, { grounds }: Judges): boolean {
    const { proven, ownId } = session;
    if (proven === undefined || ownId === undefined || grounds.ownIds.has(ownId)) return false;
    this.#dismiss(session, 'identity_withdrawn', withdrawn(ownId));
    return true;
  }

  /** True if the policy ended it. */
  #closesFor(session: Session, judges: Judges): boolean {
    const verdict = verdictOn(session, judges);
    if (verdict?.allowed !== false || judges.rules.onPolicyChange !== 'close') return false;
    this.#dismiss(session, 'policy', denialOf(verdict));
    return true;
  }

  /**
   * Drains those of peers that `isMeant`, which are as welcome as before. Returns how many begin to, at once or in turns: whoever drains already,
   * or is about to, is not among them.
   */
  drainPeers(isMeant: (peer: SpiffeId) => boolean, detail: string): number {
    const meant = [...this.#live].filter((session) => {
      const { proven, draining } = session;
      if (proven === undefined || this.#toDrain.has(session)) return false;
      return (draining?.endsAtMs ?? Infinity) === Infinity && isMeant(proven.authenticated.id);
    });
    for (const session of meant) this.#toDrain.add(session);
    this.#turns.begin(meant, (session) => {
      this.#toDrain.delete(session);
      if (!session.ended && session.proven !== undefined) this.#drain(session, 'drain_requested', detail, true);
    });
    return meant.length;
  }

  /** It ends when nothing is under way, or is cut when `timeoutMs` is over. `mayAsk`: a client may be told with the response to one more request. */
  #drain(session: Session, reason: CloseReason, detail: string, mayAsk: boolean, timeoutMs = this.#rules().drainTimeoutMs): void {
    const { draining } = session;
    if (timeoutMs === 0) this.#dismiss(session, reason, detail);
    else if (draining === undefined || (draining.mayAsk && !mayAsk)) {
      // The first reason is the one that is told, and its time is not lengthened.
      const endsAtMs = Math.min(this.#clock.monotonic() + timeoutMs, draining?.endsAtMs ?? Infinity);
      session.draining = draining === undefined ? { reason, detail, endsAtMs, mayAsk } : { ...draining, endsAtMs, mayAsk };
      session.drain(session.draining);
    } else if (draining.endsAtMs === Infinity && timeoutMs < Infinity) {
      session.draining = { ...draining, endsAtMs: this.#clock.monotonic() + timeoutMs };
    }
  }

  #dismiss(session: Session, reason: CloseReason, detail: string): void {
    session.draining = undefined;
    session.dismiss(reason, detail);
  }

  /** Resolves to the number of connections that had to be dropped: none, if all ended before `deadline` aborted. */
  async drain(deadline: AbortSignal): Promise<number> {
    const isInTime = (): boolean => !deadline.aborted;
    if (isInTime()) this.#turns.begin([...this.#live], (session) => session.wind(), isInTime);
    if (this.#live.size > 0 && isInTime()) {
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
    let dropped = 0;
    const dropOne = (session: Session): void => {
      if (session.ended) return;
      dropped++;
      drop(session, 'shutdown', 'still open at the drain deadline');
    };
    await new Promise<void>((resolve) => this.#turns.begin([...this.#live], dropOne, undefined, resolve));
    this.#timer?.cancel();
    return dropped;
  }

  #arm(): void {
    if (this.#timer !== undefined || this.#live.size === 0) return;
    const { idleTimeoutMs, maxLifetimeMs } = this.#rules();
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
    const rules = this.#rules();
    const { idleTimeoutMs, maxLifetimeMs } = rules;
    const nowMs = this.#clock.now();
    const monotonicMs = this.#clock.monotonic();
    const oldestTick = idleTimeoutMs === undefined ? -Infinity : this.tick - Math.ceil(idleTimeoutMs / this.#sweepMs);
    const oldestStartMs = maxLifetimeMs === undefined ? -Infinity : monotonicMs - maxLifetimeMs;
    const due: [Session, () => void][] = [];
    for (const session of this.#live) {
      if (this.#due.has(session)) continue;
      const { draining } = session;
      const expiry = expiryDue(session, rules, nowMs);
      if (draining !== undefined && draining.endsAtMs <= monotonicMs) due.push([session, () => cut(session, draining)]);
      else if (session.tokensEndAtMs <= nowMs) due.push([session, () => session.endTokens()]);
      else if (expiry !== undefined) due.push([session, () => this.#expire(session, expiry)]);
      else if (session.startedAtMs < oldestStartMs) {
        due.push([session, () => drop(session, 'lifetime', `open for more than ${maxLifetimeMs} ms`)]);
      } else if (session.lastActiveTick < oldestTick) {
        due.push([session, () => dropIdle(session, oldestTick, `no byte moved for ${idleTimeoutMs} ms`)]);
      }
    }
    if (due.length === 0) return;
    // To look at all takes a fraction of a millisecond, and to end them much longer.
    for (const [session] of due) this.#due.add(session);
    this.#turns.begin(due, ([session, end]) => {
      this.#due.delete(session);
      if (!session.ended) end();
    });
  }

  #expire(session: Session, { side, onExpiry }: ExpiryDue): void {
    const reason = side === 'peer' ? 'peer_svid_expired' : 'own_svid_expired';
    const expiredAtMs = side === 'peer' ? session.peerExpiresAtMs : session.ownExpiresAtMs;
    // Meanwhile the connection that was judged may have been let go, and another have taken its place.
    if (expiredAtMs > this.#clock.now()) return;
    const whose =
      side === 'peer'
        ? `what ${session.peer?.peerId ?? 'the server'} proved itself with`
        : `our SVID ${session.ownId}, as it was presented,`;
    const detail = `${whose} expired at ${isoTime(expiredAtMs)}`;
    const { protocol, drainTimeoutMs } = this.#rules();
    if (onExpiry === 'close') this.#dismiss(session, reason, detail);
    // Its peer is as welcome as before: over HTTP what is under way may take as long as it likes.
    else this.#drain(session, reason, detail, true, protocol === 'http' ? Infinity : drainTimeoutMs);
  }
}

interface Judges {
  readonly round: number;
  readonly rules: ConnectionRules;
  readonly grounds: Grounds;
  /** Why a peer would not be authenticated now. */
  readonly refusal: (proven: ProvenPeer) => PeerRefusal | undefined;
  /** Where its SPIFFE ID is on the deny list. */
  readonly listed: (peer: SpiffeId) => string | undefined;
  readonly judge: (peer: SpiffeId) => Verdict;
}

/**
 * Undefined of nobody, and of who is here to be told that it is not allowed: it must only still be who it was, as a later list may admit it
 * on this very connection. A request may have been denied before the sweep came to its connection, on which others are answered still:
 * that is no excuse.
 */
function verdictOn({ proven, isToldOnly }: Session, { judge }: Judges): Verdict | undefined {
  return isToldOnly || proven === undefined ? undefined : judge(proven.authenticated.id);
}

interface ExpiryDue {
  readonly side: 'peer' | 'own';
  readonly onExpiry: 'close' | 'drain';
}

/** Closing goes before draining, whichever side it is that has expired. */
function expiryDue(session: Session, { onPeerExpiry, onOwnExpiry }: LiveRules, nowMs: number): ExpiryDue | undefined {
  const { peerExpiresAtMs, ownExpiresAtMs, draining } = session;
  if (peerExpiresAtMs > nowMs && ownExpiresAtMs > nowMs) return undefined;
  const onPeer = peerExpiresAtMs > nowMs ? 'keep' : onPeerExpiry;
  const onOwn = ownExpiresAtMs > nowMs ? 'keep' : onOwnExpiry;
  if (onPeer === 'close') return { side: 'peer', onExpiry: onPeer };
  if (onOwn === 'close') return { side: 'own', onExpiry: onOwn };
  if (draining !== undefined) return undefined;
  if (onPeer === 'drain') return { side: 'peer', onExpiry: onPeer };
  return onOwn === 'drain' ? { side: 'own', onExpiry: onOwn } : undefined;
}

/** Why the peer of a live connection would not be authenticated now. That it is revoked goes before all else that may be wrong with it. */
export function refusalOf(
  proven: ProvenPeer,
  snapshot: IdentitySnapshot,
  nowMs: number,
  { denyList, onAuthorityRemoved }: Grounds,
): PeerRefusal | undefined {
  const again = authenticateAgain(proven, snapshot, nowMs, denyList);
  if (again.ok) return undefined;
  // Where it ends all the same, the first answer will do.
  if (onAuthorityRemoved === 'close' || again.error.problem === 'revoked') return again.error;
  return revocationBesides(proven, snapshot, nowMs, denyList) ?? again.error;
}

/** What is to be done with the connection of a peer that would not be authenticated now. */
export function remedyOf({ problem }: PeerRefusal, { onAuthorityRemoved }: Grounds): LiveRules['onAuthorityRemoved'] {
  return problem === 'revoked' ? 'close' : onAuthorityRemoved;
}

/** Why a connection ends whose peer would not be authenticated now. */
export function closeReasonFor(problem: PeerProblem): CloseReason {
  return problem === 'revoked' ? 'revoked' : 'authority_removed';
}

/** Why nobody is talked to any more as `ownId`. */
export function withdrawn(ownId: SpiffeId): string {
  return `the Workload API no longer gives us ${ownId}`;
}

function denialOf({ peer, rule }: Verdict): string {
  return `${peer} is no longer allowed${rule === undefined ? '' : `: ${rule}`}`;
}

function cut(session: Session, draining: Draining): void {
  // Meanwhile the connection that drained may have been let go.
  if (session.draining !== draining) return;
  const { reason, detail } = draining;
  session.draining = undefined;
  drop(session, reason, `${detail}; still open when drainTimeout was over`);
}

function dropIdle(session: Session, oldestTick: number, detail: string): void {
  // Meanwhile something may have been asked.
  if (session.lastActiveTick < oldestTick) drop(session, 'idle_timeout', detail);
}

function drop(session: Session, reason: CloseReason, detail: string): void {
  session.because(reason, detail);
  session.drop();
}

/** Certificates may carry dates that JavaScript cannot write. */
function isoTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? 'unknown' : date.toISOString();
}
