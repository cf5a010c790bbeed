import { putFrameHead, putUint32, FRAME_HEAD_BYTES } from '../../http2/frame.ts';
import { noteYoungBytes } from '../../transport/garbage.ts';

const SLAB_BYTES = 64 * 1024;

/** Memory that is written once, from its beginning to its end; what was handed to a socket is not touched again. */
interface Slab {
  readonly bytes: Buffer;
  at: number;
}

/** Slabs with room in them: as many as are written to at once, which is two or three, whatever the number of connections. */
const partlyFree: Slab[] = [];

/** Frames for one side of a connection, gathered for one write. */
export class Outbox {
  readonly #write: (bytes: Buffer) => void;
  #slab: Slab | undefined;
  #start = 0;

  constructor(write: (bytes: Buffer) => void) {
    this.#write = write;
  }

  frameHead(length: number, type: number, flags: number, stream: number): void {
    const slab = this.#withRoom(FRAME_HEAD_BYTES);
    slab.at = putFrameHead(slab.bytes, slab.at, length, type, flags, stream);
  }

  uint32(value: number): void {
    const slab = this.#withRoom(4);
    slab.at = putUint32(slab.bytes, slab.at, value);
  }

  bytes(bytes: Buffer, start: number, end: number): void {
    for (let at = start; at < end;) {
      const slab = this.#withRoom(1);
      const copied = bytes.copy(slab.bytes, slab.at, at, end);
      slab.at += copied;
      at += copied;
    }
  }

  /** Writes what is gathered. */
  flush(): void {
    const slab = this.#slab;
    if (slab === undefined) return;
    this.#slab = undefined;
    if (slab.at < SLAB_BYTES) partlyFree.push(slab);
    if (slab.at > this.#start) this.#write(slab.bytes.subarray(this.#start, slab.at));
  }

  #withRoom(bytes: number): Slab {
    let slab = this.#slab;
    if (slab !== undefined && SLAB_BYTES - slab.at >= bytes) return slab;
    this.flush();
    slab = partlyFree.pop();
    while (slab !== undefined && SLAB_BYTES - slab.at < bytes) slab = partlyFree.pop();
    if (slab === undefined) {
      slab = { bytes: Buffer.allocUnsafeSlow(SLAB_BYTES), at: 0 };
      noteYoungBytes(SLAB_BYTES);
    }
    this.#slab = slab;
    this.#start = slab.at;
    return slab;
  }
}
