import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import type { IdentityView } from '../identity/store.ts';
import { authorise } from '../policy/judge.ts';
import type { Policy } from '../policy/policy.ts';
import { policyReason, type DenyReason } from '../policy/verdict.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { Events } from '../telemetry/events/events.ts';
import type { ListenerRef } from '../telemetry/log/records.ts';
import type { RefusalEvent } from '../telemetry/log/refusals.ts';
import { describeLeaf, type PeerJudge, type PeerRole, type ProvenPeer } from '../tls/peer.ts';
import type { HandshakeInProgress, HandshakeOutcome, SecureConnection } from '../transport/connection.ts';
import type { Gate } from './gate.ts';
import type { PeerRefused, PeerWitness, ShownPeer } from './witness.ts';
import { handshakeProblem } from '../forward/outcome.ts';
import type { Session } from '../forward/session.ts';
import type { WaitingRoom } from './waiting-room.ts';

export interface AdmissionOptions {
  readonly ref: ListenerRef;
  readonly identity: IdentityView;
  readonly judge: PeerJudge;
  readonly peers: PeerWitness;
  readonly events: Events;
  readonly clock: Clock;
  readonly gate: Gate;
  readonly room: WaitingRoom;
  /** Inbound: who may connect. Outbound: who the server must be. Asked for each verdict. */
  policy(): Policy;
  /** How long anybody waits for a place among the connections. */
  placeTimeoutMs(): number;
  /** A peer is refused as a whole, or only audit lets it in. */
  readonly refused: (event: RefusalEvent) => void;
  /** The session is over: what it had open was dropped. */
  readonly finish: (session: Session) => void;
  /** The peer is admitted and has its place: the session is a live connection from here on. */
  admitted(session: Session): void;
}

export interface AuthenticateOptions {
  readonly session: Session;
  readonly role: PeerRole;
  readonly timeoutMs: number;
  /** A peer that proved who it is and is not allowed goes on, with `session.denied` set: its protocol has words for a refusal. */
  readonly tellsDenied?: boolean;
  begin(done: (outcome: HandshakeOutcome) => void): HandshakeInProgress;
}

export interface HandshakeOptions extends AuthenticateOptions {
  /** Drops what else the session has open. */
  dropRest(): void;
  /** Go on: nothing has been read from the connection yet. */
  readonly admitted: (connection: SecureConnection) => void;
}

/** What became of a handshake. On failure the connection was dropped; `at` says whether there was a peer to judge. */
export type Authenticated =
  | {
      readonly ok: true;
      readonly connection: SecureConnection;
      readonly proven: ProvenPeer;
      /** It goes on to be told that it is not allowed, and why not. */
      readonly refused: PeerRefused | undefined;
    }
  | {
      readonly ok: false;
      readonly at: 'handshake' | 'verdict';
      readonly reason: DenyReason;
      readonly detail: string;
      /** Undefined where nobody looked at what the peer showed. */
      readonly shown?: ShownPeer | undefined;
    };

/** From the first byte of a TLS handshake to the verdict on the peer, the same for both directions. */
export class Admission {
  readonly #options: AdmissionOptions;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** A handshake, the verdict, and a place among the connections: the whole way of a session that begins with TLS. */
  handshake(options: HandshakeOptions): void {
    const { finish } = this.#options;
    const { session } = options;
    const inProgress = this.authenticate(options, (outcome) => {
      if (!outcome.ok) {
        options.dropRest();
        finish(session);
        return;
      }
      const { connection, proven } = outcome;
      session.drop = () => {
        connection.abort();
        options.dropRest();
        finish(session);
      };
      this.#place(options, connection, proven);
    });
    session.drop = () => {
      inProgress.abort();
      options.dropRest();
      finish(session);
    };
  }

