import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { startInbound, type InboundStage, type StageOptions } from '../data-path.ts';
import { eventually } from '../eventually.ts';
import { startTcpServer } from '../tcp.ts';
import { TRANSLATION } from './translation.ts';

/** An application that is a Node HTTP server. */
export async function startHttpApplication(
  t: TestContext,
  serve: RequestListener,
): Promise<{ readonly address: string; readonly server: Server }> {
  const server = createServer(serve);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

/** An application that takes bytes, keeps them, and answers each time with `answer`. */
export async function startRawApplication(
  t: TestContext,
  answer: (received: string, socket: Socket) => string | Buffer | undefined,
): Promise<{ readonly address: string; readonly received: () => string; readonly connections: () => number }> {
  let all = '';
  let connections = 0;
  const { address } = await startTcpServer(t, (socket) => {
    let own = '';
    connections++;
    socket.on('data', (chunk: Buffer) => {
      own += chunk.toString('latin1');
      all += chunk.toString('latin1');
      const said = answer(own, socket);
      if (said === undefined) return;
      own = '';
      socket.write(said);
    });
    socket.on('end', () => socket.end());
  });
  return { address, received: () => all, connections: () => connections };
}

/** A sidecar with `protocol: http` before the application at `to`. */
export function startHttpInbound(
  t: TestContext,
  to: string,
  { http, listener, ...rest }: StageOptions & { readonly http?: object } = {},
): Promise<InboundStage> {
  const isByProxy = TRANSLATION === 'http-proxy' && (http === undefined || !('application' in http));
  const all = isByProxy ? { translation: TRANSLATION, ...http } : http;
  return startInbound(t, to, { ...rest, listener: { protocol: 'http', ...(all && { http: all }), ...listener } });
}

/** A connection of which all that comes is kept. */
export interface Wire {
  readonly socket: Socket;
  text(): string;
  /** Resolves when what came has `part`, or fails with what came. */
  until(part: string | RegExp): Promise<string>;
  /** Resolves when the connection is over: all that came, and the error if it was broken. */
  over(): Promise<{ readonly text: string; readonly error: string | undefined }>;
}

export function wire(socket: Socket): Wire {
  const chunks: Buffer[] = [];
  let error: string | undefined;
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', (cause: NodeJS.ErrnoException) => {
    error ??= cause.code ?? cause.message;
  });
  socket.on('end', () => socket.end());
  const text = (): string => Buffer.concat(chunks).toString('latin1');
  return {
    socket,
    text,
    until: (part) =>
      eventually(() => {
        const came = text();
        if (typeof part === 'string' ? !came.includes(part) : !part.test(came))
          throw new Error(`${part} is not in ${JSON.stringify(came)}`);
        return Promise.resolve(came);
      }),
    async over() {
      if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
      return { text: text(), error };
    },
  };
}

/** Sends bytes over a connection of the admitted peer. */
export async function send(stage: InboundStage, bytes: string | Buffer): Promise<Wire> {
  const line = wire(await stage.connect());
  line.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  return line;
}
