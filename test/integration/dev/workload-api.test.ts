import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { create } from '@bufbuild/protobuf';
import { Client, credentials, Metadata, status } from '@grpc/grpc-js';
import { devConfigSchema } from '../../../src/devdomain/config.ts';
import { createDevDomain } from '../../../src/devdomain/dev-domain.ts';
import { parseCrl } from '../../../src/spiffe/x509/crl.ts';
import { toPem } from '../../../src/spiffe/x509/pem.ts';
import { X509SVIDResponseSchema } from '../../../src/gen/workload_pb.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { startDevDomain, startDevDomainWith } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { hasStatus, workloadApiClient } from '../../support/workload-api-client.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';

test('FetchX509SVID gives the current SVIDs at once, in the order of the configuration, with hints', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [{ id: WEB, hint: 'external' }, API] } });

  const { svids, crl } = await workloadApiClient(t, spiffe.endpoint('web')).stream('fetchX509SVID').next();

  assert.deepEqual(
    svids.map(({ spiffeId, hint }) => [spiffeId, hint]),
    [
      [WEB, 'external'],
      [API, ''],
    ],
  );
  assert.deepEqual(crl, []);
  for (const svid of svids) {
    const leaf = new X509Certificate(svid.x509Svid);
    assert.equal(leaf.subjectAltName, `URI:${svid.spiffeId}`);
    assert.equal(leaf.checkPrivateKey(createPrivateKey({ key: Buffer.from(svid.x509SvidKey), format: 'der', type: 'pkcs8' })), true);
    assert.equal(leaf.verify(new X509Certificate(svid.bundle).publicKey), true);
  }
});

for (const [what, headers] of [
  ['missing', []],
  ['wrong', ['false']],
  ['upper case', ['True']],
  ['given twice', ['true', 'true']],
] as const) {
  test(`every call is refused with InvalidArgument if the security header is ${what}`, async (t) => {
    const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
    const client = workloadApiClient(t, spiffe.endpoint('web'), headers);

    await assert.rejects(client.stream('fetchX509SVID').next(), hasStatus(status.INVALID_ARGUMENT));
    await assert.rejects(client.stream('fetchX509Bundles').next(), hasStatus(status.INVALID_ARGUMENT));
    await assert.rejects(client.stream('fetchJWTBundles').next(), hasStatus(status.INVALID_ARGUMENT));
    await assert.rejects(client.call('fetchJWTSVID', { audience: ['a'] }), hasStatus(status.INVALID_ARGUMENT));
    await assert.rejects(client.call('validateJWTSVID', { audience: 'a', svid: 'x' }), hasStatus(status.INVALID_ARGUMENT));
  });
}

test('a rotation pushes new SVIDs to open streams, and no new bundles', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const client = workloadApiClient(t, spiffe.endpoint('web'));
  const svidStream = client.stream('fetchX509SVID');
  const bundleStream = client.stream('fetchX509Bundles');
  const before = await svidStream.next();
  await bundleStream.next();

  await spiffe.rotate('example.org');
  const after = await svidStream.next();
  await spiffe.prepareRoot('example.org');
  const bundles = await bundleStream.next();

  assert.notDeepEqual(after.svids[0]?.x509Svid, before.svids[0]?.x509Svid);
  assert.notDeepEqual(after.svids[0]?.x509SvidKey, before.svids[0]?.x509SvidKey);
  assert.deepEqual(after.svids[0]?.bundle, before.svids[0]?.bundle);
  assert.equal(certificatesIn(bundles.bundles['spiffe://example.org']).length, 2);
});

test('SVIDs rotate after their period, and soon after the machine slept past it', async (t) => {
  const clock = new FakeClock();
  const domain = { name: 'example.org', svidLife: '1h', rotateEvery: '1m', workloads: { web: [WEB] } };
  const spiffe = await startDevDomainWith(t, { clock }, [domain]);
  const stream = workloadApiClient(t, spiffe.endpoint('web')).stream('fetchX509SVID');
  const first = await stream.next();

  clock.jump(3_600_000);
  clock.advance(10_000);
  const afterSleep = await stream.next();
  await eventually(() => assert.equal(clock.armed, 1));
  await advanceBy(clock, 60_000);
  const afterPeriod = await stream.next();

  const serials = [first, afterSleep, afterPeriod].map(({ svids }) => certificatesIn(svids[0]?.x509Svid)[0]?.serialNumber);
  assert.equal(new Set(serials).size, 3);
});

