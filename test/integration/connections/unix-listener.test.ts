// ghostunnel: client-unix-socket-backend, server-unix-socket-listener
import assert from 'node:assert/strict';
import { chmod, lstat, readdir, rename, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { once } from 'node:events';
import { test } from 'node:test';
import { startExampleDomain, startOutboundToApi, WEB } from '../../support/data-path.ts';
import { startScute } from '../../support/scute-process.ts';
import { dial, readAll } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

test('a Unix listener has the mode and group that were asked for, and nothing else beside it', async (t) => {
  const folder = await temporaryFolder(t);
  const path = `${folder}/out.sock`;
  const gid = process.getgroups?.().at(-1) ?? process.getgid?.() ?? 0;
  const { sidecar, address } = await startOutboundToApi(t, (socket) => socket.end('hello'), {
    listener: { listen: `unix://${path}`, socketMode: '0660', socketGroup: gid },
  });

  const stats = await lstat(path);
  assert.equal(stats.mode & 0o777, 0o660);
  assert.equal(stats.gid, gid);
  assert.deepEqual(await readdir(folder), ['out.sock']);
  assert.equal(address, `unix://${path}`);
  const caller = await dial(t, address);
  assert.equal((await readAll(caller)).toString(), 'hello');
  caller.end();
  assert.equal((await sidecar.connection())['downstream_address'], 'unix');
});

test('without a mode, only the user may connect', async (t) => {
  const folder = await temporaryFolder(t);
  await chmod(folder, 0o755);
  await startOutboundToApi(t, (socket) => socket.end(), { listener: { listen: `unix://${folder}/out.sock` } });

  assert.equal((await lstat(`${folder}/out.sock`)).mode & 0o777, 0o600);
});

test('the socket goes when Scute ends, and one that a killed Scute left is replaced', async (t) => {
  const folder = await temporaryFolder(t);
  const spiffe = await startExampleDomain(t);
  const config = {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    outbound: [{ name: 'out', listen: `unix://${folder}/out.sock`, to: '127.0.0.1:1', expect: [WEB] }],
  };
  const killed = await startScute({ config });
  await killed.ready('out');
  await killed.stop({ signal: 'SIGKILL' });
  assert.deepEqual(await readdir(folder), ['out.sock']);

  const scute = await startScute({ config });
  t.after(() => scute.stop());
  await scute.ready('out');
  const caller = connect({ path: `${folder}/out.sock` });
  caller.on('error', () => undefined);
  await once(caller, 'connect');
  caller.destroy();
  const exit = await scute.stop();

  assert.deepEqual(exit, { code: 0, signal: null });
  assert.deepEqual(await readdir(folder), []);
});

test('what another process has put in place of the socket stays when Scute ends', async (t) => {
  const folder = await temporaryFolder(t);
  const path = `${folder}/out.sock`;
  const { sidecar } = await startOutboundToApi(t, (socket) => socket.end(), { listener: { listen: `unix://${path}` } });
  const other = createServer().listen(`${folder}/other.sock`);
  await once(other, 'listening');
  t.after(() => other.close());
  await rename(`${folder}/other.sock`, path);

  await sidecar.stop();

  assert.deepEqual(await readdir(folder), ['out.sock']);
});

test('a file that is not a socket is never replaced', async (t) => {
  const folder = await temporaryFolder(t);
  const spiffe = await startExampleDomain(t);
  await writeFile(`${folder}/out.sock`, 'precious');

  const scute = await startScute({
    config: {
      workloadApi: { endpoint: spiffe.endpoint('web') },
      outbound: [{ name: 'out', listen: `unix://${folder}/out.sock`, to: '127.0.0.1:1', expect: [WEB] }],
    },
  });

  assert.deepEqual(await scute.exited, { code: 1, signal: null });
  assert.match(scute.child.stderr(), /exists and is not a socket/);
  assert.deepEqual(await readdir(folder), ['out.sock']);
});
