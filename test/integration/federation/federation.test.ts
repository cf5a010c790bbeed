import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { status } from '@grpc/grpc-js';
import { bundleJson, sendJson, startEndpoint, type TestEndpoint } from '../../support/bundle-endpoint.ts';
import { ROLES, startBothRoles, type BothRoles } from '../../support/both-roles.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { ask } from '../../support/http/http.ts';
import { createTestAuthority, type TestAuthority } from '../../support/pki/pki.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const PARTNER = 'partner.test';
const ENDPOINT_ID = 'spiffe://partner.test/endpoint';
const PEER = 'spiffe://partner.test/peer';
const US = 'spiffe://example.org/us';
const own = createTestAuthority();
const entry = svidEntry(own, own.issue({ id: US }), US);

interface Stage extends BothRoles {
  readonly partner: TestAuthority;
  readonly endpoint: TestEndpoint;
  readonly clock: FakeClock;
  /** What the endpoint serves from here on, taken by the sidecar. */
  readonly serves: (body: string) => Promise<void>;
}

/** A sidecar of example.org that admits all of partner.test, whose bundle comes from a self-serving endpoint. */
async function startStage(
  t: TestContext,
  { federated, domain = PARTNER }: { readonly federated?: TestAuthority; readonly domain?: string } = {},
): Promise<Stage> {
  const partner = createTestAuthority({ trustDomain: PARTNER });
  const endpoint = await startEndpoint(t, partner.issue({ id: ENDPOINT_ID }), bundleJson([partner], { sequence: 1, hint: 30 }));
  const bundleFile = join(await temporaryFolder(t), 'bundle.pem');
  await writeFile(bundleFile, partner.pem);
  const clock = new FakeClock();
  const roles = await startBothRoles(t, [entry], {
    alsoAllowed: [PARTNER],
    ...(federated === undefined ? {} : { federated: { [`spiffe://${PARTNER}`]: federated.der } }),
    file: { federation: [{ trustDomain: domain, url: endpoint.url, profile: 'https_spiffe', endpointSpiffeId: ENDPOINT_ID, bundleFile }] },
    sidecar: { clock },
  });
  const taken = (): Promise<number> => roles.sidecar.metric('scute_federation_refreshes_total', { result: 'updated' });
  await eventually(async () => assert.ok((await roles.sidecar.metric('scute_federation_refreshes_total')) > 0));
  return {
    ...roles,
    partner,
    endpoint,
    clock,
    async serves(body) {
      const before = await taken();
      endpoint.answer(sendJson(body));
      clock.advance(30_000);
      await eventually(async () => assert.ok((await taken()) > before));
    },
  };
}

for (const role of ROLES) {
  test(`a peer of a trust domain whose bundle comes from its endpoint is admitted (${role})`, async (t) => {
    const { admits, partner, sidecar } = await startStage(t);

    await admits(role, partner.issue({ id: PEER }), PEER);

    assert.ok(
      sidecar.log().some((line) => line.message === 'bundle fetched' && line['trust_domain'] === PARTNER && line['sequence'] === '1'),
    );
  });

  test(`an authority of a bundle endpoint cannot issue an ID of ours, nor ours one of the partner (${role})`, async (t) => {
    const { refuses, partner } = await startStage(t);

    await refuses(role, partner.issue({ id: 'spiffe://example.org/peer' }), 'untrusted_chain');
    await refuses(role, own.issue({ id: PEER }), 'untrusted_chain');
  });

  test(`a rotated bundle is in force without a restart, for those whom it lets in and for those whom it shuts out (${role})`, async (t) => {
    const { admits, refuses, serves, partner } = await startStage(t);
    const next = createTestAuthority({ trustDomain: PARTNER });

    await refuses(role, next.issue({ id: PEER }), 'untrusted_chain');
    await serves(bundleJson([partner, next], { sequence: 2, hint: 30 }));
    await admits(role, next.issue({ id: PEER }), PEER);
    await serves(bundleJson([next], { sequence: 3, hint: 30 }));

    await refuses(role, partner.issue({ id: PEER }), 'untrusted_chain');
  });

  test(`an endpoint that stops to be good changes nothing for who was let in by its last bundle (${role})`, async (t) => {
    const { admits, endpoint, clock, partner, sidecar } = await startStage(t);
    endpoint.answer((_request, response) => response.destroy());
    clock.advance(30_000);
    await eventually(async () => assert.equal(await sidecar.metric('scute_federation_refreshes_total', { result: 'broken' }), 1));

    await admits(role, partner.issue({ id: PEER }), PEER);
  });

  test(`an empty bundle shuts everybody of the trust domain out, and nobody of ours (${role})`, async (t) => {
    const { admits, refuses, serves, partner } = await startStage(t);

    await serves(bundleJson([], { sequence: 2, hint: 30 }));

    await refuses(role, partner.issue({ id: PEER }), 'untrusted_chain');
    await admits(role, own.issue({ id: 'spiffe://example.org/peer' }), 'spiffe://example.org/peer');
  });
}

