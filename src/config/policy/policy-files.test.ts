import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, open, rm, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { eventually } from '../../../test/support/eventually.ts';
import { listText, policyText, startConfigMap, startPolicyFile } from '../../../test/support/policy/policy-file.ts';
import { systemClock } from '../../lib/clock.ts';
import type { Policy } from '../../policy/policy.ts';
import { requireSpiffeId } from '../../spiffe/spiffe-id.ts';
import type { Config } from '../config.ts';
import { formatIssues } from '../issue.ts';
import { parseConfig, parsePolicyNow } from '../load.ts';
import { parsePolicyApart } from './policy-apart.ts';
import { MAX_POLICY_BYTES } from './policy-file.ts';
import { createPolicyFiles, type PolicyFiles, type PolicyReload } from './policy-files.ts';
import type { PolicyTextParser } from './policy-text.ts';

const [A, B, C] = ['a', 'b', 'c'].map((name) => `spiffe://example.org/${name}`) as [string, string, string];

interface Watched {
  readonly files: PolicyFiles;
  /** What was told so far. */
  readonly told: string[];
  /** Texts that were parsed. */
  readonly parsed: string[];
  /** Which of the three the policy in force admits. */
  readonly admitted: () => string;
  /** The configuration with these listeners, as it would come into force. */
  readonly load: (listeners: Listeners) => Promise<string>;
  readonly follow: (listeners: Listeners) => Promise<void>;
  /** Does something once, when a text was read and nothing else was. */
  readonly whileParsing: (act: () => Promise<void>) => void;
}

interface Listeners {
  readonly inbound?: readonly object[];
  readonly outbound?: readonly object[];
}

function describe(reload: PolicyReload): string {
  if (!reload.ok) return reload.problems.join('\n');
  const { added, removed } = reload;
  return [...added.first.map((entry) => `+ ${entry}`), ...removed.first.map((entry) => `- ${entry}`)].join();
}

function admits(policy: Policy | undefined): string {
  return [A, B, C].filter((id) => policy?.forPeer(requireSpiffeId(id)).judgeConnection(0).allowed === true).join();
}

const inbound = (policyFile: string, more: object = {}): object => ({ listen: '127.0.0.1:0', to: '127.0.0.1:8080', policyFile, ...more });
const outbound = (policyFile: string, more: object = {}): object => ({ listen: '127.0.0.1:0', to: 'db:5432', policyFile, ...more });

/** Policy files with one listener that uses `path`, unless there are others. */
async function watched(t: TestContext, path: string, listeners: Listeners = { inbound: [inbound(path)] }): Promise<Watched> {
  const parsed: string[] = [];
  let act: (() => Promise<void>) | undefined;
  const noting =
    (parse: PolicyTextParser): PolicyTextParser =>
    async (text, file) => {
      parsed.push(text);
      const now = act;
      act = undefined;
      await now?.();
      return parse(text, file);
    };
  const files = createPolicyFiles({
    clock: systemClock,
    intervalMs: 10,
    parse: { atStart: noting(parsePolicyNow), later: noting(parsePolicyApart) },
  });
  const told: string[] = [];
  files.onReload((reload) => told.push(describe(reload)));
  const parse = (wanted: Listeners): ReturnType<typeof parseConfig> =>
    parseConfig(JSON.stringify({ workloadApi: { endpoint: 'unix:///agent' }, ...wanted }), {
      file: '/etc/scute/scute.yaml',
      flags: {},
      env: {},
      readPolicy: (file) => files.read(file),
    });
  const load = async (wanted: Listeners): Promise<string> => {
    const loaded = await parse(wanted);
    return loaded.ok ? '' : formatIssues(loaded.error);
  };
  const follow = async (wanted: Listeners): Promise<void> => {
    const loaded = await parse(wanted);
    assert.ok(loaded.ok, loaded.ok ? '' : formatIssues(loaded.error));
    files.follow(loaded.value satisfies Config);
  };
  await follow(listeners);
  const stop = new AbortController();
  const watching = files.watch(stop.signal);
  t.after(async () => {
    stop.abort();
    await watching;
  });
  return { files, told, parsed, admitted: () => admits(files.current(path)), load, follow, whileParsing: (then) => (act = then) };
}

/** Waits until there are as many, and the last of them. */
function last(told: readonly string[], count: number): Promise<string> {
  return eventually(() => {
    assert.equal(told.length, count, told.join('\n'));
    return Promise.resolve(told.at(-1) ?? '');
  });
}

