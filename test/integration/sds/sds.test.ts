import assert from 'node:assert/strict';
import { chmod, chown, readdir, readFile, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { test, type TestContext } from 'node:test';
import { policyFrom, policyOf } from '../../support/policy/policies.ts';
import { status, type Client } from '@grpc/grpc-js';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { deltaSecretsOf, fetchSecrets, openDelta, openSotw, SECRET_TYPE, sdsClient, secretsOf, startSds } from '../../support/sds.ts';
import { heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const own = createTestAuthority({ trustDomain: 'example.org' });
const partner = createTestAuthority({ trustDomain: 'partner.example' });

function identity(...ids: readonly string[]) {
  const [first = WEB, ...others] = ids;
  return heldSnapshot([svidOf(own, first), ...others.map((id) => svidOf(own, id))], [own, partner]);
}

const NONE = { kind: 'none', reason: 'no identity issued', generation: 1, receivedAtMs: 0, bundles: new Map() } as const;

test('a client subscribes, acknowledges, and is sent each rotation', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  const stream = openSotw(sdsClient(t, sds.target));

  stream.send({ resourceNames: ['default'], node: { id: 'envoy-1' } });
  const first = await stream.next();
  stream.send({ resourceNames: ['default'], responseNonce: first.nonce, versionInfo: first.versionInfo });
  await eventually(() => assert.equal(sds.metrics.sds.accepted.sotw, 1));
  sds.publish(identity());
  const second = await stream.next();

  assert.deepEqual(
    [first, second].map((response) => secretsOf(response).map(({ name }) => name)),
    [['default'], ['default']],
  );
  assert.notEqual(first.versionInfo, second.versionInfo);
  assert.notEqual(first.nonce, second.nonce);
  assert.notEqual(secretsOf(first)[0]?.certificate?.chain, secretsOf(second)[0]?.certificate?.chain);
  await eventually(() => assert.ok(sds.log().some((line) => line['message'] === 'secrets pushed' && line['secrets'] === 1)));
});

test('the delta variant: subscription, rotation, removal and return', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity(WEB, API));
  const stream = openDelta(sdsClient(t, sds.target));

  stream.send({ resourceNamesSubscribe: [API, 'spiffe://example.org/later'], node: { id: 'envoy-1' } });
  const first = await stream.next();
  assert.deepEqual(
    deltaSecretsOf(first).map(({ name }) => name),
    [API],
  );
  assert.deepEqual(first.removedResources, ['spiffe://example.org/later']);
  assert.equal(first.typeUrl, SECRET_TYPE);
  sds.publish(identity(WEB, 'spiffe://example.org/later'));
  const second = await stream.next();
  assert.deepEqual(
    deltaSecretsOf(second).map(({ name }) => name),
    ['spiffe://example.org/later'],
  );
  assert.deepEqual(second.removedResources, [API]);
  assert.notEqual(first.resources[0]?.version, second.resources[0]?.version);
});

test('the aggregated service serves secrets, and says of other types that there are none', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  const client = sdsClient(t, sds.target);
  const clusters = 'type.googleapis.com/envoy.config.cluster.v3.Cluster';

  const sotw = openSotw(client, true);
  sotw.send({ typeUrl: clusters, node: { id: 'envoy-1' } });
  const empty = await sotw.next();
  assert.deepEqual([empty.typeUrl, empty.resources, empty.nonce !== ''], [clusters, [], true]);
  sotw.send({ typeUrl: clusters, responseNonce: empty.nonce, versionInfo: empty.versionInfo });
  sotw.send({ resourceNames: ['default', 'ROOTCA'] });
  assert.deepEqual(
    secretsOf(await sotw.next()).map(({ name }) => name),
    ['ROOTCA', 'default'],
  );
  sotw.send({ typeUrl: 'type.googleapis.com/envoy.config.route.v3.RouteConfiguration', resourceNames: ['route'] });
  assert.deepEqual((await sotw.next()).resources, []);

  const delta = openDelta(client, true);
  delta.send({ typeUrl: clusters });
  assert.deepEqual((await delta.next()).resources, []);
  delta.send({ typeUrl: clusters, resourceNamesSubscribe: ['one'] });
  assert.deepEqual((await delta.next()).removedResources, ['one']);
  delta.send({ resourceNamesSubscribe: ['default'] });
  assert.deepEqual(
    deltaSecretsOf(await delta.next()).map(({ name }) => name),
    ['default'],
  );
});

