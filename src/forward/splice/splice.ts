import type { HttpLimits } from '../../config/config.ts';
import type { Clock, Timer } from '../../lib/clock.ts';
import { messageOf } from '../../lib/errors.ts';
import type { Fields } from '../../http1/fields.ts';
import { ownAnswer } from '../../http1/own-answer.ts';
import {
  CANCEL,
  ENHANCE_YOUR_CALM,
  fault,
  FLOW_CONTROL_ERROR,
  NO_ERROR,
  PROTOCOL_ERROR,
  REFUSED_STREAM,
  type Fault,
  type FaultReason,
} from '../../http2/frame.ts';
import { FieldFilter } from '../../http2/identity.ts';
import { ClientStreams } from '../../http2/client-streams.ts';
import { MAX_HEADER_LIST_SIZE } from '../../http2/settings.ts';
import type { CloseReason, RequestRecord } from '../../telemetry/log/records.ts';
import type { Connection } from '../../transport/connection.ts';
import type { Http2Forwarding } from '../http-forwarding.ts';
import { DeadlineQueue } from '../deadline-queue.ts';
import type { RequestJudge } from '../bearer.ts';
import type { OpenUpstream } from '../http1-upstream.ts';
import { CLOSE_GRACE_MS, DENIED_HEAD_MS, DROP_GRACE_MS, Grace } from '../grace.ts';
import { connectFailure, type UpstreamFailure, type Who } from '../outcome.ts';
import type { RequestCredential } from '../request-credential.ts';
import type { Session } from '../session.ts';
import type { Side } from '../tcp-forwarder.ts';
import { Application, type ApplicationOwner } from './application.ts';
import type { Asked, Destination } from './destination.ts';
import { Announced } from './announced.ts';
import { Exchange, type ExchangeContext } from './exchange.ts';
import { asBlock, AS_HTTP1, AttachedToken, Heads, TokenHeads } from './heads.ts';
import { Http1Application } from './http1-application.ts';
import { TurnClock } from './turn-clock.ts';
import { Wire, type Section, type WireOwner } from './wire.ts';

export interface SpliceOptions extends Http2Forwarding {
  readonly downstream: Connection;
  /**
   * What an extended CONNECT may ask for besides WebSockets; undefined: nobody may ask for anything. It is offered when the application
   * offers it, which is connected to as soon as the client has begun, so that this is known.
   */
  readonly upgrades: readonly string[] | undefined;
  /** How long the application may take to say that it speaks HTTP/2. */
  readonly greetingTimeoutMs: number;
  /** Present if the application speaks HTTP/1.1; with room to work in, which all connections of a listener share. */
  readonly http1?: { readonly scratch: Fields } | undefined;
  /** Undefined: nobody is judged but by the connection. */
  readonly judge: RequestJudge | undefined;
  /** Put on requests before they go; undefined for none. */
  readonly credential?: RequestCredential | undefined;
  readonly open: OpenUpstream;
  /** Present if the client is the application beside us, and whom `open` connects to is a server, which alone is judged. */
  readonly outbound?: OutboundSplice | undefined;
  /** One side broke the rules of HTTP/2, or flooded us. */
  faulted(side: Side, reason: FaultReason): void;
}

export interface OutboundSplice {
  /** What `open` gave is no longer used: the next server is judged by itself. */
  released(): void;
  /** The connection to the server was ended, while nothing was asked of it, for this reason. The application's goes on. */
  dismissed(reason: CloseReason, detail: string): void;
}

/** For an application that does not speak HTTP/2, in words of the protocol that it is most likely to speak. */
const NOT_HTTP2 = ownAnswer(400, 'this listener is for applications that speak HTTP/2 from the first byte on (h2c)', true);
/** RFC 9113, section 6.5.2, counts so much for each field. */
const FIELD_BYTES = 32;

/**
 * HTTP/2 from a client to an application that speaks it, too: frames are passed on, and of each stream the fields are read,
 * judged and written anew. A stream has the same id on both sides. Whatever one side takes, the other may send: windows are the
 * two sides' own, and what is held is what they disagree about.
 *
 * Outbound it is the same with the sides of TLS changed: the client is the application beside us, and the server is who is judged.
 * There is never more than one server, so that all that is open is judged by who it is: the client's connection ends with the
 * server's, unless nothing was asked of it then.
 */
