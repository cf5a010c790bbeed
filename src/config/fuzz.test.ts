import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkConfiguration, SUBJECTS, type Subject } from '../../test/fuzz/configurations.ts';
import { Draws } from '../../test/fuzz/random.ts';

/** Some seconds; `npm run fuzz` goes on for longer. */
const CASES = 5000;
const SEED = 20_261_130;

test('whatever is written, the readers of configurations, policies and lists answer, and never throw', () => {
  const good = new Map<Subject, number>();
  for (let number = SEED; number < SEED + CASES; number++) {
    const { subject, isGood } = checkConfiguration(new Draws(number));
    if (isGood) good.set(subject, (good.get(subject) ?? 0) + 1);
  }
  // What is made is near enough to what is good to say something.
  for (const subject of SUBJECTS)
    assert.ok((good.get(subject) ?? 0) > CASES / 200, `${subject}: ${good.get(subject)} of ${CASES} were good`);
});
