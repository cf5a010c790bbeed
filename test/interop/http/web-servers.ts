import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { TestContext } from 'node:test';
import { startGo, startPython, type Peer } from '../peers.ts';
import { startNginx } from '../proxies.ts';
import { listen } from '../stage.ts';

/** A request as a server took it. */
export interface SeenRequest {
  readonly method: string;
  readonly target: string;
  readonly bytes: number;
  readonly sha256: string;
  /** False if the server knew that the body was broken off. */
  readonly whole: boolean;
  /** Names as the application sees them: where that is CGI, without `HTTP_`. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly trailers: readonly (readonly [name: string, value: string])[];
}

export interface WebServer {
  readonly address: string;
  /** Every request so far. */
  readonly seen: () => readonly SeenRequest[];
}

export const WEB_SERVERS = ['Node', 'Go', 'gunicorn', 'waitress', 'uvicorn', 'nginx'] as const;
export type WebServerName = (typeof WEB_SERVERS)[number];

/** An application on a server that we did not write. It answers each request with 200 and a body, and tells what it saw. */
export async function startWebServer(t: TestContext, name: WebServerName): Promise<WebServer> {
  switch (name) {
    case 'Node':
      return startNode(t);
    case 'Go':
      return told(await startGo(t, 'web'));
    case 'gunicorn':
    case 'waitress':
    case 'uvicorn':
      return told(await startPython(t, 'web_server', [name]));
    case 'nginx': {
      // Reads and writes each request anew: what the server behind it sees is what nginx took it for.
      const behind = await startNode(t);
      const forwarding = [`proxy_pass http://${behind.address};`, 'proxy_http_version 1.1;', 'proxy_request_buffering off;'];
      const port = await startNginx(t, (own) => [`listen 127.0.0.1:${own};`, 'location / {', ...forwarding, '}']);
      return { address: `127.0.0.1:${port}`, seen: behind.seen };
    }
  }
}

async function told(peer: Peer): Promise<WebServer> {
  const { listening } = await peer.first('listening');
  return { address: String(listening), seen: () => peer.said().flatMap(({ request }) => (request as SeenRequest | undefined) ?? []) };
}

async function startNode(t: TestContext): Promise<WebServer> {
  const seen: SeenRequest[] = [];
  const server = createServer((request, response) => {
    const hash = createHash('sha256');
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      hash.update(chunk);
      bytes += chunk.length;
    });
    request.on('error', () => undefined);
    request.on('close', () => {
      const { method = '', url: target = '', complete: whole, rawHeaders, rawTrailers } = request;
      seen.push({ method, target, bytes, sha256: hash.digest('hex'), whole, fields: pairs(rawHeaders), trailers: pairs(rawTrailers) });
    });
    request.on('end', () => response.end('seen\n'));
  });
  const address = await listen(t, server);
  t.after(() => server.closeAllConnections());
  return { address, seen: () => seen };
}

function pairs(raw: readonly string[]): [string, string][] {
  return raw.flatMap((name, index): [string, string][] => (index % 2 === 0 ? [[name, raw[index + 1] ?? '']] : []));
}
