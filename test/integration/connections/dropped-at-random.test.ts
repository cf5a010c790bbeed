import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rename, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as tlsConnect, TLSSocket } from 'node:tls';
import { API, presented, startExampleDomain, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { openSockets } from '../../support/open-files.ts';
import { createRandom } from '../../support/random.ts';
import { startScute } from '../../support/scute-process.ts';
import { startTcpServer } from '../../support/tcp.ts';
import { tlsServer } from '../../support/tls-peer.ts';

const CONNECTIONS = 2000;
const AT_ONCE = 50;

/**
 * Node's own memory is at stake here: to reset a socket and to destroy the TLS above it in the same moment ends the process.
 * So this is a process of its own, and peers do what they can at every moment that they can choose.
 */
test(`${CONNECTIONS} connections dropped at random moments, by peers, applications, reloads and verdicts, do not end the process`, async (t) => {
  const random = createRandom(Number(process.env['SCUTE_TEST_SEED'] ?? 20_260));
  const upTo = (limit: number): number => Math.floor(random() * limit);
  const spiffe = await startExampleDomain(t);
  const [web, stranger, api] = await Promise.all(
    [WEB, 'spiffe://example.org/stranger', API].map(async (id) => presented(await spiffe.issue(id))),
  );
  const impostor = presented(await (await startExampleDomain(t)).issue(WEB));
  assert.ok(web && stranger && api);
  const misbehave = (socket: Socket): void => {
    socket.on('error', () => undefined);
    switch (upTo(6)) {
      case 0:
        setTimeout(() => (socket instanceof TLSSocket ? socket.destroy() : reset(socket)), upTo(10));
        break;
      case 1:
        socket.end('bye');
        break;
      case 2:
        socket.once('data', () => socket.destroy());
        break;
      case 3:
        socket.write(Buffer.alloc(upTo(300_000)), () => socket.destroy());
        break;
      default:
        socket.pipe(socket);
    }
  };
  const application = await startTcpServer(t, misbehave);
  const server = await tlsServer(t, api, misbehave);
  const config = (round: number): object => ({
    workloadApi: { endpoint: spiffe.endpoint('api') },
    // Both are the same process: SVIDs of api, which is why callers and servers are judged alike.
    inbound: [
      {
        name: 'in',
        listen: '127.0.0.1:0',
        to: application.address,
        allow: round % 3 === 2 ? ['spiffe://example.org/nobody'] : [WEB],
        limits: {
          maxConnections: 5 + (round % 4) * 10,
          maxHandshakes: 20,
          handshakeTimeout: '500ms',
          idleTimeout: round % 4 === 1 ? '50ms' : '2s',
        },
      },
    ],
    outbound: [
      {
        name: 'out',
        listen: '127.0.0.1:0',
        to: server.address,
        expect: [round % 5 === 4 ? WEB : API],
        limits: { handshakeTimeout: '500ms' },
      },
    ],
    metrics: { listen: '127.0.0.1:0' },
    log: { level: 'debug' },
  });
  const scute = await startScute({ config: config(0) });
  t.after(() => scute.stop());
  await scute.ready('in', 'out', 'metrics');
  const [inbound, outbound, metrics] = [await scute.port('in'), await scute.port('out'), await scute.port('metrics')];

  const one = async (number: number): Promise<void> => {
    const raw = connect({ port: number % 3 === 0 ? outbound : inbound, host: '127.0.0.1', allowHalfOpen: true });
    raw.on('error', () => undefined);
    let above: Socket | undefined;
    const dropAfterMs = upTo(upTo(2) === 0 ? 20 : 400);
    const dropped = delay(dropAfterMs).then(() => (upTo(2) === 0 ? reset(raw, above) : raw.destroy()));
    if (number % 3 === 0) {
      raw.write(Buffer.alloc(upTo(200_000)));
      raw.resume();
    } else if (upTo(10) === 0) {
      raw.write(Buffer.from(Array.from({ length: upTo(600) }, () => upTo(256))));
      raw.resume();
    } else {
      const who = [web, web, web, stranger, impostor, undefined][upTo(6)];
      const tls = tlsConnect({ socket: raw, ...who, rejectUnauthorized: false, maxVersion: upTo(2) === 0 ? 'TLSv1.2' : 'TLSv1.3' });
      above = tls;
      tls.on('error', () => undefined);
      tls.write(Buffer.alloc(1 + upTo(upTo(2) === 0 ? 200_000 : 1000)));
      tls.resume();
      if (upTo(2) === 0) tls.once('secureConnect', () => (upTo(3) === 0 ? tls.destroy() : tls.end()));
      if (upTo(6) === 0) tls.once('secureConnect', () => reset(raw, tls));
    }
    await dropped;
    await eventually(() => assert.ok(raw.closed));
  };
  let next = 0;
  const done = new AbortController();
  const reload = async (round: number): Promise<void> => {
    await writeFile(`${scute.configFile}.new`, JSON.stringify(config(round)));
    await rename(`${scute.configFile}.new`, scute.configFile ?? '');
    scute.child.signal('SIGHUP');
  };
  const disturbing = (async () => {
    for (let round = 1; !done.signal.aborted; round++) {
      await delay(150);
      await reload(round);
      if (round % 7 === 3) await spiffe.rotate();
      if (round % 7 === 5) await spiffe.withdraw('api');
      if (round % 7 === 6) await spiffe.restore('api');
      if (round % 31 === 30) await spiffe.rotateRoot('example.org');
    }
    await spiffe.restore('api');
    await reload(0);
  })();
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (next < CONNECTIONS) await one(next++);
    }),
  );
  done.abort();
  await disturbing;
  // However little of that was served on a slow machine: it serves now. The application still misbehaves, so that not every try is answered.
  await eventually(async () => assert.equal(await echoed(inbound, web), 'hello'));

  const gauges = async (): Promise<string[]> => {
    const text = await (await fetch(`http://127.0.0.1:${metrics}/metrics`, { headers: { connection: 'close' } })).text();
    return text
      .split('\n')
      .filter((line) => /^scute_(tcp_open_connections|tls_handshaking_connections|tcp_waiting_connections)\{.* (?!0$)/.test(line));
  };
  await eventually(async () => assert.deepEqual(await gauges(), []));
  // Two listeners for peers, one for metrics, one stream to the agent, and what asked just now.
  await eventually(() => assert.ok(openSockets(scute.child.pid) < 15, `${openSockets(scute.child.pid)} sockets are still open`));
  assert.deepEqual(await scute.stop(), { code: 0, signal: null });
  assert.equal(scute.child.stderr(), '');
  const served = scute.log().filter((line) => line['close_reason'] === 'finished').length;
  const reasons = new Set(scute.log().map((line) => String(line['close_reason'])));
  assert.ok(served > 0 && reasons.size >= 6, `the test reached only ${served} whole connections and ${[...reasons].join(', ')}`);
});

/** What the application answers to "hello"; nothing if it does not, or the connection is refused. */
async function echoed(port: number, svid: ReturnType<typeof presented>): Promise<string> {
  const socket = tlsConnect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...svid });
  let reply = '';
  socket.setEncoding('utf8').on('data', (text: string) => (reply += text));
  socket.on('error', () => undefined);
  socket.end('hello');
  await once(socket, 'close');
  return reply;
}

/** Node cannot reset a socket that is just ending, nor one below TLS that is: it never closes then, and keeps this process. */
function reset(socket: Socket, above?: Socket): void {
  if (socket.writableEnded || above?.writableEnded === true) socket.destroy();
  else socket.resetAndDestroy();
}
