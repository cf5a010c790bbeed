/** Public conformance suite, groups XV, XF and ID-1/x509: which peers a listener lets in, in both roles. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleMap, ownSvid, ROLES, startBothRoles } from '../../support/both-roles.ts';
import { createTestAuthority, type TestAuthority, type TestCertificate } from '../../support/pki/pki.ts';

const ID = 'spiffe://example.org/peer';
const PARTNER_ID = 'spiffe://partner.test/peer';
const MINUTE = 60_000;
const root = createTestAuthority();
const stranger = createTestAuthority();
const partner = createTestAuthority({ trustDomain: 'partner.test' });
const own = ownSvid(root, 'spiffe://example.org/own');

const ACCEPTED: readonly [string, string, (from: TestAuthority) => TestCertificate][] = [
  ['XV-1', 'a plain SVID', (from) => from.issue({ id: ID })],
  ['XV-2', 'an SVID through an intermediate', (from) => from.intermediate().issue({ id: ID })],
  ['XV-3', 'an SVID with DNS names beside its ID', (from) => from.issue({ id: ID, dnsSans: ['one.test', '*.other.test'] })],
  ['XV-4', 'an SVID with an empty subject and a critical URI name', (from) => from.issue({ id: ID, subject: '', sanCritical: true })],
];

test('XV-1 to XV-4: peers that a listener accepts', async (t) => {
  const between = await startBothRoles(t, [own.entry]);
  for (const [id, what, issue] of ACCEPTED) {
    for (const role of ROLES) {
      await t.test(`${id}/${role}: ${what} is accepted`, async () => {
        await between.admits(role, issue(root), ID);
      });
    }
  }
});

const now = Date.now();
const REFUSED: readonly [string, string, string, () => TestCertificate][] = [
  ['XV-5', 'an SVID of another CA of the same trust domain name', 'untrusted_chain', () => stranger.issue({ id: ID })],
  ['XV-6', 'an expired SVID', 'expired', () => root.issue({ id: ID, notBefore: now - 10 * MINUTE, notAfter: now - 5 * MINUTE })],
  ['XV-7', 'an SVID that is not yet valid', 'not_yet_valid', () => root.issue({ id: ID, notBefore: now + 5 * MINUTE })],
  ['XV-8', 'a leaf with the CA flag', 'not_an_svid', () => root.issue({ id: ID, isCa: true })],
  ['XV-9', 'a leaf with keyCertSign', 'not_an_svid', () => root.issue({ id: ID, keyUsage: ['digitalSignature', 'keyCertSign'] })],
  ['XV-10', 'a leaf with cRLSign', 'not_an_svid', () => root.issue({ id: ID, keyUsage: ['digitalSignature', 'crlSign'] })],
  ['XV-11', 'a leaf with two URI names', 'not_an_svid', () => root.issue({ uriSans: [ID, `${ID}/other`] })],
  ['XV-12', 'a leaf without a URI name', 'not_an_svid', () => root.issue({ uriSans: [], dnsSans: ['peer.test'] })],
  ['XV-13', 'a leaf whose URI is no SPIFFE ID', 'not_an_svid', () => root.issue({ uriSans: ['https://example.org/peer'] })],
  ['XV-14', 'a leaf whose ID has no path', 'not_an_svid', () => root.issue({ id: 'spiffe://example.org' })],
  ['XV-15', 'an ID of a trust domain without a bundle', 'unknown_trust_domain', () => root.issue({ id: 'spiffe://unknown.test/peer' })],
  ['ID-1/x509-query', 'an ID with a query', 'not_an_svid', () => root.issue({ id: `${ID}?a=b` })],
  ['ID-1/x509-percent-encoded', 'an ID with a percent sign', 'not_an_svid', () => root.issue({ id: 'spiffe://example.org/p%65er' })],
  ['ID-1/x509-trailing-slash', 'an ID that ends in a slash', 'not_an_svid', () => root.issue({ id: `${ID}/` })],
  ['ID-1/x509-port', 'an ID with a port', 'not_an_svid', () => root.issue({ id: 'spiffe://example.org:443/peer' })],
];

test('XV-5 to XV-15, ID-1/x509-*: peers that a listener refuses', async (t) => {
  const between = await startBothRoles(t, [own.entry], { alsoAllowed: ['unknown.test'] });
  for (const [id, what, reason, issue] of REFUSED) {
    for (const role of ROLES) {
      await t.test(`${id}/${role}: ${what} is refused as ${reason}`, async () => {
        await between.admits(role, root.issue({ id: ID }), ID);

        await between.refuses(role, issue(), reason);
      });
    }
  }
  await t.test('refusals count as handshakes that failed, not as verdicts on a peer, and nothing stays open', async () => {
    for (const listener of ['in', 'out']) assert.equal(await between.sidecar.metric('scute_tcp_open_connections', { listener }), 0);
    assert.ok((await between.sidecar.metric('scute_tls_handshakes_total', { reason: 'not_an_svid' })) > 0);
    assert.equal(await between.sidecar.metric('scute_authorization_total', { decision: 'deny' }), 0);
  });
});

test('XF-1 to XF-3: peers of a federated trust domain', async (t) => {
  const between = await startBothRoles(t, [own.entry], { federated: bundleMap(partner), alsoAllowed: ['partner.test'] });
  for (const role of ROLES) {
    await t.test(`XF-1/${role}: a federated peer is accepted, directly and through an intermediate`, async () => {
      await between.admits(role, partner.issue({ id: PARTNER_ID }), PARTNER_ID);
      await between.admits(role, partner.intermediate().issue({ id: PARTNER_ID }), PARTNER_ID);
    });
    await t.test(`XF-2/${role}: the federated authority cannot vouch for an ID of ours`, async () => {
      await between.refuses(role, partner.issue({ id: ID }), 'untrusted_chain');
      await between.refuses(role, partner.intermediate().issue({ id: ID }), 'untrusted_chain');
    });
    await t.test(`XF-2/${role}: our authority cannot vouch for an ID of the federated trust domain`, async () => {
      await between.refuses(role, root.issue({ id: PARTNER_ID }), 'untrusted_chain');
      await between.refuses(role, root.intermediate().issue({ id: PARTNER_ID }), 'untrusted_chain');
    });
  }
  for (const role of ROLES) {
    await t.test(`XF-3/${role}: a peer of a federated trust domain that a later answer leaves out is refused`, async () => {
      const peer = partner.issue({ id: PARTNER_ID });
      const again = ownSvid(root, 'spiffe://example.org/own').entry;
      assert.equal(await between.tell([again], bundleMap(partner)), 'ok');
      await between.admits(role, peer, PARTNER_ID);

      assert.equal(await between.tell([again]), 'ok');

      await between.refuses(role, peer, 'unknown_trust_domain');
      await between.admits(role, root.issue({ id: ID }), ID);
    });
  }
});
