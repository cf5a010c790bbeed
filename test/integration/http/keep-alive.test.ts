/** An application, or a server, may close a connection that it keeps between requests in the very moment in which one is sent on it. */
import assert from 'node:assert/strict';
import type { ClientHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { presented, startExampleDomain, startOutbound, API } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { answerOn, request, startClient } from '../../support/http/http2-stage.ts';
import { startHttpInbound, startRawApplication } from '../../support/http/http-stage.ts';
import { createRandom } from '../../support/random.ts';
import type { Sidecar } from '../../support/sidecar.ts';
import { dial, startTcpServer } from '../../support/tcp.ts';
import { tlsServer } from '../../support/tls-peer.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
/** After which the application closes. */
const IDLE_MS = 40;

interface Asked {
  readonly status: number;
  readonly text: string;
}
/** One way to ask: over a connection of its own. */
interface Caller {
  ask(method: string, path: string, body?: string): Promise<Asked>;
}
interface Stage {
  readonly sidecar: Sidecar;
  caller(): Promise<Caller>;
}
type Serve = (socket: Socket) => void;

/** Over HTTP/1.1: on a new connection after an answer that was the last of its own. */
function http1Caller(open: () => Promise<Socket>): Caller {
  let socket: Socket | undefined;
  return {
    async ask(method, path, body) {
      const connection = (socket ??= await open());
      const length = body === undefined ? '' : `Content-Length: ${body.length}\r\n`;
      const answer = await new Promise<Asked>((resolve) => {
        let text = '';
        const finish = (status: number): void => {
          connection.removeAllListeners('data');
          connection.removeAllListeners('close');
          resolve({ status, text });
        };
        connection.on('close', () => finish(0));
        connection.on('data', (chunk: Buffer) => {
          text += chunk.toString('latin1');
          const head = /^HTTP\/1\.1 (\d+)[^]*?Content-Length: (\d+)[^]*?\r\n\r\n/.exec(text);
          if (head !== null && (method === 'HEAD' || text.length >= head[0].length + Number(head[2]))) finish(Number(head[1]));
        });
        connection.write(`${method} ${path} HTTP/1.1\r\nHost: a\r\n${length}\r\n${body ?? ''}`);
      });
      if (answer.status !== 0 && !answer.text.includes('Connection: close')) return answer;
      socket = undefined;
      connection.end();
      return answer;
    },
  };
}

function http2Caller(client: ClientHttp2Session): Caller {
  return {
    async ask(method, path, body) {
      const { status, body: text } = await request(client, { ':method': method, ':path': path }, body);
      return { status, text: text.toString() };
    },
  };
}

/** Every way on which requests go over connections that are kept; nothing is avoided, all must be repaired. */
const WAYS: readonly (readonly [name: string, start: (t: TestContext, serve: Serve) => Promise<Stage>])[] = [
  [
    'inbound, HTTP/1.1',
    async (t, serve) => {
      const application = await startTcpServer(t, serve);
      const stage = await startHttpInbound(t, application.address, { http: { upstreamIdleTimeout: 'off' } });
      return { sidecar: stage.sidecar, caller: () => Promise.resolve(http1Caller(() => stage.connect())) };
    },
  ],
  [
    'inbound, HTTP/2',
    async (t, serve) => {
      const application = await startTcpServer(t, serve);
      const stage = await startHttpInbound(t, application.address, { http: { upstreamIdleTimeout: 'off' } });
      return { sidecar: stage.sidecar, caller: async () => http2Caller(await startClient(t, stage)) };
    },
  ],
  [
    'outbound',
    async (t, serve) => {
      const spiffe = await startExampleDomain(t);
      const server = await tlsServer(t, presented(await spiffe.issue(API)), serve);
      const stage = await startOutbound(t, server.address, {
        spiffe,
        listener: { protocol: 'http', http: { upstreamIdleTimeout: 'off' } },
      });
      return { sidecar: stage.sidecar, caller: () => Promise.resolve(http1Caller(() => dial(t, stage.address))) };
    },
  ],
];

/** Reads requests with a length off a connection. `asked` gets what came so far of the one under way, and answers true if it is answered. */
function serveRequests(socket: Socket, asked: (text: string, isWhole: boolean, count: number) => boolean): void {
  let text = '';
  let count = 0;
  let isOver = false;
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => {
    isOver ||= socket.destroyed || socket.writableEnded;
    if (isOver) return;
    text += chunk.toString('latin1');
    const head = text.indexOf('\r\n\r\n');
    const length = head === -1 ? Infinity : Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0);
    if (asked(text, text.length >= head + 4 + length, count)) {
      text = '';
      count++;
    }
  });
  socket.on('end', () => socket.end());
}

