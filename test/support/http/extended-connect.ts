import { once } from 'node:events';
import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import type { TestContext } from 'node:test';
import { WebSocket } from 'ws';
import { answerOk, startH2cApplication, type H2cApplication } from './h2c-application.ts';
import { eventually } from '../eventually.ts';

const MAX_MESSAGE_BYTES = 32 * 1024 * 1024;
export const OFFERING = { settings: { enableConnectProtocol: true } };
export const EXTENDED = { extendedConnect: true };

/** Serves other requests with `ok`, and gives those that are to be switched to `switched`, which answers them. */
export function serveConnect(switched: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void) {
  return (stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void => {
    if (headers[':method'] === 'CONNECT') switched(stream, headers);
    else stream.resume().on('end', () => answerOk(stream));
  };
}

/** An application over HTTP/2 that offers extended CONNECT (RFC 8441). */
export function startConnectApplication(
  t: TestContext,
  switched: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
): Promise<H2cApplication> {
  return startH2cApplication(t, serveConnect(switched), OFFERING);
}

/** Switches, and says everything back. */
export function echo(stream: ServerHttp2Stream): void {
  stream.respond({ ':status': 200 });
  stream.pipe(stream);
}

/** Resolves when the other side offers extended CONNECT. */
export function offered(client: ClientHttp2Session): Promise<void> {
  return eventually(() => {
    if (client.remoteSettings?.enableConnectProtocol !== true) throw new Error('extended CONNECT is not offered');
  });
}

/** Asks for a WebSocket. */
export function askSwitch(client: ClientHttp2Session, headers: OutgoingHttpHeaders = {}): ClientHttp2Stream {
  const stream = client.request({ ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/socket', ':scheme': 'https', ...headers });
  stream.on('error', () => undefined);
  return stream;
}

/** Waits for the offer, asks, and waits for the answer. */
export async function switchTo(client: ClientHttp2Session, headers: OutgoingHttpHeaders = {}) {
  await offered(client);
  const stream = askSwitch(client, headers);
  const [answer] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  return { stream, status: Number(answer[':status']), answer };
}

/** All that came on a stream so far. */
export function heardOn(stream: Duplex): () => string {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString('latin1');
}

/** A WebSocket on a stream that was switched to it: `ws` itself opens none over HTTP/2. */
export function webSocketOn(stream: Duplex, isServer: boolean): WebSocket {
  const socket = new (WebSocket as unknown as new (address: null, protocols: undefined, options: object) => WebSocket)(null, undefined, {});
  Object.assign(socket, { _isServer: isServer });
  const given = socket as unknown as { setSocket(stream: Duplex, head: Buffer, options: object): void };
  given.setSocket(stream, Buffer.alloc(0), { maxPayload: MAX_MESSAGE_BYTES, allowSynchronousEvents: true });
  return socket;
}
