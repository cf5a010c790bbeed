import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { API, presented, startExampleDomain } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { folderInMemory } from '../../support/files/files.ts';
import { startScute } from '../../support/scute-process.ts';
import { dial } from '../../support/tcp.ts';
import { tlsServer } from '../../support/tls-peer.ts';

/** Two processes of one group, neither of which heeds SIGTERM; the files of the folder have their numbers. */
const STUBBORN = `trap '' TERM; sh -c 'trap "" TERM; echo $$ > "$0/second"; exec sleep 3600' "$0" & echo $$ > "$0/first"; wait; wait`;

async function isRunning(pid: string): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
  return stat !== '' && !/\) [ZX] /.test(stat);
}

test('a command that is told of files does not outlive a Scute that a second SIGTERM ends at once, and neither does what it started', async (t) => {
  const spiffe = await startExampleDomain(t);
  const server = await tlsServer(t, presented(await spiffe.issue(API)), (socket) => socket.pipe(socket));
  const { folder, unsafeDisk } = await folderInMemory(t);
  await using scute = await startScute({
    config: {
      workloadApi: { endpoint: spiffe.endpoint('web') },
      outbound: [{ name: 'out', listen: '127.0.0.1:0', to: server.address, expect: [API] }],
      drainTimeout: '1h',
      files: [{ directory: join(folder, 'web'), unsafeDisk, notify: [{ command: ['/bin/sh', '-c', STUBBORN, folder], timeout: '1h' }] }],
      log: { format: 'json' },
    },
  });
  const pids = await eventually(async () => {
    const found = await Promise.all(['first', 'second'].map(async (name) => (await readFile(join(folder, name), 'utf8')).trim()));
    for (const pid of found) assert.match(pid, /^\d+$/);
    return found;
  });
  t.after(() => {
    for (const pid of pids)
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch {
        // It has ended, as it should.
      }
  });

  // As long as it is open, Scute drains, and the command goes on.
  const open = await dial(t, await scute.address('out'));
  open.write('x');
  await once(open, 'data');
  scute.child.signal('SIGTERM');
  await scute.logged(({ message }) => message === 'stopping');
  for (const pid of pids) assert.equal(await isRunning(pid), true);
  scute.child.signal('SIGTERM');

  assert.deepEqual(await scute.exited, { code: 143, signal: null });
  await eventually(async () => {
    for (const pid of pids) assert.equal(await isRunning(pid), false);
  });
});
