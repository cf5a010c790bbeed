// ghostunnel: client-/server-listen-port-conflict, client-/server-status-port-conflict
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startExampleDomain, WEB } from '../../support/data-path.ts';
import { startScute } from '../../support/scute-process.ts';
import { closed, dialling, freePort, startEcho } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

for (const taken of ['inbound', 'outbound', 'metrics', 'admin'] as const) {
  test(`if the address of ${taken} is taken, Scute ends with exit code 1 and says which, and nothing stays bound`, async (t) => {
    const spiffe = await startExampleDomain(t);
    const other = await startEcho(t);
    const free = { inbound: await freePort(), outbound: await freePort(), metrics: await freePort(), admin: await freePort() };
    const address = (name: keyof typeof free): string => (name === taken ? other.address : `127.0.0.1:${free[name]}`);

    const scute = await startScute({
      config: {
        workloadApi: { endpoint: spiffe.endpoint('api') },
        inbound: [{ listen: address('inbound'), to: '127.0.0.1:1', allow: [WEB] }],
        outbound: [{ listen: address('outbound'), to: '127.0.0.1:1', expect: [WEB] }],
        metrics: { listen: address('metrics') },
        admin: { listen: address('admin') },
      },
    });
    const exit = await scute.exited;

    assert.deepEqual(exit, { code: 1, signal: null });
    assert.match(scute.child.stderr(), new RegExp(RegExp.escape(other.address)));
    for (const [name, port] of Object.entries(free)) {
      if (name !== taken) assert.equal(await closed(dialling(t, `127.0.0.1:${port}`)), 'ECONNREFUSED', name);
    }
  });
}

test('if a Unix socket is in use by another process, Scute ends with exit code 1 and leaves it alone', async (t) => {
  const folder = await temporaryFolder(t);
  const spiffe = await startExampleDomain(t);
  const config = (path: string): object => ({
    workloadApi: { endpoint: spiffe.endpoint('web') },
    outbound: [{ name: 'out', listen: `unix://${path}`, to: '127.0.0.1:1', expect: [WEB] }],
  });
  const first = await startScute({ config: config(`${folder}/out.sock`) });
  t.after(() => first.stop());
  await first.ready('out');

  const second = await startScute({ config: config(`${folder}/out.sock`) });

  assert.deepEqual(await second.exited, { code: 1, signal: null });
  assert.match(second.child.stderr(), /another process listens there/);
  const caller = dialling(t, `unix://${folder}/out.sock`);
  await new Promise((resolve) => caller.once('connect', resolve));
});
