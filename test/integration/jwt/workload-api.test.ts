/** The JWT profile of the Workload API, as a client sees it: bundles by a stream, JWT-SVIDs on demand. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { status } from '@grpc/grpc-js';
import { fromBinary } from '@bufbuild/protobuf';
import { JWTSVIDRequestSchema } from '../../../src/gen/workload_pb.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { requireSpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import { createWorkloadApiClient } from '../../../src/workload-api/client.ts';
import { chooseEndpoint } from '../../../src/workload-api/endpoint.ts';
import { createJwtSource, type JwtRequest, type JwtSource } from '../../../src/workload-api/jwt-source.ts';
import { startDevDomain, startDevDomainWith } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSource, type SourceHarness } from '../../support/source-harness.ts';
import { AUDIENCE, jwk, jwks, SUBJECT, testKey, token } from '../../support/tokens/tokens.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const authority = createTestAuthority();
const WEB = requireSpiffeId(SUBJECT);
const key = testKey('one');
const other = testKey('two');
const entry = svidEntry(authority, authority.issue({ id: SUBJECT }), SUBJECT);

async function startAgent(t: TestContext): Promise<FakeWorkloadApi> {
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  api.setX509([entry]);
  return api;
}

function jwtSource(endpoint: string, source: SourceHarness): JwtSource {
  const address = chooseEndpoint(undefined, endpoint);
  assert.ok(address.ok);
  const client = createWorkloadApiClient({ endpoint: address.value, clock: systemClock });
  return createJwtSource({ client, clock: systemClock, bundles: () => source.view.current()?.jwtBundles });
}

/** Trust domain to the `kid`s of its JWT bundle; undefined while there is none. */
function held(source: SourceHarness): Readonly<Record<string, readonly string[]>> | undefined {
  const bundles = source.view.current()?.jwtBundles;
  return bundles && Object.fromEntries([...bundles].map(([domain, bundle]) => [domain, bundle.authorities.map(({ keyId }) => keyId)]));
}

const holds = (source: SourceHarness, wanted: Readonly<Record<string, readonly string[]>>): Promise<void> =>
  eventually(() => assert.deepEqual(held(source), wanted));

test('a source that nothing asks for JWTs makes no call of the JWT profile', async (t) => {
  const api = await startAgent(t);
  const source = await startSource(t, api.endpoint);
  await source.held();

  assert.deepEqual([...new Set(api.calls.map(({ method }) => method))], ['FetchX509SVID']);
  assert.equal(source.view.current()?.jwtBundles, undefined);
});

test('JWT bundles come beside the X.509 ones, rotate and are withdrawn by themselves, and make each a new snapshot', async (t) => {
  const api = await startAgent(t);
  api.setJwtBundles({ 'spiffe://example.org': jwks(jwk(key)), 'partner.test': jwks() });
  const source = await startSource(t, api.endpoint, systemClock, true);
  await holds(source, { 'example.org': ['one'], 'partner.test': [] });
  const first = await source.held();
  assert.deepEqual([...first.bundles.keys()], ['example.org']);

  api.setJwtBundles({ 'spiffe://example.org': jwks(jwk(key), jwk(other)) });
  await holds(source, { 'example.org': ['one', 'two'] });
  const second = await source.held();
  assert.ok(second.generation > first.generation);
  assert.deepEqual([second.svids, second.bundles, second.receivedAtMs], [first.svids, first.bundles, first.receivedAtMs]);

  // Another SVID changes nothing of them, and the agent that gives us none any more withdraws that alone.
  api.setX509([svidEntry(authority, authority.issue({ id: SUBJECT }), SUBJECT)]);
  await eventually(() => assert.ok((source.view.current()?.generation ?? 0) > second.generation));
  assert.deepEqual(held(source), { 'example.org': ['one', 'two'] });
  api.failWith('FetchX509SVID', status.PERMISSION_DENIED);
  await source.none();
  assert.deepEqual(held(source), { 'example.org': ['one', 'two'] });

  api.setJwtBundles({});
  await holds(source, {});
  assert.ok(api.calls.every(({ hadHeader }) => hadHeader));
});

