/** Clients that we did not write, over both versions of HTTP, before an application that speaks HTTP/1.1 alone. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { createServer, request as plainRequest, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { runChild, startChild } from '../../support/child.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { needs, part, type PartName } from '../parts.ts';
import { runGo, runPython } from '../peers.ts';
import { freePort, issueFiles, listen, startInbound, temporaryFolder, type RunningSide } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const OTHER = 'spiffe://example.org/other';
const NAME = 'api.example';
const SIZE = 300_000;
const BODY = Buffer.alloc(SIZE, 'x');

type Version = 'http1' | 'h2';
const VERSIONS: readonly Version[] = ['http1', 'h2'];
/** As Scute logs it. */
const ALPN = { http1: 'http/1.1', h2: 'h2' } as const;

interface Answer {
  readonly status: number;
  readonly body: string;
}

interface Stage {
  readonly spiffe: DevDomain;
  readonly side: RunningSide;
}

interface Peer {
  readonly part: PartName;
  /** What it asks for, in this order. */
  readonly steps: readonly string[];
  /** Asks `count` of them with the SVID of this workload, and gives the answers. */
  ask(t: TestContext, stage: Stage, version: Version, workload: 'web' | 'other', count: number): Promise<readonly Answer[]>;
}

const STEPS = ['GET /get?x=1', 'POST /length', 'PUT /chunks', 'HEAD /head', 'DELETE /204', 'GET /404'];
const WITH_CONTINUE = STEPS.toSpliced(3, 0, 'PUT /continue');

const PEERS: Readonly<Record<string, Peer>> = {
  curl: {
    part: 'curl',
    steps: WITH_CONTINUE,
    async ask(t, { spiffe, side }, version, workload, count) {
      const files = await issueFiles(t, spiffe, workload === 'web' ? WEB : OTHER);
      const folder = await temporaryFolder(t);
      const body = join(folder, 'body');
      await writeFile(body, BODY);
      const common = ['--silent', '--show-error', '--max-time', '20', version === 'h2' ? '--http2' : '--http1.1'];
      const identity = ['--cert', files.chain, '--key', files.key, '--cacert', files.authorities];
      const where = ['--connect-to', `${NAME}:443:127.0.0.1:${side.port}`];
      const steps = WITH_CONTINUE.slice(0, count);
      const transfers = steps.map((step) => {
        const [method = '', path = ''] = step.split(' ');
        const sends = {
          '/length': ['--data-binary', `@${body}`, '-H', 'Expect:'],
          '/continue': ['-T', body, '-H', 'Expect: 100-continue'],
          // Standard input has no length.
          '/chunks': ['-T', '-'],
        }[path] ?? [method === 'HEAD' ? '--head' : '-X', ...(method === 'HEAD' ? [] : [method])];
        return [...common, ...identity, ...where, ...sends, '--write-out', '\n%{http_code} %{http_version}\n', `https://${NAME}${path}`];
      });
      const argv = transfers.flatMap((transfer, index) => (index === 0 ? transfer : ['--next', ...transfer]));
      const { stdout, stderr } = await runChild([part('curl'), ...argv], { env: {}, input: BODY });
      const answers = [...stdout.matchAll(/([\s\S]*?)\n(\d{3}) (1\.1|2)\n/g)].map(([, text = '', status, spoken]) => {
        assert.equal(spoken, version === 'h2' ? '2' : '1.1');
        return { status: Number(status), body: text };
      });
      assert.equal(answers.length, steps.length, stderr);
      // It prints the head of a response to HEAD.
      return answers.map((answer, index) => (steps[index]?.startsWith('HEAD') === true ? { ...answer, body: '' } : answer));
    },
  },
  "Go's net/http": {
    part: 'go-spiffe',
    steps: WITH_CONTINUE,
    async ask(_, { spiffe, side }, version, workload, count) {
      const flags = ['-socket', spiffe.endpoint(workload), '-address', side.address, '-peer', API, '-protocol', version];
      return told(
        await runGo('browse', ...flags, '-size', String(SIZE), '-count', String(count)),
        version === 'h2' ? 'HTTP/2.0' : 'HTTP/1.1',
      );
    },
  },
  httpx: {
    part: 'python',
    steps: STEPS,
    async ask(t, { spiffe, side }, version, workload, count) {
      const files = await issueFiles(t, spiffe, workload === 'web' ? WEB : OTHER);
      const identity = [files.chain, files.key, files.authorities];
      const said = await runPython('http_peer', side.address, NAME, ...identity, version, String(SIZE), String(count));
      return told(said, version === 'h2' ? 'HTTP/2' : 'HTTP/1.1');
    },
  },
  Envoy: {
    part: 'envoy',
    steps: STEPS,
    async ask(t, { spiffe, side }, version, workload, count) {
      const files = await issueFiles(t, spiffe, workload === 'web' ? WEB : OTHER);
      const port = await startEnvoy(t, side, files, version);
      const answers: Answer[] = [];
      for (const step of STEPS.slice(0, count)) {
        const [method, path] = step.split(' ');
        const length = path === '/length' ? { 'content-length': SIZE } : {};
        const asked = plainRequest({ host: '127.0.0.1', port, method, path, headers: { host: NAME, ...length } });
        asked.end(path === '/length' || path === '/chunks' ? BODY : undefined);
        const [response] = (await once(asked, 'response')) as [IncomingMessage];
        let body = '';
        for await (const text of response.setEncoding('latin1')) body += String(text);
        answers.push({ status: response.statusCode ?? 0, body });
      }
      return answers;
    },
  },
};

