/** However an Envoy asks for secrets, it gets the same: state of the world or delta, a stream for each secret or one for all. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { X509Svid } from '../../../src/spiffe/x509-svid.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority, type TestCertificate } from '../../support/pki/pki.ts';
import { startSds } from '../../support/sds.ts';
import { heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';
import type { BootstrapOptions } from './bootstrap.ts';
import type { EnvoyProcess } from './process.ts';
import { startListeners, startTlsEcho, visit } from './stage.ts';
import { needs } from '../parts.ts';
import { exchange, freePort } from '../stage.ts';

const API = 'spiffe://example.org/api';
const INTERNAL = 'spiffe://example.org/internal';
const WEB = 'spiffe://example.org/web';
const OTHER = 'spiffe://example.org/other';
const BATCH = 'spiffe://partner.example/batch';

const own = createTestAuthority({ trustDomain: 'example.org' });
const partner = createTestAuthority({ trustDomain: 'partner.example' });

const VARIANTS = [
  ['state of the world', { protocol: 'GRPC' }],
  ['delta', { protocol: 'DELTA_GRPC' }],
  ['state of the world over ADS', { protocol: 'GRPC', aggregated: true }],
  ['delta over ADS', { protocol: 'DELTA_GRPC', aggregated: true }],
] as const satisfies readonly (readonly [string, Partial<BootstrapOptions>])[];

/** As Node has it of a peer's certificate. */
function serialOf({ chain }: X509Svid): string {
  return (chain[0]?.serial ?? '').toUpperCase();
}

async function assertNoneRejected(envoy: EnvoyProcess): Promise<void> {
  assert.equal(await envoy.stat(/update_rejected|key_rotation_failed/), 0);
}

for (const [variant, options] of VARIANTS) {
  test(`Envoy, ${variant}: secrets by alias, SPIFFE ID, trust domain and hint, and each is rotated`, needs('envoy'), async (t) => {
    const sds = await startSds(t);
    const rotate = (): readonly string[] => {
      const [api, internal] = [svidOf(own, API), svidOf(own, INTERNAL, { hint: 'internal' })];
      sds.publish(heldSnapshot([api, internal], [own, partner]));
      return [api, api, internal, internal].map(serialOf);
    };
    let serials = rotate();
    const { envoy, ports } = await startListeners(
      t,
      sds,
      [
        { certificate: 'default', trust: 'ROOTCA', peers: [WEB] },
        { certificate: API, trust: 'spiffe://example.org', peers: [WEB] },
        { certificate: 'hint:internal', trust: 'ROOTCA' },
        { certificate: INTERNAL, trust: 'spiffe://partner.example' },
      ],
      options,
    );
    const web = own.issue({ id: WEB });
    const visitAll = (peer: TestCertificate) => Promise.all(ports.map((port) => visit(port, peer)));
    const repliesTo = async (peer: TestCertificate): Promise<readonly string[]> => (await visitAll(peer)).map(({ reply }) => reply);

    assert.deepEqual(await repliesTo(web), ['HELLO', 'HELLO', 'HELLO', '']);
    assert.deepEqual(await repliesTo(own.issue({ id: OTHER })), ['', '', 'HELLO', ''], 'without matchers, everybody of the trust domain');
    assert.deepEqual(await repliesTo(partner.issue({ id: BATCH })), ['', '', '', 'HELLO']);
    for (let rotation = 0; rotation < 3; rotation += 1) {
      await eventually(async () =>
        assert.deepEqual(
          (await visitAll(web)).map(({ certificate }) => certificate?.serialNumber),
          serials,
        ),
      );
      serials = rotate();
    }
    await assertNoneRejected(envoy);
    assert.equal(await envoy.stat(/update_failure/), 0, 'no stream was ended');
    const dynamic = await envoy.stat(/^(listener_manager\.lds|cluster_manager\.cds)\.update_success$/);
    assert.equal(dynamic, 'aggregated' in options ? 2 : 0, 'listeners and clusters are answered too: there are none');
  });

  test(`ALL, ${variant}: a federated peer gets in while its domain is federated; a cross-signed one never`, needs('envoy'), async (t) => {
    const sds = await startSds(t);
    const federate = (isFederated: boolean): void => sds.publish(heldSnapshot([svidOf(own, API)], isFederated ? [own, partner] : [own]));
    federate(false);
    const { envoy, ports } = await startListeners(t, sds, [{ certificate: 'default', trust: 'ALL', peers: [WEB, BATCH] }], options);
    const [port = 0] = ports;
    const replyTo = async (peer: TestCertificate): Promise<string> => (await visit(port, peer)).reply;
    const [web, batch] = [own.issue({ id: WEB }), partner.issue({ id: BATCH })];
    const crossSigned = [own.issue({ id: BATCH }), partner.issue({ id: WEB })];

    for (const expected of ['', 'HELLO', '', 'HELLO']) {
      await eventually(async () => assert.equal(await replyTo(batch), expected));
      assert.equal(await replyTo(web), 'HELLO');
      for (const peer of crossSigned) assert.equal(await replyTo(peer), '');
      federate(expected === '');
    }
    await assertNoneRejected(envoy);
  });
}

