/**
 * The other side may close a connection that it keeps between requests in the moment in which a request is sent on it. What
 * is needed to send that once more is here (RFC 9110, section 9.2.2; RFC 9112, section 9.3.1).
 */

/** A connection that has rested for so long may have been closed, and the end not be read yet. */
export const RESTED_MS = 20;
/** Of one request's body: beyond it, the request is not sent again. */
const MAX_BODY_BYTES = 64 * 1024;
/** Of all requests that the process keeps at a moment: beyond it, further ones are not. */
const MAX_ALL_BYTES = 16 * 1024 * 1024;
const LEAST_BYTES = 1024;
const NOTHING: Buffer = Buffer.alloc(0);

let allBytes = 0;

/** A request that may have to be sent once more, for as long as it may: its body, as far as it has come. */
export class KeptRequest {
  /** Whether all that came was kept. */
  isWhole = false;
  #body = NOTHING;
  #length = 0;
  #counted = 0;

  /** A request is sent of whose body nothing has come yet. Its owner keeps the head, which has so many bytes. Answers `isWhole`. */
  begin(headBytes: number): boolean {
    return (this.isWhole = this.#count(headBytes));
  }

  /** More of its body has come. The chunk is the transport's, and is copied. Answers `isWhole`. */
  add(chunk: Buffer, start: number, end: number): boolean {
    const length = this.#length + end - start;
    if (length > this.#body.length && !this.#grow(length)) {
      this.forget();
      return false;
    }
    chunk.copy(this.#body, this.#length, start, end);
    this.#length = length;
    return true;
  }

  get body(): Buffer {
    return this.#body.subarray(0, this.#length);
  }

  forget(): void {
    this.isWhole = false;
    allBytes -= this.#counted;
    this.#counted = 0;
    this.#body = NOTHING;
    this.#length = 0;
  }

  /** One buffer, whatever the number of chunks: who sends byte by byte would have us hold an object for each. */
  #grow(length: number): boolean {
    if (length > MAX_BODY_BYTES) return false;
    const size = Math.min(Math.max(length, this.#body.length * 2, LEAST_BYTES), MAX_BODY_BYTES);
    if (!this.#count(size - this.#body.length)) return false;
    const grown = Buffer.allocUnsafeSlow(size);
    this.#body.copy(grown, 0, 0, this.#length);
    this.#body = grown;
    return true;
  }

  #count(bytes: number): boolean {
    if (allBytes + bytes > MAX_ALL_BYTES) return false;
    allBytes += bytes;
    this.#counted += bytes;
    return true;
  }
}

/** Asked twice, they do no more than once (RFC 9110, section 9.2.2). */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);

export function isIdempotent(method: string): boolean {
  return IDEMPOTENT.has(method);
}

/** Whether a connection that broke did so by an end (no code) or a reset of the other side: not by a time that ran out, nor by nonsense. */
export function wasClosed(code: string | undefined): boolean {
  return code === undefined || code === 'ECONNRESET' || code === 'EPIPE';
}