function told(said: Readonly<Record<string, unknown>>, version: string): readonly Answer[] {
  const answers = said['answers'] as readonly (Answer & { readonly version: string })[] | undefined;
  assert.ok(answers !== undefined, JSON.stringify(said));
  return answers.map(({ version: spoken, ...answer }) => {
    assert.equal(spoken, version);
    return answer;
  });
}

/** Envoy for an application: HTTP/1.1 in plain text on one side, an mTLS client with an SVID in files on the other. */
async function startEnvoy(
  t: TestContext,
  side: RunningSide,
  files: { readonly chain: string; readonly key: string; readonly authorities: string },
  version: Version,
): Promise<number> {
  const [port, adminPort] = [await freePort(), await freePort()];
  const at = (number: number): object => ({ socket_address: { address: '127.0.0.1', port_value: number } });
  const type = (name: string): { readonly '@type': string } => ({ '@type': `type.googleapis.com/envoy.extensions.${name}` });
  const bootstrap = {
    admin: { address: at(adminPort) },
    static_resources: {
      listeners: [
        {
          name: 'in',
          address: at(port),
          filter_chains: [
            {
              filters: [
                {
                  name: 'http',
                  typed_config: {
                    ...type('filters.network.http_connection_manager.v3.HttpConnectionManager'),
                    stat_prefix: 'in',
                    route_config: {
                      virtual_hosts: [{ name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: 'out' } }] }],
                    },
                    http_filters: [{ name: 'router', typed_config: type('filters.http.router.v3.Router') }],
                  },
                },
              ],
            },
          ],
        },
      ],
      clusters: [
        {
          name: 'out',
          type: 'STATIC',
          connect_timeout: '5s',
          load_assignment: { cluster_name: 'out', endpoints: [{ lb_endpoints: [{ endpoint: { address: at(side.port) } }] }] },
          typed_extension_protocol_options: {
            'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
              ...type('upstreams.http.v3.HttpProtocolOptions'),
              explicit_http_config: version === 'h2' ? { http2_protocol_options: {} } : { http_protocol_options: {} },
            },
          },
          transport_socket: {
            name: 'tls',
            typed_config: {
              ...type('transport_sockets.tls.v3.UpstreamTlsContext'),
              sni: NAME,
              common_tls_context: {
                alpn_protocols: [ALPN[version]],
                tls_certificates: [{ certificate_chain: { filename: files.chain }, private_key: { filename: files.key } }],
                validation_context: {
                  trusted_ca: { filename: files.authorities },
                  match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: API } }],
                },
              },
            },
          },
        },
      ],
    },
  };
  const file = join(await temporaryFolder(t), 'envoy.json');
  await writeFile(file, JSON.stringify(bootstrap));
  const envoy = await startChild([part('envoy'), '-c', file, '--concurrency', '1', '--use-dynamic-base-id', '--log-level', 'warning']);
  t.after(() => envoy.stop({ withinMs: 3000 }).then(() => undefined));
  const ended = envoy.exited.then(({ code }) => {
    throw new Error(`envoy ended with ${code}\n${envoy.stderr().slice(-3000)}`);
  });
  ended.catch(() => undefined);
  const isReady = async (): Promise<void> => assert.equal((await fetch(`http://127.0.0.1:${adminPort}/ready`)).status, 200);
  await Promise.race([ended, eventually(isReady)]);
  return port;
}

