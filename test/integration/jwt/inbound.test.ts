/** What an inbound listener makes of the JWT-SVIDs of requests, over both versions of HTTP. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { status } from '@grpc/grpc-js';
import { API, presented, startExampleDomain, WEB } from '../../support/data-path.ts';
import { everyPage } from '../../support/admin/api.ts';
import { startDenyFile } from '../../support/policy/deny-file.ts';
import { startDevDomainWith } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { send, startRawApplication, wire } from '../../support/http/http-stage.ts';
import { echo, EXTENDED, heardOn, startConnectApplication, switchTo } from '../../support/http/extended-connect.ts';
import { CANCEL } from '../../support/http/http2-frames.ts';
import { connectClient, request } from '../../support/http/http2-stage.ts';
import { tlsClient } from '../../support/tls-peer.ts';
import { tokenRows, KEY, ROW_BUNDLES } from '../../support/tokens/token-rows.ts';
import {
  JWT,
  overHttp1,
  requestLines,
  startApplication,
  startTokenStage,
  SUBJECT_HEADER,
  VERSIONS,
  type FieldLines,
} from '../../support/tokens/token-stage.ts';
import { AUDIENCE, jwk, jwks, testKey, token } from '../../support/tokens/tokens.ts';

const APP = 'spiffe://example.org/app';
const bearer = (text: string): FieldLines => [['Authorization', `Bearer ${text}`]];

for (const [version, connect, application] of VERSIONS) {
  test(`${version}: the application is told whose token it was, and not the token; callers can forge neither`, async (t) => {
    const stage = await startTokenStage(t, { application, jwt: JWT, http: { spiffeIdHeader: 'X-Spiffe-Id' } });
    const ask = await connect(t, stage);
    const text = token({ key: stage.key, claims: { sub: APP } });

    const forged: FieldLines = [
      ...bearer(text),
      ['X-Spiffe-Jwt-Subject', 'spiffe://example.org/forged'],
      ['x_spiffe_jwt_subject', 'spiffe://example.org/forged'],
      ['X-Spiffe-JWT_Subject', 'spiffe://example.org/forged'],
      ['X-Other', 'stays'],
    ];
    assert.deepEqual(await ask(forged), { status: 200, challenge: undefined, body: 'ok' });
    const [seen] = stage.seen;
    assert.equal(seen?.headers[SUBJECT_HEADER], APP);
    assert.deepEqual(
      seen?.names.map((name) => name.toLowerCase().replaceAll('_', '-')).filter((name) => name === SUBJECT_HEADER),
      [SUBJECT_HEADER],
    );
    assert.equal(seen?.headers.authorization, undefined);
    assert.equal(seen?.headers['x-other'], 'stays');
    // These speak of TLS.
    assert.equal(seen?.headers['x-spiffe-id'], WEB);
    assert.match(String(seen?.headers['x-forwarded-client-cert']), new RegExp(`URI=${WEB}$`));

    const [line] = requestLines(stage.sidecar);
    assert.deepEqual([line?.['peer_id'], line?.['subject'], line?.['result']], [WEB, APP, 'forwarded']);
    assert.ok(!JSON.stringify(stage.sidecar.log()).includes(text.split('.')[2] ?? text));
    assert.equal(await stage.sidecar.metric('scute_jwt_tokens_total', { listener: 'in', result: 'verified' }), 1);
  });

  test(`${version}: a request without a token, or with more than one, is refused as RFC 6750 asks, and so is HEAD`, async (t) => {
    const stage = await startTokenStage(t, { application, jwt: JWT });
    const ask = await connect(t, stage);
    const text = token({ key: stage.key });
    const invalid = { status: 401, challenge: 'Bearer error="invalid_token"', body: 'scute: the token is not accepted\n' };

    assert.deepEqual(await ask([]), { status: 401, challenge: 'Bearer', body: 'scute: a token is needed\n' });
    assert.deepEqual(await ask([['Authorization', 'Basic d2ViOnNlY3JldA==']]), {
      status: 401,
      challenge: 'Bearer',
      body: 'scute: a token is needed\n',
    });
    assert.deepEqual(await ask([], { method: 'HEAD' }), { status: 401, challenge: 'Bearer', body: '' });
    const many = { status: 400, challenge: 'Bearer error="invalid_request"', body: 'scute: there is more than one token\n' };
    assert.deepEqual(await ask([...bearer(text), ...bearer(text)]), many);
    assert.deepEqual(await ask([...bearer(text), ['Authorization', 'Basic d2Vi']]), many);
    assert.deepEqual(await ask(Array.from({ length: 10 }, () => bearer(text)).flat()), many);
    for (const value of [
      'Bearer',
      'bearer',
      'Bearer x',
      `Bearer ${text}, Bearer ${text}`,
      `Bearer ${text} x`,
      `Bearer\u00a0${text}`,
      `Bearer,${text}`,
    ])
      assert.deepEqual(await ask([['Authorization', value]]), invalid, JSON.stringify(value));
    assert.deepEqual(stage.seen, []);
    for (const scheme of ['Bearer', 'bearer', 'BEARER']) assert.equal((await ask([['authorization', `${scheme} ${text}`]])).status, 200);

    const metric = (result: string): Promise<number> => stage.sidecar.metric('scute_jwt_tokens_total', { listener: 'in', result });
    assert.deepEqual([await metric('token_missing'), await metric('token_repeated'), await metric('token_malformed')], [3, 3, 7]);
    assert.deepEqual([await metric('verified'), await metric('known')], [1, 2]);
    const refused = requestLines(stage.sidecar).filter(({ result }) => result === 'token_refused');
    assert.equal(refused.length, 13);
    assert.deepEqual([refused[0]?.['verdict'], refused[0]?.['reason'], refused[0]?.['subject']], ['deny', 'token_missing', undefined]);
  });

  test(`${version}: every token of the conformance rows is taken or refused for its reason, and a stranger is told nothing of it`, async (t) => {
    const stage = await startTokenStage(t, { application, jwt: JWT });
    stage.serve({ ...ROW_BUNDLES, 'example.org': ROW_BUNDLES['example.org'] ?? '' });
    const ask = await connect(t, stage);
    const good = token({ key: KEY });
    await eventually(async () => assert.equal((await ask(bearer(good))).status, 200));

    for (const { name, text, verdict } of tokenRows(Date.now()).filter(
      (row) => !/[\r\n ]/.test(row.text) && row.text !== '' && row.text.length < 30_000,
    )) {
      const before = requestLines(stage.sidecar).length;
      const answer = await ask(bearer(text));
      if (verdict.startsWith('spiffe://')) assert.equal(answer.status, 200, name);
      else
        assert.deepEqual(
          answer,
          { status: 401, challenge: 'Bearer error="invalid_token"', body: 'scute: the token is not accepted\n' },
          name,
        );
      const line = await eventually(() => {
        const found = requestLines(stage.sidecar)[before];
        assert.ok(found !== undefined);
        return Promise.resolve(found);
      });
      if (answer.status === 401) assert.equal(line['reason'], verdict, name);
    }
    assert.equal((await ask(bearer(good))).status, 200);
  });

  test(`${version}: with ifPresent a request without a token is judged by its peer, and one that does not verify is refused`, async (t) => {
    const stage = await startTokenStage(t, { application, jwt: { ...JWT, require: 'ifPresent' } });
    const ask = await connect(t, stage);

    assert.equal((await ask([['X-Spiffe-Jwt-Subject', APP]])).status, 200);
    assert.equal((await ask([['Authorization', 'Basic d2ViOnNlY3JldA==']])).status, 200);
    assert.equal((await ask(bearer(token({ key: stage.key, claims: { sub: APP } })))).status, 200);
    assert.deepEqual(
      stage.seen.map(({ headers }) => [headers[SUBJECT_HEADER], headers.authorization]),
      [
        [undefined, undefined],
        [undefined, 'Basic d2ViOnNlY3JldA=='],
        [APP, undefined],
      ],
    );
    for (const fields of [
      bearer('x'),
      bearer(token({ key: testKey('one') })),
      [['Authorization', '\u00a0Bearer x'] as const],
      [['Authorization', 'Bearer\tx'] as const],
      // Behind another scheme, for who looks for the word anywhere.
      [['Authorization', `Basic d2ViOnNlY3JldA==, Bearer ${token({ key: testKey('one') })}`] as const],
      [['Authorization', 'Digest realm="a" bearer x'] as const],
    ])
      assert.equal((await ask(fields)).status, 401, JSON.stringify(fields));
    assert.equal((await ask([['Authorization', 'Basic Zm9yYmVhcmVy']])).status, 200);
    assert.equal(stage.seen.length, 4);
    assert.equal(await stage.sidecar.metric('scute_jwt_tokens_total', { listener: 'in', result: 'none' }), 3);
  });

  test(`${version}: the token goes on only if the listener says so, and may come in a field of its own`, async (t) => {
    const stage = await startTokenStage(t, {
      application,
      jwt: { ...JWT, header: 'X-Token', unsafeForwardToken: true, subjectHeader: 'X-Subject' },
    });
    const ask = await connect(t, stage);
    const text = token({ key: stage.key });

    assert.equal(
      (
        await ask([
          ['X-Token', text],
          ['Authorization', 'Bearer for-the-application'],
        ])
      ).status,
      200,
    );
    assert.equal((await ask([['x_token', text]])).status, 200);
    assert.deepEqual(
      stage.seen.map(({ headers }) => [headers['x-token'] ?? headers['x_token'], headers['x-subject'], headers.authorization]),
      [
        [text, WEB, 'Bearer for-the-application'],
        [text, WEB, undefined],
      ],
    );
    // However it is spelt, it is one field: nobody may have another token beside the one that was verified.
    assert.equal(
      (
        await ask([
          ['X-Token', text],
          ['X_Token', 'forged'],
        ])
      ).status,
      400,
    );
    assert.equal((await ask([['X_Token', 'forged']])).status, 401);
    assert.equal((await ask(bearer(text))).status, 401);
  });

  test(`${version}: rules ask for the TLS peer, for the subject, or for both, and the log says which`, async (t) => {
    const stage = await startTokenStage(t, {
      application,
      jwt: { ...JWT, require: 'ifPresent' },
      listener: {
        allow: [
          { peer: WEB, paths: ['/peer'] },
          { subject: 'spiffe://example.org/apps/*', paths: ['/subject'] },
          { peer: WEB, subject: APP, paths: ['/both'] },
        ],
        deny: [{ subject: 'spiffe://example.org/apps/bad' }],
      },
    });
    const ask = await connect(t, stage);
    const of = (sub: string): FieldLines => bearer(token({ key: stage.key, claims: { sub } }));
    const asked = async (path: string, fields: FieldLines): Promise<[number, unknown, unknown]> => {
      const { status } = await ask(fields, { path });
      const line = await eventually(() => {
        const found = requestLines(stage.sidecar).at(-1);
        assert.equal(found?.['path'], path);
        return Promise.resolve(found);
      });
      return [status, line['rule'], line['subject']];
    };

    assert.deepEqual(await asked('/peer', []), [200, `${WEB} /peer`, undefined]);
    assert.deepEqual(await asked('/subject', of('spiffe://example.org/apps/a')), [
      200,
      'subject spiffe://example.org/apps/* /subject',
      'spiffe://example.org/apps/a',
    ]);
    assert.deepEqual(await asked('/both', of(APP)), [200, `${WEB} subject ${APP} /both`, APP]);
    assert.deepEqual(await asked('/both', of('spiffe://example.org/apps/a')), [403, undefined, 'spiffe://example.org/apps/a']);
    assert.deepEqual(await asked('/both', []), [403, undefined, undefined]);
    assert.deepEqual(await asked('/subject', []), [403, undefined, undefined]);
    const bad = 'spiffe://example.org/apps/bad';
    assert.deepEqual(await asked('/peer', of(bad)), [403, `deny subject ${bad}`, bad]);
    assert.equal(requestLines(stage.sidecar).filter(({ near }) => near !== undefined).length, 3);
  });

  test(`${version}: the deny list covers the subject, at once and for a token that is known`, async (t) => {
    const denied = await startDenyFile(t);
    const stage = await startTokenStage(t, { application, jwt: JWT, file: { revocations: { file: denied.path } } });
    const ask = await connect(t, stage);
    const fields = bearer(token({ key: stage.key, claims: { sub: APP } }));
    const other = bearer(token({ key: stage.key }));
    assert.equal((await ask(fields)).status, 200);

    await denied.become({ ids: [APP] });

    await eventually(async () => assert.equal((await ask(fields)).status, 401));
    assert.equal((await ask(other)).status, 200);
    const line = requestLines(stage.sidecar).find(({ reason }) => reason === 'token_revoked');
    assert.match(String(line?.['detail']), /^the subject of the token: .*spiffe:\/\/example\.org\/app/);
  });

  test(`${version}: a token that was verified is asked again for its time, its key and its bundle`, async (t) => {
    const clock = new FakeClock();
    const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
      { name: 'example.org', svidLife: '10h', workloads: { web: [WEB], api: [API] } },
    ]);
    const stage = await startTokenStage(t, { application, jwt: JWT, spiffe, sidecar: { clock } });
    const ask = await connect(t, stage);
    const next = testKey('two');
    const fields = bearer(token({ key: stage.key, nowMs: clock.now() }));
    const long = bearer(token({ key: stage.key, nowMs: clock.now(), claims: { exp: Math.floor(clock.now() / 1000) + 3600 } }));
    for (const each of [fields, fields, long]) assert.equal((await ask(each)).status, 200);
    assert.equal(await stage.sidecar.metric('scute_jwt_tokens_total', { result: 'known' }), 1);

    // Its life is five minutes, and half a minute of leeway.
    clock.advance(329_000);
    assert.equal((await ask(fields)).status, 200);
    clock.advance(2000);
    assert.equal((await ask(fields)).status, 401);
    assert.equal((await ask(long)).status, 200);

    stage.serve({ 'example.org': jwks(jwk(stage.key), jwk(next)) });
    const fresh = bearer(token({ key: next, nowMs: clock.now() }));
    await eventually(async () => assert.equal((await ask(fresh)).status, 200));
    assert.equal((await ask(long)).status, 200);
    stage.serve({ 'example.org': jwks(jwk(next)) });
    await eventually(async () => assert.equal((await ask(long)).status, 401));
    assert.equal((await ask(fresh)).status, 200);
    // Another key of the same name is another key.
    stage.serve({ 'example.org': jwks(jwk(testKey('two'))) });
    await eventually(async () => assert.equal((await ask(fresh)).status, 401));
    stage.serve({});
    await eventually(() => assert.equal(requestLines(stage.sidecar).length > 0, true));
    await eventually(async () => {
      await ask(fresh);
      assert.equal(requestLines(stage.sidecar).at(-1)?.['reason'], 'token_untrusted_domain');
    });
  });

  test(`${version}: a peer that is not allowed is told so, and its token is not looked at`, async (t) => {
    const stage = await startTokenStage(t, { application, jwt: JWT, listener: { allow: [API] } });
    const answer = await (await connect(t, stage))(bearer('x'));
    assert.deepEqual([answer.status, answer.challenge], [403, undefined]);
    assert.match(answer.body, /not_allowed/);
    for (const result of ['token_malformed', 'none', 'token_missing'])
      assert.equal(await stage.sidecar.metric('scute_jwt_tokens_total', { result }), 0);
  });

  test(`${version}: a listener without jwt leaves everything to the application, and makes no JWT call`, async (t) => {
    const calls: string[] = [];
    const spiffe = await startDevDomainWith(t, { onCall: (_, method) => calls.push(method) }, [
      { name: 'example.org', workloads: { web: [WEB], api: [API] } },
    ]);
    const stage = await startTokenStage(t, { application, spiffe });
    const ask = await connect(t, stage);
    assert.equal(
      (
        await ask([
          ['Authorization', 'Bearer x'],
          ['X-Spiffe-Jwt-Subject', 'y'],
        ])
      ).status,
      200,
    );
    assert.deepEqual([stage.seen[0]?.headers.authorization, stage.seen[0]?.headers[SUBJECT_HEADER]], ['Bearer x', 'y']);
    assert.deepEqual([...new Set(calls)], ['FetchX509SVID']);
  });
}

test('a token that was verified for another listener is not for this one', async (t) => {
  const stage = await startTokenStage(t, {
    jwt: JWT,
    file: {
      inbound: ['in', 'other'].map((name) => ({
        name,
        listen: '127.0.0.1:0',
        to: '127.0.0.1:9',
        allow: [WEB],
        protocol: 'http',
        jwt: { audiences: [name === 'in' ? AUDIENCE : 'other'] },
      })),
    },
  });
  const fields = bearer(token({ key: stage.key }));
  assert.equal((await overHttp1(stage)(fields)).status, 502);
  assert.equal((await overHttp1({ ...stage, connect: otherOf(t, stage) })(fields)).status, 401);
  assert.equal(await stage.sidecar.metric('scute_jwt_tokens_total', { listener: 'other', result: 'token_audience' }), 1);
});

function otherOf(t: TestContext, { sidecar, web }: Awaited<ReturnType<typeof startTokenStage>>) {
  return () => Promise.resolve(tlsClient(t, sidecar.address('other'), web));
}

test('before the JWT bundles have come, tokens are answered 503 without a challenge, and the sidecar is not ready', async (t) => {
  const spiffe = await startExampleDomain(t);
  spiffe.answers('api').jwtBundles.set({ kind: 'status', code: status.UNAVAILABLE, details: 'not yet' });
  const stage = await startTokenStage(t, { jwt: { ...JWT, require: 'ifPresent' }, spiffe, serves: false, sidecar: { unready: true } });
  await eventually(() => assert.deepEqual(stage.sidecar.app.notReady(), ['jwt_bundles']));
  const ask = overHttp1(stage);
  const text = token({ key: stage.key });

  assert.deepEqual(await ask(bearer(text)), { status: 503, challenge: undefined, body: 'scute: no token can be verified at the moment\n' });
  assert.equal((await ask([])).status, 200);
  stage.serve({ 'example.org': jwks(jwk(stage.key)) });
  await eventually(async () => assert.equal((await ask(bearer(text))).status, 200));
  assert.deepEqual(stage.sidecar.app.notReady(), []);
});

test('a body comes whole behind a token that is verified meanwhile, and trailers cannot bring what the head may not', async (t) => {
  const stage = await startTokenStage(t, { jwt: JWT });
  const body = 'x'.repeat(200_000);
  const head = (key = stage.key): string =>
    `POST / HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer ${token({ key, claims: { jti: Math.random().toString() } })}\r\nTransfer-Encoding: chunked\r\n\r\n`;
  const chunks = `${body.length.toString(16)}\r\n${body}\r\n0\r\nAuthorization: Bearer x\r\nX-Spiffe-Jwt-Subject: y\r\nX-Other: z\r\n\r\n`;
  // Two requests in one go, of which neither is known.
  const line = await send(stage, head() + chunks + head() + chunks);
  await line.until(/ok[^]*ok/);
  assert.deepEqual(
    stage.seen.map(({ trailers }) => trailers),
    [{ 'x-other': 'z' }, { 'x-other': 'z' }],
  );
  assert.deepEqual(
    stage.seen.map(({ headers }) => headers[SUBJECT_HEADER]),
    [WEB, WEB],
  );

  // A client that leaves before its token is verified leaves nothing behind.
  const gone = await send(stage, head());
  gone.socket.destroy();
  await eventually(async () => assert.equal(await stage.sidecar.metric('scute_tcp_open_connections', { direction: 'inbound' }), 1));
  assert.equal(stage.seen.length, 2);
});

test('a body comes whole to an application over HTTP/2 behind a token that is verified meanwhile, and trailers bring nothing of it', async (t) => {
  const stage = await startTokenStage(t, { jwt: JWT, application: 'h2c' });
  const client = await connectClient(t, stage.address, stage.web);
  const body = Buffer.alloc(200_000, 'x');
  const ask = async (): Promise<number> => {
    const authorization = `Bearer ${token({ key: stage.key, claims: { jti: Math.random().toString() } })}`;
    const stream = client.request({ ':method': 'POST', ':path': '/', ':authority': 'api', authorization }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ authorization: 'Bearer x', [SUBJECT_HEADER]: 'y', 'x-other': 'z' }));
    stream.end(body);
    stream.resume();
    const [headers] = (await once(stream, 'response')) as [{ ':status'?: number }];
    await once(stream, 'close');
    return headers[':status'] ?? 0;
  };

  assert.deepEqual(await Promise.all([ask(), ask()]), [200, 200]);
  assert.deepEqual(
    stage.seen.map(({ headers, trailers }) => [headers[SUBJECT_HEADER], headers.authorization, Object.entries(trailers)]),
    Array.from({ length: 2 }, () => [WEB, undefined, [['x-other', 'z']]]),
  );

  // A stream that is reset before its token is verified leaves nothing behind.
  const authorization = `Bearer ${token({ key: stage.key, claims: { jti: 'gone' } })}`;
  const gone = client.request({ ':method': 'POST', ':path': '/', ':authority': 'api', authorization });
  gone.on('error', () => undefined);
  gone.close(8);
  await once(gone, 'close');
  assert.equal(await ask(), 200);
  assert.equal(await stage.sidecar.metric('scute_tcp_open_connections', { direction: 'inbound' }), 1);
});

test('an application over HTTP/2 gets requests in the order in which they came, whichever token is verified first', async (t) => {
  const stage = await startTokenStage(t, { jwt: JWT, application: 'h2c' });
  const client = await connectClient(t, stage.address, stage.web);
  const ask = (path: string, text: string): Promise<{ readonly status: number }> =>
    request(client, { ':method': 'GET', ':path': path, ':authority': 'api', authorization: `Bearer ${text}` });
  const known = token({ key: stage.key });
  assert.equal((await ask('/known', known)).status, 200);

  // The first of them is verified, and the second was before: the application takes no lower stream after a higher one.
  const answers = await Promise.all([ask('/new', token({ key: stage.key, claims: { jti: 'new' } })), ask('/again', known)]);

  assert.deepEqual(
    answers.map(({ status }) => status),
    [200, 200],
  );
  assert.deepEqual(
    stage.seen.map(({ url }) => url),
    ['/known', '/new', '/again'],
  );
});

test('many requests with one token wait for one verification', async (t) => {
  const stage = await startTokenStage(t, { jwt: JWT });
  const client = await connectClient(t, stage.address, stage.web);
  const ask = (text: string): Promise<{ status: number }> =>
    request(client, { ':method': 'GET', ':path': '/', ':authority': 'api', authorization: `Bearer ${text}` });
  const one = token({ key: stage.key });
  const answers = await Promise.all(Array.from({ length: 50 }, () => ask(one)));
  assert.ok(answers.every(({ status }) => status === 200));
  assert.deepEqual(
    [
      await stage.sidecar.metric('scute_jwt_tokens_total', { result: 'verified' }),
      await stage.sidecar.metric('scute_jwt_tokens_total', { result: 'known' }),
    ],
    [1, 49],
  );
});

test('rules with a subject need a listener that looks at tokens, and its keys are checked', async (t) => {
  const wrong: [object, RegExp][] = [
    [{ allow: [{ subject: APP }] }, /allow\[0\]\.subject: is for inbound listeners with jwt/],
    [{ jwt: JWT, protocol: 'tcp' }, /jwt: is for protocol: http/],
    [{ jwt: { audiences: [] } }, /jwt\.audiences: must be at least 1/],
    [{ jwt: { audiences: ['a', 'a'] } }, /has an audience twice/],
    [{ jwt: { audiences: [''] } }, /jwt\.audiences\[0\]/],
    [{ jwt: { ...JWT, subjectHeader: 'Authorization' } }, /jwt\.subjectHeader: is the name of a field with another meaning/],
    [{ jwt: { ...JWT, subjectHeader: 'X-Forwarded-Client-Cert' } }, /jwt\.subjectHeader/],
    [{ jwt: { ...JWT, header: 'Cookie-X', subjectHeader: 'cookie-x' } }, /jwt\.subjectHeader/],
    [{ jwt: { ...JWT, subjectHeader: 'X-Spiffe-Id' }, http: { spiffeIdHeader: 'X-Spiffe-Id' } }, /jwt\.subjectHeader: is spiffeIdHeader/],
    [{ jwt: { ...JWT, require: 'never' } }, /jwt\.require/],
    [{ jwt: JWT, allow: [{ subject: 'spiffe://*/x' }] }, /allow\[0\]\.subject/],
    [{ jwt: JWT, allow: [{}] }, /is required, or idsFile or subject/],
  ];
  for (const [listener, message] of wrong) await assert.rejects(startTokenStage(t, { listener }), message);
});

