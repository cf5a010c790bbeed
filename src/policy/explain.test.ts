import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Draws } from '../../test/fuzz/random.ts';
import { drawDate, drawPolicy, drawQuestion, listOf, policyFrom } from '../../test/support/policy/policies.ts';
import { pathOf, requireSpiffeId, trustDomainOf } from '../spiffe/spiffe-id.ts';
import { explain, MISSED_KEYS, nearestMiss, type Explanation, type MissedKey, type Question } from './explain.ts';
import type { IdList } from './id-list.ts';
import { Authorisation } from './judge.ts';
import type { PolicySpec } from './policy.ts';
import type { Effect, RuleSpec } from './rule.ts';

const WEB = requireSpiffeId('spiffe://example.org/ns/prod/sa/web');
const NOW = Date.UTC(2026, 10, 30, 12);

function ask(spec: Partial<PolicySpec>, { peer = WEB, request, nowMs = NOW }: Partial<Question> = {}): Explanation {
  const explained = explain(policyFrom({ allow: [], ...spec }), { peer, request, nowMs });
  assert.ok(explained.ok);
  return explained.value;
}

const GET = { method: 'GET', target: '/items/1', host: 'api' };

function textsOf({ misses }: Explanation): readonly string[] {
  return misses.map(({ rule, text }) => `${rule.effect}[${rule.index}] ${text}`);
}

for (const [what, rule, text] of [
  ['the method', { methods: ['PUT'] }, 'the method'],
  ['the path', { paths: ['/items'] }, 'the path'],
  ['the host', { hosts: ['other'] }, 'the host'],
  ['the first moment', { notBeforeMs: NOW + 1 }, 'the time: it holds from 2026-11-30T12:00:00.001Z'],
  ['the last moment', { notAfterMs: NOW }, 'the time: it held until 2026-11-30T12:00:00.000Z'],
  ['the windows', { windows: [{ from: '13:00', to: '14:00', timeZone: 'UTC' }] }, 'the time: none of its windows is open'],
  ['the trust domain', { peer: 'spiffe://other.org/ns/prod/sa/web' }, 'the trust domain'],
  ['the trust domain of a pattern', { peer: 'spiffe://other.org/ns/*/sa/**' }, 'the trust domain'],
  ['a segment', { peer: 'spiffe://example.org/ns/dev/sa/web' }, 'one segment of the SPIFFE ID: it is for "dev" and not for "prod"'],
  ['a segment of a pattern', { peer: 'spiffe://example.org/*/dev/**' }, 'one segment of the SPIFFE ID: it is for "dev" and not for "prod"'],
  ['two keys', { methods: ['PUT'], hosts: ['other'] }, 'the method, and for the host'],
] as const satisfies readonly (readonly [string, Partial<RuleSpec>, string])[])
  test(`a rule that matches but for ${what} is named with that`, () => {
    const explained = ask({ allow: [{ peer: 'spiffe://far.org/x' }, { peer: WEB, ...rule }] }, { request: GET });

    assert.ok(!explained.verdict.allowed);
    assert.deepEqual(textsOf(explained), [`allow[1] matched but for ${text}`]);
  });

test('bare entries are near, too, and far ones are not named', () => {
  const near = ['spiffe://example.org/ns/prod/sa/api', 'spiffe://other.org/ns/prod/sa/web'];
  const far = [
    'spiffe://other.org/ns/prod/sa/api',
    'spiffe://example.org/a',
    'spiffe://example.org/ns/dev/sa/api',
    'spiffe://example.org/ns/dev',
  ];

  assert.deepEqual(
    ask({ allow: [...far, ...near] }).misses.map(({ rule, but }) => [rule.text, ...but]),
    [
      [near[0], 'segment'],
      [near[1], 'trust domain'],
    ],
  );
});

