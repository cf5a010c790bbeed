import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { createRandom } from '../../../test/support/random.ts';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { atOnce } from '../../lib/at-once.ts';
import { requireSpiffeId } from '../../spiffe/spiffe-id.ts';
import { IdsLineReader, readIdsFile } from './ids-file.ts';
import { formatIssues } from '../issue.ts';

const GOOD = `# who works here
spiffe://example.org/web

  spiffe://example.org/api # for now
\tspiffe://partner.test/ns/shop/sa/web
spiffe://example.org/web
...
# the end
`;
const IDS = ['spiffe://example.org/web', 'spiffe://example.org/api', 'spiffe://partner.test/ns/shop/sa/web'].map(requireSpiffeId);

/** What is wrong with a text, which comes in parts of this size; none: the lines of the three IDs, and how many there are. */
function read(text: string | Buffer, partBytes = Infinity): { readonly problems: readonly string[]; readonly found: readonly unknown[] } {
  const reader = new IdsLineReader('f');
  const bytes = Buffer.from(text as string);
  for (let from = 0; from < bytes.length; from += partBytes) if (!reader.push(bytes.subarray(from, from + partBytes))) break;
  const issues = reader.finish();
  if (issues.length > 0) return { problems: formatIssues(issues).split('\n'), found: [] };
  const list = atOnce(reader.builder.build('f', '', undefined));
  return { problems: [], found: [list.size, ...IDS.map((id) => list.lineOf(id))] };
}

test('a list has one SPIFFE ID a line, with comments, whatever the parts in which it comes', () => {
  for (const partBytes of [1, 2, 3, 7, 64, Infinity]) assert.deepEqual(read(GOOD, partBytes), { problems: [], found: [4, 6, 4, 5] });
  assert.deepEqual(read(GOOD.replaceAll('\n', '\r\n')).found, [4, 6, 4, 5]);
  assert.deepEqual(read('...').found, [0, undefined, undefined, undefined]);
});

test('a list that is cut off anywhere before the end mark is refused', () => {
  for (let length = 0; length < GOOD.indexOf('...') + 3; length++)
    assert.match(read(GOOD.slice(0, length)).problems.at(-1) ?? `nothing is wrong after ${length}`, /the line "\.\.\." is missing/);
});

const BAD: readonly [string, string | Buffer, RegExp][] = [
  ['an end mark in the middle', GOOD.replace('\n\n', '\n...\n'), /^f:4:1: stands after the line "\.\.\."/],
  ['a pattern', 'spiffe://example.org/*\n...\n', /^f:1:1: .*write the pattern as a rule of its own/],
  ['a trust domain', '  spiffe://example.org\n...\n', /^f:1:3: "spiffe:\/\/example\.org": this names a trust domain/],
  ['two on a line', 'spiffe://example.org/a spiffe://example.org/b\n...\n', /^f:1:1: is not one SPIFFE ID/],
  ['an item of YAML', '- spiffe://example.org/a\n...\n', /^f:1:1: is not one SPIFFE ID/],
  ['quotes', '"spiffe://example.org/a"\n...\n', /^f:1:1: .*begins with "spiffe:\/\/"/],
  ['a comment without a space', 'spiffe://example.org/a#b\n...\n', /^f:1:1: .*a path has only letters/],
  ['a byte order mark', '\uFEFFspiffe://example.org/a\n...\n', /^f:1:1: .*begins with "spiffe:\/\/"/],
  ['letters of another alphabet', 'spiffe://example.org/\u0430\n...\n', /^f:1:1: .*a path has only letters/],
  ['a control character', 'spiffe://example.org/a\u0000\n...\n', /^f:1:23: a control character/],
  ['UTF-16', Buffer.from(GOOD, 'utf16le'), /^f:1:2: a control character/],
  ['a line without end', `spiffe://example.org/${'a'.repeat(10_000)}`, /^f:1:1: the line is longer than 8192 bytes/],
  ['an ID that is too long', `spiffe://example.org/${'a'.repeat(2048)}\n...\n`, /^f:1:1: .*at most 2048 bytes/],
];

for (const [what, text, problem] of BAD) {
  test(`a list is refused that has ${what}`, () => {
    assert.match(read(text).problems[0] ?? 'nothing is wrong', problem);
  });
}

test('of very many wrong lines the first are told, and the others are not read', () => {
  const { problems } = read('nobody\n'.repeat(100_000));

  assert.equal(problems.length, 20);
  assert.match(problems.at(-1) ?? '', /^f:20:1: "nobody"/);
});

test('whatever the bytes are, there is a list or a problem, and nothing is thrown', () => {
  const random = createRandom(11);
  const below = (limit: number): number => Math.floor(random() * limit);
  const parts = [...GOOD.split(/(?<=\n)/), '...', '\r', '#', ' ', '\t', 'spiffe://', '/', '\u0000', '\u00ff', '\n'];
  for (let round = 0; round < 5000; round++) {
    const text = Array.from({ length: 1 + below(12) }, () => parts[below(parts.length)]).join('');
    const { problems, found } = read(Buffer.from(text, 'latin1'), 1 + below(9));
    assert.ok(problems.length > 0 || found.length === 4);
  }
});

test('a list of the same bytes is the one that is known; another says how it differs from that', async (t) => {
  const file = join(await temporaryFolder(t), 'ids.txt');
  const load = async (text: string, known?: Parameters<typeof readIdsFile>[1]) => {
    await writeFile(file, text);
    const loaded = await readIdsFile(file, known);
    assert.ok(loaded.ok);
    return loaded.value;
  };
  const first = await load(GOOD);

  assert.equal(await load(GOOD, first), first);
  const second = await load(`${IDS[0]}\nspiffe://example.org/new\n...\n`, first);
  assert.equal(first.change, undefined);
  assert.deepEqual(second.change, {
    from: first.digest,
    added: { count: 1, first: ['spiffe://example.org/new'] },
    removed: { count: 2, first: [IDS[1], IDS[2]] },
  });
  assert.equal(second.elsewhere(requireSpiffeId('spiffe://other.test/new')), 'spiffe://example.org/new');
  assert.equal(second.elsewhere(requireSpiffeId('spiffe://example.org/new')), undefined);
});