// ——— what a token admitted ends with it ———

const UPGRADE = (text: string): string =>
  `GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer ${text}\r\n\r\n`;

/** A clock that moves by hand, tokens of an hour, and a connection that was switched to another protocol by one. */
async function switched(t: TestContext, listener: object = {}, file: object = {}) {
  const clock = new FakeClock();
  const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
    { name: 'example.org', svidLife: '10h', workloads: { web: [WEB], api: [API] } },
  ]);
  let isSwitched = false;
  const application = await startRawApplication(t, (received) => {
    if (isSwitched) return 'echo';
    if (!received.endsWith('\r\n\r\n')) return undefined;
    if (!received.includes('Upgrade')) return 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
    isSwitched = true;
    return 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
  });
  const stage = await startTokenStage(t, {
    jwt: JWT,
    spiffe,
    to: application.address,
    sidecar: { clock },
    listener: { limits: { idleTimeout: 'off' }, allow: [{ peer: WEB, subject: 'spiffe://example.org/**' }], ...listener },
    http: { responseTimeout: 'off', minBodyRate: 'off' },
    file,
  });
  const exp = Math.floor(clock.now() / 1000) + 3600;
  const text = token({ key: stage.key, nowMs: clock.now(), claims: { sub: APP, exp } });
  const line = wire(await stage.connect());
  line.socket.write(UPGRADE(text));
  await line.until('101 Switching');
  line.socket.write('hello');
  await line.until('echo');
  return { ...stage, clock, line, exp };
}

