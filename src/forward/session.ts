import type { LiveRules } from '../config/policy/live-rules.ts';
import type { Clock } from '../lib/clock.ts';
import type { DenyList } from '../policy/deny-list.ts';
import type { DenyReason, PolicyReason, Verdict } from '../policy/verdict.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { CloseReason, ConnectionRecord } from '../telemetry/log/records.ts';
import type { ProvenPeer } from '../tls/peer.ts';
import type { ProxyConnection } from '../proxy-protocol/header.ts';

let lastId = 0;
/** Enough for a SPIFFE ID and what is wrong with it. */
const MAX_DETAIL = 4096;

/** What is known of the TLS peer while or after it was judged. */
export interface JudgedPeer {
  readonly peerId: SpiffeId | undefined;
  readonly issuerKeyId: string | undefined;
  readonly serial: string | undefined;
}

/** Why a connection drains, and until when it may. */
export interface Draining {
  readonly reason: CloseReason;
  readonly detail: string;
  /** Monotonic time. */
  readonly endsAtMs: number;
  /** Who is between requests may make one more, and be told with its response. */
  readonly mayAsk: boolean;
}

/** What the peers of open connections are judged by, besides the policy and the time. Compared as an object. */
export interface Grounds extends Pick<LiveRules, 'onAuthorityRemoved'> {
  /** Of the snapshot. */
  readonly generation: number;
  readonly denyList: DenyList;
  /** The SPIFFE IDs that we hold. */
  readonly ownIds: ReadonlySet<SpiffeId>;
}

/** What forwarders ask at each chunk. */
export interface Ticker {
  /** The present tick of the idle clock. */
  readonly tick: number;
  /**
   * Judges the session by what is newer than its last verdict, as far as that takes no certificates, if its turn has not come yet; false if
   * that ended it. What is under way of it may have been ended besides.
   */
  lets(session: Session): boolean;
}

/** One connection through a listener, from accept to its log line. The listener fills it in as it learns. */
export class Session {
  readonly id = ++lastId;
  /** Of the client; of the one that a load balancer announced, if it did. */
  downstreamAddress: string;
  /** The load balancer that announced the client. */
  via: string | undefined;
  /** What the application is told of the addresses; undefined if nothing. */
  told: ProxyConnection | undefined;
  upstreamAddress = '';
  readonly startedAtMs: number;
  handshakeMs: number | undefined;
  tlsVersion: string | undefined;
  alpn: string | undefined;
  peer: JudgedPeer | undefined;
  /** Set once the peer was admitted: judged again from this. */
  proven: ProvenPeer | undefined;
  /** By what the peer was judged last, and let be. */
  judgedBy: Grounds | undefined;
  /** In which round of judging it was judged last. */
  judgedIn = 0;
  /** The SPIFFE ID that we presented. */
  ownId: SpiffeId | undefined;
  /** Wall times at which what the peer proved itself with, and what we presented to it, expires. */
  peerExpiresAtMs = Infinity;
  ownExpiresAtMs = Infinity;
  /** Wall time at which the first of the tokens ends that what is under way was admitted by. */
  tokensEndAtMs = Infinity;
  /** Set while it drains: it ends for this, unless something else ends it first. Over HTTP outbound, the connection to the server alone does. */
  draining: Draining | undefined;
  /** The rule that decided. */
  rule: string | undefined;
  /** Only audit let it in: what it would have been refused for. */
  audited: PolicyReason | undefined;
  denied: DenyReason | undefined;
  /** It is not allowed, and was let in to be told so; no request of it was allowed since. */
  isToldOnly = false;
  bytesFromDownstream = 0;
  bytesToDownstream = 0;
  /** The connections' tick when a byte last moved. */
  lastActiveTick = 0;
  /** Drops whatever is open at the moment. Replaced as the session goes on. */
  drop: () => void = () => undefined;
  /** Ends the session at once, for this reason; in order if nothing is under way, for protocols that have such a moment. */
  dismiss: (reason: CloseReason, detail: string) => void = (reason, detail) => this.#dropBecause(reason, detail);
  /** It takes long until the session is admitted: what is unread of it is to be watched. */
  linger: () => void = () => undefined;
  /** Ends the session as soon as nothing is under way, if the protocol has such a moment. */
  wind: () => void = () => undefined;
  /** As `wind`, for the connection of TLS alone, since `draining` was set. */
  drain: (draining: Draining) => void = () => undefined;
  /** Whether something is under way that would not be let begin now. */
  hasDenied: () => boolean = () => false;
  /** Ends what is under way and would not be let begin now, for this reason: by itself if that can be, else with its connection. */
  endDenied: (reason: CloseReason, detail: string) => void = () => undefined;
  /** Ends what is under way by a token that no longer holds: it has expired, or its key or its subject is trusted no more. */
  endTokens: () => void = () => undefined;
  #closeReason: CloseReason | undefined;
  #detail: string | undefined;
  #ended = false;

  constructor(downstreamAddress: string, startedAtMs: number) {
    this.downstreamAddress = downstreamAddress;
    this.startedAtMs = startedAtMs;
  }

  /** A verdict on the peer, later than the one that let it in. */
  judged(verdict: Verdict): void {
    this.rule = verdict.rule;
    this.denied = verdict.allowed ? undefined : verdict.reason;
    if (verdict.allowed) this.isToldOnly = false;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** The first reason given is the one that is told. */
  because(reason: CloseReason, detail?: string): void {
    if (this.#closeReason !== undefined) return;
    this.#closeReason = reason;
    // Strangers have a say in it: certificates hold names of any length.
    this.#detail = detail !== undefined && detail.length > MAX_DETAIL ? `${detail.slice(0, MAX_DETAIL)}…` : detail;
  }

  /** The connection that was judged is used no more, and another may take its place: what was known of it is of the past. */
  forgetPeer(): void {
    this.proven = undefined;
    this.judgedBy = undefined;
    this.peerExpiresAtMs = Infinity;
    this.ownExpiresAtMs = Infinity;
    this.draining = undefined;
  }

  #dropBecause(reason: CloseReason, detail: string): void {
    this.because(reason, detail);
    this.drop();
  }

  /** True the first time: then the caller writes the record and gives back what the session held. */
  end(): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    this.drop = () => undefined;
    this.dismiss = () => undefined;
    this.linger = () => undefined;
    this.wind = () => undefined;
    this.drain = () => undefined;
    this.hasDenied = () => false;
    this.endDenied = () => undefined;
    this.endTokens = () => undefined;
    return true;
  }

  record(clock: Clock): ConnectionRecord {
    const closeReason = this.#closeReason ?? this.draining?.reason ?? 'finished';
    const detail = this.#closeReason === undefined ? this.draining?.detail : this.#detail;
    return {
      id: this.id,
      downstreamAddress: this.downstreamAddress,
      via: this.via,
      upstreamAddress: this.upstreamAddress,
      peerId: this.peer?.peerId,
      issuerKeyId: this.peer?.issuerKeyId,
      serial: this.peer?.serial,
      tlsVersion: this.tlsVersion,
      alpn: this.alpn,
      verdict: this.denied !== undefined ? 'deny' : this.rule !== undefined ? 'allow' : 'none',
      reason: this.denied ?? closeReason,
      closeReason,
      detail,
      rule: this.rule,
      audited: this.audited,
      bytesFromDownstream: this.bytesFromDownstream,
      bytesToDownstream: this.bytesToDownstream,
      durationMs: clock.monotonic() - this.startedAtMs,
      handshakeMs: this.handshakeMs,
    };
  }
}
