import assert from 'node:assert/strict';
import { test } from 'node:test';
import { presented, startInbound } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { ask } from '../../support/http/http.ts';
import { startHttpApplication, wire } from '../../support/http/http-stage.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { tlsClient } from '../../support/tls-peer.ts';

/** In everything that peers choose here, and nowhere else. */
const MARK = 'xyzzy';
const PEERS = 12;

test('peers make no series, and nothing that they choose is in a label, however many they are', async (t) => {
  const application = await startHttpApplication(t, (_, response) => response.end('ok'));
  const listener = {
    protocol: 'http',
    allow: [{ peer: 'spiffe://example.org/caller/**', methods: ['GET'] }],
    deny: ['spiffe://example.org/denied/**'],
  };
  const { spiffe, sidecar, address } = await startInbound(t, application.address, { listener });
  const foreign = createTestAuthority({ trustDomain: `${MARK}.example` });
  const metricsAt = sidecar.app.addresses().get('metrics');
  assert.ok(metricsAt);

  const meet = async (number: number): Promise<void> => {
    const ids = ['caller', 'denied', 'stranger'].map((kind) => `spiffe://example.org/${kind}/${MARK}-${number}`);
    const stranger = foreign.issue({ id: `spiffe://${MARK}.example/${number}`, subject: MARK });
    const shown = [
      ...(await Promise.all(ids.map(async (id) => presented(await spiffe.issue(id))))),
      { cert: stranger.pem, key: stranger.keyPem },
      undefined,
    ];
    await Promise.all(
      shown.flatMap((each) =>
        [`GET /${MARK}/${number}?${MARK}`, `${MARK.toUpperCase()} /${MARK}`, `GET http://${MARK}.example/`].map(async (line) => {
          const socket = tlsClient(t, address, each, { servername: `${MARK}-${number}.example`, ALPNProtocols: ['http/1.1', MARK] });
          const peer = wire(socket);
          socket.write(
            `${line} HTTP/1.1\r\nHost: ${MARK}-${number}.example\r\nUser-Agent: ${MARK}\r\nX-${MARK}: ${MARK}\r\nConnection: close\r\n\r\n`,
          );
          await peer.over();
        }),
      ),
    );
  };
  const told = async (): Promise<string> => (await ask(metricsAt, '/metrics')).body;
  /** All of a round has been counted, the last line of it in the log. */
  const counted = (rounds: number): Promise<string> =>
    eventually(async () => {
      assert.equal(await sidecar.metric('scute_tls_handshakes_total'), rounds * 15);
      assert.equal(await sidecar.metric('scute_tcp_open_connections'), 0);
      return told();
    });

  await meet(0);
  const first = await counted(1);
  for (let number = 1; number < PEERS; number += 1) await meet(number);
  const all = await counted(PEERS);

  assert.equal(await sidecar.metric('scute_authorization_total', { decision: 'allow' }), PEERS * 3);
  assert.doesNotMatch(all, new RegExp(MARK, 'i'));
  const series = (text: string): string[] =>
    text.split('\n').flatMap((line) => (line === '' || line.startsWith('#') ? [] : line.slice(0, line.lastIndexOf(' '))));
  assert.deepEqual(series(all), series(first));
});
