/** The ids of the streams that a client opens, and what may still come of those that are over (RFC 9113, section 5.1). Pure. */
import { fault, PROTOCOL_ERROR, STREAM_CLOSED, type Fault } from './frame.ts';
import { RecentStreams } from './recent-streams.ts';

/** Streams that were closed last, of which frames may still come. */
const RECENT_STREAMS = 256;
const RECENT_RESETS = 1024;

export class ClientStreams {
  #last = 0;
  #lastTaken = 0;
  /** Of those that are closed: nothing may come any more, or something may still be on its way. */
  readonly #ended = new RecentStreams(RECENT_STREAMS);
  readonly #reset = new RecentStreams(RECENT_RESETS);

  /** The last that was taken: for GOAWAY. */
  get lastTaken(): number {
    return this.#lastTaken;
  }

  /** Whether a field section opens this stream, which is then to be taken or closed. If not, `lateSection` says what it is. */
  opens(stream: number): boolean {
    if (stream % 2 === 0 || stream <= this.#last) return false;
    this.#last = stream;
    return true;
  }

  take(stream: number): void {
    this.#lastTaken = stream;
  }

  /** A field section of a stream that is not open, and that it does not open: undefined if it may have been on its way. */
  lateSection(stream: number): Fault | undefined {
    return stream % 2 === 0 ? fault(PROTOCOL_ERROR, 'stream', 'a stream of a client with an even number') : this.lateContent(stream);
  }

  /** It is over. `wasReset`: by us, so that frames of it may still be on their way. */
  closed(stream: number, wasReset: boolean): void {
    (wasReset ? this.#reset : this.#ended).add(stream);
  }

  /** As `lateSection`, of DATA. */
  lateContent(stream: number): Fault | undefined {
    if (stream > this.#last) return IDLE;
    if (this.#reset.mayHaveHad(stream)) return undefined;
    if (this.#ended.has(stream)) return fault(STREAM_CLOSED, 'stream', 'a frame on a stream that is over');
    return fault(PROTOCOL_ERROR, 'stream', 'a stream that was passed over, or is long over');
  }

  /** As `lateSection`, of RST_STREAM and WINDOW_UPDATE, which may come of any stream that was opened once. */
  lateSign(stream: number): Fault | undefined {
    return stream > this.#last ? IDLE : undefined;
  }
}

const IDLE = fault(PROTOCOL_ERROR, 'stream', 'a frame on a stream that was not opened');