test('a type that is not served ends the stream with INVALID_ARGUMENT, and a unary call likewise', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  const client = sdsClient(t, sds.target);

  for (const stream of [openSotw(client), openDelta(client)]) {
    stream.send({ typeUrl: 'type.googleapis.com/envoy.config.cluster.v3.Cluster' });
    const { code, details } = await stream.ended;
    assert.equal(code, status.INVALID_ARGUMENT);
    assert.match(details, /envoy\.config\.cluster\.v3\.Cluster/);
  }
  const { error } = await fetchSecrets(client, { typeUrl: 'nonsense', resourceNames: ['default'] });
  assert.equal(error?.code, status.INVALID_ARGUMENT);
  const aggregated = openSotw(client, true);
  aggregated.send({ typeUrl: '' });
  assert.equal((await aggregated.ended).code, status.INVALID_ARGUMENT);
  const implied = openSotw(client);
  implied.send({ typeUrl: '', resourceNames: ['default'] });
  assert.equal((await implied.next()).typeUrl, SECRET_TYPE);
});

test('FetchSecrets answers once: names, everything, nothing of the kind, and too early', async (t) => {
  const sds = await startSds(t);
  const client = sdsClient(t, sds.target);

  assert.equal((await fetchSecrets(client, { resourceNames: ['default'] })).error?.code, status.UNAVAILABLE);
  sds.publish(identity(WEB, API));
  const { response } = await fetchSecrets(client, { resourceNames: ['default', 'ROOTCA', 'file-root:/x'] });
  assert.ok(response !== undefined);
  assert.deepEqual([response.versionInfo, response.nonce, response.typeUrl], ['', '', SECRET_TYPE]);
  assert.deepEqual(
    secretsOf(response).map(({ name }) => name),
    ['default', 'ROOTCA'],
  );
  const everything = await fetchSecrets(client, {});
  assert.deepEqual(
    secretsOf(everything.response ?? assert.fail()).map(({ name }) => name),
    ['spiffe://example.org', 'spiffe://partner.example', WEB, API],
  );
  const unknown = await fetchSecrets(client, { resourceNames: ['z', 'a'] });
  assert.equal(unknown.error?.code, status.NOT_FOUND);
  assert.match(unknown.error.details, /"a", "z"/);
});

test('A.7 FetchSecrets: an answer has neither version nor nonce, and the type of secrets; the SPIRE agent echoes any type, which differs', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  const client = sdsClient(t, sds.target);

  for (const typeUrl of ['', SECRET_TYPE]) {
    const { response } = await fetchSecrets(client, { typeUrl, resourceNames: ['default'], versionInfo: 'of before', responseNonce: 'n' });
    assert.deepEqual([response?.versionInfo, response?.nonce, response?.typeUrl], ['', '', SECRET_TYPE]);
  }
  assert.equal((await fetchSecrets(client, { typeUrl: 'echo', resourceNames: ['default'] })).error?.code, status.INVALID_ARGUMENT);
});

test('A.7 ErrInSubscribe, differs: without an answer of the Workload API streams wait in silence, and FetchSecrets is UNAVAILABLE', async (t) => {
  const sds = await startSds(t);
  const client = sdsClient(t, sds.target);
  const [sotw, delta] = [openSotw(client), openDelta(client)];
  sotw.send({ resourceNames: ['default'] });
  delta.send({ resourceNamesSubscribe: ['default'] });
  await eventually(() => assert.ok(sds.server.streams().every(({ state }) => state.names.has('default'))));

  assert.equal((await fetchSecrets(client, { resourceNames: ['default'] })).error?.code, status.UNAVAILABLE);
  assert.deepEqual([sotw.waiting(), delta.waiting()], [[], []]);

  sds.publish(identity());
  assert.equal(secretsOf(await sotw.next()).length, 1);
  assert.equal(deltaSecretsOf(await delta.next()).length, 1);
});

