import type { HttpLimits } from '../../config/config.ts';
import type { Clock } from '../../lib/clock.ts';
import type { HttpResult, RequestRecord } from '../../telemetry/log/records.ts';
import type { OwnStatus } from '../../http1/own-answer.ts';
import {
  CANCEL,
  fault,
  FLOW_CONTROL_ERROR,
  HTTP_1_1_REQUIRED,
  INTERNAL_ERROR,
  MAX_WINDOW,
  NO_ERROR,
  PROTOCOL_ERROR,
  REFUSED_STREAM,
  STREAM_CLOSED,
  type Fault,
} from '../../http2/frame.ts';
import type { FieldFilter } from '../../http2/identity.ts';
import { ownResponse, type OwnMore } from '../../http2/own-response.ts';
import { readRequestTrailers, type RequestProblem } from '../../http2/request-fields.ts';
import { ResponseCourse } from '../../http2/response-course.ts';
import { NO_BEARER, type Bearer, type RequestJudge, type RequestVerdict } from '../bearer.ts';
import { Deadlines, type DeadlineSink } from '../http-deadlines.ts';
import type { UpstreamFailure, Who } from '../outcome.ts';
import { refusalOf } from '../refusal.ts';
import type { Session } from '../session.ts';
import type { Side } from '../tcp-forwarder.ts';
import type { Asked, Destination, Sink } from './destination.ts';
import { encodeFields, type AttachedToken, type Heads, type ReadRequest, type ReadResponse, type TokenHeads } from './heads.ts';
import { Half } from './half.ts';
import { TokenToAttach } from './token-to-attach.ts';
import { LARGEST_WINDOW, type Section, type Wire } from './wire.ts';

/** What the requests of one connection share. */
export interface ExchangeContext {
  readonly session: Session;
  readonly clock: Clock;
  /** For what needs no more than the time of the turn. */
  readonly turn: Pick<Clock, 'monotonic'>;
  readonly limits: HttpLimits;
  readonly filter: FieldFilter;
  readonly heads: Heads;
  /** Whose SPIFFE ID the verdict is on: of who asks, or of who answers, which is known when it is connected to. */
  readonly judged: Side;
  /** Undefined: nobody is judged but by the connection. */
  readonly judge: RequestJudge | undefined;
  /** Who is asked, for words. */
  readonly who: Who;
  /** Undefined where nobody looks at tokens. */
  readonly tokens: TokenHeads | undefined;
  /** Undefined where no token is put on requests. */
  readonly attached: AttachedToken | undefined;
  readonly peer: Wire;
  /** The most that a stream of the client's may have had on its way without our asking for more. */
  readonly mostHeldBytes: number;
  /** Where the next request goes. */
  application(): Destination | UpstreamFailure;
  /** There is nobody to ask. */
  unreached(failure: UpstreamFailure): void;
  /** Bytes are about to move on this stream: afterwards it may be over. */
  active(exchange: Exchange): void;
  /** Some of the response is held: the client's window is not large enough. */
  holds(exchange: Exchange): void;
  /** More of the request is to come. */
  bodyAwaited(exchange: Exchange): void;
  /** The request is whole, or stands still: the application has so long to answer. */
  awaits(exchange: Exchange): void;
  /** It has answered, or goes on taking the request. */
  answered(exchange: Exchange): void;
  /** There is nothing more to say of the request. Called once. */
  over(exchange: Exchange, record: RequestRecord): void;
  /** The stream is closed. `wasReset`: by us, so that frames of it may still be on their way. Called once. */
  streamClosed(exchange: Exchange, wasReset: boolean): void;
  /** A stream is about to be reset for a fault of the client's. */
  clientFault(): void;
  /** Something was said outside of a turn: it is to be sent. */
  turned(): void;
  /** A mistake of ours, which must not end the process. */
  failed(thrown: unknown): void;
}

/** How often a request may be moved on to another connection before the application has seen it. */
const MAX_MOVES = 2;

/** `asking`: nothing of a final response was sent; `responding`: its head was; `over`: all is said of the request. */
type Stage = 'asking' | 'responding' | 'over';

