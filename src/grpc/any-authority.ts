import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { AnyAuthority } from '../http2/any-authority.ts';

type Done = (failure?: Error | null) => void;

/**
 * The connection of a client for a gRPC server: whatever `:authority` its requests have, the server sees one that it takes. Ends and
 * errors of each end the other.
 */
export class AnyAuthoritySocket extends Duplex {
  readonly #socket: Socket;
  readonly #authority = new AnyAuthority();

  constructor(socket: Socket) {
    super({ allowHalfOpen: true });
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.once('end', () => this.push(null));
    socket.on('error', (problem) => this.destroy(problem));
    socket.once('close', () => this.destroy());
  }

  #take(chunk: Buffer): void {
    let isRead = true;
    for (const bytes of this.#authority.read(chunk)) isRead = this.push(bytes) && isRead;
    // What comes after bytes for which the server ends the connection is not for it.
    if (this.#authority.isOver) this.#socket.removeAllListeners('data').resume();
    else if (!isRead) this.#socket.pause();
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#written(this.#socket.write(chunk), done);
  }

  override _writev(chunks: readonly { readonly chunk: Buffer }[], done: Done): void {
    this.#socket.cork();
    let hasRoom = true;
    for (const { chunk } of chunks) hasRoom = this.#socket.write(chunk);
    this.#socket.uncork();
    this.#written(hasRoom, done);
  }

  /** At once, as long as there is room, so that Node goes on with what it has next. */
  #written(hasRoom: boolean, done: Done): void {
    if (hasRoom) done();
    else this.#socket.once('drain', done);
  }

  override _final(done: Done): void {
    this.#socket.end(() => done());
  }

  override _destroy(problem: Error | null, done: Done): void {
    this.#socket.destroy();
    done(problem);
  }
}