export function forwardSpliced(options: SpliceOptions): void {
  new Splice(options).start();
}

class Splice implements WireOwner, ExchangeContext {
  readonly session: Session;
  readonly clock: Clock;
  readonly turn: TurnClock;
  readonly limits: HttpLimits;
  readonly filter: FieldFilter;
  readonly heads: Heads;
  readonly judge: RequestJudge | undefined;
  readonly who: Who;
  readonly tokens: TokenHeads | undefined;
  readonly attached: AttachedToken | undefined;
  readonly peer: Wire;
  readonly #options: SpliceOptions;
  readonly #isDenied: boolean;
  readonly #maxSectionBytes: number;
  readonly #streams = new Map<number, Exchange>();
  /** Those of which something is held for the client. */
  readonly #held = new Set<Exchange>();
  readonly #ids = new ClientStreams();
  #saidGoaway = false;
  #current: Destination | undefined;
  #hasLearned = false;
  readonly #applications = new Set<Destination>();
  readonly #responses: DeadlineQueue<Exchange>;
  readonly #idle: DeadlineQueue<Exchange>;
  /** Whose bodies did not come with their heads. */
  #untimed: Exchange[] = [];
  readonly #announced: Announced;
  #firstTimer: Timer | undefined;
  #blockTimer: Timer | undefined;
  readonly #grace: Grace;
  /** No further stream is taken once what has come is read. */
  #endsWithTurn = false;
  /** No further stream is taken. */
  #ending = false;
  /** Nothing more is said to the client. */
  #hasEnded = false;
  #closed = false;
  #done = false;
  /** The client has had us reset too many streams. */
  #fault: Fault | undefined;
  readonly #owner: ApplicationOwner;

