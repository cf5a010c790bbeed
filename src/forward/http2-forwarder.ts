import type { HttpLimits } from '../config/config.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { codeOf, messageOf } from '../lib/errors.ts';
import type { RequestRecord } from '../telemetry/log/records.ts';
import type { NativeStream, SecureConnection } from '../transport/connection.ts';
import type { Http2Forwarding } from './http-forwarding.ts';
import { DeadlineQueue } from './deadline-queue.ts';
import type { IdentityFields } from '../http1/identity-fields.ts';
import type { RequestJudge, RequestTokens } from './bearer.ts';
import {
  ApplicationConnections,
  NGHTTP2_CANCEL,
  openSession,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type StreamOutcome,
} from './http2-engine.ts';
import { Exchange, type ExchangeContext } from './http2-exchange.ts';
import { Http2Head } from '../http2/head.ts';
import { CLOSE_GRACE_MS, DENIED_HEAD_MS, DROP_GRACE_MS, Grace } from './grace.ts';
import type { Session } from './session.ts';

export interface Http2ForwardOptions extends Http2Forwarding {
  readonly downstream: SecureConnection;
  readonly judge: RequestJudge;
  /** Connects to the application; `done` is told once, unless the attempt is aborted. */
  open(done: (outcome: StreamOutcome) => void): { abort(): void };
}

/**
 * HTTP/2 from a client, HTTP/1.1 to the application: each request is read, judged and forwarded by itself, over connections
 * to the application that are this client's alone. Of what is not allowed, the client is told by a response on the stream;
 * of what breaks the protocol, by a reset of the stream or the end of the connection.
 */
export function forwardHttp2(options: Http2ForwardOptions): void {
  new Http2Forwarder(options).start();
}

/** One serves all connections of a listener: a head is read, judged and sent in one go. */
const heads = new WeakMap<HttpLimits, Http2Head>();

function headFor(limits: HttpLimits): Http2Head {
  let head = heads.get(limits);
  if (head === undefined) {
    head = new Http2Head(limits);
    heads.set(limits, head);
  }
  return head;
}

class Http2Forwarder implements ExchangeContext {
  readonly session: Session;
  readonly clock: Clock;
  readonly limits: HttpLimits;
  readonly identity: IdentityFields;
  readonly judge: RequestJudge;
  readonly tokens: RequestTokens | undefined;
  readonly head: Http2Head;
  readonly connections: ApplicationConnections;
  readonly #options: Http2ForwardOptions;
  readonly #isDenied: boolean;
  /** Those under way; and the streams that Node has open, of which some may only be sent still. */
  readonly #exchanges = new Set<Exchange>();
  #openStreams = 0;
  /** Whose responses are handed over and may not have been sent yet: a client that gives no window holds them up. */
  readonly #unsent = new Set<Exchange>();
  readonly #responses: DeadlineQueue<Exchange>;
  readonly #idle: DeadlineQueue<Exchange>;
  #native: NativeStream | undefined;
  #http2: ServerHttp2Session | undefined;
  /** What was counted of the client's bytes. */
  #read = 0;
  #written = 0;
  #firstTimer: Timer | undefined;
  readonly #grace: Grace;
  /** No further request is taken. */
  #ending = false;
  #closed = false;
  #done = false;

  constructor(options: Http2ForwardOptions) {
    const { session, clock, limits, identity, judge, tokens, counters } = options;
    this.#options = options;
    this.#isDenied = session.denied !== undefined;
    this.session = session;
    this.clock = clock;
    this.limits = limits;
    this.identity = identity;
    this.judge = judge;
    this.tokens = tokens;
    this.head = headFor(limits);
    this.#grace = new Grace(clock, options.downstream);
    this.#responses = new DeadlineQueue(clock, limits.responseTimeoutMs, (exchange) => exchange.responseLate());
    this.#idle = new DeadlineQueue(clock, options.idleTimeoutMs, (exchange) => exchange.idle());
    this.connections = new ApplicationConnections({
      max: options.maxConcurrentStreams,
      files: options.files,
      clock,
      silentMs: limits.upstreamIdleTimeoutMs,
      open: (done) => options.open(done),
      carried: (read, written) => {
        counters.upstreamReadBytes += read;
        counters.upstreamWrittenBytes += written;
      },
      emptied: () => this.#maybeDone(),
    });
  }

