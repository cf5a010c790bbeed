import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import type * as types from '../../../src/admin/api-types.ts';
import { parseAddress } from '../../../src/config/units.ts';
import { api, DEFINITIONS, everyPage } from '../../support/admin/api.ts';
import { bundleMap, ROLES, startBothRoles } from '../../support/both-roles.ts';
import { bundleJson, startEndpoint } from '../../support/bundle-endpoint.ts';
import { API, startExampleDomain, startInbound, startOutbound, startPair, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication, startHttpInbound } from '../../support/http/http-stage.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { openSotw, sdsClient } from '../../support/sds.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { dial, startEcho } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { svidEntry } from '../../support/workload-api.ts';

const ADMIN = { admin: { listen: '127.0.0.1:0' } };

test('every resource answers as the JSON Schema says, before and after a connection', async (t) => {
  const echo = await startEcho(t);
  const { inbound, outbound, address } = await startPair(t, echo.address, { file: ADMIN });
  const { resources } = await api<types.Index>(inbound, '');
  const paths = Object.values(resources)
    .map((path) => path.replace('/api/v1/', ''))
    // It does not end.
    .filter((path) => path !== 'stream');
  for (const path of paths) await api(inbound, path);

  const caller = await dial(t, address);
  caller.write('hello');
  await eventually(async () => {
    const { items } = await api<types.ConnectionPage>(inbound, 'connections');
    assert.equal(items[0]?.bytesFromDownstream, 5);
  });

  for (const path of paths) {
    await api(inbound, path);
    await api(outbound, path);
  }
  const overview = await api<types.Overview>(inbound, 'overview');
  assert.equal(overview.identity.spiffeId, API);
  assert.deepEqual(overview.certificates, { svid: 1, intermediate: 0, authority: 1, peer: 1, peer_intermediate: 0, refused: 0 });
  const all = await everyPage<types.Certificate>(inbound, 'certificates');
  assert.deepEqual(
    all.map(({ kind, spiffeId }) => [kind, spiffeId]),
    [
      ['svid', API],
      ['authority', null],
      ['peer', WEB],
    ],
  );
});

const PARTNER = 'partner.test';
const US = 'spiffe://example.org/us';
const BOTH = { file: ADMIN } as const;

test('a rotation is counted, dated and linked, and what is due comes with it', async (t) => {
  const spiffe = await startExampleDomain(t);
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('api') }, ...ADMIN, ...inboundTo('127.0.0.1:1') });
  const [before] = (await api<types.CertificatePage>(sidecar, 'certificates?kind=svid')).items;
  assert.equal(before?.rotations, 0);

  await spiffe.rotate();
  const after = await eventually(async () => {
    const [svid] = (await api<types.CertificatePage>(sidecar, 'certificates?kind=svid')).items;
    assert.equal(svid?.rotations, 1);
    return svid;
  });
  await spiffe.rotateRoot('example.org');
  const renewed = await eventually(async () => {
    const { items } = await api<types.CertificatePage>(sidecar, 'certificates?kind=svid');
    assert.notEqual(items[0]?.issuer, after.issuer);
    return items[0];
  });

  assert.notEqual(after.id, before.id);
  assert.ok((after.generation ?? 0) > (before.generation ?? 0));
  const { past, due } = await api<types.Rotations>(sidecar, 'rotations');
  const first = past.findLast(({ change }) => change === 'svid_rotated');
  assert.deepEqual([first?.spiffeId, first?.certificate, first?.replaced], [API, after.id, before.id]);
  assert.deepEqual(
    past.filter(({ change }) => change === 'authority_added').map(({ certificate }) => certificate),
    [renewed?.issuer],
  );
  const authorities = await everyPage<types.Certificate>(sidecar, 'certificates?kind=authority');
  assert.deepEqual(
    authorities.map(({ id, issued }) => [id, issued]).toSorted((one, other) => Number(other[1]) - Number(one[1])),
    [
      [renewed?.issuer, 1],
      [after.issuer, 0],
    ],
  );
  assert.deepEqual(
    due.map(({ what }) => what),
    ['svid_renewal', 'svid_overdue', 'svid_expiry', 'authority_expiry', 'authority_expiry'],
  );
  assert.equal(due[2]?.at, renewed?.notAfter);
});

