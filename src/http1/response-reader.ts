import { CHUNKED_CLOSING, CLOSING, LAST_CHUNK } from './own-answer.ts';
import { BodyScanner } from './body.ts';
import { BlockReader, framesAnew, type Fields } from './fields.ts';
import type { HeadLimits } from './request-head.ts';
import { ResponseHead, type Asked } from './response-head.ts';

/** What the next byte from the application is a part of. `none`: nothing was asked; `whole`: nothing more was. */
export type ResponsePart = 'none' | 'head' | 'body' | 'trailers' | 'whole' | 'tunnel';

/** What is found in the application's bytes. */
export interface ResponseSink {
  /** Bytes for the client, as they came. */
  responseRead(chunk: Buffer, start: number, end: number): void;
  /** The head of the final response, or of a 101, is valid: `reader.head`. Its bytes have not been read out yet. */
  finalHead(): void;
  /** The last byte was `responseRead`. */
  responseWhole(): void;
  /** The application said something that nobody asked for: never the answer to the next request. */
  unasked(): void;
  /** Why, as a predicate of who answered. Bytes before it have been read out. */
  responseRefused(detail: string): void;
}

/** Finds the edges of responses, however the bytes are cut. A chunk is read out in as few pieces as it can be. */
export class ResponseReader {
  part: ResponsePart = 'none';
  /** Final responses whose head is still to come are the last of their connection, and say so. */
  saysClose = false;
  readonly head: ResponseHead;
  readonly #sink: ResponseSink;
  readonly #body = new BodyScanner();
  readonly #fields: Fields;
  readonly #trailers: BlockReader;
  readonly #chunksUntilClose: boolean;
  #asked: Asked | undefined;
  #dropsContinue = false;
  /** The body has no edges of its own and gets ours. */
  #isChunking = false;

  /**
   * `fields` is room to work in, which many readers may share. `chunksUntilClose`: the client's connection has no end that
   * shows that a response is cut, so one that ends with its connection is sent in chunks, if the client knows them.
   */
  constructor(sink: ResponseSink, limits: HeadLimits, fields: Fields, chunksUntilClose: boolean) {
    this.#sink = sink;
    this.#fields = fields;
    this.#chunksUntilClose = chunksUntilClose;
    this.head = new ResponseHead(limits, fields);
    this.#trailers = new BlockReader(limits.maxHeadBytes);
  }

  /** A request was sent. `dropsContinue`: a 100 of the application's is not for the client, who had one of ours. */
  expect(asked: Asked, dropsContinue: boolean): void {
    this.part = 'head';
    this.#asked = asked;
    this.#dropsContinue = dropsContinue;
    this.#isChunking = false;
  }

