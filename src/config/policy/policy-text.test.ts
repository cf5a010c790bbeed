import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRandom } from '../../../test/support/random.ts';
import { atOnce } from '../../lib/at-once.ts';
import { formatIssues } from '../issue.ts';
import { packPolicy, unpackPolicy } from './policy-parcel.ts';
import { parsePolicyText } from './policy-text.ts';

const GOOD = `# who may
allow:
  - spiffe://example.org/web
  - peer: spiffe://example.org/api
    methods: [GET]
    paths: ["/items/**"]
    notAfter: 2027-01-31T09:00:00Z
  - { idsFile: lists/ids.txt, mode: audit }
deny:
  - spiffe://example.org/old/** # all of it
mode: enforce
... # the end

# and no more
`;

function problems(text: string): readonly string[] {
  const read = parsePolicyText(text, '/etc/scute/policy.yaml');
  return read.ok ? [] : formatIssues(read.error).split('\n');
}

test('a policy file has rules as a configuration, each with its place, and lists beside it', () => {
  const read = parsePolicyText(GOOD, '/etc/scute/policy.yaml');

  assert.ok(read.ok);
  const { spec, places } = read.value;
  assert.deepEqual(spec.allow[0], 'spiffe://example.org/web');
  assert.deepEqual(spec.allow[2], { idsFile: '/etc/scute/lists/ids.txt', mode: 'audit' });
  assert.deepEqual([spec.deny, spec.mode], [['spiffe://example.org/old/**'], 'enforce']);
  assert.deepEqual(
    [[...places.allow], [...places.deny]],
    [
      [3, 5, 4, 5, 8, 5],
      [10, 5],
    ],
  );
});

test('what is sent from one thread to another is what was read', () => {
  const long = `allow:\n${Array.from({ length: 1234 }, (_, index) => `  - spiffe://example.org/n${index}\n`).join('')}...\n`;
  for (const text of [GOOD, long, 'allow: []\n...\n', 'allow: 5\n...\n']) {
    const read = parsePolicyText(text, '/etc/scute/policy.yaml');
    assert.deepEqual(atOnce(unpackPolicy(structuredClone(packPolicy(read)))), structuredClone(read));
  }
});

test('what is sent is made in small parts, whatever the rules have', () => {
  const paths = Array.from({ length: 1000 }, (_, index) => `/${index}/${'a'.repeat(100)}`);
  const spec = { allow: Array.from({ length: 50 }, () => ({ peer: 'spiffe://example.org/a', paths })), deny: [] };
  const parcel = packPolicy({ ok: true, value: { spec, places: { allow: new Uint32Array(), deny: new Uint32Array() } } });
  assert.ok(parcel.ok);
  assert.equal(parcel.rules.allow.length, 50);
  const unpacked = atOnce(unpackPolicy(parcel));
  assert.deepEqual(unpacked.ok && unpacked.value.spec.allow, spec.allow);
});

test('rules that are written once and stand for very many are refused', () => {
  const paths = Array.from({ length: 1000 }, (_, index) => `/${index}/${'a'.repeat(300)}`).join(', ');
  const text = (count: number): string =>
    `allow:\n- &rule { peer: spiffe://example.org/a, paths: [${paths}] }\n${'- *rule\n'.repeat(count)}...\n`;
  assert.ok(parsePolicyText(text(40), '/p').ok);
  const refused = parsePolicyText(text(60), '/p');
  assert.ok(!refused.ok);
  assert.match(formatIssues(refused.error), /^\/p:1:1: has rules of more than 16777216 letters, its aliases followed$/);
});

test('where the rules are of a list that stands for another is found without a walk through the file for each', () => {
  const rules = 20_000;
  const list = '- spiffe://example.org/a\n'.repeat(rules);
  const timed = (text: string): { readonly cpuMs: number; readonly last: number | undefined } => {
    const before = process.cpuUsage();
    const read = parsePolicyText(text, '/p');
    const { user, system } = process.cpuUsage(before);
    assert.ok(read.ok);
    return { cpuMs: (user + system) / 1000, last: read.value.places.deny.at(-2) };
  };
  const written = timed(`allow:\n${list}deny:\n${list}...\n`);

  const meant = timed(`allow: &list\n${list}deny: *list\n...\n`);

  assert.equal(meant.last, rules + 1);
  assert.ok(meant.cpuMs < 3 * written.cpuMs, `${meant.cpuMs} ms, and ${written.cpuMs} ms where it is written out`);
});

test('a file that is cut off at any place before the end mark is refused', () => {
  const end = GOOD.indexOf('...');
  for (let length = 0; length < end + 3; length++) {
    const [first] = problems(GOOD.slice(0, length));
    assert.match(first ?? `nothing is wrong after ${length}`, /the line "\.\.\." is missing/);
  }
  // It has all that there is.
  for (const text of [GOOD.slice(0, end + 3), GOOD.replaceAll('\n', '\r\n'), `\uFEFF${GOOD}`]) assert.deepEqual(problems(text), []);
});