test('the issuer is the certificate that signed, among twins of one name and key identifier, and intermediates are on the way to it', async (t) => {
  const keyId = Buffer.alloc(20, 7);
  const first = createTestAuthority({ subject: 'Twin', subjectKeyId: keyId });
  const second = createTestAuthority({ subject: 'Twin', subjectKeyId: keyId });
  const middle = second.intermediate();
  const entry = svidEntry(first, first.issue({ id: US }), US, { bundle: Buffer.concat([first.der, second.der]) });
  const { sidecar, admits } = await startBothRoles(t, [entry], BOTH);

  await admits('server', second.issue({ id: 'spiffe://example.org/peer' }), 'spiffe://example.org/peer');
  await admits('server', middle.issue({ id: 'spiffe://example.org/below' }), 'spiffe://example.org/below');

  const all = await everyPage<types.Certificate>(sidecar, 'certificates');
  const byId = new Map(all.map((certificate) => [certificate.id, certificate]));
  const issuers = (spiffeId: string): readonly (readonly [string, string])[] => {
    const found: (readonly [string, string])[] = [];
    let next = all.find((certificate) => certificate.spiffeId === spiffeId)?.issuer ?? null;
    while (next !== null) {
      const certificate = byId.get(next);
      assert.ok(certificate, next);
      found.push([certificate.kind, certificate.sha256]);
      next = certificate.issuer;
    }
    return found;
  };
  for (const { id } of all)
    assert.deepEqual(
      (await everyPage<types.Certificate>(sidecar, `certificates?id=${id}`)).map((each) => each.id),
      [id],
    );
  assert.deepEqual(issuers(US), [['authority', sha256(first.der)]]);
  assert.deepEqual(issuers('spiffe://example.org/peer'), [['authority', sha256(second.der)]]);
  assert.deepEqual(issuers('spiffe://example.org/below'), [
    ['peer_intermediate', sha256(middle.der)],
    ['authority', sha256(second.der)],
  ]);
});

for (const role of ROLES) {
  test(`peers that were let in, denied and strangers are told apart, each with why (${role})`, async (t) => {
    const own = createTestAuthority();
    const partner = createTestAuthority({ trustDomain: PARTNER });
    const entry = svidEntry(own, own.issue({ id: US }), US);
    const { sidecar, admits, refuses } = await startBothRoles(t, [entry], { ...BOTH, federated: bundleMap(partner) });
    const peer = own.issue({ id: 'spiffe://example.org/peer' });
    const denied = partner.issue({ id: `spiffe://${PARTNER}/peer`, eku: null });
    const stranger = createTestAuthority().issue({ id: 'spiffe://example.org/peer' });

    await admits(role, peer, 'spiffe://example.org/peer');
    await refuses(role, denied, 'not_allowed');
    await refuses(role, stranger, 'untrusted_chain');
    await refuses(role, stranger, 'untrusted_chain');

    const shown = await everyPage<types.Certificate>(sidecar, 'certificates');
    const told = (kind: string): readonly unknown[] =>
      shown.filter((each) => each.kind === kind).map(({ id, peer: seen, issuer }) => [id, seen?.verdict, seen?.handshakes, issuer]);
    assert.deepEqual(told('peer'), [
      [`peer:${sha256(denied.der)}`, 'not_allowed', 1, `authority:${PARTNER}:${sha256(partner.der)}`],
      [`peer:${sha256(peer.der)}`, 'allow', 1, `authority:example.org:${sha256(own.der)}`],
    ]);
    assert.deepEqual(told('refused'), [[`refused:${sha256(stranger.der)}`, 'untrusted_chain', 2, null]]);
    assert.deepEqual(shown.find(({ id }) => id === `peer:${sha256(denied.der)}`)?.findings, [
      {
        verdict: 'tolerated',
        clause: 'X509-SVID 4.4',
        problem: 'there is no extended key usage; serverAuth and clientAuth should be there',
      },
    ]);
    const ofPartner = await everyPage<types.Certificate>(sidecar, `certificates?trustDomain=${PARTNER}`);
    assert.deepEqual(
      ofPartner.map(({ id }) => id),
      [`authority:${PARTNER}:${sha256(partner.der)}`, `peer:${sha256(denied.der)}`],
    );
    assert.deepEqual(
      (await everyPage<types.Certificate>(sidecar, `certificates?id=refused:${sha256(stranger.der)}`)).map(({ spiffeId }) => spiffeId),
      ['spiffe://example.org/peer'],
    );
    const refusals = await everyPage<types.Refusal>(sidecar, 'refusals');
    assert.deepEqual(
      refusals.map(({ reason, peer: proven, certificate }) => [reason, proven, certificate]),
      [
        ['untrusted_chain', null, `refused:${sha256(stranger.der)}`],
        ['untrusted_chain', null, `refused:${sha256(stranger.der)}`],
        ['not_allowed', `spiffe://${PARTNER}/peer`, `peer:${sha256(denied.der)}`],
      ],
    );
    const domains = await everyPage<types.TrustDomain>(sidecar, 'trust-domains');
    assert.deepEqual(
      domains.map(({ trustDomain, isOwn, source, authorities }) => [trustDomain, isOwn, source, authorities]),
      [
        ['example.org', true, 'workload_api', 1],
        [PARTNER, false, 'workload_api', 1],
      ],
    );
  });
}

