import assert from 'node:assert/strict';
import { test } from 'node:test';
import { API, presented } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { send, startHttpInbound, startRawApplication, wire } from '../../support/http/http-stage.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';

test('a peer that is not allowed gets no answer and does not wait when half of the places are taken', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address, { listener: { limits: { maxConnections: 2 } } });
  const first = await send(stage, GET);
  await first.until('ok');

  const stranger = tlsClient(t, stage.address, presented(await stage.spiffe.issue(API)));
  assert.equal((await outcome(stranger)).text, '');
  const line = await stage.sidecar.connection(({ verdict }) => verdict === 'deny');
  assert.equal(line['close_reason'], 'denied');
  assert.equal(await stage.sidecar.metric('scute_tls_handshaking_connections'), 0);
});

test('peers that are not allowed leave half of the places to those that are', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address, { listener: { limits: { maxConnections: 4 } } });
  const svid = presented(await stage.spiffe.issue(API));
  // They say nothing, to stay as long as they can.
  for (let count = 0; count < 6; count++) wire(tlsClient(t, stage.address, svid));
  await eventually(() => {
    assert.equal(stage.sidecar.log().filter(({ verdict, close_reason }) => verdict === 'deny' && close_reason === 'denied').length, 4);
    return Promise.resolve();
  });

  const allowed = await send(stage, GET);
  await allowed.until('ok');
});

test('a head that nominates thousands of fields is refused before it costs anything', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address);

  for (const fields of [`Connection: ${'a,'.repeat(5000)}\r\n`, 'Connection: a, b\r\n'.repeat(40)]) {
    const line = await send(stage, `GET / HTTP/1.1\r\nHost: a\r\n${fields}\r\n`);
    assert.match((await line.over()).text, /^HTTP\/1\.1 400 /);
  }
  assert.equal(application.received(), '');
});
