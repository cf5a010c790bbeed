import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkPolicyCase, POLICY_ANSWERS, say, type PolicyAnswer } from '../../test/fuzz/policy-differential.ts';
import { Draws } from '../../test/fuzz/random.ts';
import { drawDate, drawLists, drawPolicy, drawQuestion, policyFrom } from '../../test/support/policy/policies.ts';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import { compilePolicy, type Decision, type Policy, type PolicySpec } from './policy.ts';
import type { RequestFacts } from './request.ts';
import type { RuleSpec } from './rule.ts';

const WEB = 'spiffe://example.org/web';
const OTHER = 'spiffe://example.org/other';
const NOW = Date.UTC(2026, 10, 30, 12);

function compile(spec: Partial<PolicySpec>): Policy {
  const compiled = compilePolicy({ allow: [], ...spec });
  assert.ok(compiled.ok, compiled.ok ? '' : JSON.stringify(compiled.error));
  return compiled.value;
}

function ask(policy: Policy, peer: string, request?: Partial<RequestFacts>, nowMs = NOW): Decision {
  const of = policy.forPeer(requireSpiffeId(peer));
  if (request === undefined) return of.judgeConnection(nowMs);
  return of.judge({ method: 'GET', path: '/', host: 'api', ...request }, nowMs);
}

test('nobody is allowed by an empty policy', () => {
  assert.equal(say(ask(compile({}), WEB)), 'not_allowed');
  assert.equal(say(ask(compile({}), WEB, {})), 'not_allowed');
});

test('a bare entry admits what it names, to everything', () => {
  const policy = compile({ allow: [WEB, 'spiffe://example.org/ns/*/sa/batch'] });
  assert.equal(say(ask(policy, WEB)), `allow ${WEB}`);
  assert.equal(say(ask(policy, WEB, { method: 'DELETE', path: '/x' })), `allow ${WEB}`);
  assert.equal(say(ask(policy, 'spiffe://example.org/ns/a/sa/batch')), 'allow spiffe://example.org/ns/*/sa/batch');
  assert.equal(say(ask(policy, 'spiffe://example.org/ns/a/b/sa/batch')), 'not_allowed');
  assert.equal(say(ask(policy, 'spiffe://other.org/web')), 'not_allowed');
});

test('deny wins over allow, wherever it stands', () => {
  const policy = compile({ allow: ['spiffe://example.org/**', WEB], deny: [WEB] });
  assert.equal(say(ask(policy, WEB)), `denied deny ${WEB}`);
  assert.equal(say(ask(policy, 'spiffe://example.org/other')), 'allow spiffe://example.org/**');
});

test('a rule for some requests admits the connection, and of the requests no other', () => {
  const policy = compile({ allow: [{ peer: WEB, methods: ['GET'], paths: ['/items/*', '/files/**'], hosts: ['api', '*.example.com'] }] });
  assert.ok(ask(policy, WEB).allowed);
  const is = (request: Partial<RequestFacts>): boolean => ask(policy, WEB, { path: '/items/1', ...request }).allowed;
  assert.ok(is({}));
  assert.ok(is({ host: 'a.example.com' }));
  assert.ok(is({ path: '/files/' }));
  assert.ok(is({ path: '/files/a/b' }));
  for (const request of [
    { method: 'HEAD' },
    { method: 'get' },
    { path: '/items' },
    { path: '/items/' },
    { path: '/items/1/' },
    { path: '/items/1/2' },
    { path: '/files' },
    { path: '/Items/1' },
    { path: '*' },
    { host: 'example.com' },
    { host: 'a.b.example.com' },
    { host: '' },
  ])
    assert.ok(!is(request), JSON.stringify(request));
});

test('a path that is denied is denied with a slash behind it, too', () => {
  const policy = compile({ allow: [WEB], deny: [{ peer: WEB, paths: ['/admin', '/keys/*', '/private/**'] }] });
  for (const path of ['/admin', '/admin/', '/keys/a', '/keys/a/', '/private/', '/private/a', '/private/a/'])
    assert.match(say(ask(policy, WEB, { path })), /^denied /, path);
  for (const path of ['/', '/admins', '/admin/x', '/keys', '/keys/', '/keys/a/b', '/private'])
    assert.match(say(ask(policy, WEB, { path })), /^allow /, path);
  assert.match(say(ask(policy, WEB)), /^allow /, 'what is denied to some requests is not denied to the connection');
});

