import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import { authorise, Authorisation } from './judge.ts';
import { compilePolicy, type Policy, type PolicySpec } from './policy.ts';

const WEB = requireSpiffeId('spiffe://example.org/web');

function compile(spec: PolicySpec): Policy {
  const compiled = compilePolicy(spec);
  assert.ok(compiled.ok, compiled.ok ? '' : JSON.stringify(compiled.error));
  return compiled.value;
}

/** `allow RULE`, `denied RULE`, `not_allowed`, or why the request cannot be judged. */
function say(of: Authorisation, target: string, host = 'api', method = 'GET'): string {
  const judged = of.request(method, target, host);
  if (!judged.ok) return judged.error;
  const verdict = judged.value;
  return verdict.allowed ? `allow ${verdict.rule}` : `${verdict.reason} ${verdict.rule ?? ''}`.trimEnd();
}

test('a verdict names the rule that decided, or says that none allows', () => {
  assert.deepEqual(authorise(WEB, compile({ allow: ['spiffe://example.org/*'] }), 0), {
    allowed: true,
    peer: WEB,
    rule: 'spiffe://example.org/*',
    audited: undefined,
  });
  assert.deepEqual(authorise(WEB, compile({ allow: ['spiffe://example.org/api'] }), 0), {
    allowed: false,
    peer: WEB,
    reason: 'not_allowed',
    rule: undefined,
    detail: 'spiffe://example.org/web is allowed this by none of the 1 allow rules',
  });
  assert.deepEqual(authorise(WEB, compile({ allow: ['spiffe://example.org/*'], deny: [WEB] }), 0), {
    allowed: false,
    peer: WEB,
    reason: 'denied',
    rule: 'deny spiffe://example.org/web',
    detail: 'spiffe://example.org/web is denied by a rule: deny spiffe://example.org/web',
  });
});

test('requests are looked at as far as the rules ask, and no further', () => {
  const odd = '/a%2Fb/../c;x';
  const plain = new Authorisation(
    WEB,
    () => compile({ allow: [WEB] }),
    () => 0,
  );
  assert.equal(say(plain, odd, ''), `allow ${WEB}`);
  const byPath = compile({ allow: [{ peer: WEB, paths: ['/a'] }] });
  const ofPath = new Authorisation(
    WEB,
    () => byPath,
    () => 0,
  );
  assert.equal(say(ofPath, '/a', ''), `allow ${WEB} /a`);
  assert.match(say(ofPath, odd, ''), /^the path has %2F/);
  const byHost = compile({ allow: [{ peer: WEB, hosts: ['api'] }] });
  const ofHost = new Authorisation(
    WEB,
    () => byHost,
    () => 0,
  );
  assert.equal(say(ofHost, odd, 'API.:8443'), `allow ${WEB} host api`);
  assert.equal(say(ofHost, odd, ''), 'the request names no host');
});

test('the newest policy decides, at the time of the request', () => {
  let policy = compile({ allow: [WEB] });
  let nowMs = 0;
  const of = new Authorisation(
    WEB,
    () => policy,
    () => nowMs,
  );
  assert.equal(say(of, '/'), `allow ${WEB}`);

  policy = compile({ allow: [] });
  assert.equal(say(of, '/'), 'not_allowed');
  assert.ok(!of.connection().allowed);

  policy = compile({ allow: [{ peer: WEB, notAfterMs: 10 }] });
  assert.ok(of.connection().allowed);
  nowMs = 10;
  assert.equal(say(of, '/'), 'not_allowed');
  assert.ok(!of.connection().allowed);
});

test('where no rule asks for anything but the peer, its answer is the same object each time', () => {
  const policy = compile({ allow: ['spiffe://example.org/**'], deny: ['spiffe://example.org/api'] });
  const of = new Authorisation(
    WEB,
    () => policy,
    () => 0,
  );
  assert.equal(of.request('GET', '/', 'a'), of.request('POST', '/b', 'c'));
});

test('a refusal counts the rules of the policy that refuses, not of one before', () => {
  let policy = compile({ allow: [] });
  const of = new Authorisation(
    WEB,
    () => policy,
    () => 0,
  );
  const detail = (): string => {
    const judged = of.request('GET', '/', 'a');
    return judged.ok && !judged.value.allowed ? judged.value.detail : assert.fail('it is allowed');
  };
  assert.match(detail(), /none of the 0 allow rules$/);

  policy = compile({ allow: ['spiffe://example.org/api'] });

  assert.match(detail(), /none of the 1 allow rules$/);
});