function closeIt(socket: Socket, how: 'end' | 'reset'): void {
  if (how === 'end') socket.end();
  // A TLS socket has no reset of its own: destroying it ends the connection below.
  else if ('encrypted' in socket) socket.destroy();
  else socket.resetAndDestroy();
}

for (const [way, start] of WAYS) {
  test(`of 2,000 requests at the moment in which their connections are closed none fails: ${way}`, async (t) => {
    const random = createRandom(1);
    let closed = 0;
    const stage = await start(t, (socket) => {
      // Some are closed by the clock, which on a busy machine may be always too early; the others under a request.
      const isTimed = random() < 0.5;
      let timer: NodeJS.Timeout | undefined;
      socket.on('close', () => clearTimeout(timer));
      serveRequests(socket, (text, isWhole, count) => {
        if (!isWhole) return false;
        clearTimeout(timer);
        const how = random() < 0.5 ? 'end' : 'reset';
        if (count > 0 && !isTimed && random() < 0.3) {
          closed++;
          closeIt(socket, how);
          return false;
        }
        socket.write(text.startsWith('HEAD') ? OK.slice(0, -2) : OK);
        if (isTimed) timer = setTimeout(() => closeIt(socket, how), IDLE_MS);
        return true;
      });
    });
    const statuses: number[] = [];
    await Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        const caller = await stage.caller();
        for (let each = 0; each < 100; each++) {
          const method = ['GET', 'PUT', 'DELETE', 'HEAD', 'OPTIONS'][each % 5] ?? 'GET';
          statuses.push(
            (await caller.ask(method === 'HEAD' ? 'GET' : method, `/${index}-${each}`, method === 'PUT' ? 'x'.repeat(1000) : undefined))
              .status,
          );
          if (random() < 0.5) await wait(IDLE_MS * (0.75 + random() / 2));
        }
      }),
    );

    assert.deepEqual(
      statuses.filter((status) => status !== 200),
      [],
    );
    assert.equal(statuses.length, 2000);
    assert.ok(closed > 100, `${closed} connections were closed under a request`);
    assert.ok((await stage.sidecar.metric('scute_http_retries_total', { result: 'forwarded' })) >= closed);
    assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '200' }), 2000);
    assert.equal(
      await stage.sidecar.metric('scute_http_retries_total'),
      await stage.sidecar.metric('scute_http_retries_total', { result: 'forwarded' }),
    );
    assert.ok(stage.sidecar.log().some(({ message, retries }) => message === 'request finished' && retries === 1));
  });

  test(`wherever an application closes, it sees no request that is not idempotent twice: ${way}`, async (t) => {
    const random = createRandom(2);
    const seen = new Map<string, number>();
    /** Bytes of the next request after which its connection is closed. */
    let closesAt = Infinity;
    let how: 'end' | 'reset' = 'end';
    let isKept = true;
    const stage = await start(t, (socket) => {
      serveRequests(socket, (text, isWhole, count) => {
        const isFirst = isKept && count === 0;
        if (text.length >= closesAt && !isFirst) {
          const path = / (\/\S+) /.exec(text)?.[1];
          if (path !== undefined) seen.set(path, (seen.get(path) ?? 0) + 1);
          // What follows it is another one's.
          closesAt = Infinity;
          closeIt(socket, how);
          return false;
        }
        if (!isWhole) return false;
        const path = / (\/\S+) /.exec(text)?.[1] ?? '';
        seen.set(path, (seen.get(path) ?? 0) + 1);
        socket.write(OK);
        return true;
      });
    });
    const outcomes: string[] = [];
    const rounds = 60;
    for (let round = 0; round < rounds; round++) {
      const caller = await stage.caller();
      isKept = true;
      assert.equal((await caller.ask('GET', `/first-${round}`)).status, 200);
      if (round % 3 === 0) await wait(30);
      how = round % 2 === 0 ? 'end' : 'reset';
      closesAt = 1 + Math.floor(random() * 300);
      isKept = false;
      const method = ['POST', 'PATCH', 'PURGE', 'PUT'][round % 4] ?? '';
      const { status } = await caller.ask(method, `/${method}-${round}`, 'b'.repeat(300));
      outcomes.push(`${method} ${status}`);
      closesAt = Infinity;
    }

    for (const [path, times] of seen) {
      if (path.startsWith('/PUT')) assert.ok(times <= 2, `${path} was seen ${times} times`);
      else assert.equal(times, 1, `${path} was seen ${times} times`);
    }
    const results = new Set(outcomes);
    assert.deepEqual(
      [...results].filter((outcome) => outcome.startsWith('PUT')),
      ['PUT 200'],
    );
    assert.deepEqual([...results].toSorted(), ['PATCH 502', 'POST 502', 'PURGE 502', 'PUT 200']);
    assert.equal(await stage.sidecar.metric('scute_http_retries_total'), rounds / 4);
  });
}

