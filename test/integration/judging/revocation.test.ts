/** A revoked peer chooses what it shows of its issuer: on real sockets, in both roles, new connections and live ones. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { bundleMap, ownSvid, presentWith, ROLES, startBothRoles, type Role } from '../../support/both-roles.ts';
import { sequence } from '../../support/pki/der-writer.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority, directoryName, type TestAuthority, type TestCertificate } from '../../support/pki/pki.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { closed, dial, startEcho } from '../../support/tcp.ts';
import { tlsClient, tlsServer, type Presented } from '../../support/tls-peer.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const ID = 'spiffe://example.org/peer';
const root = createTestAuthority();
const own = ownSvid(root, 'spiffe://example.org/own');
const intermediate = root.intermediate();
/** Certificates for the intermediate's name and key, which differ in what the peer may choose. */
const SHOWN: readonly [string, TestAuthority][] = [
  ['the certificate that the list names', intermediate],
  ['another certificate with another key identifier', root.crossSign(intermediate, { subjectKeyId: Buffer.from('d4'.repeat(20), 'hex') })],
  ['another certificate without a key identifier', root.crossSign(intermediate, { subjectKeyId: null })],
  [
    'another certificate that may not sign lists',
    root.crossSign(intermediate, { subjectKeyId: Buffer.from('e5'.repeat(20), 'hex'), keyUsage: ['keyCertSign'] }),
  ],
];
// It names no key of its issuer, so OpenSSL has no objection to any of these.
const issue = (): TestCertificate => intermediate.issue({ id: ID, authorityKeyId: null });

