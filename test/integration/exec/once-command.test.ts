import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { startExampleDomain, WEB } from '../../support/data-path.ts';
import { folderInMemory } from '../../support/files/files.ts';
import { freePort } from '../../support/tcp.ts';
import { startScute } from '../../support/scute-process.ts';

test('scute once writes the files of this very identity, tells of them, and ends; what it wrote stays, and nobody is served', async (t) => {
  const spiffe = await startExampleDomain(t);
  const { folder, unsafeDisk } = await folderInMemory(t);
  const directory = join(folder, 'web');
  const told = join(folder, 'told');
  const config = {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    // Somebody else may have this port: it is not bound.
    inbound: [{ name: 'in', listen: `127.0.0.1:${await freePort()}`, to: '127.0.0.1:1', allow: [WEB] }],
    files: [
      {
        name: 'web',
        directory,
        unsafeDisk,
        cleanUpOnStop: true,
        notify: [{ command: ['/bin/sh', '-c', `echo told >> ${told}`], timeout: '50s' }],
      },
    ],
  };
  const leaf = async (): Promise<string> => new X509Certificate(await readFile(join(directory, 'svid.pem'))).serialNumber;

  const serials: string[] = [];
  for (let run = 0; run < 2; run += 1) {
    await using first = await startScute({ config, args: ['once'] });
    assert.equal((await first.exited).code, 0, first.child.lines().join('\n'));
    assert.ok(!first.log().some(({ message, listener }) => message === 'listening' && listener === 'in'));
    serials.push(await leaf());
    await spiffe.rotate();
  }
  assert.notEqual(serials[0], serials[1], 'what was found of before is not enough');
  assert.equal(await readFile(told, 'utf8'), 'told\ntold\n');
});

test('scute once that cannot do all of it says what is missing, and fails', async (t) => {
  const spiffe = await startExampleDomain(t);
  const { folder, unsafeDisk } = await folderInMemory(t);
  const of = (set: object): object => ({
    workloadApi: { endpoint: spiffe.endpoint('web') },
    files: [{ name: 'web', directory: join(folder, 'web'), unsafeDisk, ...set }],
  });
  const listener = { listen: '127.0.0.1:0', to: '127.0.0.1:1', allow: [WEB] };
  await spiffe.withdraw('api');
  for (const [config, problem] of [
    [of({ notify: [{ command: ['/bin/false'] }] }), /^scute: web: \/bin\/false is not told yet: /m],
    [of({ identity: { hint: 'database' } }), /^scute: web: .*database/m],
    [{ workloadApi: { endpoint: spiffe.endpoint('api') }, inbound: [listener] }, /^scute: the Workload API gives us no identity: /m],
  ] as const) {
    // How long it takes to come as far as that, the machine decides.
    for (const timeout of ['2s', '10s', '60s']) {
      await using scute = await startScute({ config, args: ['once', '--timeout', timeout] });
      assert.equal((await scute.exited).code, 1, scute.child.stderr());
      if (timeout === '60s') assert.match(scute.child.stderr(), problem);
      else if (problem.test(scute.child.stderr())) break;
    }
  }
});
