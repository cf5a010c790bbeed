import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { connect, createServer, type ConnectionOptions, type TLSSocket, type TlsOptions } from 'node:tls';

/** What a peer presents: PEM, leaf first. */
export interface Presented {
  readonly cert: string;
  readonly key: string;
}

/** A TLS client that trusts anybody and presents what it is given: it is Scute's verdict that is looked at. */
export function tlsClient(t: TestContext, address: string, presented: Presented | undefined, options: ConnectionOptions = {}): TLSSocket {
  const target = address.startsWith('unix://')
    ? { path: address.slice('unix://'.length) }
    : { host: '127.0.0.1', port: Number(address.slice(address.lastIndexOf(':') + 1)) };
  // allowHalfOpen is an option of the socket below, which the types of TLS do not know.
  const halfOpen = { allowHalfOpen: true };
  const socket = connect({ ...target, ...presented, rejectUnauthorized: false, ...halfOpen, ...options });
  socket.on('error', () => undefined);
  t.after(() => socket.destroy());
  return socket;
}

/** All that the client is sent until the connection is over, and how it ended. A refusal in TLS 1.3 shows only here. */
export async function outcome(socket: TLSSocket): Promise<{ readonly text: string; readonly error: string | undefined }> {
  const chunks: Buffer[] = [];
  let error: string | undefined;
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', (cause: NodeJS.ErrnoException) => {
    error ??= cause.code ?? cause.message;
  });
  // An end that the server sends is answered, so that the socket closes.
  socket.on('end', () => socket.end());
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
  return { text: Buffer.concat(chunks).toString(), error };
}

/** A TLS server on a free port that asks for a certificate and accepts any. */
export async function tlsServer(
  t: TestContext,
  presented: Presented,
  serve: (socket: TLSSocket) => void,
  options: TlsOptions = {},
): Promise<{ readonly address: string; readonly connections: ReadonlySet<Socket>; readonly close: () => Promise<void> }> {
  // Those below TLS: a handshake that never ends is open too.
  const connections = new Set<Socket>();
  const server = createServer({ ...presented, requestCert: true, rejectUnauthorized: false, allowHalfOpen: true, ...options }, (socket) => {
    socket.on('error', () => undefined);
    serve(socket);
  });
  server.on('connection', (socket: Socket) => {
    connections.add(socket);
    socket.on('close', () => connections.delete(socket));
  });
  server.on('tlsClientError', () => undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = async (): Promise<void> => {
    for (const socket of connections) socket.destroy();
    if (!server.listening) return;
    server.close();
    await nextTurn();
  };
  t.after(close);
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, connections, close };
}
