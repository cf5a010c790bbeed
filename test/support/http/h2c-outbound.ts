import { connect, createSecureServer, type ClientHttp2Session, type Http2SecureServer, type SecureServerOptions } from 'node:http2';
import type { TestContext } from 'node:test';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { API, presented, startExampleDomain, startOutbound, type OutboundStage, type StageOptions } from '../data-path.ts';
import { dial } from '../tcp.ts';
import type { Presented } from '../tls-peer.ts';
import { serveHttp2, type Serve, type Serving } from './http2-listen.ts';

export type Http2Server = Serving<Http2SecureServer>;

/** A server that is `id`, by mTLS, and speaks HTTP/2: Node's. */
export async function startHttp2Server(
  t: TestContext,
  spiffe: DevDomain,
  serve: Serve,
  { id = API, ...options }: SecureServerOptions & { readonly id?: string } = {},
): Promise<Http2Server> {
  return startHttp2ServerAs(t, presented(await spiffe.issue(id)), serve, options);
}

/** As `startHttp2Server`, with what it presents. */
export function startHttp2ServerAs(t: TestContext, who: Presented, serve: Serve, options: SecureServerOptions = {}): Promise<Http2Server> {
  const server = createSecureServer({ ...who, requestCert: true, rejectUnauthorized: false, ...options });
  server.on('tlsClientError', () => undefined);
  return serveHttp2(t, server, serve);
}

export interface SplicedOut extends OutboundStage {
  readonly server: Http2Server;
}

/** A server over HTTP/2 that is api, and a sidecar between it and applications that speak h2c. */
export async function startSplicedOut(
  t: TestContext,
  serve: Serve,
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
