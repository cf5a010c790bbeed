import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import {
  type Connection,
  type ConnectionHandler,
  type NativeStream,
  type NativeStreamHandler,
  type PeerEvidence,
  type SecureConnection,
  type WaitingHandler,
} from './connection.ts';
import { noteYoungBytes } from './garbage.ts';
import { peerChains, type ChainKind } from './peer-chains.ts';
import { writeInBatches } from './write-batch.ts';

/**
 * Plain sockets that we open read into this one buffer, all of them: a read is handed on before the next one begins.
 * It saves an allocation a read, and the buffer that each idle connection would otherwise hold.
 */
const sharedReadBuffer = Buffer.allocUnsafeSlow(256 * 1024);

/** A leaf that is larger is not read; with the session around it, so that it is a little less in truth. */
const MAX_LEAF_BYTES = 32_768;

/** A piece that is as small a part of its memory is copied rather than keeping it all while it waits. */
const SMALL_PIECE = 8;

const kConnection = Symbol('connection');
type OwnedSocket = Socket & { [kConnection]?: SocketConnection };

/** For `net.connect`: read into the shared buffer instead of emitting `data`. */
export const sharedOnRead = {
  buffer: sharedReadBuffer,
  callback: onSharedRead as (this: void, bytesWritten: number, buffer: Uint8Array) => boolean,
};

// Listeners are these few functions for all connections, not closures: memory a connection counts.
function onSharedRead(this: OwnedSocket, bytesWritten: number, buffer: Uint8Array): boolean {
  this[kConnection]?.handler?.data(buffer.subarray(0, bytesWritten));
  return true;
}
function onData(this: OwnedSocket, chunk: Uint8Array): void {
  noteYoungBytes(chunk.byteLength);
  this[kConnection]?.handler?.data(chunk);
}
function onEnd(this: OwnedSocket): void {
  this[kConnection]?.handler?.ended();
}
function onDrain(this: OwnedSocket): void {
  this[kConnection]?.handler?.drained();
}
function onError(this: OwnedSocket, error: Error): void {
  const connection = this[kConnection];
  if (connection !== undefined) connection.failure ??= error;
}
/**
 * An error of TLS after the handshake: an alert, a bad record. Node leaves such a socket open, with writes that never end; and of a
 * server's raw TLSSocket it emits this event alone, never `error`. The alert that tells the peer is on its way by now.
 */
function onTlsError(this: OwnedSocket, error: Error): void {
  const connection = this[kConnection];
  if (connection !== undefined) connection.failure ??= error;
  this.destroy();
}
function onClose(this: OwnedSocket): void {
  this[kConnection]?.finish();
}

/** Drops a socket so that the other side sees an error rather than an end. Unix sockets know no reset: there it is an end. */
export function reset(socket: Socket): void {
  if (socket.remoteFamily === undefined || isEnding(socket)) socket.destroy();
  else socket.resetAndDestroy();
}

/**
 * Its end is on its way to the kernel, behind the last byte. libuv then refuses to reset, and Node, which does not expect
 * that, neither closes the descriptor nor ever emits `close`.
 */
function isEnding(socket: Socket): boolean {
  return socket.writableEnded && !socket.writableFinished && socket.writableLength === 0;
}

/**
 * Drops a TLS connection without a close_notify, by resetting the socket that carries it; the TLS socket closes with it.
 * Never both: resetting the one and destroying the other during `secure` crashes Node 26.10 (a use after free).
 */
export function resetBelowTls(tls: TLSSocket, transport: Socket): void {
  if (transport.remoteFamily === undefined || isEnding(tls)) tls.destroy();
  else transport.resetAndDestroy();
}

/** A Node socket as a `Connection`. */
export class SocketConnection implements Connection {
  readonly remoteAddress: string;
  handler: ConnectionHandler | undefined;
  failure: Error | undefined;
  protected readonly socket: OwnedSocket;
  readonly #readsShared: boolean;
  #ahead: Uint8Array | undefined;
  #closed = false;

  /** `ahead` was read before, and comes first. */
  constructor(socket: Socket, remoteAddress: string, readsShared: boolean, ahead?: Uint8Array) {
    this.socket = socket;
    this.remoteAddress = remoteAddress;
    this.#readsShared = readsShared;
    this.#ahead = ahead;
    this.socket[kConnection] = this;
    // A socket whose errors nobody hears ends the process, so these two are there from the first moment.
    socket.on('error', onError);
    socket.on('close', onClose);
    // Likewise a TLS socket reads on its own: the end may come while its owner still connects elsewhere.
    socket.on('end', onEnd);
  }