for (const disableSpiffeCertValidation of [false, true]) {
  const form = disableSpiffeCertValidation ? 'plain authorities' : 'the SPIFFE validator';

  test(`the metadata of a node goes before the configuration, which says ${form}, in and out`, needs('envoy'), async (t) => {
    const sds = await startSds(t, { sds: { disableSpiffeCertValidation } });
    sds.publish(heldSnapshot([svidOf(own, API)], [own]));
    // Without a SPIFFE ID: the validator has no trust domain to look for, and plain authorities do not ask for one.
    const nameless = own.issue({ uriSans: [], dnsSans: ['api.example.org'] });
    const peers = [own.issue({ id: WEB }), nameless, partner.issue({ id: BATCH })];
    const servers = await Promise.all(peers.map((peer) => startTlsEcho(t, peer)));
    const secrets = { certificate: 'default', trust: 'ROOTCA' };
    const repliesWith = async (metadata: object): Promise<readonly (readonly string[])[]> => {
      const outbound = await Promise.all(servers.map(async (to) => ({ ...secrets, to, port: await freePort() })));
      const { envoy, ports } = await startListeners(t, sds, [secrets], { metadata, outbound });
      const replies = await Promise.all([
        Promise.all(peers.map(async (peer) => (await visit(ports[0] ?? 0, peer)).reply)),
        Promise.all(outbound.map(({ port }) => exchange(port, 'hello'))),
      ]);
      await assertNoneRejected(envoy);
      return replies;
    };

    await Promise.all(
      [undefined, true, 'true', false, 'false'].map(async (said) => {
        const isPlain = said === undefined ? disableSpiffeCertValidation : String(said) === 'true';
        const expected = ['HELLO', isPlain ? 'HELLO' : '', ''];
        const replies = await repliesWith(said === undefined ? {} : { disable_spiffe_cert_validation: said });
        assert.deepEqual(replies, [expected, expected], `${typeof said} ${said}`);
      }),
    );
  });
}

test(
  'an Envoy with fifty listeners, each with a certificate of its own: each has the newest one at each rotation',
  needs('envoy'),
  async (t) => {
    const sds = await startSds(t);
    const services = Array.from({ length: 25 }, (_, index) => `service-${index}`);
    const rotate = (): readonly string[] => {
      const [first, ...more] = services.map((hint) => svidOf(own, `spiffe://example.org/${hint}`, { hint }));
      assert.ok(first !== undefined);
      sds.publish(heldSnapshot([first, ...more], [own]));
      return [first, ...more].flatMap((svid) => [serialOf(svid), serialOf(svid)]);
    };
    let serials = rotate();
    const { envoy, ports } = await startListeners(
      t,
      sds,
      services.flatMap((hint, index) => {
        const protocol = index % 2 === 0 ? 'GRPC' : 'DELTA_GRPC';
        return [
          { certificate: `spiffe://example.org/${hint}`, trust: 'ROOTCA', peers: [`spiffe://example.org/peer-${index}`], protocol },
          { certificate: `hint:${hint}`, trust: 'spiffe://example.org', protocol },
        ] as const;
      }),
    );
    const web = own.issue({ id: WEB });

    for (let rotation = 0; rotation < 3; rotation += 1) {
      const visits = async (): Promise<unknown> =>
        Promise.all(ports.map(async (port) => (await visit(port, web)).certificate?.serialNumber));
      await eventually(async () => assert.deepEqual(await visits(), serials));
      serials = rotate();
    }

    assert.deepEqual([ports.length, sds.server.streams().length], [50, 54], 'a stream for each secret and variant');
    await assertNoneRejected(envoy);
  },
);
