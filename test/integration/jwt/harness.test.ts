/** The JWT calls of `scute harness`, as the public conformance suite makes them: one process, a Workload API that the test changes. */
import assert from 'node:assert/strict';
import { after, before, test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { fromBinary } from '@bufbuild/protobuf';
import { status } from '@grpc/grpc-js';
import { JWTSVIDRequestSchema } from '../../../src/gen/workload_pb.ts';
import { startChild, type Child } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { FOREIGN, KEY, PARTNER, ROW_BUNDLES, tokenRows } from '../../support/tokens/token-rows.ts';
import { AUDIENCE, jwk, jwks, SUBJECT, testKey, token, type TestKey } from '../../support/tokens/tokens.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const MAIN = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));
const authority = createTestAuthority();

let api: FakeWorkloadApi;
let child: Child;
let control = '';

before(async () => {
  api = await FakeWorkloadApi.start();
  api.setX509([svidEntry(authority, authority.issue({ id: SUBJECT }), SUBJECT)]);
  api.setJwtBundles(ROW_BUNDLES);
  const env = { PATH: process.env['PATH'] ?? '', SPIFFE_ENDPOINT_SOCKET: api.endpoint };
  child = await startChild([process.execPath, '--disable-sigusr1', MAIN, 'harness'], { env });
  await child.line(/^READY$/);
  control = /^SPIFFE_CONTROL_PORT=(\d+)$/m.exec(child.stdout())?.[1] ?? '';
});

after(async () => {
  await child.stop();
  await api[Symbol.asyncDispose]();
});

interface Answer {
  readonly code: number;
  readonly answer: Readonly<Record<string, unknown>>;
}

async function ask(path: string, body: object): Promise<Answer> {
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`http://127.0.0.1:${control}${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  return { code: response.status, answer: (await response.json()) as Record<string, unknown> };
}

const validate = (text: string): Promise<Answer> => ask('/v1/jwt/validate', { token: text, audience: AUDIENCE });
const by = (key: TestKey, sub = SUBJECT): string => token({ key, claims: { sub } });

/** Bundles for one test; those of all others are back after it. */
function serve(t: TestContext, bundles: Readonly<Record<string, string>>): void {
  api.setJwtBundles(bundles);
  t.after(() => api.setJwtBundles(ROW_BUNDLES));
}

/** A token of a key that came with an update says that the update is in force. */
const accepted = (text: string): Promise<void> => eventually(async () => assert.equal((await validate(text)).code, 200));
const refused = async (text: string): Promise<void> => {
  const { code, answer } = await validate(text);
  assert.deepEqual([code, answer['status']], [422, 'rejected']);
};

for (const { name, text, verdict } of tokenRows(Date.now()).filter(({ text: { length } }) => length < 16_000)) {
  test(`harness, ${name}`, async () => {
    await accepted(by(KEY));
    const { code, answer } = await validate(text);
    if (verdict.startsWith('spiffe://')) assert.deepEqual([code, answer['spiffe_id']], [200, verdict]);
    else {
      assert.deepEqual([code, answer['status']], [422, 'rejected']);
      assert.match(String(answer['message']), new RegExp(`^${verdict}: `));
    }
  });
}

const added = testKey('added');
const barrier = testKey('barrier');

test('harness, JB-1, JB-2: a key that was added counts, and one that was removed does not', async (t) => {
  serve(t, { 'example.org': jwks(jwk(KEY), jwk(added)) });
  await accepted(by(added));
  api.setJwtBundles({ 'example.org': jwks(jwk(KEY), jwk(barrier)) });
  await accepted(by(barrier));
  await refused(by(added));
  await accepted(by(KEY));
});

test('harness, JB-3: a trust domain whose bundle went away is refused', async (t) => {
  serve(t, { 'example.org': jwks(jwk(KEY)), 'partner.test': jwks(jwk(FOREIGN)) });
  await accepted(by(FOREIGN, PARTNER));
  api.setJwtBundles({ 'example.org': jwks(jwk(KEY), jwk(barrier)) });
  await accepted(by(barrier));
  await refused(by(FOREIGN, PARTNER));
});

test('harness, JB-4: the key is picked by kid among three', async (t) => {
  serve(t, { 'example.org': jwks(jwk(KEY), jwk(added), jwk(barrier)) });
  await accepted(by(barrier));
  await accepted(by(added));
});

test('harness, JB-5/x509-svid-use: a key with that use is ignored', async (t) => {
  serve(t, { 'example.org': jwks(jwk(KEY), jwk(added, { use: 'x509-svid' }), jwk(barrier)) });
  await accepted(by(barrier));
  await refused(by(added));
});

test('harness, JB-5/missing-use: a key without a use counts, which the suite leaves open', async (t) => {
  serve(t, { 'example.org': jwks(jwk(KEY), jwk(added, { use: undefined })) });
  await accepted(by(added));
});

test('harness, JB-6: an unknown kty does not spoil the rest', async (t) => {
  serve(t, { 'example.org': jwks(jwk(KEY), { kty: 'unheard-of', use: 'jwt-svid', kid: 'x', k: 'AQAB' }, jwk(barrier)) });
  await accepted(by(barrier));
  await accepted(by(KEY));
});

test('harness, JB-7, JB-8: no keys trust nothing, and the bundle of a federated trust domain is used', async (t) => {
  serve(t, { 'example.org': jwks(), 'partner.test': jwks(jwk(barrier)) });
  await accepted(by(barrier, PARTNER));
  await refused(by(KEY));
});

const fetchOf = (body: object): Promise<Answer> => ask('/v1/jwt/fetch', body);

test('harness, JF-1, JF-2, JF-3: audiences and SPIFFE ID are forwarded, and the token comes back', async () => {
  api.answerJwt(({ audience, spiffeId }) => {
    const sub = spiffeId === '' ? SUBJECT : spiffeId;
    return [{ spiffeId: sub, svid: token({ key: KEY, claims: { aud: audience, sub } }), hint: 'one' }];
  });
  const seen = api.callsOf('FetchJWTSVID').length;
  for (const [audience, spiffe_id] of [
    [[AUDIENCE], ''],
    [[AUDIENCE, 'spiffe://example.org/backend', 'other'], undefined],
    [[AUDIENCE], 'spiffe://example.org/other'],
  ] as const) {
    const { code, answer } = await fetchOf({ audience, spiffe_id });
    assert.equal(code, 200, JSON.stringify(answer));
    const [svid] = answer['svids'] as readonly Record<string, string>[];
    assert.deepEqual([svid?.['spiffe_id'], svid?.['hint']], [spiffe_id || SUBJECT, 'one']);
    assert.equal(svid?.['token']?.split('.').length, 3);
  }
  const asked = api
    .callsOf('FetchJWTSVID')
    .slice(seen)
    .map(({ request }) => fromBinary(JWTSVIDRequestSchema, request));
  assert.deepEqual(
    asked.map(({ audience }) => audience.length),
    [1, 3, 1],
  );
  assert.equal(asked[2]?.spiffeId, 'spiffe://example.org/other');
});

test('harness, JF-4: PermissionDenied is an error, and no stale token', async () => {
  api.failWith('FetchJWTSVID', status.PERMISSION_DENIED, { times: 1 });
  const { code, answer } = await fetchOf({ audience: [AUDIENCE] });
  assert.deepEqual([code, answer['status']], [500, 'error']);
  assert.match(String(answer['message']), /^not_entitled: /);
  assert.equal((await fetchOf({ audience: [AUDIENCE] })).code, 200);
  for (const body of [{}, { audience: [] }, { audience: AUDIENCE }, { audience: [AUDIENCE], spiffe_id: 'nobody' }])
    assert.equal((await fetchOf(body)).code, 500);
});

test('harness, EP-2: every call of the JWT profile carries the header, and none is ValidateJWTSVID', () => {
  assert.ok(api.calls.every(({ hadHeader }) => hadHeader));
  assert.deepEqual([...new Set(api.calls.map(({ method }) => method))].toSorted(), ['FetchJWTBundles', 'FetchJWTSVID', 'FetchX509SVID']);
});