test('a rule for somebody else and for something else is far, however little is amiss of either', () => {
  const peers = ['spiffe://other.org/ns/prod/sa/web', 'spiffe://example.org/ns/prod/sa/api'];
  const allow = peers.flatMap((peer) => [
    { peer, methods: ['PUT'] },
    { peer, methods: ['GET'] },
  ]);

  assert.deepEqual(
    ask({ allow }, { request: GET }).misses.map(({ rule, but }) => [rule.index, ...but]),
    [
      [3, 'segment'],
      [1, 'trust domain'],
    ],
  );
});

test('the nearest come first, and of many only five are named', () => {
  const allow = [
    { peer: 'spiffe://other.org/ns/prod/sa/web' },
    { peer: WEB, methods: ['PUT'], paths: ['/x'] },
    { peer: WEB, paths: ['/x'] },
    { peer: WEB, methods: ['PUT'] },
    { peer: WEB, notAfterMs: 0 },
  ];
  assert.deepEqual(
    ask({ allow }, { request: GET }).misses.map(({ rule }) => rule.index),
    [4, 3, 2, 0, 1],
  );
  const many = Array.from({ length: 3000 }, (_, index) => `spiffe://example.org/ns/prod/sa/w${index}`);
  assert.deepEqual(
    ask({ allow: [...many, { peer: WEB, methods: ['PUT'] }] }, { request: GET }).misses.map(({ rule }) => rule.index),
    [3000, 0, 1, 2, 3],
  );
});

test('the rule that decided is named with its place, a bare entry too', () => {
  const of = (spec: Partial<PolicySpec>): unknown => {
    const { rule } = ask(spec);
    return rule && [rule.effect, rule.index];
  };
  assert.deepEqual(of({ allow: ['spiffe://example.org/a', WEB] }), ['allow', 1]);
  assert.deepEqual(of({ allow: ['spiffe://example.org/a', 'spiffe://example.org/**'] }), ['allow', 1]);
  assert.deepEqual(of({ allow: [WEB], deny: ['spiffe://example.org/a', WEB] }), ['deny', 1]);
  assert.equal(of({ allow: [] }), undefined);
  assert.equal(of({ allow: [], mode: 'audit' }), undefined);
  // Their texts are cut, and so are the same.
  const long = Array.from({ length: 100 }, (_, index) => `/a-long-path/${index}`);
  const [first, second] = [long, [...long, '/items/*']].map((paths) => ({ peer: WEB, paths }));
  assert.ok(first !== undefined && second !== undefined);
  assert.equal(ask({ allow: [first, second] }, { request: GET }).rule?.index, 1);
});

test('what is allowed is told with the denials that nearly were, and what a rule denies with nothing', () => {
  const deny = [{ peer: WEB, paths: ['/admin'] }];
  assert.deepEqual(textsOf(ask({ allow: [WEB], deny }, { request: GET })), ['deny[0] matched but for the path']);
  assert.deepEqual(textsOf(ask({ allow: [WEB], deny })), [], 'no connection is denied for what may be asked on it');
  assert.deepEqual(textsOf(ask({ allow: ['spiffe://example.org/a'], deny: [WEB] })), []);
});

test('what only audit lets pass is told with the rule that would deny, or with those that would nearly allow', () => {
  const denied = ask({ allow: [WEB], deny: [{ peer: WEB, mode: 'audit' }] });
  assert.ok(denied.verdict.allowed);
  assert.deepEqual([denied.verdict.audited, denied.rule?.effect, denied.audited?.effect], ['denied', 'allow', 'deny']);
  const admitted = ask({ allow: [{ peer: WEB, notAfterMs: 0 }], mode: 'audit' });
  assert.deepEqual(textsOf(admitted), ['allow[0] matched but for the time: it held until 1970-01-01T00:00:00.000Z']);
});

test('a request that rules cannot be compared with is explained by that', () => {
  const policy = policyFrom({ allow: [{ peer: WEB, paths: ['/a'] }] });
  const explained = explain(policy, { peer: WEB, request: { ...GET, target: '/%61' }, nowMs: NOW });
  assert.ok(!explained.ok);
  assert.match(explained.error, /%61/);
});