test('F.5.10: PermissionDenied of the Workload API: delta hears of the removal, a stream lives through it, and all comes back', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  const client = sdsClient(t, sds.target);
  const [sotw, delta] = [openSotw(client), openDelta(client)];
  sotw.send({ resourceNames: ['default'] });
  delta.send({ resourceNamesSubscribe: ['default'] });
  const before = await sotw.next();
  await delta.next();

  sds.publish(NONE);
  assert.deepEqual((await delta.next()).removedResources, ['default']);
  assert.deepEqual(sotw.waiting(), []);
  sds.publish(identity());
  assert.notEqual((await sotw.next()).versionInfo, before.versionInfo);
  assert.deepEqual(
    deltaSecretsOf(await delta.next()).map(({ name }) => name),
    ['default'],
  );
  assert.ok(sds.log().some((line) => line['message'] === 'a secret that was sent is withdrawn' && line['name'] === 'default'));
});

test('an SVID is withdrawn when it expires, though nothing new comes', async (t) => {
  const clock = new FakeClock();
  const sds = await startSds(t, { clock });
  const nowMs = clock.now();
  sds.publish(heldSnapshot([svidOf(own, WEB, { notBefore: nowMs - 10_000, notAfter: nowMs + 60_000 })], [own]));
  const stream = openDelta(sdsClient(t, sds.target));
  stream.send({ resourceNamesSubscribe: ['default', 'ROOTCA'] });
  await stream.next();

  clock.advance(61_000);

  assert.deepEqual((await stream.next()).removedResources, ['default']);
});

test('an SVID is withdrawn within a second where the clock is set to after its time, and is back where that was wrong', async (t) => {
  const clock = new FakeClock();
  const sds = await startSds(t, { clock });
  sds.publish(heldSnapshot([svidOf(own, WEB, { notBefore: clock.now() - 10_000, notAfter: clock.now() + 60_000 })], [own]));
  const stream = openDelta(sdsClient(t, sds.target));
  stream.send({ resourceNamesSubscribe: ['default'] });
  await stream.next();

  clock.jump(61_000);
  clock.advance(1000);
  assert.deepEqual((await stream.next()).removedResources, ['default']);
  clock.jump(-61_000);
  clock.advance(1000);
  assert.deepEqual(
    deltaSecretsOf(await stream.next()).map(({ name }) => name),
    ['default'],
  );
});

test('F.5.8: snapshots that come faster than they can be told become few pushes, and the last one counts, over both protocols', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  const client = sdsClient(t, sds.target);
  const [sotw, delta] = [openSotw(client), openDelta(client)];
  sotw.send({ resourceNames: ['default'] });
  delta.send({ resourceNamesSubscribe: ['default'] });
  await Promise.all([sotw.next(), delta.next()]);

  const last = identity();
  for (let count = 0; count < 20; count += 1) sds.publish(identity());
  sds.publish(last);

  const newest = last.svids[0].chain[0]?.pem();
  for (const next of [async () => secretsOf(await sotw.next()), async () => deltaSecretsOf(await delta.next())]) {
    let pushes = 0;
    for (;;) {
      pushes += 1;
      if ((await next())[0]?.certificate?.chain === newest) break;
    }
    assert.ok(pushes <= 3, `${pushes} pushes`);
  }
});

test('F.5.8: the same content is not sent twice, over both protocols', async (t) => {
  const sds = await startSds(t);
  const first = identity();
  sds.publish(first);
  const client = sdsClient(t, sds.target);
  const [sotw, delta] = [openSotw(client), openDelta(client)];
  sotw.send({ resourceNames: ['default', 'ALL'] });
  delta.send({ resourceNamesSubscribe: ['default', 'ALL'] });
  await Promise.all([sotw.next(), delta.next()]);

  sds.publish(first);
  sds.publish({ ...first, receivedAtMs: 1 });
  sds.publish(identity());

  for (const secrets of [secretsOf(await sotw.next()), deltaSecretsOf(await delta.next())])
    assert.deepEqual(
      secrets.map(({ name }) => name),
      ['default'],
    );
});

test('over all streams bundles go out before the certificates of a new authority', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  const client = sdsClient(t, sds.target);
  const order: string[] = [];
  const streams = [];
  for (let count = 0; count < 40; count += 1) {
    const name = count % 2 === 0 ? 'default' : 'ROOTCA';
    const stream = openSotw(client);
    stream.send({ resourceNames: [name] });
    await stream.next();
    stream.call.on('data', () => order.push(name));
    streams.push(stream);
  }

  const next = createTestAuthority({ trustDomain: 'example.org' });
  sds.publish(heldSnapshot([svidOf(next, WEB)], [next, partner]));
  for (const stream of streams) await stream.next();

  assert.deepEqual(order, [...Array.from({ length: 20 }, () => 'ROOTCA'), ...Array.from({ length: 20 }, () => 'default')]);
});

