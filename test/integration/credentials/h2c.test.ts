/** Tokens for servers, and servers of the public web, for an application that speaks HTTP/2. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rename, writeFile } from 'node:fs/promises';
import type { OutgoingHttpHeaders } from 'node:http2';
import { test, type TestContext } from 'node:test';
import { status } from '@grpc/grpc-js';
import { API, startExampleDomain, WEB } from '../../support/data-path.ts';
import type { Clock } from '../../../src/lib/clock.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { answerOk } from '../../support/http/h2c-application.ts';
import { h2cOutbound, startCaller, startHttp2Server } from '../../support/http/h2c-outbound.ts';
import { echo, EXTENDED, heardOn, OFFERING, serveConnect, switchTo } from '../../support/http/extended-connect.ts';
import { answerOn, request } from '../../support/http/http2-stage.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { tokenFetched } from '../../support/tokens/held-token.ts';
import { startJwtAgent, type JwtAgent } from '../../support/tokens/jwt-agent.ts';
import { SUBJECT } from '../../support/tokens/tokens.ts';
import { startWebServer, type WebServer, type WebServerOptions } from '../../support/web-server.ts';

const GRPC = { ':method': 'POST', ':path': '/pkg.Service/Method', 'content-type': 'application/grpc' };

/** A server of the web over HTTP/2, and an application with a sidecar whose listener has `jwt`, if any. */
async function startStage(
  t: TestContext,
  options: {
    readonly jwt?: object;
    readonly agent?: JwtAgent;
    readonly isHeld?: boolean;
    readonly web?: WebServerOptions;
    readonly clock?: Clock;
  } = {},
) {
  const { jwt, agent: given, isHeld = jwt !== undefined } = options;
  const agent = given ?? (await startJwtAgent(t));
  const server = await startWebServer(t, { isHttp2: true, ...options.web });
  const config = {
    workloadApi: { endpoint: agent.api.endpoint },
    outbound: [toWeb(server, jwt && { jwt: { audience: 'partner', ...jwt } })],
  };
  const sidecar = await startSidecar(t, config, options.clock && { clock: options.clock });
  if (isHeld) await tokenFetched(sidecar);
  const client = await startCaller(t, sidecar.address('out'));
  return { server, agent, sidecar, client, asks: (headers: OutgoingHttpHeaders = {}, body?: string) => request(client, headers, body) };
}

function toWeb({ origin, caFile }: Pick<WebServer, 'origin' | 'caFile'>, more: object = {}): object {
  return h2cOutbound({}, { name: 'out', listen: '127.0.0.1:0', to: origin, webPki: { caFile }, ...more });
}

/** How often a token was asked for. */
function fetches(sidecar: Sidecar): Promise<number> {
  return sidecar.metric('scute_token_fetches_total');
}

async function replace(file: string, text: string): Promise<void> {
  await writeFile(`${file}.new`, text);
  await rename(`${file}.new`, file);
}

test('streams without a token get ours, each once, and the same one serves all of them', async (t) => {
  const { server, agent, asks } = await startStage(t, { jwt: {} });

  const answers = await Promise.all(
    Array.from({ length: 50 }, (_, index) => (index % 2 === 0 ? asks() : asks({ ':method': 'POST' }, 'body'))),
  );

  assert.deepEqual(new Set(answers.map(({ status: code, reset }) => `${code} ${reset}`)), new Set(['200 undefined']));
  assert.deepEqual(agent.asked, [{ audience: ['partner'], spiffeId: '' }]);
  assert.deepEqual(new Set(server.requests.map(({ headers }) => headers.authorization)), new Set([`Bearer ${agent.signed[0]}`]));
  for (const { rawHeaders } of server.requests) assert.equal(rawHeaders.filter((name) => name === 'authorization').length, 1);
  assert.deepEqual([server.requests.length, server.connections()], [50, 1]);
});

