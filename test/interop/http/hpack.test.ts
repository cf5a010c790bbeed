import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DIFFERENCES, HpackDifferential } from '../../fuzz/hpack-differential.ts';
import { HPACK_PROBLEMS } from '../../../src/http2/hpack/decoder.ts';
import { needs } from '../parts.ts';

/** A few seconds; `npm run fuzz -- --subject hpack` goes on for longer. */
const CASES = 10_000;
const SEED = 20_261_202;

test('whatever is sent, golang.org/x/net reads the same fields, and those that Scute writes', needs('go-spiffe'), () => {
  const differential = new HpackDifferential();
  for (let number = SEED; number < SEED + CASES; number++) differential.check(number);
  differential.finish();
  assert.deepEqual([...differential.differences].toSorted(), Object.keys(DIFFERENCES).toSorted(), 'a difference that is meant is met');
  // What is made is near enough to what is good to say something, and wrong in every way.
  assert.ok((differential.seen.get('taken') ?? 0) > CASES, JSON.stringify([...differential.seen]));
  for (const problem of HPACK_PROBLEMS) assert.ok((differential.seen.get(problem) ?? 0) > CASES / 200, problem);
});
