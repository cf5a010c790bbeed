/** Public conformance suite, groups XS, WA and HX: what a listener presents on new connections, in both roles. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test, type TestContext } from 'node:test';
import { status } from '@grpc/grpc-js';
import { ownSvid, ROLES, startBothRoles, type BothRoles } from '../../support/both-roles.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority, type CertificateOptions, type TestCertificate } from '../../support/pki/pki.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';
import { svidEntry, type SvidEntry } from '../../support/workload-api.ts';

const PEER = 'spiffe://example.org/peer';
const OLD = 'spiffe://example.org/old';
const NEW = 'spiffe://example.org/new';
const root = createTestAuthority();
const second = createTestAuthority({ subject: 'Second root' });
const stranger = createTestAuthority();
const peer = root.issue({ id: PEER });

/** New connections in both roles show this leaf, first. */
async function assertPresents(between: BothRoles, leaf: TestCertificate, from: TestCertificate = peer): Promise<void> {
  for (const role of ROLES) {
    const { ours } = await between.admits(role, from, PEER);
    assert.deepEqual(ours[0], leaf.der, `as ${role}`);
  }
}

test('XS-1: the SVID that was fetched is presented', async (t) => {
  const { entry, leaf } = ownSvid(root, OLD);
  const between = await startBothRoles(t, [entry]);

  await assertPresents(between, leaf);
});

test('XS-2: the whole chain is presented, leaf first', async (t) => {
  const leaf = root.intermediate({ subject: 'Upper' }).intermediate({ subject: 'Lower' }).issue({ id: OLD });
  const between = await startBothRoles(t, [svidEntry(root, leaf, OLD)]);

  for (const role of ROLES) {
    const { ours } = await between.admits(role, peer, PEER);
    assert.equal(leaf.chain.length, 3);
    assert.deepEqual(ours, leaf.chain, `as ${role}`);
  }
});

test('XS-3: a rotated SVID is presented on new connections', async (t) => {
  const [one, other] = [ownSvid(root, OLD), ownSvid(root, OLD)];
  const between = await startBothRoles(t, [one.entry]);
  await assertPresents(between, one.leaf);

  assert.equal(await between.tell([other.entry]), 'ok');

  await assertPresents(between, other.leaf);
});

test('XS-4: of a bundle of two concatenated authorities both are trusted', async (t) => {
  const leaf = root.issue({ id: OLD });
  const entry = svidEntry(root, leaf, OLD, { bundle: Buffer.concat([root.der, second.der]) });
  const between = await startBothRoles(t, [entry]);

  await assertPresents(between, leaf);
  await assertPresents(between, leaf, second.issue({ id: PEER }));
});

test('XS-5: once an authority is dropped from the bundle, its peers are refused', async (t) => {
  const both = Buffer.concat([root.der, second.der]);
  const between = await startBothRoles(t, [svidEntry(root, root.issue({ id: OLD }), OLD, { bundle: both })]);
  const dropped = second.issue({ id: PEER });
  for (const role of ROLES) await between.admits(role, dropped, PEER);

  assert.equal(await between.tell([ownSvid(root, OLD).entry]), 'ok');

  for (const role of ROLES) {
    await between.refuses(role, dropped, 'untrusted_chain');
    await between.admits(role, peer, PEER);
  }
});

test('WA-1: after a stream was closed with Unavailable, the SVID of the new stream is presented', async (t) => {
  const [one, other] = [ownSvid(root, OLD), ownSvid(root, NEW)];
  const between = await startBothRoles(t, [one.entry]);
  await assertPresents(between, one.leaf);

  between.api.failWith('FetchX509SVID', status.UNAVAILABLE, { times: 2 });
  await assertPresents(between, one.leaf);
  await eventually(() => assert.equal(between.api.openStreams('FetchX509SVID'), 1));
  assert.equal(await between.tell([other.entry]), 'ok');

  await assertPresents(between, other.leaf);
});

test('WA-3: the first SVID of the list is presented, also after the order has changed', async (t) => {
  const [one, other] = [ownSvid(root, OLD), ownSvid(root, NEW)];
  const between = await startBothRoles(t, [one.entry, other.entry]);
  await assertPresents(between, one.leaf);

  assert.equal(await between.tell([other.entry, one.entry]), 'ok');

  await assertPresents(between, other.leaf);
});

