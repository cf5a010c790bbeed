import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { startChild } from '../../support/child.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { needs, part } from '../parts.ts';
import {
  exchange,
  freePort,
  issueFiles,
  listen,
  type PemFiles,
  refusal,
  startEcho,
  startInbound,
  startOutbound,
  temporaryFolder,
} from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const OTHER = 'spiffe://example.org/other';

function startDomain(t: TestContext) {
  return startDevDomain(t, { name: 'example.org', intermediates: 1, workloads: { web: [WEB], api: [API], other: [OTHER] } });
}

interface EnvoyOptions {
  readonly to: string;
  readonly files: PemFiles;
  /** The SPIFFE ID that the other side must have. */
  readonly peer: string;
  /** Which side of Envoy is mTLS: towards whom it connects, or those who connect to it. */
  readonly mtls: 'upstream' | 'downstream';
}

interface RunningEnvoy {
  readonly port: number;
  /** The value of one of its counters. */
  counter(name: string): Promise<number>;
}

const socketAddress = (address: string): object => {
  const [host, port] = address.split(':');
  return { socket_address: { address: host, port_value: Number(port) } };
};

/** Envoy as a TCP proxy with static certificates: plain on one side, mTLS on the other. */
async function startEnvoy(t: TestContext, { to, files, peer, mtls }: EnvoyOptions): Promise<RunningEnvoy> {
  const [port, adminPort] = [await freePort(), await freePort()];
  const common = {
    tls_certificates: [{ certificate_chain: { filename: files.chain }, private_key: { filename: files.key } }],
    validation_context: {
      trusted_ca: { filename: files.authorities },
      match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: peer } }],
    },
  };
  const transport = (side: 'Upstream' | 'Downstream'): object => ({
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': `type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.${side}TlsContext`,
      common_tls_context: common,
      ...(side === 'Downstream' ? { require_client_certificate: true } : {}),
    },
  });
  const bootstrap = {
    admin: { address: socketAddress(`127.0.0.1:${adminPort}`) },
    static_resources: {
      listeners: [
        {
          name: 'in',
          address: socketAddress(`127.0.0.1:${port}`),
          filter_chains: [
            {
              filters: [
                {
                  name: 'envoy.filters.network.tcp_proxy',
                  typed_config: {
                    '@type': 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
                    stat_prefix: 'tcp',
                    cluster: 'out',
                  },
                },
              ],
              ...(mtls === 'downstream' ? { transport_socket: transport('Downstream') } : {}),
            },
          ],
        },
      ],
      clusters: [
        {
          name: 'out',
          type: 'STATIC',
          connect_timeout: '5s',
          load_assignment: { cluster_name: 'out', endpoints: [{ lb_endpoints: [{ endpoint: { address: socketAddress(to) } }] }] },
          ...(mtls === 'upstream' ? { transport_socket: transport('Upstream') } : {}),
        },
      ],
    },
  };
  const file = join(await temporaryFolder(t), 'envoy.json');
  await writeFile(file, JSON.stringify(bootstrap));
  const argv = ['-c', file, '--concurrency', '1', '--use-dynamic-base-id', '--log-level', 'warning'] as const;
  const envoy = await startChild([part('envoy'), ...argv]);
  t.after(() => envoy.stop({ withinMs: 3000 }).then(() => undefined));
  const ask = async (path: string): Promise<string> => {
    const response = await fetch(`http://127.0.0.1:${adminPort}${path}`);
    assert.equal(response.status, 200);
    return response.text();
  };
  const ended = envoy.exited.then(({ code }) => {
    throw new Error(`envoy ended with ${code}\n${envoy.stderr().slice(-3000)}`);
  });
  ended.catch(() => undefined);
  await Promise.race([ended, eventually(() => ask('/ready'))]);
  return {
    port,
    async counter(name) {
      const stats = await ask(`/stats?filter=^${name.replaceAll('.', '\\.')}$&usedonly`);
      return Number(/: (\d+)$/m.exec(stats)?.[1] ?? 0);
    },
  };
}

test('Envoy as an mTLS client reaches the application', needs('envoy'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });
  const envoy = await startEnvoy(t, { to: address, files: await issueFiles(t, spiffe, WEB), peer: API, mtls: 'upstream' });

  const reply = await exchange(envoy.port, 'hello');

  assert.equal(reply, 'HELLO');
});

test('Envoy carries HTTP to a web application behind Scute', needs('envoy'), async (t) => {
  const spiffe = await startDomain(t);
  const to = await listen(
    t,
    createHttpServer((request, response) => response.end(`served ${request.url}`)),
  );
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to, allow: [WEB] });
  const envoy = await startEnvoy(t, { to: address, files: await issueFiles(t, spiffe, WEB), peer: API, mtls: 'upstream' });

  const response = await fetch(`http://127.0.0.1:${envoy.port}/hello`, { headers: { connection: 'close' } });

  assert.equal(await response.text(), 'served /hello');
});

test('Envoy with another SPIFFE ID is refused, and the application sees nothing', needs('envoy'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { scute, address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });
  const envoy = await startEnvoy(t, { to: address, files: await issueFiles(t, spiffe, OTHER), peer: API, mtls: 'upstream' });

  const reply = await exchange(envoy.port, 'hello');

  assert.equal(reply, '');
  await refusal(scute, 'not_allowed');
  assert.equal(echo.connections(), 0);
});

test('Envoy that expects another SPIFFE ID refuses Scute', needs('envoy'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });
  const envoy = await startEnvoy(t, { to: address, files: await issueFiles(t, spiffe, WEB), peer: OTHER, mtls: 'upstream' });

  const reply = await exchange(envoy.port, 'hello');

  assert.equal(reply, '');
  assert.equal(echo.connections(), 0);
  await eventually(async () => assert.ok((await envoy.counter('cluster.out.ssl.fail_verify_san')) > 0));
});

test('an application reaches a server behind Envoy', needs('envoy'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const envoy = await startEnvoy(t, { to: echo.address, files: await issueFiles(t, spiffe, API), peer: WEB, mtls: 'downstream' });
  const { port } = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to: `127.0.0.1:${envoy.port}`, expect: [API] });

  const reply = await exchange(port, 'hello');

  assert.equal(reply, 'HELLO');
});

test('an application reaches nothing when Envoy has another SPIFFE ID', needs('envoy'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const envoy = await startEnvoy(t, { to: echo.address, files: await issueFiles(t, spiffe, OTHER), peer: WEB, mtls: 'downstream' });
  const { scute, port } = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to: `127.0.0.1:${envoy.port}`, expect: [API] });

  const reply = await exchange(port, 'secret');

  assert.equal(reply, '');
  await refusal(scute, 'not_allowed');
});

test('Envoy refuses Scute when it admits another SPIFFE ID alone', needs('envoy'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const envoy = await startEnvoy(t, { to: echo.address, files: await issueFiles(t, spiffe, API), peer: OTHER, mtls: 'downstream' });
  const { port } = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to: `127.0.0.1:${envoy.port}`, expect: [API] });

  const reply = await exchange(port, 'hello');

  assert.equal(reply, '');
  // Its TCP proxy connects to the application before the handshake is over, but sends nothing.
  await eventually(async () => assert.ok((await envoy.counter(`listener.127.0.0.1_${envoy.port}.ssl.fail_verify_san`)) > 0));
});
