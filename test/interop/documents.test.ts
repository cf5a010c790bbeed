import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { runChild } from '../support/child.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { codeBlocks } from '../support/documents.ts';
import { needs, part } from './parts.ts';
import { issueFiles, temporaryFolder } from './stage.ts';

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
