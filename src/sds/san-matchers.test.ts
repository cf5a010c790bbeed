import assert from 'node:assert/strict';
import { test } from 'node:test';
import { policyFrom, policyOf } from '../../test/support/policies.ts';
import { parsePattern } from '../policy/pattern.ts';
import { parseSpiffeId } from '../spiffe/spiffe-id.ts';
import type { PolicySpec } from '../policy/policy.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { regexOf, sanMatchers } from './san-matchers.ts';

const ENTRIES = [
  'spiffe://example.org/web',
  'spiffe://example.org/a.b',
  'spiffe://example.org/ns/*/sa/web',
  'spiffe://example.org/*',
  'spiffe://example.org/**',
  'spiffe://example.org/*/**',
  'spiffe://exa-mple_1.org/x/**',
];
const PIECES = [
  'spiffe://',
  'example.org',
  'exampleXorg',
  'exa-mple_1.org',
  '/',
  '//',
  'web',
  'a.b',
  'aXb',
  'ns',
  'sa',
  '.',
  '..',
  '...',
  '....',
  '...x',
  '.-',
  '.x',
  '..x',
  '%2e',
  ' ',
  '\n',
  'é',
  '?',
  '#',
  '*',
  '**',
  'x',
];

/** Texts that look like SPIFFE IDs, and are or are not. */
function* texts(): Generator<string> {
  let seed = 3;
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((seed / 2_147_483_648) * below);
  };
  const piece = (): string => PIECES[random(PIECES.length)] ?? '';
  for (let count = 0; count < 40_000; count += 1) {
    const domain = ['example.org', 'exa-mple_1.org', 'exampleXorg', piece()][random(4)] ?? '';
    yield `spiffe://${domain}${Array.from({ length: random(6) }, () => (random(4) === 0 ? piece() : `/${piece()}`)).join('')}`;
  }
  for (const entry of ENTRIES) for (const end of ['', '/', '\n', '/x', ' ']) yield `${entry.replaceAll('*', 'x')}${end}`;
}

test('a regular expression admits exactly the SPIFFE IDs that its entry admits', () => {
  const tried = [...texts()];
  for (const entry of ENTRIES) {
    const pattern = parsePattern(entry);
    const policy = policyOf(entry);
    assert.ok(pattern.ok);
    if (pattern.value.kind !== 'segments') continue;
    const regex = new RegExp(regexOf(pattern.value));
    let admitted = 0;
    for (const text of tried) {
      const id = parseSpiffeId(text);
      const isAllowed: boolean = id.ok && policy.forPeer(id.value).judgeConnection(0).allowed;
      assert.equal(regex.test(text), isAllowed, `${entry} and ${JSON.stringify(text)}`);
      if (isAllowed) admitted += 1;
    }
    assert.ok(admitted > 0, entry);
  }
});

test('what RE2 does not know is not used', () => {
  for (const entry of ENTRIES) {
    const pattern = parsePattern(entry);
    if (pattern.ok && pattern.value.kind === 'segments') assert.doesNotMatch(regexOf(pattern.value), /\(\?[=!<]|\\[1-9]/);
  }
});

test('no list becomes no matchers', () => {
  const none = 'no entry of the allow list is of example.org';
  for (const [entries, detail] of [
    [[], 'the allow list is empty'],
    [['spiffe://other.example/web'], none],
    [['spiffe://other.example/**', 'spiffe://third.example/web'], none],
  ] as const) {
    const policy = policyOf(...entries);
    const matchers = sanMatchers(policy, 'example.org' as TrustDomain);
    assert.deepEqual(matchers, { ok: false, error: { problem: 'empty_allow_list', detail } });
  }
});

test('a pattern that Envoy would refuse for its length withholds the list, and the longest that it takes does not', () => {
  const problem = (entry: string): string => {
    const policy = policyOf(entry, 'spiffe://example.org/web');
    const matchers = sanMatchers(policy, 'example.org' as TrustDomain);
    return matchers.ok ? 'none' : matchers.error.problem;
  };

  // What comes before the first wildcard does not count.
  for (const path of [`${'long/'.repeat(100)}**`, `*/${'x'.repeat(80)}`])
    assert.equal(problem(`spiffe://example.org/${path}`), 'none', path);
  assert.equal(problem(`spiffe://example.org/*/${'x'.repeat(81)}`), 'inexpressible', 'one more');
  for (const path of ['cluster/*/namespace/*/serviceaccount/*', `${'long/'.repeat(100)}*`, `${'*/'.repeat(5)}*`, `${'*/'.repeat(5)}**`])
    assert.equal(problem(`spiffe://example.org/${path}`), 'none', path);
  for (const path of [`${'*/'.repeat(7)}*`, `${'*/'.repeat(6)}**`, `*/${'long/'.repeat(20)}*`, `*/${'x'.repeat(100)}`])
    assert.equal(problem(`spiffe://example.org/${path}`), 'inexpressible', path);
});

test('beside a list stand the authorities of one trust domain: a list of several cannot be said for all of them', () => {
  const said = (...entries: readonly string[]) => {
    const policy = policyOf(...entries);
    return sanMatchers(policy, undefined);
  };

  const one = said('spiffe://example.org/web', 'spiffe://example.org/ns/**');
  assert.deepEqual(one.ok && [one.value.trustDomain, one.value.matchers.length], ['example.org', 2]);
  const two = said('spiffe://example.org/web', 'spiffe://partner.example/batch');
  assert.equal(two.ok ? undefined : two.error.problem, 'inexpressible');
  assert.match(two.ok ? '' : two.error.detail, /example\.org and partner\.example/);
});

test('what matchers cannot say withholds everything, and the rule is named', () => {
  const peer = 'spiffe://example.org/web';
  const said = (spec: Omit<PolicySpec, 'allow'>, ...allow: PolicySpec['allow']): string => {
    const matchers = sanMatchers(policyFrom({ allow: [peer, ...allow], ...spec }), undefined);
    return matchers.ok ? 'said' : `${matchers.error.problem}: ${matchers.error.detail}`;
  };

  assert.equal(said({}), 'said');
  for (const [problem, rule] of [
    [said({ deny: ['spiffe://example.org/api'] }), 'deny spiffe://example.org/api'],
    [said({}, { peer, methods: ['GET'] }), `${peer} GET`],
    [said({}, { peer, paths: ['/a'] }), `${peer} /a`],
    [said({}, { peer, hosts: ['api'] }), `${peer} host api`],
    [said({}, { peer, notBeforeMs: 0 }), `${peer} from 1970-01-01T00:00:00.000Z`],
    [said({}, { peer, notAfterMs: 0 }), `${peer} until 1970-01-01T00:00:00.000Z`],
    [said({}, { peer, windows: [{ from: '09:00', to: '17:00', timeZone: 'UTC' }] }), `${peer} 09:00-17:00 UTC`],
    [said({}, { peer, mode: 'audit' }), `${peer} (audit)`],
  ] as const)
    assert.equal(problem, `inexpressible: the rule ${JSON.stringify(rule)} cannot be said in matchers, which only name whom to admit`);
  assert.match(said({ mode: 'audit' }), /^inexpressible: a policy in audit/);
});
