import assert from 'node:assert/strict';
import { connect, type ClientHttp2Session } from 'node:http2';
import { createConnection, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { request } from '../../test/support/http/http2-stage.ts';
import { forwarderOptions } from '../../test/support/memory-forwarder.ts';
import { startTcpServer } from '../../test/support/tcp.ts';
import type { RequestRecord } from '../telemetry/log/records.ts';
import type { SecureConnection } from '../transport/connection.ts';
import { nativeStream } from '../transport/socket-connection.ts';
import { nameBytes } from '../http1/fields.ts';
import { buildIdentityFields } from '../http1/identity-fields.ts';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import { NO_BEARER, type Bearer } from './bearer.ts';
import { forwardHttp2, type Http2ForwardOptions } from './http2-forwarder.ts';

const PEER = requireSpiffeId('spiffe://example.org/web');
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

/** A place where a client in plain text meets the forwarder, before the application at `to`. */
async function startFront(t: TestContext, to: string, options: Partial<Http2ForwardOptions> = {}): Promise<ClientHttp2Session> {
  const front = await startTcpServer(t, (socket) => {
    // Of a TLS connection, no more is used than this.
    const downstream = {
      handOver: ({ ended, closed }: Parameters<SecureConnection['handOver']>[0]) => {
        socket.on('end', ended).on('close', () => closed(undefined));
        return nativeStream(socket);
      },
      abort: () => socket.destroy(),
    } as unknown as SecureConnection;
    forwardHttp2({
      ...forwarderOptions(() => false),
      downstream,
      maxConcurrentStreams: 10,
      idleTimeoutMs: undefined,
      files: { take: () => true, give: () => undefined, held: 0 },
      open(done) {
        const [host = '', port] = to.split(':');
        const stream: Socket = createConnection(Number(port), host, () => done({ ok: true, native: nativeStream(stream) }));
        return { abort: () => stream.destroy() };
      },
      requestFinished: () => undefined,
      done: () => undefined,
      ...options,
    });
  });
  const client = connect(`http://${front.address}`);
  t.after(() => client.destroy());
  return client;
}

test('over HTTP/2, a request is judged again before it is sent once more, by the newest list', async (t) => {
  let denies = false;
  let requests = 0;
  const records: RequestRecord[] = [];
  const application = await startTcpServer(t, (socket) => {
    socket.on('data', () => {
      if (++requests === 1) socket.write(OK);
      else {
        denies = true;
        socket.resetAndDestroy();
      }
    });
  });
  const client = await startFront(t, application.address, {
    ...forwarderOptions(() => denies),
    requestFinished: (record) => records.push(record),
  });
  assert.equal((await request(client, { ':path': '/' })).status, 200);

  assert.equal((await request(client, { ':path': '/' })).status, 403);

  assert.equal(requests, 2);
  assert.deepEqual(
    records.map(({ status, result, retries }) => [status, result, retries]),
    [
      [200, 'forwarded', 0],
      [403, 'denied', 1],
    ],
  );
});

test('over HTTP/2, fields that say another path are judged by the rules of when the request goes, also if a token was verified meanwhile', async (t) => {
  let guards = false;
  let received = '';
  const application = await startTcpServer(t, (socket) => {
    socket.on('data', (chunk: Buffer) => {
      received += chunk.toString('latin1');
      socket.write(OK);
    });
  });
  const verified = Promise.withResolvers<Bearer>();
  const asked = Promise.withResolvers<void>();
  const caller = { peerId: PEER, ownId: PEER, leafSha256: '0'.repeat(64) };
  const identity = buildIdentityFields({ xfcc: 'sanitize', spiffeIdHeader: undefined }, caller, () => guards, [
    'x-subject',
    'authorization',
  ]);
  const client = await startFront(t, application.address, {
    identity,
    tokens: {
      header: nameBytes('authorization'),
      identity,
      subjectHeader: 'x-subject',
      read() {
        asked.resolve();
        return verified.promise;
      },
      problemOf: () => undefined,
    },
  });
  const answer = request(client, { ':path': '/', authorization: 'Bearer x', 'x-original-url': '/admin' });
  await asked.promise;

  guards = true;
  verified.resolve(NO_BEARER);

  await answer;
  assert.ok(!received.includes('/admin'), received);
});