interface SeenRequest {
  readonly method: string;
  readonly target: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly caller: unknown;
}

async function startStage(t: TestContext): Promise<Stage & { readonly seen: readonly SeenRequest[] }> {
  const spiffe = await startDevDomain(t, {
    name: 'example.org',
    intermediates: 1,
    workloads: { api: [{ id: API, dnsNames: [NAME] }], web: [WEB], other: [OTHER] },
  });
  const seen: SeenRequest[] = [];
  const to = await listen(
    t,
    createServer((request, response) => {
      const { method = '', url: target = '', headers } = request;
      const hash = createHash('sha256');
      let bytes = 0;
      request.on('data', (chunk: Buffer) => {
        hash.update(chunk);
        bytes += chunk.length;
      });
      request.on('end', () => {
        seen.push({ method, target, bytes, sha256: hash.digest('hex'), caller: headers['x-peer'] });
        const status = Number(/^\/(\d{3})$/.exec(target)?.[1] ?? 200);
        response.writeHead(status, { 'content-type': 'text/plain' }).end(status === 204 ? undefined : `${method} ${target} ${bytes}`);
      });
    }),
  );
  const side = await startInbound(t, {
    endpoint: spiffe.endpoint('api'),
    to,
    allow: [WEB],
    alpn: ['h2', 'http/1.1'],
    listener: { protocol: 'http', http: { spiffeIdHeader: 'X-Peer' } },
  });
  return { spiffe, side, seen };
}

const EMPTY = createHash('sha256').digest('hex');
const WHOLE = createHash('sha256').update(BODY).digest('hex');

for (const [name, peer] of Object.entries(PEERS)) {
  for (const version of VERSIONS) {
    test(`${name} over ${ALPN[version]} is served if it is allowed, and else told that it is not`, needs(peer.part), async (t) => {
      const stage = await startStage(t);
      const { side, seen } = stage;

      const refused = await peer.ask(t, stage, version, 'other', 1);
      assert.deepEqual(refused, [{ status: 403, body: `scute: not_allowed: ${OTHER} may not do this\n` }]);
      assert.deepEqual(seen, []);

      const answers = await peer.ask(t, stage, version, 'web', peer.steps.length);
      const asked = peer.steps.map((step) => {
        const [method = '', target = ''] = step.split(' ');
        return { method, target, bytes: /length|chunks|continue/.test(target) ? SIZE : 0 };
      });
      assert.deepEqual(
        seen,
        asked.map((each) => ({ ...each, sha256: each.bytes === 0 ? EMPTY : WHOLE, caller: WEB })),
      );
      assert.deepEqual(
        answers,
        asked.map(({ method, target, bytes }) => ({
          status: Number(/\d{3}$/.exec(target)?.[0] ?? 200),
          body: method === 'HEAD' || target === '/204' ? '' : `${method} ${target} ${bytes}`,
        })),
      );
      await side.scute.logged(({ message, path }) => message === 'request finished' && path === '/404');
      const results = side.scute.log().flatMap(({ message, result }) => (message === 'request finished' ? [result] : []));
      assert.deepEqual(results, ['denied', ...asked.map(() => 'forwarded')]);
      const { alpn } = await side.scute.logged(({ message, verdict }) => message === 'connection closed' && verdict === 'deny');
      assert.equal(alpn ?? 'http/1.1', ALPN[version]);
    });
  }
}
