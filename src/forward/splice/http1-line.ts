import type { HttpLimits } from '../../config/config.ts';
import { asBuffer } from '../../lib/bytes.ts';
import { codeOf } from '../../lib/errors.ts';
import type { Fields } from '../../http1/fields.ts';
import { Keeping } from '../../http1/keep-alive.ts';
import { ResponseParts, type ResponsePartsSink } from '../../http1/response-parts.ts';
import type { Connection, ConnectionHandler } from '../../transport/connection.ts';
import { acceptOf, responseFields, responseTrailers } from '../../http2/http1-response.ts';
import { wasClosed } from '../repair.ts';
import { encodeFields } from './heads.ts';
import type { Call, CallLine, Expected } from './http1-call.ts';
import { Outbox } from './outbox.ts';

const SWITCHED = 101;
/** 100 responses that are not passed on; of those that are, the exchange counts. */
const MAX_DROPPED = 64;

/** What a line tells. */
export interface LineOwner {
  /** Bytes have come. False: nobody wants them. */
  arrived(bytes: number): boolean;
  wrote(bytes: number): void;
  /** The client takes nothing. */
  readonly clientIsFull: boolean;
  /** How long it may rest and be used again, if the application says nothing of it; undefined: any time. */
  readonly silentMs: number | undefined;
  /** The response is whole, and the request is not: the rest of it has nowhere to go. */
  cut(call: Call): void;
  /** There is no response, which is said of the application. `mayRepeat`: it may not have seen the request. */
  lost(call: Call, detail: string, mayRepeat: boolean): void;
  /** What it said is no response. */
  mistaken(call: Call, detail: string): void;
  /** Nothing is asked of it any more, and nothing under way: it may be asked the next thing. */
  rests(line: Line): void;
  /** Nothing more is asked of it: it is to be ended in order. */
  parts(line: Line): void;
  /** What is said on it would be taken for something else: it is to be broken off. */
  spoilt(line: Line): void;
  failed(thrown: unknown): void;
  turned(): void;
  closed(line: Line): void;
}

/** One connection to an application that speaks HTTP/1.1. */
export class Line implements CallLine, ConnectionHandler, ResponsePartsSink {
  readonly connection: Connection;
  readonly outbox: Outbox;
  /** What it is asked. */
  call: Call | undefined;
  isFull = false;
  isReused = false;
  isClosed = false;
  isPaused = false;
  /** It was told of its end. */
  isParting = false;
  /** When it came to rest, monotonic, also before it has said anything. */
  restingSinceMs = 0;
  readonly keeping: Keeping;
  readonly #owner: LineOwner;
  readonly #parts: ResponseParts;
  #dropsContinue = false;
  /** Those of the application that the client was not told of. */
  #dropped = 0;
  #accept: string | undefined;
  /** The application has said all that it will say. */
  #hasEnded = false;
  /** What it said was no response, or nobody asked for. */
  #isSpoilt = false;
  #isReading = false;

  constructor(owner: LineOwner, connection: Connection, limits: HttpLimits, scratch: Fields) {
    this.#owner = owner;
    this.connection = connection;
    this.keeping = new Keeping(owner.silentMs);
    this.#parts = new ResponseParts(this, limits, scratch);
    this.outbox = new Outbox((bytes) => this.#send(bytes));
  }

  get hasEnded(): boolean {
    return this.#hasEnded || this.isClosed;
  }

  expect({ method, upgrade, accept, dropsContinue }: Expected): void {
    this.#dropsContinue = dropsContinue;
    this.#dropped = 0;
    this.#accept = accept;
    this.#parts.expect({ method, minorVersion: 1, upgrade, close: false });
  }

  write(bytes: Buffer, start: number, end: number): void {
    if (end > start) this.#send(start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end));
  }

  #send(bytes: Buffer): void {
    this.#owner.wrote(bytes.length);
    if (!this.connection.write(bytes)) this.isFull = true;
  }

  endWrite(): void {
    this.connection.endWrite();
  }