test('what the Workload API says of a trust domain counts, and the endpoint takes over when it says nothing more', async (t) => {
  const agents = createTestAuthority({ trustDomain: PARTNER });
  const { admits, refuses, tell, partner, sidecar } = await startStage(t, { federated: agents });

  await refuses('server', partner.issue({ id: PEER }), 'untrusted_chain');
  await admits('server', agents.issue({ id: PEER }), PEER);
  assert.equal(await tell([svidEntry(own, own.issue({ id: US }), US)]), 'ok');

  await admits('server', partner.issue({ id: PEER }), PEER);
  await refuses('server', agents.issue({ id: PEER }), 'untrusted_chain');
  assert.equal(await sidecar.metric('scute_x509_svid_updates_total', { result: 'ok' }), 2);
});

test('an endpoint for the trust domain that turns out to be ours lets nobody in, and keeps nobody out', async (t) => {
  const { admits, refuses, partner, sidecar } = await startStage(t, { domain: 'example.org' });
  await eventually(async () => assert.ok((await sidecar.metric('scute_federation_refreshes_total', { result: 'own_trust_domain' })) > 0));

  await refuses('server', partner.issue({ id: 'spiffe://example.org/peer' }), 'untrusted_chain');
  await admits('server', own.issue({ id: 'spiffe://example.org/peer' }), 'spiffe://example.org/peer');
  assert.ok(sidecar.log().some((line) => line['reason'] === 'own_trust_domain'));
});

test('when the Workload API takes our identity back, nothing of endpoints is in force; with a new one it is again', async (t) => {
  const { api, admits, partner, sidecar, clock } = await startStage(t);
  const inForce = (): Promise<number> => sidecar.metric('scute_x509_authority_expiration_timestamp_seconds', { trust_domain: PARTNER });
  assert.ok((await inForce()) > 0);
  api.failWith('FetchX509SVID', status.PERMISSION_DENIED, { times: 1 });
  await eventually(() => assert.ok(sidecar.log().some(({ message }) => message === 'identity withdrawn')));
  assert.equal(await inForce(), 0);

  api.setX509([entry]);
  await eventually(async () => {
    clock.advance(1000);
    assert.ok((await inForce()) > 0);
  });
  await admits('server', partner.issue({ id: PEER }), PEER);
});

test('a partner whose names are too long for a handshake keeps nobody of others out, whoever brought its bundle', async (t) => {
  const { admits, tell, endpoint, clock, partner, sidecar } = await startStage(t);
  const long = Array.from({ length: 100 }, (_, index) =>
    createTestAuthority({ trustDomain: PARTNER, subject: `${index}`.padEnd(1000, 'x') }),
  );
  endpoint.answer(sendJson(bundleJson([partner, ...long], { sequence: 2, hint: 30 })));
  clock.advance(30_000);
  await eventually(async () => assert.equal(await sidecar.metric('scute_federation_refreshes_total', { result: 'long_names' }), 1));
  await admits('server', partner.issue({ id: PEER }), PEER);

  const federated = { [`spiffe://${PARTNER}`]: Buffer.concat([partner, ...long].map(({ der }) => der)) };
  assert.equal(await tell([svidEntry(own, own.issue({ id: US }), US)], federated), 'ok');

  for (const role of ROLES) {
    await admits(role, own.issue({ id: 'spiffe://example.org/peer' }), 'spiffe://example.org/peer');
    await admits(role, partner.issue({ id: PEER }), PEER);
    await admits(role, long[99]?.issue({ id: PEER }) ?? assert.fail(), PEER);
  }
});

