import assert from 'node:assert/strict';
import { test } from 'node:test';
import { err, ok } from '../lib/result.ts';
import { DENY_REASONS, type DenyReason } from '../policy/verdict.ts';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import { TOKEN_RESULTS, type TokenRefusal } from '../telemetry/log/jwt-records.ts';
import { refusalOf, type Refusal } from './refusal.ts';
import type { Side } from './tcp-forwarder.ts';

const CALLER = requireSpiffeId('spiffe://example.org/caller');

function denied(reason: DenyReason | TokenRefusal, judged: Side): Refusal {
  const refusal = refusalOf(ok({ allowed: false, peer: CALLER, reason, rule: undefined, detail: 'for the log alone' }), judged);
  assert.ok(refusal);
  return refusal;
}

test('every refusal for a token has an answer that tells nothing of it, and no other refusal has one', () => {
  const reasons = TOKEN_RESULTS.filter((result) => result.startsWith('token_')) as TokenRefusal[];
  assert.ok(reasons.length > 10);
  for (const reason of reasons) {
    const { status, result, challenge, detail, told } = denied(reason, 'downstream');
    assert.equal(result, 'token_refused');
    assert.ok([400, 401, 503].includes(status));
    assert.equal(status !== 503, challenge?.startsWith('Bearer') === true);
    assert.doesNotMatch(detail, /expire|audience|signature|key|subject|bundle|log/);
    assert.equal(told, 'for the log alone');
  }
  for (const reason of DENY_REASONS) {
    const { status, result, challenge, detail } = denied(reason, 'downstream');
    assert.deepEqual([status, result, challenge], [403, 'denied', undefined]);
    assert.equal(detail, `${reason}: spiffe://example.org/caller may not do this`);
  }
});

test('who asks a server that may not be asked is answered 502, and is not to repeat it', () => {
  const { status, result, detail, isDenial } = denied('not_allowed', 'upstream');
  assert.deepEqual([status, result, isDenial], [502, 'upstream_denied', true]);
  assert.equal(detail, 'not_allowed: spiffe://example.org/caller may not be asked this');
});

test('what cannot be judged is a bad request, and what may be made is not refused', () => {
  assert.deepEqual(refusalOf(err('a path of two readings'), 'downstream'), {
    status: 400,
    result: 'bad_request',
    detail: 'a path of two readings',
    told: 'a path of two readings',
    challenge: undefined,
    isDenial: false,
  });
  assert.equal(refusalOf(ok({ allowed: true, peer: CALLER, rule: 'allow', audited: undefined }), 'downstream'), undefined);
});
