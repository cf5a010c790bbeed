import { asBuffer } from '../lib/bytes.ts';
import type { Timer } from '../lib/clock.ts';
import { codeOf, messageOf } from '../lib/errors.ts';
import type { CloseReason, HttpResult } from '../telemetry/log/records.ts';
import type { Connection, ConnectionHandler } from '../transport/connection.ts';
import { valuesOf } from '../http1/identity-fields.ts';
import { CONTINUE, ownAnswer, type OwnFields, type OwnStatus } from '../http1/own-answer.ts';
import { NO_BEARER, type Bearer, type RequestJudge, type RequestVerdict } from './bearer.ts';
import { CLOSE_GRACE_MS, DENIED_HEAD_MS, Grace } from './grace.ts';
import type { HttpForwarding } from './http-forwarding.ts';
import { Deadlines, type DeadlineSink } from './http-deadlines.ts';
import type { Fields } from '../http1/fields.ts';
import type { HeadProblem } from '../http1/request-head.ts';
import { RequestReader, type RequestPart, type RequestSink } from '../http1/request-reader.ts';
import { ResponseReader, type ResponseSink } from '../http1/response-reader.ts';
import { Upstreams, type OpenUpstream, type UpstreamSink } from './http1-upstream.ts';
import type { UpstreamFailure } from './outcome.ts';
import type { RequestCredential } from './request-credential.ts';
import { OutgoingHead } from './http1-head.ts';
import { refusalOf } from './refusal.ts';
import { isIdempotent, KeptRequest, RESTED_MS, wasClosed } from './repair.ts';
import type { Side } from './tcp-forwarder.ts';

interface AnswerOptions extends OwnFields {
  readonly isUnread?: boolean;
  readonly told?: string;
}

export interface HttpForwardOptions extends HttpForwarding {
  readonly downstream: Connection;
  /** What may be asked for by `Upgrade` besides WebSockets. */
  readonly upgrades: readonly string[];
  /** Room to work in, which all connections of a listener share. */
  readonly scratch: Fields;
  /** Whose SPIFFE ID the verdict is on: of who asks, or of who answers, which is known when it is connected to. */
  readonly judged: Side;
  /** Undefined: nobody is judged but by the connection. */
  readonly judge: RequestJudge | undefined;
  /** Put on requests before they go; undefined for none. */
  readonly credential?: RequestCredential | undefined;
  readonly open: OpenUpstream;
  /** What `open` gave is no longer used. */
  released(): void;
  /** Outbound: the connection to the server was ended, between requests, for this reason. The application's goes on. */
  dismissed(reason: CloseReason, detail: string): void;
}

/** How long a client whose connection drains has to ask once more, if it may. */
const LAST_REQUEST_MS = 5000;

/**
 * HTTP/1.1, request by request: one is read and judged only when the response to the one before is complete. Heads are
 * rewritten; bodies pass as bytes. What Scute answers itself is the last of the connection, and a response that has begun
 * is ended by a reset if it cannot be whole.
 */
export function forwardHttp(options: HttpForwardOptions): void {
  new HttpForwarder(options).start();
}

class HttpForwarder implements ConnectionHandler, RequestSink, ResponseSink, UpstreamSink, DeadlineSink {
  readonly #options: HttpForwardOptions;
  readonly #request: RequestReader;
  readonly #response: ResponseReader;
  readonly #upstreams: Upstreams;
  readonly #deadlines: Deadlines;
  /** Who is asked, for words. */
  readonly #who: string;
  /** The response under way, or the next one, is the last. */
  #draining = false;
  /** The response under way had begun before it could say so: the next one is the last. */
  #asksOnceMore = false;
  /** The application's connection is not to be used for another request. */
  #recycles = false;

  // The client's connection.
  /** Bytes that came too early, in a buffer of ours. */
  #pending: Buffer | undefined;
  #isReading = false;
  #isPaused = false;
  #hasEnded = false;
  #isClosed = false;
  #isFull = false;
  readonly #grace: Grace;
  #lastRequestTimer: Timer | undefined;

