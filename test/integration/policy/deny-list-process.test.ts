/** The deny list of the running program: at the start, on signals, and in its probes. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { createApp } from '../../../src/app.ts';
import { parseConfig } from '../../../src/config/load.ts';
import { presented, startExampleDomain, WEB } from '../../support/data-path.ts';
import { denyText } from '../../support/policy/deny-file.ts';
import { eventually } from '../../support/eventually.ts';
import { startScute, useScute } from '../../support/scute-process.ts';
import { closed, startEcho } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';

const configOf = (file: string, endpoint = 'unix:///nobody/there.sock', to = '127.0.0.1:1'): object => ({
  workloadApi: { endpoint },
  inbound: [{ name: 'in', listen: '127.0.0.1:0', to, allow: [WEB] }],
  metrics: { listen: '127.0.0.1:0' },
  revocations: { file },
});

async function pathOf(t: TestContext, text?: string): Promise<string> {
  const path = join(await temporaryFolder(t), 'revoked.yaml');
  if (text !== undefined) await writeFile(path, text);
  return path;
}

const STARTS: readonly [string, string | undefined, number, RegExp][] = [
  ['missing', undefined, 1, /revoked\.yaml: cannot be read: ENOENT/],
  ['wrong', 'ids:\n  - spiffe://example.org/web\n  - nobody\n...\n', 64, /revoked\.yaml:3:5: "nobody": a SPIFFE ID begins with/],
  ['cut off', 'ids:\n  - spiffe://example.org/web\n', 64, /revoked\.yaml:3:1: the line "\.\.\." is missing/],
];

for (const [how, text, code, problem] of STARTS) {
  test(`a list that is ${how} at the start: exit code ${code}, and nothing was started`, async (t) => {
    await using scute = await startScute({ config: configOf(await pathOf(t, text)) });

    const exit = await scute.exited;

    assert.equal(exit.code, code);
    assert.match(scute.child.stderr(), problem);
    assert.deepEqual(scute.log(), []);
  });

  test(`scute check says that a list is ${how}`, async (t) => {
    await using scute = await startScute({ args: ['check'], config: configOf(await pathOf(t, text)) });

    assert.equal((await scute.exited).code, 64);
    assert.match(scute.child.stderr(), problem);
  });
}

test('scute check says how many entries a good list has', async (t) => {
  const path = await pathOf(t, denyText({ ids: [WEB], serials: ['01@ab'] }));
  await using scute = await startScute({ args: ['check'], config: configOf(path) });

  assert.equal((await scute.exited).code, 0);
  assert.ok(scute.child.lines().includes(`deny list  ${path}: 2 entries`), scute.child.lines().join('\n'));
});

test('the program closes and refuses who comes onto the list, keeps to it when the file breaks or goes, and says so', async (t) => {
  const spiffe = await startExampleDomain(t);
  const application = await startEcho(t);
  const path = await pathOf(t, denyText({}));
  const scute = await useScute(t, { config: configOf(path, spiffe.endpoint('api'), application.address) });
  await scute.ready('in', 'metrics');
  const [address, port] = [await scute.address('in'), await scute.port('metrics')];
  const web = presented(await spiffe.issue(WEB));
  const get = async (what: string): Promise<string> => (await fetch(`http://127.0.0.1:${port}/${what}`)).text();
  const replace = async (text: string): Promise<void> => {
    await writeFile(`${path}.new`, text);
    await rename(`${path}.new`, path);
  };
  const isRefused = async (): Promise<void> => assert.equal((await outcome(tlsClient(t, address, web))).text, '');
  const open = tlsClient(t, address, web);
  open.write('!');
  await once(open, 'data');
  assert.match(await get('readyz?verbose'), /^\[\+\]revocations ok: 0 entries, read at 20\d\d-.*Z$/m);

  await replace(denyText({ ids: [WEB] }));
  await closed(open);
  await isRefused();
  const reloaded = await scute.logged(({ message }) => message === 'deny list reloaded');
  assert.deepEqual([reloaded['entries'], reloaded['added'], reloaded['removed'], reloaded['differences']], [1, 1, 0, [`+ ${WEB}`]]);

  await replace('ids:\n  - spiffe://example.org/other\n');
  const failed = await scute.logged(({ message }) => message === 'deny list not reloaded; the old one stays in force');
  assert.match(String(failed['problems']), /revoked\.yaml:3:1: the line "\.\.\." is missing/);
  await rm(path);
  await eventually(() => assert.equal(scute.log().filter(({ message }) => message === failed.message).length, 2));
  await isRefused();
  const ready = await get('readyz?verbose');
  assert.match(
    ready,
    /^\[!\]revocations warning: the deny list before is in force \(1 entries, read at 20\d\d-.*Z\): .*revoked\.yaml: cannot be read: ENOENT/m,
  );
  assert.match(ready, /^readyz check passed$/m);
  assert.match(await get('metrics'), /^scute_deny_list_reloads_total\{result="failed"\} 2$/m);
  assert.match(await get('metrics'), /^scute_ready\{check="revocations",blocks="false"\} 0$/m);

  await replace(denyText({}));
  await scute.logged(({ message, ...line }) => message === 'deny list reloaded' && line['removed'] === 1);
  const again = tlsClient(t, address, web);
  again.write('!');
  await once(again, 'data');
  again.destroy();
  assert.match(await get('readyz?verbose'), /^\[\+\]revocations ok: 0 entries, read at 20\d\d-.*Z$/m);
  scute.child.signal('SIGHUP');
  await scute.logged(({ message, ...line }) => message === 'deny list reloaded' && line['added'] === 0 && line['removed'] === 0);
});

test('an application whose configuration names a list is not made without one', async () => {
  const loaded = await parseConfig(JSON.stringify(configOf('/etc/scute/revoked.yaml')), { file: 'test.yaml', flags: {}, env: {} });
  assert.ok(loaded.ok);

  await assert.rejects(createApp(loaded.value, { version: '0' }), /the deny list is not that of the configuration/);
});
