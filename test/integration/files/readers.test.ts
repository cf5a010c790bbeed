import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readDuringReplacements } from '../../support/files/file-set-loop.ts';

test('a reader that resolves the directory once, in a tight loop, never sees the key of one set with the SVID of another', async (t) => {
  const seen = await readDuringReplacements(t, 'linked', 500);

  assert.ok(seen.reads > 50, JSON.stringify(seen));
  assert.equal(seen.mismatches, 0);
});

test('a reader of the flat layout never sees a file that is not whole', async (t) => {
  const seen = await readDuringReplacements(t, 'flat', 300);

  assert.ok(seen.reads > 50, JSON.stringify(seen));
});
