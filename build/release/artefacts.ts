/** Makes what a release has, from the tree in which this file lies, into a folder: `node build/release/artefacts.ts FOLDER [--no-image]`. */
import { execFile } from 'node:child_process';
import { hash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { arch, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { buildExecutable } from '../executable/executable.ts';
import { ARCHITECTURES, NATIVE, readLock } from '../image/debian.ts';
import { buildImage } from '../image/image.ts';
import { lockedNode } from '../image/node.ts';
import { buildPackage, pack } from '../package.ts';
import { PROVENANCE, SUMS } from './names.ts';
import { eachOnce, imageInputs, npmInputs, provenance, type Input, type Subject } from './provenance.ts';
import { archive } from './registry.ts';
import { describeShipped, listLocked } from './sbom.ts';

const root = join(import.meta.dirname, '..', '..');
const run = promisify(execFile);
/** What decides which versions of what others made are used. */
const LOCK_FILES = ['package-lock.json', 'build/sbom/package-lock.json', 'build/image/packages.json'];
/** What npm has installed, of the lock file's packages for all systems. */
const INSTALLED = 'node_modules/.package-lock.json';

/** Makes all of them, without a network but for what the lock files name. */
async function makeArtefacts(folder: string, withImage: boolean): Promise<void> {
  await mkdir(folder, { recursive: true });
  const work = await mkdtemp(join(tmpdir(), 'scute-release-'));
  try {
    const made = await buildPackage(join(work, 'package'));
    const stem = `scute-${made.version}`;
    await pack(made, folder);
    const executable = join(folder, `${stem}-linux-${arch()}`);
    await writeFile(`${executable}.licences.txt`, await buildExecutable(executable));
    const subjects: Subject[] = [];
    if (withImage) {
      const layout = join(work, 'image');
      const { digest } = await buildImage({ outfolder: layout });
      await archive(layout, join(folder, `${stem}-image.tar`));
      subjects.push({ name: 'image', digest: { sha256: digest.slice('sha256:'.length) } });
    }
    const debian = withImage ? await readLock() : undefined;
    const { packages } = made;
    const nodes = await Promise.all((withImage ? ARCHITECTURES : [NATIVE]).map(lockedNode));
    const sbom = describeShipped(await listLocked(root), { packages, nodes, versions: process.versions, debian });
    await writeFile(join(folder, `${stem}.cdx.json`), `${JSON.stringify(sbom, undefined, 2)}\n`);
    subjects.unshift(...(await digestsOf(folder)).map(([name, sha256]) => ({ name, digest: { sha256 } })));
    const facts = {
      commit: await commitOf(),
      version: made.version,
      subjects,
      inputs: await inputs(withImage),
      builder: await programs(withImage),
    };
    await writeFile(join(folder, PROVENANCE), provenance(facts));
    const sums = (await digestsOf(folder)).map(([name, digest]) => `${digest}  ${name}\n`);
    await writeFile(join(folder, SUMS), sums.join(''));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Name and SHA-256 of each file of a folder. */
async function digestsOf(folder: string): Promise<[name: string, sha256: string][]> {
  const names = (await readdir(folder)).toSorted();
  return Promise.all(names.map(async (name): Promise<[string, string]> => [name, hash('sha256', await readFile(join(folder, name)))]));
}

async function inputs(withImage: boolean): Promise<Input[]> {
  const read = (file: string): Promise<string> => readFile(join(root, file), 'utf8');
  const locks = await Promise.all(LOCK_FILES.map(async (name) => ({ name, digest: { sha256: hash('sha256', await read(name)) } })));
  const node = { name: 'node', digest: { sha256: hash('sha256', await readFile(process.execPath)) } };
  const installed = [INSTALLED, join('build/sbom', INSTALLED)];
  const packages = (await Promise.all(installed.map(async (file) => npmInputs(await read(file))))).flat();
  const ofImage = withImage ? imageInputs(await Promise.all(ARCHITECTURES.map(lockedNode)), await readLock()) : [];
  return eachOnce([...locks, node, ...packages, ...ofImage]);
}

async function commitOf(): Promise<string> {
  const { stdout } = await run('git', ['rev-parse', '--verify', 'HEAD'], { cwd: root });
  return stdout.trim();
}

async function programs(withImage: boolean): Promise<Record<string, string>> {
  const npm = (await run('npm', ['--version'], { cwd: root })).stdout.trim();
  const buildah = withImage ? { buildah: (await run('buildah', ['--version'])).stdout.trim() } : {};
  return { node: process.versions.node, npm, ...buildah };
}

if (import.meta.main) {
  const [folder = '', ...options] = process.argv.slice(2);
  if (folder === '' || existsSync(folder)) throw new Error(`${JSON.stringify(folder)} is no name of a folder that is to be made`);
  await makeArtefacts(folder, !options.includes('--no-image'));
}
