import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readDuringReplacements } from '../../support/files/file-set-loop.ts';

test('over 10,000 replacements a reader that resolves the directory once never sees a mismatched pair', async (t) => {
  const seen = await readDuringReplacements(t, 'linked', 10_000);

  assert.ok(seen.reads > 1000, JSON.stringify(seen));
  assert.equal(seen.mismatches, 0);
});

test('over 10,000 replacements a reader of the flat layout never sees a file that is not whole', async (t) => {
  const seen = await readDuringReplacements(t, 'flat', 10_000);

  assert.ok(seen.reads > 1000, JSON.stringify(seen));
});
