import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSpiffeId, pathOf, requireSpiffeId, trustDomainId, trustDomainOf } from './spiffe-id.ts';

function problemOf(text: string): string {
  const parsed = parseSpiffeId(text);
  return parsed.ok ? 'ok' : parsed.error;
}

const BYTES = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte));

for (const [id, text, problem] of [
  ['ID-1/empty-trust-domain', 'spiffe:///workload', 'empty_trust_domain'],
  ['ID-1/port', 'spiffe://example.org:443/workload', 'bad_trust_domain_character'],
  ['ID-1/port, empty', 'spiffe://example.org:/workload', 'bad_trust_domain_character'],
  ['ID-1/userinfo', 'spiffe://user@example.org/workload', 'bad_trust_domain_character'],
  ['ID-1/userinfo, empty', 'spiffe://@example.org/workload', 'bad_trust_domain_character'],
  ['ID-1/query', 'spiffe://example.org/workload?a=b', 'bad_path_character'],
  ['ID-1/query, empty', 'spiffe://example.org/workload?', 'bad_path_character'],
  ['ID-1/query, without path', 'spiffe://example.org?', 'bad_trust_domain_character'],
  ['ID-1/fragment', 'spiffe://example.org/workload#a', 'bad_path_character'],
  ['ID-1/fragment, empty', 'spiffe://example.org/workload#', 'bad_path_character'],
  ['ID-1/percent-encoded', 'spiffe://example.org/work%6coad', 'bad_path_character'],
  ['ID-1/percent-encoded, trust domain', 'spiffe://ex%61mple.org/workload', 'bad_trust_domain_character'],
  ['ID-1/empty-segment', 'spiffe://example.org/a//b', 'empty_segment'],
  ['ID-1/empty-segment, first', 'spiffe://example.org//a', 'empty_segment'],
  ['ID-1/dot-segment', 'spiffe://example.org/a/./b', 'dot_segment'],
  ['ID-1/dot-segment, last', 'spiffe://example.org/a/.', 'dot_segment'],
  ['ID-1/dot-dot-segment', 'spiffe://example.org/a/../b', 'dot_segment'],
  ['ID-1/dot-dot-segment, first', 'spiffe://example.org/..', 'dot_segment'],
  ['ID-1/trailing-slash', 'spiffe://example.org/workload/', 'trailing_slash'],
  ['ID-1/trailing-slash, alone', 'spiffe://example.org/', 'trailing_slash'],
  ['ID-1/invalid-path-char', 'spiffe://example.org/work load', 'bad_path_character'],
  ['ID-1/invalid-path-char, line end', 'spiffe://example.org/workload\n', 'bad_path_character'],
  ['ID-1/invalid-trust-domain-char', 'spiffe://Example.org/workload', 'bad_trust_domain_character'],
] as const)
  test(`${id}: ${JSON.stringify(text)} is refused (SPIFFE-ID 2)`, () => {
    assert.equal(problemOf(text), problem);
  });

test('any scheme but a lower-case spiffe:// is refused', () => {
  for (const text of ['', 'spiffe', 'spiffe:', 'spiffe:/', 'SPIFFE://a/b', 'https://a/b', '//a/b', ' spiffe://a/b', 'spiffe:/a/b'])
    assert.equal(problemOf(text), 'wrong_scheme', text);
  assert.equal(problemOf('spiffe://'), 'empty_trust_domain');
});

test('ID-2/path-chars: of all bytes, a segment may have letters, digits, dot, dash and underscore (SPIFFE-ID 2.2)', () => {
  const allowed = BYTES.filter((character) => problemOf(`spiffe://td/a${character}b`) === 'ok');

  // A slash makes two segments.
  assert.equal(allowed.join(''), '-./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz');
});

test('ID-2/trust-domain-chars: the same over all bytes in the trust domain of an ID', () => {
  const allowed = BYTES.filter((character) => problemOf(`spiffe://a${character}b/path`) === 'ok');

  assert.equal(allowed.join(''), '-./0123456789_abcdefghijklmnopqrstuvwxyz');
});

test('segments of dots that are neither one nor two are names', () => {
  for (const path of ['/...', '/.a', '/a.', '/..a', '/a/....']) assert.equal(problemOf(`spiffe://td${path}`), 'ok', path);
});

test('ID-2/ipv4-trust-domain: an IPv4 look-alike is accepted', () => {
  assert.equal(problemOf('spiffe://10.0.0.1/workload'), 'ok');
});

test('ID-2/max-length: 2048 bytes are accepted, one more is not (SPIFFE-ID 2.3)', () => {
  const start = 'spiffe://example.org/';

  assert.equal(problemOf(start + 'a'.repeat(2048 - start.length)), 'ok');
  assert.equal(problemOf(start + 'a'.repeat(2049 - start.length)), 'too_long');
});

test('an ID falls apart into trust domain and path', () => {
  const id = requireSpiffeId('spiffe://example.org/ns/web');
  const bare = requireSpiffeId('spiffe://example.org');

  assert.equal(trustDomainOf(id), 'example.org');
  assert.equal(pathOf(id), '/ns/web');
  assert.equal(trustDomainOf(bare), 'example.org');
  assert.equal(pathOf(bare), '');
  assert.equal(trustDomainId(trustDomainOf(id)), bare);
});

test('requireSpiffeId throws with the value and what is wrong with it', () => {
  assert.throws(() => requireSpiffeId('https://a/b'), /"https:\/\/a\/b" is not a SPIFFE ID: wrong_scheme/);
});
