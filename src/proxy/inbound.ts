import type { HttpConfig, InboundConfig } from '../config/config.ts';
import { ok } from '../lib/result.ts';
import { expiryOf, type OwnIdentity } from '../tls/contexts.ts';
import type { AcceptedConnection, SecureConnection } from '../transport/connection.ts';
import { connect, type ConnectOutcome } from '../transport/node.ts';
import { closeInOrder } from '../forward/close-in-order.ts';
import { foldName, nameBytes } from '../http1/fields.ts';
import { buildIdentityFields, type Caller } from '../http1/identity-fields.ts';
import { bearerProblem, type Bearer, type RequestTokens } from '../forward/bearer.ts';
import { forwardHttp } from '../forward/http1-forwarder.ts';
import type { UpstreamOutcome } from '../forward/http1-upstream.ts';
import type { StreamOutcome } from '../forward/http2-engine.ts';
import type { Http2ForwardOptions } from '../forward/http2-forwarder.ts';
import { ProxyListener, type ListenerDeps } from './listener.ts';
import { connectFailure } from '../forward/outcome.ts';
import { mustSendHeader, proxyHeaderFor, readProxyHeader } from './proxy-header.ts';
import { endpointOf, formatEndpoint, type ProxyEndpoint } from '../proxy-protocol/header.ts';
import type { Session } from '../forward/session.ts';
import type { TokenCounts } from '../telemetry/log/jwt-records.ts';
import { TokenConnection, Tokens } from './tokens.ts';

/** What both versions of HTTP need. */
type HttpOptions = Omit<Http2ForwardOptions, 'open' | 'files' | 'idleTimeoutMs' | 'maxConcurrentStreams'>;

/**
 * TLS in, plain text to the application. The application is connected to only when the peer was admitted, and no byte
 * passes in either direction before.
 */
export class InboundListener extends ProxyListener<InboundConfig> {
  /** Undefined where nobody looks at tokens. */
  readonly #tokens: Tokens | undefined;

  constructor(config: InboundConfig, deps: ListenerDeps) {
    super('inbound', config, deps);
    const { identity, denyList, clock } = deps;
    this.#tokens =
      config.jwt && new Tokens({ config: config.jwt, identity, denyList, clock, checked: deps.events.jwt.countTokens(config.name) });
  }

  /** It looks at the JWT-SVIDs of requests. */
  get hasTokens(): boolean {
    return this.#tokens !== undefined;
  }

  get tokenCounts(): TokenCounts | undefined {
    return this.#tokens?.counts;
  }

  /** The field that has the peer's SPIFFE ID for the application, if there is one. */
  get spiffeIdHeader(): string | undefined {
    return this.settings.http?.spiffeIdHeader;
  }

  protected override begin(session: Session, accepted: AcceptedConnection, own: OwnIdentity): void {
    const { proxyProtocol } = this.settings;
    if (proxyProtocol.send !== 'off') {
      session.told = { source: endpointOf(accepted.remoteAddress), destination: this.#destinationOf(accepted) };
    }
    const must = mustSendHeader(proxyProtocol, accepted.remoteAddress);
    if (must === false) {
      this.#handshake(session, accepted, own);
      return;
    }
    if (must === true) {
      this.#readHeader(session, accepted, own);
      return;
    }
    session.because('downstream_reset', 'it was reset at once, as health checks are');
    accepted.abort();
    this.finish(session);
  }

  #destinationOf(accepted: AcceptedConnection): ProxyEndpoint {
    const { listen } = this.settings;
    return listen.kind === 'unix' ? listen : endpointOf(accepted.localAddress);
  }

