import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { startDevDomain } from '../../support/dev-domain.ts';
import { needs } from '../parts.ts';
import { runPython, startPython } from '../peers.ts';
import { exchange, refusal, startEcho, startInbound, startOutbound } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const OTHER = 'spiffe://example.org/other';

function startDomain(t: TestContext) {
  return startDevDomain(t, { name: 'example.org', intermediates: 2, workloads: { web: [WEB], api: [API], other: [OTHER] } });
}

test('a spiffe-tls client that is allowed reaches the application', needs('python'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });

  const said = await runPython('spiffe_peer', 'dial', spiffe.endpoint('web'), address, API, 'hello');

  assert.deepEqual(said, { reply: 'HELLO', peerId: API, tlsVersion: 'TLSv1.3' });
});

test('a spiffe-tls client with another SPIFFE ID is refused', needs('python'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { scute, address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });

  const said = await runPython('spiffe_peer', 'dial', spiffe.endpoint('other'), address, API, 'hello');

  assert.notEqual(said['error'], undefined);
  await refusal(scute, 'not_allowed');
  assert.equal(echo.connections(), 0);
});

test('a spiffe-tls client refuses Scute when it expects another server', needs('python'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });

  const said = await runPython('spiffe_peer', 'dial', spiffe.endpoint('web'), address, OTHER, 'hello');

  assert.match(String(said['error']), /TLSConnectionError/);
  assert.equal(echo.connections(), 0);
});

test('an application reaches a spiffe-tls server that has the expected SPIFFE ID', needs('python'), async (t) => {
  const spiffe = await startDomain(t);
  const server = await startPython(t, 'spiffe_peer', ['listen', spiffe.endpoint('api'), WEB]);
  const to = String((await server.first('listening'))['listening']);
  const { port } = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to, expect: [API] });

  const reply = await exchange(port, 'hello');

  assert.equal(reply, 'HELLO');
  assert.equal((await server.first('accepted'))['accepted'], WEB);
});

test('an application reaches nothing when the spiffe-tls server has another SPIFFE ID', needs('python'), async (t) => {
  const spiffe = await startDomain(t);
  const server = await startPython(t, 'spiffe_peer', ['listen', spiffe.endpoint('other'), WEB]);
  const to = String((await server.first('listening'))['listening']);
  const { scute, port } = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to, expect: [API] });

  const reply = await exchange(port, 'secret');

  assert.equal(reply, '');
  await refusal(scute, 'not_allowed');
});

test('an application gets nothing from a spiffe-tls server that refuses Scute', needs('python'), async (t) => {
  const spiffe = await startDomain(t);
  const server = await startPython(t, 'spiffe_peer', ['listen', spiffe.endpoint('api'), OTHER]);
  const to = String((await server.first('listening'))['listening']);
  const { port } = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to, expect: [API] });

  const reply = await exchange(port, 'hello');

  assert.equal(reply, '');
  assert.notEqual((await server.first('handshakeError'))['handshakeError'], undefined);
});
