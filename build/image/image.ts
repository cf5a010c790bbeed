/**
 * `npm run image`: an image for linux/amd64 and linux/arm64, as a folder of the OCI image layout, `dist/image`. By Debian's Buildah, without a
 * daemon, a registry or a base image. `-- --update` takes Debian's newest packages into the lock; `-- --scan` has grype look for known holes.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { ARCHITECTURES, lockedFiles, NATIVE, readLock, updateLock, type Architecture } from './debian.ts';
import { nodeArchive } from './node.ts';
import { assemble, SCUTE_UID, type Layers } from './root.ts';

const root = join(import.meta.dirname, '..', '..');
const run = promisify(execFile);
/** What was downloaded, by digest or version. */
const CACHE = join(root, '.cache/image');
const BUILD_WITHIN_MS = 900_000;
const EXIT_FAILED = 1;
const EXIT_USAGE = 64;
/** What runs programs of the other processor. */
const EMULATORS: Readonly<Record<Architecture, string>> = { amd64: 'qemu-x86_64-static', arm64: 'qemu-aarch64-static' };

export interface ImageOptions {
  /** Becomes an OCI image layout; what was there goes. */
  readonly outfolder: string;
  /** All, if left out. */
  readonly architectures?: readonly Architecture[] | undefined;
  /** Gets the files of each image as folders, `ARCHITECTURE/{system,scute,volatile}`. Nothing is kept if left out. */
  readonly keep?: string | undefined;
}

export interface Image {
  /** Of the index: `sha256:…`. */
  readonly digest: string;
  /** Bytes of each image, compressed as it is pulled. */
  readonly bytes: Readonly<Partial<Record<Architecture, number>>>;
}

/** Same sources, same lock files, same Buildah: same digest. */
export async function buildImage({ outfolder, architectures = ARCHITECTURES, keep }: ImageOptions): Promise<Image> {
  const lock = await readLock();
  const files = await lockedFiles(lock, join(CACHE, 'debian'));
  const folder = await mkdtemp(join(tmpdir(), 'scute-image-'));
  const buildah = await startBuildah(folder);
  try {
    const list = 'localhost/scute';
    await buildah(['manifest', 'create', list]);
    for (const architecture of architectures) {
      const layers = await assemble(join(keep ?? folder, architecture), architecture, {
        packages: files[architecture],
        node: await nodeArchive(architecture, join(CACHE, 'node')),
        emulator: await emulatorOf(architecture),
      });
      await buildOne(buildah, list, architecture, layers);
    }
    await rm(outfolder, { recursive: true, force: true });
    await mkdir(dirname(outfolder), { recursive: true });
    await buildah(['manifest', 'push', '--all', '--format', 'oci', list, `oci:${outfolder}:latest`]);
    return await describe(outfolder);
  } finally {
    await buildah(['rmi', '--all', '--force']).catch(() => undefined);
    await rm(folder, { recursive: true, force: true });
  }
}

type Buildah = (args: readonly string[]) => Promise<string>;

/** On a storage of its own, without namespaces that a container might not have. */
async function startBuildah(folder: string): Promise<Buildah> {
  const policy = join(folder, 'policy.json');
  const registries = join(folder, 'registries.conf');
  await writeFile(policy, '{ "default": [{ "type": "insecureAcceptAnything" }] }');
  await writeFile(registries, '');
  const storage = ['--storage-driver=vfs', `--root=${join(folder, 'storage')}`, `--runroot=${join(folder, 'run')}`];
  const env = { ...process.env, BUILDAH_ISOLATION: 'chroot', CONTAINERS_REGISTRIES_CONF: registries, TMPDIR: folder };
  return async (args) => {
    const signed = args[0] === 'build' ? ['--signature-policy', policy] : [];
    const argv = [...storage, ...args.slice(0, 1), ...signed, ...args.slice(1)];
    const { stdout } = await run('buildah', argv, { env, cwd: folder, timeout: BUILD_WITHIN_MS, maxBuffer: 2 ** 26 });
    return stdout.trim();
  };
}

