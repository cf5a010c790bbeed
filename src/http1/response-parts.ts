import { BodyScanner, type ContentSink } from './body.ts';
import { BlockReader, framesAnew, type Fields } from './fields.ts';
import type { HeadLimits } from './request-head.ts';
import { ResponseHead, switchProblem, type Asked } from './response-head.ts';

/** What of a response is told, in order. */
export interface ResponsePartsSink {
  /**
   * A head is valid: `parts.head`, with the fields in the room that the reader was given. `ends`: of a final one, nothing follows. After a
   * 101, everything is content until the connection ends.
   */
  headRead(ends: boolean): void;
  /** Content, without what is around it in chunks. */
  contentRead(chunk: Buffer, start: number, end: number, ends: boolean): void;
  /** They are in the room that the reader was given, and end the response. */
  trailersRead(): void;
  /** Why it is none, as a predicate of who answered. */
  responseRefused(detail: string): void;
}

const CUT = 'ended within its response';

/**
 * Finds what a response says, however its bytes are cut, for a client of another protocol. What is read, and what is refused, is as
 * `ResponseReader` has it, which keeps the bytes.
 */
export class ResponseParts implements ContentSink {
  /** Nothing more is read of it: it is whole, or refused. */
  isOver = true;
  readonly head: ResponseHead;
  readonly fields: Fields;
  readonly #sink: ResponsePartsSink;
  readonly #body = new BodyScanner();
  readonly #trailers: BlockReader;
  #part: 'head' | 'body' | 'trailers' | 'tunnel' = 'head';
  #asked: Asked | undefined;
  /** Content that was found and not told: it may be the last. */
  #start = 0;
  #end = 0;

  /** `fields` is room to work in, which many readers may share. */
  constructor(sink: ResponsePartsSink, limits: HeadLimits, fields: Fields) {
    this.#sink = sink;
    this.fields = fields;
    this.head = new ResponseHead(limits, fields);
    this.#trailers = new BlockReader(limits.maxHeadBytes);
  }

  /** A request was sent. */
  expect(asked: Asked): void {
    this.#asked = asked;
    this.#part = 'head';
    this.isOver = false;
  }

  /** What was to be sent was not. */
  drop(): void {
    this.isOver = true;
  }

  /** It ends with its connection, as far as is known. */
  get endsWithConnection(): boolean {
    return this.#part === 'body' && this.head.framing.kind === 'close';
  }

  /** The connection ended in order. Answers why that is no end of a response. */
  ended(): string | undefined {
    if (!this.endsWithConnection && this.#part !== 'tunnel')
      return this.#part === 'head' ? 'closed the connection before it answered' : CUT;
    this.isOver = true;
    this.#sink.contentRead(NOTHING, 0, 0, true);
    return undefined;
  }

  /** Answers how many bytes were taken: what is left then, nobody asked for. */
  read(chunk: Buffer): number {
    let at = 0;
    while (at < chunk.length && !this.isOver) {
      if (this.#part === 'head') at = this.#readHead(chunk, at);
      else if (this.#part === 'body') at = this.#readBody(chunk, at);
      else if (this.#part === 'tunnel') {
        this.chunkContent(chunk, at, chunk.length);
        at = chunk.length;
      } else at = this.#readTrailers(chunk, at);
    }
    this.#tell(chunk, false);
    return at;
  }

  #readHead(chunk: Buffer, from: number): number {
    const { head } = this;
    const asked = this.#asked;
    if (asked === undefined) throw new Error('a response is read that nobody asked for');
    const outcome = head.read(chunk, from, asked);
    if (outcome.kind === 'more') return chunk.length;
    if (outcome.kind === 'bad') return this.#refuse(chunk, `gave a response that is not valid: ${outcome.detail}`);
    const problem = switchProblem(head, asked);
    if (problem !== undefined) return this.#refuse(chunk, `gave a response that is not valid: ${problem}`);
    const { next } = head.reader;
    if (head.status === 101) this.#part = 'tunnel';
    if (head.status < 200) {
      this.#sink.headRead(false);
      return next;
    }
    this.#part = 'body';
    this.#body.begin(head.framing);
    const ends = this.#body.state === 'done';
    this.isOver = ends;
    this.#sink.headRead(ends);
    return next;
  }

  #readBody(chunk: Buffer, from: number): number {
    const body = this.#body;
    const { framing } = this.head;
    const at = body.scan(chunk, from, this);
    if (framing.kind !== 'chunked') this.chunkContent(chunk, from, at);
    if (body.state === 'bad') return this.#refuse(chunk, 'gave a malformed chunked body');
    if (body.state === 'trailers') this.#part = 'trailers';
    if (body.state !== 'done') return at;
    this.isOver = true;
    this.#tell(chunk, true);
    return at;
  }

  #readTrailers(chunk: Buffer, from: number): number {
    const reader = this.#trailers;
    const outcome = reader.read(chunk, from);
    if (outcome === 'more') return chunk.length;
    const { fields } = this;
    if (outcome !== 'whole' || fields.parse(reader.bytes, reader.start, reader.end) !== undefined || framesAnew(fields)) {
      return this.#refuse(chunk, 'gave malformed trailers');
    }
    this.isOver = true;
    if (fields.count === 0) this.#tell(chunk, true);
    else {
      this.#tell(chunk, false);
      if (this.#asked !== undefined) this.#sink.trailersRead();
    }
    return reader.next;
  }

  /** Of one chunk of the body; the one before is told, for it is not the last. */
  chunkContent(chunk: Buffer, start: number, end: number): void {
    if (start === end) return;
    if (this.#end === start) {
      this.#end = end;
      return;
    }
    this.#tell(chunk, false);
    this.#start = start;
    this.#end = end;
  }

  #tell(chunk: Buffer, ends: boolean): void {
    const start = this.#start;
    const end = this.#end;
    this.#start = 0;
    this.#end = 0;
    if (end > start || ends) this.#sink.contentRead(chunk, start, end, ends);
  }

  #refuse(chunk: Buffer, detail: string): number {
    this.isOver = true;
    this.#start = 0;
    this.#end = 0;
    this.#sink.responseRefused(detail);
    return chunk.length;
  }
}

const NOTHING: Buffer = Buffer.alloc(0);