test('PermissionDenied withdraws the JWT bundles alone; another failure keeps the last good ones, and both heal', async (t) => {
  const api = await startAgent(t);
  api.setJwtBundles({ 'example.org': jwks(jwk(key)) });
  const source = await startSource(t, api.endpoint, systemClock, true);
  await holds(source, { 'example.org': ['one'] });

  api.failWith('FetchJWTBundles', status.UNAVAILABLE, { times: 2 });
  await eventually(() => assert.ok(source.failures.filter(({ code }) => code === 'UNAVAILABLE').length >= 2));
  assert.deepEqual(held(source), { 'example.org': ['one'] });

  api.failWith('FetchJWTBundles', status.PERMISSION_DENIED, { times: 1 });
  await eventually(() => assert.ok(source.failures.some(({ code }) => code === 'PERMISSION_DENIED')));
  await holds(source, { 'example.org': ['one'] });
  assert.ok(source.published.some(({ jwtBundles }) => jwtBundles?.size === 0));
  assert.equal((await source.held()).svids[0].id, WEB);
});

test('an agent without a JWT profile is asked rarely, and its identity served', async (t) => {
  const api = await startAgent(t);
  api.failWith('FetchJWTBundles', status.UNIMPLEMENTED);
  const source = await startSource(t, api.endpoint, systemClock, true);
  await source.held();
  await eventually(() => assert.ok(source.failures.some(({ code, retryInMs }) => code === 'UNIMPLEMENTED' && retryInMs > 5000)));
  assert.equal(held(source), undefined);
});

const manyKeys = Array.from({ length: 17 }, (_, at) => jwks(...Array.from({ length: 250 }, (__, n) => jwk(key, { kid: `${at}-${n}` }))));
const HOSTILE: readonly [string, string, Readonly<Record<string, string>>][] = [
  ['no JSON', 'bad_jwt_bundle', { 'example.org': 'keys' }],
  ['no list of keys', 'bad_jwt_bundle', { 'example.org': '{"keys":{}}' }],
  ['a member twice', 'bad_jwt_bundle', { 'example.org': '{"keys":[],"keys":[]}' }],
  ['a name that is no trust domain', 'bad_trust_domain', { 'example.org': jwks(jwk(other)), 'Example.org/x': jwks() }],
  ['one trust domain under both of its names', 'conflicting_bundles', { 'example.org': jwks(jwk(key)), 'spiffe://example.org': jwks() }],
  ['thousands of keys', 'too_many_keys', Object.fromEntries(manyKeys.map((keys, at) => [`td${at}.test`, keys]))],
];
for (const [what, code, bundles] of HOSTILE) {
  test(`JWT bundles with ${what} are refused whole, and the last good ones stay`, async (t) => {
    const api = await startAgent(t);
    api.setJwtBundles({ 'example.org': jwks(jwk(key)) });
    const source = await startSource(t, api.endpoint, systemClock, true);
    await holds(source, { 'example.org': ['one'] });

    api.setJwtBundles(bundles);
    await eventually(() =>
      assert.deepEqual(
        source.rejected.map((problem) => problem.code),
        [code],
      ),
    );
    assert.deepEqual(held(source), { 'example.org': ['one'] });

    api.setJwtBundles({ 'example.org': jwks(jwk(other)) });
    await holds(source, { 'example.org': ['two'] });
  });
}

test('bytes that are no message of JWT bundles are refused', async (t) => {
  const api = await startAgent(t);
  const source = await startSource(t, api.endpoint, systemClock, true);
  await source.held();
  await eventually(() => assert.equal(api.openStreams('FetchJWTBundles'), 1));
  api.sendRaw('FetchJWTBundles', Buffer.from([0xff, 0xff]));
  await eventually(() =>
    assert.deepEqual(
      source.rejected.map(({ code }) => code),
      ['undecodable'],
    ),
  );
});

