import { constants, getFips } from 'node:crypto';
import { lookup } from 'node:dns/promises';
import { connect as netConnect, createServer, isIP, type Server, type Socket } from 'node:net';
import {
  connect as tlsConnect,
  createSecureContext,
  getCACertificates,
  TLSSocket,
  type DetailedPeerCertificate,
  type SecureContext,
} from 'node:tls';
import { systemClock, type Timer } from '../lib/clock.ts';
import { codeOf, messageOf, ScuteError } from '../lib/errors.ts';
import type {
  AcceptedConnection,
  AcceptHandler,
  AheadReader,
  BoundListener,
  Connection,
  Endpoint,
  HandshakeInProgress,
  HandshakeOutcome,
  NativeStream,
  TlsClientOptions,
  TlsContext,
  TlsServerOptions,
  WaitingHandler,
} from './connection.ts';
import { bindAny } from './any-address.ts';
import { WatchedSocket } from './client-flight.ts';
import { handshakeBegun, handshakeOver, TOO_MUCH_SENT, type HandshakeUnderWay } from './handshake-bytes.ts';
import { nativeStream, reset, resetBelowTls, sharedOnRead, SocketConnection, TlsSocketConnection } from './socket-connection.ts';
import { SlowReading } from './slow-reading.ts';
import { endpointOfPassed, isSameEndpoint, PassedSocketError } from './passed-socket.ts';
import { prepareUnixSocket } from './unix-socket.ts';

export interface ListenOptions {
  readonly endpoint: Endpoint;
  /** Unix sockets: permission bits and group of the file. */
  readonly mode: number;
  readonly gid?: number | undefined;
  /** The descriptor of a socket that somebody else bound there, with a mode and group of its own. */
  readonly passed?: number | undefined;
  /** Idle time before TCP keep-alive probes begin; 0 for none. */
  readonly keepAliveMs: number;
  readonly accept: AcceptHandler;
  /** What accepted connections will be used for, as far as it is known. */
  readonly use?: 'plain' | 'tls' | undefined;
  /** The listener itself failed to accept, for want of file descriptors or memory; it goes on listening. */
  readonly acceptFailed: (error: Error) => void;
}

/** Pending connections that the kernel may hold for us. */
const BACKLOG = 4096;

/** Binds and accepts. Accepted connections are not read from until their owner says how. Rejects if the address cannot be bound. */
export async function listen(options: ListenOptions): Promise<BoundListener> {
  // A stream's buffer is only used below TLS while a PROXY header is read: what is behind it stays in the kernel, but for one read.
  const buffer = options.use === 'tls' ? { highWaterMark: 1 } : {};
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true, ...buffer }, (socket) => {
    const accepted = new AcceptedSocket(socket, options.endpoint.kind);
    if (options.keepAliveMs > 0 && !isThisMachine(socket.remoteAddress)) socket.setKeepAlive(true, options.keepAliveMs);
    options.accept(accepted);
  });
  const { endpoint, passed } = options;
  if (passed !== undefined) return listenOnPassed(server, passed, options);
  if (endpoint.kind === 'tcp') {
    await bindAny({ host: endpoint.host, port: endpoint.port, backlog: BACKLOG }, (where) => bind(server, where));
    server.on('error', options.acceptFailed);
    const bound = server.address();
    if (bound === null || typeof bound === 'string') throw new Error(`${endpoint.host}:${endpoint.port} was bound to no address`);
    return { endpoint: { kind: 'tcp', host: bound.address, port: bound.port }, close: () => closeServer(server) };
  }
  const prepared = await prepareUnixSocket(endpoint.path, { mode: options.mode, gid: options.gid });
  try {
    await bind(server, { path: prepared.bindPath, backlog: BACKLOG });
    server.on('error', options.acceptFailed);
    await prepared.publish();
  } catch (cause) {
    await prepared.release();
    await closeServer(server);
    throw cause;
  }
  return {
    endpoint,
    async close() {
      await prepared.release();
      await closeServer(server);
    },
  };
}

