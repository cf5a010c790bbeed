import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { parse } from 'yaml';
import { createRandom } from '../../../test/support/random.ts';
import { EMPTY_DENY_LIST, type DenyList } from '../../policy/deny-list.ts';
import { DenyLineReader } from './deny-lines.ts';
import { formatIssues } from '../issue.ts';

const HASH = createHash('sha256').update('leaf').digest('hex');

/** What is wrong with a text, which comes in parts of this size; none: its entries. */
function read(text: string | Buffer, partBytes = Infinity): { readonly problems: readonly string[]; readonly entries: readonly string[] } {
  const reader = new DenyLineReader('f');
  const bytes = Buffer.from(text as string);
  for (let from = 0; from < bytes.length; from += partBytes) if (!reader.push(bytes.subarray(from, from + partBytes))) break;
  const problems = formatIssues(reader.finish())
    .split('\n')
    .filter((line) => line !== '');
  return { problems, entries: problems.length > 0 ? [] : entriesOf(done(reader.builder.build('f'))) };
}

function done<T>(steps: Generator<void, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

function entriesOf(list: DenyList): readonly string[] {
  return done(list.notIn(EMPTY_DENY_LIST, 1000)).first;
}

const GOOD = `---
# who has left
ids:
  - spiffe://example.org/web # lost
  - "spiffe://example.org/ns/*/sa/batch"
  - 'spiffe://example.org/ns/gone/**'

certificates:
- ${HASH.toUpperCase()}
- ${HASH.replace(/..(?=.)/g, '$&:')}
serials: # with the key identifier of the issuer
    - 01:4F:67@CA:29:FE:C0
    - 00014f67@ca29fec0
    - 0@00
    - -80@ca29fec0
...
# nothing more
`;

test('entries come in any case, with colons or without, in quotes or without; leading zeros of a serial number mean nothing', () => {
  const expected = [
    'spiffe://example.org/web',
    'spiffe://example.org/ns/*/sa/batch',
    'spiffe://example.org/ns/gone/**',
    HASH,
    HASH,
    '14f67@ca29fec0',
    '14f67@ca29fec0',
    '0@00',
    '-80@ca29fec0',
  ];

  for (const partBytes of [1, 2, 7, 64, Infinity]) {
    assert.deepEqual(read(GOOD, partBytes), { problems: [], entries: expected });
    assert.deepEqual(read(GOOD.replaceAll('\n', '\r\n'), partBytes), { problems: [], entries: expected });
  }
});

test('what is read is YAML', () => {
  const read = parse(GOOD) as Record<string, unknown[]>;
  assert.deepEqual(
    Object.entries(read).map(([key, values]) => [key, values.length]),
    [
      ['ids', 3],
      ['certificates', 2],
      ['serials', 4],
    ],
  );
});

test('a list may name nobody', () => {
  for (const text of ['...', '...\n', '---\n...\n', '# none\nids: []\nserials:\n...  # end\n', 'ids:\n...\n'])
    assert.deepEqual(read(text), { problems: [], entries: [] }, JSON.stringify(text));
});

test('a file that was cut off anywhere is refused', () => {
  const text = GOOD.slice(0, GOOD.indexOf('...') + 3);
  for (let length = 0; length < text.length; length++) {
    const { problems } = read(text.slice(0, length));
    assert.ok(problems.length > 0, JSON.stringify(text.slice(0, length)));
  }
  assert.deepEqual(read('ids:\n  - spiffe://example.org/web\n').problems, [
    'f:3:1: the line "..." is missing, with which the file must end: it may have been cut off',
  ]);
});

const WRONG: readonly [string, string][] = [
  ['ids:\n  - spiffe://Example.org/web\n...\n', 'f:2:5: "spiffe://Example.org/web": a trust domain has only lower-case'],
  ['ids:\n  - spiffe://example.org\n...\n', 'f:2:5: "spiffe://example.org": this names a trust domain'],
  ['ids:\n  - "spiffe://example.org/a*"\n...\n', 'f:2:5: "spiffe://example.org/a*": a wildcard stands for whole segments'],
  ['ids:\n  -   http://x\n...\n', 'f:2:7: "http://x": a SPIFFE ID begins with'],
  [`certificates:\n  - ${HASH.slice(1)}\n...\n`, 'f:2:5: '],
  [`certificates:\n  - ${HASH.slice(1)}g\n...\n`, 'f:2:5: '],
  [`certificates:\n  - ${HASH.slice(0, 2)}:${HASH.slice(2)}\n...\n`, 'f:2:5: '],
  ['serials:\n  - 014f\n...\n', 'f:2:5: "014f": must be a serial number'],
  ['serials:\n  - 014f@\n...\n', 'f:2:5: "014f@": the key identifier'],
  ['serials:\n  - 014f@abc\n...\n', 'f:2:5: "014f@abc": the key identifier'],
  ['serials:\n  - 014f@ab@cd\n...\n', 'f:2:5: '],
  ['serials:\n  - @ab\n...\n', 'f:2:5: "@ab": must be a serial number'],
  ['serials:\n  - 0x4f@ab\n...\n', 'f:2:5: '],
  [`serials:\n  - ${'1'.repeat(129)}@ab\n...\n`, 'f:2:5: '],
  ['id:\n  - spiffe://example.org/web\n...\n', 'f:1:1: "id" is not known'],
  ['ids:\nids:\n...\n', 'f:2:1: "ids:" is there twice'],
  ['  - spiffe://example.org/web\n...\n', 'f:1:3: is not what can stand here'],
  ['ids: []\n  - spiffe://example.org/web\n...\n', 'f:2:3: is not what can stand here'],
  ['ids: [spiffe://example.org/web]\n...\n', 'f:1:1: is not what can stand here'],
  ['ids:\n  - spiffe://example.org/a\n   - spiffe://example.org/b\n...\n', 'f:3:4: stands 3 spaces in'],
  ['ids:\n\t- spiffe://example.org/a\n...\n', 'f:2:2: is not what can stand here'],
  ['ids:\n  - spiffe://example.org/a b\n...\n', 'f:2:3: is not what can stand here'],
  ['ids:\n  - "spiffe://example.org/a\n...\n', 'f:2:3: is not what can stand here'],
  ['ids:\n  -\n...\n', 'f:2:3: is not what can stand here'],
  ['ids:\n  - spiffe://example.org/a\0\n...\n', 'f:2:27: a control character'],
  ['# \x1b[2J\n...\n', 'f:1:3: a control character'],
  ['...\nids:\n', 'f:2:1: stands after the line "..."'],
  ['...\n---\n', 'f:2:1: stands after the line "..."'],
  ['...\n...\n', 'f:2:1: stands after the line "..."'],
  ['ids:\n---\n...\n', 'f:2:1: is not what can stand here'],
  ['... ids\n', 'f:1:4: nothing may follow'],
  ['....\n', 'f:1:1: is not what can stand here'],
  [' ...\n', 'f:1:2: is not what can stand here'],
  ['\ufeff...\n', 'f:1:1: is not what can stand here'],
  [`#${'x'.repeat(8192)}\n...\n`, 'f:1:1: the line is longer than 8192 bytes'],
  ['', 'f:1:1: the line "..." is missing'],
];

for (const [text, problem] of WRONG) {
  test(`${JSON.stringify(text.slice(0, 60))} is refused, and told where`, () => {
    const [first = ''] = read(text).problems;
    assert.ok(first.startsWith(problem), first);
    assert.deepEqual(read(text, 3).problems, read(text).problems);
  });
}

test('all wrong lines are told up to twenty, whatever number there is', () => {
  const text = `ids:\n${'- nobody\n'.repeat(1000)}...\n`;

  const { problems } = read(text);

  assert.equal(problems.length, 20);
  assert.match(problems[19] ?? '', /^f:21:3: "nobody"/);
});

test('one wrong line of a hundred thousand is found', () => {
  const lines = Array.from({ length: 100_000 }, (_, index) => `  - spiffe://example.org/w${index}\n`);
  lines[77_776] = '  - spiffe://example.org/w//x\n';

  assert.deepEqual(read(`ids:\n${lines.join('')}...\n`, 32_768).problems, [
    'f:77778:5: "spiffe://example.org/w//x": a path has no empty segments',
  ]);
});

test('a line without an end is given up', () => {
  const reader = new DenyLineReader('f');
  let pushed = 0;
  while (reader.push(Buffer.alloc(1024, '#'))) pushed++;

  assert.equal(pushed, 8);
  assert.match(formatIssues(reader.finish()), /longer than 8192/);
});

test('whatever the bytes are, reading them ends, and well', () => {
  const next = createRandom(11);
  const random = { below: (most: number) => Math.floor(next() * most), chance: (odds: number) => next() < odds };
  const pieces = [
    ...GOOD.split(/(?<=[\n ])|(?=[:@"'#-])/),
    '\t',
    '\0',
    '\r',
    '\u00e9',
    '- ',
    ': ',
    '"',
    "'",
    '...\n',
    '---\n',
    '*',
    '@',
    '\n',
    HASH,
  ];
  let taken = 0;
  for (let round = 0; round < 5000; round++) {
    const broken = random.chance(0.5)
      ? Array.from({ length: random.below(30) }, () => pieces[random.below(pieces.length)] ?? '').join('')
      : mutated(GOOD, random);
    const { problems, entries } = read(Buffer.from(broken, random.chance(0.5) ? 'latin1' : 'utf8'), 1 + random.below(200));
    if (problems.length > 0) continue;
    taken++;
    // What is taken, a reader of YAML takes as well, and finds as many entries.
    const yaml = (parse(broken, { logLevel: 'error' }) ?? {}) as Record<string, unknown[] | null>;
    assert.equal(
      Object.values(yaml).reduce((sum, values) => sum + (values?.length ?? 0), 0),
      entries.length,
      JSON.stringify(broken),
    );
  }
  assert.ok(taken > 100, `${taken} were taken`);
});

interface Dice {
  below(most: number): number;
  chance(odds: number): boolean;
}

function mutated(text: string, random: Dice): string {
  let changed = text;
  for (let times = random.below(3); times >= 0; times--) {
    const at = random.below(changed.length);
    const cut = random.chance(0.5) ? random.below(4) : 0;
    changed = changed.slice(0, at) + (random.chance(0.5) ? String.fromCharCode(random.below(256)) : '') + changed.slice(at + cut);
  }
  return changed;
}