/** An agent whose tokens are what the test says, and a client of it. */
async function issuing(t: TestContext) {
  const api = await startAgent(t);
  api.setJwtBundles({ 'example.org': jwks(jwk(key)) });
  api.answerJwt(({ audience, spiffeId }) => [
    { spiffeId: spiffeId === '' ? SUBJECT : spiffeId, svid: token({ key, claims: { aud: audience, sub: spiffeId || SUBJECT } }), hint: '' },
  ]);
  const source = await startSource(t, api.endpoint, systemClock, true);
  await holds(source, { 'example.org': ['one'] });
  const jwt = jwtSource(api.endpoint, source);
  const fetch = (request: Partial<JwtRequest> = {}, signal: AbortSignal = t.signal) =>
    jwt.fetch({ audience: [AUDIENCE], ...request }, signal);
  return { api, fetch };
}

test('JF-1, JF-2: the audience is forwarded, and several are, and the JWT-SVID comes with its times', async (t) => {
  const { api, fetch } = await issuing(t);
  const one = await fetch();
  const several = await fetch({ audience: ['a', 'b'] });

  assert.ok(one.ok && several.ok);
  assert.deepEqual([one.value.spiffeId, one.value.audience, several.value.audience], [WEB, [AUDIENCE], ['a', 'b']]);
  assert.ok(one.value.expiresMs - one.value.issuedMs === 300_000);
  const asked = api.callsOf('FetchJWTSVID').map(({ request }) => fromBinary(JWTSVIDRequestSchema, request).audience);
  assert.deepEqual(asked, [[AUDIENCE], ['a', 'b']]);
  assert.ok(api.callsOf('FetchJWTSVID').every(({ hadHeader }) => hadHeader));
});

test('JF-3: the SPIFFE ID is forwarded, and of several tokens that one is taken, or the one of a hint, or the first', async (t) => {
  const { api, fetch } = await issuing(t);
  const batch = requireSpiffeId('spiffe://example.org/batch');
  assert.equal((await fetch({ spiffeId: batch })).ok, true);
  assert.equal(fromBinary(JWTSVIDRequestSchema, api.callsOf('FetchJWTSVID')[0]?.request ?? new Uint8Array()).spiffeId, batch);

  api.answerJwt(({ audience }) =>
    [SUBJECT, batch].map((id, at) => ({ spiffeId: id, svid: token({ key, claims: { aud: audience, sub: id } }), hint: `hint${at}` })),
  );
  const taken = async (request: Partial<JwtRequest>) => {
    const fetched = await fetch(request);
    return fetched.ok ? [fetched.value.spiffeId, fetched.value.hint] : fetched.error.code;
  };
  assert.deepEqual(await taken({}), [WEB, 'hint0']);
  assert.deepEqual(await taken({ hint: 'hint1' }), [batch, 'hint1']);
  assert.deepEqual(await taken({ spiffeId: batch }), [batch, 'hint1']);
  assert.deepEqual(await taken({ spiffeId: batch, hint: 'hint0' }), 'bad_answer');
  assert.deepEqual(await taken({ spiffeId: requireSpiffeId('spiffe://example.org/else') }), 'bad_answer');
});

test('JF-4: PermissionDenied is an error of its own, and no earlier token is given', async (t) => {
  const { api, fetch } = await issuing(t);
  assert.equal((await fetch()).ok, true);
  for (const [code, reason] of [
    [status.PERMISSION_DENIED, 'not_entitled'],
    [status.INVALID_ARGUMENT, 'refused'],
    [status.UNIMPLEMENTED, 'not_supported'],
    [status.UNAVAILABLE, 'agent_unavailable'],
  ] as const) {
    api.failWith('FetchJWTSVID', code, { times: 1 });
    const fetched = await fetch();
    assert.equal(fetched.ok ? 'given' : fetched.error.code, reason);
  }
  assert.equal((await fetch()).ok, true);
});

