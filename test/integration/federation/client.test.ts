import assert from 'node:assert/strict';
import { createServer as createPlainServer, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import {
  bundleJson,
  sendJson,
  spiffeRelation,
  startEndpoint,
  startFederation,
  webRelation,
  x509Key,
} from '../../support/bundle-endpoint.ts';
import { requireCertificate, requireTrustDomain } from '../../support/pki/bundles.ts';
import { denyListOf } from '../../support/policy/deny-file.ts';
import { eventually } from '../../support/eventually.ts';
import { createKeyPair, createTestAuthority, type TestAuthority } from '../../support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { tlsServer } from '../../support/tls-peer.ts';

const PARTNER = requireTrustDomain('partner.test');
const ENDPOINT_ID = 'spiffe://partner.test/endpoint';

/** The digests of what was published for the partner last. */
function authoritiesOf(bundles: ReadonlyMap<string, { readonly authorities: readonly { readonly sha256: string }[] }>): string[] {
  return (bundles.get(PARTNER)?.authorities ?? []).map(({ sha256 }) => sha256);
}

function digestsOf(...authorities: readonly TestAuthority[]): string[] {
  return authorities.map(({ der }) => requireCertificate(der).sha256);
}

async function write(t: TestContext, text: string): Promise<string> {
  const file = join(await temporaryFolder(t), 'bundle.json');
  await writeFile(file, text);
  return file;
}

/** A partner that serves its own bundle with an SVID of its own, and a client of ours that was given its first bundle. */
async function startSelfServing(t: TestContext, body?: string) {
  // Some tests take hours.
  const notAfter = Date.now() + 86_400_000;
  const authority = createTestAuthority({ trustDomain: PARTNER, notAfter });
  const endpoint = await startEndpoint(t, authority.issue({ id: ENDPOINT_ID, notAfter }), body ?? bundleJson([authority], { sequence: 5 }));
  const file = await write(t, bundleJson([authority]));
  const relation = spiffeRelation(PARTNER, endpoint.url, ENDPOINT_ID, file);
  return { authority, endpoint, file, federation: await startFederation(t, [relation]) };
}

/** One that proves who it is to the public web, or to those who know its authority. */
async function startWeb(t: TestContext, body = bundleJson([createTestAuthority({ trustDomain: PARTNER })])) {
  const ca = createTestAuthority({ trustDomain: 'web.test' });
  const endpoint = await startEndpoint(t, ca.issue({ uriSans: [], dnsSans: ['localhost'] }), body);
  const federation = await startFederation(t, [webRelation(PARTNER, endpoint.url, await write(t, ca.pem))]);
  return { ca, endpoint, federation };
}

test('a bundle is fetched from an endpoint that has the SPIFFE ID that it must have', async (t) => {
  const { authority, endpoint, federation } = await startSelfServing(t);

  assert.equal(await federation.refreshed(1), 'updated');

  assert.deepEqual(authoritiesOf(federation.bundles()), digestsOf(authority));
  assert.equal(federation.bundles().get(PARTNER)?.sequence, 5n);
  const [request] = endpoint.requests;
  assert.deepEqual([request?.url, request?.headers['accept-encoding'], request?.clientCertificate], ['/bundle', 'identity', false]);
});

test('a bundle is fetched from an endpoint whose certificate is for the host of the URL', async (t) => {
  const { federation } = await startWeb(t);

  assert.equal(await federation.refreshed(1), 'updated');
});

test('an endpoint that is on the deny list, or whose authority is, is asked for nothing', async (t) => {
  const authority = createTestAuthority({ trustDomain: PARTNER });
  const endpoint = await startEndpoint(t, authority.issue({ id: ENDPOINT_ID }), bundleJson([authority]));
  const relation = spiffeRelation(PARTNER, endpoint.url, ENDPOINT_ID, await write(t, bundleJson([authority])));
  for (const list of [denyListOf({ ids: [ENDPOINT_ID] }), denyListOf({ certificates: digestsOf(authority) })]) {
    const federation = await startFederation(t, [relation], undefined, () => list);
    assert.equal(await federation.refreshed(1), 'not_authenticated');
  }
  assert.deepEqual(endpoint.requests, []);
});

test('the self-serving endpoint is judged by what was fetched last, and no longer by the file', async (t) => {
  const { authority, endpoint, federation } = await startSelfServing(t);
  await federation.refreshed(1);
  const next = createTestAuthority({ trustDomain: PARTNER });
  endpoint.answer(sendJson(bundleJson([next], { sequence: 6 })));
  assert.equal(await federation.next(), 'updated');

  assert.equal(await federation.next(), 'not_authenticated', 'still shown: an SVID of the authority that is gone');
  endpoint.become(next.issue({ id: ENDPOINT_ID }));
  assert.equal(await federation.next(), 'unchanged');
  endpoint.become(authority.issue({ id: ENDPOINT_ID }));
  assert.equal(await federation.next(), 'not_authenticated');

  assert.deepEqual(authoritiesOf(federation.bundles()), digestsOf(next));
});

test('an endpoint of another trust domain is judged by the bundle that the Workload API gives of that one', async (t) => {
  const [ours, partner] = [createTestAuthority(), createTestAuthority({ trustDomain: PARTNER })];
  const id = 'spiffe://example.org/bundles';
  const endpoint = await startEndpoint(t, ours.issue({ id }), bundleJson([partner]));
  const federation = await startFederation(t, [spiffeRelation(PARTNER, endpoint.url, id)]);

  assert.equal(await federation.refreshed(1), 'no_bundle');
  federation.setIdentity(heldSnapshot([svidOf(ours, 'spiffe://example.org/us')], [ours]));
  assert.equal(await federation.next(), 'updated');

  // The partner itself has no say in who that endpoint is.
  endpoint.become(partner.issue({ id }));
  assert.equal(await federation.next(), 'not_authenticated');
});

for (const [what, certificateOf] of [
  ['another SPIFFE ID of its trust domain', (authority) => authority.issue({ id: 'spiffe://partner.test/other' })],
  [
    'an SVID that has expired',
    (authority) => authority.issue({ id: ENDPOINT_ID, notBefore: Date.now() - 9e6, notAfter: Date.now() - 6e6 }),
  ],
  ['the right SPIFFE ID from an authority of another trust domain', () => createTestAuthority().issue({ id: ENDPOINT_ID })],
  ['two SPIFFE IDs', (authority) => authority.issue({ uriSans: [ENDPOINT_ID, 'spiffe://partner.test/other'] })],
  ['a CA certificate', (authority) => authority.intermediate({ id: ENDPOINT_ID })],
  ['no SPIFFE ID but the host name', (authority) => authority.issue({ uriSans: [], dnsSans: ['localhost'] })],
] as [string, (authority: TestAuthority) => ReturnType<TestAuthority['issue']>][]) {
  test(`an endpoint with ${what} is asked nothing, and what it gave before stays`, async (t) => {
    const { authority, endpoint, federation } = await startSelfServing(t);
    await federation.refreshed(1);
    endpoint.become(certificateOf(authority));

    assert.equal(await federation.next(), 'not_authenticated');

    assert.equal(endpoint.requests.length, 1);
    assert.equal(federation.published.length, 1);
  });
}

for (const [what, certificateOf] of [
  ['another host', (ca) => ca.issue({ uriSans: [], dnsSans: ['other.test'] })],
  ['a part of the host by a wildcard', (ca) => ca.issue({ uriSans: [], dnsSans: ['local*'] })],
  ['the host in its subject alone', (ca) => ca.issue({ subject: 'localhost', uriSans: ['spiffe://web.test/x'] })],
  ['the host, by an authority that is not known', () => createTestAuthority().issue({ uriSans: [], dnsSans: ['localhost'] })],
  ['the host, for clients alone', (ca) => ca.issue({ uriSans: [], dnsSans: ['localhost'], eku: ['clientAuth'] })],
  [
    'the host, and expired',
    (ca) => ca.issue({ uriSans: [], dnsSans: ['localhost'], notBefore: Date.now() - 9e6, notAfter: Date.now() - 6e6 }),
  ],
] as [string, (ca: TestAuthority) => ReturnType<TestAuthority['issue']>][]) {
  test(`a web endpoint with a certificate for ${what} is asked nothing`, async (t) => {
    const { ca, endpoint, federation } = await startWeb(t);
    await federation.refreshed(1);
    endpoint.become(certificateOf(ca));

    assert.equal(await federation.next(), 'not_authenticated');

    assert.equal(endpoint.requests.length, 1);
  });
}

test('without caFile a certificate of nobody on the public web is refused', async (t) => {
  const ca = createTestAuthority({ trustDomain: 'web.test' });
  const endpoint = await startEndpoint(t, ca.issue({ uriSans: [], dnsSans: ['localhost'] }), bundleJson([ca]));
  const federation = await startFederation(t, [webRelation(PARTNER, endpoint.url)]);

  assert.equal(await federation.refreshed(1), 'not_authenticated');
});

test('an endpoint is asked as often as its bundle says, within 30 seconds and an hour, or every 5 minutes', async (t) => {
  const { authority, endpoint, federation } = await startSelfServing(t);
  await federation.refreshed(1);
  for (const hint of [0, 60, 1_000_000]) {
    endpoint.answer(sendJson(bundleJson([authority], { hint, sequence: 6 })));
    await federation.next();
  }

  assert.deepEqual(federation.waits, [300_000, 30_000, 60_000, 3_600_000]);
});

test('an endpoint that never answered is asked again soon, then more rarely', async (t) => {
  const { federation } = await startWeb(t, '');
  for (let count = 0; count < 8; count += 1)
    assert.equal(count === 0 ? await federation.refreshed(1) : await federation.next(), 'bad_document');

  assert.deepEqual(federation.waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
});

test('a bundle with a lower sequence number is not taken, until it was all that came for an hour', async (t) => {
  const { authority, endpoint, federation } = await startSelfServing(t);
  await federation.refreshed(1);
  const withdrawn = createTestAuthority({ trustDomain: PARTNER });
  endpoint.answer(sendJson(bundleJson([authority, withdrawn], { sequence: 4 })));

  for (let passed = 0; passed < 3_600_000; passed += 300_000) assert.equal(await federation.next(), 'older');
  assert.deepEqual(authoritiesOf(federation.bundles()), digestsOf(authority));
  assert.equal(await federation.next(), 'updated');
});

test('replicas that say the same under different numbers change nothing, and the higher number counts', async (t) => {
  const { authority, endpoint, federation } = await startSelfServing(t);
  await federation.refreshed(1);
  const more = createTestAuthority({ trustDomain: PARTNER });
  for (const sequence of [9, 7]) {
    endpoint.answer(sendJson(bundleJson([authority], { sequence })));
    assert.equal(await federation.next(), 'unchanged');
  }
  endpoint.answer(sendJson(bundleJson([authority, more], { sequence: 8 })));
  assert.equal(await federation.next(), 'older');

  assert.equal(federation.published.length, 1);
});

test('a redirect is followed under the same rules, and asked for anew the next time', async (t) => {
  const { authority, endpoint, federation } = await startSelfServing(t);
  const other = await startEndpoint(
    t,
    authority.issue({ id: ENDPOINT_ID }),
    bundleJson([authority, createTestAuthority({ trustDomain: PARTNER })]),
  );
  await federation.refreshed(1);
  endpoint.answer((_request, response) => void response.writeHead(307, { location: other.url }).end());

  assert.equal(await federation.next(), 'updated');
  other.become(authority.issue({ id: 'spiffe://partner.test/other' }));
  assert.equal(await federation.next(), 'not_authenticated');

  assert.equal(endpoint.requests.length, 3);
  assert.equal(other.requests.length, 1);
});

test('a redirect to a host that the certificate is not for leads nowhere', async (t) => {
  const { ca, endpoint, federation } = await startWeb(t);
  await federation.refreshed(1);
  const other = await startEndpoint(t, ca.issue({ uriSans: [], dnsSans: ['other.test'] }), bundleJson([ca]));
  endpoint.answer((_request, response) => void response.writeHead(302, { location: other.url }).end());

  assert.equal(await federation.next(), 'not_authenticated');
  assert.equal(other.requests.length, 0);
});

test('a redirect to http, to a user, to nothing that is a URL, or round and round leads nowhere', async (t) => {
  let asked = 0;
  const plain = createPlainServer((_request, response) => {
    asked += 1;
    response.end(bundleJson([createTestAuthority({ trustDomain: PARTNER })]));
  }).listen(0, '127.0.0.1');
  await once(plain, 'listening');
  t.after(() => plain.close());
  const { endpoint, federation } = await startWeb(t);
  await federation.refreshed(1);
  const { port } = plain.address() as AddressInfo;
  for (const location of [`http://localhost:${port}/`, `https://user@localhost:${endpoint.port}/`, 'https://[', '//', endpoint.url]) {
    endpoint.answer((_request, response) => void response.writeHead(301, { location }).end());
    assert.equal(await federation.next(), 'bad_redirect', location);
  }

  assert.equal(asked, 0);
  assert.ok(endpoint.requests.length <= 11, `${endpoint.requests.length} requests`);
});

test('an endpoint that answers too slowly is given up after 10 seconds, redirects and all', async (t) => {
  const { endpoint, federation } = await startWeb(t);
  await federation.refreshed(1);
  endpoint.answer((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.write('{"keys":');
  });
  federation.clock.advance(300_000);
  await eventually(() => assert.equal(endpoint.requests.length, 2));
  federation.clock.advance(9_999);
  assert.equal(federation.results.length, 1);
  federation.clock.advance(1);

  assert.equal(await federation.refreshed(2), 'timeout');
});

test('a server that accepts and says nothing is given up after 10 seconds', async (t) => {
  const sockets = new Set<Socket>();
  const silent = createServer((socket) => sockets.add(socket.on('error', () => undefined))).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  const federation = await startFederation(t, [webRelation(PARTNER, `https://localhost:${(silent.address() as AddressInfo).port}/`)]);
  await eventually(() => assert.equal(sockets.size, 1));
  federation.clock.advance(10_000);

  assert.equal(await federation.refreshed(1), 'timeout');
});

test('a server that leaves as soon as it is known, time and again, changes nothing', async (t) => {
  const { ca, endpoint, federation } = await startWeb(t);
  await federation.refreshed(1);
  const leaf = ca.issue({ uriSans: [], dnsSans: ['localhost'] });
  const leaver = await tlsServer(t, { cert: leaf.chainPem, key: leaf.keyPem }, (socket) => socket.destroy(), { requestCert: false });
  const location = `https://localhost:${leaver.address.split(':').at(-1)}/`;
  endpoint.answer((_request, response) => void response.writeHead(307, { location }).end());

  for (let count = 0; count < 10; count += 1) assert.equal(await federation.next(), 'broken');
  endpoint.answer(sendJson(bundleJson([])));

  assert.equal(await federation.next(), 'updated');
});

test('an endpoint where nobody listens is unreachable', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  const federation = await startFederation(t, [webRelation(PARTNER, `https://localhost:${port}/`)]);

  assert.equal(await federation.refreshed(1), 'unreachable');
});

const someKey = x509Key(createTestAuthority({ trustDomain: PARTNER }));
const many = (count: number): string => JSON.stringify({ keys: Array.from({ length: count }, () => someKey) });

for (const [what, reason, answer] of [
  ['more than a mebibyte, announced', 'too_large', (response) => response.writeHead(200, { 'content-length': 2 ** 21 }).end('x')],
  ['more than a mebibyte, in chunks', 'too_large', (response) => response.writeHead(200).end(Buffer.alloc(2 ** 21, ' '))],
  [
    'less than it announced',
    'broken',
    (response) => {
      response.writeHead(200, { 'content-length': 100 }).write('{', () => response.destroy());
    },
  ],
  ['no HTTP', 'broken', (response) => response.socket?.end('hello\r\n\r\n')],
  ['interim responses without end', 'broken', (response) => response.socket?.write('HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(17))],
  ['an endless head', 'broken', (response) => response.socket?.write(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}`)],
  [
    'an upgrade',
    'broken',
    (response) => response.socket?.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'),
  ],
  ['an error', 'bad_status', (response) => response.writeHead(500, { 'content-type': 'application/json' }).end(many(1))],
  ['nothing', 'bad_status', (response) => response.writeHead(204).end()],
  ['a page', 'bad_content_type', (response) => response.writeHead(200, { 'content-type': 'text/html' }).end(many(1))],
  [
    'what gzip makes large',
    'compressed',
    (response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(Buffer.alloc(2 ** 26))),
  ],
  ['another language', 'bad_document', (response) => response.writeHead(200).end('keys: []')],
  ['thousands of keys', 'too_many_keys', (response) => response.writeHead(200).end(`{"keys":[${'{},'.repeat(3000)}{}]}`)],
  ['keys below keys without end', 'bad_document', (response) => response.writeHead(200).end('['.repeat(500_000))],
  ['a redirect that says nowhere', 'bad_status', (response) => response.writeHead(302).end()],
] as [string, string, (response: ServerResponse) => void][]) {
  test(`an endpoint that answers with ${what} changes nothing (${reason})`, async (t) => {
    const { endpoint, federation } = await startWeb(t);
    await federation.refreshed(1);
    endpoint.answer((_request, response) => answer(response));

    assert.equal(await federation.next(), reason);
    endpoint.answer(sendJson(bundleJson([createTestAuthority({ trustDomain: PARTNER })])));
    assert.equal(await federation.next(), 'updated');

    assert.equal(federation.published.length, 2);
  });
}

test('an empty bundle is one: nobody of the trust domain is trusted', async (t) => {
  const { federation } = await startWeb(t, '{"keys":[]}');

  assert.equal(await federation.refreshed(1), 'updated');
  assert.deepEqual(federation.bundles().get(PARTNER)?.authorities, []);
});

test('keys for JWT-SVIDs are kept beside the authorities', async (t) => {
  const { publicKey } = createKeyPair('p256');
  const jwt = { ...publicKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'one' };
  const { federation } = await startWeb(
    t,
    bundleJson([], { keys: [jwt, { ...jwt, use: 'wit-svid' }, { kty: 'oct', use: 'jwt-svid', k: 'AA' }] }),
  );
  await federation.refreshed(1);

  const held = federation.bundles().get(PARTNER)?.jwtAuthorities ?? [];
  assert.deepEqual(
    held.map(({ keyId }) => keyId),
    ['one'],
  );
  assert.ok(held[0]?.key.equals(publicKey));
});

test('an endpoint for our own trust domain is not asked, as soon as we know that it is ours', async (t) => {
  const authority = createTestAuthority({ trustDomain: PARTNER });
  const { endpoint, federation } = await startWeb(t);
  await federation.refreshed(1);
  federation.setIdentity(heldSnapshot([svidOf(authority, 'spiffe://partner.test/us')], [authority]));

  assert.equal(await federation.refreshed(2), 'own_trust_domain');
  assert.equal(await federation.next(), 'own_trust_domain');
  assert.equal(endpoint.requests.length, 1);
});

test('a file that is missing, or holds no authority, fails the start', async (t) => {
  const relation = (file: string) => [spiffeRelation(PARTNER, 'https://localhost:1/', ENDPOINT_ID, file)];

  await assert.rejects(
    startFederation(t, relation('/nowhere/bundle.json')),
    /federation with partner\.test: \/nowhere\/bundle\.json cannot be read/,
  );
  for (const text of ['', '{"keys":[]}', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'])
    await assert.rejects(startFederation(t, relation(await write(t, text))), { code: 'ERR_FEDERATION_FILE' });
});

test('stopping ends a fetch that is under way', async (t) => {
  const { endpoint, federation } = await startWeb(t);
  await federation.refreshed(1);
  endpoint.answer(() => undefined);
  federation.clock.advance(300_000);
  await eventually(() => assert.equal(endpoint.requests.length, 2));

  await federation.client.stop(AbortSignal.abort());

  assert.deepEqual(federation.results, ['updated']);
  assert.equal(federation.clock.armed, 0);
});
