/** The image's files, and containers of them by runc: on this machine's network, without capabilities, with a root that nobody can write. */
import { execFile } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { buildImage } from '../../../build/image/image.ts';
import { NATIVE, type Architecture } from '../../../build/image/debian.ts';
import { startChild, type Child } from '../../support/child.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { everyPartRequired, part } from '../parts.ts';

const run = promisify(execFile);
const MIB = 2 ** 20;
const CPU_PERIOD_US = 100_000;
/** In the container. */
export const AGENT_FOLDER = '/run/agent';

/** Options for a test that unpacks the image, with its owners, or runs it. */
export const asRoot: { readonly skip?: string } =
  process.getuid?.() === 0 || everyPartRequired ? {} : { skip: 'only root can unpack files with their owners, or run runc with limits' };

interface ImageConfig {
  readonly User: string;
  readonly StopSignal: string;
  readonly Env: readonly string[];
  readonly Entrypoint: readonly string[];
  readonly Cmd: readonly string[];
  readonly Labels: Readonly<Record<string, string>>;
}

export interface UnpackedImage {
  /** Its file system. */
  readonly root: string;
  readonly config: ImageConfig;
}

interface Descriptor {
  readonly digest: string;
  readonly mediaType: string;
  readonly platform: { readonly architecture: Architecture };
}

/** Unpacks one image of a layout into `root`, with owners and modes as whoever pulls it gets them; so only root can. */
export async function unpackImage(layout: string, architecture: Architecture, root: string): Promise<UnpackedImage> {
  const file = (digest: string): string => join(layout, 'blobs', digest.replace(':', '/'));
  const json = async (path: string): Promise<unknown> => JSON.parse(await readFile(path, 'utf8'));
  const { manifests } = (await json(join(layout, 'index.json'))) as { manifests: Descriptor[] };
  const index = (await json(file(manifests[0]?.digest ?? ''))) as { manifests: Descriptor[] };
  const image = index.manifests.find(({ platform }) => platform.architecture === architecture);
  if (image === undefined) throw new Error(`${layout} has no image for ${architecture}`);
  const manifest = (await json(file(image.digest))) as { config: Descriptor; layers: Descriptor[] };
  await mkdir(root, { recursive: true });
  for (const { digest } of manifest.layers)
    await run('tar', ['--extract', '--gzip', '--same-owner', '--preserve-permissions', '--file', file(digest), '--directory', root]);
  const { config } = (await json(file(manifest.config.digest))) as { config: ImageConfig };
  return { root, config };
}

/** The image for this machine, built and unpacked into `folder`. */
export async function nativeImage(folder: string): Promise<UnpackedImage> {
  const outfolder = join(folder, 'image');
  await buildImage({ outfolder, architectures: [NATIVE] });
  return unpackImage(outfolder, NATIVE, join(folder, 'root'));
}

export interface ContainerOptions {
  /** After the image's entry point; that of the image if left out. */
  readonly args?: readonly string[];
  /** Instead of the image's. */
  readonly entrypoint?: readonly string[];
  readonly uid?: number;
  readonly gid?: number;
  /** What it may do as root; nothing, if left out. */
  readonly capabilities?: readonly string[];
  /** Where it starts; at the root if left out. */
  readonly cwd?: string;
  readonly memoryMib?: number;
  /** Of one core. */
  readonly cpuPercent?: number;
  /** How many files and connections it may have open; 4,096 if left out. */
  readonly descriptors?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Files and folders of this machine by where they are in the container. */
  readonly mounts?: Readonly<Record<string, string>>;
  /** The same, writable. */
  readonly volumes?: Readonly<Record<string, string>>;
  /** Which system calls there are; all, if left out. */
  readonly seccomp?: object;
}

/** A running container. Its output is that of its one process. */
export interface Container extends Child {
  /** The most memory that it had at once, in MiB, page cache included; and how often the kernel refused it more. */
  memory(): Promise<{ readonly mostMib: number; readonly nowMib: number; readonly residentMib: number }>;
}

