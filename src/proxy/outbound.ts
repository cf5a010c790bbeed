import { isIpAddress } from '../config/units.ts';
import type { OutboundConfig, OutboundHttpConfig } from '../config/config.ts';
import { authorise } from '../policy/judge.ts';
import type { AllowList } from '../policy/rules.ts';
import { expiryOf, type OwnIdentity } from '../tls/contexts.ts';
import type { AcceptedConnection } from '../transport/connection.ts';
import { connect, type OpenedConnection } from '../transport/node.ts';
import { buildOutboundFields } from '../http1/identity-fields.ts';
import { forwardHttp } from '../forward/http1-forwarder.ts';
import type { UpstreamOutcome } from '../forward/http1-upstream.ts';
import type { AuthenticateOptions } from './admission.ts';
import { ProxyListener, type ListenerDeps } from './listener.ts';
import { connectFailure, connectProblem, deniedFailure, handshakeFailure, notReadyFailure } from '../forward/outcome.ts';
import type { Session } from '../forward/session.ts';

/**
 * Plain text from the application, TLS to a server. Nothing that the application says is read before the server was found
 * to be who it must be.
 */
export class OutboundListener extends ProxyListener<OutboundConfig> {
  constructor(config: OutboundConfig, deps: ListenerDeps) {
    super('outbound', config, deps);
  }

  protected override get allow(): AllowList {
    return this.settings.expect;
  }

  protected override begin(session: Session, accepted: AcceptedConnection, own: OwnIdentity): void {
    const { http } = this.settings;
    this.watchUnread(session, accepted);
    if (http === undefined) this.#connect(session, accepted, own);
    else {
      // The server is connected to when there is something to ask it, so the place of a handshake is not needed.
      this.admission.enterUnjudged(
        session,
        () => this.dropUnread(accepted),
        () => this.#forwardRequests(session, accepted, http),
      );
    }
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
      admitted: (upstream) => this.forward(session, this.heed(session, accepted), upstream),
    });
  }

  #handshake(session: Session, opened: OpenedConnection, own: OwnIdentity): AuthenticateOptions {
    const options = { context: own.context, alpn: this.settings.alpn, serverName: this.#serverName() };
    return {
      session,
      role: 'server',
      timeoutMs: this.limits.handshakeTimeoutMs,
      begin: (done) => opened.openTls(options, done),
    };
  }

  #forwardRequests(session: Session, accepted: AcceptedConnection, http: OutboundHttpConfig): void {
    forwardHttp({
      downstream: this.heed(session, accepted),
      session,
      counters: this.counters,
      ticker: this.ticker,
      clock: this.deps.clock,
      limits: http.limits,
      identity: buildOutboundFields(http.xfcc),
      scratch: this.scratch(http.limits),
      judged: 'upstream',
      // The server decides, by the newest list.
      judge: () => {
        const { proven } = session;
        if (proven === undefined) throw new Error('a request was judged before its server');
        const refused = this.refusedAnew(session, proven);
        if (refused !== undefined) return refused;
        const verdict = authorise(proven.authenticated.id, this.allow);
        session.rule = verdict.allowed ? verdict.rule : undefined;
        session.denied = verdict.allowed ? undefined : verdict.reason;
        return verdict;
      },
      open: (done) => this.#openServer(session, done),
      // The next server is judged by itself.
      released: () => {
        session.proven = undefined;
        session.expiresAtMs = Infinity;
      },
      requestFinished: (record) => this.deps.events.requestFinished(this.ref, record),
      broken: (side, error) => this.broken(session, side, error),
      done: () => this.finish(session),
    });
  }

  /** A connection to a server that was found to be who it must be; nothing has been said on it. */
  #openServer(session: Session, done: (outcome: UpstreamOutcome) => void): { abort(): void } {
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
          done({ ok: false, failure: connectFailure(outcome.error.code, outcome.error.message) });
          return;
        }
        session.upstreamAddress = outcome.opened.address;
        inProgress = this.admission.authenticate(this.#handshake(session, outcome.opened, own), (judged) => {
          if (!judged.ok) {
            const { at, reason, detail } = judged;
            done({ ok: false, failure: at === 'verdict' ? deniedFailure(reason, detail) : handshakeFailure(reason, detail) });
            return;
          }
          session.proven = judged.proven;
          session.clearedBy = this.deps.denyList();
          judged.connection.dropPeerEvidence();
          session.expiresAtMs = Math.min(expiryOf(own), judged.proven.authenticated.leaf.notAfterMs);
          done({ ok: true, connection: judged.connection });
        });
      },
    );
    return { abort: () => inProgress.abort() };
  }

  /** TLS forbids IP literals in SNI (RFC 6066, section 3). */
  #serverName(): string | undefined {
    const { serverName, to } = this.settings;
    if (serverName !== undefined) return serverName;
    return to.kind === 'tcp' && !isIpAddress(to.host) ? to.host : undefined;
  }
}
