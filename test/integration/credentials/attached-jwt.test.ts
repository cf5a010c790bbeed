import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { status } from '@grpc/grpc-js';
import type { Readiness, TokenList } from '../../../src/admin/api-types.ts';
import type { Address } from '../../../src/config/units.ts';
import { api } from '../../support/admin/api.ts';
import { startExampleDomain, startInbound, API, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { ask, type AskOptions } from '../../support/http/http.ts';
import { startHttpApplication, wire } from '../../support/http/http-stage.ts';
import { tokenFetched } from '../../support/tokens/held-token.ts';
import { startJwtAgent, type JwtAgent } from '../../support/tokens/jwt-agent.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { tlsServer } from '../../support/tls-peer.ts';
import { SUBJECT, testKey } from '../../support/tokens/tokens.ts';
import { issueForWeb, startWebServer } from '../../support/web-server.ts';
import { svidEntry } from '../../support/workload-api.ts';

const CA = createTestAuthority({ trustDomain: 'web.test' });
const ADMIN = { listen: '127.0.0.1:0' };

/** A sidecar whose listener to a server of the web has `jwt`. */
async function startStage(t: TestContext, jwt: object = {}, agent?: JwtAgent, isHeld = true) {
  const server = await startWebServer(t);
  const from = agent ?? (await startJwtAgent(t));
  const out = { name: 'out', listen: '127.0.0.1:0', protocol: 'http', to: server.origin, webPki: { caFile: server.caFile } };
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: from.api.endpoint },
    outbound: [{ ...out, jwt: { audience: 'partner', ...jwt } }],
    admin: ADMIN,
  });
  if (isHeld) await tokenFetched(sidecar);
  return { server, agent: from, sidecar, asks: (options?: AskOptions) => ask(addressOf(sidecar), '/', options) };
}

function addressOf(sidecar: Sidecar, listener = 'out'): Address {
  const address = sidecar.app.addresses().get(listener);
  assert.ok(address !== undefined);
  return address;
}

test('a request that has no token gets a JWT-SVID for the audience of the listener, and the same one serves all of them', async (t) => {
  const { server, agent, asks } = await startStage(t);

  const answers = await Promise.all(Array.from({ length: 20 }, () => asks()));

  assert.deepEqual(new Set(answers.map(({ status: code }) => code)), new Set([200]));
  assert.deepEqual(agent.asked, [{ audience: ['partner'], spiffeId: '' }]);
  assert.deepEqual(new Set(server.requests.map(({ headers }) => headers.authorization)), new Set([`Bearer ${agent.signed[0]}`]));
  for (const { rawHeaders } of server.requests) assert.equal(rawHeaders.filter((name) => /^authorization$/i.test(name)).length, 1);
});

test('a request that has a token of its own goes as it is, and waits for none', async (t) => {
  const { server, agent, asks } = await startStage(t);
  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE);

  assert.equal((await asks({ headers: [['authorization', 'Basic own']] })).status, 200);

  assert.equal(server.requests[0]?.headers.authorization, 'Basic own');
});

test('where it is to be replaced, nothing of what the application sends under that name arrives, however it is spelt', async (t) => {
  const { server, agent, sidecar } = await startStage(t, { replace: true, header: 'X-Token', spiffeId: SUBJECT });
  const { status: code } = await ask(addressOf(sidecar), '/', {
    headers: [
      ['X-Token', 'own'],
      ['x_token', 'other'],
      ['Authorization', 'Basic own'],
    ],
  });
  assert.equal(code, 200);
  const { headers } = server.requests[0] ?? {};
  assert.equal(headers?.['x-token'], `Bearer ${agent.signed[0]}`);
  assert.equal(headers['x_token'], undefined);
  assert.equal(headers.authorization, 'Basic own');
  assert.deepEqual(agent.asked, [{ audience: ['partner'], spiffeId: SUBJECT }]);

  const { host, port } = addressOf(sidecar) as Extract<Address, { kind: 'tcp' }>;
  const socket = connect(port, host);
  t.after(() => socket.destroy());
  const line = wire(socket);
  socket.write('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Token: trailing\r\n\r\n');
  await line.until('hello');
  assert.equal(server.requests.length, 2);
});