test("a WebSocket that a token admitted ends at the token's exp, within a second", async (t) => {
  const { clock, line, exp, sidecar } = await switched(t);
  clock.advance(exp * 1000 - clock.now() - 2000);
  line.socket.write('hello');
  await line.until(/echo[^]*echo/);
  assert.equal(line.socket.closed, false);

  clock.advance(4000);
  await line.over();
  const closed = await sidecar.connection();
  assert.deepEqual([closed['close_reason'], closed['detail']], ['token_ended', `the token of ${APP} has expired`]);
  await eventually(() => assert.equal(requestLines(sidecar).at(-1)?.['result'], 'dropped'));
});

test('a WebSocket that a token admitted ends when its key goes, even where changes of the policy would be outlived', async (t) => {
  const { line, serve, sidecar } = await switched(t, { onPolicyChange: 'unsafeKeep', onAuthorityRemoved: 'unsafeKeep' });
  serve({ 'example.org': jwks(jwk(testKey('two'))) });
  await line.over();
  assert.equal((await sidecar.connection())['close_reason'], 'token_ended');
});

test('a WebSocket that a token admitted ends when the bundle of its trust domain goes', async (t) => {
  const { line, serve, sidecar } = await switched(t);
  serve({});
  await line.over();
  assert.equal((await sidecar.connection())['close_reason'], 'token_ended');
});

