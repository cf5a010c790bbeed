import type { InboundConfig } from '../config/config.ts';
import type { AllowList } from '../policy/rules.ts';
import type { OwnIdentity } from '../tls/contexts.ts';
import type { AcceptedConnection, SecureConnection } from '../transport/connection.ts';
import { connect } from '../transport/node.ts';
import { closeInOrder } from './close-in-order.ts';
import { ProxyListener, type ListenerDeps } from './listener.ts';
import { connectProblem } from './outcome.ts';
import type { Session } from './session.ts';

/**
 * TLS in, plain text to the application. The application is connected to only when the peer was admitted, and no byte
 * passes in either direction before.
 */
export class InboundListener extends ProxyListener<InboundConfig> {
  constructor(config: InboundConfig, deps: ListenerDeps) {
    super('inbound', config, deps);
  }

  protected override get allow(): AllowList {
    return this.settings.allow;
  }

  protected override begin(session: Session, accepted: AcceptedConnection, own: OwnIdentity): void {
    this.admission.handshake({
      session,
      role: 'client',
      timeoutMs: this.limits.handshakeTimeoutMs,
      begin: (done) => accepted.openTls({ context: own.context, alpn: this.settings.alpn }, done),
      dropRest: () => undefined,
      admitted: (downstream) => this.#connectApplication(session, downstream),
    });
  }

  #connectApplication(session: Session, downstream: SecureConnection): void {
    const { connectTimeoutMs, tcpKeepAliveMs } = this.limits;
    const attempt = connect(
      { endpoint: this.settings.to, timeoutMs: connectTimeoutMs, keepAliveMs: tcpKeepAliveMs ?? 0, use: 'plain' },
      (outcome) => {
        if (outcome.ok) {
          session.upstreamAddress = outcome.opened.address;
          this.forward(session, downstream, outcome.opened.open());
          return;
        }
        session.because(connectProblem(outcome.error.code), outcome.error.message);
        closeInOrder(session, downstream, this.deps.clock, () => this.finish(session));
      },
    );
    session.drop = () => {
      attempt.abort();
      downstream.abort();
      this.finish(session);
    };
  }
}
