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
import { startHttpApplication } from '../support/http-stage.ts';
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
