import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parsePattern } from './pattern.ts';

for (const [what, entry, message] of [
  ['part of a segment', 'spiffe://example.org/web-*', /whole segments, and "web-\*" is part of one/],
  ['part of a segment, doubled', 'spiffe://example.org/web**', /whole segments/],
  ['three stars', 'spiffe://example.org/***', /whole segments/],
  ['a double star before the end', 'spiffe://example.org/**/web', /only be the last segment/],
  ['two double stars', 'spiffe://example.org/**/**', /only be the last segment/],
  ['a wildcard trust domain', 'spiffe://*/web', /trust domain takes no wildcard/],
  ['a wildcard in a trust domain', 'spiffe://*.example.org/web', /trust domain takes no wildcard/],
  ['a star for everything', '*', /begins with "spiffe:\/\/"/],
  ['a bare trust domain', 'spiffe://example.org', /write "spiffe:\/\/example\.org\/\*\*"/],
  ['a trust domain with a slash', 'spiffe://example.org/', /does not end with "\/"/],
  ['a trailing slash after a wildcard', 'spiffe://example.org/*/', /does not end with "\/"/],
  ['an empty segment beside a wildcard', 'spiffe://example.org//*', /no empty segments/],
  ['a dot segment beside a wildcard', 'spiffe://example.org/../*', /no "\." or "\.\." segments/],
  ['a bad character beside a wildcard', 'spiffe://example.org/a b/*', /a path has only/],
  ['an upper-case trust domain', 'spiffe://Example.org/*', /lower-case/],
  ['another scheme', 'https://example.org/web', /begins with "spiffe:\/\/"/],
  ['nothing', '', /begins with "spiffe:\/\/"/],
] as const)
  test(`${what} is an error: ${JSON.stringify(entry)}`, () => {
    const parsed = parsePattern(entry);

    assert.ok(!parsed.ok);
    assert.match(parsed.error, message);
  });

test('an entry without wildcards is an exact SPIFFE ID', () => {
  assert.deepEqual(parsePattern('spiffe://example.org/web'), { ok: true, value: { kind: 'exact', id: 'spiffe://example.org/web' } });
});

test('wildcards are compiled segment by segment', () => {
  assert.deepEqual(parsePattern('spiffe://example.org/ns/*/**'), {
    ok: true,
    value: { kind: 'segments', trustDomain: 'example.org', segments: ['ns', undefined], hasMore: true },
  });
});