test('a policy that is renamed into place or written over is in force as a whole, with what changed', async (t) => {
  const { path, replace } = await startPolicyFile(t, policyText([A]));
  const { told, admitted } = await watched(t, path);
  assert.equal(admitted(), A);

  await replace(policyText([A, B], { deny: [C] }));
  assert.equal(await last(told, 1), `+ allow ${B},+ deny ${C}`);
  assert.equal(admitted(), `${A},${B}`);
  await writeFile(path, policyText([{ peer: B, notAfter: '2027-01-01T00:00:00Z' }], { mode: 'audit' }));

  await eventually(() => Promise.resolve(assert.equal(admitted(), `${A},${B},${C}`)));
  assert.equal(
    told.at(-1),
    `+ allow ${B} until 2027-01-01T00:00:00.000Z,+ mode audit,- allow ${A},- allow ${B},- deny ${C},- mode enforce`,
  );
});

test('a file whose rules are the same is not told, unless somebody asked', async (t) => {
  const { path, replace } = await startPolicyFile(t, policyText([A, B]));
  const { files, told, parsed } = await watched(t, path);

  await replace(`# again\n${policyText([B, A, A])}`);
  await eventually(() => Promise.resolve(assert.equal(parsed.length, 2)));
  files.reload();

  assert.equal(await last(told, 1), '');
});

test('a file that several listeners use is read and compiled once', async (t) => {
  const { path, replace } = await startPolicyFile(t, policyText([A]));
  const use = { inbound: [inbound(path, { name: 'one' }), inbound(path, { name: 'two', protocol: 'http' })], outbound: [outbound(path)] };
  const { told, parsed, files } = await watched(t, path, use);
  assert.equal(parsed.length, 1);

  await replace(policyText([B]));
  await last(told, 1);

  assert.equal(parsed.length, 2);
  assert.equal(files.status().length, 1);
});

const BROKEN: readonly [string, string | Buffer, RegExp][] = [
  ['cut off', policyText([A, B]).slice(0, -4), /policy\.yaml:2:1: the line "\.\.\." is missing/],
  ['empty', '', /policy\.yaml:1:1: the line "\.\.\." is missing/],
  ['wrong in one rule', policyText([A, 'nobody', B]), /policy\.yaml:1:34 allow\[1\]: "nobody"/],
  ['not text', Buffer.from('allow: []\n# \xff\n...\n', 'latin1'), /is not UTF-8 text/],
  ['too large', Buffer.alloc(MAX_POLICY_BYTES + 1, '#'), /is larger than 4194304 bytes/],
  ['with a list that is not there', policyText([A, { idsFile: 'nowhere.txt' }]), /nowhere\.txt: cannot be read: ENOENT/],
  ['with a folder as list', policyText([A, { idsFile: '.' }]), /is not a regular file/],
  [
    'with too many lists',
    policyText(Array.from({ length: 65 }, (_, index) => ({ idsFile: `empty-${index}.txt` }))),
    /one more list than the 64/,
  ],
];

for (const [what, text, problem] of BROKEN) {
  test(`a policy file that is ${what} changes nothing, and is told once; the old one is mended by a good one`, async (t) => {
    const { path, replace } = await startPolicyFile(t, policyText([A]));
    const lists = what === 'with too many lists' ? 65 : 0;
    for (let index = 0; index < lists; index++) await replace(listText([]), `empty-${index}.txt`);
    const { files, told, admitted } = await watched(t, path);

    await replace(text);
    assert.match(await last(told, 1), problem);
    assert.deepEqual([admitted(), files.status()[0]?.problems.length], [A, 1]);
    await replace(policyText([A]));

    assert.equal(await last(told, 2), '');
    assert.deepEqual(files.status()[0]?.problems, []);
  });
}

test('a policy file that vanishes, or becomes a pipe or a folder, leaves the old policy in force', async (t) => {
  const { path, replace } = await startPolicyFile(t, policyText([A]));
  const { told, admitted } = await watched(t, path);

  await unlink(path);
  assert.match(await last(told, 1), /policy\.yaml: cannot be read: ENOENT/);
  execFileSync('mkfifo', [path]);
  assert.match(await last(told, 2), /policy\.yaml: is not a regular file/);
  await rm(path);
  await mkdir(path);
  assert.match(await eventually(() => Promise.resolve(told.at(-1) ?? '')), /ENOENT|not a regular file|EISDIR/);
  assert.equal(admitted(), A);
  await rm(path, { recursive: true });
  await replace(policyText([B]));

  await eventually(() => Promise.resolve(assert.equal(admitted(), B)));
});

