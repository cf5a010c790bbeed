/** Envoy that asks for a certificate when a handshake needs it, and gRPC's own client in Envoy instead of Envoy's. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { connect } from 'node:tls';
import type { IssuedPem } from '../../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { useScute } from '../../support/scute-process.ts';
import { startInboundEnvoy, visit } from './stage.ts';
import { needs } from '../parts.ts';
import { temporaryFolder } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const SHOP = 'spiffe://example.org/shop';

async function stage(t: TestContext) {
  const spiffe = await startDevDomain(t, { name: 'example.org', intermediates: 1, workloads: { api: [API, { id: SHOP, hint: 'shop' }] } });
  const socket = join(await temporaryFolder(t), 'sds.sock');
  const sds = { listen: `unix://${socket}` };
  const scute = await useScute(t, { config: { workloadApi: { endpoint: spiffe.endpoint('api') }, sds, log: { level: 'debug' } } });
  await scute.ready('sds');
  return { spiffe, socket, scute };
}

/** The SPIFFE ID that a server shows for a server name, or why there is none. */
function shown(port: number, servername: string, { chainPem, keyPem }: IssuedPem): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', servername, rejectUnauthorized: false, cert: chainPem, key: keyPem });
    socket.once('secureConnect', () => {
      resolve(socket.getPeerCertificate().subjectaltname ?? '');
      socket.destroy();
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    socket.setTimeout(60_000, () => socket.destroy(new Error('no answer in time')));
  });
}

const TLS = 'type.googleapis.com/envoy.extensions.transport_sockets.tls';
/** In place of the name of the certificate: the name that a client gives. */
const BY_SERVER_NAME = {
  'tls_certificate_sds_secret_configs:\n                  - name: default\n                    sds_config: &scute': `custom_tls_certificate_selector:
                  name: envoy.tls.certificate_selectors.on_demand_secret
                  typed_config:
                    "@type": ${TLS}.cert_selectors.on_demand_secret.v3.Config
                    certificate_mapper:
                      name: sni
                      typed_config: { "@type": ${TLS}.cert_mappers.sni.v3.SNI, default_value: default }
                    config_source: &scute`,
} as const;

test(
  'Envoy asks for a certificate in a handshake: one that is there, is not, is withdrawn, comes back; no number of names cuts it off',
  needs('envoy'),
  async (t) => {
    const { spiffe, socket, scute } = await stage(t);
    const { envoy, port } = await startInboundEnvoy(t, { socket }, 'delta.yaml', { replace: BY_SERVER_NAME });
    const web = await spiffe.issue(WEB);
    const refused = 'ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE';

    assert.equal(await shown(port, 'hint:shop', web), `URI:${SHOP}`);
    assert.equal(await shown(port, 'default', web), `URI:${API}`);
    // Envoy resets each stream while its answer, of more than 16 KiB, is on the way: that must not add up.
    for (let round = 0; round < 25; round += 1) {
      const names = Array.from({ length: 10 }, (_, index) => `unknown-${round}-${index}.example`);
      assert.deepEqual(new Set(await Promise.all(names.map((name) => shown(port, name, web)))), new Set([refused]));
    }
    await spiffe.withdraw('api');
    await eventually(async () => assert.equal(await shown(port, 'hint:shop', web), refused));
    await spiffe.restore('api');
    await eventually(async () => assert.equal(await shown(port, 'hint:shop', web), `URI:${SHOP}`));

    assert.deepEqual(
      scute.log().filter(({ message }) => message === 'SDS client refused'),
      [],
    );
    assert.equal(await envoy.stat(/update_rejected|update_failure/), 0);
  },
);

for (const example of ['inbound.yaml', 'delta.yaml']) {
  test(`an Envoy whose client is gRPC's own has the newest certificate as well, with ${example}`, needs('envoy'), async (t) => {
    const { spiffe, socket } = await stage(t);
    const replace = { 'envoy_grpc: { cluster_name: scute }': `google_grpc: { target_uri: "unix://${socket}", stat_prefix: scute }` };
    const { envoy, port } = await startInboundEnvoy(t, { socket }, example, { replace });
    const before = (await visit(port, await spiffe.issue(WEB))).certificate?.serialNumber;

    await spiffe.rotateRoot('example.org');

    await eventually(async () => {
      const { reply, certificate } = await visit(port, await spiffe.issue(WEB));
      assert.equal(reply, 'HELLO');
      assert.notEqual(certificate?.serialNumber, before);
    });
    assert.equal(await envoy.stat(/update_rejected|update_failure/), 0);
  });
}
