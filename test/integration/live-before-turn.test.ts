/** Connections of `protocol: http` that are to be judged again and have not had their turn yet. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { systemClock, type Clock } from '../../src/lib/clock.ts';
import { API, presented, startInbound, WEB } from '../support/data-path.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { eventually } from '../support/eventually.ts';
import { startHttpApplication, startHttpInbound, startRawApplication } from '../support/http-stage.ts';
import { frame, GET, headers, HEADERS, settings, uint32, WINDOW_UPDATE } from '../support/http2-frames.ts';
import { startFrames } from '../support/http2-stage.ts';
import { tlsClient } from '../support/tls-peer.ts';

const CONNECTIONS = 100;

/** Once it is `slow`, each look at it takes so long that one connection has a turn. */
function turnClock(): { readonly clock: Clock; slow: boolean } {
  let aheadMs = 0;
  const it = {
    slow: false,
    clock: {
      ...systemClock,
      monotonic: () => systemClock.monotonic() + (it.slow ? (aheadMs += 10) : aheadMs),
    },
  };
  return it;
}

test('a request that comes after its peer lost its authority is not forwarded, though many others are judged first', async (t) => {
  const time = turnClock();
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB], api: [API] } });
  let forwarded = 0;
  const application = await startHttpApplication(t, (_, response) => {
    forwarded += 1;
    response.end('!');
  });
  const { sidecar, address } = await startInbound(t, application.address, {
    spiffe,
    listener: { protocol: 'http' },
    sidecar: { clock: time.clock },
  });
  const web = presented(await spiffe.issue(WEB));
  const sockets: TLSSocket[] = [];
  for (let made = 0; made < CONNECTIONS; made++) {
    const socket = tlsClient(t, address, web);
    socket.on('error', () => undefined);
    socket.write('GET / HTTP/1.1\r\nHost: api\r\n\r\n');
    await once(socket, 'data');
    sockets.push(socket);
  }
  const trusted = (): unknown => sidecar.log().filter(({ message }) => message === 'identity updated').length;
  const before = trusted();
  await spiffe.rotateRoot('example.org');
  await eventually(() => assert.notEqual(trusted(), before));
  const updates = trusted();
  forwarded = 0;
  time.slow = true;

  const retired = spiffe.retireRoots('example.org');
  // What waits for its turn is found in it.
  while (trusted() === updates) await nextTurn();
  for (const socket of sockets) socket.write('GET /after HTTP/1.1\r\nHost: api\r\n\r\n');
  await retired;

  await eventually(async () =>
    assert.equal(await sidecar.metric('scute_tcp_close_total', { listener: 'in', reason: 'authority_removed' }), CONNECTIONS),
  );
  assert.equal(forwarded, 0);
});

test('of a response that waits for the window of a peer, nothing is sent once that is denied', async (t) => {
  const application = await startRawApplication(t, (received) =>
    received.endsWith('\r\n\r\n') ? 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret' : undefined,
  );
  const stage = await startHttpInbound(t, application.address);
  // SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, section 6.5.2).
  const line = await startFrames(stage, settings([4, 0]), headers(1, GET));
  await line.until(({ type, stream }) => type === HEADERS && stream === 1);
  await eventually(() => assert.ok(stage.sidecar.log().some(({ result }) => result === 'forwarded')));

  await stage.sidecar.reload(stage.with({ protocol: 'http', allow: [API] }));
  line.send(frame(WINDOW_UPDATE, 0, 1, uint32(100)));
  await line.over();

  assert.equal(line.stream(1).body, '');
  assert.equal((await stage.sidecar.connection())['close_reason'], 'policy');
});