test('nothing pulls the certificate of a new authority ahead of the bundle: no acknowledgement, new stream or unary request', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  const [certificate, bundle] = [openSotw(sdsClient(t, sds.target)), openSotw(sdsClient(t, sds.target))];
  certificate.send({ resourceNames: ['default'] });
  bundle.send({ resourceNames: ['ROOTCA'] });
  await certificate.next();
  await bundle.next();
  // A rotation, after which the next one waits a little.
  sds.publish(identity());
  const rotated = await certificate.next();
  const authority = createTestAuthority({ trustDomain: 'example.org' });
  const order: string[] = [];

  sds.publish(heldSnapshot([svidOf(authority, WEB)], [authority]));
  certificate.send({ resourceNames: ['default'], responseNonce: rotated.nonce });
  const fresh = openSotw(sdsClient(t, sds.target));
  fresh.send({ resourceNames: ['default'] });
  const freshDelta = openDelta(sdsClient(t, sds.target));
  freshDelta.send({ resourceNamesSubscribe: ['default'] });
  await Promise.all([
    certificate.next().then(() => order.push('certificate')),
    fresh.next().then(() => order.push('new stream')),
    freshDelta.next().then(() => order.push('new delta stream')),
    fetchSecrets(sdsClient(t, sds.target), { resourceNames: ['default'] }).then(() => order.push('unary')),
    bundle.next().then(() => order.push('bundle')),
  ]);

  assert.equal(order[0], 'bundle', order.join(', '));
  assert.equal(order.length, 5);
});

test('snapshots without end hold no certificate back for long', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  const [certificate, bundle] = [openSotw(sdsClient(t, sds.target)), openSotw(sdsClient(t, sds.target))];
  certificate.send({ resourceNames: ['default'] });
  bundle.send({ resourceNames: ['ROOTCA'] });
  await Promise.all([certificate.next(), bundle.next()]);
  const timer = setInterval(() => {
    const authority = createTestAuthority({ trustDomain: 'example.org' });
    sds.publish(heldSnapshot([svidOf(authority, WEB)], [authority]));
  }, 15);
  t.after(() => clearInterval(timer));

  for (let count = 0; count < 3; count += 1) await certificate.next();
});

test('a changed allow list is a changed secret, and an emptied one a removed one', async (t) => {
  const listOf = (...entries: string[]) => new Map([['ROOTCA', policyOf(...entries)]]);
  let allow = listOf(WEB);
  const sds = await startSds(t, { policies: () => allow });
  sds.publish(identity());
  const stream = openDelta(sdsClient(t, sds.target));
  stream.send({ resourceNamesSubscribe: ['ROOTCA'] });
  assert.deepEqual(deltaSecretsOf(await stream.next())[0]?.matchers, [`exact ${WEB}`]);

  allow = listOf(API);
  sds.server.policyChanged();
  assert.deepEqual(deltaSecretsOf(await stream.next())[0]?.matchers, [`exact ${API}`]);
  allow = listOf();
  sds.server.policyChanged();
  assert.deepEqual((await stream.next()).removedResources, ['ROOTCA']);
  await eventually(() => assert.equal(sds.metrics.sds.missing.empty_allow_list, 1));
});

/** What a list of nobody is to Envoy: a matcher that matches nothing. */
const NOBODY = ['regex [^\\s\\S]'];

/** An SDS server with rules whose times are so many seconds from now, its clock, a subscriber, and what one who asks now is given. */
async function startTimed(t: TestContext, ...rules: readonly { readonly peer: string; readonly from: number; readonly to: number }[]) {
  const clock = new FakeClock();
  const startMs = clock.now();
  const allow = rules.map(({ peer, from, to }) => ({ peer, notBeforeMs: startMs + from * 1000, notAfterMs: startMs + to * 1000 }));
  const policies = new Map([['ROOTCA', policyFrom({ allow })]]);
  const sds = await startSds(t, { clock, policies: () => policies });
  sds.publish(identity());
  const [client, stream] = [sdsClient(t, sds.target), openDelta(sdsClient(t, sds.target))];
  stream.send({ resourceNamesSubscribe: ['ROOTCA'] });
  const pushed = async () => deltaSecretsOf(await stream.next())[0]?.matchers;
  const asked = async () => {
    const { response } = await fetchSecrets(client, { resourceNames: ['ROOTCA'] });
    return response === undefined ? undefined : secretsOf(response)[0]?.matchers;
  };
  return { clock, pushed, asked, stream, sds };
}