test('a WebSocket that a token admitted ends when its rule goes, and outlives a change that still allows it', async (t) => {
  const { line, sidecar, with: config } = await switched(t);
  await sidecar.reload(config({ allow: [{ peer: WEB, subject: APP }] }));
  line.socket.write('hello');
  await line.until(/echo[^]*echo/);
  await sidecar.reload(config({ allow: [{ peer: WEB, subject: 'spiffe://example.org/other' }] }));
  await line.over();
  assert.equal((await sidecar.connection())['close_reason'], 'policy');
});

test('a WebSocket that a token admitted ends when the deny list names its subject', async (t) => {
  const denied = await startDenyFile(t);
  const { line, sidecar } = await switched(t, {}, denied.file);
  await denied.become({ ids: [APP] });
  await line.over();
  const closed = await sidecar.connection();
  assert.equal(closed['close_reason'], 'token_ended');
  assert.match(String(closed['detail']), /^the subject of the token: /);
});

for (const speaks of [undefined, 'h2c'] as const)
  test(`a stream of HTTP/2${speaks === undefined ? '' : ', to h2c,'} ends at the exp of its token, and the others of its connection go on`, async (t) => {
    const clock = new FakeClock();
    const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
      { name: 'example.org', svidLife: '10h', workloads: { web: [WEB], api: [API] } },
    ]);
    const to = await startApplication(t, speaks, (incoming, response) => {
      response.write('begun');
      if (incoming.url === '/short') return;
      incoming.resume();
      incoming.on('end', () => response.end('whole'));
    });
    const stage = await startTokenStage(t, {
      jwt: JWT,
      spiffe,
      to,
      application: speaks,
      sidecar: { clock },
      listener: { limits: { idleTimeout: 'off' } },
      http: { responseTimeout: 'off', minBodyRate: 'off' },
    });
    const client = await connectClient(t, stage.address, presented(await stage.spiffe.issue(WEB)));
    const start = (path: string, seconds: number) => {
      const exp = Math.floor(clock.now() / 1000) + seconds;
      const authorization = `Bearer ${token({ key: stage.key, nowMs: clock.now(), claims: { exp } })}`;
      return client.request({ ':method': 'POST', ':path': path, ':authority': 'api', authorization });
    };
    const [short, long] = [start('/short', 60), start('/long', 3600)];
    const heard = { short: '', long: '' };
    for (const [name, stream] of [
      ['short', short],
      ['long', long],
    ] as const) {
      stream.on('data', (chunk: Buffer) => (heard[name] += chunk.toString()));
      stream.on('error', () => undefined);
    }
    await eventually(() => assert.deepEqual(heard, { short: 'begun', long: 'begun' }));

    clock.advance(62_000);
    await eventually(() => assert.ok(short.closed));
    assert.notEqual(short.rstCode, 0);
    long.end();
    await eventually(() => assert.equal(heard.long, 'begunwhole'));
    await eventually(() => {
      const line = requestLines(stage.sidecar).find(({ path }) => path === '/short');
      assert.deepEqual([line?.['result'], line?.['detail']], ['dropped', `the token of ${WEB} has expired`]);
    });
    assert.equal(
      stage.sidecar.log().some(({ message }) => message === 'connection closed'),
      false,
    );
  });