test('a server with a SPIFFE ID is sent one as well, and only for what it may be asked', async (t) => {
  const spiffe = await startExampleDomain(t);
  const seen: (string | undefined)[] = [];
  const application = await startHttpApplication(t, (request, response) => {
    seen.push(request.headers.authorization);
    response.end('hello');
  });
  const { address } = await startInbound(t, application.address, { spiffe, listener: { protocol: 'http' } });
  const out = { name: 'out', listen: '127.0.0.1:0', to: address, protocol: 'http', jwt: { audience: API } };
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    outbound: [{ ...out, expect: [{ peer: API, paths: ['/a'] }] }],
  });

  await tokenFetched(sidecar);
  assert.equal((await ask(addressOf(sidecar), '/a')).status, 200);
  assert.equal((await ask(addressOf(sidecar), '/b')).status, 502);

  assert.equal(seen.length, 1);
  const [, claims = ''] = seen[0]?.replace(/^Bearer /, '').split('.') ?? [];
  const { sub, aud } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { sub: string; aud: unknown };
  assert.deepEqual([sub, aud], [WEB, [API]]);
});

test('while the agent gives none for longer than a token lives, requests are a 503 with the reason, and it heals by itself', async (t) => {
  const agent = await startJwtAgent(t);
  agent.lifeSeconds = 3;
  const { server, sidecar, asks } = await startStage(t, {}, agent);
  assert.equal((await asks()).status, 200);

  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE);
  await eventually(async () => {
    const answer = await asks();
    assert.deepEqual([answer.status, answer.body], [503, 'scute: there is no token to attach: agent_unavailable\n']);
  });
  const seen = server.requests.length;
  assert.equal((await asks()).status, 503);
  assert.equal(server.requests.length, seen);
  assert.ok((await sidecar.metric('scute_http_requests_total', { result: 'token_unavailable', status: '503' })) >= 2);
  assert.ok((await sidecar.metric('scute_token_fetches_total', { source: 'jwt partner', result: 'agent_unavailable' })) >= 1);
  const told = sidecar.log().filter(({ message, reason }) => message === 'token not fetched' && reason === 'agent_unavailable');
  assert.equal(told.length, 1);

  agent.lifeSeconds = 300;
  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE, { times: 1 });
  await eventually(async () => assert.equal((await asks()).status, 200));
  assert.equal(server.requests.at(-1)?.headers.authorization, `Bearer ${agent.signed.at(-1)}`);
});

test('an agent that is gone for longer than a token lives is a 503 with the reason, and when it is back the next request has a new token', async (t) => {
  const agent = await startJwtAgent(t);
  agent.lifeSeconds = 3;
  const { server, sidecar, asks } = await startStage(t, {}, agent);
  assert.equal((await asks()).status, 200);
  const first = server.requests.at(-1)?.headers.authorization;

  await agent.api.stop({ unlink: true });
  await eventually(async () => {
    const answer = await asks();
    assert.deepEqual([answer.status, answer.body], [503, 'scute: there is no token to attach: agent_unavailable\n']);
  });
  // It holds its identity for as long as that is valid; of its tokens it has none to show.
  const { items } = await api<TokenList>(sidecar, 'tokens');
  assert.deepEqual([items[0]?.expiresAt, items[0]?.problem?.reason], [null, 'agent_unavailable']);

  agent.lifeSeconds = 300;
  await agent.api.listen();
  await eventually(async () => assert.equal((await asks()).status, 200));
  const healed = server.requests.at(-1)?.headers.authorization;
  assert.notEqual(healed, first);
  assert.equal(healed, `Bearer ${agent.signed.at(-1)}`);
});

test('each request of a time in which the agent is asked again and again has a token that is valid', async (t) => {
  const agent = await startJwtAgent(t);
  agent.lifeSeconds = 6;
  const { server, asks } = await startStage(t, {}, agent);
  while (agent.signed.length < 3) {
    assert.equal((await asks()).status, 200);
    const [, claims = ''] = server.requests.at(-1)?.headers.authorization?.split('.') ?? [];
    const { exp } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { exp: number };
    assert.ok(exp * 1000 > Date.now() - 500, String(exp));
  }
});

