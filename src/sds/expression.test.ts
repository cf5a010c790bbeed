import assert from 'node:assert/strict';
import { test } from 'node:test';
import { policyFrom, policyOf } from '../../test/support/policy/policies.ts';
import { parsePattern } from '../policy/pattern.ts';
import { parseSpiffeId } from '../spiffe/spiffe-id.ts';
import type { PolicySpec } from '../policy/policy.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { regexOf, sayPolicy } from './expression.ts';

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
    assert.deepEqual(sayPolicy(policy, 'example.org' as TrustDomain, 0), {
      ok: false,
      error: { problem: 'empty_allow_list', detail, rule: undefined },
    });
  }
});

test('a pattern that Envoy would refuse for its length withholds the list, and the longest that it takes does not', () => {
  const problem = (entry: string): string => {
    const policy = policyOf(entry, 'spiffe://example.org/web');
    const said = sayPolicy(policy, 'example.org' as TrustDomain, 0);
    return said.ok ? 'none' : said.error.problem;
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
    return sayPolicy(policy, undefined, 0);
  };

  const one = said('spiffe://example.org/web', 'spiffe://example.org/ns/**');
  assert.deepEqual(one.ok && [one.value.trustDomain, one.value.entries.length], ['example.org', 2]);
  const two = said('spiffe://example.org/web', 'spiffe://partner.example/batch');
  assert.equal(two.ok ? undefined : two.error.problem, 'inexpressible');
  assert.match(two.ok ? '' : two.error.detail, /example\.org and partner\.example/);
});

test('what matchers cannot say withholds everything, and the rule is named', () => {
  const peer = 'spiffe://example.org/web';
  const unsaid = (spec: Omit<PolicySpec, 'allow'>, ...allow: PolicySpec['allow']) => {
    const said = sayPolicy(policyFrom({ allow: [peer, ...allow], ...spec }), undefined, 0);
    return said.ok ? undefined : said.error;
  };

  assert.equal(unsaid({}), undefined);
  assert.equal(unsaid({}, { peer }), undefined);
  for (const [error, effect, index, rule] of [
    [unsaid({ deny: ['spiffe://example.org/api'] }), 'deny', 0, 'deny spiffe://example.org/api'],
    [unsaid({}, { peer, methods: ['GET'] }), 'allow', 1, `${peer} GET`],
    [unsaid({}, { peer, paths: ['/a'] }), 'allow', 1, `${peer} /a`],
    [unsaid({}, { peer }, { peer, hosts: ['api'] }), 'allow', 2, `${peer} host api`],
    [unsaid({}, { peer, mode: 'audit' }), 'allow', 1, `${peer} (audit)`],
    [unsaid({ deny: [{ peer, notAfterMs: 0 }] }), 'deny', 0, `deny ${peer} until 1970-01-01T00:00:00.000Z`],
  ] as const) {
    assert.deepEqual([error?.problem, error?.rule?.effect, error?.rule?.index], ['inexpressible', effect, index], rule);
    assert.equal(error?.detail, `the rule ${JSON.stringify(rule)} cannot be said in matchers: they only name whom to admit`);
  }
  assert.match(unsaid({ mode: 'audit' })?.detail ?? '', /^a policy in audit/);
});

test('rules of times are said while they hold; when none does, the answer is nobody, and never that there is none', () => {
  const [web, api] = ['spiffe://example.org/web', 'spiffe://example.org/api'];
  const window = { from: '00:01', to: '00:02', timeZone: 'UTC' };
  const policy = policyFrom({
    allow: [
      { peer: web, notBeforeMs: 10, notAfterMs: 20 },
      { peer: web, notBeforeMs: 15, notAfterMs: 30 },
      { peer: api, windows: [window] },
    ],
  });
  const said = (nowMs: number): unknown => {
    const { ok, ...of } = sayPolicy(policy, undefined, nowMs);
    assert.ok(ok && 'value' in of);
    return of.value.entries.map((entry) => ('exact' in entry ? entry.exact : entry.regex));
  };

  for (const [nowMs, entries] of [
    [0, []],
    [9, []],
    [10, [web]],
    [19, [web]],
    [29, [web]],
    [30, []],
    [59_999, []],
    [60_000, [api]],
    [120_000, []],
  ] as const)
    assert.deepEqual(said(nowMs), entries, String(nowMs));
});

test('whether a list can be said does not change with time, as Envoy would keep what it had before', () => {
  const long = `spiffe://example.org/${'*/'.repeat(7)}*`;
  for (const allow of [
    ['spiffe://example.org/web', { peer: long, notBeforeMs: 10, notAfterMs: 20 }],
    ['spiffe://example.org/web', { peer: 'spiffe://partner.example/batch', notBeforeMs: 10, notAfterMs: 20 }],
  ] as const)
    for (const nowMs of [0, 10, 20]) {
      const said = sayPolicy(policyFrom({ allow }), undefined, nowMs);
      assert.equal(said.ok ? undefined : said.error.problem, 'inexpressible', String(nowMs));
    }
});

test('the same rules in another order are the same list, and so is one that is said twice', () => {
  const [web, api, all] = ['spiffe://example.org/web', 'spiffe://example.org/api', 'spiffe://example.org/ns/**'];
  const said = (...allow: PolicySpec['allow']): unknown => sayPolicy(policyFrom({ allow }), undefined, 0);

  assert.deepEqual(said(api, { peer: web, notAfterMs: 5 }, all), said(all, web, api, { peer: all, notAfterMs: 9 }));
});
