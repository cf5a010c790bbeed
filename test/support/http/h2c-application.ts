import { createServer, type Http2Server, type ServerHttp2Stream, type ServerOptions } from 'node:http2';
import type { Socket } from 'node:net';
import type { TestContext } from 'node:test';
import type { InboundStage, StageOptions } from '../data-path.ts';
import { startHttpInbound } from './http-stage.ts';
import { ACK, frame, framesIn, PREFACE, settings, SETTINGS, type Frame } from './http2-frames.ts';
import { serveHttp2, type Serve, type Serving } from './http2-listen.ts';
import { startTcpServer } from '../tcp.ts';

export type H2cApplication = Serving<Http2Server>;

/** An application that is Node's HTTP/2 server, in plain text. */
export function startH2cApplication(t: TestContext, serve: Serve, options: ServerOptions = {}): Promise<H2cApplication> {
  return serveHttp2(t, createServer(options), serve);
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
