import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import { authorise } from './judge.ts';
import { compileAllowList, type AllowList } from './rules.ts';

function compile(...entries: readonly string[]): AllowList {
  const compiled = compileAllowList(entries);
  assert.ok(compiled.ok, compiled.ok ? '' : JSON.stringify(compiled.error));
  return compiled.value;
}

function match(list: AllowList, id: string): string | undefined {
  return list.match(requireSpiffeId(id));
}

test('an empty list admits nobody', () => {
  assert.equal(match(compile(), 'spiffe://example.org/web'), undefined);
});

test('an exact entry admits that SPIFFE ID and no other', () => {
  const list = compile('spiffe://example.org/web');

  assert.equal(match(list, 'spiffe://example.org/web'), 'spiffe://example.org/web');
  for (const id of [
    'spiffe://example.org/web/a',
    'spiffe://example.org/we',
    'spiffe://example.org/Web',
    'spiffe://example.com/web',
    'spiffe://example.org',
  ])
    assert.equal(match(list, id), undefined, id);
});

test('a single star admits exactly one segment, whole', () => {
  const list = compile('spiffe://example.org/ns/*/web');

  assert.equal(match(list, 'spiffe://example.org/ns/a/web'), 'spiffe://example.org/ns/*/web');
  for (const path of ['/ns/web', '/ns/a/b/web', '/ns/a/web/b', '/ns/a/api', '/x/a/web'])
    assert.equal(match(list, `spiffe://example.org${path}`), undefined, path);
});

test('a double star admits one or more further segments', () => {
  const list = compile('spiffe://example.org/ns/**');

  for (const path of ['/ns/a', '/ns/a/b/c']) assert.equal(match(list, `spiffe://example.org${path}`), 'spiffe://example.org/ns/**', path);
  for (const path of ['/ns', '/nsa/b', '']) assert.equal(match(list, `spiffe://example.org${path}`), undefined, path);
});

test('a double star alone admits a whole trust domain, but not the ID of the trust domain itself', () => {
  const list = compile('spiffe://example.org/**');

  assert.equal(match(list, 'spiffe://example.org/a/b'), 'spiffe://example.org/**');
  assert.equal(match(list, 'spiffe://example.org'), undefined);
  assert.equal(match(list, 'spiffe://sub.example.org/a'), undefined);
  assert.equal(match(list, 'spiffe://example.orgs/a'), undefined);
});

test('both kinds of star go together', () => {
  const list = compile('spiffe://example.org/*/a/**');

  assert.equal(match(list, 'spiffe://example.org/x/a/y/z') !== undefined, true);
  assert.equal(match(list, 'spiffe://example.org/x/a'), undefined);
});

test('an exact entry is named before a pattern, and the first pattern before the next', () => {
  const list = compile('spiffe://example.org/**', 'spiffe://example.org/*', 'spiffe://example.org/web');

  assert.equal(match(list, 'spiffe://example.org/web'), 'spiffe://example.org/web');
  assert.equal(match(list, 'spiffe://example.org/api'), 'spiffe://example.org/**');
});

test('a list keeps its entries as written, whatever becomes of what was given', () => {
  const given = ['spiffe://example.org/b', 'spiffe://example.org/*'];
  const list = compile(...given);

  given.push('spiffe://evil.example/**');

  assert.deepEqual(list.entries, ['spiffe://example.org/b', 'spiffe://example.org/*']);
  assert.equal(match(list, 'spiffe://evil.example/a'), undefined);
  assert.ok(Object.isFrozen(list) && Object.isFrozen(list.entries));
});

test('all bad entries are named at once', () => {
  const compiled = compileAllowList(['spiffe://example.org/a', 'web', 'spiffe://*/a']);

  assert.ok(!compiled.ok);
  assert.deepEqual(
    compiled.error.map(({ entry }) => entry),
    ['web', 'spiffe://*/a'],
  );
});

test('looking up an exact ID costs the same among 100,000 as among few', () => {
  const entries = Array.from({ length: 100_000 }, (_, index) => `spiffe://example.org/w${index}`);
  const list = compile(...entries);
  const stranger = requireSpiffeId('spiffe://example.org/stranger');
  const started = process.cpuUsage();

  for (let round = 0; round < 10_000; round += 1) assert.equal(list.match(stranger), undefined);

  // A scan would compare a thousand million times.
  assert.ok(process.cpuUsage(started).user < 1_000_000);
});

test('a verdict names the entry that admitted, or says that none did', () => {
  const peer = requireSpiffeId('spiffe://example.org/web');

  assert.deepEqual(authorise(peer, compile('spiffe://example.org/*')), { allowed: true, peer, rule: 'spiffe://example.org/*' });
  assert.deepEqual(authorise(peer, compile('spiffe://example.org/api')), {
    allowed: false,
    peer,
    reason: 'not_allowed',
    detail: 'spiffe://example.org/web matches none of the 1 entries of the allow list',
  });
});
