import type { HttpLimits } from '../config/config.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { codeOf } from '../lib/errors.ts';
import type { Verdict } from '../policy/verdict.ts';
import type { HttpResult, ListenerCounters, RequestRecord } from '../telemetry/events.ts';
import type { Connection, ConnectionHandler } from '../transport/connection.ts';
import { rewriteHead, rewriteTrailers, type IdentityFields } from './headers.ts';
import { ownAnswer, type OwnStatus } from './http-answer.ts';
import { BodyScanner } from './http-body.ts';
import { BlockReader, Fields } from './http-fields.ts';
import { RequestHead } from './http-head.ts';
import { ResponseHead } from './http-response.ts';
import { connectProblem, connectStatus } from './outcome.ts';
import type { Session } from './session.ts';
import type { Side } from './tcp-forwarder.ts';

/** Whether this peer may make this request. Asked for each one. */
export type RequestJudge = (method: string, target: string, host: string) => Verdict;

export type UpstreamOutcome =
  | { readonly ok: true; readonly connection: Connection }
  | { readonly ok: false; readonly code: string; readonly message: string };

const NOTHING: Buffer = Buffer.alloc(0);

export interface HttpForwardOptions {
  readonly downstream: Connection;
  readonly session: Session;
  readonly counters: ListenerCounters;
  /** Read on each chunk: the present tick of the idle clock. */
  readonly ticker: { readonly tick: number };
  readonly clock: Clock;
  readonly limits: HttpLimits;
  readonly identity: IdentityFields;
  readonly judge: RequestJudge;
  /** Connects to the application; `done` is told once, unless the attempt is aborted. */
  open(done: (outcome: UpstreamOutcome) => void): { abort(): void };
  requestFinished(record: RequestRecord): void;
  /** One side broke, with the error if there was one. */
  broken(side: Side, error: Error | undefined): void;
  /** Everything is closed. Called once. */
  done(): void;
}

/**
 * How long a client may take to read an answer of ours and agree to the end. Of a response, no more than the idle limit is
 * asked: megabytes of it may still be in the kernel for a slow reader.
 */
const ANSWER_GRACE_MS = 5000;
/** How long a peer that is not allowed may take to ask for what it will not get. */
const DENIED_HEAD_MS = 2000;
/** How long the application may take to agree to the end of a connection between requests. */
const UPSTREAM_GRACE_MS = 1000;

/**
 * What the bytes from the client are at the moment. `connecting` and `awaiting`: nobody's yet, so they wait; `closing`:
 * nobody's any more, so they are thrown away.
 */
type Phase = 'head' | 'connecting' | 'body' | 'trailers' | 'awaiting' | 'tunnel' | 'closing';
/** What the bytes from the application are. `none`: nothing was asked; `done`: the whole response is there before the whole request. */
type Response = 'none' | 'head' | 'body' | 'trailers' | 'done' | 'tunnel';

/**
 * HTTP/1.1 to the application, request by request: a request is read and judged only when the response to the one
 * before is complete. Heads are rewritten; bodies pass as bytes. What Scute answers itself is the last of the
 * connection, and a response that has begun is ended by a reset if it cannot be whole.
 */
export function forwardHttp(options: HttpForwardOptions): void {
  const forwarder = new HttpForwarder(options);
  forwarder.start();
}

class HttpForwarder implements ConnectionHandler {
  readonly #options: HttpForwardOptions;
  #phase: Phase = 'head';
  #response: Response = 'none';
  #draining = false;

  // The client's side.
  readonly #head: RequestHead;
  readonly #requestBody = new BodyScanner();
  readonly #requestTrailers: BlockReader;
  readonly #trailerFields: Fields;
  /** Bytes that came too early, in a buffer of ours. */
  #pending: Buffer | undefined;
  #consuming = false;
  #paused = false;
  #downstreamEnded = false;
  #downstreamClosed = false;
  #downstreamFull = false;
  #headTimer: Timer | undefined;
  #graceTimer: Timer | undefined;

