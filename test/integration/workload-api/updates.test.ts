import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority, type CertificateOptions } from '../../support/pki/pki.ts';
import { startSource, type SourceHarness } from '../../support/source-harness.ts';
import { FakeWorkloadApi, svidEntry, type SvidEntry } from '../../support/workload-api.ts';

const authority = createTestAuthority();
const stranger = createTestAuthority();
const partner = createTestAuthority({ trustDomain: 'partner.test' });
const OLD = 'spiffe://example.org/old';
const NEW = 'spiffe://example.org/new';
const AFTER = 'spiffe://example.org/after';

function issued(id: string, options: CertificateOptions = {}, changes: Partial<SvidEntry> = {}): SvidEntry {
  return svidEntry(authority, authority.issue({ id, ...options }), id, changes);
}

async function holding(t: TestContext, api: FakeWorkloadApi, ...svids: SvidEntry[]): Promise<SourceHarness> {
  api.setX509(svids);
  const source = await startSource(t, api.endpoint);
  await source.held();
  return source;
}

/** The update is refused as `code`; the old SVID stays; the same stream then brings a good one. */
async function assertIgnored(t: TestContext, update: readonly SvidEntry[], code: string): Promise<void> {
  await using api = await FakeWorkloadApi.start();
  const source = await holding(t, api, issued(OLD));

  api.setX509(update);
  api.setX509([issued(AFTER)]);
  await source.held(AFTER);

  assert.deepEqual(
    source.rejected.map((problem) => problem.code),
    [code],
  );
  assert.deepEqual(
    source.published.map((snapshot) => (snapshot.kind === 'held' ? snapshot.svids[0].id : 'none')),
    [OLD, AFTER],
  );
  assert.equal(api.calls.length, 1);
}

const EMPTY = new Uint8Array();
const MALFORMED: Readonly<Record<string, readonly SvidEntry[]>> = {
  'empty-svids': [],
  'empty-spiffe-id': [issued(NEW, {}, { spiffeId: '' })],
  'empty-x509-svid': [issued(NEW, {}, { x509Svid: EMPTY })],
  'empty-key': [issued(NEW, {}, { x509SvidKey: EMPTY })],
  'empty-bundle': [issued(NEW, {}, { bundle: EMPTY })],
};
for (const [name, update] of Object.entries(MALFORMED)) {
  test(`WA-2/${name}: the update is ignored, and the old SVID served throughout`, (t) => assertIgnored(t, update, 'missing_field'));
}

const HOSTILE: readonly [string, string, SvidEntry, string][] = [
  ['HX-1', 'has a bad signature', issued(NEW, { badSignature: true }), 'untrusted_chain'],
  ['HX-2', 'does not chain to its own bundle', issued(NEW, {}, { bundle: stranger.der }), 'untrusted_chain'],
  ['HX-3', 'is expired', issued(NEW, { notBefore: Date.now() - 120_000, notAfter: Date.now() - 60_000 }), 'expired'],
  ['HX-4', 'has cA=true', issued(NEW, { isCa: true }), 'not_an_svid'],
  ['HX-5', 'has keyCertSign', issued(NEW, { keyUsage: ['digitalSignature', 'keyCertSign'] }), 'not_an_svid'],
  ['HX-6', 'has two URI SANs', issued(NEW, { uriSans: [NEW, OLD] }), 'not_an_svid'],
  ['HX-7', 'has a URI that is no SPIFFE ID', issued(NEW, { uriSans: ['https://example.org/new'] }), 'not_an_svid'],
  ['HX-8', 'has a key that does not match', issued(NEW, {}, { x509SvidKey: authority.issue().keyDer }), 'key_mismatch'],
  ['HX-9', 'has a spiffe_id that differs from the SAN', issued(NEW, {}, { spiffeId: OLD }), 'wrong_spiffe_id'],
];
for (const [id, what, entry, code] of HOSTILE) {
  test(`${id}: an SVID that ${what} is ignored`, (t) => assertIgnored(t, [entry], code));
}

