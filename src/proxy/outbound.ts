import { isIpAddress } from '../config/units.ts';
import type { OutboundConfig } from '../config/config.ts';
import type { AllowList } from '../policy/rules.ts';
import type { OwnIdentity } from '../tls/contexts.ts';
import type { AcceptedConnection } from '../transport/connection.ts';
import { connect, type OpenedConnection } from '../transport/node.ts';
import { ProxyListener, type ListenerDeps } from './listener.ts';
import { connectProblem } from './outcome.ts';
import type { Session } from './session.ts';

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
        accepted.abort();
        this.finish(session);
      },
    );
    session.drop = () => {
      attempt.abort();
      accepted.abort();
      this.finish(session);
    };
  }

  #secure(session: Session, accepted: AcceptedConnection, opened: OpenedConnection, own: OwnIdentity): void {
    const options = { context: own.context, alpn: this.settings.alpn, serverName: this.#serverName() };
    this.admission.handshake({
      session,
      role: 'server',
      timeoutMs: this.limits.handshakeTimeoutMs,
      begin: (done) => opened.openTls(options, done),
      dropRest: () => accepted.abort(),
      admitted: (upstream) => this.forward(session, accepted.open(), upstream),
    });
  }

  /** TLS forbids IP literals in SNI (RFC 6066, section 3). */
  #serverName(): string | undefined {
    const { serverName, to } = this.settings;
    if (serverName !== undefined) return serverName;
    return to.kind === 'tcp' && !isIpAddress(to.host) ? to.host : undefined;
  }
}
