import {
  connect,
  constants,
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';
import type { TestContext } from 'node:test';
import { once } from 'node:events';
import type { TLSSocket } from 'node:tls';
import type { InboundStage } from '../data-path.ts';
import { frameWire, type FrameWire } from './http2-frames.ts';
import { tlsClient, type Presented } from '../tls-peer.ts';

/** A client over HTTP/2: the admitted peer, unless another is given. */
export function startClient(
  t: TestContext,
  stage: InboundStage,
  options: { readonly presented?: Presented } = {},
): Promise<ClientHttp2Session> {
  return connectClient(t, stage.address, options.presented ?? stage.web);
}

export async function connectClient(t: TestContext, address: string, who: Presented): Promise<ClientHttp2Session> {
  return (await connectClientOn(t, address, who)).client;
}

/** With the connection below it, to end in other ways than the protocol's. */
export async function connectClientOn(
  t: TestContext,
  address: string,
  who: Presented,
): Promise<{ readonly client: ClientHttp2Session; readonly socket: TLSSocket }> {
  const socket = tlsClient(t, address, who, { ALPNProtocols: ['h2'] });
  await once(socket, 'secureConnect');
  // In MB: of a body that is not taken, it holds all. It takes more fields than we do.
  // A test may send what nobody should, such as a field twice.
  const options = { createConnection: () => socket, maxSessionMemory: 1000, maxHeaderListPairs: 4000, strictSingleValueFields: false };
  const client = connect('https://api', options);
  client.on('error', () => undefined);
  t.after(() => client.destroy());
  return { client, socket };
}

export interface Http2Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Interim responses that came before. */
  readonly interim: readonly IncomingHttpHeaders[];
  readonly trailers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** Undefined if the response was whole; else the code of the reset. */
  readonly reset: number | undefined;
}

/** All that comes on a stream. */
export async function answerOn(stream: ClientHttp2Stream): Promise<Http2Answer> {
  let headers: IncomingHttpHeaders = {};
  let trailers: IncomingHttpHeaders = {};
  const interim: IncomingHttpHeaders[] = [];
  const chunks: Buffer[] = [];
  let ended = false;
  stream.on('response', (head) => (headers = head));
  stream.on('headers', (head) => interim.push(head));
  stream.on('trailers', (fields) => (trailers = fields));
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.on('end', () => (ended = true));
  stream.on('error', () => undefined);
  if (!stream.closed || !stream.destroyed) await new Promise((resolve) => stream.once('close', resolve));
  const reset = stream.rstCode === constants.NGHTTP2_NO_ERROR && ended ? undefined : stream.rstCode;
  return { status: Number(headers[':status'] ?? 0), headers, interim, trailers, body: Buffer.concat(chunks), reset };
}

/** One request and its response. */
export function request(client: ClientHttp2Session, headers: OutgoingHttpHeaders, body?: string | Buffer): Promise<Http2Answer> {
  const stream = client.request(headers, { endStream: body === undefined });
  if (body !== undefined) stream.end(body);
  return answerOn(stream);
}

/** A connection of the admitted peer on which frames are written by hand. */
export async function startFrames(stage: InboundStage, ...first: readonly Uint8Array[]): Promise<FrameWire> {
  return frameWire(await stage.connect({ ALPNProtocols: ['h2'] }), ...first);
}