test('for a line the nearest miss is bounded, and sought only among so many rules, paths, windows and segments', () => {
  const near = (spec: Partial<PolicySpec>, mostRules: number): string | undefined =>
    nearestMiss(policyFrom({ allow: [], ...spec }), { peer: WEB, request: GET, nowMs: NOW }, mostRules);
  const other = { peer: WEB, methods: ['PUT'] };
  const said = `${WEB} PUT: matched but for the method`;

  assert.equal(near({ allow: [other, 'spiffe://far.org/x'], deny: ['spiffe://far.org/x'] }, 3), said);
  assert.equal(near({ allow: [other, 'spiffe://far.org/x'], deny: ['spiffe://far.org/x'] }, 2), undefined);
  const paths = Array.from({ length: 99 }, (_, index) => `/${index}`);
  assert.ok(near({ allow: [{ peer: WEB, paths }] }, 100) !== undefined);
  assert.equal(near({ allow: [{ peer: WEB, paths }] }, 99), undefined);
  const windows = [0, 1].map((hour) => ({ from: `0${hour}:00`, to: '09:00', timeZone: 'UTC' }));
  assert.ok(near({ allow: [{ peer: WEB, windows }] }, 3) !== undefined);
  assert.equal(near({ allow: [{ peer: WEB, windows }] }, 2), undefined);

  // Of 34 and 32 segments.
  const deep = [...Array<string>(32).fill('a'), '*'].join('/');
  for (const allow of [
    [{ peer: WEB, paths: [`/${deep}`] }],
    [WEB.replace('web', deep)],
    [{ peer: WEB.replace('web', deep) }, 'spiffe://far.org/x'],
  ]) {
    assert.equal(near({ allow: [other, ...allow] }, 5), said);
    assert.equal(near({ allow: [other, ...allow] }, 3), undefined);
  }

  assert.equal(near({ allow: [WEB], deny: [{ peer: WEB, methods: ['PUT'] }] }, 100), undefined, 'it is allowed');
  assert.equal(near({ allow: [other], deny: [WEB] }, 100), undefined, 'a rule denies it');
  const long = `spiffe://other.org/${'x'.repeat(1900)}`;
  const text = nearestMiss(
    policyFrom({ allow: [long] }),
    { peer: requireSpiffeId(long.replace('other', 'example')), request: GET, nowMs: NOW },
    9,
  );
  assert.equal(text?.length, 601);
});

test('for a line a list is looked through once, however many rules name it, and counts with its trust domains', () => {
  const listed = listOf(
    '/ids',
    Array.from({ length: 50 }, (_, index) => `spiffe://partner-${index}.org/x`),
  );
  let asked = 0;
  const counted: IdList = {
    file: listed.file,
    size: listed.size,
    digest: listed.digest,
    change: undefined,
    domains: listed.domains,
    lineOf: (id) => listed.lineOf(id),
    elsewhere(id) {
      asked += 1;
      return listed.elsewhere(id);
    },
  };
  const allow = ['GET', 'PUT', 'POST'].map((method) => ({ idsFile: '/ids', methods: [method] }));
  const policy = policyFrom({ allow: [...allow, { peer: WEB, methods: ['PUT'] }] }, new Map([['/ids', counted]]));
  const question = { peer: WEB, request: GET, nowMs: NOW };

  assert.equal(nearestMiss(policy, question, 54), `${WEB} PUT: matched but for the method`);
  assert.equal(asked, 1);
  assert.equal(nearestMiss(policy, question, 53), undefined);
  assert.equal(asked, 1);
});

// ——— at random ———