test('a WebSocket over HTTP/2 is let in by its token, the application is told whose, and it ends when that is on the deny list', async (t) => {
  const denied = await startDenyFile(t);
  const seen: unknown[] = [];
  const application = await startConnectApplication(t, (stream, headers) => {
    seen.push(headers[SUBJECT_HEADER], headers.authorization);
    echo(stream);
  });
  const stage = await startTokenStage(t, {
    jwt: JWT,
    to: application.address,
    application: 'h2c',
    http: EXTENDED,
    file: denied.file,
  });
  const client = await connectClient(t, stage.address, presented(await stage.spiffe.issue(WEB)));
  const { stream, status } = await switchTo(client, { authorization: `Bearer ${token({ key: stage.key, claims: { sub: APP } })}` });
  const { stream: other } = await switchTo(client, { authorization: `Bearer ${token({ key: stage.key, claims: { sub: WEB } })}` });
  const { status: refused, answer } = await switchTo(client);
  assert.deepEqual([status, refused, answer['www-authenticate']], [200, 401, 'Bearer']);
  assert.deepEqual(seen, [APP, undefined, WEB, undefined]);

  await denied.become({ ids: [APP] });

  await eventually(() => assert.equal(stream.closed, true));
  assert.equal(stream.rstCode, CANCEL);
  const heard = heardOn(other);
  other.end('goes on');
  await eventually(() => assert.equal(heard(), 'goes on'));
  await eventually(() => {
    const line = requestLines(stage.sidecar).find(({ result }) => result === 'dropped');
    assert.deepEqual([line?.['subject'], line?.['status']], [APP, 200]);
  });
});