test('WA-3: the first SVID is the default, also after the order has changed', async (t) => {
  await using api = await FakeWorkloadApi.start();
  const [one, other] = [issued(OLD), issued(NEW)];
  const source = await holding(t, api, one, other);
  assert.equal(source.view.current()?.kind === 'held' && (await source.held()).svids[0].id, OLD);

  api.setX509([other, one]);

  assert.equal((await source.held(NEW)).svids[1]?.id, OLD);
});

test('a rotated SVID is published as a later generation, with the time of its receipt', async (t) => {
  await using api = await FakeWorkloadApi.start();
  const beforeMs = Date.now();
  const source = await holding(t, api, issued(OLD));
  const first = await source.held();

  api.setX509([issued(OLD)]);
  await eventually(() => assert.equal(source.published.length, 2));

  const second = await source.held();
  assert.equal(second.generation, first.generation + 1);
  assert.notEqual(second.svids[0].chain[0]?.serial, first.svids[0].chain[0]?.serial);
  assert.ok(first.receivedAtMs >= beforeMs && second.receivedAtMs >= first.receivedAtMs);
  assert.ok(Object.isFrozen(second));
});

test('an SVID with intermediates keeps its chain, leaf first', async (t) => {
  await using api = await FakeWorkloadApi.start();
  const intermediate = authority.intermediate();
  const leaf = intermediate.issue({ id: NEW });

  const source = await holding(t, api, svidEntry(authority, leaf, NEW));

  const { chain } = (await source.held(NEW)).svids[0];
  assert.deepEqual(
    chain.map((certificate) => Buffer.from(certificate.der()).toString('hex')),
    [leaf.der.toString('hex'), intermediate.der.toString('hex')],
  );
});

test('a message that says the same as the last is not published again', async (t) => {
  await using api = await FakeWorkloadApi.start();
  const entry = issued(OLD);
  const source = await holding(t, api, entry);

  api.setX509([entry]);
  api.setX509([issued(AFTER)]);
  await source.held(AFTER);

  assert.equal(source.published.length, 2);
});

test('what is absent from the newest message is withdrawn: a federated bundle, an authority, a second SVID', async (t) => {
  await using api = await FakeWorkloadApi.start();
  const both = Buffer.concat([authority.der, stranger.der]);
  api.setX509([issued(OLD, {}, { bundle: both }), issued(NEW, {}, { bundle: both })], { 'spiffe://partner.test': partner.der });
  const source = await startSource(t, api.endpoint);
  const first = await source.held();
  assert.equal(first.bundles.size, 2);

  api.setX509([issued(AFTER)]);

  const second = await source.held(AFTER);
  assert.equal(second.svids.length, 1);
  assert.deepEqual(
    [...second.bundles.values()].map((bundle) => [bundle.trustDomain, bundle.authorities.length]),
    [['example.org', 1]],
  );
});

test('garbage on a good stream is refused, and neither the stream nor what is held suffers', async (t) => {
  await using api = await FakeWorkloadApi.start();
  const source = await holding(t, api, issued(OLD));

  for (const bytes of [[0xff], [0x0a, 0x7f], [0x0a, 0x02, 0x08, 0x01], []]) api.sendRawOnce('FetchX509SVID', Buffer.from(bytes));
  api.setX509([issued(AFTER)]);
  await source.held(AFTER);

  assert.equal(source.rejected.length, 4);
  assert.equal(source.failures.length, 0);
  assert.equal(api.calls.length, 1);
});

test('a bundle of 50 authorities is held whole', async (t) => {
  await using api = await FakeWorkloadApi.start();
  const others = Array.from({ length: 49 }, () => createTestAuthority().der);

  const source = await holding(t, api, issued(NEW, {}, { bundle: Buffer.concat([...others, authority.der]) }));

  const [bundle] = (await source.held(NEW)).bundles.values();
  assert.equal(bundle?.authorities.length, 50);
});