  // The application's side.
  #upstream: Upstream | undefined;
  #opening: { abort(): void } | undefined;
  /** Open ones, with those that are on their way out. */
  readonly #upstreams = new Set<Upstream>();
  #upstreamFull = false;
  readonly #responseHead: ResponseHead;
  readonly #responseBody = new BodyScanner();
  readonly #responseTrailers: BlockReader;
  #responseTimer: Timer | undefined;
  #waitingSinceMs: number | undefined;

  // The request under way.
  #startedAtMs = 0;
  /** The head for the application, until it is written. */
  #rewritten = NOTHING;
  #verdict: Verdict | undefined;
  #status = 0;
  #requestBytes = 0;
  #responseBytes = 0;

  constructor(options: HttpForwardOptions) {
    this.#options = options;
    const { limits } = options;
    this.#head = new RequestHead(limits);
    this.#responseHead = new ResponseHead(limits);
    this.#requestTrailers = new BlockReader(limits.maxHeadBytes);
    this.#responseTrailers = new BlockReader(limits.maxHeadBytes);
    this.#trailerFields = new Fields(limits.maxFields);
  }

  start(): void {
    const { session, downstream, limits, clock } = this.#options;
    session.drop = () => this.#drop();
    session.wind = () => {
      this.#draining = true;
      if (this.#isIdle()) this.#closeDownstream(ANSWER_GRACE_MS);
    };
    // A peer that is not allowed is here to be told so, not to hold a place.
    if (session.denied !== undefined) {
      this.#headTimer = clock.after(Math.min(limits.headTimeoutMs, DENIED_HEAD_MS), () => this.#headLate());
    }
    downstream.start(this);
  }

  // ——— from the client ———

  data(raw: Uint8Array): void {
    const chunk = toBuffer(raw);
    const { session, counters, ticker } = this.#options;
    session.bytesFromDownstream += chunk.length;
    counters.downstreamReadBytes += chunk.length;
    // What nobody reads keeps no connection alive.
    if (this.#phase === 'closing') return;
    session.lastActiveTick = ticker.tick;
    if (this.#consuming || this.#pending !== undefined || this.#mustWait()) {
      this.#pending = this.#pending === undefined ? Buffer.from(chunk) : Buffer.concat([this.#pending, chunk]);
      this.#flow();
      return;
    }
    this.#feed(chunk, false);
    this.#pump();
  }

  ended(): void {
    this.#downstreamEnded = true;
    if (this.#phase === 'tunnel') this.#upstream?.connection.endWrite();
    else if (this.#pending === undefined && !this.#mustWait()) this.#inputEnded();
  }

  drained(): void {
    this.#downstreamFull = false;
    this.#upstream?.connection.resume();
  }

  closed(error: Error | undefined): void {
    this.#downstreamClosed = true;
    this.#graceTimer?.cancel();
    if (this.#phase !== 'closing' && (error !== undefined || !this.#downstreamEnded)) this.#options.broken('downstream', error);
    const isTunnelEnd = this.#phase === 'tunnel' && this.#downstreamEnded && error === undefined;
    if (this.#response !== 'none' || this.#phase === 'connecting') this.#logRequest(isTunnelEnd ? 'forwarded' : 'downstream_closed');
    if (!isTunnelEnd) this.#releaseUpstream();
    this.#stopExchange();
    this.#maybeDone();
  }

  /** Bytes wait until the response to what came before is complete. */
  #mustWait(): boolean {
    return this.#phase === 'connecting' || this.#phase === 'awaiting';
  }

  #isIdle(): boolean {
    return this.#phase === 'head' && !this.#head.begun && this.#pending === undefined;
  }

  #pump(): void {
    while (!this.#consuming && this.#pending !== undefined && !this.#mustWait()) {
      const chunk = this.#pending;
      this.#pending = undefined;
      if (this.#phase !== 'closing') this.#feed(chunk, true);
    }
    if (this.#downstreamEnded && !this.#consuming && this.#pending === undefined && !this.#mustWait()) this.#inputEnded();
    this.#flow();
  }

  #feed(chunk: Buffer, isOurs: boolean): void {
    this.#consuming = true;
    const taken = this.#consume(chunk);
    this.#consuming = false;
    if (taken >= chunk.length || this.#phase === 'closing') return;
    const rest = isOurs ? chunk.subarray(taken) : Buffer.from(chunk.subarray(taken));
    this.#pending = this.#pending === undefined ? rest : Buffer.concat([rest, this.#pending]);
  }

  #flow(): void {
    if (this.#downstreamClosed) return;
    const { downstream } = this.#options;
    const mustPause = this.#phase !== 'closing' && (this.#upstreamFull || this.#pending !== undefined);
    if (mustPause === this.#paused) return;
    this.#paused = mustPause;
    if (mustPause) downstream.pause();
    else downstream.resume();
  }

  /** Answers how many bytes of the chunk were taken. */
  #consume(chunk: Buffer): number {
    let at = 0;
    while (at < chunk.length) {
      switch (this.#phase) {
        case 'head': {
          const outcome = this.#head.read(chunk, at);
          if (outcome.kind === 'more') {
            this.#armHeadTimer();
            return chunk.length;
          }
          this.#stopHeadTimer();
          this.#beginRequest();
          if (outcome.kind === 'bad') {
            const { status, detail } = outcome.problem;
            this.#answer(status, status === 431 ? 'head_too_large' : 'bad_request', detail, true);
            return chunk.length;
          }
          this.#requestBytes += this.#head.length;
          at = outcome.next;
          this.#judge();
          break;
        }
        case 'body': {
          const body = this.#requestBody;
          const end = body.scan(chunk, at);
          if (body.state === 'bad') {
            this.#fail(400, 'bad_request', 'the chunked body is malformed');
            return chunk.length;
          }
          if (body.announcedBytes > this.#maxBodyBytes()) {
            this.#fail(413, 'too_large', 'the body is too large');
            return chunk.length;
          }
          this.#requestBytes += end - at;
          this.#toUpstream(at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end));
          at = end;
          if (body.state === 'trailers') this.#phase = 'trailers';
          else if (body.state === 'done') this.#requestEnded();
          break;
        }
        case 'trailers': {
          const reader = this.#requestTrailers;
          const outcome = reader.read(chunk, at);
          if (outcome === 'more') {
            this.#armHeadTimer();
            return chunk.length;
          }
          this.#stopHeadTimer();
          const trailers = outcome === 'whole' ? this.#trailersOf(reader) : undefined;
          if (trailers === undefined) {
            if (outcome === 'too_long') this.#fail(431, 'head_too_large', 'the trailers are too long');
            else this.#fail(400, 'bad_request', 'the trailers are malformed');
            return chunk.length;
          }
          this.#requestBytes += reader.end - reader.start;
          at = reader.next;
          this.#requestBody.finish();
          this.#toUpstream(trailers);
          this.#requestEnded();
          break;
        }
        case 'tunnel':
          this.#requestBytes += chunk.length - at;
          this.#toUpstream(chunk.subarray(at));
          return chunk.length;
        case 'connecting':
        case 'awaiting':
          return at;
        case 'closing':
          return chunk.length;
      }
    }
    return at;
  }

  #trailersOf(reader: BlockReader): Buffer | undefined {
    const fields = this.#trailerFields;
    if (fields.parse(reader.bytes, reader.start, reader.end) !== undefined) return undefined;
    return rewriteTrailers(fields, reader.start, this.#options.identity, this.#head.nominated);
  }

  /** The client has said all that it will say. */
  #inputEnded(): void {
    switch (this.#phase) {
      case 'head':
        if (this.#head.begun) {
          this.#beginRequest();
          this.#answer(400, 'bad_request', 'the connection ended within the head', true);
        } else this.#closeDownstream(undefined);
        return;
      case 'body':
      case 'trailers':
        this.#fail(400, 'bad_request', 'the connection ended within the request');
        return;
      case 'tunnel':
        this.#upstream?.connection.endWrite();
    }
  }

  #beginRequest(): void {
    this.#startedAtMs = this.#options.clock.monotonic();
    this.#verdict = undefined;
    this.#status = 0;
    this.#requestBytes = 0;
    this.#responseBytes = 0;
  }

  #maxBodyBytes(): number {
    return this.#options.limits.maxBodyBytes ?? Infinity;
  }

  /** The head is whole and well formed. */
  #judge(): void {
    const { judge } = this.#options;
    const { method, target, host, framing } = this.#head;
    const verdict = judge(method, target, host);
    this.#verdict = verdict;
    if (!verdict.allowed) {
      this.#answer(403, 'denied', `${verdict.reason}: ${verdict.peer ?? 'the peer'} may not do this`);
      return;
    }
    // The bytes of the head are the transport's.
    this.#rewritten = rewriteHead(this.#head, this.#options.identity);
    this.#requestBody.begin(framing);
    if (this.#requestBody.announcedBytes > this.#maxBodyBytes()) {
      this.#answer(413, 'too_large', 'the body is too large');
      return;
    }
    if (this.#upstream === undefined) this.#connect();
    else this.#sendHead(this.#upstream);
  }

  #requestEnded(): void {
    if (this.#response === 'done') {
      this.#exchangeDone();
      return;
    }
    this.#phase = 'awaiting';
    this.#awaitResponse();
  }

  // ——— to the application ———

  #connect(): void {
    this.#phase = 'connecting';
    let isOver = false;
    const opening = this.#options.open((outcome) => {
      isOver = true;
      this.#opening = undefined;
      if (!outcome.ok) {
        const { status, result } = connectStatus(outcome.code);
        this.#options.session.because(connectProblem(outcome.code), outcome.message);
        this.#answer(status, result, 'the application cannot be reached');
      } else {
        const upstream = new Upstream(outcome.connection, this);
        this.#upstreams.add(upstream);
        this.#upstream = upstream;
        this.#upstreamFull = false;
        upstream.connection.start(upstream);
        // It may have been closed already.
        if (this.#upstream !== undefined) {
          if (this.#downstreamFull) upstream.connection.pause();
          this.#sendHead(upstream);
        } else if (this.#phase === 'connecting') this.#answer(502, 'upstream_failed', 'the application closed the connection');
      }
      this.#pump();
    });
    if (!isOver) this.#opening = opening;
  }

