import { withLine } from '../../http1/identity-fields.ts';
import { LAST_CHUNK } from '../../http1/own-answer.ts';
import { DEFAULT_WINDOW, MAX_WINDOW } from '../../http2/frame.ts';
import { isIdempotent, KeptRequest } from '../repair.ts';
import type { Asked, Sink } from './destination.ts';
import { Half } from './half.ts';
import { encodeFields } from './heads.ts';
import type { Outbox } from './outbox.ts';
import { keyFor } from './websocket-key.ts';

/** Of a request that is sent. */
export interface Expected {
  readonly method: string;
  /** What it asks to be switched to. */
  readonly upgrade: string | undefined;
  /** What a 101 must say to it; undefined: nothing. */
  readonly accept: string | undefined;
  /** A 100 of the application's is not for the client, who had one of ours. */
  readonly dropsContinue: boolean;
}

/** The connection that a request is sent on. */
export interface CallLine {
  readonly outbox: Outbox;
  /** A write was answered with: wait until it is drained. */
  readonly isFull: boolean;
  /** It has answered before. */
  readonly isReused: boolean;
  readonly isPaused: boolean;
  /** A request is sent. */
  expect(expected: Expected): void;
  write(bytes: Buffer, start: number, end: number): void;
  /** The client has said all, on a connection that was switched to another protocol. */
  endWrite(): void;
  /** Reads on, or not. */
  flow(): void;
  /** What it was asked is nobody's any more. */
  leave(): void;
}

/** What a call tells of itself. */
export interface CallOwner {
  /** There is something to send, or to give, at the end of the turn. */
  touched(call: Call): void;
}

const REMOTE = { initialWindow: DEFAULT_WINDOW, enablesConnect: true } as const;
const CONTINUE = { status: 100, announced: undefined, size: 0, block: Buffer.from(encodeFields([[':status', '100']])) } as const;
const CRLF: Buffer = Buffer.from('\r\n', 'latin1');
const NOTHING: Buffer = Buffer.alloc(0);
/** The window of a stream is given back in parts of this size, or larger ones. */
const GIVE_FROM = DEFAULT_WINDOW >>> 1;
/** What is smaller is gathered, for the end of the turn: a frame may have one octet, and a write of its own takes hundreds. */
const GATHER_BELOW_BYTES = 4 * 1024;

/**
 * One request to an application that speaks HTTP/1.1, on a connection of its own for as long as it lasts. A stream is given as much
 * window as the application's connection has taken of it: what it has not is no more than one window.
 */
export class Call implements Sink {
  readonly exchange: Asked;
  readonly remote = REMOTE;
  /** Undefined while there is none to send on. */
  line: CallLine | undefined;
  /** One that is being opened for it. */
  opening: { abort(): void } | undefined;
  /** The client has said all. */
  isWhole = false;
  /** What it asks the application to be switched to, and whether that was done: then bytes pass. */
  #protocol: string | undefined;
  isSwitched = false;
  readonly #owner: CallOwner;
  #isBegun = false;
  /** The head, until the end of the turn in which it came: the body may go with it, or the client take it back. */
  #head: Buffer | undefined;
  #isChunked = false;
  /** The client was told to go on with the body. */
  #hasContinued = false;
  /** For as long as it may have to be sent once more. */
  #kept: KeptRequest | undefined;
  #trailers = NOTHING;
  /** What of the body is for the end of the turn, or for when the connection takes more: in pieces that cost no more than they hold. */
  #gathered: Half | undefined;
  /** Octets of the body that wait for the connection to drain, and that it has taken. */
  #waiting = 0;
  #taken = 0;
  /** Octets of the response that were told and are held. */
  #held = 0;

  constructor(owner: CallOwner, exchange: Asked) {
    this.#owner = owner;
    this.exchange = exchange;
  }

  get sendWindow(): number {
    // Said ahead of the 101, it would be the next request of an application that does not switch.
    return this.line === undefined || this.asksSwitch ? 0 : MAX_WINDOW;
  }

  /** It asks for another protocol, and has not got it. */
  get asksSwitch(): boolean {
    return this.#protocol !== undefined && !this.isSwitched;
  }