test('a new root is in every bundle before it signs anything, and the old one stays until it is retired', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', intermediates: 1, workloads: { web: [WEB] } });
  const stream = workloadApiClient(t, spiffe.endpoint('web')).stream('fetchX509SVID');
  const [oldRoot] = certificatesIn((await stream.next()).svids[0]?.bundle);

  await spiffe.rotateRoot('example.org');
  const prepared = (await stream.next()).svids[0];
  const activated = (await stream.next()).svids[0];
  await spiffe.retireRoots('example.org');
  const retired = (await stream.next()).svids[0];

  const [first, newRoot] = certificatesIn(prepared?.bundle);
  assert.deepEqual(first?.raw, oldRoot?.raw);
  assert.equal(isSignedBelow(prepared?.x509Svid, oldRoot), true);
  assert.equal(certificatesIn(activated?.bundle).length, 2);
  assert.equal(isSignedBelow(activated?.x509Svid, newRoot), true);
  assert.deepEqual(
    certificatesIn(retired?.bundle).map(({ raw }) => raw),
    [newRoot?.raw],
  );
  assert.deepEqual(retired?.x509Svid, activated?.x509Svid);
});

test('an authority is followed by a new one at half of its life, and leaves the bundle when it expires', async (t) => {
  const clock = new FakeClock();
  const domain = { name: 'example.org', svidLife: '10s', rotateEvery: '5s', authorityLife: '20s', workloads: { web: [WEB] } };
  const spiffe = await startDevDomainWith(t, { clock }, [domain]);
  const stream = workloadApiClient(t, spiffe.endpoint('web')).stream('fetchX509SVID');
  const known: string[] = [];
  const seen: string[] = [];

  for (let step = 0; step < 5; step += 1) {
    const svid = (await stream.next()).svids[0];
    const roots = certificatesIn(svid?.bundle);
    for (const { fingerprint256 } of roots) if (!known.includes(fingerprint256)) known.push(fingerprint256);
    const signer = roots.find((root) => isSignedBelow(svid?.x509Svid, root));
    const letter = (root: X509Certificate | undefined): string => 'ABCDE'.charAt(known.indexOf(root?.fingerprint256 ?? ''));
    seen.push(`${letter(signer)} of ${roots.map(letter).join('')}`);
    await eventually(() => assert.equal(clock.armed, 1));
    clock.advance(5000);
  }

  assert.deepEqual(seen, ['A of A', 'A of A', 'A of AB', 'B of AB', 'B of BC']);
});

test('federation gives each side the bundle of the other, and only while it is configured', async (t) => {
  const spiffe = await startDevDomain(
    t,
    { name: 'example.org', federatesWith: ['partner.org'], workloads: { web: [WEB] } },
    { name: 'partner.org', workloads: { db: ['spiffe://partner.org/db'] } },
  );
  const ours = workloadApiClient(t, spiffe.endpoint('web'));
  const theirs = workloadApiClient(t, spiffe.endpoint('db'));
  const ourStream = ours.stream('fetchX509SVID');
  const theirStream = theirs.stream('fetchX509SVID');

  const ourFirst = await ourStream.next();
  const theirFirst = await theirStream.next();
  await spiffe.setFederation('partner.org', ['example.org']);
  const theirSecond = await theirStream.next();
  await spiffe.setFederation('example.org', []);
  const ourSecond = await ourStream.next();

  assert.deepEqual(Object.keys(ourFirst.federatedBundles), ['spiffe://partner.org']);
  assert.deepEqual(ourFirst.federatedBundles['spiffe://partner.org'], theirFirst.svids[0]?.bundle);
  assert.deepEqual(theirFirst.federatedBundles, {});
  assert.deepEqual(theirSecond.federatedBundles, { 'spiffe://example.org': ourFirst.svids[0]?.bundle });
  assert.deepEqual(ourSecond.federatedBundles, {});
  const bundles = await theirs.stream('fetchX509Bundles').next();
  assert.deepEqual(Object.keys(bundles.bundles).toSorted(), ['spiffe://example.org', 'spiffe://partner.org']);
  const jwtBundles = await theirs.stream('fetchJWTBundles').next();
  assert.deepEqual(Object.keys(jwtBundles.bundles).toSorted(), ['spiffe://example.org', 'spiffe://partner.org']);
});

