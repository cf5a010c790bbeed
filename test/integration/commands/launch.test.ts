import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { hash } from 'node:crypto';
import { open, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { bundleScript } from '../../../build/code-cache/code-cache.ts';
import { AROUND, digestOf } from '../../../build/code-cache/program.ts';
import { runChild, startChild, type Finished } from '../../support/child.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

/** Loads what its first argument names, twice, once it has put its second in the place of that file. */
const PROGRAM = AROUND.join(`const [, , name, text] = process.argv;
if (text !== undefined) require('node:fs').writeFileSync(require('path').join(__dirname, name), text);
try {
  const { said } = require(name);
  console.log(said, require(name).said === said, typeof require.asset(name.slice(2)));
} catch (cause) {
  console.log('refused:', cause.message);
}
`);
const BESIDE = { 'openssl.cnf': '# settings\n', 'scute-part.cjs': "exports.said = 'loaded';\n" };
/** V8 takes none that it has not made, and compiles the text. */
const CACHE = 'no cache';

interface Image {
  readonly folder: string;
  readonly run: (...args: readonly string[]) => Promise<Finished>;
}

/** A folder as the image has it, of a small program. */
async function smallImage(t: TestContext, program = PROGRAM): Promise<Image> {
  const folder = await temporaryFolder(t);
  for (const [name, text] of Object.entries({ 'scute.cjs': program, ...BESIDE })) await writeFile(join(folder, name), text);
  await writeFile(join(folder, 'scute.cache'), CACHE);
  await bundleScript('build/image/launch.ts', join(folder, 'launch.cjs'), {
    SCUTE_DIGEST: digestOf(Buffer.from(program), Buffer.from(CACHE)),
    SCUTE_BESIDE: Object.fromEntries(Object.entries(BESIDE).map(([name, text]) => [name, hash('sha256', text)])),
  });
  const run = async (...args: readonly string[]): Promise<Finished> => {
    const { stderr, ...finished } = await runChild([process.execPath, join(folder, 'launch.cjs'), ...args]);
    return { ...finished, stderr: stderr.replace(/^scute: running as root.*\n/, '') };
  };
  return { folder, run };
}

test('the image’s start loads what is beside the program once, as it was built', async (t) => {
  const { code, stdout, stderr } = await (await smallImage(t)).run('./scute-part.cjs');
  assert.deepEqual([code, stdout, stderr], [0, 'loaded true string\n', '']);
});

test('a file beside the program that is changed, before or after the start, or taken away, is not loaded', async (t) => {
  const { folder, run } = await smallImage(t);
  const part = join(folder, 'scute-part.cjs');
  const other = "console.log('RUN'); exports.said = 'other';\n";
  const refused = ({ code, stdout, stderr }: Finished, why: RegExp): void => {
    assert.deepEqual([code, stdout], [0, 'refused: scute-part.cjs was changed\n']);
    assert.match(stderr, new RegExp(`^scute: will not run ${RegExp.escape(part)}: ${why.source}; pull the image again, by its digest\n$`));
  };
  refused(await run('./scute-part.cjs', other), /not what was built with this image/);
  refused(await run('./scute-part.cjs'), /not what was built with this image/);
  await rm(part);
  refused(await run('./scute-part.cjs'), /ENOENT.*/);
});

test('no file that was not built with the image is loaded, whatever it is called', async (t) => {
  const { folder, run } = await smallImage(t);
  for (const name of ['scute-more.cjs', 'more.cjs', 'scute-constructor.cjs']) {
    await writeFile(join(folder, name), "console.log('RUN');\n");
    const { code, stdout } = await run(`./${name}`);
    assert.equal(code, 0);
    assert.match(stdout, /^refused: /, name);
  }
  // The same bytes at another place are the same.
  await rm(join(folder, 'scute-part.cjs'));
  await symlink(join(folder, 'same'), join(folder, 'scute-part.cjs'));
  await writeFile(join(folder, 'same'), BESIDE['scute-part.cjs']);
  assert.equal((await run('./scute-part.cjs')).stdout, 'loaded true string\n');
});

test('the image does not start with a program, a code cache or settings for OpenSSL that were changed', async (t) => {
  const { folder, run } = await smallImage(t);
  for (const [name, before] of [
    ['scute.cjs', PROGRAM],
    ['scute.cache', CACHE],
    ['openssl.cnf', BESIDE['openssl.cnf']],
  ] as const) {
    await writeFile(join(folder, name), `${before}\n`);
    const { code, stdout, stderr } = await run('./scute-part.cjs');
    assert.deepEqual([code, stdout], [1, ''], name);
    assert.match(
      stderr,
      new RegExp(
        `^scute: will not run .*/${RegExp.escape(name)}.*: not what was built with this image; pull the image again, by its digest\n$`,
      ),
    );
    await writeFile(join(folder, name), before);
  }
  assert.equal((await run('./scute-part.cjs')).stdout, 'loaded true string\n');
});

test('a signal to end that comes while the program is read reaches the program', async (t) => {
  const program = AROUND.join(`const waiting = setInterval(() => {}, 1e6);
process.once(process.argv[2], (name) => {
  console.log('ends by', name);
  clearInterval(waiting);
});
`);
  const { folder } = await smallImage(t, program);
  const file = join(folder, 'scute.cjs');
  await rm(file);
  await promisify(execFile)('mkfifo', [file]);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    await using image = await startChild([process.execPath, join(folder, 'launch.cjs'), signal]);
    // Waits until somebody reads; whoever reads waits for the text.
    await using pipe = await open(file, 'w');
    image.signal(signal);
    await pipe.write(program);
    await pipe.close();
    assert.deepEqual(await image.exited, { code: 0, signal: null });
    assert.equal(image.stdout(), `ends by ${signal}\n`);
  }
});