let containers = 0;

/** Starts one; it ends with the test at the latest. */
export async function startContainer(
  t: Pick<TestContext, 'after'>,
  image: UnpackedImage,
  options: ContainerOptions = {},
): Promise<Container> {
  const folder = await temporaryFolder(t);
  const id = `scute-${process.pid}-${(containers += 1)}`;
  const runc = [part('runc'), '--root', join(folder, 'state')] as const;
  await run(runc[0], ['spec', '--bundle', folder]);
  const file = join(folder, 'config.json');
  await writeFile(file, JSON.stringify(specOf(JSON.parse(await readFile(file, 'utf8')) as Spec, image, options)));
  const child = await startChild([...runc, 'run', '--bundle', folder, id]);
  t.after(async () => {
    // Runc hands the signal on. Before it has ended, its container cannot be deleted.
    await child.stop();
    await run(runc[0], [...runc.slice(1), 'delete', '--force', id]).catch(() => undefined);
    await rm(join(folder, 'state'), { recursive: true, force: true });
  });
  return Object.assign(child, {
    async memory() {
      const { stdout } = await run(runc[0], [...runc.slice(1), 'events', '--stats', id]);
      const { usage, raw } = (JSON.parse(stdout) as Stats).data.memory;
      return { mostMib: (usage.max ?? 0) / MIB, nowMib: usage.usage / MIB, residentMib: (raw['rss'] ?? raw['anon'] ?? 0) / MIB };
    },
  });
}

interface Stats {
  readonly data: {
    readonly memory: { readonly usage: { readonly usage: number; readonly max?: number }; readonly raw: Readonly<Record<string, number>> };
  };
}

interface Spec {
  readonly process: object;
  readonly mounts: readonly object[];
  readonly linux: { readonly namespaces: readonly { readonly type: string }[]; readonly resources: object };
}

function specOf(spec: Spec, { root, config }: UnpackedImage, options: ContainerOptions): object {
  const [uid = 0, gid = 0] = config.User.split(':').map(Number);
  const { memoryMib, cpuPercent, descriptors = 4096, env = {} } = options;
  const bind =
    (writable: boolean) =>
    ([destination, source]: [string, string]) => ({
      destination,
      source,
      type: 'bind',
      options: ['bind', writable ? 'rw' : 'ro'],
    });
  return {
    ...spec,
    process: {
      ...spec.process,
      terminal: false,
      user: { uid: options.uid ?? uid, gid: options.gid ?? gid },
      args: [...(options.entrypoint ?? config.Entrypoint), ...(options.args ?? config.Cmd)],
      env: [...config.Env, ...Object.entries(env).map(([key, value]) => `${key}=${value}`)],
      cwd: options.cwd ?? '/',
      capabilities: Object.fromEntries(['bounding', 'effective', 'permitted'].map((set) => [set, options.capabilities ?? []])),
      noNewPrivileges: true,
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: descriptors, soft: descriptors }],
    },
    root: { path: root, readonly: true },
    mounts: [
      ...spec.mounts,
      // What is mounted may lie within a volume.
      ...Object.entries(options.volumes ?? {}).map(bind(true)),
      ...Object.entries(options.mounts ?? {}).map(bind(false)),
    ],
    linux: {
      ...spec.linux,
      ...(options.seccomp !== undefined && { seccomp: options.seccomp }),
      // The clients of the tests are outside.
      namespaces: spec.linux.namespaces.filter(({ type }) => type !== 'network'),
      resources: {
        ...spec.linux.resources,
        ...(memoryMib !== undefined && { memory: { limit: memoryMib * MIB, swap: memoryMib * MIB } }),
        ...(cpuPercent !== undefined && { cpu: { period: CPU_PERIOD_US, quota: (cpuPercent * CPU_PERIOD_US) / 100 } }),
      },
    },
  };
}