  /** From the first byte of a handshake to the verdict; what is learned is noted in the session. `done` is not called after an abort. */
  authenticate(options: AuthenticateOptions, done: (outcome: Authenticated) => void): HandshakeInProgress {
    const { events, clock, ref } = this.#options;
    const { session, role, timeoutMs } = options;
    const begunAtMs = clock.monotonic();
    const failed = (reason: DenyReason, detail: string): void => {
      session.denied = reason;
      session.because(role === 'client' ? 'handshake_failed' : 'upstream_tls_failed', detail);
      events.handshakeFinished(ref, reason, clock.monotonic() - begunAtMs);
      done({ ok: false, at: 'handshake', reason, detail });
    };
    const timer = clock.after(timeoutMs, () => {
      inProgress.abort();
      failed('handshake_timeout', `no handshake within ${timeoutMs} ms`);
    });
    const inProgress = options.begin((outcome) => {
      timer.cancel();
      session.handshakeMs = clock.monotonic() - begunAtMs;
      if (outcome.ok) done(this.#judged(options, outcome.connection));
      else failed(handshakeProblem(outcome.code), `${outcome.code}: ${outcome.message}`);
    });
    return {
      abort() {
        timer.cancel();
        inProgress.abort();
      },
    };
  }

  /** A session that has no peer yet: `enter` is called when it has its place among the connections, at once or later. */
  enterUnjudged(session: Session, dropRest: () => void, enter: () => void): void {
    const { finish } = this.#options;
    session.drop = () => {
      dropRest();
      finish(session);
    };
    const attempt = (): void => {
      if (!this.#takePlace(session, attempt)) return;
      this.#options.admitted(session);
      enter();
    };
    attempt();
  }

  /**
   * True: the session has a place among the connections. False: it waits for one, and `retry` is called when it may have
   * one. It is dropped when it has waited for long enough, or when whoever it waits for is gone.
   */
  #takePlace(session: Session, retry: () => void, peer?: { readonly connection: SecureConnection; readonly role: PeerRole }): boolean {
    const { gate, clock, room } = this.#options;
    const again = (): void => {
      if (session.ended) return;
      stop();
      retry();
    };
    if (gate.takePlace(again)) return true;
    const { drop } = session;
    const timeoutMs = this.#options.placeTimeoutMs();
    const timer = clock.after(timeoutMs, () => {
      session.because('waiting_limit', `no place among the connections was free within ${timeoutMs} ms`);
      session.drop();
    });
    const stop = (): void => {
      gate.forget(again);
      timer.cancel();
      if (peer !== undefined) room.leave(peer.connection);
      session.drop = drop;
    };
    session.drop = () => {
      stop();
      drop();
    };
    if (peer !== undefined) {
      const left = (): void => {
        session.because(peer.role === 'client' ? 'downstream_reset' : 'upstream_reset', 'it left while it waited for a place');
        session.drop();
      };
      const crowdedOut = (detail: string): void => {
        session.because('waiting_limit', detail);
        session.drop();
      };
      room.enter(peer.connection, { ended: left, closed: left, crowdedOut });
    }
    session.linger();
    return false;
  }

  #judged(options: AuthenticateOptions, connection: SecureConnection): Authenticated {
    const { events, ref } = this.#options;
    const { session } = options;
    session.tlsVersion = connection.tlsVersion;
    session.alpn = connection.alpn;
    session.peer = undefined;
    session.rule = undefined;
    session.audited = undefined;
    const judged = this.#judge(options, connection);
    this.#witness(session, judged);
    const peer = options.session.peer?.peerId;
    events.handshakeFinished(ref, peer === undefined ? (session.denied ?? 'ok') : 'ok', session.handshakeMs ?? 0);
    if (peer !== undefined) {
      events.authorised(ref, session.denied === undefined ? 'allow' : 'deny', session.rule ?? '', session.audited);
      this.#noteRefusal(options, peer);
    }
    if (!judged.ok) connection.abort();
    return judged;
  }