  flow(): void {
    const mustPause = this.call !== undefined && (this.call.isHeldUp || this.#owner.clientIsFull);
    if (mustPause === this.isPaused || this.isClosed) return;
    this.isPaused = mustPause;
    if (mustPause) this.connection.pause();
    else this.connection.resume();
  }

  leave(): void {
    const { call } = this;
    if (call === undefined) return;
    this.call = undefined;
    const isUnasked = call.isUnsaid;
    // An end of the response that has not come yet would be taken for that of the next one.
    if (!isUnasked && (!this.#parts.isOver || !call.isSent || this.isFull)) this.#isSpoilt = true;
    if (isUnasked) this.#parts.drop();
    else this.isReused = true;
    if (!this.#isReading) this.#settle();
  }

  /** Nothing is asked of it: it rests, or ends. */
  #settle(): void {
    if (this.isClosed || this.call !== undefined) return;
    this.flow();
    if (this.#isSpoilt) this.#owner.spoilt(this);
    else if (this.#hasEnded || !this.#mayRest()) this.#owner.parts(this);
    else this.#owner.rests(this);
  }

  #mayRest(): boolean {
    const { head } = this.#parts;
    if (!this.isReused) return true;
    return this.keeping.mayRest(head.keepAlive ?? '') && !head.close && head.framing.kind !== 'close';
  }

  // ——— the connection ———

  data(raw: Uint8Array): void {
    const owner = this.#owner;
    if (!owner.arrived(raw.byteLength)) return;
    const chunk = asBuffer(raw);
    this.#isReading = true;
    try {
      this.call?.forget();
      // What nobody asked for is never the answer to the next request.
      if (this.call === undefined || this.#parts.read(chunk) < chunk.length) this.#isSpoilt = true;
    } catch (thrown) {
      // Thrown on, it would end the process, for an application to do.
      this.#isSpoilt = true;
      owner.failed(thrown);
    }
    this.#isReading = false;
    if (this.call === undefined) this.#settle();
    else this.flow();
    owner.turned();
  }

  ended(): void {
    const { call } = this;
    this.#hasEnded = true;
    if (call === undefined) this.#owner.parts(this);
    else if (!this.#parts.isOver) this.#endedWithin(call);
    this.#owner.turned();
  }

  #endedWithin(call: Call): void {
    if (this.#parts.endsWithConnection) call.exchange.responseEndedWithConnection();
    const detail = this.#parts.ended();
    if (detail !== undefined) this.#owner.lost(call, detail, true);
  }

  drained(): void {
    this.isFull = false;
    this.call?.drained();
    this.#owner.turned();
  }

  closed(error: Error | undefined): void {
    this.isClosed = true;
    const { call } = this;
    // Who has said all in another protocol may still have been told something.
    if (call !== undefined && (!this.#parts.isOver || (call.isSwitched && !call.isWhole))) {
      const code = codeOf(error);
      this.#owner.lost(call, `broke the connection${code === undefined ? '' : ` (${code})`}`, wasClosed(code));
    }
    this.#owner.closed(this);
    this.#owner.turned();
  }

  // ——— what is read ———

  headRead(ends: boolean): void {
    const { head, fields } = this.#parts;
    const { status, announced, reader } = head;
    const { call } = this;
    if (call === undefined) return;
    if (status === 100 && this.#dropsContinue) {
      if (++this.#dropped > MAX_DROPPED) this.responseRefused('too many interim responses');
      return;
    }
    const size = reader.end - reader.start;
    const isSwitched = status === SWITCHED;
    const problem = this.#switchProblem(call, status);
    if (problem !== undefined) {
      this.responseRefused(problem);
      return;
    }
    const block = encodeFields(responseFields(head, fields));
    if (isSwitched) call.exchange.responseHead({ status: 200, told: status, announced: undefined, size, block }, false);
    else call.exchange.responseHead({ status, announced, size, block }, ends);
    if (isSwitched && this.call === call) call.switched();
    if (ends) this.#over();
  }

  /** A success that is no 101 would be taken for one. */
  #switchProblem(call: Call, status: number): string | undefined {
    if (status === SWITCHED && this.#accept !== undefined && acceptOf(this.#parts.fields) !== this.#accept) {
      return 'gave a response that is not valid: 101 without the right Sec-WebSocket-Accept';
    }
    return call.asksSwitch && status >= 200 && status < 300 ? 'answered, and did not switch to what was asked for' : undefined;
  }

  contentRead(chunk: Buffer, start: number, end: number, ends: boolean): void {
    const { call } = this;
    if (call === undefined) return;
    call.tells(end - start);
    call.exchange.responseContent(chunk, start, end, ends, 0);
    if (ends) this.#over();
  }

  trailersRead(): void {
    const { head, fields } = this.#parts;
    this.call?.exchange.responseSection(responseTrailers(head.nominated, fields), true);
    this.#over();
  }

  /** All of it was told. The call goes on until the client has it. */
  #over(): void {
    const { call } = this;
    if (call !== undefined && !call.isSwitched && (!call.isWhole || call.asksSwitch)) this.#owner.cut(call);
  }

  responseRefused(detail: string): void {
    this.#isSpoilt = true;
    if (this.call !== undefined) this.#owner.mistaken(this.call, detail);
  }
}
