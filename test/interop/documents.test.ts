import assert from 'node:assert/strict';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { parse } from 'yaml';
import { runChild } from '../support/child.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { codeBlocks, DOCUMENTS } from '../support/documents.ts';
import { useScute } from '../support/scute-process.ts';
import { needs, part } from './parts.ts';
import { issueFiles, startEcho, startInbound, temporaryFolder } from './stage.ts';

const root = join(import.meta.dirname, '../..');

test('Envoy accepts what the guide shows of SDS', needs('envoy'), async (t) => {
  const [block] = codeBlocks('docs/guides/envoy.md').filter(({ info }) => info === 'yaml envoy-sds');
  assert.ok(block !== undefined);
  const listener = {
    name: 'api',
    address: { socket_address: { address: '127.0.0.1', port_value: 0 } },
    filter_chains: [{ filters: [], ...(parse(block.text) as object) }],
  };
  const options = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
  const cluster = {
    name: 'scute',
    type: 'STATIC',
    load_assignment: { cluster_name: 'scute' },
    typed_extension_protocol_options: {
      [options]: { '@type': `type.googleapis.com/${options}`, explicit_http_config: { http2_protocol_options: {} } },
    },
  };
  const file = join(await temporaryFolder(t), 'envoy.json');
  await writeFile(
    file,
    JSON.stringify({ node: { id: 'a', cluster: 'a' }, static_resources: { listeners: [listener], clusters: [cluster] } }),
  );

  const { code, stderr } = await runChild([part('envoy'), '--mode', 'validate', '-c', file, '--use-dynamic-base-id']);

  assert.equal(code, 0, stderr);
});

test('Envoy accepts the configuration that the guide shows for it', needs('envoy'), async (t) => {
  const web = 'spiffe://example.org/web';
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [web] } });
  const files = await issueFiles(t, spiffe, web);
  const [block] = codeBlocks('docs/guides/envoy.md').filter(({ info }) => info === 'yaml envoy');
  assert.ok(block !== undefined);
  const shown = block.text
    .replace('/run/svid/web.pem', files.chain)
    .replace('/run/svid/web.key', files.key)
    .replace('/run/svid/example.org.pem', files.authorities);
  const cluster = { name: 'api', type: 'STATIC', connect_timeout: '1s', load_assignment: { cluster_name: 'api' } };
  const file = join(await temporaryFolder(t), 'envoy.json');
  await writeFile(file, JSON.stringify({ static_resources: { clusters: [{ ...cluster, ...(parse(shown) as object) }] } }));

  const { code, stderr } = await runChild([part('envoy'), '--mode', 'validate', '-c', file, '--use-dynamic-base-id']);

  assert.equal(code, 0, stderr);
});

interface Machine {
  /** Runs a block, in the folder of the configuration. It must end with exit code 0. */
  run(script: string): Promise<void>;
}

/** What the commands of the documents take for granted: an agent, a Scute that runs, a server that it may talk to, and their names. */
async function startMachine(t: TestContext): Promise<Machine> {
  const id = (name: string): string => `spiffe://example.org/${name}`;
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { scute: [id('api'), id('web')], db: [id('db')] } });
  const application = await startEcho(t);
  const folder = await temporaryFolder(t);
  const [bin, run] = [join(folder, 'bin'), join(folder, 'run')];
  for (const each of [bin, run]) await mkdir(each);
  const programs = {
    scute: `exec "${process.execPath}" --disable-sigusr1 "${join(root, 'src/main.ts')}" "$@"`,
    sudo: '[ "$1" = -u ] && shift 2 && exec "$@"',
    application: 'exit 0',
    job: 'exit 0',
  };
  for (const [name, script] of Object.entries(programs)) {
    const path = join(['scute', 'sudo'].includes(name) ? bin : folder, name);
    await writeFile(path, `#!/bin/sh\n${script}\n`);
    await chmod(path, 0o755);
  }
  const database = await startInbound(t, { endpoint: spiffe.endpoint('db'), to: application.address, allow: [id('api'), id('web')] });
  const configFile = join(folder, 'scute.yaml');
  const config = {
    workloadApi: { endpoint: spiffe.endpoint('scute') },
    inbound: [{ name: 'api', listen: '127.0.0.1:0', to: application.address, allow: [id('web')] }],
    outbound: [{ name: 'database', listen: `unix://${run}/database.sock`, to: database.address, expect: [id('db')] }],
    admin: { listen: `unix://${run}/admin.sock` },
    sds: { listen: `unix://${run}/sds.sock` },
  };
  await writeFile(configFile, JSON.stringify(config));
  await writeFile(join(folder, 'svid.pem'), (await spiffe.issue(id('web'))).chainPem);
  const scute = await useScute(t, { args: ['run', '-c', configFile] });
  await scute.ready('api', 'database');

  const agent = spiffe.endpoint('scute').replace('unix://', '');
  const there: readonly (readonly [shown: string, here: string])[] = [
    ['/run/spire/agent.sock', agent],
    ['/tmp/spire-agent/public/api.sock', agent],
    ['/run/scute/', `${run}/`],
    ['/etc/scute/', `${folder}/`],
    ['db.internal:5432', database.address],
  ];
  const env = { PATH: `${bin}:${dirname(process.execPath)}:/usr/bin:/bin`, HOME: folder, SPIFFE_ENDPOINT_SOCKET: spiffe.endpoint('scute') };
  return {
    async run(script) {
      const here = there.reduce((text, [shown, name]) => text.replaceAll(shown, name), script);
      const { code, stdout, stderr } = await runChild(['/bin/sh', '-e', '-u', '-x', '-c', here], { env, cwd: folder });
      assert.equal(code, 0, stdout + stderr);
    },
  };
}

for (const document of DOCUMENTS) {
  const blocks = codeBlocks(document).filter(({ info }) => info === 'sh beside');
  if (blocks.length === 0) continue;
  test(`the commands of ${document} for a Scute that runs work`, async (t) => {
    // Some of them end it.
    for (const { text } of blocks) await (await startMachine(t)).run(text);
  });
}
