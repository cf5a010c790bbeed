import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { startDevDomain } from '../../support/dev-domain.ts';
import { startScute } from '../../support/scute-process.ts';
import { needs } from '../parts.ts';
import { runGo, runPython, type Said, startGo, startPython } from '../peers.ts';

const WEB = 'spiffe://example.org/web';
const AUDIENCE = 'spiffe://example.org/db';

/** Two federated trust domains, one with intermediates. */
function startDomains(t: TestContext) {
  return startDevDomain(
    t,
    { name: 'example.org', intermediates: 1, federatesWith: ['other.example'], workloads: { web: [{ id: WEB, hint: 'internal' }] } },
    { name: 'other.example', keyType: 'ec-p384', workloads: { far: ['spiffe://other.example/far'] } },
  );
}

interface X509View {
  readonly svids: readonly { readonly id: string; readonly serial: string; readonly problem: string }[];
  readonly bundles: Readonly<Record<string, number>>;
}

const x509Of = (said: Said): X509View => said as unknown as X509View;
const serialOf = (said: Said): string | undefined => x509Of(said).svids[0]?.serial;

test('go-spiffe fetches SVIDs, bundles and JWT-SVIDs, and finds them good', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomains(t);

  const said = await runGo('fetch', '-socket', spiffe.endpoint('web'), '-audience', AUDIENCE);

  assert.equal(said['error'], undefined);
  const bundles = { 'example.org': 1, 'other.example': 1 };
  const { svids, bundles: withSvids } = said['x509'] as X509View;
  assert.deepEqual(
    svids.map(({ id, problem }) => ({ id, problem })),
    [{ id: WEB, problem: '' }],
  );
  assert.deepEqual(withSvids, bundles);
  assert.deepEqual(said['x509Bundles'], bundles);
  const jwt = said['jwt'] as Said;
  assert.deepEqual([jwt['id'], jwt['validatedId'], jwt['audience'], jwt['bundles']], [WEB, WEB, [AUDIENCE], bundles]);
});

for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048', 'ed25519'] as const) {
  test(`go-spiffe takes an SVID with a key of type ${keyType}`, needs('go-spiffe'), async (t) => {
    const spiffe = await startDevDomain(t, { name: 'example.org', keyType, workloads: { web: [WEB] } });

    const said = await runGo('fetch', '-socket', spiffe.endpoint('web'));

    assert.equal(said['error'], undefined);
    assert.deepEqual(
      (said['x509'] as X509View).svids.map(({ problem }) => problem),
      [''],
    );
  });
}

test('go-spiffe follows rotations of SVIDs and of authorities', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomains(t);
  const watcher = await startGo(t, 'watch', '-socket', spiffe.endpoint('web'));
  const first = await watcher.next('svids');

  await spiffe.rotate('example.org');
  const second = await watcher.next('svids');
  await spiffe.prepareRoot('example.org');
  const prepared = await watcher.next('svids');
  await spiffe.activateRoot('example.org');
  const third = await watcher.next('svids');
  await spiffe.retireRoots('example.org');
  const retired = await watcher.next('svids');

  const serials = [first, second, third].map(serialOf);
  assert.equal(new Set(serials).size, 3, 'each rotation gives another certificate');
  assert.deepEqual([prepared, retired].map(serialOf), [serials[1], serials[2]], 'and a change of the bundle alone does not');
  assert.deepEqual(
    [first, prepared, third, retired].map((said) => x509Of(said).bundles['example.org']),
    [1, 2, 2, 1],
  );
  assert.deepEqual(
    [first, second, prepared, third, retired].flatMap((said) => x509Of(said).svids.map(({ problem }) => problem)),
    ['', '', '', '', ''],
  );
});

test('go-spiffe sees an identity withdrawn and given back', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomains(t);
  const watcher = await startGo(t, 'watch', '-socket', spiffe.endpoint('web'));
  await watcher.next('svids');

  await spiffe.withdraw('web');
  const withdrawn = await watcher.next('watchError');
  await spiffe.restore('web');
  const restored = await watcher.next('svids');

  assert.match(String(withdrawn['watchError']), /PermissionDenied/);
  assert.equal(x509Of(restored).svids[0]?.id, WEB);
});

test('py-spiffe fetches SVIDs, bundles and JWT-SVIDs', needs('python'), async (t) => {
  const spiffe = await startDomains(t);

  const said = await runPython('spiffe_peer', 'fetch', spiffe.endpoint('web'), AUDIENCE);

  assert.equal(said['error'], undefined);
  const { svids, bundles } = said['x509'] as X509View;
  assert.deepEqual(
    svids.map(({ id }) => id),
    [WEB],
  );
  assert.deepEqual(bundles, { 'example.org': 1, 'other.example': 1 });
  assert.deepEqual([said['jwt'], said['validated']], [WEB, WEB]);
  assert.deepEqual([said['x509Bundles'], said['jwtBundles']], [Object.keys(bundles).toSorted(), Object.keys(bundles).toSorted()]);
});

test('py-spiffe follows a rotation', needs('python'), async (t) => {
  const spiffe = await startDomains(t);
  const watcher = await startPython(t, 'spiffe_peer', ['watch', spiffe.endpoint('web')]);
  const first = await watcher.next('svids');

  await spiffe.rotate('example.org');
  const second = await watcher.next('svids');

  assert.notEqual(serialOf(first), serialOf(second));
});

test('spiffe-defakto verifies what it fetches, and follows a rotation', needs('python'), async (t) => {
  const spiffe = await startDomains(t);
  const client = await startPython(t, 'defakto_peer', [AUDIENCE], { env: { SPIFFE_ENDPOINT_SOCKET: spiffe.endpoint('web') } });

  const fetched = await client.next('id');
  const first = await client.next('serial');
  await spiffe.rotate('example.org');
  const second = await client.next('serial');

  assert.deepEqual(fetched, { id: WEB, verified: WEB, jwt: WEB, validated: WEB });
  assert.deepEqual(first['bundles'], ['example.org', 'other.example']);
  assert.notEqual(first['serial'], second['serial']);
});

test('go-spiffe is served by the command "scute dev", which rotates by itself', needs('go-spiffe'), async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'scute-dev-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const socket = join(folder, 'web.sock');
  const config = { trustDomains: [{ name: 'example.org', svidLife: '1m', rotateEvery: '500ms', workloads: [{ socket, ids: [WEB] }] }] };
  const dev = await startScute({ config, args: ['dev'] });
  t.after(() => dev.stop());
  await dev.child.line(/^READY$/);

  const watcher = await startGo(t, 'watch', '-socket', `unix://${socket}`);
  const serials = [serialOf(await watcher.next('svids')), serialOf(await watcher.next('svids')), serialOf(await watcher.next('svids'))];
  const exit = await dev.stop();

  assert.equal(new Set(serials).size, 3);
  assert.deepEqual(exit, { code: 0, signal: null });
});