  start(handler: ConnectionHandler): void {
    this.handler = handler;
    if (this.#closed) {
      handler.closed(this.failure);
      return;
    }
    this.socket.on('drain', onDrain);
    if (!this.#readsShared) this.socket.on('data', onData);
    // First, so that whoever pauses it at what follows is heeded: nothing comes within this call.
    this.socket.resume();
    const ahead = this.#ahead;
    if (ahead !== undefined) {
      this.#ahead = undefined;
      handler.data(ahead);
      if (this.socket.destroyed) return;
    }
    if (this.socket.readableEnded) handler.ended();
  }

  write(chunk: Uint8Array): boolean {
    const { socket } = this;
    // A closing socket would answer with an error event later; the close is on its way already.
    if (socket.destroyed || socket.writableEnded) return true;
    const mayWait = !this.consumesWritesAtOnce();
    const isBorrowed = chunk.buffer === sharedReadBuffer.buffer;
    // Written while others wait, it waits with all of the memory that it is a piece of.
    const isSmallPiece = socket.writableLength > 0 && chunk.byteLength * SMALL_PIECE < chunk.buffer.byteLength;
    return this.send(mayWait && (isBorrowed || isSmallPiece) ? ownCopy(chunk) : chunk);
  }

  endWrite(): void {
    if (!this.socket.destroyed) this.socket.end();
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  abort(): void {
    reset(this.socket);
  }

  finish(): void {
    this.#closed = true;
    this.handler?.closed(this.failure);
  }

  /** True if a write of shared bytes needs no copy: the bytes are read before it returns, and no reference is kept. */
  protected consumesWritesAtOnce(): boolean {
    return false;
  }

  protected send(chunk: Uint8Array): boolean {
    return writeInBatches(this.socket, chunk);
  }
}

/** A TLS socket after its handshake. */
export class TlsSocketConnection extends SocketConnection implements SecureConnection {
  readonly tlsVersion: string;
  readonly alpn: string | undefined;
  readonly #tls: TLSSocket;
  readonly #transport: Socket;
  #evidence: PeerEvidence | 'dropped' | undefined;
  #onReadable: (() => void) | undefined;

  /** `transport` is the socket below TLS. */
  constructor(socket: TLSSocket, transport: Socket, remoteAddress: string) {
    super(socket, remoteAddress, false);
    socket.on('_tlsError', onTlsError);
    this.#tls = socket;
    this.#transport = transport;
    this.tlsVersion = socket.getProtocol() ?? 'unknown';
    this.alpn = typeof socket.alpnProtocol === 'string' ? socket.alpnProtocol : undefined;
  }

  get serverName(): string | undefined {
    // Node's types know it only for tls.Server; `false` and `null` are for none.
    const { servername } = this.#tls as TLSSocket & { readonly servername?: unknown };
    return typeof servername === 'string' ? servername : undefined;
  }

  readPeerEvidence(): PeerEvidence {
    this.#evidence ??= readEvidence(this.#tls, this.#transport);
    if (this.#evidence === 'dropped') throw new Error('the evidence on the peer was dropped');
    return this.#evidence;
  }

  dropPeerEvidence(): void {
    this.#evidence = 'dropped';
  }

  wait(handler: WaitingHandler): void {
    const socket = this.#tls;
    this.#onReadable = (): void => {
      const { readableLength: bytes, readableHighWaterMark: most } = socket;
      // Beyond that Node reads no further, and says no more of what TLS still finds in its last read.
      if (bytes > 0) handler.kept(bytes < most ? bytes : 2 * most);
    };
    this.handler = {
      data: nothing,
      drained: nothing,
      ended: () => handler.ended(),
      closed: () => handler.closed(),
    };
    socket.on('readable', this.#onReadable);
    this.#onReadable();
    if (socket.closed) handler.closed();
    else if (socket.readableEnded) handler.ended();
  }

  override start(handler: ConnectionHandler): void {
    this.#endWait();
    super.start(handler);
  }

  #endWait(): void {
    if (this.#onReadable === undefined) return;
    this.#tls.off('readable', this.#onReadable);
    this.#onReadable = undefined;
    this.handler = undefined;
  }

  handOver(handler: NativeStreamHandler): NativeStream | undefined {
    this.#endWait();
    this.handler = {
      data: nothing,
      drained: nothing,
      ended: () => handler.ended(),
      closed: (error) => handler.closed(error),
    };
    if (this.#tls.closed) {
      handler.closed(this.failure);
      return undefined;
    }
    if (this.#tls.readableEnded) handler.ended();
    // Of a server's raw TLSSocket Node itself never says so, and its HTTP/2 would wait for it.
    Reflect.set(this.#tls, 'secureConnecting', false);
    return nativeStream(this.#tls);
  }

  override abort(): void {
    resetBelowTls(this.#tls, this.#transport);
  }

  protected override consumesWritesAtOnce(): boolean {
    // TLSWrap encrypts a buffer, or copies it, within the call; but a socket with a write under way queues the reference.
    return this.socket.writableLength === 0;
  }

  protected override send(chunk: Uint8Array): boolean {
    return this.socket.write(chunk);
  }
}

/** The stream itself, with nothing in between: what Node speaks on it costs no call of ours a chunk. */
export function nativeStream(socket: Socket): NativeStream {
  return { stream: socket, bytesRead: () => socket.bytesRead, bytesWritten: () => socket.bytesWritten };
}

/** Not a piece of Buffer's pool, either. */
function ownCopy(chunk: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(chunk.byteLength);
  copy.set(chunk);
  return copy;
}

function nothing(): void {
  // Whoever was handed the stream listens to it.
}

function readEvidence(socket: TLSSocket, transport: Socket): PeerEvidence {
  const libraryProblem = readLibraryProblem(socket);
  const kind = libraryProblem === undefined ? 'trusted' : 'stranger';
  const sentBytes = transport.bytesRead;
  // Nearly all whom the library trusts send one or two, and then this takes a third of the time of the other way.
  let chain = kind === 'trusted' && peerChains.hasPlentyOfRoom(kind, sentBytes) ? readChain(socket, kind) : undefined;
  return {
    libraryProblem,
    leafDer: chain === undefined ? readLeaf(socket, sentBytes) : chain[0],
    counted: chain && { certificates: chain.length, bytes: sizeOf(chain) },
    sentBytes,
    chainDer() {
      if (chain === undefined && peerChains.hasRoom(kind, sentBytes)) chain = readChain(socket, kind);
      return chain;
    },
  };
}

/**
 * The leaf alone, in the one form of Node's that leaves the others where they are. It decodes everything, which takes 20 ms
 * for a certificate made for that: the session, which has the leaf in it, tells first whether it is larger than any.
 */
function readLeaf(socket: TLSSocket, sentBytes: number): PeerEvidence['leafDer'] {
  if (sentBytes > MAX_LEAF_BYTES && (socket.getSession()?.length ?? 0) > MAX_LEAF_BYTES) return 'too_large';
  try {
    // A client's own has no answer (see `openTls`).
    const leaf = TLSSocket.prototype.getPeerCertificate.call(socket, false) as { readonly raw?: Uint8Array } | null;
    return leaf?.raw;
  } catch {
    // It writes out the names as well, and there are some that it cannot: a stranger's doing, and no mistake of ours.
    return 'unreadable';
  }
}

/**
 * Everything that was sent, leaf first, and none of Node's objects, which the next collections are to free. It says nothing
 * about trust, and what it holds is noted.
 */
function readChain(socket: TLSSocket, kind: ChainKind): readonly Uint8Array[] {
  const chain: Uint8Array[] = [];
  for (let sent = socket.getPeerX509Certificate(); sent !== undefined; sent = sent.issuerCertificate) chain.push(sent.raw);
  peerChains.hold(kind, chain.length, sizeOf(chain));
  return chain;
}

function sizeOf(chain: readonly Uint8Array[]): number {
  return chain.reduce((bytes, { length }) => bytes + length, 0);
}

/**
 * The only reader of OpenSSL's verification result. A raw server-side TLSSocket ignores `rejectUnauthorized` and never
 * sets `authorized`: its handle alone knows. Throws where the handle cannot tell, so that a Node that changes this lets
 * nobody in.
 */
function readLibraryProblem(socket: TLSSocket): string | undefined {
  const handle: unknown = (socket as unknown as { _handle?: unknown })._handle;
  if (typeof handle !== 'object' || handle === null || !('verifyError' in handle) || typeof handle.verifyError !== 'function') {
    throw new Error('the TLS library does not say whether it verified the peer');
  }
  const problem: unknown = handle.verifyError();
  if (problem === null) return undefined;
  if (problem instanceof Error && 'code' in problem && typeof problem.code === 'string') {
    // Node knows no code for most of what OpenSSL may say.
    return problem.code === 'UNSPECIFIED' ? `UNSPECIFIED (${problem.message})` : problem.code;
  }
  throw new Error(`the TLS library gave a verification result that cannot be read: ${typeof problem}`);
}
