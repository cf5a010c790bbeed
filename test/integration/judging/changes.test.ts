/** A peer that was let in is judged anew by what the Workload API said last, even where OpenSSL's pool of authorities is the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ownSvid, ROLES, startBothRoles } from '../../support/both-roles.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';

const ID = 'spiffe://example.org/peer';
const PARTNER_ID = 'spiffe://partner.test/peer';
const root = createTestAuthority();
const partner = createTestAuthority({ trustDomain: 'partner.test' });
const other = createTestAuthority({ trustDomain: 'other.test' });
const own = ownSvid(root, 'spiffe://example.org/own');

for (const role of ROLES) {
  test(`as ${role}: a peer is refused from the answer on that revokes it, and let in again when the list is gone`, async (t) => {
    const between = await startBothRoles(t, [own.entry]);
    const intermediate = root.intermediate();
    const [revoked, spared] = [intermediate.issue({ id: ID }), intermediate.issue({ id: ID })];
    await between.admits(role, revoked, ID);

    assert.equal(await between.tell([own.entry], {}, [root.crl(), intermediate.crl({ revoked: [revoked.serial] })]), 'ok');
    const { line } = await between.refuses(role, revoked, 'revoked');
    assert.match(String(line['detail']), new RegExp(revoked.serial));
    await between.admits(role, spared, ID);

    assert.equal(await between.tell([own.entry], {}, [root.crl({ revoked: [intermediate.serial] })]), 'ok');
    for (const leaf of [revoked, spared]) await between.refuses(role, leaf, 'revoked');

    assert.equal(await between.tell([own.entry]), 'ok');
    await between.admits(role, revoked, ID);
  });

  test(`as ${role}: when authorities change places between trust domains, so does whom they vouch for`, async (t) => {
    const federated = { 'spiffe://partner.test': partner.der, 'spiffe://other.test': other.der };
    const between = await startBothRoles(t, [own.entry], { federated, alsoAllowed: ['partner.test', 'other.test'] });
    const peer = partner.issue({ id: PARTNER_ID });
    await between.admits(role, peer, PARTNER_ID);

    assert.equal(await between.tell([own.entry], { 'spiffe://partner.test': other.der, 'spiffe://other.test': partner.der }), 'ok');
    await between.refuses(role, peer, 'untrusted_chain');
    // Whatever SPIFFE ID the authority itself has: the bundle says whom it may speak for (X509-SVID 3.2).
    await between.admits(role, partner.issue({ id: 'spiffe://other.test/peer' }), 'spiffe://other.test/peer');

    assert.equal(await between.tell([own.entry], { 'spiffe://other.test': partner.der }), 'ok');
    await between.refuses(role, peer, 'unknown_trust_domain');

    assert.equal(await between.tell([own.entry], federated), 'ok');
    await between.admits(role, peer, PARTNER_ID);
  });
}
