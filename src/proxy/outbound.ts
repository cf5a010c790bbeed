import { authorityOf, isIpAddress, isWebAddress, type WebAddress } from '../config/units.ts';
import type { OutboundConfig, OutboundHttpConfig } from '../config/config.ts';
import { ok } from '../lib/result.ts';
import type { Authorisation } from '../policy/judge.ts';
import { expiryOf, type OwnIdentity } from '../tls/contexts.ts';
import type { WebAuthorities } from '../tls/web-authorities.ts';
import type { AcceptedConnection, TlsContext } from '../transport/connection.ts';
import { connect, type OpenedConnection } from '../transport/node.ts';
import { buildOutboundFields } from '../http1/identity-fields.ts';
import type { RequestCredential } from '../forward/request-credential.ts';
import type { RequestJudge } from '../forward/bearer.ts';
import { forwardHttp } from '../forward/http1-forwarder.ts';
import type { OutboundSplice, SpliceOptions } from '../forward/splice/splice.ts';
import type { UpstreamOutcome } from '../forward/http1-upstream.ts';
import type { AuthenticateOptions } from './admission.ts';
import { IdentityWait } from './identity-wait.ts';
import { ProxyListener, type ListenerDeps } from './listener.ts';
import { connectFailure, connectProblem, deniedFailure, handshakeFailure, notHttp2Failure, notReadyFailure } from '../forward/outcome.ts';
import type { Session } from '../forward/session.ts';
import type { CloseReason } from '../telemetry/log/records.ts';
import { openWebServer } from './web-upstream.ts';

/** What only some listeners need. */
export interface OutboundExtras {
  readonly authorities?: Pick<WebAuthorities, 'contextOf' | 'onChange'> | undefined;
  readonly credential?: RequestCredential | undefined;
}

/** A server of the public web, and what it is judged by. */
interface WebServer {
  readonly to: WebAddress;
  readonly context: () => TlsContext;
}

/** What both versions of HTTP need. */
type HttpOptions = Omit<
  SpliceOptions,
  'downstream' | 'files' | 'idleTimeoutMs' | 'greetingTimeoutMs' | 'maxConcurrentStreams' | 'upgrades' | 'outbound' | 'faulted' | 'tokens'
> &
  OutboundSplice;

/**
 * Plain text from the application, TLS to a server. Nothing that the application says is read before the server was found
 * to be who it must be.
 */
export class OutboundListener extends ProxyListener<OutboundConfig> {
  readonly #identityWait: IdentityWait;
  /** Connections over `tcp` that wait for our first SVID, ahead of the gate: no time of a handshake is theirs yet. */
  readonly #early = new Map<AcceptedConnection, { leave(why: 'left' | 'stopping'): void }>();
  #stopListening: (() => void) | undefined;

  readonly #extras: OutboundExtras;
  /** Undefined: the server has a SPIFFE ID. */
  readonly #web: WebServer | undefined;
  #leave: (() => void) | undefined;

