/** What the commands say of listeners that look at tokens. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { scute } from '../../support/command.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const WEB = 'spiffe://example.org/web';
const APP = 'spiffe://example.org/app';

async function fileOf(t: TestContext, more: object = {}, file: object = {}): Promise<string> {
  const path = join(await temporaryFolder(t), 'scute.json');
  const listener = {
    name: 'in',
    listen: '127.0.0.1:8443',
    to: '127.0.0.1:8080',
    protocol: 'http',
    jwt: { audiences: ['a', 'b'] },
    allow: [WEB, { subject: APP, paths: ['/app'] }],
    ...more,
  };
  await writeFile(path, JSON.stringify({ workloadApi: { endpoint: 'unix:///run/agent.sock' }, inbound: [listener], ...file }));
  return path;
}

test('scute check says which tokens a listener asks for, and to whom it gives them', async (t) => {
  const { stdout, code } = await scute('check', '-c', await fileOf(t));
  assert.equal(code, 0);
  assert.match(
    stdout,
    /\n {2}asks each request for a JWT-SVID in Authorization for a or b, and tells the application its SPIFFE ID in X-Spiffe-Jwt-Subject\n/,
  );
  assert.match(stdout, /\n {2}admits subject spiffe:\/\/example\.org\/app \/app\n/);
  const forwarding = await scute(
    'check',
    '-c',
    await fileOf(t, { jwt: { audiences: ['a'], require: 'ifPresent', unsafeForwardToken: true } }),
  );
  assert.match(
    forwarding.stdout,
    /\n {2}looks at a JWT-SVID in Authorization for a, [^]*\n {2}note: the application gets the token itself/,
  );
});

test('scute explain takes the subject of a token, and asks for it where the listener does', async (t) => {
  const file = await fileOf(t);
  const ask = (...more: string[]) =>
    scute('explain', '-c', file, '--peer', 'spiffe://example.org/gateway', '--path', '/app', '--method', 'GET', ...more);

  const allowed = await ask('--subject', APP);
  assert.match(allowed.stdout, /^verdict {2}allow\n[^]*\nrule {2}\S+ subject spiffe:\/\/example\.org\/app \/app\n/);
  const denied = await ask('--subject', WEB);
  assert.match(
    denied.stdout,
    /^verdict {2}deny: not_allowed[^]*subject spiffe:\/\/example\.org\/app \/app: matched but for the subject of the token\n/,
  );
  const missing = await ask();
  assert.equal(missing.code, 64);
  assert.match(missing.stderr, /subject: is required: listener in asks each request for a token/);

  const optional = await fileOf(t, { jwt: { audiences: ['a'], require: 'ifPresent' } });
  const without = await scute('explain', '-c', optional, '--peer', WEB.replace('web', 'x'), '--path', '/app');
  assert.match(without.stdout, /matched but for a token\n/);
  const none = await fileOf(t, { jwt: undefined, allow: [WEB] });
  const nobody = await scute('explain', '-c', none, '--peer', WEB, '--subject', APP);
  assert.deepEqual([nobody.code, /nobody looks at tokens/.test(nobody.stderr)], [64, true]);
});

test('Envoy is not told of listeners that ask for tokens, and scute envoy and scute check say why', async (t) => {
  const sds = { listen: 'unix:///run/sds.sock' };
  const matchers = await scute('check', '-c', await fileOf(t, {}, { sds: { ...sds, matchers: [{ secret: 'ROOTCA', listener: 'in' }] } }));
  assert.equal(matchers.code, 64);
  assert.match(matchers.stderr, /sds\.matchers\[0\]\.listener: "in" asks for tokens \(jwt\), which matchers cannot/);

  const printed = await scute('envoy', '-c', await fileOf(t, {}, { sds: { ...sds, authorization: {} } }));
  assert.notEqual(printed.code, 0);
  assert.equal(printed.stdout, '');
  assert.match(printed.stderr, /inbound in: jwt cannot be said here/);
});