test('a stream with a token of its own goes as it is, and waits for none', async (t) => {
  const { server, agent, asks } = await startStage(t, { jwt: {} });
  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE);

  assert.equal((await asks({ authorization: 'Basic own' })).status, 200);

  assert.equal(server.requests[0]?.headers.authorization, 'Basic own');
});

test('where it is to be replaced, nothing that the application sends under that name arrives, in heads or trailers, however it is spelt', async (t) => {
  const { server, agent, asks, client } = await startStage(t, { jwt: { replace: true, header: 'X-Token', spiffeId: SUBJECT } });
  assert.equal((await asks({ 'x-token': 'own', x_token: 'other', 'x.token': 'third', authorization: 'Basic own' })).status, 200);
  const { headers } = server.requests[0] ?? {};
  assert.equal(headers?.['x-token'], `Bearer ${agent.signed[0]}`);
  assert.deepEqual([headers['x_token'], headers['x.token'], headers.authorization], [undefined, undefined, 'Basic own']);

  let trailers: unknown;
  server.answer((incoming, response) => {
    incoming.resume().on('end', () => {
      trailers = incoming.rawTrailers;
      response.end('hello');
    });
  });
  const stream = client.request({ ':method': 'POST' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-token': 'trailing', x_token: 'too', 'x-sum': '1' }));
  stream.end('body');
  assert.equal((await answerOn(stream)).status, 200);
  assert.deepEqual(trailers, ['x-sum', '1']);
});

test('a server with a SPIFFE ID is sent one as well, and only for what it may be asked', async (t) => {
  const spiffe = await startExampleDomain(t);
  const server = await startHttp2Server(t, spiffe, answerOk);
  const out = h2cOutbound({}, { name: 'out', listen: '127.0.0.1:0', to: server.address, jwt: { audience: API } });
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    outbound: [{ ...out, expect: [{ peer: API, paths: ['/a'] }] }],
  });
  await tokenFetched(sidecar);
  const client = await startCaller(t, sidecar.address('out'));

  assert.deepEqual(
    (await Promise.all(['/b', '/a', '/b'].map((path) => request(client, { ':path': path })))).map(({ status: code }) => code),
    [502, 200, 502],
  );

  const [head = [], ...others] = server.heads;
  assert.equal(others.length, 0);
  const [, claims = ''] = head[head.indexOf('authorization') + 1]?.replace(/^Bearer /, '').split('.') ?? [];
  const { sub, aud } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { sub: string; aud: unknown };
  assert.deepEqual([sub, aud], [WEB, [API]]);
  // No text of the log has it.
  assert.ok(claims.length > 10 && !JSON.stringify(sidecar.log()).includes(claims));
});

test('while there is no token, a stream has a 503 with the reason, for gRPC UNAVAILABLE without a body, and it heals by itself', async (t) => {
  const agent = await startJwtAgent(t);
  agent.lifeSeconds = 3;
  const { server, sidecar, asks } = await startStage(t, { jwt: {}, agent });
  assert.equal((await asks()).status, 200);
  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE);

  await eventually(async () => {
    const answer = await asks();
    assert.deepEqual([answer.status, answer.body.toString()], [503, 'scute: there is no token to attach: agent_unavailable\n']);
  });
  const seen = server.requests.length;
  const call = await asks(GRPC, 'x');
  assert.deepEqual(
    [call.status, call.headers['grpc-status'], call.headers['grpc-message'], call.body.length],
    [200, '14', 'scute: there is no token to attach: agent_unavailable', 0],
  );
  assert.equal(server.requests.length, seen);
  assert.ok((await sidecar.metric('scute_http_requests_total', { result: 'token_unavailable' })) >= 2);

  agent.lifeSeconds = 300;
  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE, { times: 1 });
  await eventually(async () => assert.equal((await asks()).status, 200));
  assert.equal(server.requests.at(-1)?.headers.authorization, `Bearer ${agent.signed.at(-1)}`);
});