/** One stream, from its first field section until it is closed on both sides. */
export class Exchange implements Asked, DeadlineSink {
  readonly id: number;
  readonly #context: ExchangeContext;
  readonly #startedAtMs: number;
  #stage: Stage = 'asking';
  #isClosed = false;
  #request: ReadRequest | undefined;
  /** What it was read from. */
  #section: Section = 'too_large';
  /** That was all of the request. */
  #isHeadAlone = false;
  #application: Destination | undefined;
  /** The application has its head. */
  #sink: Sink | undefined;
  #moves = 0;
  /** It could not be sent at once. */
  #hasWaited = false;
  #retries = 0;
  #verdict: RequestVerdict | undefined;
  #bearer: Bearer = NO_BEARER;
  /** Its token is being verified. What comes meanwhile is held. */
  #isReadingToken = false;
  /** That of ours, if it is to have one. */
  #token: TokenToAttach | undefined;
  #status = 0;
  #requestBytes = 0;
  #responseBytes = 0;
  readonly #up = new Half(0);
  readonly #down: Half;
  /** The client has said all of the request. */
  #requestEnded = false;
  /** Octets of the body that have come. */
  #received = 0;
  readonly #course = new ResponseCourse();
  /** The response has no other end. */
  #endsWithConnection = false;
  /** The application takes nothing more of the request. */
  #isStalled = false;
  #deadlines: Deadlines | undefined;
  /** What SETTINGS for another connection to the application gave the client, and this one's did not. */
  #surplus = 0;
  /** Of the window that the application gave at first, and the client was not told: it gets that as it goes on. */
  #unsaid = 0;
  /** When all of the response is sent, the client is asked to send no more of the request. */
  #resetAfter: number | undefined;

  constructor(context: ExchangeContext, id: number) {
    this.id = id;
    this.#context = context;
    this.#startedAtMs = context.turn.monotonic();
    this.#down = new Half(context.peer.remote.initialWindow);
  }

  /** All of the response is there, and some of it may be held. */
  get hasWholeResponse(): boolean {
    return this.#down.hasEnded;
  }

  get request(): ReadRequest | undefined {
    return this.#request;
  }