for (const version of ['1.1', '2'] as const) {
  test(`a connection of which the application says nothing, or how long it keeps it, is used no longer: HTTP/${version}`, async (t) => {
    for (const [said, usableMs] of [
      ['', 1500],
      ['Keep-Alive: timeout=5\r\n', 4000],
      ['Keep-Alive: timeout=20, max=100\r\n', 19_000],
    ] as const) {
      const clock = new FakeClock();
      const answer = OK.replace('\r\n', `\r\n${said}`);
      const application = await startRawApplication(t, (received) => (received.endsWith('\r\n\r\n') ? answer : undefined));
      const stage = await startHttpInbound(t, application.address, { sidecar: { clock }, listener: { limits: { idleTimeout: 'off' } } });
      const caller = version === '2' ? http2Caller(await startClient(t, stage)) : http1Caller(() => stage.connect());
      for (const [afterMs, connections] of [
        [0, 1],
        [usableMs - 1, 1],
        [usableMs - 1, 1],
        [usableMs, 2],
      ] as const) {
        clock.advance(afterMs);
        assert.equal((await caller.ask('GET', '/')).status, 200);
        assert.equal(application.connections(), connections, `${said} after ${afterMs} ms`);
      }
    }
  });
}

test('over HTTP/2, a body that is on its way goes over the new connection whole, with its trailers', async (t) => {
  const served: string[] = [];
  const first = new WeakSet<Socket>();
  const sockets: Socket[] = [];
  const application = await startTcpServer(t, (socket) => {
    const index = sockets.push(socket) - 1;
    served.push('');
    socket.on('data', (chunk: Buffer) => {
      served[index] += chunk.toString('latin1');
      if (first.has(socket)) return;
      if (index === 0) first.add(socket);
      if (index === 0 || served[index]?.endsWith('0\r\nx-sum: 1\r\n\r\n') === true) socket.write(OK);
    });
    socket.on('end', () => socket.end());
  });
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);
  assert.equal((await request(client, { ':path': '/' })).status, 200);

  const stream = client.request({ ':method': 'PUT', ':path': '/put', trailer: 'x-sum' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '1' }));
  const answer = answerOn(stream);
  const parts = [Buffer.alloc(30_000, 'a'), Buffer.alloc(200_000, 'b')] as const;
  stream.write(parts[0]);
  await eventually(() => assert.ok((served[0]?.match(/a/g)?.length ?? 0) > 30_000));
  closeIt(sockets[0] as Socket, 'reset');
  await eventually(() => assert.equal(sockets.length, 2));
  stream.end(parts[1]);

  assert.equal((await answer).status, 200);
  const [, head = '', body = ''] = /^([^]*?\r\n)\r\n([^]*)$/.exec(served[1] ?? '') ?? [];
  assert.match(head, /^PUT \/put HTTP\/1\.1\r\n/);
  assert.equal(head.match(/spiffe:\/\/example\.org\/web/g)?.length, 1);
  assert.equal(body.replace(/(?:^|\r\n)[0-9a-f]+\r\n(?:x-sum: 1\r\n\r\n)?/g, ''), `${'a'.repeat(30_000)}${'b'.repeat(200_000)}`);
});

for (const [what, said] of [
  ['an interim response', 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'],
  ['a part of a head', 'HTTP/1.1 200 O'],
] as const) {
  test(`over HTTP/2, a request is not sent once more after ${what}`, async (t) => {
    let requests = 0;
    const application = await startRawApplication(t, (_, socket) => {
      if (++requests % 2 === 1) return OK;
      socket.write(said);
      return void setTimeout(() => socket.end(), 20);
    });
    const stage = await startHttpInbound(t, application.address);
    const client = await startClient(t, stage);
    assert.equal((await request(client, { ':path': '/' })).status, 200);

    assert.equal((await request(client, { ':path': '/' })).status, 502);
    assert.equal(requests, 2);
    assert.equal(await stage.sidecar.metric('scute_http_retries_total'), 0);
  });
}