test('the inventory has the JWT authorities by kid, in the dump and in the API, and no token', async (t) => {
  const stage = await startTokenStage(t, { jwt: JWT, file: { admin: { listen: '127.0.0.1:0' } } });
  const text = token({ key: stage.key });
  stage.serve({ 'example.org': jwks(jwk(stage.key), jwk(testKey('two', 'rsa'))), 'tokens.test': jwks() });
  await eventually(async () => assert.equal(await stage.sidecar.metric('scute_jwt_authorities', { trust_domain: 'example.org' }), 2));
  assert.equal((await overHttp1(stage)(bearer(text))).status, 200);
  const admin = stage.sidecar.address('admin');

  const dump = await (await fetch(`http://${admin}/config_dump`)).text();
  const { identity } = JSON.parse(dump) as { identity: { jwt_bundles: unknown } };
  assert.deepEqual(identity.jwt_bundles, [
    {
      trust_domain: 'example.org',
      authorities: [
        { kid: 'one', key_type: 'ec prime256v1' },
        { kid: 'two', key_type: 'rsa 2048' },
      ],
    },
    { trust_domain: 'tokens.test', authorities: [] },
  ]);
  const items = await everyPage<Record<string, unknown>>(stage.sidecar, 'trust-domains');
  const page = JSON.stringify(items);
  assert.deepEqual(
    items.map(({ trustDomain, authorities, jwtAuthorities, jwtKeyIds }) => [trustDomain, authorities, jwtAuthorities, jwtKeyIds]),
    [
      ['example.org', 1, 2, ['one', 'two']],
      ['tokens.test', 0, 0, []],
    ],
  );
  for (const secret of text.split('.')) assert.ok(!dump.includes(secret) && !page.includes(secret));
});