  start(): void {
    const { session, downstream, limits, clock } = this.#options;
    session.drop = () => this.#drop();
    session.dismiss = (reason, detail) => {
      session.because(reason, detail);
      if (this.#exchanges.size > 0 || this.#unsent.size > 0) this.#drop();
      else this.#end(CLOSE_GRACE_MS);
    };
    // Requests that are on their way are refused by the GOAWAY, which says so: Node cannot announce the end before it.
    session.wind = () => this.#endWithStreams();
    session.drain = () => this.#endWithStreams();
    const denied = (): Exchange[] => [...this.#exchanges, ...this.#unsent].filter((exchange) => exchange.isDeniedNow());
    session.hasDenied = () => denied().length > 0;
    session.endDenied = () => {
      for (const exchange of denied()) exchange.drop();
    };
    session.endTokens = () => {
      const ends = [...this.#exchanges, ...this.#unsent].map((exchange) => exchange.endToken());
      session.tokensEndAtMs = Math.min(Infinity, ...ends);
    };
    const native = downstream.handOver({ ended: () => this.#clientEnded(), closed: (error) => this.#clientClosed(error) });
    if (native === undefined) return;
    this.#native = native;
    // It has left while it waited.
    if (this.#ending) {
      downstream.abort();
      return;
    }
    const http2 = openSession(native, limits, this.#options.maxConcurrentStreams);
    this.#http2 = http2;
    http2.on('stream', (stream: ServerHttp2Stream, _: object, __: number, raw?: string[]) => this.#stream(stream, raw ?? []));
    http2.on('error', (error: Error) => this.#blame(error));
    http2.on('goaway', () => this.#endWithStreams());
    http2.on('close', () => {
      this.#http2 = undefined;
      this.#maybeDone();
    });
    if (this.#isDenied) {
      // It is here to be told so, not to hold a place.
      this.#firstTimer = clock.after(Math.min(limits.headTimeoutMs, DENIED_HEAD_MS), () => this.#end(CLOSE_GRACE_MS));
      return;
    }
    this.#firstTimer = clock.after(limits.headTimeoutMs, () => {
      session.because('protocol_error', `no HTTP/2 preface within ${limits.headTimeoutMs} ms`);
      this.#end(CLOSE_GRACE_MS);
    });
    http2.once('remoteSettings', () => this.#firstTimer?.cancel());
  }

  // ——— what exchanges tell ———

  active(exchange: Exchange): void {
    const { ticker } = this.#options;
    ticker.lets(this.session);
    this.session.lastActiveTick = ticker.tick;
    this.#account();
    // Of one that is over, the rest is sent.
    if (this.#exchanges.has(exchange)) this.#idle.set(exchange);
  }

  awaits(exchange: Exchange): void {
    this.#responses.set(exchange);
  }

  answered(exchange: Exchange): void {
    this.#responses.delete(exchange);
  }

  mistaken(thrown: unknown): void {
    this.session.because('internal_error', `a request could not be served: ${messageOf(thrown)}`);
    this.#drop();
  }

  over(exchange: Exchange, record: RequestRecord): void {
    this.#exchanges.delete(exchange);
    this.#responses.delete(exchange);
    this.#idle.delete(exchange);
    if (record.result === 'forwarded') this.#unsent.add(exchange);
    this.#account();
    this.#options.requestFinished(record);
  }

  streamClosed(exchange: Exchange): void {
    this.#openStreams--;
    this.#unsent.delete(exchange);
    // Who is denied has had an answer by now: Node puts GOAWAY ahead of what is not sent yet, and some clients (python-hyper's
    // h2) take nothing after it.
    if (this.#ending || (this.#isDenied && this.#openStreams === 0)) this.#endWithStreams();
  }

  #stream(stream: ServerHttp2Stream, raw: readonly string[]): void {
    const exchange = new Exchange(this, stream);
    this.#exchanges.add(exchange);
    this.#openStreams++;
    this.session.lastActiveTick = this.#options.ticker.tick;
    this.#idle.set(exchange);
    try {
      exchange.begin(raw, !stream.endAfterHeaders);
    } catch (thrown) {
      this.mistaken(thrown);
    }
  }

  /** Counts what Node has moved since: frames, with heads as they are compressed. */
  #account(): void {
    const native = this.#native;
    if (native === undefined) return;
    const { session, counters } = this.#options;
    const read = native.bytesRead();
    const written = native.bytesWritten();
    session.bytesFromDownstream += read - this.#read;
    counters.downstreamReadBytes += read - this.#read;
    session.bytesToDownstream += written - this.#written;
    counters.downstreamWrittenBytes += written - this.#written;
    this.#read = read;
    this.#written = written;
  }

  // ——— ends ———

  /** Node found that the client broke the protocol, or flooded it; or the client said that of us; or its connection broke. */
  #blame(error: Error): void {
    const code = codeOf(error);
    if (code === 'ERR_HTTP2_SESSION_ERROR') this.session.because('downstream_reset', `the client gave up: ${error.message}`);
    else if (code?.startsWith('ERR_HTTP2_') === true) this.session.because('protocol_error', error.message);
    else if (!this.#ending) this.#options.broken('downstream', error);
  }

  /** Once no stream is left, the client has no more than a moment to agree to the end. */
  #endWithStreams(): void {
    this.#end(this.#openStreams === 0 ? CLOSE_GRACE_MS : undefined);
  }

  /**
   * No further requests; those that are open go on, and then the connection ends. Of who was told why, no more than a
   * moment is asked to agree to that; of who still reads a response, no more than the idle limit.
   */
  #end(graceMs: number | undefined): void {
    if (graceMs !== undefined) this.#grace.limit(graceMs);
    if (this.#ending) return;
    this.#ending = true;
    if (this.#http2?.destroyed === false) this.#http2.close();
  }

  /** At once: responses are cut, which their streams say, and nothing more is taken from either side. */
  #drop(): void {
    this.#ending = true;
    for (const exchange of this.#exchanges) exchange.drop();
    this.#leave();
    if (this.#closed) return;
    // With an error code, so that no stream that is cut looks as if it were meant to end there.
    if (this.#openStreams > 0) this.#http2?.destroy(new Error('the connection is dropped'), NGHTTP2_CANCEL);
    else this.#http2?.destroy();
    this.#grace.limit(DROP_GRACE_MS);
  }

  /** Without its side of the connection a client can take no response that needs a window; most are gone altogether. */
  #clientEnded(): void {
    if (this.#exchanges.size > 0) this.#options.broken('downstream', undefined);
    this.#ending = true;
    const mayRead = this.#exchanges.size === 0 && this.#openStreams > 0;
    this.#leave();
    // What is left of whole responses may still go.
    if (mayRead) this.#http2?.close();
    else this.#http2?.destroy();
    this.#grace.limit(DROP_GRACE_MS);
  }

  #clientClosed(error: Error | undefined): void {
    this.#closed = true;
    this.#grace.over();
    if (error !== undefined) this.#blame(error);
    this.#account();
    this.#leave();
    this.#firstTimer?.cancel();
    this.#maybeDone();
  }

  #leave(): void {
    for (const exchange of this.#exchanges) exchange.disconnected();
    this.#responses.clear();
    this.#idle.clear();
    this.connections.destroy();
  }

  /** Node says what was wrong only when all is closed. */
  #maybeDone(): void {
    if (!this.#closed || this.#http2 !== undefined || this.#done || this.connections.size > 0) return;
    this.#done = true;
    this.#options.done();
  }
}