  /** Of a peer whose protocol has words for a refusal, each request is noted instead. */
  #noteRefusal({ session: { denied, audited }, tellsDenied }: AuthenticateOptions, peer: SpiffeId): void {
    const reason = policyReason(denied ?? audited);
    if (reason !== undefined && tellsDenied !== true)
      this.#options.refused({ peer, reason, isEnforced: denied !== undefined, request: undefined });
  }

  /**
   * Waits for a place among the connections if there is none; whoever waited is judged anew. Who is not allowed takes no
   * place that somebody else may need.
   */
  #place(options: HandshakeOptions, connection: SecureConnection, proven: ProvenPeer): void {
    const { gate } = this.#options;
    const { session } = options;
    if (session.denied !== undefined) {
      if (gate.takeSparePlace()) this.#enter(options, connection, proven);
      else {
        session.because('denied', 'too few connections are left to tell it so');
        session.drop();
      }
      return;
    }
    const judgeAgain = (): void => {
      const anew = this.#judge(options, connection);
      if (anew.ok) this.#place(options, connection, anew.proven);
      else {
        this.#witness(session, anew);
        session.drop();
      }
    };
    if (this.#takePlace(session, judgeAgain, { connection, role: options.role })) this.#enter(options, connection, proven);
  }

  #enter({ session, admitted }: HandshakeOptions, connection: SecureConnection, proven: ProvenPeer): void {
    session.proven = proven;
    this.#options.peers.joined(this.#options.ref, proven);
    session.peerExpiresAtMs = proven.authenticated.expiresAtMs;
    session.isToldOnly = session.denied !== undefined;
    connection.dropPeerEvidence();
    this.#options.admitted(session);
    admitted(connection);
  }

  #witness(session: Session, judged: Authenticated): void {
    const { peers, ref } = this.#options;
    if (judged.ok) peers.judged(ref, session, { proven: judged.proven }, judged.refused);
    else if (judged.shown !== undefined)
      peers.judged(ref, session, judged.shown, { reason: judged.reason, detail: judged.detail, rule: session.rule });
  }

  /** A mistake of ours refuses the peer whose certificates brought it up. Thrown on, it would end the process, for any stranger to do. */
  #judge(options: AuthenticateOptions, connection: SecureConnection): Authenticated {
    try {
      return this.#verdictOn(options, connection);
    } catch (thrown) {
      const { session, role } = options;
      session.peer = undefined;
      session.because('internal_error', `the peer could not be judged: ${messageOf(thrown)}`);
      return deny(session, role, 'bad_certificate', '');
    }
  }

  /** The verdict, over the newest snapshot and policy. What it finds is noted in the session. */
  #verdictOn({ session, role, tellsDenied }: AuthenticateOptions, connection: SecureConnection): Authenticated {
    const { identity, judge, clock } = this.#options;
    const snapshot = identity.current();
    if (snapshot?.kind !== 'held') {
      return deny(session, role, 'identity_not_ready', snapshot?.reason ?? 'no SVID has come from the Workload API yet');
    }
    const { ownId } = session;
    if (!snapshot.svids.some((svid) => svid.id === ownId)) {
      return deny(session, role, 'identity_not_ready', `the Workload API no longer gives us ${ownId}, which was presented`);
    }
    const authenticated = judge.authenticate(connection, role, snapshot, clock.now());
    if (!authenticated.ok) {
      const { problem, detail, claimedId } = authenticated.error;
      const { leafDer } = connection.readPeerEvidence();
      session.peer = { peerId: undefined, ...describeLeaf(leafDer) };
      const sentence = claimedId === undefined ? detail : `${detail} (claims to be ${claimedId})`;
      return deny(session, role, problem, sentence, { proven: undefined, leafDer, claimedId });
    }
    const { id, leaf } = authenticated.value.authenticated;
    session.peer = { peerId: id, issuerKeyId: leaf.authorityKeyId, serial: leaf.serial };
    const verdict = authorise(id, this.#options.policy(), clock.now());
    session.rule = verdict.rule;
    session.audited = verdict.allowed ? verdict.audited : undefined;
    session.denied = undefined;
    const proven = authenticated.value;
    if (verdict.allowed) return { ok: true, connection, proven, refused: undefined };
    const { reason, detail, rule } = verdict;
    if (tellsDenied !== true) return deny(session, role, reason, detail, { proven });
    session.denied = reason;
    return { ok: true, connection, proven, refused: { reason, detail, rule } };
  }
}

function deny(session: Session, role: PeerRole, reason: DenyReason, detail: string, shown?: ShownPeer): Authenticated {
  session.denied = reason;
  session.because(role === 'client' ? 'denied' : 'upstream_denied', detail);
  return { ok: false, at: 'verdict', reason, detail, shown };
}