async function buildOne(buildah: Buildah, list: string, architecture: Architecture, layers: Layers): Promise<void> {
  const context = dirname(layers.system);
  const settings = ['--format', 'oci', '--platform', `linux/${architecture}`, '--timestamp', '0', '--layers', '--no-cache', '--pull-never'];
  const values = ['--build-arg', `UID=${SCUTE_UID}`, '--build-arg', `VERSION=${await version()}`];
  const id = await buildah(['build', '--quiet', ...settings, ...values, '--file', join(import.meta.dirname, 'Containerfile'), context]);
  await buildah(['manifest', 'add', list, id]);
}

async function version(): Promise<string> {
  return (JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }).version;
}

async function emulatorOf(architecture: Architecture): Promise<string[]> {
  if (architecture === NATIVE) return [];
  const emulator = `/usr/bin/${EMULATORS[architecture]}`;
  if (!existsSync(emulator))
    throw new Error(`${emulator} is missing, which makes the code cache for ${architecture}: apt-get install qemu-user-static`);
  return [emulator];
}

interface Descriptor {
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly architecture: Architecture };
}

async function describe(layout: string): Promise<Image> {
  const blob = async (digest: string): Promise<unknown> =>
    JSON.parse(await readFile(join(layout, 'blobs', digest.replace(':', '/')), 'utf8'));
  const { manifests } = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')) as { manifests: Descriptor[] };
  const [index, ...more] = manifests;
  if (index === undefined || more.length > 0) throw new Error(`${layout} has ${manifests.length} images, not one`);
  const images = (await blob(index.digest)) as { manifests: Descriptor[] };
  const bytes: Partial<Record<Architecture, number>> = {};
  for (const { digest, size, platform } of images.manifests) {
    const { config, layers } = (await blob(digest)) as { config: Descriptor; layers: Descriptor[] };
    if (platform !== undefined) bytes[platform.architecture] = layers.reduce((sum, layer) => sum + layer.size, size + config.size);
  }
  return { digest: index.digest, bytes };
}

/** As grype ends when it has found what is bad enough. */
const FOUND = 2;

/** Has grype look, which fetches a list of what is known and so needs a network. Throws, with what to do, where it found something, or could not look. */
export async function scan(layout: string): Promise<void> {
  for (const architecture of ARCHITECTURES) {
    process.stdout.write(`${architecture}:\n`);
    const grype = spawn('grype', ['--platform', `linux/${architecture}`, '--fail-on', 'high', `oci-dir:${layout}`], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    const [code] = (await once(grype, 'exit')) as [number | null];
    if (code === FOUND) throw new Error(`the image for ${architecture} has holes that are high or critical: they are listed above`);
    if (code !== 0)
      throw new Error(`grype could not look at the image for ${architecture}, which is built: it needs its list of holes, from a network`);
  }
}

async function findGrype(): Promise<void> {
  await run('grype', ['version']).catch((cause: unknown) => {
    throw new Error('grype is not on the path: go install github.com/anchore/grype/cmd/grype@latest', { cause });
  });
}

async function main(options: readonly string[]): Promise<void> {
  const unknown = options.filter((option) => option !== '--update' && option !== '--scan');
  if (unknown.length > 0) throw new TypeError(`${unknown.join(' ')}: there is --update and --scan`);
  // Before minutes of building.
  if (options.includes('--scan')) await findGrype();
  if (options.includes('--update')) {
    const changes = await updateLock();
    process.stdout.write(`${changes.length === 0 ? 'nothing is newer' : changes.join('\n')}\n`);
  }
  const outfolder = join(root, 'dist/image');
  const { digest, bytes } = await buildImage({ outfolder });
  const sizes = Object.entries(bytes).map(([architecture, size]) => `${architecture} ${(size / 2 ** 20).toFixed(1)} MiB`);
  process.stdout.write(`${outfolder}: ${digest}, ${sizes.join(', ')}\n`);
  if (options.includes('--scan')) await scan(outfolder);
}

if (import.meta.main) {
  try {
    await main(process.argv.slice(2));
  } catch (cause) {
    process.stderr.write(`image: ${cause instanceof Error ? cause.message : String(cause)}\n`);
    process.exitCode = cause instanceof TypeError ? EXIT_USAGE : EXIT_FAILED;
  }
}