test('what a path that is allowed ends in matters', () => {
  const policy = compile({ allow: [{ peer: WEB, paths: ['/admin'] }] });
  assert.ok(ask(policy, WEB, { path: '/admin' }).allowed);
  assert.ok(!ask(policy, WEB, { path: '/admin/' }).allowed);
  const beside = compile({ allow: [{ peer: WEB, paths: ['/admin'] }], deny: [{ peer: WEB, paths: ['/keys'] }] });
  assert.ok(!ask(beside, WEB, { path: '/admin/' }).allowed, 'also where a path of the same peer is denied');
});

test('a policy says what its rules ask of requests, and whether they have times', () => {
  const asks = ({ asksForMethod, asksForPath, asksForHost, hasTimes }: Policy) => ({ asksForMethod, asksForPath, asksForHost, hasTimes });
  const nothing = { asksForMethod: false, asksForPath: false, asksForHost: false, hasTimes: false };
  const windows = [{ from: '09:00', to: '17:00', timeZone: 'UTC' }];
  for (const effect of ['allow', 'deny'] as const) {
    const ofOne = (rule: Partial<RuleSpec>) => asks(compile({ [effect]: [OTHER, { peer: WEB, ...rule }] }));
    assert.deepEqual(ofOne({}), nothing);
    assert.deepEqual(ofOne({ methods: ['GET'] }), { ...nothing, asksForMethod: true });
    assert.deepEqual(ofOne({ paths: ['/a'] }), { ...nothing, asksForPath: true });
    assert.deepEqual(ofOne({ hosts: ['a'] }), { ...nothing, asksForHost: true });
    for (const times of [{ notBeforeMs: NOW }, { notAfterMs: NOW }, { windows }])
      assert.deepEqual(ofOne(times), { ...nothing, hasTimes: true });
  }
});

test('a rule holds from its first moment until before its last', () => {
  const policy = compile({ allow: [{ peer: WEB, notBeforeMs: NOW, notAfterMs: NOW + 1000 }] });
  const is = (nowMs: number): boolean => ask(policy, WEB, undefined, nowMs).allowed;
  assert.deepEqual([is(NOW - 1), is(NOW), is(NOW + 999), is(NOW + 1000), is(Number.NaN)], [false, true, true, false, false]);
  assert.deepEqual(
    [NOW - 5, NOW - 1, NOW, NOW + 999, NOW + 1000].map((nowMs) => policy.nextLook(nowMs)),
    [NOW, NOW, NOW + 1000, NOW + 1000, Infinity],
  );
  assert.equal(compile({ allow: [WEB], deny: [{ peer: WEB, paths: ['/x'] }] }).nextLook(NOW), Infinity);
  const windows = [{ from: '09:00', to: '17:00', timeZone: 'UTC' }];
  const later = compile({ allow: [{ peer: WEB, notBeforeMs: NOW + 1e9, notAfterMs: NOW + 2e9, windows }] });
  assert.deepEqual(
    [NOW, NOW + 2e9].map((nowMs) => later.nextLook(nowMs)),
    [NOW + 1e9, Infinity],
    'outside of its dates its windows wake nobody',
  );
});

test('a deny rule in audit denies nothing, an allow rule in audit admits, and both are told', () => {
  const denies = compile({ allow: [WEB], deny: [{ peer: WEB, mode: 'audit' }] });
  assert.equal(say(ask(denies, WEB)), `audit ${WEB} but denied deny ${WEB} (audit)`);
  const admits = compile({ allow: [{ peer: WEB, mode: 'audit' }] });
  assert.equal(say(ask(admits, WEB)), `audit ${WEB} (audit) but not_allowed`);
  const both = compile({ allow: [{ peer: WEB, mode: 'audit' }, WEB] });
  assert.equal(say(ask(both, WEB)), `allow ${WEB}`);
  const enforced = compile({ allow: [{ peer: WEB, mode: 'audit' }], deny: [WEB] });
  assert.equal(say(ask(enforced, WEB)), `denied deny ${WEB}`);
});

