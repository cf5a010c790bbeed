/**
 * Debian's packages, as the lock file names them: version and SHA-256 for each processor. They come through apt, which checks Debian's
 * signature on its index and the index's digest of each package; the lock adds that they are the same tomorrow.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** As Debian calls them. */
export const ARCHITECTURES = ['amd64', 'arm64'] as const;
export type Architecture = (typeof ARCHITECTURES)[number];
/** This machine's. */
export const NATIVE: Architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';

export interface LockedPackage {
  readonly version: string;
  readonly sha256: Readonly<Record<Architecture, string>>;
}

export interface Lock {
  readonly suite: string;
  readonly packages: Readonly<Record<string, LockedPackage>>;
}

export const LOCK_FILE = join(import.meta.dirname, 'packages.json');
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const APT_WITHIN_MS = 600_000;

export async function readLock(): Promise<Lock> {
  return JSON.parse(await readFile(LOCK_FILE, 'utf8')) as Lock;
}

interface Candidate {
  readonly version: string;
  readonly sha256: string;
}

/** Debian's index as it is now, of both processors. */
export interface Index extends AsyncDisposable {
  /** The newest of each, by name. Rejects when there is none. */
  newest(names: readonly string[], architecture: Architecture): Promise<ReadonlyMap<string, Candidate>>;
  /** Puts the file of one version into `folder` and resolves to its path. */
  download(name: string, architecture: Architecture, version: string, folder: string): Promise<string>;
}