  /** The connection ended, and with it a response that has no other end. */
  ended(): void {
    if (this.#isChunking) this.#out(LAST_CHUNK, 0, LAST_CHUNK.length);
  }

  read(chunk: Buffer): void {
    let at = 0;
    /** What has been looked at and not been read out yet begins here. */
    let from = 0;
    while (at < chunk.length) {
      switch (this.part) {
        case 'none':
        case 'whole':
          this.#out(chunk, from, at);
          this.#sink.unasked();
          return;
        case 'head': {
          const { head } = this;
          const { reader } = head;
          const asked = this.#asked;
          if (asked === undefined) throw new Error('a response is read that nobody asked for');
          const outcome = head.read(chunk, at, asked);
          if (outcome.kind === 'more') {
            this.#out(chunk, from, at);
            return;
          }
          const problem = outcome.kind === 'bad' ? outcome.detail : switchProblem(head, asked);
          if (problem !== undefined) {
            this.#out(chunk, from, at);
            this.#sink.responseRefused(`gave a response that is not valid: ${problem}`);
            return;
          }
          const isInterim = head.status < 200 && head.status !== 101;
          // HTTP/1.0 knows none.
          const isForUs = isInterim && (asked.minorVersion === 0 || (head.status === 100 && this.#dropsContinue));
          this.#isChunking =
            this.#chunksUntilClose && head.framing.kind === 'close' && asked.minorVersion === 1 && !isInterim && head.status !== 101;
          if (this.#isChunking) {
            this.#out(chunk, from, at);
            this.#chunkedHead(reader);
            at = from = reader.next;
            this.#enterBody();
            break;
          }
          const isLast = this.saysClose && !isInterim && head.status !== 101 && !head.close;
          if (reader.bytes !== chunk || isForUs || isLast) {
            this.#out(chunk, from, at);
            if (!isForUs) this.#out(reader.bytes, reader.start, isLast ? reader.end - 2 : reader.end);
            if (isLast) this.#out(CLOSING, 0, CLOSING.length);
            from = reader.next;
          }
          at = reader.next;
          if (isInterim) break;
          this.#enterBody();
          break;
        }
        case 'body': {
          const body = this.#body;
          const start = at;
          at = body.scan(chunk, at);
          if (this.#isChunking) {
            this.#asChunk(chunk, start, at);
            from = at;
          }
          if (body.state === 'bad') {
            this.#out(chunk, from, at);
            this.#sink.responseRefused('gave a malformed chunked body');
            return;
          }
          if (body.state === 'trailers') this.part = 'trailers';
          break;
        }
        case 'trailers': {
          const reader = this.#trailers;
          const outcome = reader.read(chunk, at);
          if (outcome === 'more') {
            this.#out(chunk, from, at);
            return;
          }
          const fields = this.#fields;
          if (outcome !== 'whole' || fields.parse(reader.bytes, reader.start, reader.end) !== undefined || framesAnew(fields)) {
            this.#out(chunk, from, at);
            this.#sink.responseRefused('gave malformed trailers');
            return;
          }
          if (reader.bytes !== chunk) {
            this.#out(chunk, from, at);
            this.#out(reader.bytes, reader.start, reader.end);
            from = reader.next;
          }
          at = reader.next;
          this.#body.finish();
          break;
        }
        case 'tunnel':
          at = chunk.length;
          break;
      }
      if ((this.part === 'body' || this.part === 'trailers') && this.#body.state === 'done') {
        this.part = 'whole';
        this.#out(chunk, from, at);
        if (at < chunk.length) this.#sink.unasked();
        this.#sink.responseWhole();
        return;
      }
    }
    this.#out(chunk, from, at);
  }

  #enterBody(): void {
    const { head } = this;
    this.part = head.status === 101 ? 'tunnel' : 'body';
    if (this.part === 'body') this.#body.begin(head.framing);
    this.#sink.finalHead();
  }

  /** As a head of HTTP/1.1, whatever it was. */
  #chunkedHead({ bytes, start, end }: BlockReader): void {
    const head = Buffer.concat([bytes.subarray(start, end - 2), CHUNKED_CLOSING]);
    head.write('HTTP/1.1', 'latin1');
    this.#out(head, 0, head.length);
  }

  #asChunk(chunk: Buffer, start: number, end: number): void {
    if (start === end) return;
    const whole = Buffer.concat([Buffer.from(`${(end - start).toString(16)}\r\n`, 'latin1'), chunk.subarray(start, end), CRLF]);
    this.#out(whole, 0, whole.length);
  }

  #out(chunk: Buffer, start: number, end: number): void {
    if (start < end) this.#sink.responseRead(chunk, start, end);
  }
}

const CRLF = Buffer.from('\r\n', 'latin1');

/** Only who was asked for a WebSocket may begin one. */
function switchProblem(head: ResponseHead, asked: Asked): string | undefined {
  if (head.status !== 101) return undefined;
  if (!asked.upgradesToWebSocket) return '101 without being asked';
  return head.upgradesToWebSocket ? undefined : '101 to another protocol than websocket';
}
