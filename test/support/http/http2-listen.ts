import { once } from 'node:events';
import type { Http2Server, IncomingHttpHeaders, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

/** Told of each stream, with the fields of its head. */
export type Serve = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void;

/** One of Node's servers of HTTP/2 that listens: over TLS or in plain text. */
export interface Listening<S> {
  readonly address: string;
  readonly server: S;
  /** All that were opened. */
  readonly sessions: readonly ServerHttp2Session[];
}

export interface Serving<S> extends Listening<S> {
  /** The heads that it has seen: names and values in turn. */
  readonly heads: readonly (readonly string[])[];
}

/** What TCP, TLS and plain text have alike. */
type Server = Pick<Http2Server, 'on' | 'listen' | 'address' | 'close'>;

/** Lets it listen on a free loopback port. Errors of its sessions are for their clients to see. All is closed after the test. */
export async function listenHttp2<S extends Server>(t: TestContext, server: S): Promise<Listening<S>> {
  const sessions: ServerHttp2Session[] = [];
  server.on('session', (session: ServerHttp2Session) => {
    sessions.push(session);
    session.on('error', () => undefined);
  });
  server.on('sessionError', () => undefined);
  server.listen(0, '127.0.0.1');
  await once(server as unknown as Http2Server, 'listening');
  t.after(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, server, sessions };
}

/** As `listenHttp2`; each stream is served by `serve`, and its head is kept. */
export async function serveHttp2<S extends Server>(t: TestContext, server: S, serve: Serve): Promise<Serving<S>> {
  const heads: string[][] = [];
  server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _: number, raw?: string[]) => {
    heads.push(raw ?? []);
    stream.on('error', () => undefined);
    serve(stream, headers);
  });
  return { ...(await listenHttp2(t, server)), heads };
}