  constructor(config: OutboundConfig, deps: ListenerDeps, extras: OutboundExtras = {}) {
    super('outbound', config, deps);
    if ((config.attach === undefined) !== (extras.credential === undefined))
      throw new Error('a listener has another token than it asks for');
    this.#extras = extras;
    this.#web = webOf(config, extras);
    this.#identityWait = new IdentityWait({
      clock: deps.clock,
      turns: deps.turns,
      choice: config.identity,
      limits: () => ({ waitMs: this.settings.identityWaitMs, most: this.limits.maxWaiting }),
      ended: (result) => deps.events.identityWaitEnded(this.ref, result),
    });
  }

  override async start(signal: AbortSignal): Promise<void> {
    const { webPki } = this.settings;
    if (webPki?.caFile !== undefined) this.#leave = this.#extras.authorities?.onChange(webPki.caFile, () => this.#authoritiesChanged());
    this.#stopListening = this.deps.identity.subscribe((snapshot) => this.#identityWait.note(snapshot));
    await super.start(signal);
  }

  /** Requests that wait for identity are under way; connections that do are nobody's yet. */
  override async stop(deadline: AbortSignal): Promise<void> {
    const stopped = super.stop(deadline);
    for (const [accepted, wait] of this.#early) {
      wait.leave('stopping');
      this.#noLongerEarly(accepted);
      this.refuseUnread(accepted, 'draining', 'the listener is closing');
    }
    await stopped;
    this.#leave?.();
    this.#stopListening?.();
  }

  protected override arrived(accepted: AcceptedConnection): void {
    if (this.settings.http === undefined && this.#identityWait.isAwaited) this.#awaitIdentity(accepted);
    else super.arrived(accepted);
  }

  #awaitIdentity(accepted: AcceptedConnection): void {
    this.counters.waiting += 1;
    let isOver = false;
    const wait = this.#identityWait.enter((end) => {
      isOver = true;
      this.#noLongerEarly(accepted);
      if (end === 'came') super.arrived(accepted);
      else if (end === 'limit')
        this.refuseUnread(accepted, 'waiting_limit', `${this.limits.maxWaiting} connections wait already for our first SVID`);
      else this.refuseUnread(accepted, 'identity_not_ready', this.notReady() ?? 'our first SVID came too late');
    });
    if (isOver) return;
    this.#early.set(accepted, wait);
    const leave = (): void => {
      wait.leave('left');
      this.#noLongerEarly(accepted);
    };
    this.room.enter(accepted, {
      closed: () => {
        leave();
        this.letGoUnread(accepted);
      },
      crowdedOut: (detail) => {
        leave();
        this.refuseUnread(accepted, 'waiting_limit', detail);
      },
    });
  }

  #noLongerEarly(accepted: AcceptedConnection): void {
    this.counters.waiting -= 1;
    this.#early.delete(accepted);
    this.room.leave(accepted);
  }

  /** No SVID is presented to a server of the public web. */
  override notReady(): string | undefined {
    return this.#web === undefined ? super.notReady() : undefined;
  }

  /** What is under way goes on; whatever is asked after that goes to a server that those of now vouch for. */
  #authoritiesChanged(): void {
    const draining = {
      reason: 'authority_removed',
      detail: 'the authorities of its listener changed',
      endsAtMs: Infinity,
      mayAsk: true,
    } as const;
    for (const session of this.sessions) session.drain(draining);
  }

  protected override begin(session: Session, accepted: AcceptedConnection, own: OwnIdentity): void {
    const { http } = this.settings;
    if (http !== undefined) {
      this.#enter(session, accepted, http);
      return;
    }
    this.watchUnread(session, accepted);
    this.#connect(session, accepted, own);
  }

  /** Whoever asks over HTTP has its place, and each request is answered with a 503. */
  protected override get answersUnready(): boolean {
    return this.settings.http !== undefined;
  }

  protected override beginUnready(session: Session, accepted: AcceptedConnection): void {
    const { http } = this.settings;
    if (http === undefined) super.beginUnready(session, accepted);
    else this.#enter(session, accepted, http);
  }

  /** The server is connected to when there is something to ask it, so the place of a handshake is not needed. */
  #enter(session: Session, accepted: AcceptedConnection, http: OutboundHttpConfig): void {
    if (this.#web !== undefined) session.ownId = undefined;
    this.watchUnread(session, accepted);
    this.admission.enterUnjudged(
      session,
      () => this.dropUnread(accepted),
      () => this.#forwardRequests(session, accepted, http),
    );
  }

  #connect(session: Session, accepted: AcceptedConnection, own: OwnIdentity): void {
    const { connectTimeoutMs, tcpKeepAliveMs } = this.limits;
    const attempt = connect(
      { endpoint: this.settings.to, timeoutMs: connectTimeoutMs, keepAliveMs: tcpKeepAliveMs ?? 0, use: 'tls' },
      (outcome) => {
        if (outcome.ok) {
          session.upstreamAddress = outcome.opened.address;
          this.#secure(session, accepted, outcome.opened, own);
          return;
        }
        session.because(connectProblem(outcome.error.code), outcome.error.message);
        this.dropUnread(accepted);
        this.finish(session);
      },
    );
    session.drop = () => {
      attempt.abort();
      this.dropUnread(accepted);
      this.finish(session);
    };
  }

  #secure(session: Session, accepted: AcceptedConnection, opened: OpenedConnection, own: OwnIdentity): void {
    this.admission.handshake({
      ...this.#handshake(session, opened, own),
      dropRest: () => this.dropUnread(accepted),
      admitted: (upstream) => {
        session.ownExpiresAtMs = expiryOf(own);
        this.forward(session, this.heed(session, accepted), upstream);
      },
    });
  }

  #handshake(session: Session, opened: OpenedConnection, own: OwnIdentity, failed?: (code: string) => void): AuthenticateOptions {
    const options = { context: own.context, alpn: this.settings.alpn, serverName: this.#serverName() };
    return {
      session,
      role: 'server',
      timeoutMs: this.limits.handshakeTimeoutMs,
      begin: (done) =>
        opened.openTls(options, (outcome) => {
          if (!outcome.ok) failed?.(outcome.code);
          done(outcome);
        }),
    };
  }

  #forwardRequests(session: Session, accepted: AcceptedConnection, http: OutboundHttpConfig): void {
    const options = this.#httpOptions(session, http);
    if (http.application === 'h2c') {
      this.#splice(session, accepted, http, options);
      return;
    }
    forwardHttp({
      ...options,
      downstream: this.heed(session, accepted),
      upgrades: http.upgrades,
      scratch: this.scratch(http.limits),
      judged: 'upstream',
    });
  }

  #splice(session: Session, accepted: AcceptedConnection, http: OutboundHttpConfig, options: HttpOptions): void {
    void this.loaded(session, async () => {
      const { forwardSpliced } = await import('../forward/splice/splice.ts');
      return () =>
        forwardSpliced({
          ...options,
          // Unread until now, so that who is dropped meanwhile is dropped unread.
          downstream: this.heed(session, accepted),
          maxConcurrentStreams: http.maxConcurrentStreams,
          upgrades: http.extendedConnect ? http.upgrades : undefined,
          idleTimeoutMs: this.limits.idleTimeoutMs,
          greetingTimeoutMs: this.limits.connectTimeoutMs,
          files: this.deps.files.outbound,
          outbound: options,
          faulted: (side, reason) => this.deps.events.http2Faulted(this.ref, side, reason),
        });
    });
  }

  #httpOptions(session: Session, http: OutboundHttpConfig): HttpOptions {
    let authorisation: Authorisation | undefined;
    const web = this.#web;
    const { attach } = this.settings;
    const judge: RequestJudge = (method, target, host) => {
      const { proven } = session;
      if (proven === undefined) throw new Error('a request was judged before its server');
      const refused = this.refusedAnew(session, proven);
      if (refused !== undefined) return ok(refused);
      authorisation ??= this.authorisation(proven.authenticated.id);
      const judged = authorisation.request(method, target, host);
      if (judged.ok) session.judged(judged.value.allowed ? judged.value : authorisation.connection());
      return judged;
    };
    return {
      session,
      counters: this.counters,
      ticker: this.ticker,
      clock: this.deps.clock,
      limits: http.limits,
      identity: buildOutboundFields(http.xfcc, this.guardsRequests, {
        authority: web && authorityOf(web.to),
        replaced: attach?.replace === true ? attach.header : undefined,
      }),
      judge: web === undefined ? judge : undefined,
      credential: this.#extras.credential,
      open: (done) => (web === undefined ? this.#openServer(session, http, done) : this.#openWebServer(session, web, http, done)),
      // The next server is judged by itself.
      released: () => {
        const { draining } = session;
        if (draining !== undefined) this.#serverDismissed(session, draining.reason, draining.detail);
        this.leave(session);
        session.forgetPeer();
        authorisation = undefined;
      },
      dismissed: (reason, detail) => this.#serverDismissed(session, reason, detail),
      requestFinished: (record) => this.requestFinished(record),
      broken: (side, error) => this.broken(session, side, error),
      done: () => this.finish(session),
    };
  }

  #serverDismissed(session: Session, reason: CloseReason, detail: string): void {
    this.deps.events.serverDismissed(this.ref, { connection: session.id, peerId: session.peer?.peerId, reason, detail });
  }

  /** A connection to a server that was found to be who it must be; nothing has been said on it. Before our first SVID, that is waited for. */
  #openServer(session: Session, http: OutboundHttpConfig, done: (outcome: UpstreamOutcome) => void): { abort(): void } {
    if (!this.#identityWait.isAwaited) return this.#openNow(session, http, done);
    let abort: (() => void) | undefined;
    const wait = this.#identityWait.enter((end) => {
      if (end === 'came' || end === 'withdrawn') {
        const opening = this.#openNow(session, http, done);
        abort = () => opening.abort();
      } else done({ ok: false, failure: notReadyFailure(this.notReady() ?? 'our first SVID came too late', true) });
    });
    abort ??= () => wait.leave('left');
    return { abort: () => abort?.() };
  }

  #openNow(session: Session, http: OutboundHttpConfig, done: (outcome: UpstreamOutcome) => void): { abort(): void } {
    const { clock, contexts } = this.deps;
    const own = contexts.own(this.settings.identity, clock.now());
    if ('detail' in own) {
      done({ ok: false, failure: notReadyFailure(own.detail) });
      return { abort: () => undefined };
    }
    session.ownId = own.svid.id;
    const { connectTimeoutMs, tcpKeepAliveMs } = this.limits;
    let inProgress: { abort(): void } = connect(
      { endpoint: this.settings.to, timeoutMs: connectTimeoutMs, keepAliveMs: tcpKeepAliveMs ?? 0, use: 'tls' },
      (outcome) => {
        if (!outcome.ok) {
          done({ ok: false, failure: connectFailure('the server', outcome.error.code, outcome.error.message) });
          return;
        }
        session.upstreamAddress = outcome.opened.address;
        let code: string | undefined;
        const handshake = this.#handshake(session, outcome.opened, own, (failed) => (code = failed));
        inProgress = this.admission.authenticate(handshake, (judged) => {
          if (!judged.ok) {
            const { at, reason, detail } = judged;
            if (reason === 'identity_not_ready') done({ ok: false, failure: notReadyFailure(detail) });
            else done({ ok: false, failure: at === 'verdict' ? deniedFailure(reason, detail) : handshakeFailure(reason, code, detail) });
            return;
          }
          if (http.application === 'h2c' && judged.connection.alpn !== 'h2') {
            judged.connection.abort();
            done({ ok: false, failure: notHttp2Failure('it agreed to no protocol by ALPN') });
            return;
          }
          this.join(session, judged.proven);
          this.judgedNow(session);
          judged.connection.dropPeerEvidence();
          session.peerExpiresAtMs = judged.proven.authenticated.expiresAtMs;
          session.ownExpiresAtMs = expiryOf(own);
          done({ ok: true, connection: judged.connection });
        });
      },
    );
    return { abort: () => inProgress.abort() };
  }

  /** As `#openServer`, judged by the rules of the web alone. */
  #openWebServer(session: Session, web: WebServer, http: OutboundHttpConfig, done: (outcome: UpstreamOutcome) => void): { abort(): void } {
    const { deps, ref, limits } = this;
    const isHttp2 = http.application === 'h2c';
    return openWebServer({ session, ...web, isHttp2, limits, clock: deps.clock, events: deps.events, ref }, done);
  }

  /** TLS forbids IP literals in SNI (RFC 6066, section 3). */
  #serverName(): string | undefined {
    const { serverName, to } = this.settings;
    if (serverName !== undefined) return serverName;
    return to.kind === 'tcp' && !isIpAddress(to.host) ? to.host : undefined;
  }
}

function webOf({ to, webPki }: OutboundConfig, { authorities }: OutboundExtras) {
  if (webPki === undefined) return undefined;
  if (!isWebAddress(to) || authorities === undefined) throw new Error('a listener to the public web has nobody to ask who its server is');
  return { to, context: () => authorities.contextOf(webPki.caFile) };
}
