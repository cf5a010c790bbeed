import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { build } from 'esbuild';
import { placesOf, type Place } from '../../../build/code-cache/places.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const root = join(import.meta.dirname, '../../..');

/** What of `text` lies in `place`. */
function textIn(text: string, { from, to }: Place): string {
  const starts = [0];
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  const offset = ({ lineNumber, columnNumber }: Place['from']): number => (starts[lineNumber] ?? text.length) + columnNumber;
  return text.slice(offset(from), offset(to));
}

test('the code of a source is found in a bundle by its source map, whole and without that of others', async (t) => {
  const folder = await temporaryFolder(t);
  const outfile = join(folder, 'bundle.js');
  await build({
    entryPoints: [join(root, 'src/spiffe/spiffe-id.ts')],
    outfile,
    bundle: true,
    minify: true,
    lineLimit: 160,
    platform: 'node',
    format: 'esm',
    sourcemap: 'external',
  });
  const [text, map] = [await readFile(outfile, 'utf8'), await readFile(`${outfile}.map`, 'utf8')];
  const places = placesOf(map, (source) => source.endsWith('src/spiffe/trust-domain.ts'));
  const code = places.map((place) => textIn(text, place)).join('');
  assert.match(code, /^[^;]+;function.*trust_domain_too_long.*\}$/);
  assert.doesNotMatch(code, /spiffe:\/\//);
  const others = placesOf(map, (source) => !source.endsWith('src/spiffe/trust-domain.ts'));
  const rest = others.map((place) => textIn(text, place)).join('');
  assert.equal(rest.length + code.length, text.length);
  assert.deepEqual(
    placesOf(map, () => true).map((place) => textIn(text, place)),
    [text],
  );
  assert.deepEqual(
    placesOf(map, () => false),
    [],
  );
});
