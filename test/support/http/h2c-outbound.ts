import { once } from 'node:events';
import {
  connect,
  createSecureServer,
  type ClientHttp2Session,
  type Http2SecureServer,
  type IncomingHttpHeaders,
  type SecureServerOptions,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { API, presented, startExampleDomain, startOutbound, type OutboundStage, type StageOptions } from '../data-path.ts';
import { dial } from '../tcp.ts';
import type { Presented } from '../tls-peer.ts';

export interface Http2Server {
  readonly address: string;
  readonly server: Http2SecureServer;
  /** All that were opened. */
  readonly sessions: readonly ServerHttp2Session[];
  /** The heads that it has seen: names and values in turn. */
  readonly heads: readonly (readonly string[])[];
}

/** A server that is `id`, by mTLS, and speaks HTTP/2: Node's. */
export async function startHttp2Server(
  t: TestContext,
  spiffe: DevDomain,
  serve: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
  { id = API, ...options }: SecureServerOptions & { readonly id?: string } = {},
): Promise<Http2Server> {
  return startHttp2ServerAs(t, presented(await spiffe.issue(id)), serve, options);
}

/** As `startHttp2Server`, with what it presents. */
export async function startHttp2ServerAs(
  t: TestContext,
  who: Presented,
  serve: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
  options: SecureServerOptions = {},
): Promise<Http2Server> {
  const server = createSecureServer({
    ...who,
    requestCert: true,
    rejectUnauthorized: false,
    ...options,
  });
  const sessions: ServerHttp2Session[] = [];
  const heads: string[][] = [];
  server.on('session', (session) => {
    sessions.push(session);
    session.on('error', () => undefined);
  });
  server.on('sessionError', () => undefined);
  server.on('tlsClientError', () => undefined);
  server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _: number, raw?: string[]) => {
    heads.push(raw ?? []);
    stream.on('error', () => undefined);
    serve(stream, headers);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, server, sessions, heads };
}

export interface SplicedOut extends OutboundStage {
  readonly server: Http2Server;
}

/** A server over HTTP/2 that is api, and a sidecar between it and applications that speak h2c. */
export async function startSplicedOut(
  t: TestContext,
  serve: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
  options: StageOptions & { readonly http?: object; readonly server?: SecureServerOptions } = {},
): Promise<SplicedOut> {
  const spiffe = options.spiffe ?? (await startExampleDomain(t));
  const server = await startHttp2Server(t, spiffe, serve, options.server);
  return { ...(await startH2cOutbound(t, server.address, { ...options, spiffe })), server };
}

/** A sidecar for applications that speak h2c, which leads to `to`. */
export function startH2cOutbound(
  t: TestContext,
  to: string,
  { http, listener, ...rest }: StageOptions & { readonly spiffe: DevDomain; readonly http?: object },
): Promise<OutboundStage> {
  return startOutbound(t, to, { ...rest, listener: h2cOutbound(http, listener) });
}

export function h2cOutbound(http: object = {}, listener: object = {}): object {
  return { protocol: 'http', http: { application: 'h2c', ...http }, ...listener };
}

/** An application that speaks HTTP/2 in plain text from the first byte on. */
export async function startCaller(t: TestContext, address: string): Promise<ClientHttp2Session> {
  const socket = await dial(t, address);
  const client = connect('http://api', { createConnection: () => socket, maxSessionMemory: 1000 });
  client.on('error', () => undefined);
  t.after(() => client.destroy());
  return client;
}
