import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DENY_REASONS } from '../policy/verdict.ts';
import { TOKEN_RESULTS } from '../telemetry/log/jwt-records.ts';
import { bearerProblem, NO_BEARER, tokenAnswer, type Bearer } from './bearer.ts';

test('where tokens are looked at, what nobody has looked at is refused, also where none is needed', () => {
  const asked: Bearer[] = [];
  const tokens = { problemOf: (bearer: Bearer) => void asked.push(bearer) };
  assert.equal(bearerProblem(undefined, undefined), undefined);
  assert.equal(bearerProblem(undefined, NO_BEARER), undefined);
  assert.equal(bearerProblem(tokens, undefined)?.reason, 'token_unverifiable');
  assert.equal(bearerProblem(tokens, NO_BEARER), undefined);
  assert.deepEqual(asked, [NO_BEARER]);
});

test('every refusal for a token has an answer that tells nothing of it, and no other refusal has one', () => {
  const answers = TOKEN_RESULTS.filter((result) => result.startsWith('token_')).map((reason) => tokenAnswer(reason as 'token_missing'));
  assert.ok(answers.length > 10);
  for (const answer of answers) {
    assert.ok(answer !== undefined && [400, 401, 503].includes(answer.status));
    assert.equal(answer.status !== 503, answer.challenge?.startsWith('Bearer') === true);
    assert.doesNotMatch(answer.detail, /expire|audience|signature|key|subject|bundle/);
  }
  for (const reason of DENY_REASONS) assert.equal(tokenAnswer(reason), undefined);
});
