import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bearerProblem, NO_BEARER, type Bearer } from './bearer.ts';

test('where tokens are looked at, what nobody has looked at is refused, also where none is needed', () => {
  const asked: Bearer[] = [];
  const tokens = { problemOf: (bearer: Bearer) => void asked.push(bearer) };
  assert.equal(bearerProblem(undefined, undefined), undefined);
  assert.equal(bearerProblem(undefined, NO_BEARER), undefined);
  assert.equal(bearerProblem(tokens, undefined)?.reason, 'token_unverifiable');
  assert.equal(bearerProblem(tokens, NO_BEARER), undefined);
  assert.deepEqual(asked, [NO_BEARER]);
});
