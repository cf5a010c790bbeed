import type { HttpLimits } from '../../config/config.ts';
import type { Fields } from '../../http1/fields.ts';
import { MAX_WINDOW, NO_ERROR } from '../../http2/frame.ts';
import type { Clock, Timer } from '../../lib/clock.ts';
import type { Connection } from '../../transport/connection.ts';
import type { FileAccount } from '../../transport/file-budget.ts';
import { PART_GRACE_MS } from '../grace.ts';
import type { OpenUpstream } from '../http1-upstream.ts';
import { connectFailure, type Who } from '../outcome.ts';
import { RESTED_MS } from '../repair.ts';
import type { Asked, Destination, DestinationOwner } from './destination.ts';
import { Call, type CallOwner } from './http1-call.ts';
import { Line, type LineOwner } from './http1-line.ts';
import { LARGEST_WINDOW } from './wire.ts';

export interface Http1ApplicationOptions {
  readonly clock: Clock;
  readonly open: OpenUpstream;
  /** For words. */
  readonly who: Who;
  readonly limits: HttpLimits;
  /** Room to work in, which all connections of a listener share. */
  readonly scratch: Fields;
  /** A place for one connection was taken with the client's. */
  readonly files: FileAccount;
}

/** Kept open for a next request, at most; a burst opens more. */
const MOST_RESTING = 16;
/** That were told of their end, and have not agreed to it. */
const MOST_PARTING = 16;

/**
 * An application that speaks HTTP/1.1: each request has a connection for as long as it lasts, which is kept for the next one of
 * this client, and of nobody else.
 */
export class Http1Application implements Destination, CallOwner, LineOwner {
  /** What is held of a response says how much is read of it. */
  readonly announcedWindow = MAX_WINDOW;
  readonly sendWindow = LARGEST_WINDOW;
  readonly isFull = false;
  readonly fullMs = 0;
  clientIsFull = false;
  readonly #owner: DestinationOwner;
  readonly #options: Http1ApplicationOptions;
  readonly #calls = new Map<Asked, Call>();
  /** With something to send, or to give, at the end of the turn. */
  #touched: Call[] = [];
  /** The last is used next. */
  #resting: Line[] = [];
  /** As with deadlines: one timer looks at many rests. */
  #restTimer: Timer | undefined;
  readonly #parting = new Map<Line, Timer>();
  /** Connections that are open or being opened. */
  #held = 0;
  #isClosing = false;
  #isClosed = false;

  constructor(owner: DestinationOwner, options: Http1ApplicationOptions) {
    this.#owner = owner;
    this.#options = options;
  }

  get isBusy(): boolean {
    return this.#calls.size > 0;
  }

  get silentMs(): number | undefined {
    return this.#options.limits.upstreamIdleTimeoutMs;
  }

  connect(): void {
    this.#owner.widened(this);
  }

  // ——— what streams say ———

