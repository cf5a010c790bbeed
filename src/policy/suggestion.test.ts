import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from 'yaml';
import { Draws } from '../../test/fuzz/random.ts';
import { policyFrom } from '../../test/support/policy/policies.ts';
import { parseConfig } from '../config/load.ts';
import { METHODS } from '../http1/request-head.ts';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import type { Refused } from './refusal.ts';
import { comparablePath, type RequestFacts } from './request.ts';
import type { RuleSpec } from './rule.ts';
import { formatRule, gatherRules, ruleFor } from './suggestion.ts';

const WEB = requireSpiffeId('spiffe://example.org/web');
/** Asks for everything. */
const POLICY = policyFrom({ allow: [{ peer: WEB, methods: ['GET'], paths: ['/x'], hosts: ['x.example'] }] });

function seen(request: Partial<RequestFacts> | undefined, more: Partial<Refused> = {}): Refused {
  const whole = request && { method: 'GET', path: '/a', host: 'api.example', ...request };
  return { peer: WEB, request: whole, isWhole: true, ...more };
}

function suggest(refused: Refused, policy = POLICY): string {
  const rule = ruleFor(policy, refused);
  return rule.ok ? formatRule(rule.value) : `none: ${rule.error}`;
}

for (const [what, refused, text] of [
  ['a request', seen({}), '{ peer: spiffe://example.org/web, methods: [GET], paths: [/a], hosts: [api.example] }'],
  ['what no rule asks for', seen({ path: '', host: '' }), '{ peer: spiffe://example.org/web, methods: [GET] }'],
  [
    'text that YAML reads otherwise',
    seen({ method: 'M-SEARCH', path: '/a,b]}', host: 'on' }),
    '{ peer: spiffe://example.org/web, methods: ["M-SEARCH"], paths: ["/a,b]}"], hosts: ["on"] }',
  ],
  ['a path with a quote', seen({ path: '/"', host: '' }), String.raw`{ peer: spiffe://example.org/web, methods: [GET], paths: ["/\""] }`],
  ['a path that is a pattern', seen({ path: '/a/*' }), 'none: a rule would take the "*" of its path for any segment'],
  ['a path that ends as a pattern', seen({ path: '/a/**' }), 'none: a rule would take the "*" of its path for any segment'],
  ['a path that no rule can have', seen({ path: '/a*' }), 'none: no rule can name such a request exactly'],
  ['a request for no path', seen({ method: 'OPTIONS', path: '*' }), 'none: "OPTIONS *" asks for no path, so no rule with paths is for it'],
  ['a method that is none', seen({ method: 'GET, POST' }), 'none: no rule can name such a request exactly'],
  ['what was cut', seen({}, { isWhole: false }), 'none: a part of the request is not known'],
  ['a connection, where rules are about requests', seen(undefined), 'none: rules here are about requests, and of this one none is known'],
] as const)
  test(`the rule to copy for ${what}`, () => {
    assert.equal(suggest(refused), text);
  });

test('the rule to copy for a connection is the peer', () => {
  assert.equal(suggest(seen(undefined), policyFrom({ allow: [] })), 'spiffe://example.org/web');
});

test('rules are gathered to fewer ones, and never to more than was seen', () => {
  const rule = (method: string, path: string, host: string): RuleSpec => ({ peer: WEB, methods: [method], paths: [path], hosts: [host] });

  assert.deepEqual(
    gatherRules([
      rule('GET', '/b', 'a.x'),
      rule('GET', '/a', 'a.x'),
      rule('POST', '/a', 'a.x'),
      rule('GET', '/b', 'b.x'),
      { peer: WEB },
      { ...rule('GET', '/a', 'a.x'), peer: 'spiffe://example.org/api' },
    ]).map(formatRule),
    [
      '{ peer: spiffe://example.org/web, methods: [GET], paths: [/b], hosts: [a.x, b.x] }',
      '{ peer: spiffe://example.org/web, methods: [GET, POST], paths: [/a], hosts: [a.x] }',
      'spiffe://example.org/web',
      '{ peer: spiffe://example.org/api, methods: [GET], paths: [/a], hosts: [a.x] }',
    ],
  );
});

const LETTERS = Array.from({ length: 94 }, (_, index) => String.fromCharCode(33 + index));

/** Alike, so that pairs of values recur; half of the paths are of any visible characters that a path may have. */
function drawRequest(draws: Draws): RequestFacts {
  const comparable = (text: string): string => {
    const path = comparablePath(text);
    return path.ok ? path.value : '/';
  };
  const word = (): string => Array.from({ length: 1 + draws.below(4) }, () => draws.of(LETTERS)).join('');
  const path = draws.once(2)
    ? comparable(`/${word()}${draws.once(2) ? `/${word()}` : ''}`)
    : draws.of(['/', '/a', '/a/', '/a/b', '/*', '/a/**', '*']);
  const host = draws.of(['a', 'no', '1.5', '1e3', 'null', 'a.x', '[2001:db8::1]', '0x1f']);
  return { method: draws.of([...METHODS]), path, host };
}

test('rules to copy, gathered and read back from YAML, allow what was seen and nothing else', async () => {
  const peers = ['spiffe://example.org/web', 'spiffe://example.org/a.b_c-D/0', 'spiffe://1.2/no'].map(requireSpiffeId);
  let suggested = 0;
  for (let seed = 1; seed <= 300; seed++) {
    const draws = new Draws(seed);
    const all = Array.from({ length: 40 }, () => ({ peer: draws.of(peers), request: drawRequest(draws), isWhole: true }));
    const rules: RuleSpec[] = [];
    const allowed = new Set<string>();
    for (const one of all.slice(0, 12)) {
      const rule = ruleFor(POLICY, one);
      if (!rule.ok) continue;
      rules.push(rule.value);
      allowed.add(JSON.stringify(one));
    }
    const gathered = gatherRules(rules);
    const yaml = `allow:\n${gathered.map((rule) => `  - ${formatRule(rule)}\n`).join('')}`;
    // Of both versions: other tools read the file, too.
    for (const version of ['1.1', '1.2'] as const) {
      const read = parse(yaml, { version }) as { readonly allow: readonly RuleSpec[] | null };
      assert.deepEqual(read, { allow: gathered.length === 0 ? null : gathered }, yaml);
    }
    const policy = policyFrom({ allow: gathered });
    for (const one of all) {
      const { allowed: isAllowed } = policy.forPeer(one.peer).judge(one.request, 0);
      assert.equal(isAllowed, allowed.has(JSON.stringify(one)), `seed ${seed}: ${JSON.stringify(one)}\n${yaml}`);
    }
    suggested += gathered.length;
    if (seed > 20 || gathered.length === 0) continue;
    const text = `workloadApi: { endpoint: unix:///a.sock }\ninbound:\n- listen: 127.0.0.1:1\n  to: 127.0.0.1:2\n  protocol: http\n${yaml.replace(/^/gm, '  ').trimEnd()}\n`;
    const loaded = await parseConfig(text, { file: 'scute.yaml', flags: {}, env: {} });
    assert.ok(loaded.ok, loaded.ok ? '' : `${JSON.stringify(loaded.error)}\n${text}`);
    assert.deepEqual(loaded.value.inbound[0]?.policy.spec.allow, gathered);
  }
  assert.ok(suggested > 1000, String(suggested));
});
