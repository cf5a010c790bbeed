/** Peers that look right to everything but a signature check, on real sockets, in both roles. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleMap, ownSvid, present, presentWith, ROLES, startBothRoles } from '../../support/both-roles.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import type { Presented } from '../../support/tls-peer.ts';

const ID = 'spiffe://example.org/peer';
const PARTNER_ID = 'spiffe://partner.test/peer';
const ROOT_KEY_ID = Buffer.from('a1'.repeat(20), 'hex');
const LEAF_KEY_ID = Buffer.from('b2'.repeat(20), 'hex');
const SERIAL = '4a1b2c3d';
const root = createTestAuthority({ subjectKeyId: ROOT_KEY_ID });
/** The same names, key identifiers and dates, and another key. */
const forger = createTestAuthority({ subjectKeyId: ROOT_KEY_ID });
const own = ownSvid(root, 'spiffe://example.org/own');
const genuine = root.issue({ id: ID, serial: SERIAL, subjectKeyId: LEAF_KEY_ID });
const forged = forger.issue({ id: ID, serial: SERIAL, subjectKeyId: LEAF_KEY_ID });
const intermediate = root.intermediate();
const DISGUISES: readonly [string, Presented][] = [
  ['alone', present(forged)],
  ['with the authority that made it', presentWith(forged, forger.der)],
  ['with the real authority', presentWith(forged, root.der)],
  ['with both authorities', presentWith(forged, forger.der, root.der)],
  ['with the genuine SVID that it imitates', presentWith(forged, genuine.der)],
  ['with a real intermediate of the real authority', presentWith(forged, intermediate.der, root.der)],
  ['signed by the real authority, with one bit of the signature flipped', present(root.issue({ id: ID, badSignature: true }))],
];

for (const tlsVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
  test(`over ${tlsVersion} a forged SVID is refused although its handshake succeeds`, async (t) => {
    const between = await startBothRoles(t, [own.entry], { tlsVersion });
    for (const role of ROLES) {
      for (const [how, peer] of DISGUISES) {
        await t.test(`as ${role}: ${how}`, async () => {
          await between.admits(role, genuine, ID);

          const { line } = await between.refuses(role, peer, 'untrusted_chain');

          // The handshake was over: it is our verdict that keeps the peer out.
          assert.equal(line['tls_version'], tlsVersion);
          assert.equal(typeof line['handshake_ms'], 'number');
          assert.equal(line['close_reason'], role === 'server' ? 'denied' : 'upstream_denied');
          assert.equal(line['peer_id'], undefined);
          assert.match(String(line['detail']), /claims to be spiffe:\/\/example\.org\/peer/);
        });
      }
    }
  });

  test(`over ${tlsVersion} a client without a certificate is refused as no_certificate`, async (t) => {
    const between = await startBothRoles(t, [own.entry], { tlsVersion });
    await between.admits('server', genuine, ID);

    const met = await between.meet('server', undefined);

    assert.deepEqual([met.peerReceived, met.applicationReceived, met.applicationConnections], ['', '', 0]);
    assert.equal(met.line['reason'], 'no_certificate');
  });
}

/** Many authorities are named alike: by default SPIRE gives all of its own one name. */
for (const [alike, keyId] of [
  ['the name', undefined],
  ['the name and the key identifier', ROOT_KEY_ID],
] as const) {
  test(`where a federated authority has ${alike} of ours, neither vouches for the other's trust domain`, async (t) => {
    const partner = createTestAuthority({ trustDomain: 'partner.test', subject: root.name, ...(keyId && { subjectKeyId: keyId }) });
    const between = await startBothRoles(t, [own.entry], { federated: bundleMap(partner), alsoAllowed: ['partner.test'] });
    for (const role of ROLES) {
      await t.test(`as ${role}: our ID by the federated authority`, async () => {
        await between.admits(role, root.issue({ id: ID }), ID);
        const leaf = partner.issue({ id: ID });
        for (const others of [[], [partner.der], [root.der], [intermediate.der, root.der]])
          await between.refuses(role, presentWith(leaf, ...others), 'untrusted_chain');
      });
      await t.test(`as ${role}: the federated ID by our authority`, async () => {
        await between.admits(role, partner.issue({ id: PARTNER_ID }), PARTNER_ID);
        const leaf = intermediate.issue({ id: PARTNER_ID });
        for (const others of [[], [intermediate.der], [intermediate.der, root.der], [intermediate.der, partner.der]])
          await between.refuses(role, presentWith(leaf, ...others), 'untrusted_chain');
      });
    }
  });
}
