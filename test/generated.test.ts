import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runChild } from './support/child.ts';
import { temporaryFolder } from './support/temporary-folder.ts';

const root = join(import.meta.dirname, '..');

test('the protobuf code is what the definitions give (npm run gen)', async (t) => {
  const folder = await temporaryFolder(t);
  const path = `${join(root, 'node_modules/.bin')}:${process.env['PATH']}`;

  const { code, stderr } = await runChild([join(root, 'node_modules/.bin/buf'), 'generate', '--output', folder], {
    cwd: root,
    env: { PATH: path, HOME: folder },
  });

  assert.equal(code, 0, stderr);
  const generated = globSync('src/gen/*.ts', { cwd: folder }).toSorted();
  assert.deepEqual(generated, globSync('src/gen/*.ts', { cwd: root }).toSorted());
  for (const file of generated) assert.equal(readFileSync(join(root, file), 'utf8'), readFileSync(join(folder, file), 'utf8'), file);
});