  get #isSwitched(): boolean {
    return this.#course.isSwitched;
  }

  /** It asks for another protocol, which is spoken on its stream then (RFC 8441). */
  get #asksSwitch(): boolean {
    return this.#request?.protocol !== undefined;
  }

  // ——— what the client says ———

  begin(section: Section, ends: boolean): void {
    const { heads, tokens, attached } = this.#context;
    this.#requestEnded = ends;
    this.#isHeadAlone = ends;
    this.#up.hasEnded = ends;
    if (section === 'too_large') {
      this.#answer(431, 'head_too_large', 'the head is too long');
      return;
    }
    // Most that bring a token have one that is known.
    const values = tokens?.valuesIn(section) ?? NO_VALUES;
    const isReadWithToken = tokens !== undefined && values.length > 0;
    const read = isReadWithToken ? tokens.heads.request(section, ends) : heads.request(section, ends);
    if ('detail' in read) {
      this.#refuse(read);
      return;
    }
    this.#section = section;
    this.#request = read;
    this.#requestBytes = read.size;
    if (ends && (read.announced ?? 0) > 0) {
      this.#refuse({ status: 400, detail: 'there is a Content-Length and no body', isMalformed: true });
      return;
    }
    if (attached?.isFor(section) === true)
      this.#token = new TokenToAttach(attached, (problem, isWithin) => this.#tokenCame(problem, isWithin));
    const bearer = tokens?.read(values) ?? NO_BEARER;
    if (!(bearer instanceof Promise)) {
      this.#admit(bearer, isReadWithToken);
      return;
    }
    this.#isReadingToken = true;
    void bearer.then((proven) => this.#tokenRead(proven));
  }

  /** By then, the stream may be gone. */
  #tokenRead(bearer: Bearer): void {
    this.#isReadingToken = false;
    if (this.#isClosed || this.#stage !== 'asking') return;
    try {
      // Fields were kept by a policy that may be another one now.
      this.#admit(bearer, undefined);
      this.#context.turned();
    } catch (thrown) {
      this.#context.failed(thrown);
    }
  }

  /** `isReadWithToken`: as it was read now; undefined if that was before. */
  #admit(bearer: Bearer, isReadWithToken: boolean | undefined): void {
    const { limits, session } = this.#context;
    this.#bearer = bearer;
    if (this.#context.judged === 'downstream' && !this.#isAllowed()) return;
    if ((this.#request?.announced ?? 0) > (limits.maxBodyBytes ?? Infinity)) {
      this.#answer(413, 'too_large', 'the body is too large');
      return;
    }
    const hasToken = bearer.kind === 'token';
    if (hasToken) session.tokensEndAtMs = Math.min(session.tokensEndAtMs, bearer.endsAtMs);
    if (isReadWithToken !== hasToken) {
      if (!this.#readAgain()) return;
    } else this.#nameSubject();
    this.#ask();
  }

  /** As it is to be sent: the policy, and what is known of its token, decide about fields. False if it is refused. */
  #readAgain(): boolean {
    const { heads, tokens } = this.#context;
    if (this.#section === 'too_large') return false;
    const filtered = (this.#bearer.kind === 'token' ? tokens?.heads : heads)?.request(this.#section, this.#isHeadAlone);
    if (filtered === undefined) return false;
    if ('detail' in filtered) {
      this.#refuse(filtered);
      return false;
    }
    this.#request = filtered;
    this.#nameSubject();
    return true;
  }

  /** The application is told whose token it was, in a head that was read as one with a token. */
  #nameSubject(): void {
    const { tokens } = this.#context;
    const bearer = this.#bearer;
    if (bearer.kind === 'token' && tokens !== undefined && this.#request !== undefined)
      this.#request = tokens.withSubject(this.#request, bearer.token.subject);
  }

  #ask(): void {
    // While the server is connected to, a token comes.
    if (this.isHeldUp() && this.#stage === 'over') return;
    const application = this.#context.application();
    if ('result' in application) {
      this.unreached(application);
      return;
    }
    this.#application = application;
    application.ask(this);
    if (this.#sink === undefined) this.#hasWaited = true;
  }

  #isAllowed(): boolean {
    const { judge, judged } = this.#context;
    const { method = '', target = '', host = '' } = this.#request ?? {};
    const judgement = judge?.(method, target, host, this.#bearer);
    if (judgement === undefined) return true;
    if (judgement.ok) this.#verdict = judgement.value;
    const refusal = refusalOf(judgement, judged);
    if (refusal === undefined) return true;
    this.#answer(refusal.status, refusal.result, refusal.detail, refusal, refusal.told);
    return false;
  }

  /** What more of it comes is for the application. */
  get #isTaken(): boolean {
    return this.#application !== undefined || (this.#isReadingToken && this.#stage === 'asking');
  }

  /** A part of the body. */
  requestContent(bytes: Buffer, start: number, end: number, ends: boolean, overhead: number): Fault | undefined {
    const { peer, limits } = this.#context;
    const size = end - start;
    if (this.#requestEnded) return fault(STREAM_CLOSED, 'stream', 'DATA on a stream that the client has ended');
    if (overhead > 0 && !ends) peer.sendWindowUpdate(this.id, overhead);
    this.#context.active(this);
    this.#requestEnded = ends;
    if (this.#isClosed || !this.#isTaken) {
      peer.credit(size);
      this.#closeIfDone();
      return undefined;
    }
    this.#received += size;
    this.#requestBytes += size;
    if (this.#lengthProblem(ends)) {
      peer.credit(size);
      return undefined;
    }
    if (this.#received > (limits.maxBodyBytes ?? Infinity) && !this.#isSwitched) {
      peer.credit(size);
      this.#fail(413, 'too_large', 'the body is too large');
      return undefined;
    }
    this.#deadlines?.bodyRead(size);
    this.#passedOn(this.#up.push(this.#sink, this.id, bytes, start, end, ends));
    if (this.#up.heldBytes > this.#context.mostHeldBytes) {
      this.#refuse({ status: 400, detail: 'more DATA than the window of the stream', isMalformed: true }, FLOW_CONTROL_ERROR);
    } else if (ends) this.#requestWhole();
    else this.#stalledOrNot();
    return undefined;
  }

  /** A field section after the first one: trailers. */
  requestTrailers(section: Section, ends: boolean): Fault | undefined {
    const { filter, heads, limits, tokens } = this.#context;
    if (this.#requestEnded) return fault(STREAM_CLOSED, 'stream', 'HEADERS on a stream that the client has ended');
    this.#context.active(this);
    this.#requestEnded = ends;
    if (this.#isClosed || !this.#isTaken) {
      this.#closeIfDone();
      return undefined;
    }
    if (!ends || this.#asksSwitch) {
      // RFC 9113, section 8.5: nothing but DATA.
      const detail = this.#asksSwitch ? 'trailers after a CONNECT' : 'trailers that do not end the request';
      this.#refuse({ status: 400, detail, isMalformed: true });
      return undefined;
    }
    if (this.#lengthProblem(ends)) return undefined;
    const trailers = section === 'too_large' ? TRAILERS_TOO_LONG : readRequestTrailers(section, tokens?.filter ?? filter, limits);
    if ('detail' in trailers) {
      this.#refuse(trailers);
      return undefined;
    }
    if (trailers.length > 0) this.#up.endWith(this.#sink, this.id, heads.form.trailers(trailers));
    else this.#up.push(this.#sink, this.id, NOTHING, 0, 0, true);
    this.#requestWhole();
    return undefined;
  }

  clientReset(code: number): void {
    this.#finish('downstream_closed', code === NO_ERROR ? undefined : `the stream was reset with code ${code}`);
    // Some servers would take what they have of the request for all of it.
    this.#leave(code === NO_ERROR ? CANCEL : code);
    this.#close(false);
  }

  /** It takes so many octets more of the response. */
  clientWindow(increment: number): void {
    if (increment === 0 || this.#down.window + increment > MAX_WINDOW) {
      const code = increment === 0 ? PROTOCOL_ERROR : FLOW_CONTROL_ERROR;
      this.#refuse({ status: 400, detail: 'WINDOW_UPDATE of nothing, or to a window that is too large', isMalformed: true }, code);
      return;
    }
    this.#down.window += increment;
    // With the very same number: nobody but the client says how fast it takes a response.
    if (!this.#down.hasEnded) this.#sink?.sendWindowUpdate(this.id, increment);
    if (this.#down.isHolding) this.flushResponse();
  }

  /** SETTINGS of the client have changed its window. False if it is too large now. */
  clientWindowChanged(change: number): boolean {
    this.#down.window += change;
    if (this.#down.window > MAX_WINDOW) return false;
    if (change > 0 && this.#down.isHolding) this.flushResponse();
    return true;
  }

  /** The client's side is closed, or no longer to be spoken to. */
  disconnected(): void {
    this.#finish('downstream_closed');
    this.#leave(CANCEL);
    this.#close(false);
  }

  /** Answers whether the body is not as long as it was said to be; then the request is refused. */
  #lengthProblem(ends: boolean): boolean {
    const announced = this.#request?.announced;
    if (announced === undefined || (ends ? this.#received === announced : this.#received <= announced)) return false;
    this.#refuse({ status: 400, detail: 'the body is not as long as Content-Length says', isMalformed: true });
    return true;
  }

  /** So much of the request went on to the application. */
  #passedOn(bytes: number): void {
    const { peer } = this.#context;
    peer.credit(bytes);
    const more = this.#requestEnded ? 0 : Math.min(bytes, this.#unsaid);
    if (more === 0) return;
    this.#unsaid -= more;
    peer.sendWindowUpdate(this.id, more);
  }

  #requestWhole(): void {
    this.#deadlines?.end();
    if (this.#up.heldBytes > 0) this.#application?.holds(this);
    if (this.#stage === 'asking' && this.#sink !== undefined && !this.#asksSwitch) this.#context.awaits(this);
    this.#closeIfDone();
  }

  /**
   * While the application takes nothing more, the client is not to blame; and who takes nothing more of a request owes its response
   * no later than who has it all.
   */
  #stalledOrNot(): void {
    const isStalled = this.#up.isBlocked(this.#sink);
    if (isStalled) this.#application?.holds(this);
    if (isStalled === this.#isStalled) return;
    this.#isStalled = isStalled;
    this.#deadlines?.heldUp(isStalled);
    if (this.#stage !== 'asking' || this.#requestEnded || this.#sink === undefined || this.#asksSwitch) return;
    if (isStalled) this.#context.awaits(this);
    else this.#context.answered(this);
  }

  // ——— towards the application ———

  /** Whether it is still to be sent: of one that has waited, what was allowed when it came may not be now. */
  maySend(sink: Sink): boolean {
    if (this.#stage === 'over') return false;
    if (this.#asksSwitch && !sink.remote.enablesConnect) {
      this.#answer(501, 'upstream_failed', `${this.#context.who} takes no extended CONNECT on this connection`);
      return false;
    }
    if (!this.#hasWaited && this.#context.judged === 'downstream') return true;
    if (!this.#isAllowed()) return false;
    if (!this.#hasWaited) return true;
    return this.#readAgain();
  }

  maySendAgain(sink: Sink): boolean {
    this.#retries++;
    this.#hasWaited = true;
    return this.maySend(sink);
  }

  /** Waits for a token of ours that is valid now, if it is to have one: that has a time of its own. Without any it is answered. */
  isHeldUp(): boolean {
    return this.#token !== undefined && this.#stage !== 'over' && !this.#token.look();
  }

  #tokenCame(problem: string | undefined, isWithin: boolean): void {
    try {
      if (problem !== undefined) this.#answer(503, 'token_unavailable', problem);
      else this.#application?.proceed(this);
    } catch (thrown) {
      // Whoever calls is a promise or a timer: thrown on, it would end the process, and others who wait would not be told.
      this.#context.failed(thrown);
    }
    if (!isWithin) this.#context.turned();
  }

  mustWait(): void {
    if (this.#stage === 'asking' && this.#token?.isAwaited !== true) this.#context.awaits(this);
  }

  send(sink: Sink): void {
    const up = this.#up;
    const application = this.#application;
    if (this.#request === undefined || application === undefined) throw new Error('a request is sent that was not read');
    this.#sink = sink;
    up.window = sink.remote.initialWindow;
    const isAll = up.hasEnded && !up.hasMoreThanEnd;
    if (isAll) up.isDone = true;
    const { block } = this.#request;
    sink.sendBlock(this.id, this.#token?.putOn(block) ?? block, isAll);
    this.#unsaid = Math.max(up.window - LARGEST_WINDOW, 0);
    if (!isAll) this.#passedOn(up.flush(sink, this.id));
    if (up.heldBytes > 0) application.holds(this);
    this.#isStalled = false;
    // What the client has given since it asked.
    const more = this.#down.window - application.announcedWindow;
    if (more > 0) sink.sendWindowUpdate(this.id, more);
    // Whoever asks for another protocol waits for the answer, and has said all for now.
    if (this.#requestEnded || this.#asksSwitch) this.#context.awaits(this);
    else {
      this.#context.answered(this);
      this.#stalledOrNot();
      this.#context.bodyAwaited(this);
    }
  }

  /** It takes more over all of its streams. */
  flushRequest(sink: Sink): void {
    if (this.#isClosed) return;
    const passed = this.#up.flush(sink, this.id);
    this.#passedOn(passed);
    if (passed > 0) this.#context.active(this);
    if (!this.#requestEnded) this.#stalledOrNot();
    else if (this.#up.heldBytes > 0) this.#application?.holds(this);
    else this.#closeIfDone();
  }

  applicationWindow(increment: number): void {
    const sink = this.#sink;
    if (sink === undefined) return;
    if (increment === 0 || this.#up.window + increment > MAX_WINDOW) {
      const code = increment === 0 ? PROTOCOL_ERROR : FLOW_CONTROL_ERROR;
      this.#nonsense('a window that may not be', code);
      return;
    }
    this.#up.window += increment;
    if (!this.#requestEnded) this.#context.peer.sendWindowUpdate(this.id, increment);
    this.flushRequest(sink);
  }

  applicationWindowChanged(change: number, sink: Sink): Fault | undefined {
    this.#up.window += change;
    if (this.#up.window > MAX_WINDOW) return fault(FLOW_CONTROL_ERROR, 'flow_control', 'a window that is too large');
    if (change > 0) this.flushRequest(sink);
    return undefined;
  }

  /** The client was told another window for all streams, as `application` has it: one that has this stream has not said so. */
  windowOfAnother(change: number, application: Destination): void {
    // One whose token is being verified has no application yet, and will have the newest.
    if (application === this.#application || this.#requestEnded || this.#isReadingToken) return;
    this.#surplus += change;
    if (this.#surplus >= 0) return;
    this.#context.peer.sendWindowUpdate(this.id, -this.#surplus);
    this.#surplus = 0;
  }

  // ——— what the application says ———

  responseSection(section: Section, ends: boolean): Fault | undefined {
    const { heads, limits, peer } = this.#context;
    const down = this.#down;
    if (down.hasEnded) return fault(STREAM_CLOSED, 'stream', 'HEADERS on a stream that it has ended');
    if (this.#stage !== 'asking' || section === 'too_large') this.#context.active(this);
    if (this.#isClosed) return undefined;
    if (section === 'too_large') {
      this.#nonsense('the head is too long');
      return undefined;
    }
    if (this.#stage !== 'asking') {
      const problem = this.#course.trailers(section, ends, limits.maxFields);
      if (problem !== undefined) this.#nonsense(problem);
      else {
        down.endWith(peer, this.id, encodeFields(section));
        this.#pushed();
      }
      return undefined;
    }
    const read = heads.response(section);
    if (typeof read === 'string') this.#nonsense(read);
    else this.responseHead(read, ends);
    return undefined;
  }

  responseHead(read: ReadResponse, ends: boolean): void {
    const { peer } = this.#context;
    const down = this.#down;
    const { status } = read;
    this.#context.active(this);
    if (this.#isClosed) return;
    const problem = this.#course.head(read, { method: this.#request?.method, asksSwitch: this.#asksSwitch }, ends);
    if (problem !== undefined) {
      this.#nonsense(problem);
      return;
    }
    if (status < 200) {
      peer.sendBlock(this.id, read.block, false);
      return;
    }
    this.#context.answered(this);
    this.#stage = 'responding';
    this.#status = read.told ?? status;
    this.#responseBytes += read.size;
    down.hasEnded = ends;
    down.isDone = ends;
    peer.sendBlock(this.id, read.block, ends);
    if (ends) this.#responseWhole();
  }

  responseEndedWithConnection(): void {
    this.#endsWithConnection = true;
  }

  responseContent(bytes: Buffer, start: number, end: number, ends: boolean, overhead: number): Fault | undefined {
    const { peer } = this.#context;
    const size = end - start;
    const down = this.#down;
    if (down.hasEnded) return fault(STREAM_CLOSED, 'stream', 'DATA on a stream that it has ended');
    const sink = this.#sink;
    if (overhead > 0 && !ends) sink?.sendWindowUpdate(this.id, overhead);
    this.#context.active(this);
    const problem = this.#stage === 'asking' ? 'a body without a head' : this.#course.content(size, ends);
    if (this.#isClosed || problem !== undefined) {
      sink?.credit(size);
      if (problem !== undefined) this.#nonsense(problem);
      return undefined;
    }
    this.#responseBytes += size;
    sink?.credit(down.push(peer, this.id, bytes, start, end, ends));
    this.#pushed();
    return undefined;
  }

  /** It takes more over all of its streams. */
  flushResponse(): void {
    if (this.#isClosed) return;
    const passed = this.#down.flush(this.#context.peer, this.id);
    if (passed > 0) this.#context.active(this);
    if (this.#isClosed) return;
    this.#sink?.credit(passed);
    this.#pushed();
  }

  #pushed(): void {
    if (this.#down.isDone) this.#responseWhole();
    else if (this.#down.isHolding) this.#context.holds(this);
  }

  /** All of the response is handed over. The client may have more to say to who has said all in another protocol. */
  #responseWhole(): void {
    const cannotBeTold = 'the response ended with its connection: whether it is whole cannot be told';
    if (!this.#isSwitched) this.#finish('forwarded', this.#endsWithConnection ? cannotBeTold : undefined);
    this.#closeIfDone();
  }

  applicationReset(code: number): void {
    // What is held for the client is no longer of its connection's window.
    this.#sink?.credit(this.#down.heldBytes);
    this.#application = undefined;
    this.#sink = undefined;
    if (this.#down.hasEnded) {
      // It asks for no more of the request (RFC 9113, section 8.1).
      if (this.#isSwitched && code !== NO_ERROR) this.#finish('upstream_failed', this.#resetWith(code));
      this.#stopRequest(relayedCode(code, true));
      return;
    }
    this.#finish('upstream_failed', this.#resetWith(code));
    this.#reset(relayedCode(code, false));
  }

  #resetWith(code: number): string {
    return `${this.#context.who} reset the stream with code ${code}`;
  }

  /** It has said which requests it took, and this is none of them. */
  refusedByApplication(code: number): void {
    if (this.#stage === 'asking') {
      this.#finish('upstream_failed', `${this.#context.who} took no more requests on its connection (code ${code})`);
      this.#leave(undefined);
      this.#reset(REFUSED_STREAM);
    } else if (!this.#down.hasEnded) this.#nonsense('it has not taken the request that it answers');
  }

  applicationLost(detail: string): void {
    this.#application = undefined;
    this.#sink = undefined;
    if (this.#isSwitched && this.#down.hasEnded) {
      this.#finish('upstream_failed', `${this.#context.who} broke the connection`);
      this.#stopRequest(CANCEL);
    } else if (this.#down.hasEnded) this.#stopRequest(NO_ERROR);
    else this.#fail(502, 'upstream_failed', this.#stage === 'asking' ? detail : `${this.#context.who} ended within its response`);
  }

  /** There is no connection to send it on. */
  unreached(failure: UpstreamFailure): void {
    const { status, result, detail, retryAfterS } = failure;
    this.#application = undefined;
    this.#context.unreached(failure);
    this.#fail(status, result, detail, { retryAfterS });
  }

  /** It waited for a connection that takes no requests any more. */
  moveOn(): void {
    this.#application = undefined;
    if (++this.#moves > MAX_MOVES) this.#fail(502, 'upstream_failed', `${this.#context.who} takes requests on none of its connections`);
    else this.#ask();
  }

  #nonsense(detail: string, code: number = PROTOCOL_ERROR): void {
    this.#leave(code);
    this.applicationMistaken(`gave a response that is not valid: ${detail}`);
  }

  applicationMistaken(detail: string): void {
    this.#leave(undefined);
    this.#fail(502, 'upstream_failed', `${this.#context.who} ${detail}`);
  }

  // ——— judging again, and time ———

  /** It was let begin, and would not be now. */
  isDeniedNow(): boolean {
    if (this.#verdict?.allowed !== true || this.#request === undefined) return false;
    // Of a server that is not asked any more, there is nobody to be judged.
    if (this.#context.judged === 'upstream' && this.#application === undefined) return false;
    const { method, target, host } = this.#request;
    const again = this.#context.judge?.(method, target, host, this.#bearer);
    return again !== undefined && (!again.ok || !again.value.allowed);
  }

  /** Ends it if its token no longer holds. Answers when its token ends, in wall time. */
  endToken(): number {
    if (this.#bearer.kind !== 'token' || this.#verdict?.allowed !== true) return Infinity;
    const problem = this.#context.tokens?.problemOf(this.#bearer);
    if (problem === undefined) return this.#bearer.endsAtMs;
    this.#cut(problem.detail);
    return Infinity;
  }

  /** The response, if there is one, is cut: also one of which the last is still to be sent. */
  drop(): void {
    this.#cut(undefined);
  }

  #cut(detail: string | undefined): void {
    this.#finish('dropped', detail);
    this.#leave(CANCEL);
    // As RFC 8441, section 5, has it of a connection that is broken.
    this.#reset(this.#isSwitched ? CANCEL : INTERNAL_ERROR);
  }

  /** From now, unless the request is whole: gRPC may say nothing for as long as it likes. */
  timeBody(): void {
    if (this.#isClosed || this.#requestEnded || this.#application === undefined || this.#request?.isGrpc === true) return;
    this.#deadlines ??= new Deadlines(this, this.#context.clock, this.#context.limits);
    this.#deadlines.heldUp(this.#isStalled);
    this.#deadlines.bodyAwaited();
  }

  bodyLate(): void {
    // What is missing may have come, and wait for us.
    if (this.#context.peer.isPaused) {
      this.#deadlines?.bodyEnded();
      this.#deadlines?.bodyAwaited();
    } else this.#fail(408, 'timeout', 'the body came too slowly');
  }

  /** A field section that is not whole is the connection's. */
  headLate(): void {
    // So they are never late here.
  }

  responseLate(): void {
    if (this.#stage === 'asking') this.#fail(504, 'upstream_timeout', `${this.#context.who} did not answer in time`);
  }

  /** Nothing has moved for the idle time. */
  idle(): void {
    if (this.#isSwitched) this.#cut('nothing passed for the idle time');
    else if (this.#stage === 'over' && this.#down.isDone) {
      this.#leave(CANCEL);
      this.#reset(NO_ERROR);
    } else if (this.#stage !== 'asking' && this.#down.isBlocked(this.#context.peer)) {
      this.#fail(408, 'timeout', 'the client did not read the response');
    } else if (this.#requestEnded) this.#fail(504, 'upstream_timeout', 'the response stood still');
    else if (this.#isStalled) this.#fail(504, 'upstream_timeout', `${this.#context.who} took no more of the request`);
    else this.#fail(408, 'timeout', 'the request stood still');
  }

  // ——— ends ———

  #refuse({ status, detail, isMalformed }: RequestProblem, code: number = PROTOCOL_ERROR): void {
    if (!isMalformed) {
      this.#fail(status, status === 431 ? 'head_too_large' : 'bad_request', detail);
      return;
    }
    this.#finish('bad_request', detail);
    this.#leave(CANCEL);
    this.#reset(code);
    this.#context.clientFault();
  }

  /** Says why if nothing of a final response was sent; else resets, so that what was sent does not look whole. */
  #fail(status: OwnStatus, result: HttpResult, detail: string, more?: OwnMore): void {
    if (this.#isClosed) return;
    // What was for the application is given up for something that the client did: that is a reset like any other.
    if (this.#isTaken && status < 500) this.#context.clientFault();
    this.#leave(CANCEL);
    if (this.#stage === 'asking') {
      this.#answer(status, result, detail, more);
      return;
    }
    this.#finish(result, detail);
    this.#reset(this.#down.isDone ? NO_ERROR : INTERNAL_ERROR);
  }

  /** `told` is what the log has instead of what the client is sent. */
  #answer(status: OwnStatus, result: HttpResult, detail: string, more?: OwnMore, told = detail): void {
    const { peer } = this.#context;
    this.#leave(CANCEL);
    const own = ownResponse(status, detail, {
      isGrpc: this.#request?.isGrpc === true,
      withBody: this.#request?.method !== 'HEAD',
      ...more,
    });
    const body = own.body ?? NOTHING;
    const block = encodeFields(own.fields);
    this.#status = own.status;
    this.#responseBytes += block.length + body.length;
    peer.credit(this.#up.drop());
    const isAll = own.body === undefined;
    this.#down.hasEnded = isAll;
    this.#down.isDone = isAll;
    peer.sendBlock(this.id, block, isAll);
    this.#finish(result, told);
    if (!isAll) this.#down.push(peer, this.id, body, 0, body.length, true);
    if (this.#down.isHolding) this.#context.holds(this);
    this.#stopRequest(NO_ERROR);
  }

  /** The client need not send the rest of the request: it is told so when it has the response. */
  #stopRequest(code: number): void {
    if (!this.#requestEnded) this.#resetAfter = code;
    this.#context.peer.credit(this.#up.drop());
    this.#closeIfDone();
  }

  #closeIfDone(): void {
    if (this.#isClosed || !this.#down.isDone) return;
    if (this.#resetAfter !== undefined && !this.#requestEnded) {
      this.#finish('forwarded');
      this.#reset(this.#resetAfter);
    } else if (this.#requestEnded && (this.#up.isDone || this.#application === undefined)) {
      this.#finish('forwarded');
      this.#leave(undefined);
      this.#close(false);
    }
  }

  #reset(code: number): void {
    if (this.#isClosed) return;
    this.#context.peer.sendReset(this.id, code);
    // Of what it has ended, nothing more may come.
    this.#close(!this.#requestEnded);
  }

  /** The application has nothing to do with it any more, which a code tells it. */
  #leave(code: number | undefined): void {
    const application = this.#application;
    this.#application = undefined;
    const sink = this.#sink;
    this.#sink = undefined;
    // Its window of the connection is not this stream's alone.
    sink?.credit(this.#down.drop());
    const isClosedThere = this.#down.hasEnded && this.#up.isDone;
    application?.leave(this, isClosedThere ? undefined : code);
  }

  #close(wasReset: boolean): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#deadlines?.end();
    this.#context.peer.credit(this.#up.drop());
    this.#down.drop();
    this.#context.streamClosed(this, wasReset);
  }

  #finish(result: HttpResult, detail?: string): void {
    if (this.#stage === 'over') return;
    this.#stage = 'over';
    this.#token?.giveUp();
    const { session, turn } = this.#context;
    const { method = '', target = '', host = '' } = this.#request ?? {};
    this.#context.over(this, {
      connection: session.id,
      peerId: session.peer?.peerId,
      subject: this.#bearer.kind === 'token' ? this.#bearer.token.subject : undefined,
      version: '2',
      method,
      target,
      host,
      status: this.#status,
      result,
      detail,
      verdict: this.#verdict,
      bytesFromDownstream: this.#requestBytes,
      bytesToDownstream: this.#responseBytes,
      durationMs: turn.monotonic() - this.#startedAtMs,
      retries: this.#retries,
    });
  }
}

const NOTHING: Buffer = Buffer.alloc(0);
const NO_VALUES: readonly string[] = Object.freeze([]);
const TRAILERS_TOO_LONG: RequestProblem = { status: 431, detail: 'the trailers are too long', isMalformed: false };

/** Codes that mean something to whoever hears them from another connection than theirs. */
function relayedCode(code: number, isWhole: boolean): number {
  if (code === NO_ERROR) return isWhole ? NO_ERROR : INTERNAL_ERROR;
  return code > HTTP_1_1_REQUIRED ? INTERNAL_ERROR : code;
}
