import { createServer, STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { SocketConfig } from '../config/config.ts';
import type { Problem } from './api-types.ts';
import { formatAddress, type Address } from '../config/units.ts';
import { codeOf, messageOf, ScuteError } from '../lib/errors.ts';
import type { Service } from '../lib/service.ts';
import type { StatusRefusal } from '../telemetry/log/records.ts';
import { bindAny } from '../transport/any-address.ts';
import { prepareUnixSocket, type PreparedUnixSocket } from '../transport/unix-socket.ts';
import { crossSiteProblem, isHostAllowed } from './guard.ts';

export interface Reply {
  readonly status: number;
  readonly body: string;
  /** `text/plain; charset=utf-8` if absent. */
  readonly contentType?: string | undefined;
  /** Set on what is refused: it is counted. */
  readonly refused?: { readonly reason: StatusRefusal; readonly detail: string } | undefined;
  /** Beside, or instead of, those that every answer has. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Instead of the body: an answer that goes on. It is handed over with its head sent, and belongs to nobody else until it is closed. */
  readonly stream?: ((response: ServerResponse) => void) | undefined;
}

/** What a route may know of a request that was let through. */
export interface Query {
  readonly search: URLSearchParams;
  /** The parsed JSON body; undefined for an empty one, and for GET. */
  readonly body: unknown;
}

export type Respond = (query: Query) => Reply | Promise<Reply>;

/**
 * By path, then by method. GET answers HEAD too. All but GET change state, and are guarded as such: no page of another site may ask for
 * it. So is everything below `GUARDED`.
 */
export type Routes = Readonly<Record<string, Readonly<Partial<Record<'GET' | 'POST' | 'PUT', Respond>>>>>;

export interface HttpServiceOptions {
  readonly name: string;
  readonly socket: SocketConfig;
  /** Names that requests may be addressed to, besides IP literals and `localhost`. */
  readonly allowedHosts: readonly string[];
  readonly routes: Routes;
  /** Beyond them the oldest goes. `MOST_CONNECTIONS` if left out. */
  readonly maxConnections?: number | undefined;
  /** Of them, how many are kept for answers that go on, and may be no more. None if left out. */
  readonly maxStreams?: number | undefined;
  /** How long a client may be silent, or not read its answer, in milliseconds. 15 s if left out. */
  readonly idleTimeoutMs?: number | undefined;
  /** A request was refused. */
  readonly refused?: (reason: StatusRefusal, detail: string) => void;
}

/** What a page of our own reads: a path below it is refused to those of others, and its refusals are JSON. */
const GUARDED = '/api/';

/** More than these nobody needs, however many descriptors there are. */
export const MOST_CONNECTIONS = 128;
/** Pages that listen to what changes. */
const MOST_STREAMS = 16;

/** Of so many connections, how many may be answers that go on. */
export function streamsAmong(maxConnections: number): number {
  return Math.min(MOST_STREAMS, Math.floor(maxConnections / 8));
}

export interface HttpService extends Service {
  /** Open now. */
  connections(): number;
  /** Where it is bound; undefined before `start`. A port of 0 has become the real one. */
  address(): Address | undefined;
}

/** A status listener could not be bound. */
export class HttpListenError extends ScuteError {
  override name = 'HttpListenError';
  readonly code = 'ERR_HTTP_LISTEN';
}

const TOO_MANY_STREAMS = ['too_many_streams', 'as many pages listen as may: close one, or ask again later'] as const;
const MAX_BODY_BYTES = 16_384;
const MAX_HEADER_BYTES = 8192;
const HEADERS_TIMEOUT_MS = 5000;
const REQUEST_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 15_000;

/** A small HTTP server for status and control. It trusts neither the network nor the user's own browser. */
export function createHttpService(options: HttpServiceOptions): HttpService {
  const allowedHosts = new Set(options.allowedHosts.map((host) => host.toLowerCase()));
  let server: Server | undefined;
  let unixSocket: PreparedUnixSocket | undefined;
  let bound: Address | undefined;
  let stopped: Promise<void> | undefined;
  const open = new Set<Socket>();
  const streams = new Set<ServerResponse>();
  /** Being made or sent. */
  const answers = new Set<ServerResponse>();
  const maxStreams = options.maxStreams ?? 0;
  const idleTimeoutMs = options.idleTimeoutMs ?? IDLE_TIMEOUT_MS;

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { socket } = request;
    // Nothing comes after an answer that goes on, nor is done; asked in one breath, both get here before there is an answer.
    const isAfterStream = (): boolean => [...streams].some((stream) => stream.req.socket === socket);
    if (isAfterStream()) {
      socket.destroy();
      return;
    }
    answers.add(response);
    response.once('close', () => answers.delete(response));
    if (stopped !== undefined) response.setHeader('connection', 'close');
    // Nothing moves while an answer is made, and the client is not to blame for it.
    socket.setTimeout(0);
    const asked = await answer(request, response, options.routes, allowedHosts).catch((): Reply => plain(500, 'internal error'));
    socket.setTimeout(idleTimeoutMs);
    if (isAfterStream()) {
      socket.destroy();
      return;
    }
    const reply = asked.stream !== undefined && streams.size >= maxStreams ? refuseInJson(503, ...TOO_MANY_STREAMS) : asked;
    if (reply.refused !== undefined) options.refused?.(reply.refused.reason, reply.refused.detail);
    if (reply.stream === undefined || request.method === 'HEAD' || stopped !== undefined || response.destroyed) {
      send(request, response, reply);
      return;
    }
    // From here on it counts among the streams: it can neither push a probe out, nor be pushed out by one.
    open.delete(socket);
    streams.add(response);
    response.once('close', () => streams.delete(response));
    response.writeHead(reply.status, { ...headersOf(reply), connection: 'close' });
    reply.stream(response);
  };

  /** Of what is no request, so that there is nothing to answer it by: Node knows only the connection. */
  const refuseUnread = (socket: Duplex, reply: Reply): void => {
    if (reply.refused !== undefined) options.refused?.(reply.refused.reason, reply.refused.detail);
    // Whatever was being answered is cut off, and not mixed with this.
    if (socket.writable && 'bytesWritten' in socket && socket.bytesWritten === 0) socket.write(unread(reply));
    socket.destroy();
  };

  return {
    name: options.name,
    address: () => bound,
    connections: () => open.size + streams.size,
    async start(signal) {
      signal.throwIfAborted();
      const { listen } = options.socket;
      server = createServer({
        maxHeaderSize: MAX_HEADER_BYTES,
        headersTimeout: HEADERS_TIMEOUT_MS,
        requestTimeout: REQUEST_TIMEOUT_MS,
        connectionsCheckingInterval: HEADERS_TIMEOUT_MS,
        keepAliveTimeout: idleTimeoutMs,
        // Answered by us, with the other rules on Host.
        requireHostHeader: false,
        insecureHTTPParser: false,
      });
      server.setTimeout(idleTimeoutMs);
      server.on('request', (request, response) => void handle(request, response));
      // Whatever else is expected of us: RFC 9110, section 10.1.1, lets us not know it.
      server.on('checkExpectation', (request, response) => void handle(request, response));
      server.on('connect', (_, socket) => refuseUnread(socket, refuseInText(405, 'bad_method', 'method not allowed')));
      server.on('clientError', (error, socket) => refuseUnread(socket, refusalOf(error)));
      keepNewest(server, open, (options.maxConnections ?? MOST_CONNECTIONS) - maxStreams);
      try {
        if (listen.kind === 'unix') {
          unixSocket = await prepareUnixSocket(listen.path, { mode: options.socket.socketMode, gid: options.socket.socketGid });
          await listening(server, { path: unixSocket.bindPath });
          await unixSocket.publish();
          bound = listen;
        } else {
          const open = server;
          await bindAny({ host: listen.host, port: listen.port }, (where) => listening(open, where));
          const address = server.address();
          if (typeof address !== 'object' || address === null) throw new Error('it is bound to no address');
          bound = { ...listen, host: listen.host === '::' ? address.address : listen.host, port: address.port };
        }
      } catch (cause) {
        await closeServer(server, unixSocket, AbortSignal.abort());
        const why = codeOf(cause) === 'EADDRINUSE' ? 'the address is in use' : messageOf(cause);
        throw new HttpListenError(`${options.name} cannot listen on ${formatAddress(listen)}: ${why}`, { cause });
      }
      // Failing to accept one (no file descriptor left) is no reason to stop; the next may work.
      server.on('error', () => undefined);
    },
    stop(deadline) {
      stopped ??= server === undefined ? Promise.resolve() : closeServer(server, unixSocket, deadline);
      // Who has not asked yet, or only half, is not waited for: it could be slow on purpose.
      const asked = new Set([...answers].filter(({ req }) => req.complete).map(({ req }) => req.socket));
      for (const socket of open) if (!asked.has(socket)) socket.destroy();
      // They would go on for ever. Who does not read is not waited for.
      for (const stream of streams) {
        if (stream.writableNeedDrain) stream.destroy();
        else stream.end();
      }
      return stopped;
    },
  };
}

