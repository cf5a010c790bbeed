/** What precedes each message: a flag and its length. */
const PREFIX_BYTES = 5;

/** What of a stream of HTTP/2 is of use here. */
interface Incoming {
  readonly readableLength: number;
  on(event: 'data', heard: (chunk: Buffer) => void): unknown;
  once(event: 'close', heard: () => void): unknown;
}

interface Unread {
  readonly stream: Incoming;
  /** Of requests, that gRPC was given and that it handed on. */
  received: number;
  taken: number;
}

/**
 * What the calls of one connection have sent that nobody has been given: requests that are not whole, and those behind one that is not taken
 * yet. gRPC keeps them, for as long as there is the stream of HTTP/2.
 */
export class UnreadRequests {
  readonly #calls = new Set<Unread>();

  /** Watches a new call of gRPC's. The function is told of each request that is handed on: its size, or undefined for all that came before it. */
  watch(call: object): (bytes: number | undefined) => void {
    const unread: Unread = { stream: streamOf(call), received: 0, taken: 0 };
    this.#calls.add(unread);
    // It was paused by gRPC, and stays so for one listener more.
    unread.stream.on('data', (chunk: Buffer) => (unread.received += chunk.length));
    unread.stream.once('close', () => this.#calls.delete(unread));
    return (bytes) => (unread.taken = bytes === undefined ? unread.received : unread.taken + bytes + PREFIX_BYTES);
  }

  bytes(): number {
    let bytes = 0;
    for (const { stream, received, taken } of this.#calls) bytes += stream.readableLength + received - taken;
    return bytes;
  }
}

/** gRPC tells neither how much it has read of a call nor when it has let go of it. */
function streamOf(call: object): Incoming {
  if ('stream' in call) return call.stream as Incoming;
  throw new Error('gRPC shows the stream of a call no longer');
}