const BAD: readonly [string, string, RegExp][] = [
  ['an end mark in the middle', GOOD.replace('deny:', '...\ndeny:'), /policy\.yaml:10:1: not valid YAML/],
  ['two documents', `${GOOD}---\n${GOOD}`, /not valid YAML/],
  ['an end mark in quotes', 'allow: [spiffe://example.org/a]\nmode: "\n...\n"\n', /the line "\.\.\." is missing/],
  ['an end mark that goes on', 'allow: []\n... x\n', /the line "\.\.\." is missing/],
  ['an end mark that is not at the beginning', 'allow: []\n ...\n', /the line "\.\.\." is missing/],
  ['text after the end mark', 'allow: []\n...\nspiffe://example.org/a\n', /the line "\.\.\." is missing/],
  ['nothing but an end mark', '...\n', /is empty/],
  ['a list instead', '- spiffe://example.org/a\n...\n', /expected object/],
  ['no allow', 'deny: []\n...\n', /allow: is required/],
  ['a key twice', 'allow: []\nallow: [spiffe://example.org/a]\n...\n', /policy\.yaml:2:1: not valid YAML: Map keys must be unique/],
  ['an unknown key', 'allow: []\ndenny: []\n...\n', /policy\.yaml:2:1 denny: is not known here: did you mean deny\?/],
  ['a key of a listener', 'allow: []\npolicyMode: audit\n...\n', /policyMode: is not known here/],
  ['an unknown mode', 'allow: []\nmode: off\n...\n', /policy\.yaml:2:7 mode: must be one of enforce, audit/],
  [
    'a method that is never forwarded',
    'allow: [{ peer: spiffe://example.org/a, methods: [BREW] }]\n...\n',
    /methods\[0\]: "BREW" is not a method/,
  ],
  [
    'both peer and idsFile',
    'allow: [{ peer: spiffe://example.org/a, idsFile: a }]\n...\n',
    /policy\.yaml:1:50 allow\[0\]\.idsFile: replaces peer/,
  ],
  ['neither', 'allow: [{ methods: [GET] }]\n...\n', /policy\.yaml:1:9 allow\[0\]\.peer: is required, or idsFile/],
  ['a path with a line break', 'allow: [{ idsFile: "a\\nb" }]\n...\n', /without control characters/],
  ['a rule of too many paths', `allow: [{ peer: spiffe://example.org/a, paths: [${'/a,'.repeat(1001)}] }]\n...\n`, /paths: .*1000/],
  [
    'aliases that multiply',
    `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefgh'.replace(/./g, (key) => `${key}: &${key} [${`*${String.fromCharCode(key.charCodeAt(0) - 1)},`.repeat(9)}]\n`)}allow: *h\n...\n`,
    /not valid YAML: Excessive alias count/,
  ],
  ['nesting without end', `allow: ${'['.repeat(20_000)}\n...\n`, /not valid YAML/],
  [
    'a window that never opens',
    'allow: [{ peer: spiffe://example.org/a, windows: [{ days: [], from: "9:00", to: "10:00", timeZone: UTC }] }]\n...\n',
    /windows\[0\]/,
  ],
  [
    'no such time zone',
    'allow: [{ peer: spiffe://example.org/a, windows: [{ from: "09:00", to: "10:00", timeZone: Moon/Base }] }]\n...\n',
    /timeZone: "Moon\/Base"/,
  ],
  [
    'a pattern that matches nothing',
    'allow: [spiffe://example.org/**/a]\n...\n',
    /policy\.yaml:1:9 allow\[0\]: .*can only be the last segment/,
  ],
];

for (const [what, text, problem] of BAD) {
  test(`refused: ${what}`, () => {
    assert.match(problems(text).join('\n'), problem);
  });
}

test('of thousands of wrong rules the first are told', () => {
  const wrong = problems(`allow:\n${'  - nobody\n'.repeat(5000)}...\n`);

  assert.equal(wrong.length, 20);
  assert.match(wrong[0] ?? '', /policy\.yaml:2:5 allow\[0\]: "nobody"/);
});

test('whatever the bytes are, there is a policy or a problem, and nothing is thrown', () => {
  const random = createRandom(7);
  const below = (limit: number): number => Math.floor(random() * limit);
  const parts = [
    ...GOOD.split(/(?<=\n)/),
    '...\n',
    '---\n',
    '- ',
    '&a ',
    '*a',
    '"',
    '{',
    '[',
    '\t',
    '\u0000',
    '\u2028',
    '|\n',
    '%YAML 1.2\n',
    '!!js ',
  ];
  for (let round = 0; round < 3000; round++) {
    const text = Array.from({ length: 1 + below(12) }, () => parts[below(parts.length)]).join('');
    const read = parsePolicyText(`${text}\n...\n`, '/p');
    if (!read.ok) assert.ok(read.error.length > 0);
  }
});
