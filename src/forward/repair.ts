/**
 * The other side may close a connection that it keeps between requests in the moment in which a request is sent on it. What
 * is needed to send that once more is here (RFC 9110, section 9.2.2; RFC 9112, section 9.3.1).
 */

/** A connection that has rested for so long may have been closed, and the end not be read yet. */
export const RESTED_MS = 20;
/** Of one request's body: beyond it, the request is not sent again. */
const MAX_BODY_BYTES = 64 * 1024;
/** Of all bodies that the process keeps at a moment. */
const MAX_ALL_BYTES = 16 * 1024 * 1024;

let allBytes = 0;

/** What came of a request's body, for as long as the request may have to be sent once more. */
export class KeptBody {
  /** Whether all that came was kept. */
  isWhole = false;
  readonly chunks: Buffer[] = [];
  #bytes = 0;

  /** A request is sent of which nothing has come yet. */
  begin(): void {
    this.isWhole = true;
  }

  add(chunk: Buffer, start: number, end: number): void {
    if (!this.isWhole) return;
    const bytes = end - start;
    if (this.#bytes + bytes > MAX_BODY_BYTES || allBytes + bytes > MAX_ALL_BYTES) {
      this.forget();
      return;
    }
    this.#bytes += bytes;
    allBytes += bytes;
    // The chunk is the transport's.
    this.chunks.push(Buffer.from(chunk.subarray(start, end)));
  }

  forget(): void {
    this.isWhole = false;
    if (this.#bytes === 0) return;
    allBytes -= this.#bytes;
    this.#bytes = 0;
    this.chunks.length = 0;
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
