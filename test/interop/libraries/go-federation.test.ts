import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { startEcho } from '../../support/tcp.ts';
import { needs } from '../parts.ts';
import { runGo, startGo } from '../peers.ts';
import { forge, present, temporaryFolder } from '../stage.ts';

const API = 'spiffe://example.org/api';
const OTHER = 'spiffe://example.org/other';
const ENDPOINT = 'spiffe://far.example/endpoint';
const CLIENT = 'spiffe://far.example/client';

/** Two trust domains whose agents know nothing of each other. */
function startDomains(t: TestContext, federatesWith: readonly string[] = []) {
  return startDevDomain(
    t,
    { name: 'example.org', workloads: { api: [API], other: [OTHER] } },
    { name: 'far.example', federatesWith: [...federatesWith], workloads: { endpoint: [ENDPOINT], far: [CLIENT] } },
  );
}

/** A go-spiffe endpoint with the partner's bundle and the SVID of `workload`, as a relation names it that expects `ENDPOINT`. */
async function startEndpoint(t: TestContext, spiffe: DevDomain, workload: string) {
  const endpoint = await startGo(t, 'bundle-endpoint', '-socket', spiffe.endpoint(workload), '-domain', 'far.example');
  const url = `https://${String((await endpoint.first('listening'))['listening'])}/`;
  const bundleFile = join(await temporaryFolder(t), 'far.example.pem');
  await writeFile(bundleFile, spiffe.bundlePem('far.example'));
  return { url, profile: 'https_spiffe', endpointSpiffeId: ENDPOINT, bundleFile };
}

test("go-spiffe's federation client takes our endpoint over https_spiffe, and each rotation of it", needs('go-spiffe'), async (t) => {
  const spiffe = await startDomains(t, ['example.org']);
  const bundleEndpoint = { listen: '127.0.0.1:0', path: '/bundle.json', profile: 'https_spiffe', refreshHint: '2m' };
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('api') }, bundleEndpoint });
  const url = `https://${sidecar.address('bundleEndpoint')}/bundle.json`;
  const fetched = (peer = API) => runGo('bundle', '-socket', spiffe.endpoint('far'), '-domain', 'example.org', '-url', url, '-peer', peer);

  const before = await fetched();
  await spiffe.prepareRoot('example.org');
  const after = await eventually(async () => {
    const said = await fetched();
    assert.equal((said['authorities'] as unknown[] | undefined)?.length, 2);
    return said;
  });

  assert.deepEqual([before['domain'], (before['authorities'] as unknown[]).length, before['hint']], ['example.org', 1, 120]);
  assert.ok(Number(after['sequence']) > Number(before['sequence']));
  assert.match(String((await fetched(OTHER))['error']), /unexpected ID/);
});

test("go-spiffe's federation client takes our endpoint over https_web", needs('go-spiffe'), async (t) => {
  const spiffe = await startDomains(t);
  const folder = await temporaryFolder(t);
  const ca = createTestAuthority({ trustDomain: 'web.test' });
  const leaf = ca.issue({ uriSans: [], dnsSans: ['localhost'] });
  const [certFile, keyFile, roots] = ['cert.pem', 'key.pem', 'roots.pem'].map((name) => join(folder, name)) as [string, string, string];
  await Promise.all([writeFile(certFile, leaf.chainPem), writeFile(keyFile, leaf.keyPem), writeFile(roots, ca.pem)]);
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    bundleEndpoint: { listen: '127.0.0.1:0', profile: 'https_web', certFile, keyFile },
  });
  const port = sidecar.address('bundleEndpoint').split(':').at(-1);

  const said = await runGo('bundle', '-domain', 'example.org', '-url', `https://localhost:${port}/`, '-roots', roots);

  assert.deepEqual([said['domain'], (said['authorities'] as unknown[]).length, said['hint']], ['example.org', 1, 300]);
});

