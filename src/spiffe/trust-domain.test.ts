import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseTrustDomain } from './trust-domain.ts';

function problemOf(text: string): string {
  const parsed = parseTrustDomain(text);
  return parsed.ok ? 'ok' : parsed.error;
}

test('ID-2/trust-domain-chars: of all bytes, a trust domain may have a-z, 0-9, dot, dash and underscore (SPIFFE-ID 2.1)', () => {
  const allowed = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte)).filter(
    (character) => problemOf(`a${character}b`) === 'ok',
  );

  assert.equal(allowed.join(''), '-.0123456789_abcdefghijklmnopqrstuvwxyz');
});

test('ID-2/ipv4-trust-domain: a trust domain may look like an IPv4 address', () => {
  assert.equal(problemOf('10.0.0.1'), 'ok');
});

test('a trust domain has 1 to 255 bytes (SPIFFE-ID 2.3)', () => {
  assert.equal(problemOf(''), 'empty_trust_domain');
  assert.equal(problemOf('a'.repeat(255)), 'ok');
  assert.equal(problemOf('a'.repeat(256)), 'trust_domain_too_long');
});

test('ID-1/invalid-trust-domain-char: upper case, line ends and lookalikes beyond ASCII are refused', () => {
  for (const text of ['Example.org', 'example.org\n', 'exаmple.org', 'example。org', '[::1]', 'ｅxample', 'example.org/'])
    assert.equal(problemOf(text), 'bad_trust_domain_character', text);
});