test('an authority says whether it came from the Workload API or an endpoint, and its trust domain says how the endpoint is', async (t) => {
  const own = createTestAuthority();
  const partner = createTestAuthority({ trustDomain: PARTNER });
  const endpointId = `spiffe://${PARTNER}/endpoint`;
  const endpoint = await startEndpoint(
    t,
    partner.issue({ id: endpointId, dnsSans: ['localhost'] }),
    bundleJson([partner], { sequence: 7 }),
  );
  const bundleFile = join(await temporaryFolder(t), 'partner.json');
  await writeFile(bundleFile, bundleJson([partner]));
  const relation = { trustDomain: PARTNER, url: endpoint.url, profile: 'https_spiffe', endpointSpiffeId: endpointId, bundleFile };
  const { sidecar } = await startBothRoles(t, [svidEntry(own, own.issue({ id: US }), US)], { file: { ...ADMIN, federation: [relation] } });

  await eventually(async () => {
    const authorities = await everyPage<types.Certificate>(sidecar, 'certificates?kind=authority');
    assert.deepEqual(
      authorities.map(({ trustDomain, source, issued }) => [trustDomain, source, issued]),
      [
        [PARTNER, 'bundle_endpoint', 0],
        ['example.org', 'workload_api', 1],
      ],
    );
  });

  const [, domain] = await everyPage<types.TrustDomain>(sidecar, 'trust-domains');
  assert.deepEqual([domain?.trustDomain, domain?.source, domain?.endpoint?.sequence], [PARTNER, 'bundle_endpoint', '7']);
  assert.equal(domain?.endpoint?.problem, null);
  const { due, past } = await api<types.Rotations>(sidecar, 'rotations');
  assert.ok(due.some(({ what, trustDomain }) => what === 'bundle_refresh' && trustDomain === PARTNER));
  assert.deepEqual([past[0]?.change, past[0]?.trustDomain], ['authority_added', PARTNER]);
});

test('SDS subscribers are with the certificates that they have, and say which version and what they make of it', async (t) => {
  const spiffe = await startExampleDomain(t);
  const socket = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('api') }, sds: { listen: socket }, ...ADMIN });
  const stream = openSotw(sdsClient(t, socket));
  const resourceNames = ['default', 'ROOTCA', 'nobody'];
  stream.send({ resourceNames, node: { id: 'envoy-1\u202e<b>' } });
  const sent = await stream.next();
  stream.send({ resourceNames, responseNonce: sent.nonce, versionInfo: sent.versionInfo });

  const [svid, authority] = await eventually(async () => {
    const items = await everyPage<types.Certificate>(sidecar, 'certificates');
    assert.equal(items[0]?.sds[0]?.status, 'accepted');
    return items;
  });

  assert.deepEqual(
    svid?.sds.map(({ node, name, current }) => [node, name, current]),
    [['envoy-1\ufffd<b>', 'default', true]],
  );
  assert.deepEqual([authority?.sds[0]?.name, authority?.sdsSubscribers], ['ROOTCA', 1]);
  const { items: streams, address } = await api<types.Sds>(sidecar, 'sds');
  assert.equal(address, socket);
  assert.deepEqual(
    streams[0]?.subscriptions.map(({ name, status, current, missing }) => [name, status, current, missing]),
    [
      ['default', 'accepted', true, null],
      ['ROOTCA', 'accepted', true, null],
      ['nobody', 'none', null, 'unknown_name'],
    ],
  );

  await spiffe.rotate();
  await stream.next();
  await eventually(async () => {
    const [now] = (await api<types.CertificatePage>(sidecar, 'certificates?kind=svid')).items;
    assert.deepEqual([now?.rotations, now?.sds[0]?.status, now?.sds[0]?.current], [1, 'sent', true]);
  });
});

