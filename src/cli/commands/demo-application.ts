import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface DemoApplication {
  /** `127.0.0.1:PORT`. */
  readonly address: string;
  stop(): Promise<void>;
}

/** The field that has the caller's SPIFFE ID. */
export const CALLER_HEADER = 'X-Spiffe-Id';

/** A line a second, for so many seconds. */
export const TICKS = '/ticks';
const TICK_MS = 1000;
const MOST_TICKS = 40;

/** A plain HTTP application that knows nothing of TLS: it says hello to whom a field of the request names, and what it sees. */
export async function startDemoApplication(): Promise<DemoApplication> {
  const server = createServer((request, response) => {
    request.on('error', () => {});
    request.resume().on('end', () => {
      if (request.url === TICKS) tick(response);
      else response.end(describe(request));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    address: `127.0.0.1:${port}`,
    async stop() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

function tick(response: ServerResponse): void {
  response.on('error', () => {});
  let ticks = 0;
  const timer = setInterval(() => {
    ticks += 1;
    // Who does not read is told nothing meanwhile.
    if (!response.writableNeedDrain) response.write(`The time is ${new Date().toISOString()}.\n`);
    if (ticks === MOST_TICKS) response.end();
  }, TICK_MS);
  response.once('close', () => clearInterval(timer));
  response.writeHead(200, { 'content-type': 'text/plain' });
  response.flushHeaders();
}

function describe(request: IncomingMessage): string {
  const headers = Object.entries(request.headers).map(([name, value]) => `  ${name}: ${String(value)}`);
  const peer = `${request.socket.remoteAddress}:${request.socket.remotePort}`;
  return [
    `Hello, ${String(request.headers[CALLER_HEADER.toLowerCase()] ?? 'whoever you are')}. The application speaks plain HTTP, and this is what it sees:`,
    `  from ${peer}`,
    `  ${request.method} ${request.url}`,
    ...headers,
    '',
  ].join('\n');
}