  // The request under way: from its head to its log line.
  #isUnderWay = false;
  #startedAtMs = 0;
  /** Of the one before. */
  #endedAtMs = 0;
  /** The head for the application. */
  readonly #outgoing: OutgoingHead;
  readonly #kept = new KeptRequest();
  /** It waits for a token of ours. */
  #tokenWait: { abort(): void } | undefined;
  /** The client was told to go on with the body. */
  #hasContinued = false;
  /** It is sent once more when there is a connection for it, and then this part of it comes next. */
  #resumesAs: RequestPart | undefined;
  #retries = 0;
  /** What it brought besides its peer. */
  #bearer: Bearer = NO_BEARER;
  #verdict: RequestVerdict | undefined;
  /** Of the final response; 0 before. */
  #status = 0;
  #responseBytes = 0;

  constructor(options: HttpForwardOptions) {
    this.#options = options;
    const { downstream, limits, upgrades, identity, tokens, credential, scratch, clock, open, judged } = options;
    this.#request = new RequestReader(this, limits, tokens?.identity ?? identity, scratch, upgrades);
    // A Unix socket that is dropped ends like any other.
    this.#response = new ResponseReader(this, limits, scratch, downstream.remoteAddress === 'unix', upgrades);
    this.#who = judged === 'downstream' ? 'the application' : 'the server';
    this.#outgoing = new OutgoingHead({ identity, tokens, credential, maxFields: limits.maxFields });
    this.#upstreams = new Upstreams(this, clock, open, limits.upstreamIdleTimeoutMs);
    this.#deadlines = new Deadlines(this, clock, limits);
    this.#grace = new Grace(clock, downstream);
  }

  start(): void {
    const { session, downstream, limits } = this.#options;
    session.drop = () => this.#drop();
    session.dismiss = (reason, detail) => this.#dismiss(reason, detail);
    session.wind = () => {
      this.#drain();
      this.#asksOnceMore = false;
      if (this.#isIdle()) this.#closeDownstream(CLOSE_GRACE_MS);
      else if (this.#request.part === 'over') this.#grace.limit(CLOSE_GRACE_MS);
    };
    session.drain = ({ mayAsk }) => this.#drainPeer(mayAsk);
    session.hasDenied = () => !this.#isStillAllowed();
    session.endDenied = (reason, detail) => this.#dismiss(reason, detail);
    session.endTokens = () => this.#endToken();
    // A peer that is not allowed is here to be told so, not to hold a place.
    if (session.denied !== undefined) this.#deadlines.headBegun(Math.min(limits.headTimeoutMs, DENIED_HEAD_MS));
    downstream.start(this);
  }

  #drain(): void {
    this.#draining = true;
    this.#response.saysClose = true;
  }

  #isIdle(): boolean {
    return this.#request.isIdle && this.#pending === undefined;
  }

  /** Towards a server, only the connection to it is made anew. A client is told with its next response, if it may ask and does so soon. */
  #drainPeer(mayAsk: boolean): void {
    if (this.#options.judged === 'upstream') {
      if (this.#isUnderWay) this.#recycles = true;
      // Nothing of what is under way was said on it: that waits for a token, or has just come.
      if (this.#response.part === 'none') {
        this.#upstreams.letGo();
        this.#flow();
      }
      return;
    }
    this.#drain();
    this.#asksOnceMore = mayAsk && this.#isUnderWay && this.#status !== 0;
    if (this.#isUnderWay) return;
    if (this.#request.part === 'over') this.#grace.limit(CLOSE_GRACE_MS);
    else if (!mayAsk) this.#closeDownstream(CLOSE_GRACE_MS);
    else this.#awaitLastRequest();
  }

  #awaitLastRequest(): void {
    this.#lastRequestTimer ??= this.#options.clock.after(LAST_REQUEST_MS, () => {
      // Timers go before sockets: a request that has come in time is read first.
      setImmediate(() => {
        if (this.#isIdle()) this.#closeDownstream(CLOSE_GRACE_MS);
      });
    });
  }