test('status pages say where each bundle came from, and what is wrong with an endpoint', async (t) => {
  const authority = createTestAuthority({ trustDomain: PARTNER });
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  api.setX509([entry]);
  const endpoint = await startEndpoint(t, authority.issue({ id: ENDPOINT_ID }), bundleJson([authority], { sequence: 7 }));
  const bundleFile = join(await temporaryFolder(t), 'bundle.json');
  await writeFile(bundleFile, bundleJson([authority]));
  const relation = { profile: 'https_spiffe', endpointSpiffeId: ENDPOINT_ID, bundleFile };
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: api.endpoint },
    inbound: [{ listen: '127.0.0.1:0', to: '127.0.0.1:9', allow: [] }],
    admin: { listen: '127.0.0.1:0' },
    federation: [
      { trustDomain: PARTNER, url: endpoint.url, ...relation },
      { trustDomain: 'other.test', url: endpoint.url, ...relation, endpointSpiffeId: 'spiffe://partner.test/other' },
    ],
  });
  await eventually(async () => assert.ok((await sidecar.metric('scute_federation_refreshes_total')) > 1));
  const admin = sidecar.app.addresses().get('admin') ?? assert.fail();
  const dump = JSON.parse((await ask(admin, '/config_dump')).body) as {
    identity: { bundles: { trust_domain: string; source: string }[] };
    federation: { trust_domain: string; in_force: string | null; sequence: string | null; problem: { reason: string } | null }[];
  };

  assert.deepEqual(
    dump.identity.bundles.map(({ trust_domain, source }) => [trust_domain, source]),
    [
      ['example.org', 'workload_api'],
      [PARTNER, 'bundle_endpoint'],
    ],
  );
  assert.deepEqual(
    dump.federation.map(({ trust_domain, in_force, sequence, problem }) => [trust_domain, in_force, sequence, problem?.reason]),
    [
      [PARTNER, 'bundle_endpoint', '7', undefined],
      ['other.test', null, null, 'not_authenticated'],
    ],
  );
  assert.match(
    (await ask(admin, '/readyz?verbose')).body,
    /^\[!\]federation warning: other\.test: not_authenticated: .*nobody of it is trusted/m,
  );
  assert.deepEqual(sidecar.app.notReady(), []);
  assert.ok((await sidecar.metric('scute_federation_last_success_timestamp_seconds', { trust_domain: PARTNER })) > 0);
  assert.equal(await sidecar.metric('scute_federation_last_success_timestamp_seconds', { trust_domain: 'other.test' }), 0);
  assert.ok((await sidecar.metric('scute_federation_next_refresh_timestamp_seconds', { trust_domain: PARTNER })) > Date.now() / 1000);
  await eventually(async () =>
    assert.ok((await sidecar.metric('scute_federation_refreshes_total', { trust_domain: 'other.test', result: 'not_authenticated' })) > 1),
  );
  assert.equal(sidecar.log().filter((line) => line['reason'] === 'not_authenticated').length, 1, 'said once');
});

test('a bundle file that is not there fails the start', async (t) => {
  const file = {
    trustDomain: PARTNER,
    url: 'https://localhost:1/',
    profile: 'https_spiffe',
    endpointSpiffeId: ENDPOINT_ID,
    bundleFile: '/nowhere',
  };
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());

  await assert.rejects(
    startSidecar(t, {
      workloadApi: { endpoint: api.endpoint },
      inbound: [{ listen: '127.0.0.1:0', to: '127.0.0.1:9', allow: [] }],
      federation: [file],
    }),
    /federation with partner\.test: \/nowhere cannot be read/,
  );
});
