/** What is in the image: one folder for each of its layers. */
import { execFile } from 'node:child_process';
import { chmod, copyFile, cp, lstat, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { licencesText, shippedPackages } from '../licences.ts';
import type { Architecture } from './debian.ts';
import { unpackNode, type NodeArchive } from './node.ts';
import { writeImageProgram } from './program.ts';

const root = join(import.meta.dirname, '..', '..');
const run = promisify(execFile);

/** What Debian calls the folder of a processor's libraries. */
const TRIPLETS: Readonly<Record<Architecture, string>> = { amd64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' };
/** Of the packages, what Node loads, and their licences. The rest is for shells, compilers and people. */
const KEPT = [
  /^usr\/lib\/[^/]+-linux-gnu\/lib(?:c|m|dl|pthread|gcc_s|stdc\+\+|atomic)\.so\.[\d.]+$/,
  /^usr\/lib(?:64|\/[^/]+-linux-gnu)?\/ld-linux-[^/]+$/,
  /^usr\/share\/doc\/[^/]+\/copyright$/,
  /^usr\/share\/doc\/[^/]+$/,
];
const CERTIFICATE = /^usr\/share\/ca-certificates\/.*\.crt$/;
const APPLICATION = 'opt/scute';
export const SCUTE_UID = 65_532;

/** Folders that become layers, the one that changes least first; `volatile` belongs to the image's user. */
export interface Layers {
  readonly system: string;
  readonly scute: string;
  readonly volatile: string;
}

/**
 * Assembles `folder` for one processor. `emulator` is what runs that processor's programs here: empty where this is one. Ownership is the
 * image builder's; all else, modes included, is as in the image.
 */
export async function assemble(
  folder: string,
  architecture: Architecture,
  { packages, node, emulator }: { packages: ReadonlyMap<string, string>; node: NodeArchive; emulator: readonly string[] },
): Promise<Layers> {
  const layers = { system: join(folder, 'system'), scute: join(folder, 'scute'), volatile: join(folder, 'volatile') };
  for (const layer of Object.values(layers)) await mkdir(layer, { recursive: true });
  await assembleSystem(layers.system, architecture, packages, node);
  await assembleScute(layers, architecture, emulator);
  await mkdir(join(layers.volatile, 'run/scute'), { recursive: true });
  for (const layer of Object.values(layers)) await setModes(layer);
  // Readable and writable by the group too: OpenShift runs images as any user of group 0.
  await chmod(join(layers.volatile, 'run/scute'), 0o770);
  await chmod(join(layers.system, 'tmp'), 0o1777);
  return layers;
}

async function assembleSystem(
  layer: string,
  architecture: Architecture,
  packages: ReadonlyMap<string, string>,
  node: NodeArchive,
): Promise<void> {
  // The first four are for whoever runs it to mount on: the root may be read-only.
  for (const path of [
    'dev',
    'proc',
    'sys',
    'run',
    'etc/ssl/certs',
    'tmp',
    'usr/lib64',
    'usr/local/bin',
    'usr/local/share/doc/node',
    'var/lib/dpkg/status.d',
  ])
    await mkdir(join(layer, path), { recursive: true });
  await mkdir(join(layer, 'usr/lib', TRIPLETS[architecture]), { recursive: true });
  for (const name of ['lib', 'lib64']) await symlink(`usr/${name}`, join(layer, name));
  const certificates: string[] = [];
  for (const [name, file] of packages) certificates.push(...(await unpackPackage(layer, name, file)));
  await writeFile(join(layer, 'etc/ssl/certs/ca-certificates.crt'), certificates.join(''));
  await writeFile(join(layer, 'etc/nsswitch.conf'), 'hosts: files dns\n');
  await writeFile(join(layer, 'etc/passwd'), `root:x:0:0:root:/:/nonexistent\nscute:x:${SCUTE_UID}:${SCUTE_UID}::/:/nonexistent\n`);
  await writeFile(join(layer, 'etc/group'), `root:x:0:\nscute:x:${SCUTE_UID}:\n`);
  const binary = join(layer, 'usr/local/bin/node');
  await unpackNode(node, layer, { binary, licence: join(layer, 'usr/local/share/doc/node/LICENSE') });
}

/** Of one Debian package: what is kept, its entry for scanners, and the certificates in it. */
async function unpackPackage(layer: string, name: string, file: string): Promise<string[]> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-deb-'));
  try {
    const [files, control] = [join(folder, 'files'), join(folder, 'control')];
    await run('dpkg-deb', ['--extract', file, files]);
    await run('dpkg-deb', ['--control', file, control]);
    const names = (await readdir(files, { recursive: true })).toSorted();
    const certificates: string[] = [];
    for (const path of names) {
      const found = await lstat(join(files, path));
      if (found.isFile() && CERTIFICATE.test(path)) certificates.push(`${(await readFile(join(files, path), 'utf8')).trimEnd()}\n`);
      if (found.isDirectory() || !KEPT.some((kept) => kept.test(path))) continue;
      await mkdir(dirname(join(layer, path)), { recursive: true });
      await cp(join(files, path), join(layer, path), { verbatimSymlinks: true });
    }
    const status = join(layer, 'var/lib/dpkg/status.d');
    await copyFile(join(control, 'control'), join(status, name));
    // Only of files that are there.
    const sums = (await readFile(join(control, 'md5sums'), 'utf8'))
      .split('\n')
      .filter((line) => KEPT.some((kept) => kept.test(line.slice(34))));
    await writeFile(join(status, `${name}.md5sums`), sums.map((line) => `${line}\n`).join(''));
    return certificates;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function assembleScute(layers: Layers, architecture: Architecture, emulator: readonly string[]): Promise<void> {
  // By the libraries of the image, not of this machine.
  const loader = { amd64: 'usr/lib64/ld-linux-x86-64.so.2', arm64: 'usr/lib/ld-linux-aarch64.so.1' }[architecture];
  const libraries = join(layers.system, 'usr/lib', TRIPLETS[architecture]);
  const [first, ...more] = [
    ...emulator,
    join(layers.system, loader),
    '--library-path',
    libraries,
    join(layers.system, 'usr/local/bin/node'),
  ];
  const folder = join(layers.scute, APPLICATION);
  await mkdir(folder, { recursive: true });
  const inputs = await writeImageProgram(folder, [first ?? '', ...more]);
  await writeFile(join(folder, 'LICENCES.txt'), licencesText(await shippedPackages(root, inputs)));
  const project = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    version: string;
    description: string;
    license: string;
  };
  const { version, description, license } = project;
  await writeFile(join(folder, 'package.json'), `${JSON.stringify({ name: 'scute', version, description, license }, undefined, 2)}\n`);
  await copyFile(join(root, 'LICENSE'), join(folder, 'LICENSE'));
}

/** Nobody but root may write anything, whatever this process creates files with. */
async function setModes(folder: string): Promise<void> {
  await chmod(folder, 0o755);
  for (const path of await readdir(folder, { recursive: true })) {
    const file = join(folder, path);
    const found = await lstat(file);
    if (found.isSymbolicLink()) continue;
    await chmod(file, found.isDirectory() || (found.mode & 0o100) !== 0 ? 0o755 : 0o644);
  }
}