  /** The application has all of it that is HTTP. */
  get isSent(): boolean {
    return (this.isWhole && this.#gathered === undefined) || this.asksSwitch;
  }

  /** Nothing of it was written. */
  get isUnsaid(): boolean {
    return this.#head !== undefined;
  }

  /** The client holds up the response. */
  get isHeldUp(): boolean {
    return this.#held > 0;
  }

  /** A connection that has answered before closed it, and the request may be sent on another one. */
  get mayBeSentAgain(): boolean {
    return this.#kept?.isWhole === true;
  }

  // ——— what the exchange says ———

  sendBlock(_: number, block: Buffer, ends: boolean): void {
    if (this.#isBegun) this.#sendTrailers(block);
    else this.#sendHead(block, ends);
  }

  #sendHead(block: Buffer, ends: boolean): void {
    const { line, exchange } = this;
    const { request } = exchange;
    if (line === undefined || request === undefined) throw new Error('a request is sent without a connection');
    this.#isBegun = true;
    this.#isChunked = request.isChunked;
    this.isWhole = ends;
    const { method, protocol } = request;
    const key = protocol === undefined ? undefined : keyFor(protocol);
    this.#protocol = protocol;
    this.#head = key === undefined ? block : withLine(block, key.line);
    this.#hasContinued = request.expectsContinue && !ends && protocol === undefined;
    line.expect({ method, upgrade: protocol, accept: key?.accept, dropsContinue: this.#hasContinued });
    // Only who answered before may have closed without having seen the request.
    if (line.isReused && isIdempotent(method) && protocol === undefined) {
      this.#kept = new KeptRequest();
      if (!this.#kept.begin(block.length)) this.#kept = undefined;
    }
    this.#owner.touched(this);
    // One that waits for us to say so has not sent what an application could take for the next request.
    if (this.#hasContinued) exchange.responseHead(CONTINUE, false);
  }

  sendData(_: number, bytes: Buffer, start: number, end: number, ends: boolean): void {
    const size = end - start;
    const { line } = this;
    this.isWhole ||= ends;
    if (this.#kept !== undefined && size > 0 && !this.#kept.add(bytes, start, end)) this.forget();
    // What is kept says it, when there is a connection; or it is said after the 101.
    if (line === undefined || this.asksSwitch) return;
    // The beginning goes with the head.
    const isSmall = size < GATHER_BELOW_BYTES && this.#head === undefined;
    if (this.#gathered === undefined && (!isSmall || ends) && !line.isFull) {
      this.#pass(line, bytes, start, end, ends);
      return;
    }
    this.#gather(bytes, start, end, ends);
    // The exchange may be over with it, before the turn is.
    if (ends) this.#passGathered(line);
  }

  #gather(bytes: Buffer, start: number, end: number, ends: boolean): void {
    if (this.#gathered === undefined) {
      this.#gathered = new Half(MAX_WINDOW);
      this.#owner.touched(this);
    }
    this.#gathered.push(undefined, 0, bytes, start, end, ends);
  }

  #pass(line: CallLine, bytes: Buffer, start: number, end: number, ends: boolean): void {
    const size = end - start;
    if (!this.#isChunked && this.#head === undefined) line.write(bytes, start, end);
    else this.#sendParts(line, bytes, start, end, ends);
    if (line.isFull) this.#waiting += size;
    else this.#took(size);
    if (ends && this.isSwitched) line.endWrite();
  }

  #passGathered(line: CallLine): void {
    const gathered = this.#gathered;
    if (gathered === undefined || line.isFull) return;
    this.#gathered = undefined;
    gathered.flush(
      {
        sendWindow: MAX_WINDOW,
        sendData: (_, bytes, start, end, ends) => this.#pass(line, bytes, start, end, ends),
        sendBlock: () => this.#endChunks(line),
      },
      0,
    );
  }

  /** The application has agreed to the other protocol. */
  switched(): void {
    this.isSwitched = true;
    // Of a client that has said all, that is told with the last of it, or now.
    const hadSaidAll = this.isWhole;
    this.exchange.flushRequest(this);
    if (!hadSaidAll) return;
    if (this.#gathered === undefined) this.line?.endWrite();
    else this.#gathered.hasEnded = true;
  }

  /** In one write, with the head if that is still here. */
  #sendParts(line: CallLine, bytes: Buffer, start: number, end: number, ends: boolean): void {
    const { outbox } = line;
    this.#putHead(line);
    if (!this.#isChunked) outbox.bytes(bytes, start, end);
    else {
      if (end > start) {
        const size = Buffer.from(`${(end - start).toString(16)}\r\n`, 'latin1');
        outbox.bytes(size, 0, size.length);
        outbox.bytes(bytes, start, end);
        outbox.bytes(CRLF, 0, CRLF.length);
      }
      if (ends) outbox.bytes(LAST_CHUNK, 0, LAST_CHUNK.length);
    }
    outbox.flush();
  }

  #putHead({ outbox }: CallLine): void {
    const head = this.#head;
    this.#head = undefined;
    if (head !== undefined) outbox.bytes(head, 0, head.length);
  }

  /** Beside a Content-Length there is no place for them. */
  #sendTrailers(lines: Buffer): void {
    this.isWhole = true;
    if (!this.#isChunked) return;
    this.#trailers = lines;
    const { line } = this;
    if (this.#gathered !== undefined) this.#gathered.endWith(undefined, 0, lines);
    else if (line !== undefined) this.#endChunks(line);
    if (line !== undefined) this.#passGathered(line);
  }

  #endChunks(line: CallLine): void {
    const { outbox } = line;
    const trailers = this.#trailers;
    this.#putHead(line);
    outbox.bytes(LAST_CHUNK, 0, LAST_CHUNK.length - CRLF.length);
    outbox.bytes(trailers, 0, trailers.length);
    outbox.bytes(CRLF, 0, CRLF.length);
    outbox.flush();
  }

  sendWindowUpdate(): void {
    // The response is held up by what is held of it.
  }

  credit(bytes: number): void {
    this.#held -= bytes;
    // At the end of the turn: whoever says so may be in the middle of leaving.
    if (this.#held === 0 && this.line?.isPaused === true) this.#owner.touched(this);
  }

  // ——— what its owner says ———

  /** The turn is over. */
  flush(): void {
    const { line } = this;
    if (line !== undefined) this.#passGathered(line);
    const head = this.#head;
    if (line !== undefined && head !== undefined) {
      // Its body has turned out to be empty.
      if (this.isWhole && this.#isChunked) this.#endChunks(line);
      else {
        this.#head = undefined;
        line.write(head, 0, head.length);
      }
    }
    line?.flow();
    if (this.isWhole || this.#taken < GIVE_FROM) return;
    const taken = this.#taken;
    this.#taken = 0;
    this.exchange.applicationWindow(taken);
  }

  /** The connection takes more. */
  drained(): void {
    this.#took(this.#waiting);
    this.#waiting = 0;
    if (this.line !== undefined) this.#passGathered(this.line);
  }

  #took(bytes: number): void {
    this.#taken += bytes;
    if (this.#taken >= GIVE_FROM && !this.isWhole) this.#owner.touched(this);
  }

  /** So many octets of the response are told now. */
  tells(bytes: number): void {
    this.#held += bytes;
  }

  /** Sends all of it once more, as it was read and judged anew. There is no third time. */
  sendAgain(line: CallLine): void {
    const { request } = this.exchange;
    if (request === undefined) throw new Error('a request is sent again that was not read');
    const body = this.#kept?.body ?? NOTHING;
    this.forget();
    // It is in what is kept.
    this.#gathered = undefined;
    this.line = line;
    this.#head = request.block;
    line.expect({ method: request.method, upgrade: undefined, accept: undefined, dropsContinue: this.#hasContinued });
    if (body.length > 0) this.#sendParts(line, body, 0, body.length, false);
    if (this.isWhole && this.#isChunked) this.#endChunks(line);
    if (!line.isFull) this.drained();
    this.#owner.touched(this);
    this.exchange.flushRequest(this);
  }

  /** It is not sent again. */
  forget(): void {
    this.#kept?.forget();
    this.#kept = undefined;
  }
}