test('the first request waits for the first token, and no longer than it may', async (t) => {
  const agent = await startJwtAgent(t);
  // It takes the call, and says nothing.
  agent.api.answerJwt(() => {
    throw new Error('not yet');
  });
  const { server, asks } = await startStage(t, {}, agent, false);
  const begun = performance.now();
  const answer = await asks();
  assert.equal(answer.status, 503);
  assert.match(answer.body, /^scute: there is no token to attach: (?:timeout|agent_unavailable)\n$/);
  assert.ok(performance.now() - begun < 30_000);
  assert.equal(server.requests.length, 0);
});

test('an application that leaves while its request waits for a token leaves nothing behind', async (t) => {
  const agent = await startJwtAgent(t);
  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE);
  const { server, sidecar } = await startStage(t, {}, agent, false);
  const { host, port } = addressOf(sidecar) as Extract<Address, { kind: 'tcp' }>;
  const socket = connect(port, host);
  await once(socket, 'connect');
  socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await eventually(async () => assert.ok((await sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' })) > 0));
  socket.resetAndDestroy();
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 0));

  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE, { times: 1 });
  await eventually(async () => assert.equal(await sidecar.metric('scute_token_fetches_total', { result: 'ok' }), 1));
  assert.equal((await ask(addressOf(sidecar), '/')).status, 200);
  assert.equal(server.connections(), 1);
});

test('a token is withdrawn with the identity', async (t) => {
  const { server, agent, asks } = await startStage(t);
  assert.equal((await asks()).status, 200);
  agent.api.failWith('FetchJWTSVID', status.PERMISSION_DENIED);
  agent.api.failWith('FetchX509SVID', status.PERMISSION_DENIED);
  await eventually(async () => assert.equal((await asks()).status, 503));
  const seen = server.requests.length;
  assert.match((await asks()).body, /no token to attach: (?:identity_not_ready|not_entitled)/);
  assert.equal(server.requests.length, seen);
});

for (const [whose, jwt] of [
  ['of a named identity', { spiffeId: SUBJECT }],
  ['of the default identity', {}],
] as const)
  test(`a token ${whose} is put on nothing once we do not hold that`, async (t) => {
    const { server, agent, asks } = await startStage(t, jwt);
    assert.equal((await asks()).status, 200);
    agent.api.failWith('FetchJWTSVID', status.PERMISSION_DENIED);
    const authority = createTestAuthority();

    agent.api.setX509([svidEntry(authority, authority.issue({ id: API }), API)]);

    await eventually(async () => assert.equal((await asks()).status, 503));
    const seen = server.requests.length;
    assert.match((await asks()).body, /no token to attach: not_entitled/);
    assert.equal(server.requests.length, seen);
  });

test('another token is fetched when the key that signed it is gone', async (t) => {
  const { server, agent, asks } = await startStage(t);
  assert.equal((await asks()).status, 200);
  agent.become(testKey('two'));
  await eventually(async () => {
    assert.equal((await asks()).status, 200);
    assert.equal(agent.signed.length, 2);
    assert.equal(server.requests.at(-1)?.headers.authorization, `Bearer ${agent.signed[1]}`);
  });
});

test('a token is in no line of the log, no metric and no page', async (t) => {
  const { agent, sidecar, asks } = await startStage(t);
  assert.equal((await asks()).status, 200);
  const admin = addressOf(sidecar, 'admin');
  const pages = await Promise.all(
    ['/config_dump', '/metrics', '/policy', '/api/v1/overview', '/api/v1/connections', '/api/v1/listeners', '/api/v1/tokens'].map((path) =>
      ask(admin, path),
    ),
  );
  const text = [JSON.stringify(sidecar.log()), ...pages.map(({ body }) => body)].join('\n');
  assert.ok(pages.every(({ status: code }) => code === 200));
  const [header = '', claims = '', signature = ''] = agent.signed[0]?.split('.') ?? [];
  for (const part of [header, claims, signature]) assert.ok(part.length > 10 && !text.includes(part), part);
  assert.match(text, /"source":"jwt partner"/);
});