/** It stays bound when we are gone, and what comes meanwhile waits for the next who is given it. */
async function listenOnPassed(server: Server, fd: number, { endpoint, acceptFailed }: ListenOptions): Promise<BoundListener> {
  await bind(server, { fd, backlog: BACKLOG });
  server.on('error', acceptFailed);
  const bound = await endpointOfPassed(fd, server.address());
  if (bound !== undefined && isSameEndpoint(bound, endpoint)) return { endpoint: bound, close: () => closeServer(server) };
  await closeServer(server);
  const where = bound === undefined ? 'at an address that is not known' : `at ${formatEndpoint(bound)}`;
  throw new PassedSocketError(`a socket was passed that listens ${where}, and the listener is to listen at ${formatEndpoint(endpoint)}`);
}

function formatEndpoint(endpoint: Endpoint): string {
  if (endpoint.kind === 'unix') return `unix://${endpoint.path}`;
  return endpoint.host.includes(':') ? `[${endpoint.host}]:${endpoint.port}` : `${endpoint.host}:${endpoint.port}`;
}

/** An address could not be reached. `code` is the system's, such as `ECONNREFUSED`, or `ETIMEDOUT` after our own time limit. */
export class ConnectError extends ScuteError {
  override name = 'ConnectError';
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }

  override shouldRetry(): boolean {
    return true;
  }
}

export interface ConnectOptions {
  readonly endpoint: Endpoint;
  /** For resolving and trying all addresses, together. */
  readonly timeoutMs: number;
  /** Idle time before TCP keep-alive probes begin; 0 for none. */
  readonly keepAliveMs: number;
  /** Which of `open`, `openTls` and `openStream` will be called. */
  readonly use: 'plain' | 'tls' | 'stream';
}

/** A plain connection that was opened and not yet used. */
export interface OpenedConnection {
  /** Such as `10.0.0.7:5432`: where it leads, after name resolution. */
  readonly address: string;
  open(): Connection;
  openTls(options: TlsClientOptions, done: (outcome: HandshakeOutcome) => void): HandshakeInProgress;
  /** For a protocol that Node itself speaks. Errors that nobody listens for are ignored; `close` follows each. */
  openStream(): NativeStream;
  abort(): void;
}

export type ConnectOutcome =
  | { readonly ok: true; readonly opened: OpenedConnection }
  | { readonly ok: false; readonly error: ConnectError };

/**
 * Opens a plain connection. A name is resolved now, and each of its addresses tried in turn until one accepts; `done` is
 * told once, with what happened at the last of them. Returns the way to give up, after which `done` is not called.
 */
export function connect(options: ConnectOptions, done: (outcome: ConnectOutcome) => void): { abort(): void } {
  const { endpoint, timeoutMs, keepAliveMs } = options;
  const common = {
    // Node's own protocols do not expect an end that leaves the other direction open.
    allowHalfOpen: options.use !== 'stream',
    noDelay: true,
    ...(keepAliveMs > 0 && endpoint.kind === 'tcp' && !isThisMachine(endpoint.host)
      ? { keepAlive: true, keepAliveInitialDelay: keepAliveMs }
      : {}),
    ...(options.use === 'plain' ? { onread: sharedOnRead } : {}),
  };
  let socket: Socket | undefined;
  let share: Timer | undefined;
  let finished = false;
  const giveUpAtMs = systemClock.monotonic() + timeoutMs;
  const stopTimers = (): void => {
    finished = true;
    timer.cancel();
    share?.cancel();
  };
  const finish = (outcome: ConnectOutcome): void => {
    if (finished) return;
    stopTimers();
    done(outcome);
  };
  const giveUp = (): void => {
    stopTimers();
    socket?.destroy();
  };
  const timer = systemClock.after(timeoutMs, () => {
    const text = endpoint.kind === 'unix' ? endpoint.path : formatHostPort(endpoint.host, endpoint.port);
    const error = new ConnectError('ETIMEDOUT', `${text} did not accept within ${timeoutMs} ms`);
    finish({ ok: false, error });
    socket?.destroy();
  });
  const attempt = (targets: readonly Target[]): void => {
    const [target, ...others] = targets;
    if (target === undefined || finished) return;
    const tried = netConnect({ ...target.options, ...common });
    socket = tried;
    // Nothing is read until the owner has said whether it wants bytes or TLS. A stream holds what it reads until somebody listens.
    if (options.use !== 'stream') tried.pause();
    // An address that never answers must leave time for the others.
    if (others.length > 0) {
      share = systemClock.after((giveUpAtMs - systemClock.monotonic()) / targets.length, () => {
        tried.off('error', onError);
        tried.on('error', ignore);
        tried.destroy();
        attempt(others);
      });
    }
    const onError = (cause: Error): void => {
      if (others.length > 0) {
        share?.cancel();
        attempt(others);
        return;
      }
      finish({ ok: false, error: new ConnectError(codeOf(cause) ?? 'EUNKNOWN', `${target.address}: ${cause.message}`, { cause }) });
    };
    tried.on('error', onError);
    tried.once('connect', () => {
      tried.off('error', onError);
      finish({ ok: true, opened: new OpenedSocket(tried, target.address) });
    });
  };
  if (endpoint.kind === 'unix') {
    attempt([{ address: `unix://${endpoint.path}`, options: { path: endpoint.path } }]);
  } else if (isIP(endpoint.host) !== 0) {
    attempt([tcpTarget(endpoint.host, endpoint.port)]);
  } else {
    // The system's resolver, in its order. It cannot be cancelled: an answer that comes too late is dropped.
    lookup(endpoint.host, { all: true, order: 'verbatim' }).then(
      (found) => attempt(found.map(({ address }) => tcpTarget(address, endpoint.port))),
      (cause: unknown) => {
        const message = `${JSON.stringify(endpoint.host)} cannot be resolved: ${messageOf(cause)}`;
        finish({ ok: false, error: new ConnectError(codeOf(cause) ?? 'ENOTFOUND', message, { cause }) });
      },
    );
  }
  return { abort: giveUp };
}