  constructor(options: SpliceOptions) {
    const { session, clock, limits, identity, judge, tokens, downstream } = options;
    this.#options = options;
    this.#isDenied = session.denied !== undefined;
    this.session = session;
    this.clock = clock;
    this.turn = new TurnClock(clock);
    this.limits = limits;
    this.filter = new FieldFilter(identity);
    const isOutbound = options.outbound !== undefined;
    // What was plain text is so no more.
    const form = options.http1 === undefined ? asBlock(isOutbound ? 'https' : undefined) : AS_HTTP1;
    const upgrades = (): readonly string[] | undefined => (this.#announced.connect ? options.upgrades : undefined);
    this.heads = new Heads(this.filter, limits, form, upgrades);
    this.judge = judge;
    this.who = isOutbound ? 'the server' : 'the application';
    this.attached = options.credential && new AttachedToken(options.credential);
    this.tokens = tokens && new TokenHeads(tokens, limits, form, upgrades);
    this.#announced = new Announced(options.maxConcurrentStreams, options.upgrades !== undefined);
    // Somewhat more than the limits, so that a head that is too large has an answer with a reason.
    const maxFields = limits.maxFields * 2 + 16;
    this.#maxSectionBytes = limits.maxHeadBytes * 2 + maxFields * FIELD_BYTES;
    const maxSectionBytes = this.#maxSectionBytes;
    this.peer = new Wire(this, { connection: downstream, clock, isClient: true, awaitsPreface: isOutbound, maxSectionBytes, maxFields });
    const { counters, ticker } = options;
    this.#owner = {
      arrived: (bytes) => {
        this.turn.next();
        counters.upstreamReadBytes += bytes;
        ticker.lets(session);
        return !this.#hasEnded;
      },
      wrote: (bytes) => (counters.upstreamWrittenBytes += bytes),
      // So much more may be on its way to it as it says that it takes.
      widened: (application) => this.peer.raiseWindow(application.sendWindow),
      settled: (application) => this.#applicationSettled(application),
      left: (application, waiting) => {
        if (application === this.#current) this.#current = undefined;
        if (options.outbound === undefined) for (const exchange of waiting) exchange.moveOn();
        else this.#serverLeft(application, waiting, options.outbound);
      },
      faulted: ({ reason }) => options.faulted('upstream', reason),
      failed: (thrown) => this.failed(thrown),
      turned: () => this.turned(),
      closed: (application) => this.#applicationClosed(application),
    };
    this.#grace = new Grace(clock, downstream);
    this.#responses = new DeadlineQueue(this.turn, limits.responseTimeoutMs, (exchange) => {
      exchange.responseLate();
      this.#abandonDeaf();
      this.turned();
    });
    this.#idle = new DeadlineQueue(this.turn, options.idleTimeoutMs, (exchange) => {
      exchange.idle();
      this.turned();
    });
  }

  start(): void {
    const { session, limits, clock, outbound } = this.#options;
    /** Only the server has to go. Of a connection that ends itself, nobody is told so besides. */
    const isBetween = (): boolean => outbound !== undefined && this.#streams.size === 0 && !this.#ending;
    session.drop = () => this.#drop();
    session.dismiss = (reason, detail) => {
      if (isBetween()) {
        outbound?.dismissed(reason, detail);
        this.#letGo();
        return;
      }
      session.because(reason, detail);
      if (this.#streams.size > 0) this.#drop();
      else this.#end(CLOSE_GRACE_MS);
    };
    session.wind = () => this.#endWithStreams();
    session.drain = ({ reason }) => {
      if (isBetween()) this.#letGo();
      // By the rules of the web nobody judges what is still to be sent, which may have a token in it.
      else if (this.judge === undefined && reason === 'authority_removed' && outbound && this.#current instanceof Application) {
        this.#current.retire();
        this.turned();
      } else this.#endWithStreams();
    };
    const denied = (): Exchange[] => [...this.#streams.values()].filter((exchange) => exchange.isDeniedNow());
    session.hasDenied = () => denied().length > 0;
    session.endDenied = () => {
      for (const exchange of denied()) exchange.drop();
      this.turned();
    };
    session.endTokens = () => {
      const ends = [...this.#streams.values()].map((exchange) => exchange.endToken());
      session.tokensEndAtMs = Math.min(Infinity, ...ends);
      this.turned();
    };
    const firstMs = this.#isDenied ? Math.min(limits.headTimeoutMs, DENIED_HEAD_MS) : limits.headTimeoutMs;
    this.#firstTimer = clock.after(firstMs, () => {
      if (!this.#isDenied) {
        const detail = `no HTTP/2 preface within ${limits.headTimeoutMs} ms`;
        this.broke(fault(PROTOCOL_ERROR, 'too_slow', detail));
      } else this.#end(CLOSE_GRACE_MS);
      this.turned();
    });
    // HTTP/1.1 has no way to say that it takes other protocols: whether one does, each answer says.
    const announcement = this.#announced.begin(this.#options.http1 !== undefined && this.#options.upgrades !== undefined);
    this.peer.start([...announcement, [MAX_HEADER_LIST_SIZE, this.#maxSectionBytes]]);
  }

  // ——— the client's connection ———

  arrived(bytes: number): boolean {
    this.turn.next();
    const { session, counters, ticker } = this.#options;
    session.bytesFromDownstream += bytes;
    counters.downstreamReadBytes += bytes;
    ticker.lets(session);
    return !this.#hasEnded;
  }

  wrote(bytes: number): void {
    this.#options.session.bytesToDownstream += bytes;
    this.#options.counters.downstreamWrittenBytes += bytes;
  }

  section(stream: number, fields: Section, ends: boolean): Fault | undefined {
    const known = this.#streams.get(stream);
    if (known !== undefined) return known.requestTrailers(fields, ends) ?? this.#fault;
    if (!this.#ids.opens(stream)) return this.#ids.lateSection(stream);
    // The client hears of the end, and that this one was not taken (section 6.8).
    if (this.#ending) {
      this.#ids.closed(stream, true);
      return undefined;
    }
    if (this.#streams.size >= this.#options.maxConcurrentStreams) {
      this.peer.sendReset(stream, REFUSED_STREAM);
      this.#ids.closed(stream, true);
      return this.peer.countReset();
    }
    this.#ids.take(stream);
    const exchange = new Exchange(this, stream);
    this.#streams.set(stream, exchange);
    this.session.lastActiveTick = this.#options.ticker.tick;
    this.#idle.set(exchange);
    exchange.begin(fields, ends);
    return this.#fault;
  }

  content(stream: number, bytes: Buffer, start: number, end: number, ends: boolean, overhead: number): Fault | undefined {
    const known = this.#streams.get(stream);
    if (known !== undefined) return known.requestContent(bytes, start, end, ends, overhead) ?? this.#fault;
    this.peer.credit(end - start);
    return this.#ids.lateContent(stream);
  }

  reset(stream: number, code: number): Fault | undefined {
    const known = this.#streams.get(stream);
    if (known === undefined) return this.#ids.lateSign(stream);
    known.clientReset(code);
    return undefined;
  }

  window(stream: number, increment: number): Fault | undefined {
    const known = this.#streams.get(stream);
    if (known === undefined) return this.#ids.lateSign(stream) ?? this.#fault;
    known.clientWindow(increment);
    return this.#fault;
  }

  widened(): void {
    for (const each of this.#applications) each.raiseWindow(this.peer.sendWindow);
    let left = this.#held.size;
    for (const exchange of this.#held) {
      // Who was served, and has still more, is behind those who were not.
      if (left-- === 0 || this.peer.sendWindow <= 0) break;
      this.#held.delete(exchange);
      exchange.flushResponse();
    }
  }

  settled(initialWindowBefore: number): Fault | undefined {
    if (!this.#isDenied) {
      this.#firstTimer?.cancel();
      if (this.#options.upgrades !== undefined && this.#options.http1 === undefined) this.#learnOfConnect();
    }
    const { initialWindow } = this.peer.remote;
    for (const each of this.#applications) each.changeInitialWindow(initialWindow);
    for (const exchange of this.#streams.values()) {
      if (!exchange.clientWindowChanged(initialWindow - initialWindowBefore)) {
        return fault(FLOW_CONTROL_ERROR, 'flow_control', 'the window of a stream is too large');
      }
    }
    return undefined;
  }

  goaway(_: number, code: number): Fault | undefined {
    if (code !== NO_ERROR) this.session.because('downstream_reset', `the client gave up: GOAWAY with code ${code}`);
    this.#endWithStreams();
    return undefined;
  }

  broke(problem: Fault): void {
    const { code, reason, detail } = problem;
    if (this.#hasEnded) return;
    this.#options.faulted('downstream', reason);
    this.session.because('protocol_error', detail);
    for (const exchange of this.#streams.values()) exchange.disconnected();
    this.#ending = true;
    if (reason === 'preface' && this.peer.sayInstead(NOT_HTTP2)) this.#endPeer(undefined, CLOSE_GRACE_MS);
    else this.#endPeer(code, DROP_GRACE_MS);
    this.#leave();
  }

  failed(thrown: unknown): void {
    this.session.because('internal_error', `a request could not be served: ${messageOf(thrown)}`);
    this.#drop();
  }

  turned(): void {
    const untimed = this.#untimed;
    if (untimed.length > 0) {
      this.#untimed = [];
      for (const exchange of untimed) exchange.timeBody();
    }
    if (this.#endsWithTurn) this.#endSoon();
    if (this.#ending && this.#streams.size === 0) this.#endPeer(NO_ERROR, CLOSE_GRACE_MS);
    this.#timeBlock();
    for (const each of this.#applications) each.flush();
    this.peer.flush();
    this.#flow();
    this.turn.next();
  }

  drained(): void {
    this.turned();
  }

  /** Without its side of the connection a client can take no response that needs a window; most are gone altogether. */
  ended(): void {
    if (this.#hasEnded) return;
    if (this.#streams.size > 0) this.#options.broken('downstream', undefined);
    this.#ending = true;
    for (const exchange of this.#streams.values()) if (!exchange.hasWholeResponse) exchange.disconnected();
    this.#leave();
    if (this.#streams.size === 0) this.#endPeer(NO_ERROR, DROP_GRACE_MS);
    this.#grace.limit(DROP_GRACE_MS);
    this.turned();
  }

  closed(error: Error | undefined): void {
    this.#closed = true;
    this.#grace.over();
    if (error !== undefined && !this.#hasEnded) this.#options.broken('downstream', error);
    else if (!this.#ending) this.#options.broken('downstream', undefined);
    this.#ending = true;
    this.#hasEnded = true;
    for (const exchange of this.#streams.values()) exchange.disconnected();
    this.#leave();
    for (const timer of [this.#firstTimer, this.#blockTimer]) timer?.cancel();
    this.#responses.clear();
    this.#idle.clear();
    this.turned();
    this.#maybeDone();
  }

  // ——— what exchanges tell ———

  application(): Destination | UpstreamFailure {
    if (this.#current !== undefined) return this.#current;
    const application = this.#newApplication();
    if ('result' in application) return application;
    this.#applications.add(application);
    this.#current = application;
    application.connect();
    return application;
  }

  #newApplication(): Destination | UpstreamFailure {
    const { http1, files } = this.#options;
    if (http1 !== undefined) {
      const { clock, open } = this.#options;
      return new Http1Application(this.#owner, { clock, open, who: this.who, limits: this.limits, scratch: http1.scratch, files });
    }
    if (this.#applications.size > 0 && !files.take(1)) {
      return connectFailure(this.who, 'EMFILE', 'no file descriptors are left for connections');
    }
    const { clock, open, greetingTimeoutMs } = this.#options;
    return new Application(this.#owner, {
      clock,
      open,
      who: this.who,
      greetingTimeoutMs,
      maxSectionBytes: this.#maxSectionBytes,
      maxFields: this.limits.maxFields * 2 + 16,
      initialWindow: this.peer.remote.initialWindow,
      connectionWindow: () => this.peer.sendWindow,
    });
  }

  get mostHeldBytes(): number {
    return this.#announced.largestWindow;
  }

  get judged(): Side {
    return this.#options.outbound === undefined ? 'downstream' : 'upstream';
  }

  /** Outbound, the next attempt is that of the next connection: the line of this one says why. */
  unreached({ closeReason, message }: UpstreamFailure): void {
    if (this.#options.outbound === undefined) return;
    this.session.because(closeReason, message);
    this.#endsWithTurn = true;
  }

  active(exchange: Exchange): void {
    const { ticker } = this.#options;
    this.session.lastActiveTick = ticker.tick;
    this.#idle.set(exchange);
  }

  holds(exchange: Exchange): void {
    this.#held.add(exchange);
  }

  bodyAwaited(exchange: Exchange): void {
    this.#untimed.push(exchange);
  }

  awaits(exchange: Exchange): void {
    this.#responses.set(exchange);
  }

  answered(exchange: Exchange): void {
    this.#responses.delete(exchange);
  }

  over(exchange: Exchange, record: RequestRecord): void {
    this.#responses.delete(exchange);
    this.#options.requestFinished(record);
  }

  streamClosed(exchange: Exchange, wasReset: boolean): void {
    this.#streams.delete(exchange.id);
    this.#held.delete(exchange);
    this.#idle.delete(exchange);
    this.#ids.closed(exchange.id, wasReset);
    // Who is denied has had an answer by now.
    if (this.#isDenied && this.#streams.size === 0) this.#ending = true;
  }

  clientFault(): void {
    this.#fault ??= this.peer.countReset();
  }

  // ——— the application ———

  /** Once: clients ask for nothing that was not offered. Who cannot be connected to is so again for the first request, which is told why. */
  #learnOfConnect(): void {
    if (this.#hasLearned || this.#ending) return;
    this.#hasLearned = true;
    this.application();
  }

  #applicationSettled(application: Application): void {
    if (application !== this.#current || application.wire === undefined) return;
    const { remote, sendWindow } = application.wire;
    const { pairs, windowChange } = this.#announced.follow(remote);
    if (pairs.length > 0) this.peer.sendSettings(pairs);
    if (windowChange !== 0) for (const exchange of this.#streams.values()) exchange.windowOfAnother(windowChange, application);
    this.peer.raiseWindow(sendWindow);
  }

  /** It takes no further requests. As long as it answers some, there is no other one. */
  #serverLeft(server: Application, waiting: readonly Asked[], outbound: OutboundSplice): void {
    if (!server.isBusy) {
      outbound.released();
      for (const exchange of waiting) exchange.moveOn();
      return;
    }
    this.#endSoon();
    for (const exchange of waiting) exchange.refusedByApplication(NO_ERROR);
  }

  /** Nothing is asked of it: it is ended in order, and the next request is for another one. */
  #letGo(): void {
    const current = this.#current;
    if (current === undefined) return;
    this.#current = undefined;
    current.close();
    this.#options.outbound?.released();
    this.turned();
  }

  #applicationClosed(application: Destination): void {
    if (!this.#applications.delete(application)) return;
    if (this.#current === application) this.#current = undefined;
    if (this.#applications.size > 0) this.#options.files.give(1);
    this.#maybeDone();
  }

  /** Who neither answers nor reads would have the client not read from, either, for as long as it likes. */
  #abandonDeaf(): void {
    const patienceMs = (this.limits.responseTimeoutMs ?? Infinity) / 2;
    for (const application of this.#applications) if (application.fullMs >= patienceMs) application.abandon();
  }

  /** Whatever is still asked has nobody who would hear the answer. */
  #leave(): void {
    for (const application of this.#applications) application.close();
  }

  // ——— time and flow ———

  /** A field section that has begun is whole soon. */
  #timeBlock(): void {
    if (!this.peer.isWithinBlock || this.#hasEnded) {
      this.#blockTimer?.cancel();
      this.#blockTimer = undefined;
      return;
    }
    this.#blockTimer ??= this.clock.after(this.limits.headTimeoutMs, () => {
      this.#blockTimer = undefined;
      // What is missing may have come, and wait for us.
      if (!this.peer.isPaused) this.broke(fault(ENHANCE_YOUR_CALM, 'too_slow', 'a field section that took too long'));
      this.turned();
    });
  }

  /**
   * Who takes nothing is not brought more: a side that is full stops the other. Itself it stops only when it does not hear our answers
   * at all, for it may have to write before it reads.
   */
  #flow(): void {
    let isFull = false;
    for (const each of this.#applications) {
      each.pauseIf(this.peer.isFull && !this.#hasEnded);
      isFull ||= each.isFull;
    }
    this.peer.pauseIf((isFull || this.peer.isStuck) && !this.#hasEnded);
  }

  // ——— ends ———

  #endWithStreams(): void {
    this.#end(this.#streams.size === 0 ? CLOSE_GRACE_MS : undefined);
  }

  /**
   * No further requests; those that are open go on, and then the connection ends. Of who was told why, no more than a moment is
   * asked to agree to that; of who still reads a response, no more than the idle limit.
   */
  #end(graceMs: number | undefined): void {
    if (graceMs !== undefined) this.#grace.limit(graceMs);
    this.#endSoon();
    this.turned();
  }

  /** As `#end`, for whoever is in the middle of something: `turned` comes after it. */
  #endSoon(): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#sayGoaway(NO_ERROR);
  }

  /** At once: responses are cut, which their streams say, and nothing more is taken from either side. */
  #drop(): void {
    this.#ending = true;
    const wasBusy = this.#streams.size > 0;
    for (const exchange of this.#streams.values()) exchange.drop();
    this.#leave();
    // With an error code, so that no stream that is cut looks as if it were meant to end there.
    this.#endPeer(wasBusy ? CANCEL : NO_ERROR, DROP_GRACE_MS);
    this.turned();
  }

  #sayGoaway(code: number): void {
    if (this.#hasEnded) return;
    this.#saidGoaway = true;
    this.peer.sendGoaway(this.#ids.lastTaken, code);
  }

  /** Nothing more is said. `code` undefined: not even why. */
  #endPeer(code: number | undefined, graceMs: number): void {
    if (this.#hasEnded) return;
    if (code !== undefined && (code !== NO_ERROR || !this.#saidGoaway)) this.#sayGoaway(code);
    this.#hasEnded = true;
    this.peer.stop();
    this.peer.pauseIf(false);
    this.peer.end();
    this.#grace.limit(graceMs);
    this.#leave();
  }

  #maybeDone(): void {
    if (!this.#closed || this.#done || this.#applications.size > 0) return;
    this.#done = true;
    this.#options.done();
  }
}