function listening(server: Server, where: { path: string } | { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

async function closeServer(server: Server, unixSocket: PreparedUnixSocket | undefined, deadline: AbortSignal): Promise<void> {
  await unixSocket?.release();
  if (!server.listening) return;
  const force = (): void => server.closeAllConnections();
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
    if (deadline.aborted) force();
    else deadline.addEventListener('abort', force, { once: true });
  });
  deadline.removeEventListener('abort', force);
}

/** Beyond the limit the oldest connection goes, so that idle strangers cannot keep a health probe out. */
function keepNewest(server: Server, open: Set<Socket>, maxConnections: number): void {
  server.on('connection', (socket) => {
    for (const oldest of open) {
      if (open.size < maxConnections) break;
      open.delete(oldest);
      oldest.destroy();
    }
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  });
}

/** Every reason not to answer, in order; then the route's own answer. */
async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  routes: Routes,
  allowedHosts: ReadonlySet<string>,
): Promise<Reply> {
  const hosts = request.headersDistinct.host ?? [];
  const [host] = hosts;
  const target = request.url ?? '';
  const refuse = target.startsWith(GUARDED) ? refuseInJson : refuseInText;
  if (host === undefined || hosts.length > 1) return refuse(400, 'bad_request', 'exactly one Host header is needed');
  // A page whose name was made to point here (DNS rebinding) has its own name in Host.
  if (!isHostAllowed(host, allowedHosts)) {
    const detail = `host ${JSON.stringify(host)} is not served here: use an IP address, localhost or a name in allowedHosts`;
    return refuse(421, 'foreign_host', detail);
  }
  if (!target.startsWith('/')) return refuse(400, 'bad_request', 'the request target must be a path');
  const [, path = '', search = ''] = /^([^?]*)\??(.*)$/s.exec(target) ?? [];
  const { headers } = request;
  const site = headers['sec-fetch-site'];
  const foreign = crossSiteProblem({ host, origin: headers.origin, site: Array.isArray(site) ? site.join() : site });
  if (foreign !== undefined && path.startsWith(GUARDED)) return refuse(403, foreign.reason, foreign.detail);
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  if (route === undefined) return refuse(404, 'not_found', 'not found');
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  const respond = method === 'GET' || method === 'POST' || method === 'PUT' ? route[method] : undefined;
  if (respond === undefined) {
    response.setHeader(
      'allow',
      Object.keys(route)
        .flatMap((name) => (name === 'GET' ? ['GET', 'HEAD'] : [name]))
        .join(', '),
    );
    return refuse(405, 'bad_method', 'method not allowed');
  }
  const query = { search: new URLSearchParams(search), body: undefined };
  if (method === 'GET') return respond(query);

  if (foreign !== undefined) return refuse(403, foreign.reason, foreign.detail);
  // A form or a simple cross-origin request cannot have this type, so a page of another origin would need our leave first.
  const [contentType] = (headers['content-type'] ?? '').split(';', 1);
  if (contentType?.trim().toLowerCase() !== 'application/json') return refuse(415, 'bad_body', 'content-type must be application/json');
  const text = await readBody(request);
  if (text === undefined) {
    response.setHeader('connection', 'close');
    return refuse(413, 'bad_body', `the body is longer than ${MAX_BODY_BYTES} bytes`);
  }
  const body = parseJson(text);
  if (!body.ok) return refuse(400, 'bad_request', 'the body is not JSON');
  return respond({ ...query, body: body.value });
}