/** Fetches the index of `suite` into a folder of its own: this machine's apt, its sources and its packages stay what they are. Rejects without a network. */
export async function openIndex(suite: string): Promise<Index> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-apt-'));
  const apt = async (program: string, args: readonly string[], architecture: Architecture, cwd = folder): Promise<string> => {
    const { stdout } = await run(program, [...settings(folder, architecture), ...args], {
      cwd,
      timeout: APT_WITHIN_MS,
      maxBuffer: 2 ** 26,
    });
    return stdout;
  };
  const index: Index = {
    async newest(names, architecture) {
      const text = await apt('apt-cache', ['show', '--no-all-versions', ...names], architecture).catch(() => '');
      const found = new Map(
        text.split('\n\n').map((stanza) => {
          const field = (name: string): string => new RegExp(`^${name}: (.+)$`, 'm').exec(stanza)?.[1] ?? '';
          return [field('Package'), { version: field('Version'), sha256: field('SHA256') }];
        }),
      );
      const none = names.filter((name) => !/^[0-9a-f]{64}$/.test(found.get(name)?.sha256 ?? ''));
      if (none.length > 0) throw new Error(`Debian ${suite} has no package ${none.join(', ')} for ${architecture}`);
      return found;
    },
    async download(name, architecture, version, into) {
      await apt('apt-get', ['download', `${name}=${version}`], architecture, into);
      const [file, ...more] = await readdir(into);
      if (file === undefined || more.length > 0) throw new Error(`apt gave ${more.length + 1} files for ${name} ${version}`);
      return join(into, file);
    },
    async [Symbol.asyncDispose]() {
      await rm(folder, { recursive: true, force: true });
    },
  };
  try {
    for (const part of ['state/lists/partial', 'cache/archives/partial', 'sources']) await mkdir(join(folder, part), { recursive: true });
    await writeFile(join(folder, 'status'), '');
    const source = (uri: string, suites: string): string =>
      `Types: deb\nURIs: ${uri}\nSuites: ${suites}\nComponents: main\nArchitectures: ${ARCHITECTURES.join(' ')}\nSigned-By: ${KEYRING}\n`;
    const archive = source('http://deb.debian.org/debian', `${suite} ${suite}-updates`);
    const security = source('http://deb.debian.org/debian-security', `${suite}-security`);
    await writeFile(join(folder, 'sources/debian.sources'), `${archive}\n${security}`);
    await apt('apt-get', ['update', '-q', '--error-on=any'], 'amd64');
    return index;
  } catch (cause) {
    await index[Symbol.asyncDispose]();
    throw new Error(`the index of Debian ${suite} cannot be had: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

function settings(folder: string, architecture: Architecture): string[] {
  const values = {
    'Dir::State': join(folder, 'state'),
    'Dir::State::status': join(folder, 'status'),
    'Dir::Cache': join(folder, 'cache'),
    'Dir::Cache::pkgcache': '',
    'Dir::Cache::srcpkgcache': '',
    'Dir::Etc::sourcelist': '/dev/null',
    'Dir::Etc::sourceparts': join(folder, 'sources'),
    // As on a machine of that kind, so that packages for all of them count.
    'APT::Architecture': architecture,
    'Acquire::Languages': 'none',
    'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled': 'false',
    'APT::Update::Post-Invoke-Success::': 'true',
    // The folder is of whoever runs this.
    'APT::Sandbox::User': 'root',
  };
  const architectures = ARCHITECTURES.flatMap((architecture) => ['-o', `APT::Architectures::=${architecture}`]);
  return [...Object.entries(values).flatMap(([key, value]) => ['-o', `${key}=${value}`]), ...architectures];
}

/** Writes the newest versions of the same packages into the lock. Resolves to what changed, a line each. */
export async function updateLock(): Promise<string[]> {
  const { suite, packages } = await readLock();
  await using index = await openIndex(suite);
  const names = Object.keys(packages);
  const [ofAmd64, ofArm64] = [await index.newest(names, 'amd64'), await index.newest(names, 'arm64')];
  const changes: string[] = [];
  const updated: Record<string, LockedPackage> = {};
  for (const [name, before] of Object.entries(packages)) {
    const [amd64, arm64] = [ofAmd64.get(name), ofArm64.get(name)];
    if (amd64 === undefined || arm64 === undefined || amd64.version !== arm64.version)
      throw new Error(`${name} is ${amd64?.version} for amd64 and ${arm64?.version} for arm64: try again when Debian has built both`);
    updated[name] = { version: amd64.version, sha256: { amd64: amd64.sha256, arm64: arm64.sha256 } };
    if (JSON.stringify(updated[name]) !== JSON.stringify(before)) changes.push(`${name}: ${before.version} → ${amd64.version}`);
  }
  await writeFile(LOCK_FILE, `${JSON.stringify({ suite, packages: updated }, undefined, 2)}\n`);
  return changes;
}

/** Which locked packages Debian's index has in a newer version, or no longer; a sentence each. */
export async function outdated({ packages }: Lock, index: Pick<Index, 'newest'>): Promise<string[]> {
  const sentences: string[] = [];
  for (const architecture of ARCHITECTURES) {
    const newest = await index.newest(Object.keys(packages), architecture);
    for (const [name, { version }] of Object.entries(packages)) {
      const now = newest.get(name)?.version ?? 'none';
      if (now !== version) sentences.push(successor(name, architecture, version, now));
    }
  }
  return sentences;
}

function successor(name: string, architecture: Architecture, version: string, newest: string): string {
  return `${name} ${version} for ${architecture} is locked, and Debian has ${newest}: npm run image -- --update takes it`;
}

/**
 * The files of all locked packages, by architecture and name, from `cache` or by apt. Each has the digest of the lock. Rejects, with its
 * successor named, for a version that Debian no longer has.
 */
export async function lockedFiles({ suite, packages }: Lock, cache: string): Promise<Record<Architecture, ReadonlyMap<string, string>>> {
  await mkdir(cache, { recursive: true });
  const files = { amd64: new Map<string, string>(), arm64: new Map<string, string>() };
  let index: Index | undefined;
  try {
    for (const [name, { version, sha256 }] of Object.entries(packages)) {
      for (const architecture of ARCHITECTURES) {
        const kept = join(cache, `${sha256[architecture]}.deb`);
        if (!existsSync(kept)) {
          index ??= await openIndex(suite);
          const newest = (await index.newest([name], architecture)).get(name)?.version ?? 'none';
          if (newest !== version) throw new Error(successor(name, architecture, version, newest));
          const into = await mkdtemp(join(cache, 'new-'));
          try {
            const file = await index.download(name, architecture, version, into);
            await rename(file, kept);
          } finally {
            await rm(into, { recursive: true });
          }
        }
        const digest = await sha256Of(kept);
        if (digest !== sha256[architecture]) {
          await rm(kept);
          throw new Error(`${name} ${version} for ${architecture} has the SHA-256 ${digest}, and ${sha256[architecture]} is locked`);
        }
        files[architecture].set(name, kept);
      }
    }
  } finally {
    await index?.[Symbol.asyncDispose]();
  }
  return files;
}

export async function sha256Of(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
}