for (const role of ROLES) {
  test(`as ${role}: a revoked peer is refused whichever certificate of its intermediate it shows, and its neighbours are admitted`, async (t) => {
    const between = await startBothRoles(t, [own.entry]);
    const [revoked, spared] = [issue(), issue()];
    for (const [, { der }] of SHOWN) {
      const { line } = await between.meet(role, presentWith(revoked, der));
      assert.equal(line['reason'], 'finished', String(line['detail']));
    }

    assert.equal(await between.tell([own.entry], {}, [intermediate.crl({ revoked: [revoked.serial] })]), 'ok');

    for (const [which, { der }] of SHOWN) {
      const refused = await between.refuses(role, presentWith(revoked, der), 'revoked');
      assert.match(String(refused.line['detail']), new RegExp(revoked.serial), which);
      const { line } = await between.meet(role, presentWith(spared, der));
      assert.equal(line['reason'], 'finished', `${which}: ${String(line['detail'])}`);
    }
  });

  test(`as ${role}: below an intermediate whose list has a bad signature nobody is admitted, whichever certificate of it is shown`, async (t) => {
    const between = await startBothRoles(t, [own.entry]);

    assert.equal(await between.tell([own.entry], {}, [intermediate.crl({ badSignature: true })]), 'ok');

    for (const [, { der }] of SHOWN) {
      const { line } = await between.refuses(role, presentWith(issue(), der), 'revoked');
      assert.match(String(line['detail']), /bad signature/);
    }
    await between.admits(role, root.issue({ id: ID }), ID);
  });

  test(`as ${role}: an intermediate with a new key, which we know from our own SVID, revokes what its old key issued`, async (t) => {
    const renewed = root.intermediate();
    const self = renewed.issue({ id: 'spiffe://example.org/own' });
    const entry = svidEntry(root, self, 'spiffe://example.org/own');
    const between = await startBothRoles(t, [entry]);
    const [revoked, spared] = [intermediate.issue({ id: ID }), intermediate.issue({ id: ID })];
    await between.admits(role, revoked, ID);

    assert.equal(await between.tell([entry], {}, [renewed.crl({ revoked: [revoked.serial] })]), 'ok');

    await between.refuses(role, revoked, 'revoked');
    await between.admits(role, spared, ID);
  });

  test(`as ${role}: an indirect list that names its own issuer revokes`, async (t) => {
    const between = await startBothRoles(t, [own.entry]);
    const revoked = root.issue({ id: ID });
    const issuer = { oid: '2.5.29.29', critical: true, value: sequence(directoryName(root.name)) };

    assert.equal(await between.tell([own.entry], {}, [root.crl({ revoked: [{ serial: revoked.serial, extensions: [issuer] }] })]), 'ok');

    await between.refuses(role, revoked, 'revoked');
    await between.admits(role, root.issue({ id: ID }), ID);
  });

  test(`as ${role}: a partner's lists with the names of our authority and intermediate shut out nobody of ours`, async (t) => {
    const partner = createTestAuthority({ trustDomain: 'partner.test', subject: root.name });
    const namesake = partner.intermediate({ subject: intermediate.name });
    const between = await startBothRoles(t, [own.entry], { federated: bundleMap(partner), alsoAllowed: ['partner.test'] });
    const leaf = intermediate.issue({ id: ID });
    const theirs = namesake.issue({ id: 'spiffe://partner.test/peer' });
    const lists = [partner, namesake].map((by) => by.crl({ revoked: [leaf.serial, intermediate.serial, theirs.serial] }));

    assert.equal(await between.tell([own.entry], bundleMap(partner), lists), 'ok');

    await between.admits(role, leaf, ID);
    await between.refuses(role, theirs, 'revoked');
  });

  test(`as ${role}: a partner’s authority with the name and key identifier of ours keeps no list of ours from coming, nor our peers out`, async (t) => {
    const keyId = Buffer.from('c3'.repeat(20), 'hex');
    const real = createTestAuthority({ subjectKeyId: keyId });
    const self = ownSvid(real, 'spiffe://example.org/own');
    const imitation = createTestAuthority({ trustDomain: 'partner.test', subject: real.name, subjectKeyId: keyId });
    const partner = createTestAuthority({ trustDomain: 'partner.test', subject: 'Partner' });
    const federated = { 'spiffe://partner.test': Buffer.concat([imitation.der, partner.der]) };
    const between = await startBothRoles(t, [self.entry], { federated, alsoAllowed: ['partner.test'] });
    const [revoked, spared] = [real.issue({ id: ID }), real.issue({ id: ID })];

    assert.equal(await between.tell([self.entry], federated, [real.crl({ revoked: [revoked.serial] })]), 'ok');

    await between.refuses(role, revoked, 'revoked');
    await between.admits(role, spared, ID);
    const id = 'spiffe://partner.test/peer';
    await between.refuses(role, imitation.issue({ id }), 'untrusted_chain');
    await between.admits(role, partner.issue({ id }), id);
  });

  test(`as ${role}: live connections end when their peer is revoked, whichever certificate of its intermediate it showed`, async (t) => {
    const [revoked, spared] = [issue(), issue()];
    const peers = [revoked, spared].flatMap((leaf) => SHOWN.map(([, { der }]) => presentWith(leaf, der)));
    const { api, sidecar, sockets } = await startLive(t, role, peers);
    const ends = sockets.slice(0, SHOWN.length).map(closed);

    api.setX509([own.entry], {}, [intermediate.crl({ revoked: [revoked.serial] })]);

    assert.deepEqual(
      await Promise.all(ends),
      SHOWN.map(() => 'ECONNRESET'),
    );
    for (const socket of sockets.slice(SHOWN.length)) await talk(socket);
    await eventually(() => {
      const lines = sidecar.log().filter((line) => line['close_reason'] === 'revoked');
      assert.equal(lines.length, SHOWN.length);
    });
  });
}

/** Connections between a sidecar and these peers which have carried something each way: the ends that are not Scute's. */
async function startLive(t: TestContext, role: Role, peers: readonly Presented[]) {
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  api.setX509([own.entry]);
  const file = { workloadApi: { endpoint: api.endpoint } };
  if (role === 'server') {
    const { address } = await startEcho(t);
    const sidecar = await startSidecar(t, { ...file, inbound: [{ name: 'in', listen: '127.0.0.1:0', to: address, allow: [ID] }] });
    return { api, sidecar, sockets: await Promise.all(peers.map((peer) => talk(tlsClient(t, sidecar.address('in'), peer)))) };
  }
  const servers = await Promise.all(peers.map((peer) => tlsServer(t, peer, (socket) => socket.pipe(socket))));
  const outbound = servers.map(({ address }, index) => ({ name: `out-${index}`, listen: '127.0.0.1:0', to: address, expect: [ID] }));
  const sidecar = await startSidecar(t, { ...file, outbound });
  const callers = await Promise.all(outbound.map(({ name }) => dial(t, sidecar.address(name))));
  return { api, sidecar, sockets: await Promise.all(callers.map(talk)) };
}

async function talk<S extends Socket>(socket: S): Promise<S> {
  socket.write('!');
  await once(socket, 'data');
  return socket;
}