  /** The other side of TLS is nobody to talk to any more: what is under way is cut, and between requests nobody has to see an error. */
  #dismiss(reason: CloseReason, detail: string): void {
    const { judged, session } = this.#options;
    if (judged === 'upstream' && !this.#isUnderWay) {
      this.#options.dismissed(reason, detail);
      this.#upstreams.letGo();
      this.#flow();
      return;
    }
    session.because(reason, detail);
    // A client that reads no more has not been sent all of the response before.
    if (this.#isUnderWay || this.#isFull) this.#drop();
    else if (this.#request.part === 'over') this.#grace.limit(CLOSE_GRACE_MS);
    else this.#closeDownstream(CLOSE_GRACE_MS);
  }

  // ——— the client's connection ———

  data(raw: Uint8Array): void {
    const chunk = asBuffer(raw);
    const { session, counters, ticker } = this.#options;
    session.bytesFromDownstream += chunk.length;
    counters.downstreamReadBytes += chunk.length;
    ticker.lets(session);
    // What nobody reads keeps no connection alive.
    if (this.#request.part === 'over') return;
    session.lastActiveTick = ticker.tick;
    if (this.#isReading || this.#pending !== undefined || this.#request.part === 'held') {
      this.#pending = this.#pending === undefined ? Buffer.from(chunk) : Buffer.concat([this.#pending, chunk]);
      this.#flow();
      return;
    }
    this.#read(chunk, false);
    this.#pump();
  }

  ended(): void {
    this.#hasEnded = true;
    if (this.#request.part === 'tunnel') this.#upstreams.endWrite();
    else if (this.#pending === undefined && this.#request.part !== 'held') this.#inputEnded();
  }

  drained(): void {
    this.#isFull = false;
    this.#upstreams.resume();
  }

  closed(error: Error | undefined): void {
    this.#isClosed = true;
    this.#grace.over();
    this.#lastRequestTimer?.cancel();
    const { part } = this.#request;
    if (part !== 'over' && (error !== undefined || !this.#hasEnded)) this.#options.broken('downstream', error);
    const isTunnelEnd = part === 'tunnel' && this.#hasEnded && error === undefined;
    if (this.#isUnderWay) this.#logRequest(isTunnelEnd ? 'forwarded' : 'downstream_closed');
    if (!isTunnelEnd) this.#releaseUpstream();
    this.#stopExchange();
    this.#maybeDone();
  }

  /** Reads on where something has held it up. */
  #pump(): void {
    const request = this.#request;
    while (!this.#isReading && this.#pending !== undefined && request.part !== 'held') {
      const chunk = this.#pending;
      this.#pending = undefined;
      this.#read(chunk, true);
    }
    if (this.#hasEnded && !this.#isReading && this.#pending === undefined && request.part !== 'held') this.#inputEnded();
    this.#flow();
  }

  /** `isOurs`: the bytes may be kept. */
  #read(chunk: Buffer, isOurs: boolean): void {
    this.#isReading = true;
    const taken = this.#request.read(chunk);
    this.#isReading = false;
    if (this.#request.part === 'body') this.#deadlines.bodyAwaited();
    if (taken >= chunk.length || this.#request.part === 'over') return;
    const rest = isOurs ? chunk.subarray(taken) : Buffer.from(chunk.subarray(taken));
    this.#pending = this.#pending === undefined ? rest : Buffer.concat([rest, this.#pending]);
  }

  #flow(): void {
    if (this.#isClosed) return;
    const { downstream } = this.#options;
    const { part } = this.#request;
    // What of a request was answered and is still to be taken holds up what the next one says, and not the next one: its response has a time.
    const isHeldUp = this.#upstreams.isFull && part !== 'head';
    const mustPause = part !== 'over' && (isHeldUp || this.#pending !== undefined);
    if (mustPause === this.#isPaused) return;
    this.#isPaused = mustPause;
    this.#deadlines.heldUp(mustPause);
    if (mustPause) downstream.pause();
    else downstream.resume();
  }

  /** The client has said all that it will say. */
  #inputEnded(): void {
    switch (this.#request.part) {
      case 'head':
        if (this.#request.head.begun) this.#refuseHead(400, 'bad_request', 'the connection ended within the head');
        else this.#closeDownstream(undefined);
        return;
      case 'body':
      case 'trailers':
        this.#fail(400, 'bad_request', 'the connection ended within the request');
        return;
      case 'tunnel':
        this.#upstreams.endWrite();
    }
  }

  // ——— what the client says ———

  headBegun(): void {
    this.#deadlines.headBegun();
  }

  headRefused({ status, detail }: HeadProblem): void {
    this.#refuseHead(status, status === 431 ? 'head_too_large' : 'bad_request', detail);
  }

  headRead(): void {
    const { head } = this.#request;
    this.#deadlines.headEnded();
    this.#beginRequest();
    const { tokens } = this.#options;
    const bearer = tokens?.read(valuesOf(head, tokens.header)) ?? NO_BEARER;
    if (bearer instanceof Promise) {
      this.#outgoing.takeUnproven(head);
      void bearer.then((read) => this.#tokenRead(read));
      return;
    }
    this.#bearer = bearer;
    if (!this.#mayBegin()) return;
    this.#outgoing.take(head, bearer);
    this.#begin(bearer);
  }

  /** By then, the client may be gone, and the request over. */
  #tokenRead(bearer: Bearer): void {
    if (!this.#isUnderWay) return;
    this.#guarded(() => {
      this.#bearer = bearer;
      if (this.#mayBegin()) {
        this.#outgoing.prove(bearer);
        this.#begin(bearer);
      }
      this.#pump();
    });
  }

  /** A mistake of ours ends this connection. Whoever gives tokens has others to tell, and a promise nobody who would hear of it. */
  #guarded(work: () => void): void {
    try {
      work();
    } catch (thrown) {
      this.#options.session.because('internal_error', `a request could not be served: ${messageOf(thrown)}`);
      this.#drop();
    }
  }

  #mayBegin(): boolean {
    if (this.#options.judged === 'downstream' && !this.#isAllowed()) return false;
    if (this.#request.body.announcedBytes <= (this.#options.limits.maxBodyBytes ?? Infinity)) return true;
    this.#answer(413, 'too_large', 'the body is too large');
    return false;
  }

  #begin(bearer: Bearer): void {
    if (bearer.kind === 'token') this.#options.session.tokensEndAtMs = bearer.endsAtMs;
    if (this.#upstreams.wake(this.#startedAtMs) < RESTED_MS) this.#forward();
    else setImmediate(() => this.#forwardNow());
  }

  #forward(): void {
    const { credential } = this.#options;
    if (credential !== undefined && this.#outgoing.lacksToken) this.#awaitToken(credential);
    else if (!this.#upstreams.isOpen) this.#upstreams.connect();
    else if (this.#options.judged === 'downstream' || this.#isAllowed()) this.#sendHead();
  }

  #awaitToken(credential: RequestCredential): void {
    let isOver = false;
    const wait = credential.wait((problem) => {
      isOver = true;
      this.#tokenWait = undefined;
      this.#guarded(() => {
        if (problem === undefined) this.#forward();
        else this.#answer(503, 'token_unavailable', problem);
        this.#pump();
      });
    });
    if (!isOver) this.#tokenWait = wait;
  }

  /** The head as it goes now; undefined if its token has run out meanwhile, and then it waits for another. */
  #headToSend(): Buffer | undefined {
    const { credential } = this.#options;
    const head = this.#outgoing.toSend();
    if (head !== undefined || credential === undefined) return head;
    this.#awaitToken(credential);
    return undefined;
  }

  /** All that had come is read by now: also the end of a connection that it was to be sent on. */
  #forwardNow(): void {
    if (!this.#isUnderWay) return;
    this.#forward();
    this.#pump();
  }

  bodyRead(chunk: Buffer, start: number, end: number): void {
    this.#deadlines.bodyRead(end - start);
    if (this.#kept.isWhole && !this.#kept.add(chunk, start, end)) this.#forgetRequest();
    this.#toUpstream(start === 0 && end === chunk.length ? chunk : chunk.subarray(start, end));
    // Who takes nothing more of a request owes its response no later than who has it all.
    if (this.#upstreams.isFull && this.#response.part === 'head') this.#deadlines.requestStalled();
  }

  requestEnded(): void {
    this.#deadlines.headEnded();
    this.#deadlines.bodyEnded();
    if (this.#response.part === 'whole') this.#exchangeDone();
    else if (this.#response.part === 'head') this.#deadlines.awaitResponse();
  }

  requestRefused(status: OwnStatus, result: HttpResult, detail: string): void {
    this.#fail(status, result, detail);
  }

  #beginRequest(): void {
    this.#isUnderWay = true;
    this.#startedAtMs = this.#options.clock.monotonic();
    this.#bearer = NO_BEARER;
    this.#verdict = undefined;
    this.#status = 0;
    this.#responseBytes = 0;
    this.#hasContinued = false;
    this.#retries = 0;
  }

  #isAllowed(): boolean {
    const { judge, judged } = this.#options;
    if (judge === undefined) return true;
    const { method, target, host } = this.#request.head;
    const judgement = judge(method, target, host, this.#bearer);
    if (judgement.ok) this.#verdict = judgement.value;
    const refusal = refusalOf(judgement, judged);
    if (refusal === undefined) return true;
    const { status, result, detail, challenge, told } = refusal;
    this.#answer(status, result, detail, { challenge, told });
    return false;
  }

  #isStillAllowed(): boolean {
    if (!this.#isUnderWay || this.#verdict?.allowed !== true) return true;
    const { method, target, host } = this.#request.head;
    const again = this.#options.judge?.(method, target, host, this.#bearer);
    return again === undefined || (again.ok && again.value.allowed);
  }

  /** What its token admitted ends with it. */
  #endToken(): void {
    const { session, tokens } = this.#options;
    if (!this.#isUnderWay || this.#verdict?.allowed !== true) return;
    const problem = tokens?.problemOf(this.#bearer);
    if (problem === undefined) return;
    session.because('token_ended', problem.detail);
    this.#drop();
  }

  // ——— the application's connection ———

  upstreamOpened(): void {
    const upstreams = this.#upstreams;
    // It may have been closed already.
    if (upstreams.isOpen) {
      if (this.#isFull) upstreams.pause();
      // By the newest list: it may have changed since the head came, or since the request was sent for the first time.
      if (this.#isAllowed()) this.#sendHead();
    } else if (this.#isUnderWay) this.#answer(502, 'upstream_failed', `${this.#who} closed the connection`);
    this.#pump();
  }

  upstreamFailed({ status, result, closeReason, detail, message, retryAfterS }: UpstreamFailure): void {
    this.#options.session.because(closeReason, message);
    this.#answer(status, result, detail, { retryAfterS });
    this.#pump();
  }

  upstreamData(raw: Uint8Array): void {
    const chunk = asBuffer(raw);
    const { session, counters, ticker } = this.#options;
    session.lastActiveTick = ticker.tick;
    counters.upstreamReadBytes += chunk.length;
    ticker.lets(session);
    if (this.#request.part === 'over') return;
    if (this.#kept.isWhole) this.#forgetRequest();
    this.#response.read(chunk);
    this.#pump();
  }

  upstreamLeftover(bytes: number): void {
    this.#options.counters.upstreamReadBytes += bytes;
  }

  upstreamEnded(): void {
    switch (this.#response.part) {
      case 'none':
        this.#upstreams.letGo();
        break;
      case 'head':
        if (!this.#sendAgain()) this.#fail(502, 'upstream_failed', `${this.#who} closed the connection before it answered`);
        break;
      case 'body':
      case 'trailers':
        if (this.#response.head.framing.kind === 'close') {
          this.#response.ended();
          this.#exchangeDone();
        } else this.#fail(502, 'upstream_failed', `${this.#who} ended within its response`);
        break;
      case 'whole':
        // The rest of the request has nowhere to go.
        this.#exchangeDone();
        break;
      case 'tunnel':
        this.#options.downstream.endWrite();
    }
    this.#pump();
  }

  upstreamDrained(): void {
    // It goes on taking the request.
    if (this.#request.part === 'body' || this.#request.part === 'trailers') this.#deadlines.responseBegun();
    this.#flow();
  }

  upstreamClosed(error: Error | undefined, hadEnded: boolean): void {
    const { part } = this.#response;
    const isTunnelEnd = part === 'tunnel' && hadEnded && error === undefined;
    if (part === 'whole') this.#exchangeDone();
    else if (part !== 'none' && !isTunnelEnd && !(wasClosed(codeOf(error)) && this.#sendAgain())) {
      const code = codeOf(error);
      this.#options.broken('upstream', error);
      this.#fail(502, 'upstream_failed', `${this.#who} broke the connection${code === undefined ? '' : ` (${code})`}`);
    }
    this.#pump();
  }

  upstreamRested(): void {
    this.#upstreams.letGo();
    this.#flow();
  }

  upstreamReleased(): void {
    this.#options.released();
  }

  upstreamsGone(): void {
    this.#maybeDone();
  }

  #sendHead(): void {
    if (this.#resumesAs !== undefined) {
      this.#sendRest(this.#resumesAs);
      return;
    }
    const { head, body } = this.#request;
    const continues = head.expectsContinue && body.state !== 'done';
    const sent = this.#headToSend();
    if (sent === undefined) return;
    this.#response.expect(head, continues);
    this.#toUpstream(sent);
    // Only who answered before may have closed without having seen the request.
    const mayRepeat = this.#upstreams.isReused && isIdempotent(head.method);
    if (!mayRepeat || !this.#kept.begin(this.#outgoing.length)) this.#outgoing.forget();
    if (continues) {
      this.#hasContinued = true;
      this.responseRead(CONTINUE, 0, CONTINUE.length);
    }
    this.#request.beginBody();
    if (this.#request.part === 'body') this.#deadlines.bodyAwaited();
  }

  /**
   * The other side closed a connection that it had kept, and said nothing on it: it may have done so before the request came.
   * Sends that once more, on a new connection, if it may be; false if not.
   */
  #sendAgain(): boolean {
    const request = this.#request;
    if (!this.#kept.isWhole) return false;
    this.#retries++;
    this.#upstreams.drop();
    this.#response.part = 'none';
    this.#resumesAs = request.part;
    // The time of a response goes on; that of a body is not to be lost by who must wait for us.
    if (request.part !== 'held') this.#deadlines.responseBegun();
    request.part = 'held';
    this.#upstreams.connect();
    return true;
  }

  #sendRest(next: RequestPart): void {
    const request = this.#request;
    const sent = this.#headToSend();
    if (sent === undefined) return;
    this.#response.expect(request.head, this.#hasContinued);
    this.#toUpstream(sent);
    this.#toUpstream(this.#kept.body);
    this.#forgetRequest();
    request.part = next;
    if (next === 'held') return;
    if (next === 'trailers') this.#deadlines.headBegun();
    if (this.#upstreams.isFull) this.#deadlines.requestStalled();
  }

  #forgetRequest(): void {
    this.#kept.forget();
    this.#outgoing.forget();
    this.#resumesAs = undefined;
  }

  #toUpstream(chunk: Buffer): void {
    if (chunk.length === 0 || !this.#upstreams.isOpen) return;
    this.#options.counters.upstreamWrittenBytes += chunk.length;
    this.#upstreams.write(chunk);
  }

  // ——— what the application says ———

  responseRead(chunk: Buffer, start: number, end: number): void {
    const { session, counters, downstream } = this.#options;
    const bytes = end - start;
    this.#responseBytes += bytes;
    session.bytesToDownstream += bytes;
    counters.downstreamWrittenBytes += bytes;
    if (downstream.write(bytes === chunk.length ? chunk : chunk.subarray(start, end))) return;
    this.#isFull = true;
    this.#upstreams.pause();
  }

  finalHead(): void {
    this.#status = this.#response.head.status;
    this.#deadlines.responseBegun();
    if (this.#response.part === 'tunnel') this.#request.part = 'tunnel';
  }

  responseWhole(): void {
    const isRequestWhole = this.#request.part === 'held';
    if (isRequestWhole || !this.#upstreams.isOpen || this.#upstreams.hasEnded) this.#exchangeDone();
  }

  unasked(): void {
    this.#upstreams.drop();
  }

  responseRefused(detail: string): void {
    this.#fail(502, 'upstream_failed', `${this.#who} ${detail}`);
  }

  // ——— ends ———

  /** The response is whole. The request may be cut, if nobody is there to take the rest of it. */
  #exchangeDone(): void {
    const { head, body } = this.#request;
    const response = this.#response.head;
    const endsWithConnection = response.framing.kind === 'close';
    const isLast = body.state !== 'done' || head.close || endsWithConnection || (this.#draining && !this.#asksOnceMore);
    this.#logRequest(
      'forwarded',
      endsWithConnection ? 'the response ended with its connection: whether it is whole cannot be told' : undefined,
    );
    this.#stopExchange();
    // So that the application does not take the part that it has for the whole.
    if (body.state !== 'done') this.#upstreams.drop();
    this.#request.bytes = 0;
    if (isLast) {
      this.#closeDownstream(undefined);
      return;
    }
    this.#request.part = 'head';
    if (this.#asksOnceMore) this.#awaitLastRequest();
    this.#asksOnceMore = false;
    if (this.#upstreams.hasEnded || this.#recycles || response.close) this.#upstreams.letGo();
    else this.#upstreams.rest(this.#endedAtMs, response.keepAlive ?? '');
    this.#recycles = false;
  }

  /** Says why if nothing of a final response was sent; else resets, so that what was sent does not look whole. */
  #fail(status: OwnStatus, result: HttpResult, detail: string): void {
    if (this.#status === 0) {
      this.#answer(status, result, detail);
      return;
    }
    // The close of the application's side tells the rest of the story.
    const isUpstreams = result === 'upstream_failed' || result === 'upstream_timeout';
    this.#options.session.because(isUpstreams ? 'upstream_reset' : 'downstream_reset', detail);
    this.#logRequest(result, detail);
    this.#stopExchange();
    this.#request.part = 'over';
    this.#pending = undefined;
    this.#upstreams.drop();
    this.#options.downstream.abort();
  }

  /** A head that never became a request. */
  #refuseHead(status: OwnStatus, result: HttpResult, detail: string): void {
    this.#deadlines.headEnded();
    this.#beginRequest();
    this.#answer(status, result, detail, { isUnread: true });
  }

  /** `isUnread`: there is no request to speak of. `told` is what the log has instead of what the client is sent. */
  #answer(status: OwnStatus, result: HttpResult, detail: string, { isUnread = false, told = detail, ...fields }: AnswerOptions = {}): void {
    const answer = ownAnswer(status, detail, isUnread || this.#request.head.method !== 'HEAD', fields);
    this.#status = status;
    this.responseRead(answer, 0, answer.length);
    this.#logRequest(result, told, isUnread);
    this.#releaseUpstream();
    this.#stopExchange();
    this.#closeDownstream(CLOSE_GRACE_MS);
  }

  /** What was written is sent, the client sees the end, and what it still says is thrown away. */
  #closeDownstream(graceMs: number | undefined): void {
    if (this.#request.part === 'over') return;
    this.#request.part = 'over';
    this.#pending = undefined;
    this.#deadlines.headEnded();
    this.#releaseUpstream();
    if (this.#isClosed) return;
    if (graceMs !== undefined) this.#grace.limit(graceMs);
    this.#options.downstream.endWrite();
    this.#flow();
  }

  #stopExchange(): void {
    this.#response.part = 'none';
    this.#tokenWait?.abort();
    this.#tokenWait = undefined;
    this.#forgetRequest();
    this.#deadlines.stop();
  }

  /** In order if it is between requests, so that the application sees no error; else at once, so that it takes no part for the whole. */
  #releaseUpstream(): void {
    if (this.#response.part === 'none' && this.#upstreams.isOpen) this.#upstreams.letGo();
    else this.#upstreams.drop();
  }

  #drop(): void {
    if (this.#isUnderWay) this.#logRequest('dropped');
    this.#stopExchange();
    this.#request.part = 'over';
    this.#pending = undefined;
    this.#upstreams.dropAll();
    this.#options.downstream.abort();
  }

  #maybeDone(): void {
    if (!this.#isClosed || !this.#upstreams.isEmpty) return;
    this.#deadlines.end();
    this.#options.done();
  }

  // ——— time ———

  headLate(): void {
    // What is missing may have come, and wait for us.
    if (this.#isPaused) {
      this.#deadlines.headBegun();
      return;
    }
    if (this.#request.part === 'trailers') this.#fail(408, 'timeout', 'the trailers took too long');
    else if (this.#request.part === 'head') {
      if (this.#request.head.begun) this.#refuseHead(408, 'timeout', 'the head took too long');
      else this.#closeDownstream(CLOSE_GRACE_MS);
    }
    this.#pump();
  }

  bodyLate(): void {
    this.#fail(408, 'timeout', 'the body came too slowly');
    this.#pump();
  }

  responseLate(): void {
    // Its answer may wait for a client that does not read.
    if (this.#isFull) {
      this.#deadlines.awaitResponse();
      return;
    }
    this.#fail(504, 'upstream_timeout', `${this.#who} did not answer in time`);
    this.#pump();
  }

  #logRequest(result: HttpResult, detail?: string, isUnread = false): void {
    this.#isUnderWay = false;
    const { clock, session } = this.#options;
    session.tokensEndAtMs = Infinity;
    this.#endedAtMs = clock.monotonic();
    const { method, target, host } = this.#request.head;
    this.#options.requestFinished({
      connection: session.id,
      peerId: session.peer?.peerId,
      version: this.#request.head.minorVersion === 0 ? '1.0' : '1.1',
      method: isUnread ? '' : method,
      target: isUnread ? '' : target,
      host: isUnread ? '' : host,
      status: this.#status,
      result,
      detail,
      verdict: this.#verdict,
      subject: this.#bearer.kind === 'token' ? this.#bearer.token.subject : undefined,
      bytesFromDownstream: this.#request.bytes,
      bytesToDownstream: this.#responseBytes,
      durationMs: this.#endedAtMs - this.#startedAtMs,
      retries: this.#retries,
    });
  }
}
