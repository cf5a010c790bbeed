/** JWT-SVIDs between Scute and programs that are not ours: what it attaches others validate, and what others ask for it takes. */
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import type { WorkloadApiAnswers } from '../../../src/devdomain/workload-api-server.ts';
import { JWTBundlesResponseSchema, JWTSVIDResponseSchema } from '../../../src/gen/workload_pb.ts';
import { runChild } from '../../support/child.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication } from '../../support/http/http-stage.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { jwk, jwks, testKey, token, type TestKey } from '../../support/tokens/tokens.ts';
import { needs, part } from '../parts.ts';
import { runPython, startPython } from '../peers.ts';
import { issueFiles, startInbound, startOutbound } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const AUDIENCE = 'https://orders.example';
const LIFE_SECONDS = 3;
/** The C core of gRPC wants a DNS name in the server's SVID. */
const SERVER_NAME = 'api.example';

const startDomain = (t: TestContext) =>
  startDevDomain(t, { name: 'example.org', workloads: { web: [WEB], api: [{ id: API, dnsNames: [SERVER_NAME] }] } });

function get(port: number, headers: Readonly<Record<string, string>> = {}): Promise<{ readonly status: number; readonly body: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ port, host: '127.0.0.1', headers }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    sent.on('error', reject).end();
  });
}

/** An application's request, with what Scute puts on it, as far as the server. */
async function startPair(t: TestContext, to: string) {
  const spiffe = await startDomain(t);
  const inbound = await startInbound(t, { endpoint: spiffe.endpoint('api'), to, allow: [WEB], listener: { protocol: 'http' } });
  const outbound = await startOutbound(t, {
    endpoint: spiffe.endpoint('web'),
    to: inbound.address,
    expect: [API],
    listener: { protocol: 'http', jwt: { audience: AUDIENCE } },
  });
  return { spiffe, outbound };
}

test('what Scute attaches py-spiffe validates, for its audience alone', needs('python'), async (t) => {
  const spiffe = await startDomain(t);
  const seen: (readonly [string, number, string])[] = [];
  for (const audience of [AUDIENCE, 'https://other.example']) {
    const server = await startPython(t, 'spiffe_peer', ['bearer', spiffe.endpoint('api'), audience]);
    const to = String((await server.first('listening'))['listening']);
    const inbound = await startInbound(t, { endpoint: spiffe.endpoint('api'), to, allow: [WEB], listener: { protocol: 'http' } });
    const outbound = await startOutbound(t, {
      endpoint: spiffe.endpoint('web'),
      to: inbound.address,
      expect: [API],
      listener: { protocol: 'http', jwt: { audience: AUDIENCE } },
    });
    // Until the first token has come, requests may be told to wait no longer.
    const { status, body } = await eventually(async () => {
      const answer = await get(outbound.port);
      assert.notEqual(answer.status, 503);
      return answer;
    });
    seen.push([audience, status, body]);
  }
  assert.deepEqual(seen[0], [AUDIENCE, 200, WEB]);
  assert.equal(seen[1]?.[1], 401);
  assert.match(seen[1]?.[2] ?? '', /audience/);
});

test('what Scute attaches go-spiffe validates', needs('go-spiffe'), async (t) => {
  const seen: string[] = [];
  const application = await startHttpApplication(t, (incoming, response) => {
    seen.push(incoming.headers.authorization ?? '');
    response.end();
  });
  const { spiffe, outbound } = await startPair(t, application.address);
  await eventually(async () => assert.equal((await get(outbound.port)).status, 200));

  const held = spiffe.answers('api').jwtBundles.get();
  assert.ok(held?.kind === 'message');
  const bundles = Object.entries(held.message.bundles).map(([name, jwks]) => [
    name.replace('spiffe://', ''),
    JSON.parse(Buffer.from(jwks).toString()) as unknown,
  ]);
  const input = [Object.fromEntries(bundles), seen.at(-1)?.replace(/^Bearer /, '')].map((line) => JSON.stringify(line)).join('\n');
  const { stdout } = await runChild([part('go-spiffe'), 'validate', '-audience', AUDIENCE], { input: `${input}\n` });
  assert.deepEqual((JSON.parse(stdout) as { readonly answers: unknown }).answers, [{ id: WEB }]);
});

