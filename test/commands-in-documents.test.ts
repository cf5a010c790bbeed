import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { codeBlocks, DOCUMENTS } from './support/documents.ts';

const root = join(import.meta.dirname, '..');
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

/** What stands after `sh` in the fence of a block says what runs it. */
const RUN_BY: Readonly<Record<string, string>> = {
  runnable: 'test/integration/readme.test.ts',
  beside: 'test/interop/documents.test.ts',
  explain: 'test/integration/policy/explain.test.ts',
  psql: 'test/interop/postgresql.test.ts',
  cluster: 'test/interop/kubernetes/documents.test.ts',
  verify: 'test/interop/package/release.test.ts',
  publish: 'test/interop/package/release.test.ts',
  cosign: 'test/interop/package/release.test.ts',
};

/** `sh not-run …`: why nothing runs it. The page says at its end that it was not run. */
const REASONS: readonly string[] = [
  'spire', // a SPIRE server, which does not install where the tests run
  'program', // another program, or a service, that the tests do not have
  'machine', // it changes the machine, or needs another one
  'long', // it takes minutes, or goes on until it is stopped
];

/** `sh ci`: the very commands that something else runs; here is where. */
const RUN_ELSEWHERE: Readonly<Record<string, readonly [file: string, by: string]>> = {
  'npm ci && npm start': ['test/interop/package/npm.test.ts', "'npm', 'start'"],
  'npm ci && npm test': ['.ci/run', 'npm test'],
};

/** The words of a line without its comment, and without spaces at its end. */
function commandOf(line: string): string {
  return line.replace(/\s+#.*$/, '').trim();
}

test('every block of commands says what runs it, or why nothing does', () => {
  const unknown = DOCUMENTS.flatMap((document) =>
    codeBlocks(document)
      .filter(({ info }) => /^(?:sh|bash|console|shell|zsh)\b/.test(info))
      .filter(({ info }) => {
        const [language, kind = '', reason, ...rest] = info.split(' ');
        if (language !== 'sh' || rest.length > 0) return true;
        if (kind === 'not-run') return reason === undefined || !REASONS.includes(reason);
        return reason !== undefined || (kind !== 'ci' && RUN_BY[kind] === undefined);
      })
      .map(({ info, text }) => `${document}: ${info}: ${text.split('\n')[0]}`),
  );
  assert.deepEqual(unknown, []);
});

test('every other block says what it is, and is no command', () => {
  const known = /^(?:text|yaml|json)(?: [\w-]+)?$/;
  const programs = /^(?:\$ |(?:sudo |npm |npx |scute |node |curl |kubectl |helm |docker |openssl ))/m;
  const wrong = DOCUMENTS.flatMap((document) =>
    codeBlocks(document)
      .filter(({ info }) => !info.startsWith('sh'))
      .filter(({ info, text }) => !known.test(info) || (info !== 'text demo' && programs.test(text)))
      .map(({ info, text }) => `${document}: ${info}: ${text.split('\n')[0]}`),
  );
  assert.deepEqual(wrong, []);
});

test('what is said to run blocks takes them by that name', () => {
  for (const [kind, file] of Object.entries(RUN_BY)) assert.match(read(file), new RegExp(`info === 'sh ${kind}'`), kind);
  const lines = DOCUMENTS.flatMap((document) =>
    codeBlocks(document)
      .filter(({ info }) => info === 'sh ci')
      .flatMap(({ text }) => text.trimEnd().split('\n').map(commandOf)),
  );
  for (const line of lines) {
    const [file, by] = RUN_ELSEWHERE[line] ?? assert.fail(`nothing runs ${JSON.stringify(line)}`);
    assert.ok(read(file).includes(by), `${file} does not run ${line}`);
  }
  assert.deepEqual(new Set(lines), new Set(Object.keys(RUN_ELSEWHERE)));
});

test('a page with commands that nothing runs says at its end that they were not run', () => {
  const silent = DOCUMENTS.filter((document) => codeBlocks(document).some(({ info }) => info.startsWith('sh not-run'))).filter(
    (document) => !/\bnot run\b/i.test(read(document).slice(-1500)),
  );
  assert.deepEqual(silent, []);
});

test('every reason that stands here is one that a page gives', () => {
  const given = DOCUMENTS.flatMap((document) =>
    codeBlocks(document).flatMap(({ info }) => (info.startsWith('sh not-run ') ? [info.split(' ')[2]] : [])),
  );
  assert.deepEqual(new Set(given), new Set(REASONS));
});

test('every document is looked at', () => {
  const all = globSync('**/*.md', { cwd: root, exclude: (path) => /(?:^|\/)(?:node_modules|\.cache|dist)$/.test(path) });
  assert.deepEqual(
    all.filter((path) => !DOCUMENTS.includes(path)),
    [],
  );
});