test('a rule that begins or ends is another list at that moment; where none holds, it is one of nobody, and does not go away', async (t) => {
  const { clock, pushed, asked, stream } = await startTimed(
    t,
    { peer: WEB, from: 10.5, to: 20 },
    { peer: WEB, from: 15, to: 30 },
    { peer: API, from: 25, to: 30 },
  );
  assert.deepEqual(await pushed(), NOBODY);

  clock.advance(10_499);
  assert.deepEqual(await asked(), NOBODY);
  clock.advance(1);
  assert.deepEqual(await pushed(), [`exact ${WEB}`]);
  // Another rule for the same peer begins, and then this one ends: that changes nothing, and nothing is sent.
  clock.advance(4500);
  assert.deepEqual(await asked(), [`exact ${WEB}`]);
  clock.advance(9999);
  assert.deepEqual(await asked(), [`exact ${WEB}`]);
  assert.deepEqual(stream.waiting(), []);
  clock.advance(1);
  assert.deepEqual(await pushed(), [`exact ${API}`, `exact ${WEB}`]);
  clock.advance(5000);
  assert.deepEqual(await pushed(), NOBODY);
});

test('F.5.6: a list that a client rejects is not sent again while it stays the same, and the next one is', async (t) => {
  const { clock, pushed, stream, asked, sds } = await startTimed(
    t,
    { peer: WEB, from: 0, to: 10 },
    { peer: WEB, from: 5, to: 20 },
    { peer: API, from: 10, to: 20 },
  );
  const { nonce, resources } = await stream.next();
  assert.deepEqual(deltaSecretsOf({ resources })[0]?.matchers, [`exact ${WEB}`]);
  stream.send({ responseNonce: nonce, errorDetail: { code: 13, message: 'no good' } });
  await eventually(() => assert.equal(sds.metrics.sds.rejected.delta, 1));

  clock.advance(5000);
  assert.deepEqual(await asked(), [`exact ${WEB}`]);
  clock.advance(4999);
  assert.deepEqual(stream.waiting(), []);
  clock.advance(1);
  assert.deepEqual(await pushed(), [`exact ${API}`, `exact ${WEB}`]);
  assert.deepEqual(stream.waiting(), []);
});

test('a clock that is set, forth or back, changes the list within a second', async (t) => {
  const { clock, pushed } = await startTimed(t, { peer: WEB, from: 3600, to: 7200 });
  assert.deepEqual(await pushed(), NOBODY);

  for (const [jumpMs, list] of [
    [5_000_000, [`exact ${WEB}`]],
    [5_000_000, NOBODY],
    [-5_000_000, [`exact ${WEB}`]],
    [-3_000_000, NOBODY],
  ] as const) {
    clock.jump(jumpMs);
    clock.advance(1000);
    assert.deepEqual(await pushed(), list, String(jumpMs));
  }
});

test('who asks at a moment is given the list of that moment, though no timer has fired since the clock came to it, or was set back', async (t) => {
  const { clock, pushed, asked, sds } = await startTimed(t, { peer: WEB, from: 0, to: 10 });
  assert.deepEqual(await pushed(), [`exact ${WEB}`]);

  clock.jump(10_000);
  assert.deepEqual(await asked(), NOBODY);
  // So long pushes rest.
  clock.advance(100);
  assert.deepEqual(await pushed(), NOBODY);
  clock.jump(-5000);
  const stream = openDelta(sdsClient(t, sds.target));
  stream.send({ resourceNamesSubscribe: ['ROOTCA'] });
  assert.deepEqual(deltaSecretsOf(await stream.next())[0]?.matchers, [`exact ${WEB}`]);
  clock.advance(100);
  assert.deepEqual(await pushed(), [`exact ${WEB}`]);
  clock.jump(-100_000);
  assert.deepEqual(await asked(), NOBODY);
});

