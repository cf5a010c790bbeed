import { mkdir, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { startGo, startPython, type Peer } from '../peers.ts';
import { startNginx } from '../proxies.ts';
import { listen, temporaryFolder } from '../stage.ts';

/**
 * Sites of which a part is for nobody: `/admin` and all below it, the host `secret.example`, and that of an address, `127.0.0.2`. nginx has
 * files as well, under `/files/`. Whoever reaches these is answered `denied`, and else `open` or with a status of the server's own.
 */
export const ROUTING_SERVERS = ['nginx', 'Go ServeMux', 'Go FileServer', 'gunicorn', 'Node'] as const;
export type RoutingServerName = (typeof ROUTING_SERVERS)[number];

/** Resolves to its address. */
export async function startRoutingServer(t: TestContext, name: RoutingServerName): Promise<string> {
  switch (name) {
    case 'nginx':
      return startRoutingNginx(t);
    case 'Go ServeMux':
      return addressOf(await startGo(t, 'routes', '-protocol', 'mux'));
    case 'Go FileServer':
      return addressOf(await startGo(t, 'routes', '-protocol', 'files'));
    case 'gunicorn':
      return addressOf(await startPython(t, 'routing_site', [name]));
    case 'Node':
      return startRoutingNode(t);
  }
}

async function addressOf(peer: Peer): Promise<string> {
  return String((await peer.first('listening'))['listening']);
}

async function startRoutingNginx(t: TestContext): Promise<string> {
  const folder = await temporaryFolder(t);
  for (const [name, text] of [
    ['admin', 'denied'],
    ['', 'open'],
  ] as const) {
    await mkdir(join(folder, name), { recursive: true });
    await writeFile(join(folder, name, 'users'), text);
    await writeFile(join(folder, name, 'index.html'), text);
  }
  const answer = (text: string): string => `return 200 ${text};`;
  const common = ['default_type text/plain;', 'absolute_redirect off;', 'merge_slashes on;', 'keepalive_requests 100000;'];
  const port = await startNginx(
    t,
    (own) => [
      `listen 127.0.0.1:${own} default_server;`,
      ...common,
      `location = /admin { ${answer('denied')} }`,
      `location /admin/ { ${answer('denied')} }`,
      `location /files/ { alias ${folder}/; }`,
      `location / { ${answer('open')} }`,
    ],
    (own) => [`listen 127.0.0.1:${own};`, 'server_name secret.example 127.0.0.2;', ...common, `location / { ${answer('denied')} }`],
  );
  return `127.0.0.1:${port}`;
}

/** As frameworks for Node do: the URL of the WHATWG, with the path decoded once and slashes merged, and fields of method-override. */
async function startRoutingNode(t: TestContext): Promise<string> {
  const server = createServer((request, response) => {
    response.end(isDeniedByUrl(request) ? 'denied' : 'open');
  });
  server.keepAliveTimeout = 0;
  t.after(() => server.closeAllConnections());
  return listen(t, server);
}

function isDeniedByUrl({ method = '', url: target = '', headers }: IncomingMessage): boolean {
  const written = ['x-original-url', 'x-rewrite-url'].map((name) => headers[name]).find((value) => typeof value === 'string') ?? target;
  const overridden = ['x-http-method-override', 'x-http-method', 'x-method-override'].map((name) => headers[name]);
  if ([method, ...overridden].includes('DELETE')) return true;
  const url = URL.parse(written, URL.parse(`http://${headers.host ?? ''}`)?.href ?? 'http://none');
  if (url === null) return false;
  const path = decoded(url.pathname).replace(/\/\/+/g, '/');
  return (
    path === '/admin' ||
    path.startsWith('/admin/') ||
    ['secret.example', '127.0.0.2'].includes(url.hostname.replace(/\.$/, '').toLowerCase())
  );
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}
