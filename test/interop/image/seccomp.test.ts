import assert from 'node:assert/strict';
import { chmod, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { runChild } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { needs, part } from '../parts.ts';
import { startContainer } from './container.ts';
import { ask, ended, imageOfFile, PARTS, startStage } from './container-stage.ts';
import { seccompProfile } from './seccomp.ts';

const image = imageOfFile();

test('under its own profile of seccomp Scute serves, writes files and runs a command for them', PARTS, async (t) => {
  const [node = '', ...options] = image().config.Entrypoint.slice(0, -1);
  const run = await temporaryFolder(t);
  await chmod(run, 0o777);
  const told = [node, ...options, '-e', 'fs.writeFileSync("/run/scute/told", process.env.SCUTE_SET)'];
  const stage = await startStage(t, image(), {
    seccomp: await seccompProfile(),
    volumes: { '/run/scute': run },
    config: {
      outbound: [{ name: 'out', listen: 'unix:///run/scute/out.sock', to: '127.0.0.1:9', expect: ['spiffe://example.org/other'] }],
      sds: { listen: 'unix:///run/scute/sds.sock' },
      admin: { listen: 'unix:///run/scute/admin.sock' },
      files: [{ name: 'web', directory: '/run/scute/web', unsafeDisk: true, notify: [{ command: told }] }],
    },
  });

  await ask(stage, 100);

  await eventually(async () => assert.equal(await readFile(join(run, 'told'), 'utf8'), 'web'));
  assert.deepEqual((await readdir(join(run, 'web'))).filter((name) => name.endsWith('.pem')).toSorted(), [
    'svid.pem',
    'svid_bundle.pem',
    'svid_key.pem',
  ]);
  assert.equal(await ended(stage.container), '');
});

/** What the kernel lets any process do, and the profile does not. */
const OPEN_OTHERWISE = [
  'add_key',
  'clone-user',
  'execveat',
  'io_uring_setup',
  'kcmp',
  'keyctl',
  'memfd_create',
  'personality',
  'pidfd_getfd',
  'process_vm_readv',
  'process_vm_writev',
  'ptrace',
  'request_key',
  'setns',
  'socket-alg',
  'socket-vsock',
  'unshare',
];
/** What the kernel refuses without capabilities, or has not, but would judge by itself. */
const OF_ROOT = ['bpf', 'init_module', 'kexec_load', 'mount', 'open_by_handle_at', 'perf_event_open', 'setuid', 'userfaultfd'];

test('each system call that Scute has no use for is answered with EPERM', { ...PARTS, ...needs('k8s-judge') }, async (t) => {
  const judge = part('k8s-judge');
  const said = async (seccomp?: object): Promise<Readonly<Record<string, string>>> => {
    const container = await startContainer(t, image(), {
      entrypoint: ['/judge', 'system-calls'],
      args: [],
      mounts: { '/judge': judge },
      ...(seccomp && { seccomp }),
    });
    assert.deepEqual(await container.exited, { code: 0, signal: null }, container.stderr());
    return JSON.parse(container.stdout()) as Readonly<Record<string, string>>;
  };

  const { clone3, 'socket-unix': unix, 'socket-inet6': inet6, ...refused } = await said(await seccompProfile());
  const open = await said();

  assert.deepEqual([unix, inet6], ['', '']);
  // The C library then takes clone, of which the flags can be judged.
  assert.equal(clone3, 'ENOSYS');
  assert.deepEqual(Object.keys(refused).toSorted(), [...OPEN_OTHERWISE, ...OF_ROOT].toSorted());
  for (const [name, error] of Object.entries(refused)) assert.equal(error, 'EPERM', name);
  for (const name of OPEN_OTHERWISE) assert.notEqual(open[name], 'EPERM', name);
});

/** Where one of the two processors has not what the other has: what its C library takes instead. */
const INSTEAD: Readonly<Record<string, string | undefined>> = {
  access: 'faccessat',
  chmod: 'fchmodat',
  chown: 'fchownat',
  dup2: 'dup3',
  epoll_create: 'epoll_create1',
  epoll_wait: 'epoll_pwait',
  eventfd: 'eventfd2',
  fork: 'clone',
  getpgrp: 'getpgid',
  lchown: 'fchownat',
  link: 'linkat',
  lstat: 'newfstatat',
  mkdir: 'mkdirat',
  open: 'openat',
  pipe: 'pipe2',
  poll: 'ppoll',
  readlink: 'readlinkat',
  rename: 'renameat',
  rmdir: 'unlinkat',
  select: 'pselect6',
  stat: 'newfstatat',
  symlink: 'symlinkat',
  time: 'clock_gettime',
  unlink: 'unlinkat',
  vfork: 'clone',
};

/** As libseccomp has them, with which runc reads a profile: [on amd64, on arm64]; less than 0 where there is none. */
const RESOLVE = `
import ctypes, json, sys
resolve = ctypes.CDLL('libseccomp.so.2').seccomp_syscall_resolve_name_arch
print(json.dumps({name: [resolve(arch, name.encode()) for arch in (0xC000003E, 0xC00000B7)] for name in json.load(sys.stdin)}))`;

test('the profile names system calls that both processors have, or what is instead of them', needs('runc', 'python'), async () => {
  const { syscalls } = await seccompProfile();
  const names = new Set(syscalls.flatMap((rule) => rule.names));

  const { code, stdout, stderr } = await runChild([part('python'), '-c', RESOLVE], { input: JSON.stringify([...names]) });
  assert.equal(code, 0, stderr);
  for (const [name, [amd64 = -1, arm64 = -1]] of Object.entries(JSON.parse(stdout) as Record<string, readonly number[]>)) {
    assert.ok(amd64 >= 0, `${name} on amd64`);
    // arch_prctl sets a register that arm64 sets by itself.
    if (arm64 < 0 && name !== 'arch_prctl') assert.ok(names.has(INSTEAD[name] ?? ''), `${name} on arm64`);
  }
});

// Debian's buildah brings the file.
test('the profile lets through nothing that the one of container runtimes does not', needs('buildah'), async () => {
  const file = '/usr/share/containers/seccomp.json';
  const { syscalls } = JSON.parse(await readFile(file, 'utf8')) as Awaited<ReturnType<typeof seccompProfile>>;
  const theirs = new Set(syscalls.filter(({ action }) => action === 'SCMP_ACT_ALLOW').flatMap(({ names }) => names));

  const ours = (await seccompProfile()).syscalls.filter(({ action }) => action === 'SCMP_ACT_ALLOW').flatMap(({ names }) => names);

  assert.deepEqual(
    ours.filter((name) => !theirs.has(name)),
    [],
  );
});