test('tokens are in the inventory by audience and end, with why there is none', async (t) => {
  const { agent, sidecar, asks } = await startStage(t, { spiffeId: SUBJECT });
  assert.equal((await asks()).status, 200);
  const { items } = await api<TokenList>(sidecar, 'tokens');
  const [held] = items;
  assert.deepEqual(
    [items.length, held?.source, held?.kind, held?.audience, held?.spiffeId, held?.listeners, held?.problem],
    [1, `jwt partner as ${SUBJECT}`, 'jwt_svid', 'partner', SUBJECT, [{ name: 'out', direction: 'outbound' }], null],
  );
  const leftMs = Date.parse(held?.expiresAt ?? '') - Date.now();
  assert.ok(leftMs > 200_000 && leftMs <= 300_000, String(leftMs));
  assert.ok(Date.parse(held?.nextFetchAt ?? '') < Date.parse(held?.expiresAt ?? ''));

  agent.api.failWith('FetchJWTSVID', status.PERMISSION_DENIED);
  agent.api.failWith('FetchX509SVID', status.PERMISSION_DENIED);
  await eventually(async () => {
    const [none] = (await api<TokenList>(sidecar, 'tokens')).items;
    assert.equal(none?.expiresAt, null);
    assert.ok(none.problem !== null);
  });
  const checks = (await api<Readiness>(sidecar, 'readiness')).checks.find(({ name }) => name === 'tokens');
  assert.deepEqual([checks?.ok, checks?.blocks], [false, false]);
});

test('a request that is sent once more, since its connection was closed, has the token once', async (t) => {
  const agent = await startJwtAgent(t);
  const { chainPem, keyPem } = issueForWeb(CA);
  const heads: string[] = [];
  let connections = 0;
  const server = await tlsServer(t, { cert: chainPem, key: keyPem }, (socket) => {
    const number = ++connections;
    let requests = 0;
    socket.on('data', (chunk: Buffer) => {
      heads.push(chunk.toString('latin1'));
      if (number === 1 && ++requests === 2) socket.destroy();
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    });
  });
  const caFile = join(await temporaryFolder(t), 'ca.pem');
  await writeFile(caFile, CA.pem);
  const to = `https://localhost:${server.address.split(':').at(-1)}`;
  const out = { name: 'out', listen: '127.0.0.1:0', protocol: 'http', to, webPki: { caFile }, jwt: { audience: 'partner' } };
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: agent.api.endpoint }, outbound: [out] });
  await tokenFetched(sidecar);
  const { host, port } = addressOf(sidecar) as Extract<Address, { kind: 'tcp' }>;
  const line = wire(connect(port, host));
  t.after(() => line.socket.destroy());
  line.socket.write('GET /1 HTTP/1.1\r\nHost: a\r\n\r\n');
  await line.until('ok');
  line.socket.write('GET /2 HTTP/1.1\r\nHost: a\r\n\r\n');
  await line.until(/ok.*ok/s);

  assert.deepEqual(
    heads.map((head) => [head.split(' ')[1], head.match(/^Authorization: .*$/gm)]),
    ['/1', '/2', '/2'].map((path) => [path, [`Authorization: Bearer ${agent.signed[0]}`]]),
  );
  assert.equal(await sidecar.metric('scute_http_retries_total', { result: 'forwarded' }), 1);
});

test('a Scute that puts no token on requests makes no call about JWTs', async (t) => {
  const agent = await startJwtAgent(t);
  const server = await startWebServer(t);
  const out = { name: 'out', listen: '127.0.0.1:0', protocol: 'http', to: server.origin, webPki: { caFile: server.caFile } };
  const credentials = [{ name: 'unused', kind: 'client_credentials', tokenEndpoint: `${server.origin}/token`, jwtAudience: 'a' }];
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: agent.api.endpoint }, outbound: [out], credentials });
  assert.equal((await ask(addressOf(sidecar), '/')).status, 200);
  assert.deepEqual([...new Set(agent.api.calls.map(({ method }) => method))], ['FetchX509SVID']);
  assert.equal(server.requests.length, 1);
});
