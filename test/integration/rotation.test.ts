import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { API, startPair, WEB, presented } from '../support/data-path.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { eventually } from '../support/eventually.ts';
import { dial, readAll, startEcho } from '../support/tcp.ts';
import { tlsClient } from '../support/tls-peer.ts';

const FOR_MS = 60_000;
const LONG_LIVED = 5;

test('SVIDs rotate each second for a minute under load: no request fails, no connection drops, the newest is presented', async (t) => {
  const spiffe = await startDevDomain(t, {
    name: 'example.org',
    svidLife: '5m',
    rotateEvery: '1s',
    workloads: { web: [WEB], api: [API] },
  });
  const application = await startEcho(t);
  const { inbound, outbound, address } = await startPair(t, application.address, { spiffe });
  const failures: string[] = [];
  const until = performance.now() + FOR_MS;
  const during = (): boolean => performance.now() < until;
  let requests = 0;
  let pings = 0;
  let looks = 0;

  // New connections: ten a second.
  const requesting = (async () => {
    while (during()) {
      const text = `request ${requests}`;
      const caller = await dial(t, address);
      caller.end(text);
      const answer = (await readAll(caller)).toString();
      if (answer !== text) failures.push(`${text} was answered ${JSON.stringify(answer)}`);
      requests += 1;
      await delay(100);
    }
  })();
  // Connections that stay: each carries bytes both ways all the time.
  const staying: Socket[] = [];
  for (let i = 0; i < LONG_LIVED; i++) staying.push(await dial(t, address));
  const streaming = staying.map(async (socket, number) => {
    socket.on('close', () => during() && failures.push(`connection ${number} was closed`));
    while (during()) {
      const text = Buffer.from(`ping ${pings}`.padEnd(2000, '.'));
      socket.write(text);
      let heard = 0;
      while (heard < text.length) heard += ((await once(socket, 'data')) as [Buffer])[0].length;
      pings += 1;
      await delay(200);
    }
    socket.end();
  });
  // Whoever connects sees the newest SVID: that of the last update, or of one that came meanwhile.
  const web = presented(await spiffe.issue(WEB));
  const serials = (): string[] =>
    inbound
      .log()
      .filter(({ message }) => message === 'identity updated')
      .map(serialOf);
  const looking = (async () => {
    while (during()) {
      const before = serials().length;
      const client = tlsClient(t, inbound.address('in'), web);
      await once(client, 'secureConnect');
      const seen = client.getPeerX509Certificate()?.serialNumber.toLowerCase().replace(/^0+/, '') ?? '';
      client.end('!');
      await readAll(client);
      if (
        !serials()
          .slice(before - 1)
          .includes(seen)
      )
        failures.push(`${seen} was presented, the newest was ${serials()[before - 1]}`);
      looks += 1;
      await delay(500);
    }
  })();
  await Promise.all([requesting, looking, ...streaming]);

  assert.deepEqual(failures, []);
  assert.ok(new Set(serials()).size >= 50, `${serials().length} rotations`);
  assert.ok(requests >= 200 && pings >= 500, `${requests} requests, ${pings} pings`);
  for (const sidecar of [outbound, inbound]) {
    const finished = requests + LONG_LIVED + (sidecar === inbound ? looks : 0);
    await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'finished' }), finished));
    assert.equal(await sidecar.metric('scute_tls_handshakes_total', { result: 'error' }), 0);
    assert.equal(await sidecar.metric('scute_x509_svid_updates_total', { result: 'rejected' }), 0);
    assert.equal(await sidecar.metric('scute_accept_refused_total'), 0);
  }
  // The client's SVIDs rotate too: the server saw many of them.
  const peersSerials = new Set(inbound.log().flatMap((line) => (line['close_reason'] === 'finished' ? [line['serial']] : [])));
  assert.ok(peersSerials.size >= 40, `${peersSerials.size} SVIDs of the client were seen`);
});

function serialOf(line: Readonly<Record<string, unknown>>): string {
  const [svid] = line['svids'] as { readonly serial: string }[];
  return svid?.serial.replace(/^0+/, '') ?? '';
}