test('a rotation of a federated root reaches the other trust domain', async (t) => {
  const spiffe = await startDevDomain(
    t,
    { name: 'example.org', federatesWith: ['partner.org'], workloads: { web: [WEB] } },
    { name: 'partner.org' },
  );
  const stream = workloadApiClient(t, spiffe.endpoint('web')).stream('fetchX509SVID');
  const before = await stream.next();

  await spiffe.rotateRoot('partner.org');
  const after = await stream.next();

  assert.equal(certificatesIn(after.federatedBundles['spiffe://partner.org']).length, 2);
  assert.deepEqual(after.svids[0]?.x509Svid, before.svids[0]?.x509Svid);
});

test('a withdrawn workload is refused with PermissionDenied everywhere, until it is restored', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB], none: [] } });
  const client = workloadApiClient(t, spiffe.endpoint('web'));
  const stream = client.stream('fetchX509SVID');
  await stream.next();

  await spiffe.withdraw('web');

  const denied = hasStatus(status.PERMISSION_DENIED);
  await assert.rejects(stream.next(), denied);
  for (const caller of [client, workloadApiClient(t, spiffe.endpoint('none'))]) {
    await assert.rejects(caller.stream('fetchX509SVID').next(), denied);
    await assert.rejects(caller.stream('fetchX509Bundles').next(), denied);
    await assert.rejects(caller.stream('fetchJWTBundles').next(), denied);
    await assert.rejects(caller.call('fetchJWTSVID', { audience: ['a'] }), denied);
    await assert.rejects(caller.call('validateJWTSVID', { audience: 'a', svid: 'x.y.z' }), denied);
  }
  await spiffe.restore('web');
  assert.equal((await client.stream('fetchX509SVID').next()).svids.length, 1);
});

test('a workload without an identity may have bundles where that is configured', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', bundlesWithoutIdentity: true, workloads: { none: [] } });
  const client = workloadApiClient(t, spiffe.endpoint('none'));

  const { bundles } = await client.stream('fetchX509Bundles').next();

  assert.equal(certificatesIn(bundles['spiffe://example.org']).length, 1);
  await assert.rejects(client.stream('fetchX509SVID').next(), hasStatus(status.PERMISSION_DENIED));
});

test('a revoked SVID is on a list that its authority signed', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', intermediates: 1, workloads: { web: [WEB] } });
  const stream = workloadApiClient(t, spiffe.endpoint('web')).stream('fetchX509SVID');
  assert.deepEqual((await stream.next()).crl, []);
  const svid = await spiffe.issue(WEB);

  await spiffe.revoke('example.org', svid.serial);
  const { crl } = await stream.next();
  // Once more changes nothing.
  await spiffe.revoke('example.org', svid.serial);

  assert.equal(crl.length, 1);
  assert.deepEqual(parseCrl(crl[0] ?? new Uint8Array()).ok, true);
  const folder = await mkdtemp(join(tmpdir(), 'scute-crl-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, 'crl.der'), crl[0] ?? '');
  await writeFile(join(folder, 'chain.pem'), svid.chainPem);
  await writeFile(join(folder, 'signer.pem'), toPem(svid.chainDer[1] ?? new Uint8Array()));
  const args = ['crl', '-inform', 'DER', '-in', join(folder, 'crl.der'), '-CAfile', join(folder, 'signer.pem'), '-noout', '-text'];
  const { stdout, stderr } = await promisify(execFile)('openssl', args);
  assert.match(stderr, /verify OK/);
  assert.ok(stdout.includes(`Serial Number: ${Buffer.from(svid.serial).toString('hex').toUpperCase()}`));
});

test('stopping ends open streams with Unavailable', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const stream = workloadApiClient(t, spiffe.endpoint('web')).stream('fetchX509SVID');
  await stream.next();

  const ended = assert.rejects(stream.next(), hasStatus(status.UNAVAILABLE));
  await spiffe.stop(AbortSignal.timeout(60_000));

  await ended;
});

