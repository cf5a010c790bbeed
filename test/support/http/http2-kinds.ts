import type { RequestListener } from 'node:http';
import { createServer, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2';
import type { Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { startSpliced } from './h2c-application.ts';
import { startHttpApplication, startHttpInbound, startRawApplication } from './http-stage.ts';
import { listenHttp2 } from './http2-listen.ts';

/** What tests of HTTP/2 peers do alike, whatever the application speaks. */
export interface Http2Kind {
  /** For the names of tests. */
  readonly application: string;
  /** As `http.application` has it. */
  readonly speaks: 'http/1.1' | 'h2c';
  readonly startInbound: typeof startHttpInbound;
  readonly startHttpApplication: (t: TestContext, serve: RequestListener) => Promise<{ readonly address: string }>;
  /** Answers with 200 and `ok` if `answer`, given the head of a request without its fields, says anything. */
  readonly startAnswering: (
    t: TestContext,
    answer: (received: string, socket: Pick<Socket, 'pause'>) => string | undefined,
  ) => Promise<{ readonly address: string }>;
}

/** As `startHttpApplication`, with Node's compatible API for HTTP/2. */
function startH2cCompatible(
  t: TestContext,
  serve: (incoming: Http2ServerRequest, response: Http2ServerResponse) => void,
): Promise<{ readonly address: string }> {
  const server = createServer((incoming, response) => {
    response.on('error', () => undefined);
    serve(incoming, response);
  });
  return listenHttp2(t, server);
}

export const HTTP2_KINDS: readonly Http2Kind[] = [
  {
    application: 'HTTP/1.1',
    speaks: 'http/1.1',
    startInbound: startHttpInbound,
    startHttpApplication,
    startAnswering: startRawApplication,
  },
  {
    application: 'h2c',
    speaks: 'h2c',
    startInbound: startSpliced,
    startHttpApplication: (t, serve) => startH2cCompatible(t, serve as unknown as Parameters<typeof startH2cCompatible>[1]),
    startAnswering: (t, answer) =>
      startH2cCompatible(t, (incoming, response) => {
        incoming.on('error', () => undefined);
        const said = answer(`${incoming.method} ${incoming.url} HTTP/1.1\r\n\r\n`, { pause: () => incoming as unknown as Socket });
        if (said !== undefined) response.end('ok');
      }),
  },
];