test('WA-4: after PermissionDenied nothing is presented any more within 5 s, until an SVID is given again', async (t) => {
  const [one, other] = [ownSvid(root, OLD), ownSvid(root, OLD)];
  const between = await startBothRoles(t, [one.entry]);
  await assertPresents(between, one.leaf);
  const { api, sidecar } = between;

  api.failWith('FetchX509SVID', status.PERMISSION_DENIED);
  await eventually(() => assert.ok(sidecar.log().some(({ message }) => message === 'identity withdrawn')));
  const refused = await knock(t, between);
  assert.deepEqual(refused, { presented: 0, text: '', answer: '' });
  for (const listener of ['in', 'out'])
    assert.ok(sidecar.log().some((line) => line['listener'] === listener && line['reason'] === 'identity_not_ready'));
  assert.ok(sidecar.app.notReady().length > 0);

  api.setX509([other.entry]);
  await sidecar.ready();
  await assertPresents(between, other.leaf);
});

/** What one attempt each at both listeners came to, while there is nothing to present. */
async function knock(t: TestContext, { sidecar }: BothRoles): Promise<{ presented: number; text: string; answer: string }> {
  const socket = tlsClient(t, sidecar.address('in'), { cert: peer.chainPem, key: peer.keyPem });
  let presented = 0;
  socket.once('secureConnect', () => {
    presented += 1;
  });
  const { text } = await outcome(socket);
  // Not `dial`: the refusal may be faster than the connection.
  const caller = connect({ host: '127.0.0.1', port: Number(sidecar.address('out').split(':')[1]) });
  caller.on('error', () => undefined);
  t.after(() => caller.destroy());
  let answer = '';
  caller.on('data', (chunk: Buffer) => {
    answer += chunk.toString();
  });
  caller.write('question\n');
  await new Promise((resolve) => caller.once('close', resolve));
  return { presented, text, answer };
}

function issued(id: string, options: CertificateOptions = {}, changes: Partial<SvidEntry> = {}): SvidEntry {
  return svidEntry(root, root.issue({ id, ...options }), id, changes);
}

const EMPTY = new Uint8Array();
const IGNORED: readonly [string, string, readonly SvidEntry[]][] = [
  ['WA-2/empty-svids', 'without SVIDs', []],
  ['WA-2/empty-spiffe-id', 'without a spiffe_id', [issued(NEW, {}, { spiffeId: '' })]],
  ['WA-2/empty-x509-svid', 'without a certificate', [issued(NEW, {}, { x509Svid: EMPTY })]],
  ['WA-2/empty-key', 'without a key', [issued(NEW, {}, { x509SvidKey: EMPTY })]],
  ['WA-2/empty-bundle', 'without a bundle', [issued(NEW, {}, { bundle: EMPTY })]],
  ['HX-1', 'whose SVID has a bad signature', [issued(NEW, { badSignature: true })]],
  ['HX-2', 'whose SVID does not chain to its own bundle', [issued(NEW, {}, { bundle: stranger.der })]],
  ['HX-3', 'whose SVID is expired', [issued(NEW, { notBefore: Date.now() - 120_000, notAfter: Date.now() - 60_000 })]],
  ['HX-4', 'whose SVID has cA=true', [issued(NEW, { isCa: true })]],
  ['HX-5', 'whose SVID has keyCertSign', [issued(NEW, { keyUsage: ['digitalSignature', 'keyCertSign'] })]],
  ['HX-6', 'whose SVID has two URI names', [issued(NEW, { uriSans: [NEW, OLD] })]],
  ['HX-7', 'whose SVID has a URI that is no SPIFFE ID', [issued(NEW, { uriSans: ['https://example.org/new'] })]],
  ['HX-8', 'whose key is another one', [issued(NEW, {}, { x509SvidKey: root.issue().keyDer })]],
  ['HX-9', 'whose spiffe_id differs from the certificate', [issued(NEW, {}, { spiffeId: OLD })]],
];

test('WA-2, HX-1 to HX-9: an update that must be ignored changes nothing that is presented or trusted', async (t) => {
  const held = ownSvid(root, OLD);
  let now = held.leaf;
  const between = await startBothRoles(t, [held.entry]);
  for (const [id, what, update] of IGNORED) {
    await t.test(`${id}: after an update ${what} the old SVID is still presented, and a good one later`, async () => {
      await assertPresents(between, now);

      assert.equal(await between.tell(update), 'rejected');

      await assertPresents(between, now);
      for (const role of ROLES) await between.refuses(role, stranger.issue({ id: PEER }), 'untrusted_chain');
      const later = ownSvid(root, OLD);
      assert.equal(await between.tell([later.entry]), 'ok');
      now = later.leaf;
      await assertPresents(between, now);
    });
  }
});