test('streams that are ended can be opened again', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const client = workloadApiClient(t, spiffe.endpoint('web'));
  const stream = client.stream('fetchX509SVID');
  await stream.next();

  const ended = assert.rejects(stream.next(), hasStatus(status.UNAVAILABLE));
  spiffe.endStreams('web');

  await ended;
  assert.equal((await client.stream('fetchX509SVID').next()).svids.length, 1);
});

test('a reader that was too slow gets the newest state instead of all that it missed', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const stream = workloadApiClient(t, spiffe.endpoint('web')).stream('fetchX509SVID');
  await stream.next();
  const rounds = 500;
  const padding = new Uint8Array(100_000);

  for (let round = 1; round <= rounds; round += 1) {
    const message = create(X509SVIDResponseSchema, { svids: [{ hint: String(round) }], crl: [padding] });
    spiffe.answers('web').x509Svids.set({ kind: 'message', message });
  }
  const received: number[] = [];
  while (received.at(-1) !== rounds) received.push(Number((await stream.next()).svids[0]?.hint));

  assert.ok(received.length < rounds / 2, `${received.length} of ${rounds} messages came`);
});

test('WIT-SVID calls are answered Unimplemented', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const client = new Client(spiffe.endpoint('web'), credentials.createInsecure());
  t.after(() => client.close());
  const metadata = new Metadata();
  metadata.set('workload.spiffe.io', 'true');

  const call = client.makeServerStreamRequest(
    '/SpiffeWorkloadAPI/FetchWITSVID',
    () => Buffer.alloc(0),
    (bytes) => bytes,
    {},
    metadata,
  );

  await assert.rejects(call[Symbol.asyncIterator]().next(), hasStatus(status.UNIMPLEMENTED));
});

test('the Workload API is served on a loopback port where that is configured', async (t) => {
  const config = devConfigSchema.parse({
    trustDomains: [{ name: 'example.org', workloads: [{ name: 'web', unsafeTcpPort: 0, ids: [WEB] }] }],
  });
  const spiffe = createDevDomain(config, { clock: systemClock, onFailure: (failure) => assert.ifError(failure) });
  await spiffe.start(new AbortController().signal);
  t.after(() => spiffe.stop(AbortSignal.abort()));

  assert.match(spiffe.endpoint('web'), /^tcp:\/\/127\.0\.0\.1:\d+$/);
  const { svids } = await workloadApiClient(t, spiffe.endpoint('web')).stream('fetchX509SVID').next();

  assert.equal(svids[0]?.spiffeId, WEB);
});

test('a test may set what a workload is told, until the next change', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const stream = workloadApiClient(t, spiffe.endpoint('web')).stream('fetchX509SVID');
  await stream.next();

  spiffe.answers('web').x509Svids.set({ kind: 'message', message: create(X509SVIDResponseSchema) });
  const garbage = await stream.next();
  await spiffe.rotate();
  const healed = await stream.next();

  assert.deepEqual(garbage.svids, []);
  assert.equal(healed.svids.length, 1);
});

/** In steps, because a timer is armed again only when what it started has ended. */
async function advanceBy(clock: FakeClock, ms: number): Promise<void> {
  const stepMs = 10_000;
  for (let passed = 0; passed < ms; passed += stepMs) {
    clock.advance(stepMs);
    await eventually(() => assert.equal(clock.armed, 1));
  }
}

/** Certificates in concatenated DER. */
function certificatesIn(concatenated: Uint8Array | undefined): X509Certificate[] {
  const found: X509Certificate[] = [];
  for (let rest = Buffer.from(concatenated ?? []); rest.length > 0;) {
    const certificate = new X509Certificate(rest);
    found.push(certificate);
    rest = rest.subarray(certificate.raw.length);
  }
  return found;
}

function isSignedBelow(chain: Uint8Array | undefined, root: X509Certificate | undefined): boolean {
  const certificates = certificatesIn(chain);
  return certificates.every((certificate, index) => {
    const issuer = certificates[index + 1] ?? root;
    return issuer !== undefined && certificate.verify(issuer.publicKey);
  });
}