test('what an agent gives for a JWT-SVID is verified before it is given out', async (t) => {
  const { api, fetch } = await issuing(t);
  const good = token({ key });
  const answers: readonly [string, readonly { spiffeId?: string; svid: string }[], string][] = [
    ['nothing', [], 'bad_answer'],
    ['no token', [{ spiffeId: SUBJECT, svid: '' }], 'not_verified'],
    ['one of a key that is not ours', [{ spiffeId: SUBJECT, svid: token({ key: other }) }], 'not_verified'],
    ['one for another audience', [{ spiffeId: SUBJECT, svid: token({ key, claims: { aud: 'else' } }) }], 'not_verified'],
    ['one that has expired', [{ spiffeId: SUBJECT, svid: token({ key, nowMs: Date.now() - 400_000 }) }], 'not_verified'],
    ['one of somebody else', [{ spiffeId: 'spiffe://example.org/else', svid: good }], 'bad_answer'],
    ['thousands', Array.from({ length: 300 }, () => ({ spiffeId: SUBJECT, svid: 'x' })), 'bad_answer'],
  ];
  for (const [what, svids, code] of answers) {
    api.answerJwt(() => svids);
    const fetched = await fetch();
    assert.equal(fetched.ok ? 'given' : fetched.error.code, code, what);
    if (!fetched.ok) assert.ok(!fetched.error.message.includes(good.slice(0, 40)), what);
  }
  api.sendRaw('FetchJWTSVID', Buffer.from([0xff, 0xff]));
  const undecodable = await fetch();
  assert.equal(undecodable.ok ? 'given' : undecodable.error.code, 'bad_answer');
});

test('no audience is no request, an abort ends the call, and an agent that is gone is told apart', async (t) => {
  const { api, fetch } = await issuing(t);
  const before = api.callsOf('FetchJWTSVID').length;
  for (const audience of [[], ['']]) {
    const fetched = await fetch({ audience });
    assert.equal(fetched.ok ? 'given' : fetched.error.code, 'refused');
  }
  assert.equal(api.callsOf('FetchJWTSVID').length, before);

  api.answerJwt(() => {
    ending.abort();
    return [];
  });
  const ending = new AbortController();
  const aborted = await fetch({}, ending.signal);
  assert.equal(aborted.ok ? 'given' : aborted.error.code, 'aborted');
  const early = await fetch({}, AbortSignal.abort());
  assert.equal(early.ok ? 'given' : early.error.code, 'aborted');

  await api.stop();
  const gone = await fetch();
  assert.equal(gone.ok ? 'given' : gone.error.code, 'agent_unavailable');
});

test('the embedded trust domain serves all of it: bundles, federated ones, tokens, and a rotation of its JWT authority', async (t) => {
  const calls: string[] = [];
  const spiffe = await startDevDomainWith(t, { onCall: (_, method) => calls.push(method) }, [
    { name: 'example.org', federatesWith: ['partner.test'], workloads: { web: [SUBJECT] } },
    { name: 'partner.test' },
  ]);
  const source = await startSource(t, spiffe.endpoint('web'), systemClock, true);
  await eventually(() => assert.deepEqual(Object.keys(held(source) ?? {}).toSorted(), ['example.org', 'partner.test']));
  const jwt = jwtSource(spiffe.endpoint('web'), source);
  const before = held(source)?.['example.org'] ?? [];
  assert.equal((await jwt.fetch({ audience: ['a'] }, t.signal)).ok, true);

  await spiffe.rotateRoot('example.org');
  await eventually(() => assert.equal(held(source)?.['example.org']?.length, 2));
  await spiffe.retireRoots('example.org');
  await eventually(() => assert.equal(held(source)?.['example.org']?.length, 1));
  assert.notDeepEqual(held(source)?.['example.org'], before);
  const after = await jwt.fetch({ audience: ['a'], spiffeId: WEB }, t.signal);
  assert.ok(after.ok);

  await spiffe.withdraw('web');
  await holds(source, {});
  assert.ok(!calls.includes('ValidateJWTSVID'));
});

test('tokens of the embedded trust domain live as long as its configuration says', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', jwtSvidLife: '90s', workloads: { web: [SUBJECT] } });
  const source = await startSource(t, spiffe.endpoint('web'), systemClock, true);
  await eventually(() => assert.ok(held(source) !== undefined));
  const fetched = await jwtSource(spiffe.endpoint('web'), source).fetch({ audience: ['a'] }, t.signal);
  assert.ok(fetched.ok);
  assert.equal(fetched.value.expiresMs - fetched.value.issuedMs, 90_000);
});