test('a file that is being written is not taken before it is whole', async (t) => {
  const { path } = await startPolicyFile(t, policyText([A]));
  const { told, admitted } = await watched(t, path);
  await using handle = await open(path, 'w');

  for (const part of ['allow:\n', `  - ${B}\n`, '...']) {
    await handle.write(part);
    await eventually(() => Promise.resolve(assert.ok(part === '...' || told.at(-1)?.includes('is missing') === true)));
    if (part !== '...') assert.equal(admitted(), A);
  }

  await eventually(() => Promise.resolve(assert.equal(admitted(), B)));
});

test('a policy and its lists are swapped whole, as Kubernetes does', async (t) => {
  const { folder, become } = await startConfigMap(t, {
    'policy.yaml': policyText([A, { idsFile: 'ids.txt' }]),
    'ids.txt': listText([B]),
  });
  const { told, admitted } = await watched(t, join(folder, 'policy.yaml'));
  assert.equal(admitted(), `${A},${B}`);

  await become({ 'policy.yaml': policyText([{ idsFile: 'ids.txt' }], { deny: [A] }), 'ids.txt': listText([C]) });

  assert.equal(await last(told, 1), `+ deny ${A},+ ${C} in ${join(folder, 'ids.txt')},- allow ${A},- ${B} in ${join(folder, 'ids.txt')}`);
  assert.equal(admitted(), C);
});

test('a policy and its lists that are swapped while they are read are not mixed', async (t) => {
  const before = { 'policy.yaml': policyText([{ idsFile: 'ids.txt' }]), 'ids.txt': listText([A]) };
  const { folder, become } = await startConfigMap(t, before);
  const { told, admitted, whileParsing } = await watched(t, join(folder, 'policy.yaml'));

  // The policy without B is read, and then the list with it.
  whileParsing(() => become({ 'policy.yaml': policyText([A]), 'ids.txt': listText([A, B, C]) }));
  await become({ 'policy.yaml': `# anew\n${before['policy.yaml']}`, 'ids.txt': listText([A]) });

  assert.match(await last(told, 1), /policy\.yaml: or a list that it names was changed while it was read/);
  assert.equal(admitted(), A);
  assert.match(await last(told, 2), /\+ allow spiffe:\/\/example\.org\/a,- allow idsFile/);
  assert.equal(admitted(), A);
});

