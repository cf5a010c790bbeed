import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { ScuteProcess } from '../support/scute-process.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { eventually } from '../support/eventually.ts';
import { needs } from './parts.ts';
import { runPython } from './peers.ts';
import { issueFiles, startEcho, startInbound } from './stage.ts';

const API = 'spiffe://example.org/api';
const WEB = 'spiffe://example.org/web';

async function startStage(t: TestContext) {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: [API] } });
  const echo = await startEcho(t);
  const { scute, address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });
  const { chain, key } = await issueFiles(t, spiffe, WEB);
  return { echo, scute, address, identity: [chain, key] };
}

/** Every connection has ended, also as Scute sees it. */
function allClosed(scute: ScuteProcess, count: number): Promise<void> {
  return eventually(() => assert.equal(scute.log().filter(({ message }) => message === 'connection closed').length, count));
}

for (const version of ['1.2', '1.3']) {
  test(`tlslite-ng in TLS ${version} with an SVID talks to the application, and without one does not`, needs('python'), async (t) => {
    const { echo, address, identity } = await startStage(t);

    const without = await runPython('tls_peer', 'handshake', address, version);
    const reached = echo.connections();
    const allowed = await runPython('tls_peer', 'handshake', address, version, ...identity);

    assert.deepEqual(allowed, { reply: 'HELLO', version: `TLS ${version}` });
    assert.equal(without['reply'], undefined);
    assert.equal(without['timeout'], undefined);
    assert.equal(reached, 0);
  });
}

for (const version of ['1.0', '1.1']) {
  test(`tlslite-ng in TLS ${version} is refused`, needs('python'), async (t) => {
    const { echo, address, identity } = await startStage(t);

    const said = await runPython('tls_peer', 'handshake', address, version, ...identity);

    assert.deepEqual(said, { alert: 'protocol_version' });
    assert.equal(echo.connections(), 0);
  });
}

test('odd records that TLS allows reach the application', needs('python'), async (t) => {
  const { scute, address, identity } = await startStage(t);

  for (const oddity of ['tiny records', 'padded records', 'one key update', 'many key updates']) {
    const said = await runPython('tls_peer', 'odd', address, oddity, ...identity);

    assert.equal(said['reply'], 'HELLO', `${oddity}: ${JSON.stringify(said)}`);
  }
  await allClosed(scute, 4);
});

test('odd records that TLS forbids end their connection, and no other', needs('python'), async (t) => {
  const { scute, address, identity } = await startStage(t);
  const oddities = [
    'many empty records',
    'many warning alerts',
    'a heartbeat',
    'an unknown content type',
    'a change of ciphers',
    'a handshake message of no meaning',
    'a record that was tampered with',
    'a record that is too long',
    'plain text',
    'half a record',
  ];

  for (const oddity of oddities) {
    const said = await runPython('tls_peer', 'odd', address, oddity, ...identity);

    assert.equal(said['reply'], undefined, `${oddity}: ${JSON.stringify(said)}`);
    assert.equal(said['ended'], true, `${oddity}: ${JSON.stringify(said)}`);
  }
  await allClosed(scute, oddities.length);
  const after = await runPython('tls_peer', 'handshake', address, '1.3', ...identity);
  assert.equal(after['reply'], 'HELLO');
});

test('what is no TLS handshake ends its connection, and no other', needs('python'), async (t) => {
  const { echo, address, identity } = await startStage(t);
  const cases = [
    'nothing',
    'zeros',
    'HTTP',
    'an SSL 2 hello',
    'an alert',
    'application data',
    'empty handshake records',
    'a hello of 16 MiB',
    'a hello that is cut',
    'a record of a length that is not allowed',
  ];

  for (const name of cases) {
    const said = await runPython('tls_peer', 'raw', address, name);

    assert.equal(said['closed'], true, `${name}: ${JSON.stringify(said)}`);
  }
  const reached = echo.connections();
  const after = await runPython('tls_peer', 'handshake', address, '1.3', ...identity);

  assert.equal(reached, 0);
  assert.equal(after['reply'], 'HELLO');
});
