import assert from 'node:assert/strict';
import { test } from 'node:test';
import { policyFrom } from '../../test/support/policy/policies.ts';
import type { RuleSpec } from './rule.ts';
import { undeniedParents } from './undenied-parents.ts';

const WEB = 'spiffe://example.org/web';
const ALL = 'spiffe://example.org/**';

function told(...deny: readonly (RuleSpec | string)[]): readonly string[] {
  return undeniedParents(policyFrom({ allow: [{ peer: WEB, paths: ['/allowed/**'] }], deny }));
}

test('a path of which only what lies below is denied is told, once', () => {
  assert.deepEqual(told({ peer: WEB, paths: ['/admin/**'] }), ['/admin']);
  assert.deepEqual(told({ peer: WEB, paths: ['/a/*/**', '/x'] }, { peer: ALL, paths: ['/a/*/**', '/b/c/**'] }), ['/a/*', '/b/c']);
});

test('one that is denied as well, by this rule or by one that denies as much, is not', () => {
  const below: RuleSpec = { peer: WEB, paths: ['/admin/**'] };
  assert.deepEqual(told({ peer: WEB, paths: ['/admin/**', '/admin'] }), []);
  for (const other of [
    WEB,
    ALL,
    { peer: WEB, paths: ['/admin'] },
    { peer: ALL, paths: ['/*'] },
    { peer: 'spiffe://example.org/*', paths: ['/**'] },
  ])
    assert.deepEqual(told(below, other), [], JSON.stringify(other));
  assert.deepEqual(
    told({ ...below, methods: ['POST'], hosts: ['a'], notAfterMs: 5 }, { ...below, paths: ['/admin'], methods: ['GET', 'POST'] }),
    [],
  );
  assert.deepEqual(told({ peer: ALL, paths: ['/**'] }), []);
});

test('one that is denied to fewer peers, or to fewer of their requests, is told', () => {
  const below: RuleSpec = { peer: ALL, paths: ['/admin/**'] };
  for (const other of [
    WEB,
    { peer: WEB, paths: ['/admin'] },
    { peer: 'spiffe://example.org/*', paths: ['/admin'] },
    { peer: 'spiffe://other.org/**', paths: ['/admin'] },
    { peer: ALL, paths: ['/admin/'] },
    { peer: ALL, paths: ['/admin/*'] },
    { peer: ALL, paths: ['/admin'], methods: ['GET'] },
    { peer: ALL, paths: ['/admin'], hosts: ['a'] },
    { peer: ALL, paths: ['/admin'], notBeforeMs: 5 },
    { peer: ALL, paths: ['/admin'], mode: 'audit' },
  ] as const)
    assert.deepEqual(told(below, other), ['/admin'], JSON.stringify(other));
});