/** The kernel knows at once when the other side is gone, and keep-alive probes cost four system calls to set up. Undefined: a Unix socket, or gone already. */
function isThisMachine(host: string | undefined): boolean {
  return host === undefined || host.startsWith('127.') || host === '::1' || host.startsWith('::ffff:127.');
}

interface Target {
  readonly address: string;
  readonly options: { readonly host: string; readonly port: number } | { readonly path: string };
}

function tcpTarget(host: string, port: number): Target {
  return { address: formatHostPort(host, port), options: { host, port } };
}

function noPeerCertificate(): DetailedPeerCertificate {
  return {} as DetailedPeerCertificate;
}

function ignore(): void {
  // The reason was reported already.
}

class AcceptedSocket implements AcceptedConnection {
  readonly remoteAddress: string;
  #socket: Socket;
  /** Undefined unless it waited. */
  #waited: SlowReading | undefined;

  constructor(socket: Socket, kind: Endpoint['kind']) {
    this.#socket = socket;
    if (kind === 'unix') this.remoteAddress = kind;
    // Of a connection that was reset before it was accepted, the system no longer knows it.
    else this.remoteAddress = socket.remoteAddress === undefined ? 'unknown' : formatHostPort(socket.remoteAddress, socket.remotePort ?? 0);
    // While it waits, a reset must not end the process. Whoever opens it later sees the socket destroyed.
    socket.on('error', ignore);
  }

  /** Asks the system: not for every connection. */
  get localAddress(): string {
    const { localAddress, localPort } = this.#socket;
    return localAddress === undefined || localPort === undefined ? 'unknown' : formatHostPort(localAddress, localPort);
  }