test('streams that wait for the first token go on in the order in which they came, with what was said of their bodies; who left is not sent', async (t) => {
  const agent = await startJwtAgent(t);
  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE);
  // Nobody waits too long.
  const clock = new FakeClock();
  const { server, sidecar, client } = await startStage(t, { jwt: {}, agent, isHeld: false, clock });
  await eventually(async () => assert.ok((await sidecar.metric('scute_token_fetches_total', { result: 'agent_unavailable' })) >= 1));
  const bodies: string[] = [];
  server.answer((incoming, response) => {
    let body = '';
    incoming.on('data', (chunk: Buffer) => (body += chunk.toString()));
    incoming.on('end', () => {
      bodies.push(`${incoming.url} ${body}`);
      response.end('hello');
    });
  });
  const answers = Array.from({ length: 10 }, (_, index) => {
    // Who brings one of its own is behind who waits, for no stream may come after one with a higher number.
    const stream = client.request({ ':method': 'POST', ':path': `/${index}`, ...(index % 3 === 2 && { authorization: 'Basic own' }) });
    stream.end(`body ${index}`);
    if (index === 4) setImmediate(() => stream.close());
    return answerOn(stream);
  });
  await eventually(async () => assert.equal(await sidecar.metric('scute_http_requests_total', { result: 'downstream_closed' }), 1));
  assert.equal(server.requests.length, 0);

  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE, { times: 1 });
  const all = Promise.all(answers);
  for (let time = 0; time < 2; time++) {
    const before = await fetches(sidecar);
    clock.advance(2000);
    await eventually(async () => assert.ok((await fetches(sidecar)) > before));
  }

  assert.deepEqual(
    (await all).map(({ status: code }) => code),
    Array.from({ length: 10 }, (_, index) => (index === 4 ? 0 : 200)),
  );
  const sent = [0, 1, 2, 3, 5, 6, 7, 8, 9];
  assert.deepEqual(
    server.requests.map(({ url }) => url),
    sent.map((index) => `/${index}`),
  );
  assert.deepEqual(
    bodies.toSorted(),
    sent.map((index) => `/${index} body ${index}`),
  );
});

test('an application that leaves while its streams wait for a token leaves nothing behind', async (t) => {
  const agent = await startJwtAgent(t);
  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE);
  const { server, sidecar, client } = await startStage(t, { jwt: {}, agent, isHeld: false });
  const waiting = Array.from({ length: 5 }, () => answerOn(client.request({ ':path': '/' })));
  await eventually(async () => assert.ok((await sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' })) > 0));
  client.destroy();
  await Promise.all(waiting);
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 0));

  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE, { times: 1 });
  await eventually(async () => assert.equal(await sidecar.metric('scute_token_fetches_total', { result: 'ok' }), 1));
  assert.equal((await request(await startCaller(t, sidecar.address('out')), { ':path': '/' })).status, 200);
  assert.equal(server.requests.length, 1);
});

test('a token is put on nothing any more once its identity is withdrawn', async (t) => {
  const { server, agent, asks } = await startStage(t, { jwt: {} });
  assert.equal((await asks()).status, 200);
  agent.api.failWith('FetchJWTSVID', status.PERMISSION_DENIED);
  agent.api.failWith('FetchX509SVID', status.PERMISSION_DENIED);

  await eventually(async () => assert.equal((await asks()).status, 503));
  const seen = server.requests.length;

  assert.match((await asks()).body.toString(), /no token to attach: (?:identity_not_ready|not_entitled)/);
  assert.equal(server.requests.length, seen);
});

