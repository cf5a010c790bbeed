import { rewriteTrailers, type IdentityFields } from './identity-fields.ts';
import type { OwnStatus } from './own-answer.ts';
import { BodyScanner } from './body.ts';
import { BlockReader, type Fields } from './fields.ts';
import { RequestHead, type HeadLimits, type HeadProblem } from './request-head.ts';

/**
 * What the next byte from the client is a part of. `held`: nobody's yet, so it waits; `tunnel`: no longer HTTP; `over`:
 * nobody's any more, so it is thrown away.
 */
export type RequestPart = 'head' | 'body' | 'trailers' | 'held' | 'tunnel' | 'over';

/** What a request is refused for after its head was good. */
export type RequestProblem = 'bad_request' | 'head_too_large' | 'too_large';

export interface RequestLimits extends HeadLimits {
  /** Undefined: no limit. */
  readonly maxBodyBytes: number | undefined;
}

/** What is found in the client's bytes. Any of these may change the reader's `part`. */
export interface RequestSink {
  /** The head is whole and well formed: `reader.head`, whose bytes are valid until this returns. */
  headRead(): void;
  headRefused(problem: HeadProblem): void;
  /** A head has begun, or trailers are awaited, and they are not whole: their time runs. */
  headBegun(): void;
  /** Bytes for the application: of the body with its framing, whole trailers, or of a tunnel. */
  bodyRead(chunk: Buffer, start: number, end: number): void;
  /** The last byte was `bodyRead`. */
  requestEnded(): void;
  requestRefused(status: OwnStatus, problem: RequestProblem, detail: string): void;
}

/** Splits what a client says into requests, however the bytes are cut. */
export class RequestReader {
  part: RequestPart = 'head';
  readonly head: RequestHead;
  readonly body = new BodyScanner();
  /** Of the request that is read, with head and framing. */
  bytes = 0;
  readonly #sink: RequestSink;
  readonly #limits: RequestLimits;
  readonly #identity: IdentityFields;
  readonly #fields: Fields;
  readonly #trailers: BlockReader;

  /** `fields` is room to work in, which many readers may share. `upgrades`: what may be asked for besides WebSockets. */
  constructor(sink: RequestSink, limits: RequestLimits, identity: IdentityFields, fields: Fields, upgrades: readonly string[]) {
    this.#sink = sink;
    this.#limits = limits;
    this.#identity = identity;
    this.#fields = fields;
    this.head = new RequestHead(limits, fields, upgrades);
    this.#trailers = new BlockReader(limits.maxHeadBytes);
  }

  /** Between requests: no byte of the next one has come. */
  get isIdle(): boolean {
    return this.part === 'head' && !this.head.begun;
  }

  /** Answers how many bytes were taken: not all only if they are held. */
  read(chunk: Buffer): number {
    let at = 0;
    while (at < chunk.length) {
      switch (this.part) {
        case 'head':
          at = this.#readHead(chunk, at);
          break;
        case 'body':
          at = this.#readBody(chunk, at);
          break;
        case 'trailers':
          at = this.#readTrailers(chunk, at);
          break;
        case 'held':
          return at;
        case 'tunnel':
          this.bytes += chunk.length - at;
          this.#sink.bodyRead(chunk, at, chunk.length);
          return chunk.length;
        case 'over':
          return chunk.length;
      }
    }
    return at;
  }

  /** The head that was read is to be forwarded: its body comes next. */
  beginBody(): void {
    this.part = 'body';
    if (this.body.state !== 'done') return;
    this.part = 'held';
    this.#sink.requestEnded();
  }

  #readHead(chunk: Buffer, at: number): number {
    const { head } = this;
    const outcome = head.read(chunk, at);
    switch (outcome.kind) {
      case 'more':
        if (head.begun) this.#sink.headBegun();
        return chunk.length;
      case 'bad':
        this.bytes = 0;
        this.#sink.headRefused(outcome.problem);
        return chunk.length;
      case 'whole':
        this.bytes = head.length;
        this.body.begin(head.framing);
        this.part = 'held';
        this.#sink.headRead();
        return outcome.next;
    }
  }

  #readBody(chunk: Buffer, at: number): number {
    const { body } = this;
    const end = body.scan(chunk, at);
    if (body.state === 'bad') {
      this.#sink.requestRefused(400, 'bad_request', 'the chunked body is malformed');
      return chunk.length;
    }
    if (body.announcedBytes > (this.#limits.maxBodyBytes ?? Infinity)) {
      this.#sink.requestRefused(413, 'too_large', 'the body is too large');
      return chunk.length;
    }
    this.bytes += end - at;
    this.#sink.bodyRead(chunk, at, end);
    // What became of it may have ended everything.
    if (this.part !== 'body') return end;
    if (body.state === 'trailers') {
      this.part = 'trailers';
      if (end === chunk.length) this.#sink.headBegun();
    } else if (body.state === 'done') this.#end();
    return end;
  }

  #readTrailers(chunk: Buffer, at: number): number {
    const reader = this.#trailers;
    const outcome = reader.read(chunk, at);
    if (outcome === 'more') {
      this.#sink.headBegun();
      return chunk.length;
    }
    if (outcome === 'too_long') {
      this.#sink.requestRefused(431, 'head_too_large', 'the trailers are too long');
      return chunk.length;
    }
    const fields = this.#fields;
    const isValid = outcome === 'whole' && fields.parse(reader.bytes, reader.start, reader.end) === undefined;
    const trailers = isValid ? rewriteTrailers(fields, reader.start, this.#identity, this.head.nominated) : undefined;
    if (trailers === undefined) {
      this.#sink.requestRefused(400, 'bad_request', 'the trailers are malformed');
      return chunk.length;
    }
    this.bytes += reader.end - reader.start;
    this.body.finish();
    this.#sink.bodyRead(trailers, 0, trailers.length);
    if (this.part === 'trailers') this.#end();
    return reader.next;
  }

  #end(): void {
    this.part = 'held';
    this.#sink.requestEnded();
  }
}
