import { createECDH, createHash, createPrivateKey, type KeyObject } from 'node:crypto';

/**
 * What the self-test shows itself: an authority, an SVID of it, and the same SVID signed by somebody else. They are fixed, and valid from 1970
 * to 9999, so that neither a clock that is wrong nor a mistake in writing certificates can fail the test. They protect nothing: nobody trusts
 * this authority but the self-test. `node test/support/pki/self-test-certificates.ts` makes them anew, and prints these three lines.
 */
const AUTHORITY =
  'MIIB4zCCAYmgAwIBAgIBATAKBggqhkjOPQQDAjAzMRMwEQYDVQQKDApTY3V0ZSB0ZXN0MRwwGgYDVQQDDBNzZWxmLXRlc3QgYXV0aG9yaXR5MCAXDTcwMDEwMTAwMDAwMFoYDzk5OTkxMjMxMjM1OTU5WjAzMRMwEQYDVQQKDApTY3V0ZSB0ZXN0MRwwGgYDVQQDDBNzZWxmLXRlc3QgYXV0aG9yaXR5MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZpNxWSij+D6UXqAR15DhRzo5JM5vipGhOmSu3uY0KqnanIh15XADYhSH3+HSqZZZutzMXubqlv3Z1WS5QvEpS6OBizCBiDAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwIBBjAlBgNVHREEHjAchhpzcGlmZmU6Ly9zZWxmLXRlc3QuaW52YWxpZDAdBgNVHQ4EFgQUoVArfUJEsv0d9mE/sMw+eUBClyQwHwYDVR0jBBgwFoAUoVArfUJEsv0d9mE/sMw+eUBClyQwCgYIKoZIzj0EAwIDSAAwRQIgULcJxTSbRhH5wZeAl+a7n0lc6QJrZK3ndQAX2DxRh38CIQCEQPoZI48J86GQz1pvvUg8JsWdtIBvawmxM+l4XscMjg==';
const GOOD =
  'MIIB0zCCAXqgAwIBAgIBAjAKBggqhkjOPQQDAjAzMRMwEQYDVQQKDApTY3V0ZSB0ZXN0MRwwGgYDVQQDDBNzZWxmLXRlc3QgYXV0aG9yaXR5MCAXDTcwMDEwMTAwMDAwMFoYDzk5OTkxMjMxMjM1OTU5WjAAMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEu+rYtSTzJNi2m+F+F7i3nA5C3s7ncmb9usHv0Kl3OGY80NBjCZ1OduzSuWKcF5S1pj4pI/4ik/B8APpzHbbnQ6OBrzCBrDAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQEAwIHgDAdBgNVHSUEFjAUBggrBgEFBQcDAQYIKwYBBQUHAwIwLQYDVR0RAQH/BCMwIYYfc3BpZmZlOi8vc2VsZi10ZXN0LmludmFsaWQvc2VsZjAdBgNVHQ4EFgQUGxrnybQ0LMmR5ykc1OrX4W9e8+IwHwYDVR0jBBgwFoAUoVArfUJEsv0d9mE/sMw+eUBClyQwCgYIKoZIzj0EAwIDRwAwRAIgcnlHh4ToYJXjA3BYHp2n6preNFcGMVx3I907GcnFbVACIDpKkUp2FibrkvIenzIRNigqVwO+Nd9mIdl5tKiRM3Ha';
const FORGED =
  'MIIB1DCCAXqgAwIBAgIBAjAKBggqhkjOPQQDAjAzMRMwEQYDVQQKDApTY3V0ZSB0ZXN0MRwwGgYDVQQDDBNzZWxmLXRlc3QgYXV0aG9yaXR5MCAXDTcwMDEwMTAwMDAwMFoYDzk5OTkxMjMxMjM1OTU5WjAAMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEu+rYtSTzJNi2m+F+F7i3nA5C3s7ncmb9usHv0Kl3OGY80NBjCZ1OduzSuWKcF5S1pj4pI/4ik/B8APpzHbbnQ6OBrzCBrDAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQEAwIHgDAdBgNVHSUEFjAUBggrBgEFBQcDAQYIKwYBBQUHAwIwLQYDVR0RAQH/BCMwIYYfc3BpZmZlOi8vc2VsZi10ZXN0LmludmFsaWQvc2VsZjAdBgNVHQ4EFgQUGxrnybQ0LMmR5ykc1OrX4W9e8+IwHwYDVR0jBBgwFoAUoVArfUJEsv0d9mE/sMw+eUBClyQwCgYIKoZIzj0EAwIDSAAwRQIgey0OQcoiXAS0nDOHx4R+aQ/ZZkRORiUSMq3OLiKHdOQCIQD6M5VhQkjaurWSLpcSvQk0nMtW2eT5A4CVcd0f6y/bmg==';

export const SELF_TEST_DOMAIN = 'self-test.invalid';
export const SELF_TEST_ID = `spiffe://${SELF_TEST_DOMAIN}/self`;
/** No key of the self-test is stored. Each is the digest of a sentence, and so is no secret. */
export const LEAF_SENTENCE = 'Scute self-test, SVID: not a secret, nothing trusts what is signed with it';

/** The P-256 key whose private number is the SHA-256 of `sentence`. */
export function keyOf(sentence: string): KeyObject {
  const number = createHash('sha256').update(sentence).digest();
  const curve = createECDH('prime256v1');
  curve.setPrivateKey(number);
  const point = curve.getPublicKey();
  const text = (bytes: Buffer): string => bytes.toString('base64url');
  // The first byte says that both coordinates follow.
  const [x, y] = [text(point.subarray(1, 33)), text(point.subarray(33))];
  return createPrivateKey({ format: 'jwk', key: { kty: 'EC', crv: 'P-256', x, y, d: text(number) } });
}

/** DER. */
export interface SelfTestCertificates {
  readonly authority: Uint8Array;
  readonly good: Uint8Array;
  readonly forged: Uint8Array;
}

export function selfTestCertificates(): SelfTestCertificates {
  const read = (text: string): Uint8Array => Buffer.from(text, 'base64');
  return { authority: read(AUTHORITY), good: read(GOOD), forged: read(FORGED) };
}
