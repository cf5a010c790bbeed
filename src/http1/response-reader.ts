import { CHUNKED_CLOSING, CLOSING, LAST_CHUNK } from './own-answer.ts';
import { BodyScanner } from './body.ts';
import { BlockReader, framesAnew, type Fields } from './fields.ts';
import { copyFields, fieldsEnd, isHopByHop } from './hop-by-hop.ts';
import type { HeadLimits } from './request-head.ts';
import { ResponseHead, switchProblem, type Asked } from './response-head.ts';
import { findUpgrades, upgradeLines } from './upgrades.ts';

/** What the next byte from the application is a part of. `none`: nothing was asked; `whole`: nothing more was. */
export type ResponsePart = 'none' | 'head' | 'body' | 'trailers' | 'whole' | 'tunnel';

/** What is found in the application's bytes. */
export interface ResponseSink {
  /** Bytes for the client. */
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

/**
 * Finds the edges of responses, however the bytes are cut, and takes from their heads what is for us. A chunk is read out in
 * as few pieces as it can be, for which a head that has become shorter is written over its own place in it.
 */
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
  readonly #upgrades: readonly string[];
  #asked: Asked | undefined;
  #dropsContinue = false;
  /** The body has no edges of its own and gets ours. */
  #isChunking = false;

  /**
   * `fields` is room to work in, which many readers may share. `chunksUntilClose`: the client's connection has no end that
   * shows that a response is cut, so one that ends with its connection is sent in chunks, if the client knows them.
   * `upgrades`: what may be asked for besides WebSockets.
   */
  constructor(sink: ResponseSink, limits: HeadLimits, fields: Fields, chunksUntilClose: boolean, upgrades: readonly string[]) {
    this.#sink = sink;
    this.#fields = fields;
    this.#chunksUntilClose = chunksUntilClose;
    this.#upgrades = upgrades;
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

  /** Answers how many bytes were taken: all but those that nobody asked for. */
  read(chunk: Buffer): number {
    let at = 0;
    /** What has been looked at and not been read out yet begins here. */
    let from = 0;
    while (at < chunk.length) {
      switch (this.part) {
        case 'none':
        case 'whole':
          this.#out(chunk, from, at);
          this.#sink.unasked();
          return at;
        case 'head': {
          const { head } = this;
          const { reader } = head;
          const asked = this.#asked;
          if (asked === undefined) throw new Error('a response is read that nobody asked for');
          const outcome = head.read(chunk, at, asked);
          if (outcome.kind === 'more') {
            this.#out(chunk, from, at);
            return chunk.length;
          }
          const problem = outcome.kind === 'bad' ? outcome.detail : switchProblem(head, asked);
          if (problem !== undefined) {
            this.#out(chunk, from, at);
            this.#sink.responseRefused(`gave a response that is not valid: ${problem}`);
            return chunk.length;
          }
          const isInterim = head.status < 200 && head.status !== 101;
          const ours = isInterim ? EMPTY_LINE : this.#endOfHead(asked);
          if (!isInterim) this.#enterBody();
          // HTTP/1.0 knows none.
          const isForUs = isInterim && (asked.minorVersion === 0 || (head.status === 100 && this.#dropsContinue));
          if (isForUs) {
            this.#out(chunk, from, at);
            from = reader.next;
          } else if (head.isChanged || ours !== EMPTY_LINE) {
            this.#out(chunk, from, at);
            const rewritten = head.rewritten(ours);
            if (reader.bytes === chunk && rewritten.length <= reader.end - reader.start) {
              from = reader.next - rewritten.length;
              rewritten.copy(chunk, from);
            } else {
              this.#out(rewritten, 0, rewritten.length);
              from = reader.next;
            }
          } else if (reader.bytes !== chunk) {
            this.#out(chunk, from, at);
            this.#out(reader.bytes, reader.start, reader.end);
            from = reader.next;
          }
          at = reader.next;
          break;
        }
        case 'body': {
          const body = this.#body;
          const start = at;
          at = body.scan(chunk, at);
          if (this.#isChunking) {
            this.#out(chunk, from, start);
            this.#asChunk(chunk, start, at);
            from = at;
          }
          if (body.state === 'bad') {
            this.#out(chunk, from, at);
            this.#sink.responseRefused('gave a malformed chunked body');
            return chunk.length;
          }
          if (body.state === 'trailers') this.part = 'trailers';
          break;
        }
        case 'trailers': {
          const reader = this.#trailers;
          const outcome = reader.read(chunk, at);
          if (outcome === 'more') {
            this.#out(chunk, from, at);
            return chunk.length;
          }
          const fields = this.#fields;
          this.#out(chunk, from, at);
          if (outcome !== 'whole' || fields.parse(reader.bytes, reader.start, reader.end) !== undefined || framesAnew(fields)) {
            this.#sink.responseRefused('gave malformed trailers');
            return chunk.length;
          }
          this.#trailersOut(fields, reader.start);
          from = reader.next;
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
        return at;
      }
    }
    this.#out(chunk, from, at);
    return at;
  }

  /** What the head of a final response, or of a 101, ends with: what we say to the client's connection, and the empty line. */
  #endOfHead(asked: Asked): Buffer {
    const { head } = this;
    if (head.status === 101) return asked.upgrade === undefined ? EMPTY_LINE : withUpgrades([asked.upgrade], false);
    const endsWithConnection = head.framing.kind === 'close';
    this.#isChunking = this.#chunksUntilClose && endsWithConnection && asked.minorVersion === 1;
    if (this.#isChunking) return CHUNKED_CLOSING;
    const closes = this.saysClose || asked.close || endsWithConnection;
    // Only what could be asked for next (RFC 9110, section 15.5.22); other responses name it for other connections.
    const offered = head.status === 426 && head.upgrade !== undefined ? findUpgrades(head.upgrade, this.#upgrades) : [];
    if (offered.length > 0) return withUpgrades(offered, closes);
    return closes ? CLOSING : EMPTY_LINE;
  }

  #enterBody(): void {
    const { head } = this;
    this.part = head.status === 101 ? 'tunnel' : 'body';
    if (this.part === 'body') this.#body.begin(head.framing);
    this.#sink.finalHead();
  }

  #trailersOut(fields: Fields, start: number): void {
    const { nominated } = this.head;
    const end = fieldsEnd(fields, start);
    const out = Buffer.allocUnsafe(end - start + EMPTY_LINE.length);
    const at = copyFields(fields, start, end, out, 0, (field) => isHopByHop(fields, field, nominated));
    this.#out(out, 0, at + EMPTY_LINE.copy(out, at));
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
const EMPTY_LINE: Buffer = CRLF;

function withUpgrades(protocols: readonly string[], closes: boolean): Buffer {
  return Buffer.from(`${upgradeLines(protocols, closes)}\r\n`, 'latin1');
}