test('a policy in audit lets everybody pass, and says whom it would deny', () => {
  const policy = compile({ allow: ['spiffe://example.org/ok'], deny: [WEB], mode: 'audit' });
  assert.equal(say(ask(policy, 'spiffe://example.org/ok')), 'allow spiffe://example.org/ok');
  assert.equal(say(ask(policy, 'spiffe://example.org/else')), 'audit audit but not_allowed');
  const decision = ask(policy, WEB);
  assert.ok(decision.allowed && decision.audited?.reason === 'denied');
});

test('every value that is wrong is named, with the keys that lead to it', () => {
  const compiled = compilePolicy({
    allow: [
      'spiffe://Example.org/web',
      { peer: 'spiffe://example.org/w*b', methods: ['get', 'TRACE'], paths: [] },
      {
        peer: WEB,
        paths: ['x', '/%61', '/a/../b', '/**/b', '/a;b', '/%e4', '/a?b', '/a*', '*'],
        hosts: ['API', 'a:80', 'a.*', 'a%62', '*.[::1]', '*.127.0.0.1'],
      },
    ],
    deny: [
      { peer: WEB, notBeforeMs: NOW, notAfterMs: NOW },
      { peer: WEB, windows: [{ days: [], from: '9:00', to: '24:30', timeZone: 'Europe/Atlantis' }] },
      { peer: WEB, windows: [{ from: '09:00', to: '09:00', timeZone: 'UTC' }] },
    ],
  });
  assert.ok(!compiled.ok);
  assert.deepEqual(
    compiled.error.map(({ path }) => path.join('.')),
    [
      'allow.0',
      'allow.1.peer',
      'allow.1.methods.0',
      'allow.1.methods.1',
      'allow.1.paths',
      ...[0, 1, 2, 3, 4, 5, 6, 7, 8].map((at) => `allow.2.paths.${at}`),
      ...[0, 1, 2, 3, 4, 5].map((at) => `allow.2.hosts.${at}`),
      'deny.0.notAfter',
      'deny.1.windows.0.from',
      'deny.1.windows.0.to',
      'deny.1.windows.0.timeZone',
      'deny.1.windows.0.days',
      'deny.2.windows.0.to',
    ],
  );
});

const CASES = 2000;
test(`the compiled policy says what a plain reading of the rules says (${CASES} policies, 40 questions each)`, () => {
  const seen = new Map<PolicyAnswer, number>();
  for (let number = 0; number < CASES; number++) {
    const answers = checkPolicyCase(number);
    for (const answer of POLICY_ANSWERS) seen.set(answer, (seen.get(answer) ?? 0) + answers[answer]);
  }
  for (const answer of POLICY_ANSWERS) assert.ok((seen.get(answer) ?? 0) > CASES, answer);
});

test('a list of IDs in a rule says what a rule for each of them says', () => {
  for (let seed = 0; seed < CASES; seed++) {
    const draws = new Draws(seed);
    const dateMs = drawDate(draws);
    const { listed, lists, expanded } = drawLists(draws, drawPolicy(draws, dateMs));
    const [policy, plain] = [policyFrom(listed, lists), compile(expanded)];
    for (let question = 0; question < 20; question++) {
      const { peer, request, nowMs } = drawQuestion(draws, dateMs);
      const [answer, expected] = [policy, plain].map((each) => say(ask(each, peer, request, nowMs)).split(' ')[0]);
      assert.equal(answer, expected, JSON.stringify({ seed, listed, peer, request, nowMs }));
    }
  }
});

test('of several rules that match, the one that was written first is named, however they are found', () => {
  const rules = ['spiffe://example.org/**', WEB, 'spiffe://example.org/*'].map((peer) => ({ peer, methods: ['GET'] }));
  for (const allow of [rules, rules.toReversed()]) {
    const decision = ask(compile({ allow }), WEB, {});
    assert.ok(decision.allowed);
    assert.equal(decision.rule, `${allow[0]?.peer} GET`);
  }
});

