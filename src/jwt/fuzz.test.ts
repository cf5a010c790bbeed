import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkTokenCase } from '../../test/fuzz/tokens.ts';
import { TOKEN_PROBLEMS } from './token.ts';

/** Some seconds; `npm run fuzz -- --subject jwt` goes on for longer. */
const CASES = 3000;
const SEED = 20_261_130;

test(`whatever is in a token, the answer is one of ours, and what is accepted is so by another reading (${CASES} tokens)`, async () => {
  const seen = new Map<string, number>();
  for (let number = SEED; number < SEED + CASES; number++) {
    const verdict = await checkTokenCase(number);
    seen.set(verdict, (seen.get(verdict) ?? 0) + 1);
  }
  // What is made is near enough to what is good to say something, and is refused for everything but its length.
  assert.ok((seen.get('ok') ?? 0) > CASES / 10, JSON.stringify([...seen]));
  for (const code of TOKEN_PROBLEMS)
    if (code !== 'token_too_long') assert.ok((seen.get(code) ?? 0) > 0, `${code}: ${JSON.stringify([...seen])}`);
});
