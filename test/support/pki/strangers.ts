/** Peers that nobody vouches for, with as many certificates as TLS lets through, as clients and as servers. */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as tlsConnect, createSecureContext, TLSSocket, type SecureContext } from 'node:tls';
import { bitString, element, integer, oid, sequence } from './der-writer.ts';
import { createTestAuthority, pemOf, type CertificateOptions } from './pki.ts';

/** A stranger's credentials: a leaf, and beside it certificates that are nothing but many. */
export interface Flight {
  readonly what: string;
  readonly certificates: number;
  readonly context: SecureContext;
}

/** OpenSSL lets through flights of 100 KiB: this many of the smallest certificates are below it. */
export const MOST_CERTIFICATES = 1000;
const TLS_BYTES_A_CERTIFICATE = 5;

/**
 * A stranger that sends so many certificates. Its leaf is as good as a stranger's can be, unless `leaf` makes it worse: the trust
 * domain is ours, dates and profile are right, and only the issuer is of its own making.
 */
export function strangerFlight(certificates: number, leaf: CertificateOptions = {}, what = 'a good leaf'): Flight {
  const forger = createTestAuthority({ subject: 'Root example.org' });
  const own = forger.issue({ id: 'spiffe://example.org/peer', ...leaf });
  const others = Array.from({ length: certificates - 1 }, (_, index) => pemOf('CERTIFICATE', smallestCertificate(index)));
  return {
    what: `${certificates === 1 ? '1 certificate' : `${certificates} certificates`}, ${what}`,
    certificates,
    // The strangers' own OpenSSL must not mind what they present.
    context: createSecureContext({ cert: own.pem + others.join(''), key: own.keyPem, ciphers: 'DEFAULT@SECLEVEL=0' }),
  };
}

/** The least that OpenSSL reads as a certificate: 66 or 67 bytes. */
export function smallestCertificate(serial: number): Buffer {
  const algorithm = sequence(oid('1.2'));
  const time = element(0x17, Buffer.from('700101000000Z'));
  const key = sequence(algorithm, bitString(Buffer.alloc(0)));
  const empty = sequence();
  return sequence(
    sequence(integer(serial % 256), algorithm, empty, sequence(time, time), empty, key),
    algorithm,
    bitString(Buffer.alloc(0)),
  );
}

/** Bytes of such a flight on the wire, without the leaf. */
export function bytesOf({ certificates }: Flight): number {
  return (certificates - 1) * (smallestCertificate(255).length + TLS_BYTES_A_CERTIFICATE);
}

/** So many handshakes with a TLS server, `atOnce` of them at a time. Each ends as soon as the server ends it. */
export async function strangersCall(port: number, flight: Flight, times: number, atOnce: number): Promise<void> {
  let left = times;
  const one = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const socket = tlsConnect({ host: '127.0.0.1', port, secureContext: flight.context, rejectUnauthorized: false });
      socket.on('error', () => undefined);
      socket.resume();
      await closing(socket);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, times) }, one));
}

/** So many handshakes of which the last record never comes. They stay as they are until the returned function is called. */
export async function strangersStall(port: number, flight: Flight, times: number): Promise<() => void> {
  const open: Socket[] = [];
  const one = async (): Promise<void> => {
    const socket = connect({ host: '127.0.0.1', port });
    open.push(socket);
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    const stalled = new WithholdsTheLast(socket);
    stalled.on('error', () => undefined);
    const tls = tlsConnect({ socket: stalled, secureContext: flight.context, rejectUnauthorized: false });
    tls.on('error', () => undefined);
    // The client believes that it is done.
    await Promise.race([once(tls, 'secureConnect'), closing(socket)]);
  };
  for (let index = 0; index < times; index++) await one();
  return () => {
    for (const socket of open) socket.destroy();
  };
}

/** Passes the records of TLS on but for the newest one, and the first at once. */
class WithholdsTheLast extends Duplex {
  readonly #below: Socket;
  #kept = Buffer.alloc(0);
  #passedFirst = false;

  constructor(below: Socket) {
    super();
    this.#below = below;
    below.on('data', (chunk: Buffer) => this.push(chunk));
    below.on('close', () => this.push(null));
  }

  override _read(): void {
    // The socket below pushes.
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#kept = Buffer.concat([this.#kept, chunk]);
    let passed = 0;
    for (;;) {
      const end = this.#endOfRecord(passed);
      const isLast = end === undefined || (this.#passedFirst && this.#endOfRecord(end) === undefined);
      if (end === undefined || isLast) break;
      this.#passedFirst = true;
      passed = end;
    }
    if (passed > 0) this.#below.write(this.#kept.subarray(0, passed));
    this.#kept = Buffer.from(this.#kept.subarray(passed));
    done();
  }

  /** Where the record at `from` ends, if all of it is there. */
  #endOfRecord(from: number): number | undefined {
    if (this.#kept.length < from + 5) return undefined;
    const end = from + 5 + this.#kept.readUInt16BE(from + 3);
    return end <= this.#kept.length ? end : undefined;
  }
}

export interface StrangeServer {
  readonly address: string;
  /** What it presents to whoever comes from now on. */
  present(flight: Flight): void;
  close(): void;
}

/** A TLS server that presents a flight to whoever connects. */
export async function startStrangeServer(first: Flight): Promise<StrangeServer> {
  let presented = first;
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    socket.on('error', () => undefined);
    const tls = new TLSSocket(socket, { isServer: true, secureContext: presented.context });
    tls.on('error', () => tls.destroy());
    tls.resume();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    present(flight) {
      presented = flight;
    },
    close() {
      for (const socket of open) socket.destroy();
      server.close();
    },
  };
}

/** So many plain connections, `atOnce` at a time, each until the other side ends it: an application that is made to call strangers. */
export async function applicationCalls(port: number, times: number, atOnce: number): Promise<void> {
  let left = times;
  const one = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const socket = connect({ host: '127.0.0.1', port });
      socket.on('error', () => undefined);
      socket.resume();
      await closing(socket);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, times) }, one));
}

async function closing(socket: Socket): Promise<void> {
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
}