/** What Node says of bytes that it does not take for a request. */
function refusalOf(error: Error): Reply {
  switch (codeOf(error)) {
    case 'HPE_HEADER_OVERFLOW':
      return refuseInText(431, 'head_too_large', `the head is longer than ${MAX_HEADER_BYTES} bytes`);
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      // Browsers open connections in advance: nothing was asked, and nothing is refused.
      return plain(408, 'there was no whole request in time');
    case 'ECONNRESET':
      return plain(400, 'the connection was reset');
    default:
      return refuseInText(400, 'bad_request', `it is no HTTP/1.1: ${messageOf(error)}`);
  }
}

/** The bytes of an answer after which the connection is closed. */
function unread(reply: Reply): string {
  const fields = { ...headersOf(reply), 'content-length': Buffer.byteLength(reply.body), connection: 'close' };
  const head = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${reply.status} ${STATUS_CODES[reply.status]}\r\n${head.join('')}\r\n${reply.body}`;
}

function refuseInText(status: number, reason: StatusRefusal, detail: string): Reply {
  return { ...plain(status, detail), refused: { reason, detail } };
}

/** A `Problem` of `api-types.ts`. */
export function refuseInJson(status: number, reason: StatusRefusal, detail: string): Reply {
  return { ...data(status, { error: reason, detail } satisfies Problem), refused: { reason, detail } };
}

function send(request: IncomingMessage, response: ServerResponse, reply: Reply): void {
  if (response.destroyed) return;
  // RFC 9110, section 8.6: not on an answer that never has a body.
  const length = reply.status === 204 || reply.status === 304 ? {} : { 'content-length': Buffer.byteLength(reply.body) };
  response.writeHead(reply.status, { ...headersOf(reply), ...length });
  response.end(request.method === 'HEAD' ? undefined : reply.body);
}

function headersOf(reply: Reply): Record<string, string> {
  return {
    'content-type': reply.contentType ?? 'text/plain; charset=utf-8',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'cross-origin-resource-policy': 'same-origin',
    // What is asked for here is data: should a browser show it, it runs nothing and stands in no frame.
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    ...reply.headers,
  };
}

export function plain(status: number, text: string): Reply {
  return { status, body: `${text}\n` };
}

/** JSON for programs: on one line, and nothing in it that a page which took it for markup would heed. */
export function data(status: number, value: unknown): Reply {
  return { status, body: `${JSON.stringify(value).replaceAll(/[<>&\u2028\u2029]/g, escaped)}\n`, contentType: 'application/json' };
}

function escaped(letter: string): string {
  return `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

export function json(status: number, value: unknown): Reply {
  return { status, body: `${JSON.stringify(value, null, 2)}\n`, contentType: 'application/json' };
}

/** Undefined if it is too long. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let length = 0;
  // Left early, the connection must stay for the answer.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string): { readonly ok: true; readonly value: unknown } | { readonly ok: false } {
  if (text.trim() === '') return { ok: true, value: undefined };
  try {
    return { ok: true, value: JSON.parse(text) };
  } catch {
    return { ok: false };
  }
}
