import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEndpoint, formatEndpoint, grpcTarget } from './endpoint.ts';

const ENVIRONMENT = 'unix:///run/environment.sock';

function refusal(text: string): string {
  const chosen = chooseEndpoint(text, undefined);
  assert.ok(!chosen.ok, `${text} was accepted`);
  return chosen.error;
}

test('EP-1: without configuration the environment variable says where the Workload API is', () => {
  assert.deepEqual(chooseEndpoint(undefined, ENVIRONMENT), { ok: true, value: { kind: 'unix', path: '/run/environment.sock' } });
});

test('what is configured goes before the environment variable, which is not even read then', () => {
  const configured = { kind: 'tcp', host: '127.0.0.1', port: 8081 } as const;

  assert.deepEqual(chooseEndpoint(configured, 'nonsense'), { ok: true, value: configured });
  assert.deepEqual(chooseEndpoint('tcp://127.0.0.1:8081', 'nonsense'), { ok: true, value: configured });
});

test('with neither, or an empty variable, the error says what to set', () => {
  for (const fromEnvironment of [undefined, '']) {
    const chosen = chooseEndpoint(undefined, fromEnvironment);
    assert.ok(!chosen.ok);
    assert.match(chosen.error, /SPIFFE_ENDPOINT_SOCKET/);
  }
});

test('an error about the environment variable names the variable and its value', () => {
  const chosen = chooseEndpoint(undefined, 'http://127.0.0.1');

  assert.ok(!chosen.ok);
  assert.match(chosen.error, /^SPIFFE_ENDPOINT_SOCKET: "http:\/\/127\.0\.0\.1"/);
});

for (const [text, target, shown] of [
  ['unix:///run/agent.sock', 'unix:/run/agent.sock', 'unix:///run/agent.sock'],
  ['unix:/run/agent.sock', 'unix:/run/agent.sock', 'unix:///run/agent.sock'],
  ['tcp://127.0.0.1:8081', 'ipv4:127.0.0.1:8081', 'tcp://127.0.0.1:8081'],
  ['tcp://[::1]:8081', 'ipv6:[::1]:8081', 'tcp://[::1]:8081'],
] as const) {
  test(`${text} is dialled as ${target}`, () => {
    const chosen = chooseEndpoint(text, undefined);

    assert.ok(chosen.ok);
    assert.equal(grpcTarget(chosen.value), target);
    assert.equal(formatEndpoint(chosen.value), shown);
  });
}

test('EP-4/unix-authority: a Unix socket address with an authority is refused', () => {
  for (const text of ['unix://host/run/agent.sock', 'unix://run/agent.sock', 'unix://user@/run/agent.sock']) refusal(text);
});

test('EP-4/tcp-path: a TCP address with a path is refused', () => {
  for (const text of ['tcp://127.0.0.1:8081/', 'tcp://127.0.0.1:8081/path']) refusal(text);
});

for (const text of [
  '',
  'unix:',
  'unix://',
  'unix:///',
  'unix:run/agent.sock',
  'unix:///run/agent.sock?x=1',
  'unix:///run/agent.sock?',
  'unix:///run/agent.sock#x',
  `unix:///${'x'.repeat(107)}`,
  'tcp:127.0.0.1:8081',
  'tcp://127.0.0.1',
  'tcp://127.0.0.1:',
  'tcp://127.0.0.1:0',
  'tcp://127.0.0.1:65536',
  'tcp://localhost:8081',
  'tcp://agent.example:8081',
  'tcp://user@127.0.0.1:8081',
  'tcp://127.0.0.1:8081?x=1',
  'tcp://127.0.0.1:8081#x',
  'tcp://::1:8081',
  'http://127.0.0.1:8081',
  '127.0.0.1:8081',
  '/run/agent.sock',
  'UNIX:///run/agent.sock',
]) {
  test(`${JSON.stringify(text.slice(0, 40))} is no Workload API address, and the error shows it`, () => {
    assert.ok(refusal(text).includes(JSON.stringify(text)));
  });
}
