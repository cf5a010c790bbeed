import type { HttpLimits } from '../config/config.ts';
import type { Clock } from '../lib/clock.ts';
import { codeOf } from '../lib/errors.ts';
import type { HttpResult, RequestRecord } from '../telemetry/log/records.ts';
import { noteYoungBytes } from '../transport/garbage.ts';
import { isOverride, type IdentityFields } from '../http1/identity-fields.ts';
import { ownBody, type OwnStatus } from '../http1/own-answer.ts';
import { NO_BEARER, type Bearer, type RequestJudge, type RequestTokens, type RequestVerdict } from './bearer.ts';
import { Deadlines, type DeadlineSink } from './http-deadlines.ts';
import {
  ask,
  NGHTTP2_NO_ERROR,
  NoConnection,
  type ApplicationConnections,
  type Asker,
  type Attempt,
  type ClientRequest,
  type ExactRequest,
  type IncomingMessage,
  type ServerHttp2Stream,
} from './http2-engine.ts';
import { fieldObject, readResponse, responseTrailers, type FieldList, type Http2Head } from '../http2/head.ts';
import { MAX_INTERIM } from '../http2/response-course.ts';
import { refusalOf } from './refusal.ts';
import { isIdempotent, KeptRequest, RESTED_MS, wasClosed } from './repair.ts';
import type { Session } from './session.ts';

/** What the requests of one HTTP/2 connection share. */
export interface ExchangeContext {
  readonly session: Session;
  readonly clock: Clock;
  readonly limits: HttpLimits;
  readonly identity: IdentityFields;
  readonly judge: RequestJudge;
  /** Undefined where nobody looks at tokens. */
  readonly tokens: RequestTokens | undefined;
  readonly head: Http2Head;
  readonly connections: ApplicationConnections;
  /** Bytes are about to move, on this stream or for it: afterwards it may be over. */
  active(exchange: Exchange): void;
  /** The request is whole, or stands still: the application has so long to answer. */
  awaits(exchange: Exchange): void;
  /** It has answered, or goes on taking the request. */
  answered(exchange: Exchange): void;
  /** A mistake of ours, which is not to end the process for a client to do. */
  mistaken(thrown: unknown): void;
  /** Nothing more happens. Called once. */
  over(exchange: Exchange, record: RequestRecord): void;
  /** Node is done with the stream: what was written to it was sent, or is lost. */
  streamClosed(exchange: Exchange): void;
}

/** `asking`: nothing of a final response was sent; `responding`: its head was. */
type Stage = 'asking' | 'responding' | 'over';

/**
 * One request over HTTP/2, from its stream to the application and back. A response is whole, or its stream is reset: a
 * part of one is never followed by an end.
 */
export class Exchange implements Asker, DeadlineSink {
  readonly #context: ExchangeContext;
  readonly #stream: ServerHttp2Stream;
  readonly #startedAtMs: number;
  #stage: Stage = 'asking';
  #request: ClientRequest | undefined;
  readonly #attempt: Attempt = { giveUp: undefined };
  /** What is asked, for as long as it may have to be asked once more. */
  #exact: ExactRequest | undefined;
  /** It may have fields that say another request: no rule looked at requests when they were taken. */
  #hasOverrides = false;
  #kept: KeptRequest | undefined;
  #retries = 0;
  #response: IncomingMessage | undefined;
  #method = '';
  #target = '';
  #host = '';
  /** What it brought besides its peer. */
  #bearer: Bearer = NO_BEARER;
  #verdict: RequestVerdict | undefined;
  #status = 0;
  #requestBytes = 0;
  #responseBytes = 0;

  // The request's body.
  #hasBody = false;
  #announced: number | undefined;
  /** The client waits for a `100`; it is ours to say. */
  #continues = false;
  #received = 0;
  #deadlines: Deadlines | undefined;
  #requestWhole = false;
  #requestTrailers: readonly string[] | undefined;

