/** Whether a server asks for a certificate: Node does not say so, but what a client sends does. */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

const HEADER = 5;
const HANDSHAKE = 22;
const ENCRYPTED = 23;
const CLIENT_HELLO = 1;
const CERTIFICATE = 11;
/**
 * Length of a client's Finished as a record of TLS 1.3, by the hash of the cipher: message header, 32 or 48 bytes, type, tag. A client that
 * is asked sends its Certificate before it, which is shorter if it is empty, and longer if it is not.
 */
const FINISHED: ReadonlySet<number> = new Set([4 + 32 + 1 + 16, 4 + 48 + 1 + 16]);

/** Reads what a client of our settings sends in its handshake, record by record (RFC 8446 4.4.2, RFC 5246 7.4.6). Not for other clients. */
export class ClientFlight {
  /** Undefined until it is known. */
  askedForCertificate: boolean | undefined;
  #rest: Buffer = Buffer.alloc(0);

  sent(chunk: Uint8Array): void {
    if (this.askedForCertificate !== undefined) return;
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length > HEADER) {
      const length = this.#rest.readUInt16BE(HEADER - 2);
      if (this.#rest.length < HEADER + length) return;
      this.#record(this.#rest[0], this.#rest[HEADER], length);
      if (this.askedForCertificate !== undefined) return;
      this.#rest = this.#rest.subarray(HEADER + length);
    }
  }

  #record(type: number | undefined, message: number | undefined, length: number): void {
    // Up to TLS 1.2 messages are sent in the clear, each in a record of its own.
    if (type === HANDSHAKE && message !== CLIENT_HELLO) this.askedForCertificate = message === CERTIFICATE;
    if (type === ENCRYPTED) this.askedForCertificate = !FINISHED.has(length);
  }
}

/** A socket of which a flight is told what is sent over it. Each byte is carried by JavaScript, so it is for a single look at a server. */
export class WatchedSocket extends Duplex {
  readonly #below: Socket;
  readonly #flight: Pick<ClientFlight, 'sent'>;

  constructor(below: Socket, flight: Pick<ClientFlight, 'sent'>) {
    super({ allowHalfOpen: true });
    this.#below = below;
    this.#flight = flight;
    below.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) below.pause();
    });
    below.on('end', () => this.push(null));
    below.on('error', (cause) => this.destroy(cause));
    below.on('close', () => this.destroy());
  }

  override _read(): void {
    this.#below.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#flight.sent(chunk);
    this.#below.write(chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#below.end(() => done());
  }

  override _destroy(cause: Error | null, done: (error: Error | null) => void): void {
    this.#below.destroy();
    done(cause);
  }
}