test('while the JWT authority rotates each 5 s, a pair under load loses no request with a token that is attached, and takes no removed key', async (t) => {
  const application = await startHttpApplication(t, (_, response) => void response.end());
  const spiffe = await startDomain(t);
  // Of JWTs alone: what the X.509 authority takes along are connections.
  let signing = testKey('0');
  const serve = (...keys: readonly TestKey[]): void => {
    const bundles = { 'spiffe://example.org': Buffer.from(jwks(...keys.map((key) => jwk(key)))) };
    for (const name of ['web', 'api'])
      spiffe.answers(name).jwtBundles.set({ kind: 'message', message: create(JWTBundlesResponseSchema, { bundles }) });
  };
  const issue = (audience: readonly string[]): string => {
    const now = Math.floor(Date.now() / 1000);
    return token({ key: signing, claims: { sub: WEB, aud: audience, iat: now, exp: now + LIFE_SECONDS } });
  };
  serve(signing);
  const fetchJwtSvid: WorkloadApiAnswers['fetchJwtSvid'] = ({ audience }) => ({
    kind: 'message',
    message: create(JWTSVIDResponseSchema, { svids: [{ spiffeId: WEB, svid: issue(audience), hint: '' }] }),
  });
  Object.assign(spiffe.answers('web'), { fetchJwtSvid });
  const http = { listen: '127.0.0.1:0', protocol: 'http' };
  const inbound = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ ...http, name: 'in', to: application.address, allow: [WEB], jwt: { audiences: [AUDIENCE] } }],
  });
  const to = inbound.address('in');
  const outbound = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    outbound: [
      { ...http, name: 'attaches', to, expect: [API], jwt: { audience: AUDIENCE } },
      { ...http, name: 'plain', to, expect: [API] },
    ],
  });
  const ask = (listener: string, headers = {}) => get(Number(outbound.address(listener).split(':')[1]), headers);
  await eventually(async () => assert.equal((await ask('attaches')).status, 200));
  const keys = (side: Sidecar): Promise<number> => side.metric('scute_jwt_authorities', { trust_domain: 'example.org' });

  const over = new AbortController();
  t.after(() => over.abort());
  const statuses = new Map<number, number>();
  const load = Array.from({ length: 4 }, async () => {
    while (!over.signal.aborted) {
      const { status } = await ask('attaches');
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
  });
  for (let rotation = 1; rotation <= 4; rotation++) {
    const before = issue([AUDIENCE]);
    const last = signing;
    const next = testKey(String(rotation));
    serve(last, next);
    for (const side of [inbound, outbound]) await eventually(async () => assert.equal(await keys(side), 2));
    signing = next;
    // So long a token of the key before may be on its way.
    await delay(5000);
    serve(next);
    await eventually(async () => assert.equal(await keys(inbound), 1));
    assert.equal((await ask('plain', { authorization: `Bearer ${before}` })).status, 401);
    assert.equal((await ask('plain', { authorization: `Bearer ${issue([AUDIENCE])}` })).status, 200);
  }
  over.abort();
  await Promise.all(load);
  assert.deepEqual([...statuses.keys()], [200]);
  assert.ok((statuses.get(200) ?? 0) > 100);
});

test('what py-spiffe asks for Scute takes, and tells the application whose it is', needs('python'), async (t) => {
  const application = await startHttpApplication(t, (incoming, response) => {
    response.end(`${String(incoming.headers['x-spiffe-jwt-subject'])} ${String(incoming.headers.authorization)}`);
  });
  const spiffe = await startDomain(t);
  const inbound = await startInbound(t, {
    endpoint: spiffe.endpoint('api'),
    to: application.address,
    allow: [{ peer: API, subject: WEB }] as unknown as string[],
    listener: { protocol: 'http', jwt: { audiences: [AUDIENCE] } },
  });
  const outbound = await startOutbound(t, {
    endpoint: spiffe.endpoint('api'),
    to: inbound.address,
    expect: [API],
    listener: { protocol: 'http' },
  });
  const [web, api] = await Promise.all(
    ['web', 'api'].map(async (name) => String((await runPython('spiffe_peer', 'token', spiffe.endpoint(name), AUDIENCE))['token'])),
  );

  assert.deepEqual(await get(outbound.port, { authorization: `Bearer ${web}` }), { status: 200, body: `${WEB} undefined` });
  assert.equal((await get(outbound.port, { authorization: `Bearer ${api}` })).status, 403);
  assert.equal((await get(outbound.port)).status, 401);
});

test(
  'a gRPC server in Python sees whose token a call had, in metadata that no caller can forge, and no interceptor',
  needs('python'),
  async (t) => {
    const spiffe = await startDomain(t);
    const server = await startPython(t, 'grpc_peer', ['serve']);
    const { address } = await startInbound(t, {
      endpoint: spiffe.endpoint('api'),
      to: String((await server.first('listening'))['listening']),
      allow: [WEB],
      alpn: ['h2'],
      listener: { protocol: 'http', http: { application: 'h2c' }, jwt: { audiences: [AUDIENCE] } },
    });
    const { chain, key, authorities } = await issueFiles(t, spiffe, WEB);
    const calls = (token: string) => runPython('grpc_peer', 'who', token, address, chain, key, authorities, SERVER_NAME);
    const fetched = async (audience: string): Promise<string> =>
      String((await runPython('spiffe_peer', 'token', spiffe.endpoint('web'), audience))['token']);

    assert.deepEqual(await calls(await fetched(AUDIENCE)), { who: WEB });
    for (const token of ['', await fetched('https://other.example')]) {
      const { error, details } = await calls(token);
      assert.equal(error, 'UNAUTHENTICATED', token);
      assert.match(String(details), /^scute: (?:a token is needed|the token is not accepted)$/);
    }
  },
);