  // The response.
  #interim = 0;
  /** Bytes of its body that are still to come, if their number was announced. */
  #awaited: number | undefined;
  #endsWithConnection = false;
  /** The client has taken less than there is. */
  #isUnread = false;
  /** Its trailers are sent when all before them was. */
  #waitsForTrailers = false;

  constructor(context: ExchangeContext, stream: ServerHttp2Stream) {
    this.#context = context;
    this.#stream = stream;
    this.#startedAtMs = context.clock.monotonic();
  }

  /** `list` is the head; `hasBody`: the stream goes on after it. */
  begin(list: FieldList, hasBody: boolean): void {
    const stream = this.#stream;
    // Without a listener, an error would end the process. What it says, `close` and `aborted` say as well.
    stream.on('error', nothing);
    stream.on('aborted', () => this.#leave());
    stream.on('close', () => {
      this.#leave();
      this.#context.streamClosed(this);
    });
    // It may have been reset before anybody looked at it.
    if (stream.destroyed || stream.aborted) {
      this.#leave();
      return;
    }
    const { head } = this.#context;
    this.#hasBody = hasBody;
    const problem = head.read(list, hasBody);
    if (problem !== undefined) {
      this.#answer(problem.status, problem.status === 431 ? 'head_too_large' : 'bad_request', problem.detail);
      return;
    }
    this.#method = head.method;
    this.#target = head.target;
    this.#host = head.host;
    this.#requestBytes = head.length;
    this.#announced = head.announced;
    this.#continues = hasBody && head.expectsContinue;
    // They may come before the body is read.
    if (hasBody) stream.on('trailers', (_: object, __: number, raw?: string[]) => this.#trailersCame(raw ?? []));
    const { tokens, identity } = this.#context;
    // Of when the fields are taken: the policy may change while a token is verified.
    this.#hasOverrides = !identity.removesOverrides;
    const bearer = tokens?.read(head.valuesOf(tokens.header)) ?? NO_BEARER;
    if (bearer instanceof Promise) {
      // By then, the head is that of another request.
      const fields = head.forApplication(tokens?.identity ?? identity);
      void bearer.then((read) => this.#tokenRead(read, fields));
      return;
    }
    this.#admit(bearer, () => head.forApplication(bearer.kind === 'token' && tokens !== undefined ? tokens.identity : identity));
  }

  /** By then, the stream may be gone. */
  #tokenRead(bearer: Bearer, fields: string[]): void {
    try {
      if (this.#stage === 'asking') this.#admit(bearer, () => fields);
    } catch (thrown) {
      this.#context.mistaken(thrown);
    }
  }

  #admit(bearer: Bearer, fieldsOf: () => string[]): void {
    const { session, limits, tokens } = this.#context;
    this.#bearer = bearer;
    if (!this.#isAllowed()) return;
    if ((this.#announced ?? 0) > (limits.maxBodyBytes ?? Infinity)) {
      this.#answer(413, 'too_large', 'the body is too large');
      return;
    }
    const fields = fieldsOf();
    if (bearer.kind === 'token' && tokens !== undefined) {
      // Ours come first.
      fields.unshift(tokens.subjectHeader, bearer.token.subject);
      session.tokensEndAtMs = Math.min(session.tokensEndAtMs, bearer.endsAtMs);
    }
    this.#ask(fields);
  }

  #isAllowed(): boolean {
    const judgement = this.#context.judge(this.#method, this.#target, this.#host, this.#bearer);
    if (judgement.ok) this.#verdict = judgement.value;
    const refusal = refusalOf(judgement, 'downstream');
    if (refusal === undefined) return true;
    const { status, result, detail, challenge, told } = refusal;
    this.#answer(status, result, detail, challenge, told);
    return false;
  }

  /** The response, if there is one, is cut: also one of which the last is still to be sent. */
  drop(): void {
    if (this.#stage !== 'over') this.#finish('dropped');
    this.#reset();
  }

  /** It was let begin, and would not be now. */
  isDeniedNow(): boolean {
    if (this.#verdict?.allowed !== true) return false;
    const again = this.#context.judge(this.#method, this.#target, this.#host, this.#bearer);
    return !again.ok || !again.value.allowed;
  }

  /** Ends it if its token no longer holds. Answers when its token ends, in wall time. */
  endToken(): number {
    if (this.#bearer.kind !== 'token' || this.#verdict?.allowed !== true) return Infinity;
    const problem = this.#context.tokens?.problemOf(this.#bearer);
    if (problem === undefined) return this.#bearer.endsAtMs;
    if (this.#stage !== 'over') this.#finish('dropped', problem.detail);
    this.#reset();
    return Infinity;
  }

  /** The client's connection is closed. */
  disconnected(): void {
    this.#leave();
  }

  /** The application has not answered in time. */
  responseLate(): void {
    if (this.#stage === 'asking') this.#fail(504, 'upstream_timeout', 'the application did not answer in time');
  }

  bodyLate(): void {
    this.#fail(408, 'timeout', 'the body came too slowly');
  }

  /** Heads of HTTP/2 come whole. */
  headLate(): void {
    // So they are never late.
  }

  /** Nothing has moved for the idle time. */
  idle(): void {
    if (this.#isUnread) this.#fail(408, 'timeout', 'the client did not read the response');
    else if (this.#requestWhole) this.#fail(504, 'upstream_timeout', 'the response stood still');
    else this.#fail(408, 'timeout', 'the request stood still');
  }

  // ——— to the application ———

  #ask(fields: readonly string[]): void {
    const { connections, limits } = this.#context;
    const exact = {
      method: this.#method,
      target: this.#target,
      fields,
      maxHeadBytes: limits.maxHeadBytes,
      attempt: this.#attempt,
    };
    this.#exact = exact;
    if (connections.wake() < RESTED_MS) this.#send(exact);
    else {
      // By then, all that had come is read: also the end of a connection that it was to be sent on.
      setImmediate(() => {
        if (this.#stage !== 'asking') return;
        connections.wake();
        this.#send(exact);
      });
    }
  }

  #send(exact: ExactRequest): void {
    try {
      if (this.#hasMoreThanItMay(exact.fields)) {
        const fields = exact.fields.filter((_, at) => !isOverride(exact.fields[at - (at % 2)] ?? ''));
        this.#exact = { ...exact, fields };
      }
      ask(this, this.#exact ?? exact, this.#context.connections);
    } catch (thrown) {
      this.#fail(400, 'bad_request', `the request cannot be forwarded (${codeOf(thrown) ?? 'unknown'})`);
    }
  }

  /** The first rule that looks at requests may have come since the fields were taken. */
  #hasMoreThanItMay(fields: readonly string[]): boolean {
    if (!this.#hasOverrides || !this.#context.identity.removesOverrides) return false;
    return fields.some((name, at) => at % 2 === 0 && isOverride(name));
  }

  asked(request: ClientRequest): void {
    const isAgain = this.#request !== undefined;
    this.#request = request;
    // Node would leave out those that are too many, and say nothing.
    request.maxHeadersCount = this.#context.limits.maxFields + 1;
    request.on('information', (interim: { readonly statusCode: number; readonly rawHeaders: string[] }) =>
      this.#interimHead(interim.statusCode, interim.rawHeaders),
    );
    // A 101 that nobody asked for is said by nothing else.
    request.on('close', () => {
      if (this.#stage === 'asking' && request === this.#request)
        this.#fail(502, 'upstream_failed', 'the application closed the connection without a response');
    });
    // It waits for a connection, for seconds maybe, and what was allowed then may not be now. Nothing is written before.
    if (!request.reusedSocket) {
      const fields = this.#exact?.fields ?? [];
      request.once('socket', () => {
        // Node has written its head already, for itself.
        if (this.#stage !== 'over' && (this.isDeniedNow() || this.#hasMoreThanItMay(fields))) this.drop();
      });
    }
    if (isAgain) {
      this.#sendRest(request);
      return;
    }
    // Only who answered before may have closed without having seen the request.
    if (request.reusedSocket && isIdempotent(this.#method)) {
      this.#kept = new KeptRequest();
      if (!this.#kept.begin(this.#requestBytes)) this.#forgetRequest();
    } else this.#exact = undefined;
    if (!this.#hasBody) {
      request.end();
      this.#requestDone();
      return;
    }
    const stream = this.#stream;
    request.on('drain', () => this.#drained(request));
    // When there is somebody to send the body to.
    if (this.#continues) request.on('socket', () => this.#sayContinue());
    stream.on('data', (chunk: Buffer) => this.#bodyCame(chunk));
    stream.on('end', () => this.#bodyEnded());
    // Node keeps a head until there is something of the body; what came with the head may still go with it.
    setImmediate(() => {
      if (this.#stage === 'over' || this.#requestWhole) return;
      // `flushHeaders` would write the bytes above 0x7f of the head as UTF-8.
      if (this.#received === 0) request.write('', 'latin1');
      // A client that waits for a `100` is not to blame for the time that connecting takes.
      if (request.socket === null) request.on('socket', () => this.#timeBody());
      else this.#timeBody();
    });
  }

  /** The application closed a connection that it had kept, and said nothing on it: it may not have seen the request. */
  #mayAskAgain(code: string, request: ClientRequest | undefined): boolean {
    if (this.#kept?.isWhole !== true || !wasClosed(code) || request === undefined) return false;
    return this.#context.connections.heardNothing(request.socket);
  }

  #askAgain(exact: ExactRequest): void {
    this.#retries++;
    // By the newest list: it may have changed since.
    if (!this.#isAllowed()) return;
    this.#request?.destroy();
    this.#context.connections.dropIdle();
    this.#send(exact);
  }

  #sendRest(request: ClientRequest): void {
    const body = this.#kept?.body;
    // There is no third time.
    this.#forgetRequest();
    if (!this.#hasBody) {
      request.end();
      return;
    }
    request.on('drain', () => this.#drained(request));
    // The head goes out, with or without a body behind it.
    let takesMore = request.write('', 'latin1');
    if (body !== undefined && body.length > 0) takesMore = request.write(body);
    if (this.#requestWhole) this.#endRequest(request);
    else this.#hold(!takesMore);
  }

  #forgetRequest(): void {
    this.#kept?.forget();
    this.#kept = undefined;
    this.#exact = undefined;
  }

  #drained(request: ClientRequest): void {
    if (request === this.#request) this.#hold(false);
  }

  #timeBody(): void {
    if (this.#stage === 'over' || this.#requestWhole) return;
    const { clock, limits } = this.#context;
    this.#deadlines = new Deadlines(this, clock, limits);
    this.#deadlines.heldUp(this.#stream.isPaused());
    this.#deadlines.bodyAwaited();
  }

  #bodyCame(chunk: Buffer): void {
    this.#context.active(this);
    if (this.#stage === 'over') return;
    this.#received += chunk.length;
    this.#requestBytes += chunk.length;
    noteYoungBytes(chunk.length);
    this.#deadlines?.bodyRead(chunk.length);
    // Written beyond what is announced, it would be the next request.
    if (this.#received > (this.#announced ?? Infinity)) this.#fail(400, 'bad_request', 'the body is longer than Content-Length says');
    else if (this.#received > (this.#context.limits.maxBodyBytes ?? Infinity)) this.#fail(413, 'too_large', 'the body is too large');
    else {
      if (this.#kept?.add(chunk, 0, chunk.length) === false) this.#forgetRequest();
      if (this.#request?.write(chunk) === false) this.#hold(true);
      this.#context.connections.account(this.#request?.socket ?? undefined);
    }
  }

  /**
   * While the application takes nothing more, the client sends no more than its window, and is not to blame; and who takes
   * nothing more of a request owes its response no later than who has it all.
   */
  #hold(isHeld: boolean): void {
    // Of a stream whose response Node has ended in advance, and that is paused, it would not say that the client reset it.
    if (isHeld && this.#stream.writableEnded) {
      this.#fail(413, 'too_large', 'the body of a HEAD is more than the application takes');
      return;
    }
    this.#deadlines?.heldUp(isHeld);
    if (isHeld) this.#stream.pause();
    else this.#stream.resume();
    if (this.#stage !== 'asking' || this.#requestWhole) return;
    if (isHeld) this.#context.awaits(this);
    else this.#context.answered(this);
  }

  #trailersCame(list: FieldList): void {
    if (this.#stage === 'over') return;
    const { head, identity, tokens } = this.#context;
    const trailers = head.trailersForApplication(list, tokens?.identity ?? identity);
    if (!('detail' in trailers)) this.#requestTrailers = trailers;
    else this.#fail(trailers.status, trailers.status === 431 ? 'head_too_large' : 'bad_request', trailers.detail);
  }

  /**
   * Node says `end` of a stream that was reset, too. Only an END_STREAM of the client may become an end for the application,
   * and only of as much as was announced.
   */
  #bodyEnded(): void {
    const stream = this.#stream;
    if (this.#stage === 'over' || this.#request === undefined) return;
    if (stream.closed || stream.destroyed) {
      this.#leave();
      return;
    }
    if (this.#announced !== undefined && this.#received !== this.#announced) {
      this.#fail(400, 'bad_request', 'the body is not as long as Content-Length says');
      return;
    }
    this.#endRequest(this.#request);
    this.#requestDone();
  }

  #endRequest(request: ClientRequest): void {
    // Beside a Content-Length there is no place for trailers.
    if (this.#requestTrailers !== undefined && this.#announced === undefined) request.addTrailers(pairs(this.#requestTrailers));
    request.end();
  }

  #requestDone(): void {
    this.#requestWhole = true;
    this.#deadlines?.end();
    if (this.#stage === 'asking') this.#context.awaits(this);
  }

  // ——— from the application ———

  /** An application that answered before the body, and then took the body for a request, would read one that nobody judged: it is not asked. */
  #sayContinue(): void {
    if (this.#stage === 'asking') this.#tell(() => this.#stream.additionalHeaders({ ':status': 100 }));
  }

  #interimHead(status: number, raw: FieldList): void {
    if (this.#stage !== 'asking' || (status === 100 && this.#continues)) return;
    const read = readResponse(this.#method, status, raw, this.#context.limits.maxFields);
    if (typeof read === 'string') this.#nonsense(read);
    else if (++this.#interim > MAX_INTERIM) this.#nonsense('too many interim responses');
    else {
      this.#context.active(this);
      this.#tell(() => this.#stream.additionalHeaders(fieldObject(read.fields)));
    }
  }

  answered(response: IncomingMessage): void {
    this.#response = response;
    this.#forgetRequest();
    response.on('error', nothing);
    this.#context.active(this);
    if (this.#stage !== 'asking') {
      response.destroy();
      return;
    }
    this.#context.answered(this);
    const status = response.statusCode ?? 0;
    if (response.httpVersionMajor !== 1) {
      this.#nonsense('the version is not HTTP/1.1 or HTTP/1.0');
      return;
    }
    const read = readResponse(this.#method, status, response.rawHeaders, this.#context.limits.maxFields);
    if (typeof read === 'string') {
      this.#nonsense(read);
      return;
    }
    const { fields, framing } = read;
    const endStream = framing === 'none';
    // After chunks alone; waiting for them costs a frame.
    const waitForTrailers = framing === 'chunked';
    this.#waitsForTrailers = waitForTrailers;
    if (!this.#tell(() => this.#stream.respond(fields, { endStream, waitForTrailers }))) return;
    this.#stage = 'responding';
    this.#status = status;
    this.#responseBytes += sizeOf(fields);
    this.#context.connections.hint(response.socket, read.keepAlive);
    if (endStream) {
      response.resume();
      this.#responseDone();
      if (read.isLast) this.#request?.destroy();
      return;
    }
    this.#endsWithConnection = framing === 'close';
    this.#awaited = read.length;
    if (waitForTrailers) this.#stream.on('wantTrailers', () => this.#sendTrailers(response, read.nominated));
    response.on('data', (chunk: Buffer) => this.#responseCame(chunk));
    // With a length, the last byte says it.
    if (read.length === undefined) response.on('end', () => this.#responseEnded());
    response.on('close', () => this.#responseClosed());
  }

  #responseCame(chunk: Buffer): void {
    this.#context.active(this);
    if (this.#stage !== 'responding') return;
    this.#responseBytes += chunk.length;
    noteYoungBytes(chunk.length);
    if (this.#awaited !== undefined && (this.#awaited -= chunk.length) === 0) {
      this.#stream.end(chunk);
      this.#responseDone();
      return;
    }
    this.#context.connections.account(this.#response?.socket);
    if (!this.#stream.write(chunk)) {
      this.#response?.pause();
      this.#isUnread = true;
      this.#stream.once('drain', () => {
        this.#isUnread = false;
        this.#context.active(this);
        this.#response?.resume();
      });
    }
  }

  #responseEnded(): void {
    if (this.#stage !== 'responding' || this.#response?.complete !== true) return;
    this.#stream.end();
    this.#responseDone();
  }

  #responseClosed(): void {
    if (this.#stage === 'responding') this.#fail(502, 'upstream_failed', 'the application ended within its response');
  }

  #sendTrailers(response: IncomingMessage, nominated: ReadonlySet<string>): void {
    const stream = this.#stream;
    const sent = this.#tell(() => stream.sendTrailers(fieldObject(responseTrailers(response.rawTrailers, nominated))));
    // Node sends them in an immediate of its own.
    if (sent && !this.#requestWhole) setImmediate(() => stream.close(NGHTTP2_NO_ERROR));
  }

  failed(error: Error, request: ClientRequest | undefined): void {
    // More is said of the first one when it is asked again.
    if (this.#stage === 'over' || request !== this.#request) return;
    if (error instanceof NoConnection) {
      const { status, result, detail } = error.failure;
      this.#fail(status, result, detail);
      return;
    }
    const code = codeOf(error) ?? 'unknown';
    const exact = this.#mayAskAgain(code, request) ? this.#exact : undefined;
    if (exact !== undefined) {
      this.#askAgain(exact);
      return;
    }
    if (code.startsWith('HPE_')) this.#nonsense(code);
    else this.#fail(502, 'upstream_failed', `the application broke the connection (${code})`);
  }

  #nonsense(detail: string): void {
    this.#fail(502, 'upstream_failed', `the application gave a response that is not valid: ${detail}`);
  }

  /** Hands Node what came from an application. What Node refuses is the application's fault; false, then. */
  #tell(say: () => void): boolean {
    try {
      say();
      return true;
    } catch (thrown) {
      this.#nonsense(codeOf(thrown) ?? 'unknown');
      return false;
    }
  }

  // ——— ends ———

  /** The response is handed over, whole. */
  #responseDone(): void {
    const isWhole = this.#requestWhole;
    this.#finish(
      'forwarded',
      this.#endsWithConnection ? 'the response ended with its connection: whether it is whole cannot be told' : undefined,
    );
    // What is left of the request has nowhere to go (RFC 9113, section 8.1). The end of one that is whole may wait in Node for
    // an application that reads no more, and its connection with it, in the place of another.
    if (!isWhole || this.#request?.writableFinished === false) this.#request?.destroy();
    if (!isWhole && !this.#waitsForTrailers) this.#stream.close(NGHTTP2_NO_ERROR);
  }

  /** Says why if nothing of a final response was sent; else resets, so that what was sent does not look whole. */
  #fail(status: OwnStatus, result: HttpResult, detail: string): void {
    if (this.#stage === 'asking') {
      this.#answer(status, result, detail);
      return;
    }
    // A whole response may still be on its way, and fail there.
    if (this.#stage === 'responding') this.#finish(result, detail);
    this.#reset();
  }

  /** `told` is what the log has instead of what the client is sent. */
  #answer(status: OwnStatus, result: HttpResult, detail: string, challenge?: string, told = detail): void {
    const body = ownBody(detail);
    const fields = [':status', String(status), 'content-type', 'text/plain; charset=utf-8', 'cache-control', 'no-store'];
    if (challenge !== undefined) fields.push('www-authenticate', challenge);
    fields.push('content-length', String(body.length));
    // Of a HEAD, Node has ended it.
    const withBody = !this.#stream.writableEnded;
    this.#status = status;
    this.#responseBytes += sizeOf(fields) + (withBody ? body.length : 0);
    this.#finish(result, told);
    this.#request?.destroy();
    const stream = this.#stream;
    if (stream.destroyed || stream.closed) return;
    stream.respond(fields, { endStream: !withBody });
    if (withBody) stream.end(body);
    // What the client still says is not read. Of a head alone, Node would send the reset first.
    if (!this.#hasBody || this.#requestWhole) return;
    if (withBody) stream.close(NGHTTP2_NO_ERROR);
    else setImmediate(() => stream.close(NGHTTP2_NO_ERROR));
  }

  /** Not with the stream's `close`: Node would end the stream first, and then reset it, and a part would look whole. */
  #reset(): void {
    this.#request?.destroy();
    this.#stream.destroy(new Error('the response is cut'));
  }

  /** The client reset the stream, or broke its rules, or is gone. The application is told by the end of its connection. */
  #leave(): void {
    if (this.#stage === 'over') return;
    const { rstCode } = this.#stream;
    this.#finish('downstream_closed', rstCode === NGHTTP2_NO_ERROR ? undefined : `the stream was reset with code ${rstCode}`);
    this.#request?.destroy();
  }

  #finish(result: HttpResult, detail?: string): void {
    this.#stage = 'over';
    this.#forgetRequest();
    this.#deadlines?.end();
    this.#attempt.giveUp?.();
    // Of what is buffered, Node waits for the end: a paused stream would never be closed, and keep its place among the client's.
    this.#stream.resume();
    const { session, clock } = this.#context;
    this.#context.over(this, {
      connection: session.id,
      peerId: session.peer?.peerId,
      version: '2',
      method: this.#method,
      target: this.#target,
      host: this.#host,
      status: this.#status,
      result,
      detail,
      verdict: this.#verdict,
      subject: this.#bearer.kind === 'token' ? this.#bearer.token.subject : undefined,
      bytesFromDownstream: this.#requestBytes,
      bytesToDownstream: this.#responseBytes,
      durationMs: clock.monotonic() - this.#startedAtMs,
      retries: this.#retries,
    });
  }
}

function nothing(): void {
  // Said by another event, too.
}

/** Of a head, as HTTP/1.1 would write it. */
function sizeOf(fields: FieldList): number {
  let size = 2;
  for (let at = 0; at < fields.length; at += 2) size += (fields[at]?.length ?? 0) + (fields[at + 1]?.length ?? 0) + 4;
  return size;
}

function pairs(list: FieldList): [string, string][] {
  const all: [string, string][] = [];
  for (let at = 0; at < list.length; at += 2) all.push([list[at] ?? '', list[at + 1] ?? '']);
  return all;
}
