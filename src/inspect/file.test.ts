import assert from 'node:assert/strict';
import { test } from 'node:test';
import { x509Key } from '../../test/support/bundle-endpoint.ts';
import { createTestAuthority, pemOf } from '../../test/support/pki/pki.ts';
import { inspectFile, type FileReport } from './file.ts';

const NOW_MS = Date.now();

function read(content: string | Uint8Array): FileReport {
  return inspectFile(typeof content === 'string' ? Buffer.from(content) : content, NOW_MS);
}

/** Kind, SPIFFE ID and what signed it, by place. */
function linked({ certificates }: FileReport): readonly string[] {
  const place = (id: string | null): string => (id === null ? '-' : String(certificates.findIndex((each) => each.id === id)));
  return certificates.map(({ kind, spiffeId, issuer }) => `${kind} ${spiffeId} ${place(issuer)}`);
}

test('PEM: a chain with its authority, each linked to what signed it, whatever stands between them', () => {
  const root = createTestAuthority();
  const middle = root.intermediate();
  const leaf = middle.issue({ id: 'spiffe://example.org/web' });

  const report = read(`subject=x\r\n${leaf.pem.replaceAll('\n', '\r\n')}# and\n${middle.pem}${root.pem}`);

  assert.deepEqual([report.form, report.problems, report.privateKeys], ['pem', [], 0]);
  assert.deepEqual(linked(report), ['svid spiffe://example.org/web 1', 'intermediate null 2', 'authority null -']);
  assert.deepEqual(
    report.certificates.map(({ trustDomain, validity }) => `${trustDomain} ${validity}`),
    Array(3).fill('example.org valid'),
  );
  // What only bears the name of the issuer signed nothing.
  assert.deepEqual(linked(read(leaf.pem + root.intermediate().pem)), ['svid spiffe://example.org/web -', 'intermediate null -']);
  assert.deepEqual(linked(read(middle.pem)), ['authority null -'], 'a bundle: an authority need not be self-signed');
});

test('the lint of a leaf and of an authority are those by which peers are judged', () => {
  const root = createTestAuthority({ keyUsage: null });
  const leaf = root.issue({
    uriSans: ['spiffe://example.org/a', 'spiffe://example.org/b'],
    keyUsage: ['keyCertSign'],
    notAfter: NOW_MS - 1,
  });
  const [svid, authority] = read(leaf.pem + root.pem).certificates;

  assert.deepEqual([svid?.spiffeId, svid?.validity], [null, 'expired']);
  assert.deepEqual(
    svid?.findings.map(({ verdict, clause }) => `${verdict} ${clause}`),
    ['refused X509-SVID 2', 'refused X509-SVID 4.3', 'refused X509-SVID 4.3'],
  );
  assert.deepEqual(
    authority?.findings.map(({ verdict, clause }) => `${verdict} ${clause}`),
    ['tolerated X509-SVID 4.3'],
  );
});

test('of private keys nothing is told but that they are there, in each of their forms', () => {
  const root = createTestAuthority();
  const leaf = root.issue();
  const sec1 = leaf.keys.privateKey.export({ format: 'der', type: 'sec1' });
  const jwk = JSON.stringify({ keys: [{ ...leaf.keys.privateKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'a' }] });
  for (const [content, certificates] of [
    [leaf.pem + leaf.keyPem, 1],
    [leaf.keyPem, 0],
    [pemOf('EC PRIVATE KEY', sec1) + leaf.pem, 1],
    [pemOf('ENCRYPTED PRIVATE KEY', sec1), 0],
    [leaf.keyDer, 0],
    [sec1, 0],
    [Buffer.concat([leaf.der, leaf.keyDer]), 1],
    [jwk, 0],
  ] as const) {
    const report = read(content);
    assert.deepEqual([report.privateKeys, report.certificates.length, report.problems], [1, certificates, []]);
    assert.deepEqual(report.notes.length, content === jwk ? 1 : 0);
    const said = JSON.stringify(report);
    for (const secret of [leaf.keyDer.toString('base64').slice(20, 60), sec1.toString('base64').slice(20, 60)])
      assert.ok(!said.includes(secret));
    const { d = '' } = leaf.keys.privateKey.export({ format: 'jwk' });
    assert.ok(d !== '' && !said.includes(d));
  }
  const cut = read(leaf.keyPem.slice(0, 80));
  assert.deepEqual([cut.privateKeys, cut.problems], [1, ['a private key has no end']]);
});

test('DER: certificates one after the other, or a revocation list; and a list in PEM', () => {
  const root = createTestAuthority();
  const leaf = root.issue();
  assert.deepEqual(linked(read(Buffer.concat([leaf.der, root.der]))), ['svid spiffe://example.org/workload 1', 'authority null -']);

  const crl = root.crl({ revoked: ['01'] });
  for (const content of [crl, pemOf('X509 CRL', crl)]) {
    const [list] = read(content).revocationLists;
    assert.match(list?.issuerName ?? '', /CN=Root example\.org/);
    assert.ok(Date.parse(list?.nextUpdate ?? '') > NOW_MS);
  }
});

test('a SPIFFE bundle: its authorities, its keys for JWT-SVIDs by kid, and what it says of itself', () => {
  const root = createTestAuthority();
  const { publicKey } = createTestAuthority().keys;
  const jwt = { ...publicKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'the-kid' };

  const report = read(JSON.stringify({ keys: [x509Key(root), jwt], spiffe_sequence: 7, spiffe_refresh_hint: 300 }));

  assert.deepEqual([report.form, report.sequence, report.refreshHint, report.problems], ['bundle', '7', 300, []]);
  assert.deepEqual(linked(report), ['authority null -']);
  assert.deepEqual(report.jwtKeys, [{ keyId: 'the-kid', keyType: 'ec prime256v1' }]);
  assert.deepEqual(read('{"keys":[]}').notes, ['it has no X.509 authority: nobody of the trust domain is trusted by it']);
});

test('what cannot be read is named, and what can be is shown beside it', () => {
  const { pem } = createTestAuthority();
  const report = read(
    `${pem}${pemOf('CERTIFICATE', Buffer.from('no'))}-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n${pemOf('PUBLIC KEY', Buffer.from('a'))}`,
  );

  assert.equal(report.certificates.length, 1);
  assert.match(report.problems[0] ?? '', /^certificate 2: not a well-formed certificate: /);
  assert.deepEqual([report.problems.slice(1), report.notes], [['a CERTIFICATE is not base64'], ['a PUBLIC KEY is not shown']]);
  for (const [content, problem] of [
    ['', /^there is no certificate in it$/],
    ['hello', /^neither PEM nor a SPIFFE bundle, and not a row of certificates: /],
    ['{"keys":1}', /^the bundle has no list "keys"$/],
    ['{', /^not a SPIFFE bundle: /],
    ['-----BEGIN CERTIFICATE-----\n', /^a CERTIFICATE has no end$/],
  ] as const) {
    const { problems } = read(content);
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? '', problem);
  }
});

test('a file of more certificates than are of use is read to a bound', () => {
  const { pem } = createTestAuthority();
  for (const part of [pem, '-----BEGIN X-----\n-----END X-----\n', '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n']) {
    const report = read(part.repeat(300));
    assert.deepEqual(report.problems.at(-1), 'there are more than 256 parts: the rest was not read');
    assert.ok(report.certificates.length + report.notes.length + report.problems.length <= 257);
  }
});