test('a WebSocket over HTTP/2 has the token as well', async (t) => {
  const spiffe = await startExampleDomain(t);
  const server = await startHttp2Server(t, spiffe, serveConnect(echo), OFFERING);
  const out = h2cOutbound(EXTENDED, { name: 'out', listen: '127.0.0.1:0', to: server.address, expect: [API], jwt: { audience: API } });
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('web') }, outbound: [out] });
  await tokenFetched(sidecar);
  const client = await startCaller(t, sidecar.address('out'));

  const { stream } = await switchTo(client);
  const heard = heardOn(stream);
  stream.end('hello');
  await eventually(() => assert.equal(heard(), 'hello'));

  assert.match(server.heads[0]?.at(-1) ?? '', /^Bearer /);
});

test('a server of the public web is asked over HTTP/2 under its own name, and nothing of ours is presented', async (t) => {
  const { server, sidecar, client, asks } = await startStage(t);

  const answer = await asks({
    ':path': '/a?b',
    ':authority': 'application.internal:8080',
    host: 'application.internal:8080',
    'x-other': '1',
  });

  assert.deepEqual([answer.status, answer.body.toString()], [200, 'hello']);
  const [seen] = server.requests;
  assert.deepEqual(
    [
      seen?.url,
      seen?.headers[':authority'],
      seen?.headers.host,
      seen?.headers[':scheme'],
      seen?.headers['x-other'],
      seen?.clientCertificate,
    ],
    ['/a?b', `localhost:${server.port}`, undefined, 'https', '1', false],
  );
  client.close();
  const line = await sidecar.connection();
  assert.deepEqual([line['verdict'], line['rule'], line['peer_id'], line['close_reason']], ['allow', 'webPki', undefined, 'finished']);
  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { result: 'ok', direction: 'outbound' }), 1);
});

test('a server of the web that is not who it must be, or speaks no HTTP/2, is sent nothing', async (t) => {
  const foreign = createTestAuthority({ trustDomain: 'foreign.test' });
  const http1 = await startWebServer(t);
  const stranger = await startWebServer(t, { isHttp2: true });
  await replace(stranger.caFile, foreign.pem);
  for (const [server, listener, detail] of [
    [http1, {}, /the server does not speak HTTP\/2/],
    [stranger, {}, /the server is not who it must be: untrusted_chain|the TLS handshake with the server failed: bad_certificate/],
    // The authorities of the public web vouch for nobody here.
    [
      stranger,
      { webPki: true },
      /the server is not who it must be: untrusted_chain|the TLS handshake with the server failed: bad_certificate/,
    ],
  ] as const) {
    const agent = await startJwtAgent(t);
    const sidecar = await startSidecar(t, {
      workloadApi: { endpoint: agent.api.endpoint },
      outbound: [toWeb(server, { ...listener, jwt: { audience: 'partner' } })],
    });
    await tokenFetched(sidecar);
    const client = await startCaller(t, sidecar.address('out'));
    const [plain, call] = await Promise.all([request(client, { ':path': '/' }), request(client, GRPC, 'x')]);
    assert.equal(plain.status, 502);
    assert.match(plain.body.toString(), detail);
    assert.equal(call.headers['grpc-status'], '14');
    assert.equal(server.requests.length, 0);
  }
});

test('a CA file that changes is in force for what is asked next, and lets what is under way end', async (t) => {
  const { server, sidecar, client } = await startStage(t);
  let finish: (() => void) | undefined;
  server.answer((_, response) => {
    response.write('begun');
    finish = () => response.end(' and whole');
  });
  const slow = answerOn(client.request({ ':path': '/slow' }));
  await eventually(() => assert.ok(finish !== undefined));
  const goaway = once(client, 'goaway');

  await replace(server.caFile, createTestAuthority({ trustDomain: 'foreign.test' }).pem);
  await eventually(async () => assert.equal(await sidecar.metric('scute_authorities_reloads_total', { result: 'ok' }), 1));
  await goaway;
  finish?.();

  assert.equal((await slow).body.toString(), 'begun and whole');
  const next = await startCaller(t, sidecar.address('out'));
  assert.equal((await request(next, { ':path': '/' })).status, 502);
  assert.equal(server.requests.length, 1);
});