  ask(exchange: Asked): void {
    const call = new Call(this, exchange);
    this.#calls.set(exchange, call);
    const restedMs = this.#wake();
    if (restedMs < RESTED_MS) this.#take(call);
    else {
      // By then, all that had come is read: also the end of a connection that it was to be sent on.
      setImmediate(() => {
        if (this.#calls.get(exchange) !== call) return;
        this.#guarded(() => {
          this.#wake();
          this.#take(call);
        });
      });
    }
  }

  proceed(): void {
    // Nobody waits for a turn.
  }

  holds(): void {
    // What it takes no more of has no window.
  }

  leave(exchange: Asked): void {
    const call = this.#calls.get(exchange);
    if (call !== undefined) this.#end(call);
  }

  changeInitialWindow(): void {
    // As above.
  }

  raiseWindow(): void {
    // As above.
  }

  pauseIf(clientIsFull: boolean): void {
    if (clientIsFull === this.clientIsFull) return;
    this.clientIsFull = clientIsFull;
    for (const { line } of this.#calls.values()) line?.flow();
  }

  flush(): void {
    while (this.#touched.length > 0) {
      const touched = this.#touched;
      this.#touched = [];
      for (const call of touched) if (this.#calls.get(call.exchange) === call) call.flush();
    }
  }

  close(): void {
    this.#isClosing = true;
    this.#restTimer?.cancel();
    for (const call of this.#calls.values()) this.#end(call);
    for (const line of this.#resting.splice(0)) this.parts(line);
    this.#maybeClosed();
  }

  abandon(): void {
    this.close();
  }

  // ——— connections ———

  /** Lets go of those that the application is about to close. Answers how long the one that is used next has rested; 0: none does. */
  #wake(): number {
    const resting = this.#resting;
    const nowMs = this.#options.clock.monotonic();
    for (let next = resting.at(-1); next !== undefined; next = resting.at(-1)) {
      const restedMs = nowMs - next.restingSinceMs;
      if (restedMs < next.keeping.usableMs) return restedMs;
      resting.pop();
      this.parts(next);
    }
    return 0;
  }

  #take(call: Call): void {
    const line = this.#resting.pop();
    if (line === undefined) this.#open(call, false);
    else this.#start(call, line, false);
  }

  #open(call: Call, isAgain: boolean): void {
    const { who, files, open } = this.#options;
    const { exchange } = call;
    if (this.#isClosing) {
      this.#end(call);
      exchange.unreached(connectFailure(who, 'ECANCELED', 'the HTTP/2 connection is closed'));
      return;
    }
    if (this.#held > 0 && !files.take(1)) {
      this.#end(call);
      exchange.unreached(connectFailure(who, 'EMFILE', 'no file descriptors are left for connections'));
      return;
    }
    this.#held++;
    let isOver = false;
    // Whoever asks for it has not done yet, and others may be about to.
    let isWithin = true;
    const attempt = open((outcome) => {
      isOver = true;
      call.opening = undefined;
      const begin = (): void => {
        if (outcome.ok) this.#opened(call, outcome.connection, isAgain);
        else {
          this.#end(call);
          this.#give();
          exchange.unreached(outcome.failure);
        }
      };
      if (isWithin) begin();
      else this.#guarded(begin);
    });
    isWithin = false;
    if (isOver) return;
    call.opening = {
      abort: () => {
        attempt.abort();
        this.#give();
      },
    };
  }

  /** A turn of ours. */
  #guarded(task: () => void): void {
    try {
      task();
    } catch (thrown) {
      // Thrown on, it would end the process, for a client to do.
      this.#owner.failed(thrown);
    }
    this.#owner.turned();
  }

  #opened(call: Call, connection: Connection, isAgain: boolean): void {
    const { limits, scratch, who } = this.#options;
    const line = new Line(this, connection, limits, scratch);
    connection.start(line);
    // It may have been closed already.
    if (!line.hasEnded) this.#start(call, line, isAgain);
    else {
      this.#end(call);
      call.exchange.applicationLost(`${who} closed the connection`);
    }
  }

  #start(call: Call, line: Line, isAgain: boolean): void {
    const { exchange } = call;
    // Answered by us, it has left.
    const mayGo = isAgain ? exchange.maySendAgain(call) : exchange.maySend(call);
    if (!mayGo || this.#calls.get(exchange) !== call) {
      this.rests(line);
      return;
    }
    line.call = call;
    if (isAgain) call.sendAgain(line);
    else {
      call.line = line;
      exchange.send(call);
    }
  }

  /** It is nobody's any more. */
  #end(call: Call): void {
    this.#calls.delete(call.exchange);
    call.forget();
    call.opening?.abort();
    call.opening = undefined;
    const { line } = call;
    call.line = undefined;
    line?.leave();
  }

  #give(): void {
    this.#held--;
    if (this.#held > 0) this.#options.files.give(1);
    this.#maybeClosed();
  }

  #maybeClosed(): void {
    if (!this.#isClosing || this.#isClosed || this.#held > 0) return;
    this.#isClosed = true;
    this.#owner.closed(this);
  }

  #armRest(afterMs: number): void {
    if (afterMs !== Infinity) this.#restTimer ??= this.#options.clock.after(afterMs, () => this.#checkRests());
  }

  #checkRests(): void {
    this.#restTimer = undefined;
    const nowMs = this.#options.clock.monotonic();
    let nextMs = Infinity;
    const resting = this.#resting;
    this.#resting = [];
    for (const line of resting) {
      const leftMs = line.restingSinceMs + line.keeping.usableMs - nowMs;
      if (leftMs <= 0) this.parts(line);
      else {
        this.#resting.push(line);
        nextMs = Math.min(nextMs, leftMs);
      }
    }
    this.#armRest(nextMs);
  }

  // ——— what calls and lines tell ———

  touched(call: Call): void {
    this.#touched.push(call);
  }

  arrived(bytes: number): boolean {
    return this.#owner.arrived(bytes);
  }

  wrote(bytes: number): void {
    this.#owner.wrote(bytes);
  }

  cut(call: Call): void {
    this.#end(call);
    call.exchange.applicationReset(NO_ERROR);
  }

  lost(call: Call, detail: string, mayRepeat: boolean): void {
    if (!mayRepeat || !call.mayBeSentAgain || this.#isClosing) {
      this.#end(call);
      call.exchange.applicationLost(`${this.#options.who} ${detail}`);
      return;
    }
    const { line } = call;
    call.line = undefined;
    line?.leave();
    // One that was resting has been closed by the application, and the others are no younger.
    for (const other of this.#resting.splice(0)) this.parts(other);
    this.#open(call, true);
  }

  mistaken(call: Call, detail: string): void {
    call.exchange.applicationMistaken(detail);
  }

  rests(line: Line): void {
    if (this.#isClosing) {
      this.parts(line);
      return;
    }
    line.restingSinceMs = this.#options.clock.monotonic();
    this.#resting.push(line);
    this.#armRest(line.keeping.usableMs);
    const oldest = this.#resting.length > MOST_RESTING ? this.#resting.shift() : undefined;
    if (oldest !== undefined) this.parts(oldest);
  }

  parts(line: Line): void {
    this.#noRest(line);
    if (line.isParting || line.isClosed) return;
    line.isParting = true;
    const { connection } = line;
    const timer = this.#options.clock.after(PART_GRACE_MS, () => connection.abort());
    this.#parting.set(line, timer);
    connection.endWrite();
    if (this.#parting.size <= MOST_PARTING) return;
    for (const [oldest] of this.#parting) {
      this.spoilt(oldest);
      return;
    }
  }

  spoilt(line: Line): void {
    this.#noRest(line);
    this.#noPart(line);
    line.connection.abort();
  }

  #noRest(line: Line): void {
    const at = this.#resting.indexOf(line);
    if (at !== -1) this.#resting.splice(at, 1);
  }

  #noPart(line: Line): void {
    this.#parting.get(line)?.cancel();
    this.#parting.delete(line);
  }

  failed(thrown: unknown): void {
    this.#owner.failed(thrown);
  }

  turned(): void {
    this.#owner.turned();
  }

  closed(line: Line): void {
    this.#noRest(line);
    this.#noPart(line);
    this.#give();
  }
}
