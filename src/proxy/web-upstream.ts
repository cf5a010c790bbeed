/** A connection to a server of the public web. Nothing of SPIFFE has a say in it. */
import { isIpAddress, type WebAddress } from '../config/units.ts';
import type { Limits } from '../config/config.ts';
import { connectFailure, deniedFailure, handshakeFailure, handshakeProblem, notHttp2Failure } from '../forward/outcome.ts';
import type { UpstreamOutcome } from '../forward/http1-upstream.ts';
import type { Session } from '../forward/session.ts';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { err, type Result } from '../lib/result.ts';
import type { DenyReason } from '../policy/verdict.ts';
import type { Events } from '../telemetry/events/events.ts';
import type { ListenerRef } from '../telemetry/log/records.ts';
import { judgeWebServer, type WebRefusal, type WebServer } from '../tls/web-server.ts';
import type { HandshakeOutcome, SecureConnection, TlsContext } from '../transport/connection.ts';
import { connect, type OpenedConnection } from '../transport/node.ts';

export interface WebUpstreamOptions {
  readonly session: Session;
  readonly to: WebAddress;
  /** HTTP/2 is spoken, to a server that agrees to it; else HTTP/1.1, whatever it agrees to. */
  readonly isHttp2: boolean;
  /** Without a certificate of ours. */
  readonly context: () => TlsContext;
  readonly limits: Pick<Limits, 'connectTimeoutMs' | 'handshakeTimeoutMs' | 'tcpKeepAliveMs'>;
  readonly clock: Clock;
  readonly events: Pick<Events, 'handshakeFinished'>;
  readonly ref: ListenerRef;
}

/** What the log has for the rule: no list of ours admitted the server. */
export const WEB_RULE = 'webPki';
const CHANGED = err<WebRefusal>({ reason: 'untrusted_chain', detail: 'the authorities of its listener changed during the handshake' });
const HTTP1_ALPN: readonly string[] = ['http/1.1'];
const HTTP2_ALPN: readonly string[] = ['h2'];

/** Connects; `done` is told once, unless the attempt is aborted. What is learned is noted in the session. Nothing has been said on the connection. */
export function openWebServer(options: WebUpstreamOptions, done: (outcome: UpstreamOutcome) => void): { abort(): void } {
  const { session, to, limits } = options;
  const { connectTimeoutMs, tcpKeepAliveMs } = limits;
  let inProgress: { abort(): void } = connect(
    { endpoint: to, timeoutMs: connectTimeoutMs, keepAliveMs: tcpKeepAliveMs ?? 0, use: 'tls' },
    (outcome) => {
      if (!outcome.ok) {
        done({ ok: false, failure: connectFailure('the server', outcome.error.code, outcome.error.message) });
        return;
      }
      session.upstreamAddress = outcome.opened.address;
      inProgress = secure(options, outcome.opened, done);
    },
  );
  return { abort: () => inProgress.abort() };
}

function secure(options: WebUpstreamOptions, opened: OpenedConnection, done: (outcome: UpstreamOutcome) => void): { abort(): void } {
  const { session, to, limits, clock, events, ref } = options;
  const context = options.context();
  const begunAtMs = clock.monotonic();
  const denied = (reason: DenyReason): void => {
    session.denied = reason;
    session.rule = undefined;
    events.handshakeFinished(ref, reason, clock.monotonic() - begunAtMs);
  };
  const failed = (reason: DenyReason, code: string | undefined, detail: string): void => {
    denied(reason);
    done({ ok: false, failure: handshakeFailure(reason, code, detail) });
  };
  const timer = clock.after(limits.handshakeTimeoutMs, () => {
    inProgress.abort();
    failed('handshake_timeout', undefined, `no handshake within ${limits.handshakeTimeoutMs} ms`);
  });
  const finished = (outcome: HandshakeOutcome): void => {
    timer.cancel();
    session.handshakeMs = clock.monotonic() - begunAtMs;
    if (!outcome.ok) {
      failed(handshakeProblem(outcome.code), outcome.code, `${outcome.code}: ${outcome.message}`);
      return;
    }
    const { connection } = outcome;
    session.tlsVersion = connection.tlsVersion;
    session.alpn = connection.alpn;
    const judged = options.context() === context ? judge(connection, to.host) : CHANGED;
    if (!judged.ok) {
      connection.abort();
      denied(judged.error.reason);
      done({ ok: false, failure: deniedFailure(judged.error.reason, judged.error.detail) });
      return;
    }
    events.handshakeFinished(ref, 'ok', session.handshakeMs);
    session.denied = undefined;
    session.rule = WEB_RULE;
    if (options.isHttp2 && connection.alpn !== 'h2') {
      connection.abort();
      done({ ok: false, failure: notHttp2Failure('it agreed to no protocol by ALPN') });
      return;
    }
    connection.dropPeerEvidence();
    session.peerExpiresAtMs = judged.value.expiresAtMs;
    done({ ok: true, connection });
  };
  const serverName = isIpAddress(to.host) ? undefined : to.host;
  const inProgress = opened.openTls({ context, alpn: options.isHttp2 ? HTTP2_ALPN : HTTP1_ALPN, serverName }, finished);
  return {
    abort() {
      timer.cancel();
      inProgress.abort();
    },
  };
}

/** A mistake of ours refuses the server whose certificate brought it up. */
function judge(connection: SecureConnection, host: string): Result<WebServer, WebRefusal> {
  try {
    return judgeWebServer(connection, host);
  } catch (thrown) {
    return err({ reason: 'bad_certificate', detail: `the server could not be judged: ${messageOf(thrown)}` });
  }
}