  /** What a load balancer says of the client, before TLS. */
  #readHeader(session: Session, accepted: AcceptedConnection, own: OwnIdentity): void {
    const { clock, events } = this.deps;
    const timeoutMs = this.limits.handshakeTimeoutMs;
    const begunAtMs = clock.monotonic();
    const refuse = (reason: 'bad_proxy_header' | 'handshake_timeout', detail: string): void => {
      session.denied = reason;
      session.because('handshake_failed', detail);
      events.handshakeFinished(this.ref, reason, clock.monotonic() - begunAtMs);
      session.drop();
    };
    const reading = readProxyHeader(accepted, {
      clock,
      timeoutMs,
      done: (outcome) => {
        switch (outcome.kind) {
          case 'header':
            if (outcome.connection !== undefined) {
              session.via = session.downstreamAddress;
              session.downstreamAddress = formatEndpoint(outcome.connection.source);
              if (session.told !== undefined) session.told = outcome.connection;
            }
            this.#handshake(session, accepted, own);
            return;
          case 'left':
            session.because('downstream_reset', 'a health check');
            session.drop();
            return;
          case 'bad':
            refuse('bad_proxy_header', outcome.detail);
            return;
          case 'timeout':
            refuse('handshake_timeout', outcome.detail);
        }
      },
    });
    session.drop = () => {
      reading.abort();
      accepted.abort();
      this.finish(session);
    };
  }

  #handshake(session: Session, accepted: AcceptedConnection, own: OwnIdentity): void {
    this.admission.handshake({
      session,
      role: 'client',
      timeoutMs: this.limits.handshakeTimeoutMs,
      begin: (done) => accepted.openTls({ context: own.context, alpn: this.settings.alpn }, done),
      dropRest: () => undefined,
      tellsDenied: this.settings.http !== undefined,
      admitted: (downstream) => {
        const { http } = this.settings;
        session.ownExpiresAtMs = expiryOf(own);
        if (http === undefined) this.#connectApplication(session, downstream);
        else this.#forwardRequests(session, downstream, http);
      },
    });
  }

  /** What was negotiated says which HTTP it is; the bytes never do. Who negotiates nothing speaks HTTP/1.1. */
  #forwardRequests(session: Session, downstream: SecureConnection, http: HttpConfig): void {
    const options = this.#httpOptions(session, downstream, http);
    const { alpn } = this.settings;
    if (downstream.alpn === 'h2' && http.application === 'http/1.1' && http.translation === 'http-proxy') {
      this.#forwardHttp2(session, downstream, options, http);
    } else if (downstream.alpn === 'h2') this.#splice(session, downstream, options, http);
    else if (downstream.alpn === undefined && alpn.length > 0 && !alpn.includes('http/1.1')) {
      session.because('protocol_error', `no protocol was negotiated, and only ${alpn.join()} is spoken here`);
      closeInOrder(session, downstream, this.deps.clock, () => this.finish(session));
    } else {
      const scratch = this.scratch(http.limits);
      forwardHttp({
        ...options,
        upgrades: http.upgrades,
        scratch,
        judged: 'downstream',
        open: (done) => this.#openApplication(session, downstream, done),
        released: () => undefined,
        dismissed: () => undefined,
      });
    }
  }

  #httpOptions(session: Session, downstream: SecureConnection, http: HttpConfig): HttpOptions {
    const { proven, ownId } = session;
    // The types cannot say what admission has seen to.
    if (proven === undefined || ownId === undefined) throw new Error('a connection was admitted without a peer');
    const { id, leaf } = proven.authenticated;
    const authorisation = this.authorisation(id);
    const caller = { peerId: id, ownId, leafSha256: leaf.sha256 };
    const tokens = this.#tokensOf(http, caller, () => authorisation.connection().allowed);
    return {
      downstream,
      session,
      counters: this.counters,
      ticker: this.ticker,
      clock: this.deps.clock,
      limits: http.limits,
      identity: buildIdentityFields(http, caller, this.guardsRequests, tokens === undefined ? [] : [tokens.subjectHeader]),
      tokens,
      judge: (method, target, host, bearer) => {
        const refused = this.refusedAnew(session, proven);
        if (refused !== undefined) return ok(refused);
        const problem = bearerProblem(tokens, bearer);
        if (problem !== undefined) {
          const connection = authorisation.connection();
          session.judged(connection);
          return ok(connection.allowed ? { allowed: false, peer: id, rule: undefined, ...problem } : connection);
        }
        const judged = authorisation.request(method, target, host, bearer?.kind === 'token' ? bearer.token.subject : undefined);
        // Who may not ask for this may still ask for something else.
        if (judged.ok) session.judged(judged.value.allowed ? judged.value : authorisation.connection());
        return judged;
      },
      requestFinished: (record) => this.requestFinished(record),
      broken: (side, error) => this.broken(session, side, error),
      done: () => this.finish(session),
    };
  }

  /** Of one connection. Of who may ask for nothing at all, no token is verified. */
  #tokensOf(http: HttpConfig, caller: Caller, mayAsk: () => boolean): RequestTokens | undefined {
    const { jwt } = this.settings;
    const tokens = this.#tokens;
    if (jwt === undefined || tokens === undefined) return undefined;
    const { header, subjectHeader, forwardsToken } = jwt;
    const connection = new TokenConnection();
    let waiting = 0;
    const removed = forwardsToken ? [subjectHeader] : [subjectHeader, header];
    return {
      header: nameBytes(foldName(header)),
      identity: buildIdentityFields(http, caller, this.guardsRequests, removed),
      subjectHeader,
      read: (values) => {
        if (!mayAsk()) return UNREAD;
        // Of those whose streams are over already.
        if (waiting > 2 * http.maxConcurrentStreams) return tokens.overflow();
        const bearer = tokens.read(values, connection);
        if (bearer instanceof Promise) {
          waiting++;
          void bearer.then(() => waiting--);
        }
        return bearer;
      },
      problemOf: (bearer) => tokens.problemOf(bearer),
    };
  }

  #forwardHttp2(session: Session, downstream: SecureConnection, options: HttpOptions, http: HttpConfig): void {
    void this.loaded(session, async () => {
      const { forwardHttp2 } = await import('../forward/http2-forwarder.ts');
      return () =>
        forwardHttp2({
          ...options,
          maxConcurrentStreams: http.maxConcurrentStreams,
          idleTimeoutMs: this.limits.idleTimeoutMs,
          files: this.deps.files.inbound,
          open: (done) => this.#openApplicationStream(session, downstream, done),
        });
    });
  }

  #splice(session: Session, downstream: SecureConnection, options: HttpOptions, http: HttpConfig): void {
    void this.loaded(session, async () => {
      const { forwardSpliced } = await import('../forward/splice/splice.ts');
      return () =>
        forwardSpliced({
          ...options,
          maxConcurrentStreams: http.maxConcurrentStreams,
          upgrades: http.extendedConnect ? http.upgrades : undefined,
          idleTimeoutMs: this.limits.idleTimeoutMs,
          greetingTimeoutMs: this.limits.connectTimeoutMs,
          http1: http.application === 'http/1.1' ? { scratch: this.scratch(http.limits) } : undefined,
          files: this.deps.files.inbound,
          open: (done) => this.#openApplication(session, downstream, done),
          faulted: (side, reason) => this.deps.events.http2Faulted(this.ref, side, reason),
        });
    });
  }

  /** A connection to the application at which nothing has been read. */
  #openApplication(session: Session, downstream: SecureConnection, done: (outcome: UpstreamOutcome) => void): { abort(): void } {
    return this.#dialApplication(session, 'plain', (outcome) => {
      if (!outcome.ok) {
        done({ ok: false, failure: connectFailure('the application', outcome.error.code, outcome.error.message) });
        return;
      }
      const connection = outcome.opened.open();
      const header = proxyHeaderFor(this.settings.proxyProtocol, session, downstream);
      if (header !== undefined) connection.write(header);
      done({ ok: true, connection });
    });
  }

  #openApplicationStream(session: Session, downstream: SecureConnection, done: (outcome: StreamOutcome) => void): { abort(): void } {
    return this.#dialApplication(session, 'stream', (outcome) => {
      if (!outcome.ok) {
        done({ ok: false, failure: connectFailure('the application', outcome.error.code, outcome.error.message) });
        return;
      }
      const native = outcome.opened.openStream();
      const header = proxyHeaderFor(this.settings.proxyProtocol, session, downstream);
      if (header !== undefined) native.stream.write(header);
      done({ ok: true, native });
    });
  }

  #dialApplication(session: Session, use: 'plain' | 'stream', done: (outcome: ConnectOutcome) => void): { abort(): void } {
    const { connectTimeoutMs, tcpKeepAliveMs } = this.limits;
    return connect({ endpoint: this.settings.to, timeoutMs: connectTimeoutMs, keepAliveMs: tcpKeepAliveMs ?? 0, use }, (outcome) => {
      if (outcome.ok) session.upstreamAddress = outcome.opened.address;
      done(outcome);
    });
  }

  #connectApplication(session: Session, downstream: SecureConnection): void {
    const attempt = this.#openApplication(session, downstream, (outcome) => {
      if (outcome.ok) {
        this.forward(session, downstream, outcome.connection);
        return;
      }
      session.because(outcome.failure.closeReason, outcome.failure.message);
      closeInOrder(session, downstream, this.deps.clock, () => this.finish(session));
    });
    session.drop = () => {
      attempt.abort();
      downstream.abort();
      this.finish(session);
    };
  }
}

/** Nobody has looked: not the same as none, which may pass where a token need not be there. */
const UNREAD: Bearer = Object.freeze({ kind: 'refused', reason: 'token_unverifiable', detail: 'the token was not looked at' });
