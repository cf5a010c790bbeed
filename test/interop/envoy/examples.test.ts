import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSds } from '../../support/sds.ts';
import { heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';
import { exampleBootstrap, examplesFolder, startEnvoyProcess } from './process.ts';
import { startInboundEnvoy, visit } from './stage.ts';
import { needs } from '../parts.ts';
import { exchange, freePort } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const own = createTestAuthority({ trustDomain: 'example.org' });

/** The socket of an SDS server that holds `id`. */
async function sdsSocket(t: TestContext, id: string): Promise<string> {
  const sds = await startSds(t);
  sds.publish(heldSnapshot([svidOf(own, id)], [own]));
  return sds.path;
}

const examples = await readdir(examplesFolder);

test('the guide leads to every example', async () => {
  const readme = await readFile(join(examplesFolder, '../../docs/guides/envoy.md'), 'utf8');

  assert.ok(examples.length >= 5);
  for (const example of examples) assert.ok(readme.includes(`](../../configs/envoy/${example})`), example);
});

for (const example of examples) {
  test(`${example} is taken by Envoy as it stands, but for its addresses, and serves`, needs('envoy'), async (t) => {
    const isOutbound = (await readFile(join(examplesFolder, example), 'utf8')).includes('port_value: 9001');
    // What is no outbound one and has no inbound listener either fails here: there is nothing to replace.
    const server = await startInboundEnvoy(t, { socket: await sdsSocket(t, API) }, isOutbound ? 'inbound.yaml' : example);
    assert.equal((await visit(server.port, own.issue({ id: WEB }))).reply, 'HELLO');
    assert.equal(await server.envoy.stat(/update_rejected/), 0);
    if (!isOutbound) return;

    const port = await freePort();
    const replace = {
      'port_value: 9001': `port_value: ${port}`,
      'port_value: 8443': `port_value: ${server.port}`,
      '/run/scute/sds.sock': await sdsSocket(t, WEB),
    };
    const client = await startEnvoyProcess(t, await exampleBootstrap(example, replace));
    assert.equal(await exchange(port, 'hello'), 'HELLO');
    assert.equal(await client.stat(/update_rejected/), 0);
  });
}