test('a list may be mended by itself; the line of the wrong one is told', async (t) => {
  const { path, replace } = await startPolicyFile(t, policyText([A]));
  const { told, admitted } = await watched(t, path);

  await replace(`${B}\n${C}/\n...\n`, 'ids.txt');
  await replace(policyText([{ idsFile: 'ids.txt' }]));
  assert.match(await last(told, 1), /ids\.txt:2:1: "spiffe:.*a path does not end with/);
  assert.equal(admitted(), A);
  await replace(listText([B, C]), 'ids.txt');

  // Between the two it is another policy of which nothing is known.
  assert.match(await last(told, 2), /\+ allow idsFile/);
  assert.equal(admitted(), `${B},${C}`);
});

test('what is wrong for one listener that uses the file refuses it for all', async (t) => {
  const { path, replace } = await startPolicyFile(t, policyText([A]));
  const use = { inbound: [inbound(path, { name: 'web', protocol: 'http' }), inbound(path, { name: 'db' })], outbound: [outbound(path)] };
  const { told, admitted } = await watched(t, path, use);
  const withPaths = `allow:\n  - ${A}\ndeny:\n  - { peer: ${A}, paths: [/admin] }\n...\n`;
  const cases: readonly [string, RegExp][] = [
    [withPaths, /policy\.yaml:4:5: methods, paths and hosts are for protocol: http, and inbound db, /],
    [policyText([A, B], { mode: 'audit' }), /policy\.yaml: audit is for inbound, and outbound outbound-0 uses this file/],
    [policyText([A, { peer: B, mode: 'audit' }]), /policy\.yaml:1:\d+: audit is for inbound/],
    [
      policyText([A, 'spiffe://example.org/**']),
      /policy\.yaml:1:\d+: "spiffe:.*" is any server of the trust domain, and outbound outbound-0/,
    ],
  ];

  for (const [index, [text, problem]] of cases.entries()) {
    await replace(text);
    assert.match(await last(told, index + 1), problem);
    assert.equal(admitted(), A);
  }
});

test('a configuration that uses a file in a way that it is not for is refused, and so is one with both', async (t) => {
  const { path } = await startPolicyFile(t, policyText([{ peer: A, paths: ['/a'] }, 'spiffe://example.org/**'], { mode: 'audit' }));
  const { load } = await watched(t, path, { inbound: [inbound(path, { protocol: 'http' })] });

  assert.match(
    await load({ inbound: [inbound(path)] }),
    /scute\.yaml:1:\d+ inbound\[0\]\.policyFile: .*policy\.yaml:1:9: methods, paths and hosts/,
  );
  assert.match(
    await load({ outbound: [outbound(path, { protocol: 'http' })] }),
    /outbound\[0\]\.policyFile: .*policy\.yaml: audit is for inbound.*, and 1 more/,
  );
  for (const [key, value] of [
    ['allow', []],
    ['deny', []],
    ['policyMode', 'enforce'],
  ])
    assert.match(
      await load({ inbound: [inbound(path, { protocol: 'http', [String(key)]: value })] }),
      new RegExp(`scute\\.yaml:1:\\d+ inbound\\[0\\]\\.${String(key)}: is replaced by policyFile`),
    );
  for (const [key, value] of [
    ['expect', [A]],
    ['deny', []],
    ['unsafeAllowAnyInTrustDomain', 'example.org'],
  ])
    assert.match(
      await load({ outbound: [outbound(path, { [String(key)]: value })] }),
      new RegExp(`outbound\\[0\\]\\.${String(key)}: is replaced by policyFile`),
    );
  assert.match(
    await load({ inbound: [inbound('nowhere.yaml')] }),
    /policyFile: \/etc\/scute\/nowhere\.yaml cannot be used\n.*nowhere\.yaml: cannot be read: ENOENT/,
  );
});

test('files are followed as configurations use them, and a change before that is not lost', async (t) => {
  const first = await startPolicyFile(t, policyText([A]));
  const second = await startPolicyFile(t, policyText([B]));
  const { files, told, follow, load } = await watched(t, first.path);

  // One that is not taken over changes nothing.
  assert.equal(await load({ inbound: [inbound(second.path)] }), '');
  await second.replace(policyText([C]));
  assert.equal(files.current(second.path), undefined);
  await follow({ inbound: [inbound(second.path)] });
  assert.equal(admits(files.current(second.path)), C);
  assert.equal(files.current(first.path), undefined);
  await second.replace(policyText([B]));
  assert.equal(await last(told, 1), `+ allow ${B},- allow ${C}`);
  await first.replace(policyText([B]));
  await follow({ inbound: [inbound(first.path), inbound(second.path)] });

  assert.equal(admits(files.current(first.path)), B);
  await first.replace(policyText([A]));
  assert.equal(await last(told, 2), `+ allow ${A},- allow ${B}`);
});

test('a text that makes the parser run out of memory or of stack is a problem, and ends nothing', async () => {
  const deep = await parsePolicyApart(`allow: ${'['.repeat(100_000)}\n...\n`, '/p');
  assert.ok(!deep.ok);
  assert.match(formatIssues(deep.error), /^\/p(?::\d+:\d+)?: (?:not valid YAML|cannot be parsed)/);
});

test('who stops does not wait for a parser at work, nor for those that have not begun', async (t) => {
  const { path, folder, replace } = await startPolicyFile(t, policyText([A]));
  const other = join(folder, 'other.yaml');
  await replace(policyText([A]), 'other.yaml');
  let begun = 0;
  const untilStopped: PolicyTextParser = async (text, file, stop) => {
    begun += 1;
    if (stop?.aborted === false) await new Promise((resolve) => stop.addEventListener('abort', resolve));
    return parsePolicyApart(text, file, stop);
  };
  const files = createPolicyFiles({ clock: systemClock, intervalMs: 10, parse: { atStart: parsePolicyNow, later: untilStopped } });
  const listeners = { inbound: [inbound(path), inbound(other, { name: 'other' })] };
  const text = JSON.stringify({ workloadApi: { endpoint: 'unix:///agent' }, ...listeners });
  const loaded = await parseConfig(text, { file: '/scute.yaml', flags: {}, env: {}, readPolicy: (file) => files.read(file) });
  assert.ok(loaded.ok);
  files.follow(loaded.value);
  const told: unknown[] = [];
  files.onReload((reload) => told.push(reload));
  const stop = new AbortController();
  const watching = files.watch(stop.signal);
  await replace(policyText([B]));
  await replace(policyText([B]), 'other.yaml');
  await eventually(() => Promise.resolve(assert.equal(begun, 1)));

  stop.abort();
  await watching;

  assert.deepEqual(told, []);
});

test('a parser in a thread of its own ends with who wanted to know', async () => {
  const stop = new AbortController();
  // Hundreds of thousands of rules: seconds.
  const parsing = parsePolicyApart(`allow:\n${`- ${A}\n`.repeat(150_000)}...\n`, '/p', stop.signal);
  stop.abort();
  const parsed = await parsing;
  assert.ok(!parsed.ok);
  assert.equal(formatIssues(parsed.error), '/p: cannot be parsed: nobody waits for it any more');
  const later = await parsePolicyApart(policyText([A]), '/p', stop.signal);
  assert.ok(!later.ok);
});