test('connections are told newest first, page by page, and by peer and listener', async (t) => {
  const echo = await startEcho(t);
  const { inbound, outbound, address } = await startPair(t, echo.address, { file: ADMIN });
  for (let made = 0; made < 5; made++) {
    const caller = await dial(t, address);
    caller.write('x');
  }
  await eventually(async () => assert.equal((await api<types.Overview>(inbound, 'overview')).connections, 5));
  const whole = await eventually(async () => {
    const { items } = await api<types.ConnectionPage>(inbound, 'connections');
    assert.equal(items.length, 5);
    return items;
  });

  const first = await api<types.ConnectionPage>(inbound, 'connections?limit=2');
  const paged = await everyPage<types.Connection>(inbound, 'connections?limit=2');

  assert.ok(first.items.length <= 2 && first.nextCursor !== null);
  assert.deepEqual(
    paged.map(({ id }) => id),
    whole.map(({ id }) => id),
  );
  assert.deepEqual(
    whole.map(({ id }) => id),
    whole.map(({ id }) => id).toSorted((one, other) => other - one),
  );
  const [{ listener, peer, presented, rule, tls, certificate } = assert.fail()] = whole;
  assert.deepEqual([listener, peer, presented, rule, tls?.version], [{ name: 'in', direction: 'inbound' }, WEB, API, WEB, 'TLSv1.3']);
  const [shown] = (await api<types.CertificatePage>(inbound, `certificates?spiffeId=${WEB}`)).items;
  assert.deepEqual([shown?.id, shown?.peer?.connections], [certificate, 5]);
  assert.equal((await everyPage(inbound, `connections?spiffeId=${API}`)).length, 0);
  assert.equal((await everyPage(inbound, 'connections?listener=other')).length, 0);
  assert.equal((await everyPage<types.Connection>(outbound, `connections?spiffeId=${API}`)).length, 5);
});

test('a connection that ends leaves its peer behind, without a connection', async (t) => {
  const echo = await startEcho(t);
  const { inbound, address } = await startPair(t, echo.address, { file: ADMIN });
  const caller = await dial(t, address);
  caller.write('x');
  const connections = (expected: number): Promise<void> =>
    eventually(async () => {
      const [peer] = (await api<types.CertificatePage>(inbound, 'certificates?kind=peer')).items;
      assert.equal(peer?.peer?.connections, expected);
    });
  await connections(1);

  caller.destroy();

  await connections(0);
});

for (const protocol of ['http', 'tcp'] as const) {
  test(`an outbound listener with ${protocol} counts its server once, and no longer when the connection to it is gone`, async (t) => {
    const application = await startHttpApplication(t, (_request, response) => response.end('hello'));
    const spiffe = await startExampleDomain(t);
    const file = ADMIN;
    const { address: middle } = await startInbound(t, application.address, { spiffe, listener: { protocol: 'http' } });
    const { sidecar, address } = await startOutbound(t, middle, { spiffe, listener: { protocol }, file });
    const server = async (): Promise<types.PeerSeen | null | undefined> =>
      (await api<types.CertificatePage>(sidecar, 'certificates?kind=peer')).items[0]?.peer;
    const parsed = parseAddress(address);
    assert.ok(parsed.ok);

    const caller = await dial(t, address);
    caller.write('GET / HTTP/1.1\r\nHost: api\r\n\r\n');
    await eventually(async () => assert.equal((await server())?.connections, 1));
    caller.destroy();

    await eventually(async () => assert.equal((await server())?.connections, 0));
    assert.equal((await server())?.handshakes, 1);
  });
}

