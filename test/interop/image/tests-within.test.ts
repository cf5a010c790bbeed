import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { needs } from '../parts.ts';
import { asRoot, nativeImage, startContainer } from './container.ts';
import { seccompProfile } from './seccomp.ts';

const root = join(import.meta.dirname, '../../..');
const WITHIN_MS = 1_800_000;

/** One of each part of Scute: in the image's file system, by its Node and libraries; a process of Scute is the image's own program. */
const TESTS = [
  'connections/transfers',
  'connections/unix-listener',
  'connections/shutdown',
  'http/forwarding',
  'http/drain',
  'http2/forwarding',
  'sds/sds',
  'sds/sidecar',
  'admin/admin',
  'files/sidecar',
  'reload',
].map((name) => `test/integration/${name}.test.ts`);

/** What they do themselves, under the profile of Scute. */
const OF_THE_TESTS = ['setgroups', 'setgid', 'setuid', 'setresuid', 'setresgid'];

test(
  'integration tests of every part pass in the image’s file system, with the system calls that Scute has use for',
  { timeout: WITHIN_MS, ...needs('buildah', 'runc'), ...asRoot },
  async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'scute-within-'));
    t.after(() => rm(folder, { recursive: true, force: true }));
    const image = await nativeImage(join(folder, 'image'));
    const temporary = join(folder, 'tmp');
    await mkdir(temporary);
    await chmod(temporary, 0o1777);

    const profile = await seccompProfile();
    const [node = '', ...options] = image.config.Entrypoint.slice(0, -1);
    const container = await startContainer(t, image, {
      entrypoint: [node, ...options, '--disable-warning=ExperimentalWarning', '--test', '--test-concurrency=1', ...TESTS],
      args: [],
      // The tests make files that another user could not read.
      uid: 0,
      gid: 0,
      // They also give files to other groups, and become another user.
      capabilities: ['CAP_CHOWN', 'CAP_SETUID'],
      seccomp: { ...profile, syscalls: [...profile.syscalls, { names: OF_THE_TESTS, action: 'SCMP_ACT_ALLOW' }] },
      cwd: root,
      env: { SCUTE_TEST_PROGRAM: image.config.Entrypoint.at(-1) ?? '', PATH: '/usr/local/bin' },
      mounts: { [root]: root },
      volumes: { '/tmp': temporary },
    });
    const { code } = await container.exited;

    assert.equal(code, 0, container.stdout().slice(-20_000));
    assert.match(container.stdout(), /^ℹ skipped 0$/m);
    const [, passed] = /^ℹ pass (\d+)$/m.exec(container.stdout()) ?? [];
    t.diagnostic(`${passed} tests passed`);
  },
);