  open(): Connection {
    const waited = this.#waited;
    if (waited === undefined) return new SocketConnection(this.#socket, this.remoteAddress, false);
    const ahead = waited.stop();
    waited.shareReads();
    // Until it is started, nobody would take what comes.
    this.#socket.pause();
    return new SocketConnection(this.#socket, this.remoteAddress, true, ahead);
  }

  openTls({ context, alpn, askForCertificate = true }: TlsServerOptions, done: (outcome: HandshakeOutcome) => void): HandshakeInProgress {
    // It was reset while it waited, which `wait` lets Node see: TLS on top of it would never say so.
    if (this.#socket.destroyed) return closedAlready(done);
    this.#putBack();
    const tls = new TLSSocket(this.#socket, {
      isServer: true,
      secureContext: context.native as SecureContext,
      requestCert: askForCertificate,
      // Sends the alert that clients expect when no certificate comes. On a raw socket it verifies nothing (see readLibraryProblem).
      rejectUnauthorized: askForCertificate,
      ...(alpn.length === 0 ? {} : { ALPNProtocols: [...alpn] }),
    });
    return awaitHandshake(tls, this.#socket, 'secure', this.remoteAddress, done);
  }

  get hasWaited(): boolean {
    return this.#waited !== undefined;
  }

  wait(handler: WaitingHandler): void {
    if (this.#waited === undefined) {
      this.#waited = new SlowReading(this.#socket);
      this.#socket = this.#waited.socket;
      this.#socket.on('error', ignore);
    }
    this.#waited.tell(handler);
  }

  readAhead(reader: AheadReader): { abort(): void } {
    this.#putBack();
    const socket = this.#socket;
    const stop = (): void => {
      clearImmediate(first);
      socket.off('readable', onReadable);
      socket.off('end', onEnd);
      socket.off('close', onEnd);
    };
    const onReadable = (): void => {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      const taken = reader.take(chunk);
      if (taken === 'more') return;
      stop();
      // Node hands what a socket holds to the TLS socket on top of it.
      if (taken < chunk.length) socket.unshift(chunk.subarray(taken));
      reader.enough();
    };
    const onEnd = (): void => {
      stop();
      reader.ended();
    };
    socket.on('readable', onReadable);
    socket.on('end', onEnd);
    socket.on('close', onEnd);
    socket.read(0);
    // Of what came, or happened, while it waited, there may be no event any more.
    const first = setImmediate(() => (socket.destroyed ? onEnd() : onReadable()));
    return { abort: stop };
  }

  abort(): void {
    this.#waited?.stop();
    reset(this.#socket);
  }

  /** What was kept is in the socket again, as if it had not been read. Node hands what a socket holds to the TLS socket on top of it. */
  #putBack(): void {
    const kept = this.#waited?.stop();
    this.#waited = undefined;
    if (kept !== undefined && !this.#socket.destroyed && !this.#socket.readableEnded) this.#socket.unshift(kept);
  }
}

class OpenedSocket implements OpenedConnection {
  readonly address: string;
  readonly #socket: Socket;

  constructor(socket: Socket, address: string) {
    this.address = address;
    this.#socket = socket;
  }

  open(): Connection {
    return new SocketConnection(this.#socket, this.address, true);
  }

  openStream(): NativeStream {
    this.#socket.on('error', ignore);
    return nativeStream(this.#socket);
  }

  openTls({ context, alpn, serverName, flight }: TlsClientOptions, done: (outcome: HandshakeOutcome) => void): HandshakeInProgress {
    // The TLS socket reports what happens below it; an error event here, without a listener, would end the process.
    this.#socket.on('error', ignore);
    const tls = tlsConnect({
      socket: flight === undefined ? this.#socket : new WatchedSocket(this.#socket, flight),
      secureContext: context.native as SecureContext,
      // The peer is judged after the handshake by our own rules; Node's, which compare host names, do not apply to SPIFFE.
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
      ...(serverName === undefined ? {} : { servername: serverName }),
      ...(alpn.length === 0 ? {} : { ALPNProtocols: [...alpn] }),
    });
    // Node asks for this before `secureConnect`, to compare host names. To answer, it follows issuers through our own
    // authorities until one is self-signed: for ever, if two of them issued each other. Nobody here needs the answer.
    tls.getPeerCertificate = noPeerCertificate;
    return awaitHandshake(tls, this.#socket, 'secureConnect', this.address, done);
  }

  abort(): void {
    this.#socket.on('error', ignore);
    reset(this.#socket);
  }
}

function closedAlready(done: (outcome: HandshakeOutcome) => void): HandshakeInProgress {
  const soon = setImmediate(() => done({ ok: false, code: 'ECONNRESET', message: 'the connection closed before the handshake' }));
  return { abort: () => clearImmediate(soon) };
}

function awaitHandshake(
  tls: TLSSocket,
  transport: Socket,
  event: 'secure' | 'secureConnect',
  remoteAddress: string,
  done: (outcome: HandshakeOutcome) => void,
): HandshakeInProgress {
  let failure: unknown;
  const onSecure = (): void => {
    cleanUp();
    done({ ok: true, connection: new TlsSocketConnection(tls, transport, remoteAddress) });
  };
  const onError = (cause: unknown): void => {
    failure ??= cause;
  };
  const onClose = (): void => {
    cleanUp();
    const code = codeOf(failure) ?? 'ECONNRESET';
    done({
      ok: false,
      code,
      message: failure === undefined ? 'the connection closed during the handshake' : firstLine(messageOf(failure)),
    });
  };
  const onEnd = (): void => {
    tls.destroy();
  };
  const underWay: HandshakeUnderWay = {
    transport,
    giveUp(sentBytes) {
      giveUp();
      done({ ok: false, code: TOO_MUCH_SENT, message: `${sentBytes} bytes were sent, and the handshake is not over` });
    },
  };
  const cleanUp = (): void => {
    handshakeOver(underWay);
    tls.off(event, onSecure);
    tls.off('error', onError);
    tls.off('close', onClose);
    tls.off('end', onEnd);
  };
  tls.on(event, onSecure);
  tls.on('error', onError);
  tls.on('close', onClose);
  tls.on('end', onEnd);
  const giveUp = (): void => {
    cleanUp();
    tls.on('error', ignore);
    resetBelowTls(tls, transport);
  };
  handshakeBegun(underWay);
  return { abort: giveUp };
}

/** OpenSSL's texts name the thread and its source file: only the words are of use. */
export function firstLine(message: string): string {
  const words = /^[0-9A-F]+:error:[0-9A-F]+:[^:]*:[^:]*:([^:\n]+)/.exec(message)?.[1];
  return words ?? message.split('\n', 1)[0] ?? message;
}

export interface TlsContextOptions {
  /** PEM of the chain that we present, leaf first, and of its key; undefined for a client that shows no certificate. */
  readonly own: { readonly chainPem: string; readonly keyPem: string } | undefined;
  /** PEM of every authority of every trust domain: OpenSSL's pool. May be empty, which trusts nobody. `web`: those of the public web. */
  readonly authoritiesPem: readonly string[] | 'web';
}

/**
 * The one place where TLS is configured, for both roles: TLS 1.2 with ECDHE and AEAD only, or 1.3; hybrid key exchange
 * first; no resumption and no renegotiation, so that nothing a peer showed once outlives the verdict on it.
 */
export function createTlsContext({ own, authoritiesPem }: TlsContextOptions): TlsContext {
  const native = createSecureContext({
    ...(own === undefined ? {} : { cert: own.chainPem, key: own.keyPem }),
    // Undefined, or left out, it would mean the public web's authorities.
    ca: authoritiesPem === 'web' ? webAuthoritiesPem() : [...authoritiesPem],
    // An authority of a trust bundle need not be self-signed.
    allowPartialTrustChain: true,
    minVersion: 'TLSv1.2',
    ciphers: TLS_CIPHERS,
    honorCipherOrder: true,
    ecdhCurve: TLS_GROUPS,
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  });
  return { native };
}

/** Mozilla's, as Node has them, and those of NODE_EXTRA_CA_CERTS: the same under every option of Node, which `default` is not. */
export function webAuthoritiesPem(): string[] {
  return [...getCACertificates('bundled'), ...getCACertificates('extra')];
}

export const TLS_VERSIONS = 'TLSv1.2,TLSv1.3';
/** OpenSSL's tuples: the server takes a group of an earlier tuple if the client has it, and a client sends key shares for both first ones. */
export const TLS_GROUPS = '*X25519MLKEM768/*X25519:P-256:P-384';
export const TLS_CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');
/** Whether OpenSSL uses nothing but its FIPS provider. */
export const TLS_FIPS = String(getFips() === 1);

/** `127.0.0.1:8443` or `[::1]:8443`. */
export function formatHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function bind(
  server: Server,
  options: { host: string; port: number; backlog: number } | { path: string; backlog: number } | { fd: number; backlog: number },
): Promise<void> {
  return new Promise((fulfil, reject) => {
    server.once('error', reject);
    server.listen(options, () => {
      server.off('error', reject);
      fulfil();
    });
  });
}

/** Resolves once the address is free. Connections live on: they have owners of their own. */
function closeServer(server: Server): Promise<void> {
  return new Promise((fulfil) => {
    if (!server.listening) {
      fulfil();
      return;
    }
    server.close();
    // `close` calls back only after the last connection; the handle itself is gone in the next turn.
    setImmediate(fulfil);
  });
}
