import assert from 'node:assert/strict';
import { test } from 'node:test';
import { presented, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { connectClient, request } from '../../support/http/http2-stage.ts';
import { startHttpApplication, startHttpInbound, wire, type Wire } from '../../support/http/http-stage.ts';
import { tlsClient } from '../../support/tls-peer.ts';

const OTHER = 'spiffe://example.org/other';
const ALLOWED = 64;
const ROUNDS = 20;

test(`policies change under ${ALLOWED} connections at work: who stays allowed loses no request, who is not gets no byte`, async (t) => {
  // What the peer that is denied asks for is answered slowly: it is on its way when the policy changes.
  const held: (() => void)[] = [];
  const application = await startHttpApplication(t, ({ url }, response) => {
    if (url === '/slow') held.push(() => response.end('late'));
    else response.end(`${url}.`);
  });
  const stage = await startHttpInbound(t, application.address, {
    listener: { allow: [{ peer: WEB, paths: ['/items/**'] }, OTHER] },
  });
  const other = presented(await stage.spiffe.issue(OTHER));
  const ask = async (line: Wire, path: string, until: string | RegExp): Promise<void> => {
    line.socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    await line.until(until);
  };
  const denied: Wire[] = [];
  for (let count = 0; count < 8; count++) denied.push(wire(tlsClient(t, stage.address, other)));
  await Promise.all(denied.map((line) => ask(line, '/first', '/first.')));
  for (const line of denied.slice(0, 4)) line.socket.write('GET /slow HTTP/1.1\r\nHost: a\r\n\r\n');
  const lateClient = await connectClient(t, stage.address, other);
  assert.equal((await request(lateClient, { ':path': '/', ':authority': 'a' })).status, 200);
  const lateStream = request(lateClient, { ':path': '/slow', ':authority': 'a' });
  await eventually(() => assert.equal(held.length, 5));

  let asked = 0;
  const lines = await Promise.all(Array.from({ length: ALLOWED }, async () => wire(await stage.connect())));
  const working = lines.map(async (line, index) => {
    for (let round = 0; round < ROUNDS; round++) {
      await ask(line, `/items/${index}-${round}`, `/items/${index}-${round}.`);
      asked++;
    }
  });
  await eventually(() => assert.ok(asked >= ALLOWED));
  // Not whole turns: each is at another place then.
  await stage.sidecar.reload(
    stage.with({
      allow: [
        { peer: WEB, paths: ['/items/**', '/more'] },
        { peer: WEB, methods: ['GET'] },
      ],
    }),
  );
  const before = denied.map((line) => line.text());
  for (const answer of held) answer();
  // The others go on through many a policy.
  for (let round = 0; round < 10; round++) {
    await stage.sidecar.reload(
      stage.with({ allow: [WEB, `spiffe://example.org/x${round}`], deny: [{ peer: WEB, paths: [`/items/x${round}`] }, OTHER] }),
    );
  }
  await Promise.all(working);

  assert.equal(asked, ALLOWED * ROUNDS);
  for (const [index, line] of lines.entries()) assert.equal(line.text().match(/HTTP\/1\.1 200 OK/g)?.length, ROUNDS, `connection ${index}`);
  for (const [index, line] of denied.entries()) {
    const { text, error } = await line.over();
    // Between requests it ends in order.
    assert.deepEqual([text, error], [before[index], index < 4 ? 'ECONNRESET' : undefined], 'not a byte since');
  }
  assert.notEqual((await lateStream).body.toString(), 'late');
  assert.equal(await stage.sidecar.metric('scute_tcp_close_total', { reason: 'policy' }), denied.length + 1);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'denied' }), 0);
});
