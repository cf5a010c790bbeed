import type { HttpLimits, InboundConfig, Limits, OutboundConfig } from '../config/config.ts';
import { unsafeKeepsOf } from '../config/policy/live-rules.ts';
import { formatAddress } from '../config/units.ts';
import { codeOf, messageOf } from '../lib/errors.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import type { Service } from '../lib/service.ts';
import { WallAlarm } from '../lib/wall-alarm.ts';
import type { IdentityView } from '../identity/store.ts';
import type { DenyList } from '../policy/deny-list.ts';
import { policyReason, type DenyReason, type Verdict } from '../policy/verdict.ts';
import type { Policy } from '../policy/policy.ts';
import { nearestMiss, type Question } from '../policy/explain.ts';
import { auditOf } from '../policy/audit.ts';
import { isRuleOf } from '../policy/rule-names.ts';
import type { Events } from '../telemetry/events/events.ts';
import type {
  CloseReason,
  Direction,
  ListenerCounters,
  ListenerRef,
  RefusedAcceptReason,
  RequestRecord,
} from '../telemetry/log/records.ts';
import type { Refusals } from '../telemetry/log/refusals.ts';
import type { OwnIdentity, TlsContexts } from '../tls/contexts.ts';
import { Authorisation } from '../policy/judge.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { PeerJudge, ProvenPeer } from '../tls/peer.ts';
import type { AcceptedConnection, BoundListener, Connection, Endpoint } from '../transport/connection.ts';
import { listen } from '../transport/node.ts';
import { Admission } from './admission.ts';
import { closeReasonFor, Connections, refusalOf, remedyOf, withdrawn } from './connections.ts';
import type { FileAccount, FileBudget } from '../transport/file-budget.ts';
import { Gate } from './gate.ts';
import { Fields } from '../http1/fields.ts';
import { brokenProblem } from '../forward/outcome.ts';
import { Session, type Ticker } from '../forward/session.ts';
import { forwardBytes, type Side } from '../forward/tcp-forwarder.ts';
import type { Turns } from './turns.ts';
import type { WaitingRoom } from './waiting-room.ts';
import type { PeerWitness } from './witness.ts';

export interface ListenerDeps {
  readonly identity: IdentityView;
  readonly contexts: TlsContexts;
  readonly judge: PeerJudge;
  /** In force now; `judge` asks the same. */
  readonly denyList: () => DenyList;
  readonly peers: PeerWitness;
  readonly events: Events;
  readonly refusals: Refusals;
  readonly clock: Clock;
  /** In which all listeners do what is to be done for many connections. */
  readonly turns: Turns;
  /** How long a connection that drains may take; in force now. */
  readonly drainTimeoutMs: () => number;
  readonly files: FileBudget;
  readonly waiting: Readonly<Record<Direction, WaitingRoom>>;
  /** Sockets that were bound for us, descriptors by the names of listeners. */
  readonly passedSockets: ReadonlyMap<string, number>;
}

/** Among how many rules the one is sought that nearly allowed what was refused: that takes about a millisecond, and a tenth of one. */
const MOST_RULES_OF_CONNECTION = 1000;
const MOST_RULES_OF_REQUEST = 100;

/** What is the same for both directions: binding, limits, the verdict on the TLS peer, forwarding, reload, drain. */
export abstract class ProxyListener<C extends InboundConfig | OutboundConfig = InboundConfig | OutboundConfig> implements Service {
  readonly name: string;
  readonly ref: ListenerRef;
  readonly counters: ListenerCounters;
  protected readonly deps: ListenerDeps;
  protected readonly admission: Admission;
  protected settings: C;
  protected readonly room: WaitingRoom;
  readonly #gate: Gate;
  /** Of descriptors, before a connection is admitted and after. */
  readonly #files: { readonly pending: FileAccount; readonly admitted: FileAccount };
  readonly #connections: Connections;
  /** Handshakes and upstream connections under way, with what drops them. */
  readonly #pending = new Set<Session>();
  #slowTimer: Timer | undefined;
  #scratch: Fields | undefined;
  #bound: BoundListener | undefined;
  #draining = false;
  #unsubscribe: (() => void) | undefined;
  /** Of a policy with times: when it may say something else by itself. */
  readonly #policyAlarm: WallAlarm;
  #forced = 0;