test('A.7.8, A.7.11: strictUnknownNames ends a stream, and refuses a unary call, with the statuses of the SPIRE agent', async (t) => {
  const sds = await startSds(t, { sds: { strictUnknownNames: true, disableSpiffeCertValidation: true } });
  sds.publish(identity());
  const client = sdsClient(t, sds.target);

  for (const [names, code, details] of [
    [['default', 'z', 'a"b'], status.INVALID_ARGUMENT, 'not served: "a\\"b", "z"'],
    [['default', 'spiffe://example.org/other'], status.INVALID_ARGUMENT, 'not served: "spiffe://example.org/other"'],
    [['default', 'ALL'], status.INTERNAL, 'not served: "ALL"'],
    [['ALL', 'nobody'], status.INVALID_ARGUMENT, 'not served: "ALL", "nobody"'],
  ] as const) {
    const streams = [openSotw(client), openDelta(client), openSotw(client, true), openDelta(client, true)] as const;
    for (const at of [0, 2] as const) streams[at].send({ resourceNames: [...names] });
    for (const at of [1, 3] as const) streams[at].send({ resourceNamesSubscribe: [...names] });
    for (const stream of streams) {
      const ended = await stream.ended;
      assert.deepEqual([ended.code, ended.details, stream.waiting()], [code, details, []]);
    }
    const { error } = await fetchSecrets(client, { resourceNames: [...names] });
    assert.deepEqual([error?.code, error?.details], [code, details]);
  }
});

test('F.5.12: a stop ends all streams at once with UNAVAILABLE, and removes the socket', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  const client = sdsClient(t, sds.target);
  const streams = [openSotw(client), openDelta(client), openSotw(client, true)];
  await eventually(() => assert.equal(sds.server.streams().length, 3));

  const begin = performance.now();
  await sds.server.stop(AbortSignal.timeout(60_000));

  for (const stream of streams) {
    // Its own words: a client invents a status of this code where a connection is cut.
    const { code, details } = await stream.ended;
    assert.deepEqual([code, details], [status.UNAVAILABLE, 'Scute is stopping']);
  }
  assert.ok(performance.now() - begin < 20_000);
  await assert.rejects(stat(sds.path), { code: 'ENOENT' });
  assert.equal(sds.metrics.sds.connections, 0);
  assert.deepEqual(sds.metrics.sds.streams, { sotw: 0, delta: 0 });
});

test('F.5.12: a stop reaches clients that were served and that opened their streams a moment ago', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  const client = sdsClient(t, sds.target);
  const served = Array.from({ length: 20 }, () => openSotw(client));
  for (const stream of served) {
    stream.send({ resourceNames: ['default', 'ROOTCA'] });
    await stream.next();
  }

  const begin = performance.now();
  const stopped = sds.server.stop(AbortSignal.timeout(60_000));
  const [first] = served;
  const again = first?.ended.then(() => {
    const stream = openSotw(client);
    stream.send({ resourceNames: ['default'] });
    return stream;
  });

  for (const { ended } of served) assert.equal((await ended).details, 'Scute is stopping');
  await stopped;
  assert.ok(performance.now() - begin < 20_000);
  const last = await again;
  assert.deepEqual([(await last?.ended)?.code, last?.waiting()], [status.UNAVAILABLE, []], 'who comes back is not served any more');
});

for (const [what, open] of [
  ['state of the world', openSotw],
  ['delta', openDelta],
  ['state of the world, aggregated', (client: Client) => openSotw(client, true)],
  ['delta, aggregated', (client: Client) => openDelta(client, true)],
] as const) {
  test(`F.5.12: a client that ends its side is answered with OK, served or not: ${what}`, async (t) => {
    const sds = await startSds(t);
    sds.publish(identity());
    const client = sdsClient(t, sds.target);
    const [served, silent] = [open(client), open(client)];
    served.send({ resourceNames: ['default'], resourceNamesSubscribe: ['default'] });
    await served.next();

    for (const stream of [served, silent]) {
      stream.call.end();
      const { code, details } = await stream.ended;
      assert.deepEqual([code, details], [status.OK, 'OK']);
    }

    await eventually(() => assert.equal(sds.server.streams().length, 0));
    assert.ok(sds.log().every(({ level }) => level !== 'warn' && level !== 'error'));
  });
}

