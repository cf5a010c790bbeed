import { once } from 'node:events';
import {
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type ServerOptions,
} from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import type { TestContext } from 'node:test';
import type { InboundStage, StageOptions } from '../data-path.ts';
import { startHttpInbound } from './http-stage.ts';
import { ACK, frame, framesIn, PREFACE, settings, SETTINGS, type Frame } from './http2-frames.ts';
import { startTcpServer } from '../tcp.ts';

export interface H2cApplication {
  readonly address: string;
  readonly server: Http2Server;
  /** All that were opened. */
  readonly sessions: readonly ServerHttp2Session[];
  /** The heads that it has seen: names and values in turn. */
  readonly heads: readonly (readonly string[])[];
}

/** An application that is Node's HTTP/2 server, in plain text. */
export async function startH2cApplication(
  t: TestContext,
  serve: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
  options: ServerOptions = {},
): Promise<H2cApplication> {
  const server = createServer(options);
  const sessions: ServerHttp2Session[] = [];
  const heads: string[][] = [];
  server.on('session', (session) => {
    sessions.push(session);
    session.on('error', () => undefined);
  });
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

/** A sidecar before an application that speaks HTTP/2 in plain text. */
export function startSpliced(
  t: TestContext,
  to: string,
  { http, ...rest }: StageOptions & { readonly http?: object } = {},
): Promise<InboundStage> {
  return startHttpInbound(t, to, { ...rest, http: { application: 'h2c', ...http } });
}

/** Answers at once with the body `ok`. */
export function answerOk(stream: ServerHttp2Stream): void {
  stream.respond({ ':status': 200 });
  stream.end('ok');
}

/** One connection to an application that writes frames by hand. */
export interface FrameConnection {
  readonly socket: Socket;
  /** All that came, without the preface. */
  readonly frames: () => Frame[];
  readonly send: (...frames: readonly Uint8Array[]) => void;
}

/** An application that writes frames by hand, so that they may be wrong. It says `first`, or SETTINGS, and then what `answer` says to each frame; if `first` is empty, nothing else. */
export async function startFrameApplication(
  t: TestContext,
  answer: (frame: Frame, connection: FrameConnection) => Uint8Array | undefined,
  first: Uint8Array = settings(),
): Promise<{ readonly address: string; readonly connections: readonly FrameConnection[] }> {
  const connections: FrameConnection[] = [];
  const { address } = await startTcpServer(t, (socket) => {
    let all = Buffer.alloc(0);
    let seen = 0;
    const frames = (): Frame[] => framesIn(all.subarray(PREFACE.length));
    const connection: FrameConnection = { socket, frames, send: (...more) => void socket.write(Buffer.concat(more)) };
    connections.push(connection);
    socket.on('error', () => undefined);
    socket.on('end', () => socket.end());
    socket.on('data', (chunk: Buffer) => {
      all = Buffer.concat([all, chunk]);
      for (const each of frames().slice(seen)) {
        seen++;
        if (each.type === SETTINGS && each.flags === 0 && first.length > 0) socket.write(frame(SETTINGS, ACK, 0));
        const said = answer(each, connection);
        if (said !== undefined && socket.writable) socket.write(said);
      }
    });
    if (first.length > 0) socket.write(first);
  });
  return { address, connections };
}
