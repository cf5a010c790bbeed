/**
 * The data path's only sight of sockets. Everything that judges, forwards or parses is written against these
 * interfaces; `transport/node.ts` is the adapter to Node, and tests may split bytes wherever they like.
 */

import type { Duplex } from 'node:stream';

/** Where to listen or connect. A tcp host is a name or an IP literal without brackets. */
export type Endpoint =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

/** What a connection tells its owner. No call comes before `start`, none after `closed`. */
export interface ConnectionHandler {
  /** The bytes are the transport's: pass them on with `write` before returning, or copy them. */
  data(chunk: Uint8Array): void;
  /** The other side has finished writing; it may still read. */
  ended(): void;
  /** All that was written has been handed over: go on after a `write` that returned false. */
  drained(): void;
  /** Nothing more can happen. `error` if the connection did not end in order. */
  closed(error: Error | undefined): void;
}

/** An open byte stream that both sides can half-close. */
export interface Connection {
  /** `203.0.113.7:40112`; `unix` for a Unix socket; `unknown` if it was reset before it was accepted. */
  readonly remoteAddress: string;
  /** Begins delivery; nothing is read before. An error that came earlier is delivered as `closed`. */
  start(handler: ConnectionHandler): void;
  /** Queues bytes. False asks the caller to stop until `drained`. */
  write(chunk: Uint8Array): boolean;
  /** Half-closes: what was written is sent, then the other side sees the end (in TLS, close_notify first). */
  endWrite(): void;
  pause(): void;
  resume(): void;
  /** Drops the connection at once; the other side sees a reset, so that it cannot take what it has for the whole. */
  abort(): void;
}

/** What the TLS library found out about the other side of a finished handshake. */
export interface PeerEvidence {
  /** Undefined: the chain leads to an authority of the pool. Else the library's code, such as `CERT_HAS_EXPIRED`, or its words. */
  readonly libraryProblem: string | undefined;
  /**
   * The certificate that the peer proved to have the key of; undefined if it sent none, `too_large` (over 32 KB) if it is not worth
   * reading, `unreadable` if the TLS library cannot tell it.
   */
  readonly leafDer: Uint8Array | 'too_large' | 'unreadable' | undefined;
  /** How many certificates were sent, and bytes of DER in all of them; undefined as long as nobody has counted them. */
  readonly counted: { readonly certificates: number; readonly bytes: number } | undefined;
  /** Everything that the peer sent until the handshake was done, in bytes on the wire; some of its first application data may be in it. */
  readonly sentBytes: number;
  /**
   * All certificates as the peer sent them: the leaf first by TLS's rule, the rest unordered and unchecked. To read them costs
   * memory that only comes back slowly (`peer-chains.ts`): for those for whom nothing else decides. Undefined if there is no room now.
   */
  readonly chainDer: () => readonly Uint8Array[] | undefined;
}

/** A connection as one of Node's own streams, for a protocol that Node itself speaks, such as HTTP/2. */
export interface NativeStream {
  readonly stream: Duplex;
  /** Bytes that were read from the other side so far; without TLS. */
  bytesRead(): number;
  /** Bytes that were written to the other side so far; without TLS. */
  bytesWritten(): number;
}

/** What is still told of a connection that was handed over as a stream. */
export type NativeStreamHandler = Pick<ConnectionHandler, 'ended' | 'closed'>;

/** A connection after its TLS handshake. Nothing has been read or written, and nobody has been judged. */
export interface SecureConnection extends Connection {
  /** Such as `TLSv1.3`. */
  readonly tlsVersion: string;
  /** The negotiated ALPN protocol, or undefined. */
  readonly alpn: string | undefined;
  /** The name that a client indicated (SNI): not checked. Undefined if it indicated none. */
  readonly serverName: string | undefined;
  /** Throws if the TLS library's verdict cannot be read, or was dropped: then nobody may be let in. */
  readPeerEvidence(): PeerEvidence;
  /**
   * As with an accepted connection, until `start` or `handOver`; but TLS reads as much at once as it likes, so that 128 KiB may
   * be kept. An end is told where there is nothing else left to be read.
   */
  wait(handler: WaitingHandler): void;
  /** The verdict is final: a connection that stays need not hold what it was found on. */
  dropPeerEvidence(): void;
  /**
   * Instead of `start`: who gets the stream reads and writes from here on, and `abort` alone may still be called. Undefined
   * if the connection is closed already, which the handler was told.
   */
  handOver(handler: NativeStreamHandler): NativeStream | undefined;
}

