/** The application that Scute runs, and is told of the files that Scute writes. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { anSvid, startExecStage } from '../../support/exec-stage.ts';
import { folderInMemory } from '../../support/files/files.ts';
import { startScute } from '../../support/scute-process.ts';

/** A set of files of which the application is told. */
async function aSet(t: TestContext, more: object = {}) {
  const { folder, unsafeDisk } = await folderInMemory(t);
  const directory = join(folder, 'web');
  const set = { name: 'web', directory, unsafeDisk, notifyDelay: '0s', notify: [{ child: 'SIGHUP' }], ...more };
  return { directory, files: [set] };
}

/** Reads its certificate when it starts and whenever it is told, and says which; ends when its input does. */
const READS = `
  const { X509Certificate } = process.getBuiltinModule('node:crypto');
  const { readFileSync } = process.getBuiltinModule('node:fs');
  const say = (when) => console.log(when + ' ' + new X509Certificate(readFileSync(process.argv[1])).serialNumber);
  process.on('SIGHUP', () => say('told'));
  process.stdin.resume().on('end', () => process.exit(0));
  say('started');
`;

test('an application begins with the files of the first identity, and is told of each later set, not of that one', async (t) => {
  const { api, exec } = await startExecStage(t, { early: true });
  const { directory, files } = await aSet(t);
  const running = await exec([process.execPath, '--eval', READS, join(directory, 'svid.pem')], { file: { files } });
  await running.line(/"listener":"admin"/);

  const svids = [anSvid(), anSvid(), anSvid()];
  let next = 0;
  for (const [index, svid] of svids.entries()) {
    api.setX509([svid]);
    const said = await running.line(index === 0 ? /^started / : /^told /, { after: next });
    const logged = await running.line(/"told of new files"/, { after: next });
    // Two pipes: either may be read first.
    next = Math.max(said.next, logged.next);
  }
  running.endInput();

  assert.equal((await running.exited).code, 0, running.stderr());
  assert.match(running.stdout(), /^started \w+\ntold \w+\ntold \w+\n$/);
  assert.equal(new Set(running.stdout().match(/\w+$/gm)).size, 3);
  const told = running.log().filter(({ message }) => message.includes('told of new files'));
  assert.deepEqual(
    told.map(({ message, kind, target }) => [message, kind, target]),
    Array.from({ length: 3 }, () => ['told of new files', 'child', process.execPath]),
  );
});

test('an application that has no handler yet is not ended by the signal, and is told when it has one', async (t) => {
  const { api, exec } = await startExecStage(t);
  const { files } = await aSet(t);
  const script = `echo ready; read -r line; trap 'echo told' HUP; while ! read -r line; do :; done`;
  const running = await exec(['/bin/bash', '-c', script], { file: { files } });
  await running.line(/^ready$/);
  // What it was started with is behind it.
  const { next } = await running.line(/"told of new files"/);

  api.setX509([anSvid()]);
  await running.line(/not told of new files/, { after: next });
  running.write('\n');
  await running.line(/^told$/);
  await running.line(/"message":"told of new files"/, { after: next });
  running.write('\n');

  assert.equal((await running.exited).code, 0, running.stderr());
  const [failed] = running.log().filter(({ message }) => message.startsWith('not told of new files'));
  assert.deepEqual([failed?.['kind'], failed?.['reason']], ['child', 'unhandled_signal']);
});

test('a configuration that tells an application is wrong where none is run', async (t) => {
  const { files } = await aSet(t);
  const config = `workloadApi: { endpoint: unix:///run/none.sock }\nfiles:\n  - ${JSON.stringify(files[0])}\n`;
  for (const command of ['run', 'once']) {
    await using scute = await startScute({ config, args: [command] });
    assert.equal((await scute.exited).code, 64, command);
    assert.match(
      scute.child.stderr(),
      /scute\.yaml:3:\d+ files\[0\]\.notify\[0\]\.child: is for the application that `scute exec` runs, and there is none\n/,
    );
  }
});