test('a peer that is told over HTTP that it is not allowed is there with its connection, and why', async (t) => {
  const application = await startHttpApplication(t, (_request, response) => response.end('hello'));
  const { sidecar, connect } = await startHttpInbound(t, application.address, {
    listener: { allow: [{ peer: WEB, methods: ['GET'] }], deny: [WEB] },
    file: ADMIN,
  });

  const peer = await connect();
  peer.write('GET / HTTP/1.1\r\nHost: api\r\n\r\n');
  const [answer] = (await once(peer, 'data')) as [Buffer];
  assert.match(answer.toString(), /^HTTP\/1\.1 403 /);

  const [connection] = (await api<types.ConnectionPage>(sidecar, 'connections')).items;
  assert.deepEqual([connection?.peer, connection?.denied], [WEB, 'denied']);
  const [shown] = (await api<types.CertificatePage>(sidecar, `certificates?id=${connection?.certificate}`)).items;
  assert.deepEqual([shown?.peer?.verdict, shown?.peer?.connections, shown?.peer?.handshakes], ['denied', 1, 1]);
  const [refusal] = (await api<types.RefusalPage>(sidecar, 'refusals')).items;
  assert.deepEqual([refusal?.connection, refusal?.reason, refusal?.rule], [connection?.id, 'denied', `deny ${WEB}`]);
});

test('an identity that is withdrawn is told, with what went', async (t) => {
  const own = createTestAuthority();
  const { sidecar, api: workloadApi } = await startBothRoles(t, [svidEntry(own, own.issue({ id: US }), US)], BOTH);
  const [svid] = (await api<types.CertificatePage>(sidecar, 'certificates?kind=svid')).items;

  workloadApi.failWith('FetchX509SVID', status.PERMISSION_DENIED);
  workloadApi.endStreams('FetchX509SVID');

  const overview = await eventually(async () => {
    const told = await api<types.Overview>(sidecar, 'overview');
    assert.equal(told.identity.state, 'none');
    return told;
  });
  assert.deepEqual([overview.identity.certificate, overview.certificates.svid, overview.ready], [null, 0, false]);
  assert.ok(overview.identity.reason);
  const { past } = await api<types.Rotations>(sidecar, 'rotations');
  assert.ok(past.some(({ change }) => change === 'identity_withdrawn'));
  assert.ok(past.some(({ change, replaced }) => change === 'svid_removed' && replaced === svid?.id));
  const [listener] = (await api<types.ListenerList>(sidecar, 'listeners')).items;
  assert.deepEqual([listener?.presents, listener?.certificate], [null, null]);
});

test('certificates that expire soon are found, and those that do not are left out', async (t) => {
  const spiffe = await startExampleDomain(t);
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('api') }, ...ADMIN, ...inboundTo('127.0.0.1:1') });
  const kinds = async (expiringIn: string): Promise<readonly string[]> =>
    (await everyPage<types.Certificate>(sidecar, `certificates?expiringIn=${expiringIn}`)).map(({ kind }) => kind);

  assert.deepEqual(await kinds('1m'), []);
  assert.deepEqual(await kinds('2h'), ['svid']);
  assert.deepEqual(await kinds('365d'), ['svid', 'authority']);
});

test('before the first answer of the Workload API everything is empty, and says so', async (t) => {
  const nowhere = `unix://${join(await temporaryFolder(t), 'none.sock')}`;
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: nowhere }, ...ADMIN, ...inboundTo('127.0.0.1:1') }, { unready: true });

  for (const resource of Object.keys(DEFINITIONS)) await api(sidecar, resource);
  const { identity, ready, failing } = await api<types.Overview>(sidecar, 'overview');
  assert.deepEqual([identity.state, identity.certificate, ready], ['waiting', null, false]);
  assert.ok(failing.includes('identity'));
});

/** An inbound listener before an application that nobody needs. */
function inboundTo(to: string): object {
  return { inbound: [{ name: 'in', listen: '127.0.0.1:0', to, allow: [WEB] }] };
}

function sha256(der: Uint8Array): string {
  return hash('sha256', der);
}
