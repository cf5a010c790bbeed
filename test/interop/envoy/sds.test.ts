import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { startDevDomain, type TestTrustDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { startScute, useScute, type ScuteProcess } from '../../support/scute-process.ts';
import { exampleBootstrap, startEnvoyProcess } from './process.ts';
import { NO_MATCHERS, startInboundEnvoy, visit } from './stage.ts';
import { needs } from '../parts.ts';
import { exchange, freePort, temporaryFolder } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const OTHER = 'spiffe://example.org/other';
const PARTNER = 'spiffe://partner.example/batch';

const DOMAIN: TestTrustDomain = { name: 'example.org', intermediates: 1, workloads: { web: [WEB], api: [API], none: [] } };

function scuteConfig(spiffe: DevDomain, workload: string, socket: string, sds: object = {}): object {
  return { workloadApi: { endpoint: spiffe.endpoint(workload) }, sds: { listen: `unix://${socket}`, ...sds }, log: { level: 'debug' } };
}

interface Stage {
  readonly spiffe: DevDomain;
  readonly scute: ScuteProcess;
  readonly socket: string;
  readonly folder: string;
}

async function stage(t: TestContext, workload: string, sds: object = {}, ...domains: readonly TestTrustDomain[]): Promise<Stage> {
  const spiffe = await startDevDomain(t, ...(domains.length === 0 ? [DOMAIN] : domains));
  const folder = await temporaryFolder(t);
  const socket = join(folder, 'sds.sock');
  const scute = await useScute(t, { config: scuteConfig(spiffe, workload, socket, sds) });
  await scute.address('sds');
  return { spiffe, scute, socket, folder };
}

/** Serial number of the SVID that a workload holds now. */
function newestSerial(spiffe: DevDomain, workload: string): string {
  const answer = spiffe.answers(workload).x509Svids.get();
  assert.ok(answer?.kind === 'message');
  return new X509Certificate(answer.message.svids[0]?.x509Svid ?? '').serialNumber;
}

for (const [example, variant] of [
  ['inbound.yaml', 'state of the world'],
  ['delta.yaml', 'delta'],
] as const) {
  test(`Envoy serves mTLS with secrets from Scute, ${variant}: the allowed peer gets in, others do not`, needs('envoy'), async (t) => {
    const { spiffe, scute, socket } = await stage(t, 'api');
    const { envoy, port } = await startInboundEnvoy(t, { socket }, example);

    assert.equal((await visit(port, await spiffe.issue(WEB))).reply, 'HELLO');
    assert.equal((await visit(port, await spiffe.issue(OTHER))).reply, '');
    assert.equal((await visit(port, undefined)).reply, '');
    assert.equal(await envoy.stat(/update_rejected/), 0);
    assert.ok((await envoy.stat(/^sds\..*update_success$/)) + (await envoy.stat(/\.sds\..*update_success$/)) >= 2);
    await scute.logged((line) => line.message === 'secret accepted' && line['name'] === 'ROOTCA' && line['node'] === 'api');
  });
}

for (const keyType of ['ec-p384', 'rsa-2048', 'ed25519'] as const) {
  test(`Envoy takes and presents an SVID with a key of the kind ${keyType}`, needs('envoy'), async (t) => {
    const { spiffe, scute, socket } = await stage(t, 'api', {}, { ...DOMAIN, keyType });
    const { envoy, port } = await startInboundEnvoy(t, { socket }, 'inbound.yaml');

    const { certificate } = await visit(port, undefined);

    assert.equal(certificate?.serialNumber, newestSerial(spiffe, 'api'));
    assert.equal(await envoy.stat(/update_rejected/), 0);
    for (const name of ['default', 'ROOTCA']) await scute.logged((line) => line.message === 'secret accepted' && line['name'] === name);
  });
}

for (const disableSpiffeCertValidation of [false, true]) {
  const form = disableSpiffeCertValidation ? 'plain authorities' : 'the SPIFFE validator';

  test(`a revoked peer is refused by Envoy, with ${form}`, needs('envoy'), async (t) => {
    const sds = { crls: true, disableSpiffeCertValidation };
    const { spiffe, socket } = await stage(t, 'api', sds, { ...DOMAIN, intermediates: 0 });
    const [good, bad] = [await spiffe.issue(WEB), await spiffe.issue(WEB)];
    await spiffe.revoke('example.org', Buffer.from(new X509Certificate(bad.certPem).serialNumber, 'hex'));
    const { envoy, port } = await startInboundEnvoy(t, { socket }, 'inbound.yaml');

    assert.equal((await visit(port, good)).reply, 'HELLO');
    assert.equal((await visit(port, bad)).reply, '');
    assert.equal(await envoy.stat(/update_rejected/), 0);
  });
}

test('Envoy connects out with secrets from Scute, and insists on who the server is', needs('envoy'), async (t) => {
  const { spiffe, socket } = await stage(t, 'web');
  const other = join(await temporaryFolder(t), 'api.sock');
  const server = await useScute(t, { config: scuteConfig(spiffe, 'api', other) });
  await server.address('sds');
  const { port: inbound } = await startInboundEnvoy(t, { socket: other }, 'inbound.yaml');
  const connectOut = async (expected: string): Promise<string> => {
    const port = await freePort();
    const bootstrap = await exampleBootstrap('outbound.yaml', {
      'port_value: 9001': `port_value: ${port}`,
      'port_value: 8443': `port_value: ${inbound}`,
      '/run/scute/sds.sock': socket,
      'spiffe://example.org/api': expected,
    });
    const envoy = await startEnvoyProcess(t, bootstrap);
    const reply = await exchange(port, 'hello');
    assert.equal(await envoy.stat(/update_rejected/), 0);
    return reply;
  };

  assert.equal(await connectOut(API), 'HELLO');
  assert.equal(await connectOut(OTHER), '');
});

test('Scute restarted under load: Envoy goes on, and then has the newest certificate', needs('envoy'), async (t) => {
  const spiffe = await startDevDomain(t, DOMAIN);
  const socket = join(await temporaryFolder(t), 'sds.sock');
  const config = scuteConfig(spiffe, 'api', socket);
  const first = await startScute({ config });
  t.after(() => first.stop());
  await first.address('sds');
  const { envoy, port } = await startInboundEnvoy(t, { socket }, 'inbound.yaml');
  const web = await spiffe.issue(WEB);
  const isOver = new AbortController();
  const replies: string[] = [];
  const load = (async () => {
    while (!isOver.signal.aborted) replies.push((await visit(port, web)).reply);
  })();

  assert.equal((await first.stop()).code, 0);
  await spiffe.rotate();
  const second = await useScute(t, { config });
  await second.address('sds');
  const newest = newestSerial(spiffe, 'api');
  await eventually(async () => assert.equal((await visit(port, web)).certificate?.serialNumber, newest));
  isOver.abort();
  await load;

  assert.ok(replies.length > 3);
  assert.deepEqual(new Set(replies), new Set(['HELLO']));
  assert.equal(await envoy.stat(/update_rejected/), 0);
});

test('an Envoy as Istio sets it up: names that are not there hold up nothing but what needs them', needs('envoy'), async (t) => {
  const { spiffe, scute, socket } = await stage(t, 'api');
  const { envoy, port } = await startInboundEnvoy(t, { socket }, 'istio.yaml');

  assert.equal((await visit(port, await spiffe.issue(WEB))).reply, 'HELLO');
  await scute.logged(
    (line) => line.message === 'a secret that is asked for is not there' && line['name'] === 'file-root:/etc/istio/root-cert.pem',
  );
  assert.equal(await envoy.stat(/update_failure|update_rejected/), 0, 'no stream was ended');
  assert.equal(scute.log().filter((line) => line.message === 'a secret that is asked for is not there').length, 1);
});

test('an identity that appears later ends the warming', needs('envoy'), async (t) => {
  const { spiffe, scute, socket } = await stage(t, 'api');
  await scute.logged((line) => line.message === 'identity updated');
  await spiffe.withdraw('api');
  await scute.logged((line) => line.message === 'identity withdrawn');
  const { envoy, port } = await startInboundEnvoy(t, { socket }, 'inbound.yaml', { ready: false });
  await scute.logged((line) => line.message === 'a secret that is asked for is not there');
  assert.match(await envoy.admin('/ready'), /INITIALIZING/);

  await spiffe.restore('api');

  await eventually(async () => assert.match(await envoy.admin('/ready'), /LIVE/));
  assert.equal((await visit(port, await spiffe.issue(WEB))).reply, 'HELLO');
});

test(
  'an identity that appears later is taken by Envoy over delta as well, though that was told at first that there is none',
  needs('envoy'),
  async (t) => {
    const { spiffe, scute, socket } = await stage(t, 'api');
    await scute.logged((line) => line.message === 'identity updated');
    await spiffe.withdraw('api');
    await scute.logged((line) => line.message === 'identity withdrawn');
    const { envoy, port } = await startInboundEnvoy(t, { socket }, 'delta.yaml', { ready: false });
    await scute.logged((line) => line.message === 'a secret that is asked for is not there');
    assert.equal((await visit(port, await spiffe.issue(WEB))).reply, '');

    await spiffe.restore('api');

    await eventually(async () => assert.equal((await visit(port, await spiffe.issue(WEB))).reply, 'HELLO'));
    assert.equal(await envoy.stat(/update_rejected/), 0);
  },
);

test('ALL: a federated peer gets in; one whose SPIFFE ID another domain signed does not', needs('envoy'), async (t) => {
  const { spiffe, socket } = await stage(
    t,
    'api',
    {},
    { ...DOMAIN, federatesWith: ['partner.example', 'ed25519.example'] },
    { name: 'ed25519.example', keyType: 'ed25519' },
    { name: 'partner.example', federatesWith: ['example.org'], workloads: { batch: [PARTNER] } },
  );
  const { envoy, port } = await startInboundEnvoy(t, { socket }, 'federation.yaml');

  assert.equal((await visit(port, await spiffe.issue(PARTNER))).reply, 'HELLO');
  assert.equal((await visit(port, await spiffe.issue(WEB))).reply, 'HELLO');
  assert.equal((await visit(port, await spiffe.issue(PARTNER, { signedBy: 'example.org' }))).reply, '');
  assert.equal((await visit(port, await spiffe.issue(WEB, { signedBy: 'partner.example' }))).reply, '');
  const partner = await spiffe.issue(PARTNER);
  await spiffe.setFederation('example.org', ['ed25519.example']);
  await eventually(async () => assert.equal((await visit(port, partner)).reply, '', 'it is federated no longer'));
  await spiffe.setFederation('example.org', ['partner.example']);
  await eventually(async () => assert.equal((await visit(port, partner)).reply, 'HELLO'));
  assert.equal(await envoy.stat(/update_rejected/), 0);
});

for (const disableSpiffeCertValidation of [false, true]) {
  const form = disableSpiffeCertValidation ? 'plain authorities' : 'the SPIFFE validator';

  test(`an allow list of Scute is enforced by Envoy, with ${form}`, needs('envoy'), async (t) => {
    const matchers = [
      { secret: 'ROOTCA', allow: ['spiffe://example.org/web', 'spiffe://example.org/ns/*/sa/batch', 'spiffe://partner.example/**'] },
    ];
    const { spiffe, socket } = await stage(t, 'api', { matchers, disableSpiffeCertValidation });
    const { envoy, port } = await startInboundEnvoy(t, { socket }, 'inbound.yaml', { replace: NO_MATCHERS });
    const replyTo = async (id: string): Promise<string> => (await visit(port, await spiffe.issue(id))).reply;

    assert.equal(await replyTo(WEB), 'HELLO');
    assert.equal(await replyTo('spiffe://example.org/ns/a.b/sa/batch'), 'HELLO');
    for (const id of [OTHER, 'spiffe://example.org/web/x', 'spiffe://example.org/ns/a/b/sa/batch', 'spiffe://example.org/ns/sa/batch'])
      assert.equal(await replyTo(id), '', id);
    assert.equal(await envoy.stat(/update_rejected/), 0);
  });

  test(`an empty allow list admits nobody, with ${form}`, needs('envoy'), async (t) => {
    const { spiffe, scute, socket } = await stage(t, 'api', { matchers: [{ secret: 'ROOTCA', allow: [] }], disableSpiffeCertValidation });
    const { port } = await startInboundEnvoy(t, { socket }, 'inbound.yaml', { replace: NO_MATCHERS, ready: false });

    await scute.logged((line) => line.message === 'a secret that is asked for is not there' && line['reason'] === 'empty_allow_list');
    assert.equal((await visit(port, await spiffe.issue(WEB))).reply, '');
  });
}