/** A connection that was accepted and not yet touched. Exactly one of `open` and `openTls` is called, once, unless it is dropped. */
export interface AcceptedConnection {
  readonly remoteAddress: string;
  /** Where it was accepted, as `remoteAddress`. Not for Unix sockets; `unknown` once it is closed. */
  readonly localAddress: string;
  /** Use it as it is. */
  open(): Connection;
  /** Answer as a TLS server. */
  openTls(options: TlsServerOptions, done: (outcome: HandshakeOutcome) => void): HandshakeInProgress;
  /**
   * Reads on while the connection waits for its turn, so that it is heard when it leaves; `KEPT_BYTES` of it are kept at
   * most, and what is beyond that stays in the kernel. May be called again, for another handler. Whichever of the other
   * methods is called then ends it, and finds what was kept ahead of the rest.
   */
  wait(handler: WaitingHandler): void;
  /** `wait` was called, and none of the other methods. */
  readonly hasWaited: boolean;
  /** Reads what comes before the rest, until the reader has enough or the other side has ended. Then use one of the other methods. */
  readAhead(reader: AheadReader): { abort(): void };
  abort(): void;
}

/** What is kept of a connection that waits, at most. */
export const KEPT_BYTES = 4096;

/** What is told of a connection that waits. Of one that has said more than is kept, nothing more is heard. */
export interface WaitingHandler {
  /** It has said something: memory of so many bytes is held for it now. */
  kept(bytes: number): void;
  /** It has ended its side, and may still read. */
  ended(): void;
  /** It is gone. */
  closed(): void;
}

/** Takes bytes off the front of a connection. What it does not take is read by whoever uses the connection next. */
export interface AheadReader {
  /** How many of the first bytes of `chunk` it takes, and needs no more; or `more`: it took them all, and goes on. */
  take(chunk: Uint8Array): number | 'more';
  /** `take` has said how many: the connection may be used. */
  enough(): void;
  /** The other side ended or broke off before. The socket may still be open. */
  ended(): void;
}

/** An opaque TLS context, made by `transport/node.ts`: certificate, key, pool of authorities, and every TLS setting. */
export interface TlsContext {
  readonly native: unknown;
}

interface TlsOptions {
  readonly context: TlsContext;
  /** Empty: none is negotiated. */
  readonly alpn: readonly string[];
}

export interface TlsServerOptions extends TlsOptions {
  /** False for what anybody may read: then there is no peer to be judged. True if left out. */
  readonly askForCertificate?: boolean;
}

export interface TlsClientOptions extends TlsOptions {
  /** Server name to indicate; undefined for none (IP literals may not be sent). */
  readonly serverName: string | undefined;
  /** Told of all that is sent until the handshake is over. For looking at a server: it makes the connection slow. */
  readonly flight?: { sent(chunk: Uint8Array): void };
}

export type HandshakeOutcome =
  | { readonly ok: true; readonly connection: SecureConnection }
  | { readonly ok: false; readonly code: string; readonly message: string };

export interface HandshakeInProgress {
  /** Gives up; `done` is not called. */
  abort(): void;
}

/** Handed to a listener's owner for each accepted connection. */
export type AcceptHandler = (accepted: AcceptedConnection) => void;

export interface BoundListener {
  /** What was bound: with the port that the system chose, where 0 was asked for. */
  readonly endpoint: Endpoint;
  /** Stops accepting; connections already accepted are not touched. Resolves when the address is free. */
  close(): Promise<void>;
}
