/** Makes the certificates of the self-test anew: prints the lines that `src/tls/self-test-certificates.ts` holds. */
import { createPublicKey } from 'node:crypto';
import {
  keyOf,
  LEAF_SENTENCE,
  SELF_TEST_DOMAIN,
  SELF_TEST_ID,
  type SelfTestCertificates,
} from '../../../src/tls/self-test-certificates.ts';
import { createTestAuthority, keyIdOf, type KeyPair } from './pki.ts';

const VALIDITY = { notBefore: 0, notAfter: Date.UTC(9999, 11, 31, 23, 59, 59) };
const AUTHORITY_SENTENCE = 'Scute self-test, authority: not a secret, nothing trusts what is signed with it';
const FORGER_SENTENCE = 'Scute self-test, forger: not a secret, nothing trusts what is signed with it';

/** All but the signatures comes out the same each time. The forged SVID is the good one with another signature. */
export function makeSelfTestCertificates(): SelfTestCertificates {
  const key = pairOf(AUTHORITY_SENTENCE);
  const keyId = keyIdOf(key.publicKey);
  const issuer = { ...VALIDITY, trustDomain: SELF_TEST_DOMAIN, subject: 'self-test authority', serial: '01', subjectKeyId: keyId };
  const leaf = { ...VALIDITY, subject: '', id: SELF_TEST_ID, serial: '02', key: pairOf(LEAF_SENTENCE) };
  const authority = createTestAuthority({ ...issuer, key });
  const forger = createTestAuthority({ ...issuer, key: pairOf(FORGER_SENTENCE) });
  return { authority: authority.der, good: authority.issue(leaf).der, forged: forger.issue(leaf).der };
}

function pairOf(sentence: string): KeyPair {
  const privateKey = keyOf(sentence);
  return { privateKey, publicKey: createPublicKey(privateKey) };
}

if (import.meta.main) {
  for (const [name, der] of Object.entries(makeSelfTestCertificates()))
    process.stdout.write(`const ${name.toUpperCase()} = '${Buffer.from(der).toString('base64')}';\n`);
}
