import { create } from '@bufbuild/protobuf';
import type { RequestListener } from 'node:http';
import {
  createServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
} from 'node:http2';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { JWTBundlesResponseSchema } from '../../../src/gen/workload_pb.ts';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { startExampleDomain, type InboundStage, type StageOptions } from '../data-path.ts';
import { startClient, request } from '../http/http2-stage.ts';
import { send, startHttpApplication, startHttpInbound } from '../http/http-stage.ts';
import type { LogLine, Sidecar } from '../sidecar.ts';
import { AUDIENCE, jwk, jwks, testKey, type TestKey } from './tokens.ts';

export const SUBJECT_HEADER = 'x-spiffe-jwt-subject';

export interface Seen {
  readonly url: string;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly names: readonly string[];
  trailers: NodeJS.Dict<string>;
}

export interface TokenStage extends InboundStage {
  /** What the application saw. */
  readonly seen: Seen[];
  /** The key of the trust domain's JWT bundle. */
  readonly key: TestKey;
  /** The JWT bundles from now on. */
  readonly serve: (bundles: Readonly<Record<string, string>>) => void;
}

/** What the workload `api` is told of JWT bundles, until the trust domain changes. */
export function serveJwtBundles(spiffe: DevDomain, bundles: Readonly<Record<string, string>>): void {
  const bytes = Object.fromEntries(Object.entries(bundles).map(([domain, text]) => [domain, Buffer.from(text)]));
  spiffe.answers('api').jwtBundles.set({ kind: 'message', message: create(JWTBundlesResponseSchema, { bundles: bytes }) });
}

export interface TokenStageOptions extends StageOptions {
  readonly jwt?: object;
  readonly http?: object;
  /** What the application speaks. HTTP/1.1 if left out. */
  readonly application?: 'h2c' | undefined;
  /** Instead of one of its own. */
  readonly to?: string;
  /** False: what the workload is told of JWT bundles stays as it is. */
  readonly serves?: boolean;
}

/** An application that speaks HTTP/1.1 or HTTP/2 in plain text, to whom both look alike. */
export async function startApplication(t: TestContext, speaks: 'h2c' | undefined, serve: RequestListener): Promise<string> {
  if (speaks === undefined) return (await startHttpApplication(t, serve)).address;
  const sessions = new Set<ServerHttp2Session>();
  const server = createServer(serve as unknown as (request: Http2ServerRequest, response: Http2ServerResponse) => void);
  server.on('session', (session) => sessions.add(session.on('error', () => undefined)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A sidecar that asks for tokens, before an application that notes each request and answers 200. */
export async function startTokenStage(
  t: TestContext,
  { jwt, to, serves = true, application, ...options }: TokenStageOptions = {},
): Promise<TokenStage> {
  const seen: Seen[] = [];
  const address =
    to ??
    (await startApplication(t, application, (incoming, response) => {
      const names = incoming.rawHeaders.filter((_, at) => at % 2 === 0);
      const entry: Seen = { url: incoming.url ?? '', headers: incoming.headers, names, trailers: {} };
      seen.push(entry);
      incoming.resume();
      incoming.on('end', () => {
        entry.trailers = incoming.trailers;
        response.end('ok');
      });
    }));
  const spiffe = options.spiffe ?? (await startExampleDomain(t));
  const key = testKey('one');
  const serve = (bundles: Readonly<Record<string, string>>): void => serveJwtBundles(spiffe, bundles);
  if (serves) serve({ 'example.org': jwks(jwk(key)) });
  const inbound = await startHttpInbound(t, address, {
    ...options,
    http: { ...(application !== undefined && { application }), ...options.http },
    spiffe,
    listener: { ...(jwt !== undefined && { jwt }), ...options.listener },
  });
  return { ...inbound, seen, key, serve };
}

export const JWT = { audiences: [AUDIENCE] };

export interface Answer {
  readonly status: number;
  readonly challenge: string | undefined;
  readonly body: string;
}

/** Fields in order; a name may come twice. */
export type FieldLines = readonly (readonly [string, string])[];
export type Ask = (fields: FieldLines, asked?: { readonly method?: string; readonly path?: string }) => Promise<Answer>;

/** Each over a connection of its own. */
export function overHttp1(of: InboundStage): Ask {
  return async (fields, { method = 'GET', path = '/' } = {}) => {
    const lines = [`${method} ${path} HTTP/1.1`, 'Host: api', ...fields.map(([name, value]) => `${name}: ${value}`)];
    const { text } = await (await send(of, `${lines.join('\r\n')}\r\nConnection: close\r\n\r\n`)).over();
    const [head = '', body = ''] = text.split('\r\n\r\n');
    return { status: Number(head.split(' ')[1]), challenge: /^www-authenticate: (.*)$/im.exec(head)?.[1], body };
  };
}

/** All over one connection. */
export async function overHttp2(t: TestContext, of: InboundStage): Promise<Ask> {
  const client = await startClient(t, of);
  return async (fields, { method = 'GET', path = '/' } = {}) => {
    const pseudo = [':method', method, ':path', path, ':scheme', 'https', ':authority', 'api'];
    // As they are: of an object, Node would send no field twice.
    const raw = [...pseudo, ...fields.flatMap(([name, value]) => [name.toLowerCase(), value])];
    const answer = await request(client, raw as unknown as OutgoingHttpHeaders);
    const challenge = answer.headers['www-authenticate'];
    return { status: answer.status, challenge, body: answer.body.toString() };
  };
}

export const VERSIONS = [
  ['HTTP/1.1', (_: TestContext, of: InboundStage): Promise<Ask> => Promise.resolve(overHttp1(of)), undefined],
  ['HTTP/2', overHttp2, undefined],
  ['HTTP/2, to h2c', overHttp2, 'h2c'],
] as const;

export function requestLines(sidecar: Sidecar): readonly LogLine[] {
  return sidecar.log().filter(({ message }) => message === 'request finished');
}