  protected constructor(direction: Direction, config: C, deps: ListenerDeps) {
    this.name = `${direction} ${config.name}`;
    this.ref = { name: config.name, direction };
    this.settings = config;
    this.deps = deps;
    this.counters = deps.events.registerListener(this.ref);
    this.#connections = new Connections({
      ...deps,
      rules: () => ({ ...this.settings, ...this.limits, drainTimeoutMs: deps.drainTimeoutMs() }),
    });
    this.#policyAlarm = new WallAlarm(deps.clock, () => {
      this.#setPolicyAlarm();
      this.judgeAgain();
    });
    this.room = deps.waiting[direction];
    const { strangers, inbound, outbound } = deps.files;
    this.#files = direction === 'inbound' ? { pending: strangers, admitted: inbound } : { pending: outbound, admitted: outbound };
    this.#gate = new Gate({
      clock: deps.clock,
      counters: this.counters,
      clientSpeaksFirst: direction === 'inbound',
      room: this.room,
      limits: () => this.limits,
      begin: (accepted) => this.#begin(accepted),
      refuse: (accepted, reason, detail) => {
        this.letGoUnread(accepted);
        if (reason === 'handshake_timeout') deps.events.handshakeFinished(this.ref, reason, this.limits.handshakeTimeoutMs);
        else deps.events.acceptRefused(this.ref, reason, detail);
      },
      left: (accepted) => {
        // It may have ended its side only, which leaves the socket open.
        this.letGoUnread(accepted);
        // The handshake of an outbound connection is not its own.
        if (direction === 'inbound') deps.events.handshakeFinished(this.ref, 'protocol_error', 0);
      },
    });
    this.admission = new Admission({
      ...deps,
      ref: this.ref,
      gate: this.#gate,
      policy: () => this.policy,
      room: this.room,
      placeTimeoutMs: () => this.limits.handshakeTimeoutMs,
      refused: (event) => deps.refusals.record(this.ref, this.policy, event),
      finish: (session) => this.finish(session),
      admitted: (session) => {
        this.#pending.delete(session);
        this.judgedNow(session);
        if (direction === 'inbound') deps.files.admitted(FILES_A_CONNECTION);
        this.#connections.add(session);
        this.#gate.handshakeEnded();
      },
    });
  }

  /** In force now. */
  get config(): C {
    return this.settings;
  }

  /** The bound address, or undefined while not listening. */
  get address(): Endpoint | undefined {
    return this.#bound?.endpoint;
  }

  /** Connections that had to be dropped when the listener stopped. */
  get forced(): number {
    return this.#forced;
  }

  get openConnections(): number {
    return this.#connections.size + this.#pending.size;
  }

  /** The live connections, in no order. */
  get sessions(): Iterable<Session> {
    return this.#connections.sessions;
  }

  get limits(): Limits {
    return this.settings.limits;
  }

  /** Why the listener has nothing to present at the moment, or undefined if it has. */
  notReady(): string | undefined {
    const own = this.deps.contexts.own(this.settings.identity, this.deps.clock.now());
    return 'detail' in own ? own.detail : undefined;
  }

  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { config, deps } = this;
    this.#bound = await listen({
      endpoint: config.listen,
      mode: config.socketMode,
      gid: config.socketGid,
      passed: deps.passedSockets.get(config.name),
      keepAliveMs: config.limits.tcpKeepAliveMs ?? 0,
      accept: (accepted) => this.#accept(accepted),
      use: this.ref.direction === 'inbound' ? 'tls' : 'plain',
      acceptFailed: (error) => deps.events.acceptRefused(this.ref, 'accept_error', messageOf(error)),
    });
    this.#unsubscribe = deps.identity.subscribe((snapshot) => this.#connections.judgeAgain(snapshot, this.policy));
    deps.events.listenerBound(this.ref, formatAddress(this.#bound.endpoint));
    this.#policyInForce();
  }

  /** Takes over policy, limits and what becomes of open connections. What it listens on and leads to stays. */
  reload(config: C): void {
    if (config.policy !== this.policy) this.deps.refusals.policyChanged(this.ref, config.policy);
    this.settings = config;
    this.#gate.limitsChanged();
    this.#connections.rulesChanged();
    this.#policyInForce();
    this.judgeAgain();
  }

  /** The deny list is another one, or the policy: everybody is judged by what is in force now. */
  judgeAgain(): void {
    const snapshot = this.deps.identity.current();
    if (snapshot !== undefined) this.#connections.judgeAgain(snapshot, this.policy);
  }

  /** Drains the connections of TLS whose peer `isMeant`; each may be opened again at once. Returns how many. */
  drainPeers(isMeant: (peer: SpiffeId) => boolean, detail: string): number {
    return this.#connections.drainPeers(isMeant, detail);
  }

  #policyInForce(): void {
    this.deps.events.rulesInForce(this.ref, isRuleOf(this.policy));
    this.deps.events.auditInForce(this.ref, auditOf(this.policy));
    this.deps.events.unsafeKeepsInForce(this.ref, unsafeKeepsOf(this.settings));
    if (this.policy.hasTimes) this.#setPolicyAlarm();
    else this.#policyAlarm.stop();
  }

  /** Before anybody is judged. */
  #setPolicyAlarm(): void {
    const nowMs = this.deps.clock.now();
    this.#policyAlarm.set(nowMs, this.policy.nextLook(nowMs));
  }

  async stop(deadline: AbortSignal): Promise<void> {
    this.#draining = true;
    const bound = this.#bound;
    this.#bound = undefined;
    await bound?.close();
    this.#gate.close('draining', 'the listener is closing');
    // A handshake under way belongs to nobody yet.
    for (const session of this.#pending) {
      session.because('shutdown', 'not yet admitted when the listener closed');
      session.drop();
    }
    this.#slowTimer?.cancel();
    this.#forced += await this.#connections.drain(deadline);
    this.#policyAlarm.stop();
    this.#unsubscribe?.();
  }

  /** The peer was judged this very moment, and let be. */
  protected judgedNow(session: Session): void {
    const snapshot = this.deps.identity.current();
    session.judgedBy = snapshot && this.#connections.grounds(snapshot, this.settings);
  }

  /**
   * The refusal of a request whose peer would not be authenticated any more, now that there is another snapshot or deny list: the turn of
   * its connection may come after the request. Once a connection and change, that costs as much as to judge it again, and nothing after that.
   */
  protected refusedAnew(session: Session, proven: ProvenPeer): (Verdict & { readonly allowed: false }) | undefined {
    const { identity, clock } = this.deps;
    const snapshot = identity.current();
    if (snapshot === undefined) return undefined;
    const grounds = this.#connections.grounds(snapshot, this.settings);
    if (session.judgedBy === grounds) return undefined;
    const { ownId } = session;
    if (ownId !== undefined && !grounds.ownIds.has(ownId))
      return this.#refuseAnew(session, proven, 'identity_not_ready', 'identity_withdrawn', withdrawn(ownId));
    const refused = refusalOf(proven, snapshot, clock.now(), grounds);
    if (refused === undefined || remedyOf(refused, grounds) === 'unsafeKeep') {
      session.judgedBy = grounds;
      return undefined;
    }
    const { problem, detail } = refused;
    return this.#refuseAnew(session, proven, problem, closeReasonFor(problem), detail);
  }

  #refuseAnew(session: Session, { authenticated: { id } }: ProvenPeer, reason: DenyReason, closeReason: CloseReason, detail: string) {
    session.rule = undefined;
    session.denied = reason;
    session.because(closeReason, detail);
    return { allowed: false, peer: id, reason, rule: undefined, detail } as const;
  }

  /** Inbound: who may connect, and ask for what. Outbound: who the server must be, and may be asked what. */
  get policy(): Policy {
    return this.settings.policy;
  }

  /** What a peer may ask for, or be asked, by the policy in force at the time. */
  protected authorisation(peer: SpiffeId): Authorisation {
    const { clock } = this.deps;
    return new Authorisation(
      peer,
      () => this.policy,
      () => clock.now(),
    );
  }

  /** Whether its rules ask for something of requests that other fields could say again. */
  protected readonly guardsRequests = (): boolean => this.policy.asksForMethod || this.policy.asksForPath;

  /** It has its descriptors: goes on to the gate. */
  protected arrived(accepted: AcceptedConnection): void {
    this.#gate.arrive(accepted);
  }

  /** What has its descriptors is dropped before it got any further. */
  protected refuseUnread(accepted: AcceptedConnection, reason: RefusedAcceptReason, detail: string): void {
    this.letGoUnread(accepted);
    this.deps.events.acceptRefused(this.ref, reason, detail);
  }

  /** It may have left by itself. */
  protected letGoUnread(accepted: AcceptedConnection): void {
    accepted.abort();
    this.#files.pending.give(FILES_A_CONNECTION);
  }

  /** The session has a place among the handshakes: goes on to `admission`, or to `finish`. */
  protected abstract begin(session: Session, accepted: AcceptedConnection, own: OwnIdentity): void;

  /** Whether who connects while there is no identity to present is told so; if not, it is dropped unread. */
  protected get answersUnready(): boolean {
    return false;
  }

  /** As `begin`, if `answersUnready`. */
  protected beginUnready(session: Session, accepted: AcceptedConnection): void {
    this.dropUnread(accepted);
    this.finish(session);
  }

  protected forward(session: Session, downstream: Connection, upstream: Connection): void {
    forwardBytes({
      downstream,
      upstream,
      session,
      counters: this.counters,
      ticker: this.#connections,
      broken: (side, error) => this.broken(session, side, error),
      done: () => this.finish(session),
    });
  }

  /** From when the session takes long, its unread client is listened to: one that leaves is let go. Ends with `heed` or `finish`. */
  protected watchUnread(session: Session, accepted: AcceptedConnection): void {
    session.linger = () => {
      session.linger = () => undefined;
      this.room.enter(accepted, {
        closed: () => {
          session.because('downstream_reset', 'it left before it was served');
          session.drop();
        },
        crowdedOut: (detail) => {
          session.because('waiting_limit', detail);
          session.drop();
        },
      });
    };
  }

  /** It is to be read by whoever serves it. */
  protected heed(session: Session, accepted: AcceptedConnection): Connection {
    session.linger = () => undefined;
    this.room.leave(accepted);
    return accepted.open();
  }

  /** It is not served. */
  protected dropUnread(accepted: AcceptedConnection): void {
    this.room.leave(accepted);
    accepted.abort();
  }

  /** Read on each chunk by whoever forwards. */
  protected get ticker(): Ticker {
    return this.#connections;
  }

  /** Room in which all connections of the listener read their heads, one at a time. */
  protected scratch({ maxFields }: HttpLimits): Fields {
    if (this.#scratch?.max !== maxFields) this.#scratch = new Fields(maxFields);
    return this.#scratch;
  }

  /** What speaks HTTP/2 is loaded when the first such connection comes: it is not for every start to pay for. */
  protected async loaded(session: Session, load: () => Promise<() => void>): Promise<void> {
    let winding = false;
    session.wind = () => (winding = true);
    try {
      const forward = await load();
      // It may have been dropped meanwhile.
      if (session.ended) return;
      forward();
      if (winding) session.wind();
      if (session.draining !== undefined) session.drain(session.draining);
    } catch (thrown) {
      session.because('internal_error', `HTTP/2 could not be served: ${messageOf(thrown)}`);
      session.drop();
    }
  }

  protected broken(session: Session, side: Side, error: Error | undefined): void {
    session.because(brokenProblem(this.ref.direction, side, codeOf(error)), error && `${side}: ${error.message}`);
  }

  /** Writes the session's line and gives back what it held. Whatever was open has been dropped or is closed. */
  protected finish(session: Session): void {
    if (!session.end()) return;
    this.leave(session);
    if (this.#pending.delete(session)) {
      this.#files.pending.give(FILES_A_CONNECTION);
      this.#gate.handshakeEnded();
    } else {
      this.#files.admitted.give(FILES_A_CONNECTION);
      this.#connections.delete(session);
      this.#gate.placeFree();
    }
    this.deps.events.connectionClosed(this.ref, session.record(this.deps.clock), () =>
      this.#nearMiss(session.peer?.peerId, undefined, MOST_RULES_OF_CONNECTION),
    );
  }

  /** The session's connection to a server that proved who it is has begun. */
  protected join(session: Session, proven: ProvenPeer): void {
    this.leave(session);
    if (session.ended) return;
    session.proven = proven;
    this.deps.peers.joined(this.ref, proven);
  }

  /** It has ended. */
  protected leave(session: Session): void {
    if (session.proven !== undefined) this.deps.peers.left(session.proven);
    session.proven = undefined;
  }

  protected requestFinished(record: RequestRecord): void {
    const { method, target, host, subject, verdict } = record;
    const request = { method, target, host, subject };
    this.deps.events.requestFinished(this.ref, record, () => this.#nearMiss(verdict?.peer, request, MOST_RULES_OF_REQUEST));
    const peer = verdict?.peer;
    const reason = policyReason(verdict?.allowed === true ? verdict.audited : verdict?.reason);
    if (verdict !== undefined && peer !== undefined && reason !== undefined)
      this.deps.refusals.record(this.ref, this.policy, { peer, reason, isEnforced: !verdict.allowed, request });
  }

  /** By the policy in force when it is told, which may be newer than the one that refused. */
  #nearMiss(peer: SpiffeId | undefined, request: Question['request'], mostRules: number): string | undefined {
    return peer === undefined ? undefined : nearestMiss(this.policy, { peer, request, nowMs: this.deps.clock.now() }, mostRules);
  }

  #accept(accepted: AcceptedConnection): void {
    const { deps } = this;
    const { pending } = this.#files;
    if (!pending.take(FILES_A_CONNECTION)) {
      accepted.abort();
      deps.events.acceptRefused(this.ref, 'file_limit', `no file descriptors are left; ${pending.held} are held by ${this.#holders}`);
      return;
    }
    if (this.#draining) this.refuseUnread(accepted, 'draining', 'the listener is closing');
    else this.arrived(accepted);
  }

  #begin(accepted: AcceptedConnection): void {
    const { deps } = this;
    const own = deps.contexts.own(this.settings.identity, deps.clock.now());
    if ('detail' in own && !this.answersUnready) {
      this.#gate.handshakeEnded();
      this.refuseUnread(accepted, 'identity_not_ready', own.detail);
      return;
    }
    const session = new Session(accepted.remoteAddress, deps.clock.monotonic());
    this.#pending.add(session);
    if ('detail' in own) this.beginUnready(session, accepted);
    else {
      session.ownId = own.svid.id;
      this.begin(session, accepted, own);
    }
    // What was kept of it goes on to count.
    if (accepted.hasWaited) session.linger();
    this.#slowTimer ??= deps.clock.after(SLOW_MS, () => this.#lookForSlow());
  }

  /** Connections wait for others too, such as a server that is at its own limits: those that take long are watched, and no others pay for it. */
  #lookForSlow(): void {
    this.#slowTimer = undefined;
    const begunBeforeMs = this.deps.clock.monotonic() - SLOW_MS;
    for (const session of this.#pending) if (session.startedAtMs <= begunBeforeMs) session.linger();
    if (this.#pending.size > 0) this.#slowTimer = this.deps.clock.after(SLOW_MS, () => this.#lookForSlow());
  }

  get #holders(): string {
    return this.ref.direction === 'inbound' ? 'peers that are not admitted yet' : 'outbound connections';
  }
}

/** The accepted socket and the one to the other side. */
const FILES_A_CONNECTION = 2;
/** How long a connection may be at work for others before it is watched, and how often that is looked at. */
const SLOW_MS = 1000;