/** The rule as written, without what `keys` name. */
function without(written: RuleSpec | string, keys: readonly MissedKey[], { peer }: Question): RuleSpec {
  const { subject, methods, paths, hosts, notBeforeMs, notAfterMs, windows, ...rest } =
    typeof written === 'string' ? { peer: written } : written;
  const whole = rest.peer ?? '';
  const path = whole.slice(whole.indexOf('/', 'spiffe://'.length));
  const segments = path.slice(1).split('/');
  const odd = segments.findIndex((segment, at) => !segment.startsWith('*') && segment !== pathOf(peer).slice(1).split('/')[at]);
  return {
    ...rest,
    ...(keys.includes('trust domain') && { peer: `spiffe://${trustDomainOf(peer)}${path}` }),
    ...(keys.includes('segment') && { peer: `spiffe://${trustDomainOf(peer)}/${segments.with(odd, '*').join('/')}` }),
    ...(keys.includes('method') ? {} : { methods }),
    ...(keys.includes('path') ? {} : { paths }),
    ...(keys.includes('host') ? {} : { hosts }),
    // Without its subject, and no peer to ask for, a rule is for anybody.
    ...(keys.includes('subject') ? (rest.peer === undefined ? { peer } : {}) : { subject }),
    ...(keys.includes('time') ? {} : { notBeforeMs, notAfterMs, windows }),
  };
}

/** Whether a rule, alone in a policy, matches. */
function matches(rule: RuleSpec, effect: Effect, { peer, request, nowMs }: Question): boolean {
  const allow = effect === 'allow' ? [rule] : [peer];
  const policy = policyFrom({ allow, deny: effect === 'deny' ? [rule] : [] });
  const of = new Authorisation(
    peer,
    () => policy,
    () => nowMs,
  );
  const judged = request === undefined ? of.connection() : of.request(request.method, request.target, request.host, request.subject);
  const verdict = 'ok' in judged ? (judged.ok ? judged.value : assert.fail(judged.error)) : judged;
  return effect === 'allow' ? verdict.allowed : !verdict.allowed || verdict.audited === 'denied';
}

const CASES = 1500;
test(`the verdict is the one that is acted on, and a miss is one by just what it names (${CASES} policies, 10 questions each)`, () => {
  const seen = new Map<string, number>();
  for (let seed = 0; seed < CASES; seed++) {
    const draws = new Draws(seed);
    const dateMs = drawDate(draws);
    const spec = drawPolicy(draws, dateMs);
    const policy = policyFrom(spec);
    for (let each = 0; each < 10; each++) {
      const { peer, request: drawn, nowMs } = drawQuestion(draws, dateMs);
      const request = drawn && { method: drawn.method, target: drawn.path, host: drawn.host, subject: drawn.subject };
      const question = { peer, request, nowMs };
      const explained = explain(policy, question);
      const of = new Authorisation(
        peer,
        () => policy,
        () => nowMs,
      );
      const judged =
        request === undefined
          ? { ok: true, value: of.connection() }
          : of.request(request.method, request.target, request.host, request.subject);
      assert.ok(explained.ok && judged.ok);
      assert.deepEqual(explained.value.verdict, judged.value);
      const { verdict, rule, misses } = explained.value;
      if (rule !== undefined) {
        assert.equal(rule.text, verdict.rule);
        const written = spec[rule.effect]?.[rule.index];
        assert.ok(written !== undefined && matches(without(written, [], question), rule.effect, question), JSON.stringify({ seed, rule }));
      }
      for (const miss of misses) {
        const what = JSON.stringify({ seed, question, miss });
        const { effect, index } = miss.rule;
        const written = spec[effect]?.[index];
        assert.ok(written !== undefined, what);
        assert.ok(matches(without(written, miss.but, question), effect, question), what);
        for (const key of miss.but) {
          const others = miss.but.filter((other) => other !== key);
          assert.ok(!matches(without(written, others, question), effect, question), `${key} ${what}`);
          seen.set(key, (seen.get(key) ?? 0) + 1);
        }
      }
    }
  }
  for (const key of MISSED_KEYS) assert.ok((seen.get(key) ?? 0) > 200, `${key}: ${seen.get(key)}`);
});
