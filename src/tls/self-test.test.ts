import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DerReader } from '../spiffe/x509/der.ts';
import { makeSelfTestCertificates } from '../../test/support/pki/self-test-certificates.ts';
import { selfTestCertificates } from './self-test-certificates.ts';
import { runSelfTest, SelfTestError } from './self-test.ts';

/** All of a certificate but its signature. */
function signedPart(der: Uint8Array): string {
  const whole = new DerReader(der).any();
  return Buffer.from(new DerReader(whole.content).any().whole).toString('hex');
}

for (const [when, atMs] of [
  ['in 1970', 0],
  ['today', Date.now()],
  ['in 2100', Date.UTC(2100, 0, 1)],
  ['in 9999', Date.UTC(9999, 11, 31, 23, 59, 59)],
] as const)
  test(`the self-test passes with our own clock ${when}`, () => runSelfTest(atMs));

test('the self-test fails, and says why, where its SVID does not hold', async () => {
  await assert.rejects(runSelfTest(-1), (thrown) => thrown instanceof SelfTestError && /not_yet_valid/.test(thrown.message));
});

test('the forged SVID of the self-test is the good one in all but the signature', () => {
  const { good, forged } = selfTestCertificates();

  assert.equal(signedPart(forged), signedPart(good));
  assert.notDeepEqual(forged, good);
});

test('the certificates of the self-test are those that test/support/pki/self-test-certificates.ts makes', () => {
  const [kept, made] = [selfTestCertificates(), makeSelfTestCertificates()];

  for (const name of ['authority', 'good', 'forged'] as const) assert.equal(signedPart(kept[name]), signedPart(made[name]), name);
});