for (const [what, open] of [
  ['state of the world', openSotw],
  ['delta', openDelta],
  ['state of the world, aggregated', (client: Client) => openSotw(client, true)],
  ['delta, aggregated', (client: Client) => openDelta(client, true)],
] as const) {
  test(`a client that asks and ends its side at once is answered first, also where the answer has to wait: ${what}`, async (t) => {
    const sds = await startSds(t);
    const ask = (names: readonly string[]) => {
      const stream = open(sdsClient(t, sds.target));
      stream.send({ resourceNames: [...names], resourceNamesSubscribe: [...names] });
      stream.call.end();
      return stream;
    };
    const early = [ask(['default', 'ROOTCA']), ask([])];
    await eventually(() => assert.ok(sds.server.streams().filter(({ state }) => state.isSubscribed).length === early.length));
    // The first identity, and rotations close enough to each other that certificates are held back.
    const late = [];
    for (let round = 0; round < 3; round += 1) {
      const rotated = identity();
      sds.publish(rotated);
      late.push(ask(['default']), ask(['default', 'ROOTCA']));
      await new Promise((resolve) => setImmediate(resolve));
    }

    for (const stream of [...early, ...late]) {
      const { code } = await stream.ended;
      assert.deepEqual([code, stream.waiting().length], [status.OK, 1]);
    }
    await eventually(() => assert.equal(sds.server.streams().length, 0));
  });
}

test('the socket is of the group that the configuration says, by number or by name', async (t) => {
  // Of a group that we are in besides our own, if there is one; root may give a file to any.
  const own = process.getgid?.() ?? 0;
  const gid = process.getuid?.() === 0 ? 12_345 : (process.getgroups?.().find((group) => group !== own) ?? own);

  const sds = await startSds(t, { sds: { socketMode: '0660', socketGroup: gid } });

  const { gid: found, mode } = await stat(sds.path);
  assert.deepEqual([found, mode & 0o777], [gid, 0o660]);
  assert.equal((await stat((await startSds(t)).path)).gid, own, 'of the process, if nothing is said');
  await assert.rejects(startSds(t, { sds: { socketGroup: 'no-such-group' } }), /there is no group "no-such-group"/);
  const [, name = '', , number] = /^([^:\n]+):([^:\n]*):(\d+):/m.exec(await readFile('/etc/group', 'utf8').catch(() => '')) ?? [];
  if (Number(number) !== gid && process.getuid?.() !== 0) return;
  const named = await startSds(t, { sds: { socketMode: '0660', socketGroup: name } });
  assert.equal((await stat(named.path)).gid, Number(number));
});

test('a group that the socket may not be given keeps Scute from serving, and leaves nothing behind', async (t) => {
  const folder = await temporaryFolder(t);
  if (process.getuid?.() === 0) {
    // Root may give a file to any group; nobody may not.
    const nobody = 65_534;
    await chown(folder, nobody, nobody);
    process.seteuid?.(nobody);
    t.after(() => process.seteuid?.(0));
  }

  const sds = { listen: `unix://${folder}/sds.sock`, socketGroup: 4_294_967_294 };
  await assert.rejects(startSds(t, { sds }), /SDS cannot listen on unix:.*EPERM/);

  assert.deepEqual(await readdir(folder), []);
});

test('the socket is for its owner alone, a stale one is replaced, and a live one never', async (t) => {
  const sds = await startSds(t);
  assert.equal((await stat(sds.path)).mode & 0o777, 0o600);

  await assert.rejects(startSds(t, { sds: { listen: sds.target } }), /another process listens there/);
  const grouped = await startSds(t, { sds: { socketMode: '0660' } });
  assert.equal((await stat(grouped.path)).mode & 0o777, 0o660);

  const stale = createServer();
  const path = `${sds.path}.stale`;
  await new Promise<void>((resolve) => stale.listen(`${path}.tmp`, resolve));
  await import('node:fs/promises').then(({ link }) => link(`${path}.tmp`, path));
  await new Promise((resolve) => stale.close(resolve));
  await chmod(path, 0o600);
  const replaced = await startSds(t, { sds: { listen: `unix://${path}` } });
  replaced.publish(identity());
  assert.ok((await fetchSecrets(sdsClient(t, `unix://${path}`), {})).response);
});

test('loopback TCP needs to be called unsafe', async (t) => {
  await assert.rejects(startSds(t, { sds: { listen: '127.0.0.1:0' } }), /unsafeTcp/);
  await assert.rejects(startSds(t, { sds: { listen: '0.0.0.0:0', unsafeTcp: true } }), /can be reached from other machines/);

  const sds = await startSds(t, { sds: { listen: '127.0.0.1:0', unsafeTcp: true } });
  sds.publish(identity());
  const address = sds.server.address();
  assert.ok(address?.kind === 'tcp');
  assert.ok((await fetchSecrets(sdsClient(t, `127.0.0.1:${address.port}`), {})).response);
});