  #sendHead(upstream: Upstream): void {
    this.#response = 'head';
    this.#write(upstream, this.#rewritten);
    this.#rewritten = NOTHING;
    this.#phase = 'body';
    if (this.#requestBody.state === 'done') this.#requestEnded();
  }

  #toUpstream(chunk: Buffer): void {
    if (this.#upstream !== undefined && chunk.length > 0) this.#write(this.#upstream, chunk);
  }

  #write({ connection }: Upstream, chunk: Buffer): void {
    this.#options.counters.upstreamWrittenBytes += chunk.length;
    if (!connection.write(chunk)) this.#upstreamFull = true;
  }

  // ——— from the application ———

  upstreamData(upstream: Upstream, raw: Uint8Array): void {
    const chunk = toBuffer(raw);
    const { session, counters, ticker } = this.#options;
    session.lastActiveTick = ticker.tick;
    counters.upstreamReadBytes += chunk.length;
    if (upstream !== this.#upstream) return;
    this.#respond(chunk);
    this.#pump();
  }

  upstreamEnded(upstream: Upstream): void {
    upstream.hasEnded = true;
    if (upstream !== this.#upstream) return;
    switch (this.#response) {
      case 'none':
        this.#letGo();
        break;
      case 'head':
        this.#fail(502, 'upstream_failed', 'the application closed the connection before it answered');
        break;
      case 'body':
      case 'trailers':
        if (this.#responseHead.framing.kind === 'close') this.#responseDone();
        else this.#fail(502, 'upstream_failed', 'the application ended within its response');
        break;
      case 'done':
        // The rest of the request has nowhere to go.
        this.#exchangeDone();
        break;
      case 'tunnel':
        this.#options.downstream.endWrite();
    }
    this.#pump();
  }

  upstreamDrained(upstream: Upstream): void {
    if (upstream !== this.#upstream) return;
    this.#upstreamFull = false;
    this.#flow();
  }

  upstreamClosed(upstream: Upstream, error: Error | undefined): void {
    upstream.graceTimer?.cancel();
    this.#upstreams.delete(upstream);
    if (upstream === this.#upstream) {
      this.#upstream = undefined;
      this.#upstreamFull = false;
      const isTunnelEnd = this.#response === 'tunnel' && upstream.hasEnded && error === undefined;
      if (!isTunnelEnd && this.#response !== 'none' && this.#response !== 'done') {
        const code = codeOf(error);
        this.#options.broken('upstream', error);
        this.#fail(502, 'upstream_failed', `the application broke the connection${code === undefined ? '' : ` (${code})`}`);
      } else if (this.#response === 'done') this.#exchangeDone();
      this.#pump();
    }
    this.#maybeDone();
  }

  /** Forwards what belongs to the response, and ends the exchange with it. */
  #respond(chunk: Buffer): void {
    let at = 0;
    /** What has been looked at and not yet been written begins here. */
    let from = 0;
    while (at < chunk.length) {
      switch (this.#response) {
        case 'none':
        case 'done':
          // Said without being asked: never the answer to the next request.
          this.#toDownstream(chunk, from, at);
          this.#dropUpstream();
          return;
        case 'head': {
          const head = this.#responseHead;
          const { reader } = head;
          const outcome = head.read(chunk, at, this.#head);
          if (outcome.kind === 'more') {
            this.#toDownstream(chunk, from, at);
            return;
          }
          const problem = outcome.kind === 'bad' ? outcome.detail : this.#switchProblem();
          if (problem !== undefined) {
            this.#toDownstream(chunk, from, at);
            this.#fail(502, 'upstream_failed', `the application gave a response that is not valid: ${problem}`);
            return;
          }
          const isInterim = head.status < 200 && head.status !== 101;
          // HTTP/1.0 knows none.
          const isForUs = isInterim && this.#head.minorVersion === 0;
          if (reader.bytes !== chunk || isForUs) {
            this.#toDownstream(chunk, from, at);
            if (!isForUs) this.#toDownstream(reader.bytes, reader.start, reader.end);
            from = reader.next;
          }
          at = reader.next;
          if (!isInterim) this.#finalHead();
          break;
        }
        case 'body': {
          const body = this.#responseBody;
          at = body.scan(chunk, at);
          if (body.state === 'bad') {
            this.#fail(502, 'upstream_failed', 'the application gave a malformed chunked body');
            return;
          }
          if (body.state === 'trailers') this.#response = 'trailers';
          break;
        }
        case 'trailers': {
          const reader = this.#responseTrailers;
          const outcome = reader.read(chunk, at);
          if (outcome === 'more') {
            this.#toDownstream(chunk, from, at);
            return;
          }
          if (outcome !== 'whole' || this.#trailerFields.parse(reader.bytes, reader.start, reader.end) !== undefined) {
            this.#fail(502, 'upstream_failed', 'the application gave malformed trailers');
            return;
          }
          if (reader.bytes !== chunk) {
            this.#toDownstream(chunk, from, at);
            this.#toDownstream(reader.bytes, reader.start, reader.end);
            from = reader.next;
          }
          at = reader.next;
          this.#responseBody.finish();
          break;
        }
        case 'tunnel':
          at = chunk.length;
          break;
      }
      if (this.#response !== 'head' && this.#response !== 'tunnel' && this.#responseBody.state === 'done') {
        this.#toDownstream(chunk, from, at);
        // Said without being asked: never the answer to the next request.
        if (at < chunk.length) this.#dropUpstream();
        this.#responseDone();
        return;
      }
    }
    this.#toDownstream(chunk, from, at);
  }

  /** Only who was asked for a WebSocket may begin one. */
  #switchProblem(): string | undefined {
    if (this.#responseHead.status !== 101) return undefined;
    if (!this.#head.upgradesToWebSocket) return '101 without being asked';
    return this.#responseHead.upgradesToWebSocket ? undefined : '101 to another protocol than websocket';
  }

  #finalHead(): void {
    const { status, framing } = this.#responseHead;
    this.#status = status;
    this.#waitingSinceMs = undefined;
    if (status === 101) {
      this.#response = 'tunnel';
      this.#phase = 'tunnel';
      return;
    }
    this.#response = 'body';
    this.#responseBody.begin(framing);
  }

  #toDownstream(chunk: Buffer, start: number, end: number): void {
    if (start === end) return;
    const { session, counters, downstream } = this.#options;
    this.#responseBytes += end - start;
    session.bytesToDownstream += end - start;
    counters.downstreamWrittenBytes += end - start;
    if (downstream.write(start === 0 && end === chunk.length ? chunk : chunk.subarray(start, end))) return;
    this.#downstreamFull = true;
    this.#upstream?.connection.pause();
  }

  #responseDone(): void {
    this.#response = 'done';
    if (this.#phase === 'awaiting' || this.#upstream === undefined || this.#upstream.hasEnded) this.#exchangeDone();
  }

  /** The response is whole. The request may be cut, if nobody is there to take the rest of it. */
  #exchangeDone(): void {
    const isWhole = this.#requestBody.state === 'done';
    const endsWithConnection = this.#responseHead.framing.kind === 'close';
    const isLast = !isWhole || this.#head.close || this.#responseHead.close || endsWithConnection || this.#draining;
    this.#logRequest(
      'forwarded',
      endsWithConnection ? 'the response ended with its connection: whether it is whole cannot be told' : undefined,
    );
    this.#stopExchange();
    if (isLast) {
      this.#closeDownstream(undefined);
      return;
    }
    this.#phase = 'head';
    if (this.#upstream?.hasEnded === true) this.#letGo();
  }

  // ——— ends ———

  /** Says why if nothing of a final response was sent; else resets, so that what was sent does not look whole. */
  #fail(status: OwnStatus, result: HttpResult, detail: string): void {
    if (this.#status === 0) {
      this.#answer(status, result, detail);
      return;
    }
    // The close of the application's side tells the rest of the story.
    this.#options.session.because(result === 'upstream_failed' ? 'upstream_reset' : 'downstream_reset', detail);
    this.#logRequest(result, detail);
    this.#stopExchange();
    this.#phase = 'closing';
    this.#pending = undefined;
    this.#dropUpstream();
    this.#options.downstream.abort();
  }

  /** `isUnread`: there is no request to speak of. */
  #answer(status: OwnStatus, result: HttpResult, detail: string, isUnread = false): void {
    const answer = ownAnswer(status, detail, isUnread || this.#head.method !== 'HEAD');
    this.#status = status;
    this.#toDownstream(answer, 0, answer.length);
    this.#logRequest(result, detail, isUnread);
    this.#releaseUpstream();
    this.#stopExchange();
    this.#closeDownstream(ANSWER_GRACE_MS);
  }

  /** What was written is sent, the client sees the end, and what it still says is thrown away. */
  #closeDownstream(graceMs: number | undefined): void {
    if (this.#phase === 'closing') return;
    const { downstream, clock } = this.#options;
    this.#phase = 'closing';
    this.#pending = undefined;
    this.#stopHeadTimer();
    this.#releaseUpstream();
    if (this.#downstreamClosed) return;
    if (graceMs !== undefined) this.#graceTimer = clock.after(graceMs, () => downstream.abort());
    downstream.endWrite();
    this.#flow();
  }

  #stopExchange(): void {
    this.#response = 'none';
    this.#waitingSinceMs = undefined;
    this.#stopHeadTimer();
  }

  /** In order if it is between requests, so that the application sees no error; else at once, so that it takes no part for the whole. */
  #releaseUpstream(): void {
    this.#responseTimer?.cancel();
    this.#responseTimer = undefined;
    this.#opening?.abort();
    this.#opening = undefined;
    if (this.#requestBody.state === 'done' && this.#response === 'none') this.#letGo();
    else this.#dropUpstream();
  }

  #letGo(): void {
    const upstream = this.#upstream;
    if (upstream === undefined) return;
    this.#upstream = undefined;
    this.#upstreamFull = false;
    upstream.connection.resume();
    upstream.connection.endWrite();
    upstream.graceTimer = this.#options.clock.after(UPSTREAM_GRACE_MS, () => upstream.connection.abort());
  }

  #dropUpstream(): void {
    const upstream = this.#upstream;
    this.#upstream = undefined;
    this.#upstreamFull = false;
    upstream?.connection.abort();
  }

  #drop(): void {
    if (this.#response !== 'none' || this.#phase === 'connecting') this.#logRequest('dropped');
    this.#stopExchange();
    this.#phase = 'closing';
    this.#pending = undefined;
    this.#opening?.abort();
    this.#opening = undefined;
    this.#dropUpstream();
    for (const upstream of this.#upstreams) upstream.connection.abort();
    this.#options.downstream.abort();
  }

  #maybeDone(): void {
    if (!this.#downstreamClosed || this.#upstreams.size > 0) return;
    this.#stopHeadTimer();
    this.#responseTimer?.cancel();
    this.#options.done();
  }

  // ——— time ———

  #armHeadTimer(): void {
    const { clock, limits } = this.#options;
    this.#headTimer ??= clock.after(limits.headTimeoutMs, () => this.#headLate());
  }

  #stopHeadTimer(): void {
    this.#headTimer?.cancel();
    this.#headTimer = undefined;
  }

  #headLate(): void {
    this.#headTimer = undefined;
    if (this.#phase === 'trailers') this.#fail(408, 'timeout', 'the trailers took too long');
    else if (this.#phase === 'head') {
      if (this.#head.begun) {
        this.#beginRequest();
        this.#answer(408, 'timeout', 'the head took too long', true);
      } else this.#closeDownstream(ANSWER_GRACE_MS);
    }
    this.#pump();
  }

  /** One timer serves many requests: it is looked at again when it has run out. */
  #awaitResponse(): void {
    const { clock, limits } = this.#options;
    if (limits.responseTimeoutMs === undefined) return;
    this.#waitingSinceMs = clock.monotonic();
    this.#responseTimer ??= clock.after(limits.responseTimeoutMs, () => this.#responseLate());
  }

  #responseLate(): void {
    const { clock, limits } = this.#options;
    this.#responseTimer = undefined;
    if (limits.responseTimeoutMs === undefined || this.#waitingSinceMs === undefined) return;
    const leftMs = this.#waitingSinceMs + limits.responseTimeoutMs - clock.monotonic();
    if (leftMs > 0) {
      this.#responseTimer = clock.after(leftMs, () => this.#responseLate());
      return;
    }
    this.#fail(504, 'upstream_timeout', 'the application did not answer in time');
    this.#pump();
  }

  #logRequest(result: HttpResult, detail?: string, isUnread = false): void {
    const { clock, session } = this.#options;
    const { method, target, host } = this.#head;
    this.#options.requestFinished({
      connection: session.id,
      peerId: session.peer?.peerId,
      method: isUnread ? '' : method,
      target: isUnread ? '' : target,
      host: isUnread ? '' : host,
      status: this.#status,
      result,
      detail,
      verdict: this.#verdict,
      bytesFromDownstream: this.#requestBytes,
      bytesToDownstream: this.#responseBytes,
      durationMs: clock.monotonic() - this.#startedAtMs,
    });
  }
}

/** A connection to the application. */
class Upstream implements ConnectionHandler {
  readonly connection: Connection;
  hasEnded = false;
  graceTimer: Timer | undefined;
  readonly #owner: HttpForwarder;

  constructor(connection: Connection, owner: HttpForwarder) {
    this.connection = connection;
    this.#owner = owner;
  }

  data(chunk: Uint8Array): void {
    this.#owner.upstreamData(this, chunk);
  }

  ended(): void {
    this.#owner.upstreamEnded(this);
  }

  drained(): void {
    this.#owner.upstreamDrained(this);
  }

  closed(error: Error | undefined): void {
    this.#owner.upstreamClosed(this, error);
  }
}

function toBuffer(chunk: Uint8Array): Buffer {
  return Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}