test('of a rule that is long the first 400 characters are named, and always whether it is in audit', () => {
  const paths = Array.from({ length: 100 }, (_, index) => `/path-${index}`);
  const [rule] = compile({ allow: [{ peer: WEB, paths, mode: 'audit' }] }).rules;
  const whole = `${WEB} ${paths.join(',')}`;
  assert.equal(rule?.text, `${whole.slice(0, 400)}… (audit)`);
});

// ——— which peers an entry names ———

function matching(entries: readonly string[], id: string): string | undefined {
  const decision = ask(compile({ allow: entries }), id);
  return decision.allowed ? decision.rule : undefined;
}

test('an exact entry admits that SPIFFE ID and no other', () => {
  assert.equal(matching([WEB], WEB), WEB);
  for (const id of [
    'spiffe://example.org/web/a',
    'spiffe://example.org/we',
    'spiffe://example.org/Web',
    'spiffe://example.com/web',
    'spiffe://example.org',
  ])
    assert.equal(matching([WEB], id), undefined, id);
});

test('a single star admits exactly one segment, whole', () => {
  const entry = 'spiffe://example.org/ns/*/web';
  assert.equal(matching([entry], 'spiffe://example.org/ns/a/web'), entry);
  for (const path of ['/ns/web', '/ns/a/b/web', '/ns/a/web/b', '/ns/a/api', '/x/a/web'])
    assert.equal(matching([entry], `spiffe://example.org${path}`), undefined, path);
});

test('a double star admits one or more further segments', () => {
  const entry = 'spiffe://example.org/ns/**';
  for (const path of ['/ns/a', '/ns/a/b/c']) assert.equal(matching([entry], `spiffe://example.org${path}`), entry, path);
  for (const path of ['/ns', '/nsa/b', '']) assert.equal(matching([entry], `spiffe://example.org${path}`), undefined, path);
});

test('a double star alone admits a whole trust domain, but not the ID of the trust domain itself', () => {
  const entry = 'spiffe://example.org/**';
  assert.equal(matching([entry], 'spiffe://example.org/a/b'), entry);
  for (const id of ['spiffe://example.org', 'spiffe://sub.example.org/a', 'spiffe://example.orgs/a'])
    assert.equal(matching([entry], id), undefined, id);
});

test('both kinds of star go together', () => {
  const entry = 'spiffe://example.org/*/a/**';
  assert.equal(matching([entry], 'spiffe://example.org/x/a/y/z'), entry);
  assert.equal(matching([entry], 'spiffe://example.org/x/a'), undefined);
});

test('an exact entry is named before a pattern, and the first pattern before the next', () => {
  const entries = ['spiffe://example.org/**', 'spiffe://example.org/*', WEB];
  assert.equal(matching(entries, WEB), WEB);
  assert.equal(matching(entries, 'spiffe://example.org/api'), 'spiffe://example.org/**');
});

test('a policy keeps its rules as written, whatever becomes of what was given', () => {
  const given = ['spiffe://example.org/b', 'spiffe://example.org/*'];
  const policy = compile({ allow: given });

  given.push('spiffe://evil.example/**');

  assert.deepEqual(policy.entries, ['spiffe://example.org/b', 'spiffe://example.org/*']);
  assert.deepEqual(policy.spec.allow, policy.entries);
  assert.equal(say(ask(policy, 'spiffe://evil.example/a')), 'not_allowed');
  assert.ok(Object.isFrozen(policy) && Object.isFrozen(policy.spec.allow));
});

test('looking up an exact ID costs the same among 100,000 as among few', () => {
  const policy = compile({ allow: Array.from({ length: 100_000 }, (_, index) => `spiffe://example.org/w${index}`) });
  const stranger = requireSpiffeId('spiffe://example.org/stranger');
  const started = process.cpuUsage();

  for (let round = 0; round < 10_000; round += 1) assert.ok(!policy.forPeer(stranger).judgeConnection(NOW).allowed);

  // A scan would compare a thousand million times.
  assert.ok(process.cpuUsage(started).user < 1_000_000);
});