test(
  'a go-spiffe client is admitted by the bundle of a go-spiffe endpoint, and by a rotated one without a restart',
  needs('go-spiffe'),
  async (t) => {
    const spiffe = await startDomains(t, ['example.org']);
    const echo = await startEcho(t);
    const endpoint = await startEndpoint(t, spiffe, 'endpoint');
    const clock = new FakeClock();
    const sidecar = await startSidecar(
      t,
      {
        workloadApi: { endpoint: spiffe.endpoint('api') },
        inbound: [{ name: 'in', listen: '127.0.0.1:0', to: echo.address, allow: ['spiffe://far.example/**'] }],
        federation: [{ trustDomain: 'far.example', ...endpoint }],
      },
      { clock },
    );
    const taken = (count: number): Promise<void> =>
      eventually(async () => assert.equal(await sidecar.metric('scute_federation_refreshes_total', { result: 'updated' }), count));
    const talk = () => runGo('client', '-socket', spiffe.endpoint('far'), '-address', sidecar.address('in'), '-peer', API);
    /** The endpoint hears from its own agent of a rotation, at its own time; asked too early, it would say that nothing changed. */
    const served = (authorities: number): Promise<void> =>
      eventually(async () => {
        const said = await runGo(
          'bundle',
          '-socket',
          spiffe.endpoint('far'),
          '-domain',
          'far.example',
          '-url',
          endpoint.url,
          '-peer',
          ENDPOINT,
        );
        assert.equal((said['authorities'] as unknown[] | undefined)?.length, authorities);
      });
    await taken(1);
    assert.equal((await talk())['reply'], 'hello');

    await spiffe.prepareRoot('far.example');
    await served(2);
    clock.advance(300_000);
    await taken(2);
    await spiffe.activateRoot('far.example');
    assert.equal((await talk())['reply'], 'hello');
    await spiffe.retireRoots('far.example');
    await served(1);
    clock.advance(300_000);
    await taken(3);

    assert.equal((await talk())['reply'], 'hello');
  },
);

test('a go-spiffe endpoint with another SPIFFE ID is not believed, and its domain not trusted', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomains(t, ['example.org']);
  const echo = await startEcho(t);
  const endpoint = await startEndpoint(t, spiffe, 'far');
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to: echo.address, allow: ['spiffe://far.example/**'] }],
    federation: [{ trustDomain: 'far.example', ...endpoint }],
  });
  await eventually(async () => assert.ok((await sidecar.metric('scute_federation_refreshes_total', { result: 'not_authenticated' })) > 0));

  const said = await runGo('client', '-socket', spiffe.endpoint('far'), '-address', sidecar.address('in'), '-peer', API);

  assert.notEqual(said['error'], undefined);
  assert.equal((await sidecar.connection())['reason'], 'unknown_trust_domain');
});

test(
  'a go-spiffe endpoint that is said to be of our own trust domain lets nobody in, and keeps nobody out',
  needs('go-spiffe'),
  async (t) => {
    const spiffe = await startDomains(t, ['example.org']);
    const echo = await startEcho(t);
    // It serves what the partner's agent gives for the partner, and is asked for ours.
    const endpoint = await startEndpoint(t, spiffe, 'endpoint');
    const config = (trustDomain: string) => ({
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [{ name: 'in', listen: '127.0.0.1:0', to: echo.address, allow: [OTHER, CLIENT] }],
      federation: [{ trustDomain, ...endpoint }],
    });
    const refreshes = async (sidecar: Sidecar, result: string): Promise<void> =>
      eventually(async () => assert.ok((await sidecar.metric('scute_federation_refreshes_total', { result })) > 0));
    const talk = (sidecar: Sidecar, workload: string) =>
      runGo('client', '-socket', spiffe.endpoint(workload), '-address', sidecar.address('in'), '-peer', API);
    const partners = await startSidecar(t, config('far.example'));
    await refreshes(partners, 'updated');
    assert.equal((await talk(partners, 'far'))['reply'], 'hello', 'the endpoint is good');

    const ours = await startSidecar(t, config('example.org'));
    await refreshes(ours, 'own_trust_domain');

    assert.equal((await talk(ours, 'other'))['reply'], 'hello');
    present(spiffe, 'far', await forge(spiffe, OTHER, 'far.example'));
    assert.notEqual((await talk(ours, 'far'))['error'], undefined);
    assert.equal((await ours.connection(({ verdict }) => verdict === 'deny'))['reason'], 'untrusted_chain');
  },
);
