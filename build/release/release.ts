/** `npm run release`: builds all that is shipped from a clean clone of the commit, says what is in it and what it was made of, and signs that. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { ENVELOPE, PROVENANCE, SUMS, SUMS_SIGNATURE } from './names.ts';
import { publishRelease } from './publish.ts';
import { envelope, readSigningKey, signText } from './signing.ts';

const root = join(import.meta.dirname, '..', '..');
const run = promisify(execFile);
const EXIT_FAILED = 1;
const EXIT_USAGE = 64;

const USAGE = `usage: npm run release -- [--key FILE] [--out FOLDER] [--no-image] [--publish REPOSITORY]

  --key      private key on P-256, in PEM, that signs; nothing is signed if left out
  --out      a folder to be made (dist/release)
  --no-image without the image, for which Buildah and qemu-user-static are needed
  --publish  push the image to HOST/PATH, which needs --key; nothing is pushed if left out
`;

class ReleaseError extends Error {
  override name = 'ReleaseError';
}

interface Wanted {
  readonly key: string | undefined;
  readonly out: string;
  readonly image: boolean;
  readonly publish: string | undefined;
}

function parse(argv: readonly string[]): Wanted {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      key: { type: 'string' },
      out: { type: 'string', default: join(root, 'dist/release') },
      'no-image': { type: 'boolean', default: false },
      publish: { type: 'string' },
    },
  });
  const wanted = { key: values.key, out: resolve(values.out), image: !values['no-image'], publish: values.publish };
  if (wanted.publish !== undefined && (wanted.key === undefined || !wanted.image))
    throw new TypeError('--publish pushes a signed image: it needs --key, and no --no-image');
  return wanted;
}

async function release({ key: keyFile, out, image, publish }: Wanted): Promise<void> {
  // What could fail for want of something fails before hours of building.
  const key = keyFile === undefined ? undefined : await readSigningKey(keyFile);
  if (existsSync(out)) throw new ReleaseError(`${out} is there already: a release is not mixed with another`);
  const changed = (await run('git', ['status', '--porcelain'], { cwd: root })).stdout.trim();
  if (changed !== '') throw new ReleaseError(`what is not committed would not be in the release:\n${changed}`);

  const clone = await mkdtemp(join(tmpdir(), 'scute-clone-'));
  try {
    await run('git', ['clone', '--quiet', '--no-local', '--depth', '1', `file://${root}`, clone]);
    await shown('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], clone);
    await shown(nodeOf(clone), ['build/release/artefacts.ts', out, ...(image ? [] : ['--no-image'])], clone);
  } finally {
    await rm(clone, { recursive: true, force: true });
  }
  if (key === undefined) return;
  await writeFile(join(out, SUMS_SIGNATURE), `${signText(key, await readFile(join(out, SUMS)))}\n`);
  await writeFile(join(out, ENVELOPE), envelope(key, await readFile(join(out, PROVENANCE), 'utf8')));
  if (publish === undefined) return;
  process.stdout.write(`${publish}@${await publishRelease(out, publish, key)}\n`);
}

/** The locked one. A link to it is not there for certain: no script has run. */
function nodeOf(clone: string): string {
  return join(clone, `node_modules/node-linux-${process.arch}/bin/node`);
}

/** With this terminal. */
async function shown(command: string, args: readonly string[], cwd: string): Promise<void> {
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'] });
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new ReleaseError(`${command} ${args.join(' ')} failed`);
}

async function main(argv: readonly string[]): Promise<number> {
  try {
    await release(parse(argv));
    return 0;
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    process.stderr.write(`release: ${message}\n${cause instanceof TypeError ? `\n${USAGE}` : ''}`);
    return cause instanceof TypeError ? EXIT_USAGE : EXIT_FAILED;
  }
}

process.exitCode = await main(process.argv.slice(2));
