import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { once, type EventEmitter } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';

/** A plain TCP server on a free loopback port that answers each byte with the same byte, and ends when its peer ends. */
export async function startEcho(t: TestContext): Promise<{ readonly address: string; readonly connections: Set<Socket> }> {
  return startTcpServer(t, (socket) => {
    socket.pipe(socket);
  });
}

/** A plain server on a free loopback port, or on a Unix socket. Half-open connections are allowed. All is closed after the test. */
export async function startTcpServer(
  t: TestContext,
  serve: (socket: Socket) => void,
  path?: string,
): Promise<{ readonly address: string; readonly connections: Set<Socket>; readonly port: number; close(): Promise<void> }> {
  const connections = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    connections.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => connections.delete(socket));
    serve(socket);
  });
  if (path === undefined) server.listen(0, '127.0.0.1');
  else server.listen(path);
  await once(server, 'listening');
  const port = path === undefined ? (server.address() as AddressInfo).port : 0;
  const close = async (): Promise<void> => {
    for (const socket of connections) socket.destroy();
    if (!server.listening) return;
    server.close();
    // Not `close`: Node never emits it after the reset of a socket that is just ending.
    await nextTurn();
  };
  t.after(close);
  return { address: path === undefined ? `127.0.0.1:${port}` : `unix://${path}`, port, connections, close };
}

/** Says one byte, and waits for what the other side says to it. */
export async function ping(socket: Socket): Promise<void> {
  socket.write('!');
  await once(socket, 'data');
}

/** A plain client connection, open. */
export async function dial(t: TestContext, address: string): Promise<Socket> {
  const socket = dialling(t, address);
  await once(socket, 'connect');
  return socket;
}

/** A plain client connection that is being opened, and may be reset at any moment. */
export function dialling(t: TestContext, address: string): Socket {
  const port = Number(address.slice(address.lastIndexOf(':') + 1));
  const socket = address.startsWith('unix://')
    ? connect({ path: address.slice('unix://'.length), allowHalfOpen: true })
    : connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => undefined);
  t.after(() => socket.destroy());
  return socket;
}

/** All bytes until the other side ends. Unlike an async iterator, it leaves the writing side open. */
export async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(socket, 'end');
  return Buffer.concat(chunks);
}

/** Resolves when the socket is closed, whichever way: to the error's code, or undefined if it ended in order. */
export async function closed(socket: Socket): Promise<string | undefined> {
  let code: string | undefined;
  socket.on('error', (cause: NodeJS.ErrnoException) => {
    code ??= cause.code ?? cause.message;
  });
  socket.resume();
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
  return code ?? (socket.errored as { readonly code?: string } | null)?.code;
}

/** From here on the system gives out ports by itself, to whoever asks for any and to each connection. */
const FIRST_EPHEMERAL_PORT = 32_768;

/** A port of 127.0.0.1 on which nobody listens, which no connection takes meanwhile, and which no other process of the tests is given. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, FIRST_EPHEMERAL_PORT);
    const server = createServer();
    const isFree = (await isBound(server, () => server.listen(port, '127.0.0.1'))) && (await reserve(port));
    server.close();
    if (isFree) return port;
  }
}

/** Whoever is given a port may take long to bind it. Until this process ends, the same port of UDP says that it is taken. */
async function reserve(port: number): Promise<boolean> {
  const sign = createSocket('udp4');
  sign.unref();
  return isBound(sign, () => sign.bind({ port, address: '127.0.0.1', exclusive: true }));
}

function isBound(of: EventEmitter, bind: () => void): Promise<boolean> {
  return new Promise((resolve) => {
    of.once('listening', () => resolve(true)).once('error', () => resolve(false));
    bind();
  });
}
