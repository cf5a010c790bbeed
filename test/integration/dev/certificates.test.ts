import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import type { IssuedPem } from '../../../src/devdomain/dev-domain.ts';
import { KEY_TYPES } from '../../../src/devdomain/key-pair.ts';
import { startDevDomain } from '../../support/dev-domain.ts';

const run = promisify(execFile);

/** Rejects if OpenSSL has anything against the certificate in its strictest mode. */
async function opensslVerify(t: TestContext, svid: IssuedPem): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-openssl-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, 'bundle.pem'), svid.bundlePem);
  await writeFile(join(folder, 'chain.pem'), svid.chainPem);
  await writeFile(join(folder, 'leaf.pem'), svid.certPem);
  for (const purpose of ['sslserver', 'sslclient']) {
    const common = ['verify', '-x509_strict', '-purpose', purpose, '-no-CApath', '-no-CAstore', '-CAfile', join(folder, 'bundle.pem')];
    const { stdout } = await run('openssl', [...common, '-untrusted', join(folder, 'chain.pem'), join(folder, 'leaf.pem')]);
    assert.match(stdout, /leaf\.pem: OK/);
  }
}

for (const keyType of KEY_TYPES) {
  for (const intermediates of [0, 2]) {
    test(`openssl verify -x509_strict accepts a ${keyType} SVID below ${intermediates} intermediates as server and as client`, async (t) => {
      const spiffe = await startDevDomain(t, { name: 'example.org', keyType, intermediates });

      const svid = await spiffe.issue('spiffe://example.org/web', { dnsNames: ['web.example.org'] });

      assert.equal(svid.chainDer.length, 1 + intermediates);
      await opensslVerify(t, svid);
    });
  }
}

test('openssl verify -x509_strict accepts an SVID with an empty subject, and one of a long trust domain', async (t) => {
  const longName = `${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.${'d'.repeat(60)}.example`;
  const spiffe = await startDevDomain(t, { name: 'example.org' }, { name: longName });

  await opensslVerify(t, await spiffe.issue('spiffe://example.org/web', { subject: [] }));
  await opensslVerify(t, await spiffe.issue(`spiffe://${longName}/web`));
});

test('an SVID has one URI name, a serial number of 128 random bits, and ends no later than its authority', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', authorityLife: '4h' });

  const short = await spiffe.issue('spiffe://example.org/web', { lifeMs: 5000 });
  const long = await spiffe.issue('spiffe://example.org/web', { lifeMs: 86_400_000 });

  const leaf = new X509Certificate(short.certPem);
  const root = new X509Certificate(short.bundlePem);
  assert.equal(leaf.subjectAltName, 'URI:spiffe://example.org/web');
  assert.equal(leaf.ca, false);
  assert.ok(leaf.validToDate.getTime() <= Date.now() + 5000);
  assert.ok(leaf.validFromDate.getTime() < Date.now());
  assert.ok(BigInt(`0x${leaf.serialNumber}`) >= 2n ** 128n);
  assert.notEqual(leaf.serialNumber, new X509Certificate(long.certPem).serialNumber);
  assert.deepEqual(new X509Certificate(long.certPem).validToDate, root.validToDate);
  assert.equal(root.ca, true);
  assert.equal(root.subjectAltName, 'URI:spiffe://example.org');
});
