import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { prepareUnixSocket, UnixSocketError } from './unix-socket.ts';

const isRoot = process.getuid?.() === 0;

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-unix-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function listen(t: TestContext, path: string): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => {}); // the probe hangs up without reading
    socket.end('hello');
  });
  t.after(() => server.close());
  server.listen(path);
  await once(server, 'listening');
  return server;
}

async function greetingAt(path: string): Promise<string> {
  const socket = connect({ path });
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

/** A socket file that nobody listens on, as a killed process leaves it behind. */
async function leaveStaleSocket(path: string): Promise<void> {
  const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  const child = spawn(process.execPath, ['-e', script], { stdio: 'ignore' });
  await once(child, 'exit');
}

function isProblem(problem: string): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof UnixSocketError && thrown.problem === problem;
}

test('a socket is reachable at its path, with its mode, only once it is published', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'a.sock');

  const prepared = await prepareUnixSocket(path, { mode: 0o660, gid: process.getgid?.() });
  await listen(t, prepared.bindPath);
  assert.equal((await stat(join(prepared.bindPath, '..'))).mode & 0o777, 0o700);
  assert.equal(existsSync(path), false);
  await prepared.publish();

  assert.equal((await stat(path)).mode & 0o777, 0o660);
  assert.equal(await greetingAt(path), 'hello');
  assert.deepEqual(await readdir(folder), ['a.sock']);
});

test('a released socket leaves nothing behind, published or not', async (t) => {
  const folder = await temporaryFolder(t);

  const published = await prepareUnixSocket(join(folder, 'a.sock'), { mode: 0o600 });
  await listen(t, published.bindPath);
  await published.publish();
  const unpublished = await prepareUnixSocket(join(folder, 'b.sock'), { mode: 0o600 });
  await listen(t, unpublished.bindPath);
  await published.release();
  await unpublished.release();
  await published.release();

  assert.deepEqual(await readdir(folder), []);
});

test('a stale socket is replaced', async (t) => {
  const path = join(await temporaryFolder(t), 'a.sock');
  await leaveStaleSocket(path);
  assert.equal(existsSync(path), true);

  const prepared = await prepareUnixSocket(path, { mode: 0o600 });
  await listen(t, prepared.bindPath);
  await prepared.publish();

  assert.equal(await greetingAt(path), 'hello');
});

test('a live socket is never replaced, whether it was there before or appears before the rename', async (t) => {
  const folder = await temporaryFolder(t);
  await listen(t, join(folder, 'before.sock'));
  const late = await prepareUnixSocket(join(folder, 'late.sock'), { mode: 0o600 });
  await listen(t, late.bindPath);
  await listen(t, join(folder, 'late.sock'));

  await assert.rejects(prepareUnixSocket(join(folder, 'before.sock'), { mode: 0o600 }), isProblem('in_use'));
  await assert.rejects(late.publish(), isProblem('in_use'));
  await late.release();

  assert.equal(await greetingAt(join(folder, 'before.sock')), 'hello');
  assert.deepEqual((await readdir(folder)).toSorted(), ['before.sock', 'late.sock']);
});

test('a file or a symbolic link in the place of the socket is left alone', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'file'), 'precious');
  await symlink(join(folder, 'nowhere'), join(folder, 'link'));

  await assert.rejects(prepareUnixSocket(join(folder, 'file'), { mode: 0o600 }), isProblem('not_a_socket'));
  await assert.rejects(prepareUnixSocket(join(folder, 'link'), { mode: 0o600 }), isProblem('not_a_socket'));

  assert.deepEqual((await readdir(folder)).toSorted(), ['file', 'link']);
});

test('release leaves a socket alone that somebody else put at the path', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'a.sock');
  const ours = await prepareUnixSocket(path, { mode: 0o600 });
  await listen(t, ours.bindPath);
  await ours.publish();
  await rm(path);
  await listen(t, path);

  await ours.release();

  assert.equal(await greetingAt(path), 'hello');
});

test('a path that the kernel would cut, and a relative one, are refused by name', async (t) => {
  const folder = await temporaryFolder(t);
  const long = join(folder, 'x'.repeat(108));

  await assert.rejects(prepareUnixSocket(long, { mode: 0o600 }), isProblem('too_long'));
  await assert.rejects(prepareUnixSocket('a.sock', { mode: 0o600 }), isProblem('not_absolute'));

  assert.deepEqual(await readdir(folder), []);
});

test('a directory that is missing is named', async (t) => {
  const folder = await temporaryFolder(t);

  await assert.rejects(prepareUnixSocket(join(folder, 'none/a.sock'), { mode: 0o600 }), (thrown: Error) => {
    assert.equal(thrown.message, `cannot make "${folder}/none/a.sock": the directory "${folder}/none" does not exist`);
    return isProblem('no_directory')(thrown);
  });
});

test('a directory that may not be written to is named, with the user', { skip: isRoot && 'root may write to any' }, async (t) => {
  const folder = await temporaryFolder(t);
  await chmod(folder, 0o500);

  await assert.rejects(prepareUnixSocket(join(folder, 'a.sock'), { mode: 0o600 }), (thrown: Error) => {
    assert.match(
      thrown.message,
      new RegExp(`: user ${process.getuid?.()} cannot write to "${folder}", since its permissions forbid that;`),
    );
    return isProblem('not_writable')(thrown);
  });
});
