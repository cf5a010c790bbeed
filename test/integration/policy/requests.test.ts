import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { createSecureContext, type SecureContext } from 'node:tls';
import { API, presented, startExampleDomain, startOutboundToApi, WEB, type InboundStage } from '../../support/data-path.ts';
import { HTTP2_KINDS, type Http2Kind } from '../../support/http/http2-kinds.ts';
import { answerOn, connectClient, request, startClient } from '../../support/http/http2-stage.ts';
import { send, startHttpApplication, startHttpInbound, wire } from '../../support/http/http-stage.ts';
import type { LogLine, Sidecar } from '../../support/sidecar.ts';
import { dial } from '../../support/tcp.ts';
import { tlsClient } from '../../support/tls-peer.ts';

/** Before an application that speaks that. */
const HTTP1 = { startHttpApplication, startInbound: startHttpInbound };

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: NodeJS.Dict<string | string[]>;
  trailers: NodeJS.Dict<string>;
}

/** A sidecar with these rules before an application that notes each request whole, and answers 200. */
async function stage(
  t: TestContext,
  rules: object,
  { startHttpApplication, startInbound }: Pick<Http2Kind, 'startHttpApplication' | 'startInbound'> = HTTP1,
): Promise<InboundStage & { readonly seen: Seen[] }> {
  const seen: Seen[] = [];
  const application = await startHttpApplication(t, (incoming, response) => {
    const entry: Seen = { method: incoming.method ?? '', url: incoming.url ?? '', headers: incoming.headers, trailers: {} };
    seen.push(entry);
    incoming.resume();
    incoming.on('end', () => {
      entry.trailers = incoming.trailers;
      response.end('ok');
    });
  });
  return { ...(await startInbound(t, application.address, { listener: rules })), seen };
}

interface Asked {
  readonly method?: string;
  readonly path: string;
  readonly host?: string;
  readonly fields?: Readonly<Record<string, string>>;
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

type Ask = (asked: Asked) => Promise<Answer>;

/** Each over a connection of its own. */
function overHttp1(of: InboundStage): Ask {
  return async ({ method = 'GET', path, host = 'api', fields = {} }) => {
    const lines = [`${method} ${path} HTTP/1.1`, `Host: ${host}`, ...Object.entries(fields).map(([name, value]) => `${name}: ${value}`)];
    const { text } = await (await send(of, `${lines.join('\r\n')}\r\nConnection: close\r\n\r\n`)).over();
    const [head = '', body = ''] = text.split('\r\n\r\n');
    return { status: Number(head.split(' ')[1]), body };
  };
}

/** All over one connection. */
async function overHttp2(t: TestContext, of: InboundStage): Promise<Ask> {
  const client = await startClient(t, of);
  return async ({ method = 'GET', path, host = 'api', fields = {} }) => {
    const lower = Object.fromEntries(Object.entries(fields).map(([name, value]) => [name.toLowerCase(), value]));
    const answer = await request(client, { ':method': method, ':path': path, ':authority': host, ...lower });
    return { status: answer.status, body: answer.body.toString() };
  };
}

const VERSIONS = [
  ['HTTP/1.1', (_: TestContext, of: InboundStage) => Promise.resolve(overHttp1(of)), HTTP1],
  ...HTTP2_KINDS.map((kind) => [`HTTP/2 to an application that speaks ${kind.application}`, overHttp2, kind] as const),
] as const;

function requests(sidecar: Sidecar): readonly LogLine[] {
  return sidecar.log().filter(({ message }) => message === 'request finished');
}

/** Ways to write what servers may take for /admin, or for something below it. */
const ADMIN = [
  '/admin',
  '/admin/',
  '/admin?x=1',
  '/admin/?x=1',
  '/admin/users',
  '/admin/users/',
  '/%61dmin',
  '/%61DMIN',
  '/adm%69n',
  '/adm%6En',
  '/adm%6en',
  '/%2561dmin',
  '//admin',
  '/x//admin',
  '/admin//users',
  '/./admin',
  '/x/../admin',
  '/x/./../admin',
  '/x/..',
  '/.',
  '/x/%2e%2e/admin',
  '/x/%2E./admin',
  '/x/..;/admin',
  '/admin;x=1',
  '/;/admin',
  '/x%2f..%2fadmin',
  '/x%2F..%2Fadmin',
  '/%2fadmin',
  '/admin%2f',
  '/x/..%5cadmin',
  '/x/..%5Cadmin',
  '/\\admin',
  '/admin\\',
  '/admin%00',
  '/admin%',
  '/admin%4',
  '/admin%zz',
  '/%u0061dmin',
  '/admin#x',
  'admin',
  '*',
  'http://api/admin',
  'http://api/%61dmin',
  'http://api/x/../admin',
  'HTTP://api//admin',
];

/** 0: over HTTP/2, Node resets the stream of what is no path or host at all. */
const MALFORMED = new Set([400, 0]);
const REFUSED = new Set([...MALFORMED, 403]);

for (const [version, asker, kind] of VERSIONS) {
  test(`no spelling of a path that is denied reaches the application over ${version}`, async (t) => {
    const of = await stage(t, { allow: [WEB], deny: [{ peer: WEB, paths: ['/admin', '/admin/**'] }] }, kind);
    const ask = await asker(t, of);

    for (const path of ADMIN) {
      assert.ok(REFUSED.has((await ask({ path })).status), path);
      assert.deepEqual(of.seen, [], path);
    }
    const good = ['/', '/x/admin', '/admins', '/adm%C3%AFn', '/a%20b?q=/../admin;%61', '/x.y/..z', '/a+b,c:@=$!~'];
    for (const path of good) assert.equal((await ask({ path })).status, 200, path);
    assert.deepEqual(
      of.seen.map(({ url }) => url),
      good,
      'as it was sent',
    );
  });

  test(`a request is judged by its method, path and host over ${version}`, async (t) => {
    const of = await stage(
      t,
      {
        allow: [
          { peer: WEB, methods: ['GET'], paths: ['/items/*', '/files/**', '/pkg.Service/Method'], hosts: ['api', '*.shop.example'] },
          { peer: 'spiffe://example.org/**', methods: ['PUT'] },
        ],
        deny: [{ peer: 'spiffe://example.org/*', methods: ['PUT'], hosts: ['old.shop.example'] }],
      },
      kind,
    );
    const ask = await asker(t, of);

    for (const asked of [
      { path: '/items/1' },
      { path: '/items/1?all' },
      { path: '/files/' },
      { path: '/files/a/b' },
      { path: '/pkg.Service/Method' },
      { path: '/items/1', host: 'API' },
      { path: '/items/1', host: 'api.' },
      { path: '/items/1', host: 'Api.:8080' },
      { path: '/items/1', host: 'a.shop.example:443' },
      { method: 'PUT', path: '/anything' },
    ])
      assert.equal((await ask(asked)).status, 200, JSON.stringify(asked));
    const passed = of.seen.length;
    for (const asked of [
      { path: '/' },
      { path: '/items' },
      { path: '/items/' },
      { path: '/items/1/' },
      { path: '/Items/1' },
      { path: '/files' },
      { method: 'HEAD', path: '/items/1' },
      { method: 'POST', path: '/items/1' },
      { path: '/items/1', host: 'shop.example' },
      { path: '/items/1', host: 'a.b.shop.example' },
      { path: '/items/1', host: '127.0.0.1' },
      { path: '/items/1', host: '[::1]:80' },
      { method: 'PUT', path: '/', host: 'OLD.shop.example.:1' },
    ])
      assert.equal((await ask(asked)).status, 403, JSON.stringify(asked));
    // No host, or more than one reading of it.
    for (const host of ['', ':80', 'api:80.', 'a%70i', 'api..', 'user@api', 'api,old.shop.example'])
      assert.ok(MALFORMED.has((await ask({ path: '/items/1', host })).status), host);
    assert.equal(of.seen.length, passed);
  });

  test(`who asks is told no more than that it may not, and the log has the rule, over ${version}`, async (t) => {
    const of = await stage(t, { allow: [{ peer: WEB, methods: ['GET'] }], deny: [{ peer: WEB, paths: ['/admin'] }] }, kind);
    const ask = await asker(t, of);

    const answers = [
      await ask({ path: '/admin/' }),
      await ask({ path: '/', method: 'POST' }),
      await ask({ path: '/a;b' }),
      await ask({ path: '/' }),
    ];

    assert.deepEqual(
      answers.map(({ status, body }) => [status, body]),
      [
        [403, `scute: denied: ${WEB} may not do this\n`],
        [403, `scute: not_allowed: ${WEB} may not do this\n`],
        [400, 'scute: the path has a ";"\n'],
        [200, 'ok'],
      ],
    );
    assert.deepEqual(
      requests(of.sidecar).map(({ result, verdict, reason, rule }) => [result, verdict, reason, rule]),
      [
        ['denied', 'deny', 'denied', `deny ${WEB} /admin`],
        ['denied', 'deny', 'not_allowed', undefined],
        ['bad_request', 'none', undefined, undefined],
        ['forwarded', 'allow', undefined, `${WEB} GET`],
      ],
    );
    assert.equal(await of.sidecar.metric('scute_authorization_total', { decision: 'deny' }), 0, 'its connections are allowed');
    const ended = of.sidecar.log().filter(({ message }) => message === 'connection closed');
    assert.ok(ended.every((line) => line['verdict'] === 'allow'));
  });

  test(`where rules look at methods or paths, no field says another one to the application, over ${version}`, async (t) => {
    const fields = {
      'X-HTTP-Method-Override': 'DELETE',
      x_http_method_override: 'DELETE',
      'X-HTTP-Method': 'DELETE',
      'X-Method-Override': 'DELETE',
      'X-Original-URL': '/admin',
      'X.Original.Url': '/admin',
      'X-Rewrite-URL': '/admin',
      'X-Other': 'stays',
    };
    const names = Object.keys(fields).map((name) => name.toLowerCase());
    const of = await stage(t, { allow: [WEB] }, kind);
    const ask = await asker(t, of);
    const arrived = (): string[] => names.filter((name) => of.seen.at(-1)?.headers[name] !== undefined);

    await ask({ path: '/', fields });
    assert.deepEqual(arrived(), names, 'without such rules, as it came');

    for (const rule of [{ paths: ['/**'] }, { methods: ['GET'] }]) {
      await of.sidecar.reload(of.with({ allow: [{ peer: WEB, ...rule }] }));
      assert.equal((await ask({ path: '/', fields })).status, 200);
      assert.deepEqual(arrived(), ['x-other']);
    }
    assert.equal(of.seen.length, 3);
  });

  test(`a peer that may ask for nothing is told so, and one that may ask for something stays, over ${version}`, async (t) => {
    const of = await stage(t, { allow: [{ peer: API, paths: ['/**'] }] }, kind);
    const ask = await asker(t, of);

    assert.deepEqual(await ask({ path: '/' }), { status: 403, body: `scute: not_allowed: ${WEB} may not do this\n` });
    assert.equal((await of.sidecar.connection())['reason'], 'not_allowed');
  });
}

test('trailers say no other method or path either', async (t) => {
  const of = await stage(t, { allow: [{ peer: WEB, paths: ['/**'] }] });
  const line = await send(
    of,
    'POST / HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\nX-Original-URL: /admin\r\nX_HTTP_Method: DELETE\r\nX-Sum: 1\r\n\r\n',
  );
  await line.over();
  assert.deepEqual(of.seen[0]?.trailers, { 'x-sum': '1' });
});

for (const kind of HTTP2_KINDS) {
  test(`over HTTP/2 a request that is denied leaves the others of its connection alone, before ${kind.application}`, async (t) => {
    const of = await stage(t, { allow: [WEB], deny: [{ peer: WEB, paths: ['/admin'] }] }, kind);
    const client = await startClient(t, of);
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => request(client, { ':path': index % 2 === 0 ? '/admin' : `/${index}`, ':authority': 'api' })),
    );
    assert.deepEqual(
      answers.map(({ status }) => status),
      Array.from({ length: 20 }, (_, index) => (index % 2 === 0 ? 403 : 200)),
    );
  });

  test(`trailers over HTTP/2 say no other method or path either, before ${kind.application}`, async (t) => {
    const of = await stage(t, { allow: [{ peer: WEB, paths: ['/**'] }] }, kind);
    const client = await startClient(t, of);
    const stream = client.request({ ':method': 'POST', ':path': '/', ':authority': 'api' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-original-url': '/admin', x_http_method: 'DELETE', 'x-sum': '1' }));
    stream.end('body');
    assert.equal((await answerOn(stream)).status, 200);
    assert.deepEqual(Object.entries(of.seen[0]?.trailers ?? {}), [['x-sum', '1']]);
  });
}

test('rules are of peers: one may do what another may not', async (t) => {
  const of = await stage(t, {
    allow: [
      { peer: WEB, methods: ['GET'] },
      { peer: API, methods: ['POST'] },
    ],
  });
  const other = presented(await of.spiffe.issue(API));
  for (const [method, web, api] of [
    ['GET', 200, 403],
    ['POST', 403, 200],
  ] as const) {
    assert.equal((await overHttp1(of)({ method, path: '/' })).status, web);
    const client = await connectClient(t, of.address, other);
    assert.equal((await request(client, { ':method': method, ':path': '/', ':authority': 'api' })).status, api);
    const line = wire(tlsClient(t, of.address, other));
    line.socket.write(`${method} / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n`);
    assert.match((await line.over()).text, new RegExp(`^HTTP/1.1 ${api} `));
  }
});

test('each server is judged by what is allowed of it, though the application keeps its connection', async (t) => {
  const spiffe = await startExampleDomain(t);
  let current = presented(await spiffe.issue(API));
  let received = '';
  const tls = { SNICallback: (_: string, done: (error: null, context: SecureContext) => void) => done(null, createSecureContext(current)) };
  const { address } = await startOutboundToApi(
    t,
    (socket) => {
      socket.on('data', (chunk: Buffer) => {
        received += chunk.toString('latin1');
        socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      });
    },
    {
      spiffe,
      tls,
      listener: { protocol: 'http', serverName: 'api.example', expect: [API, { peer: `${API}2`, paths: ['/two'] }] },
    },
  );
  const caller = wire(await dial(t, address));
  const ask = (path: string): boolean => caller.socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
  ask('/one');
  await caller.until('ok');
  current = presented(await spiffe.issue(`${API}2`));
  ask('/two');
  await caller.until(/ok[^]*ok/);
  ask('/one');

  assert.match((await caller.over()).text, new RegExp(`ok[^]*ok[^]*not_allowed: ${API}2 may not be asked this\n$`));
  assert.deepEqual(received.match(/GET \S+/g), ['GET /one', 'GET /two']);
});

test('a server is asked what the rules say it may be, and nothing else', async (t) => {
  const received: string[] = [];
  const {
    sidecar,
    address,
    with: settings,
  } = await startOutboundToApi(
    t,
    (socket) => {
      socket.on('data', (chunk: Buffer) => {
        received.push(chunk.toString('latin1'));
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      });
      socket.on('end', () => socket.end());
    },
    {
      listener: {
        protocol: 'http',
        expect: [{ peer: API, methods: ['GET'], paths: ['/items/**'], hosts: ['api'] }],
        deny: [{ peer: API, paths: ['/items/secret'] }],
      },
    },
  );
  const ask = async (line: string, ...fields: readonly string[]): Promise<string> => {
    const caller = wire(await dial(t, address));
    caller.socket.write([`${line} HTTP/1.1`, ...fields, 'Connection: close', '', ''].join('\r\n'));
    return (await caller.over()).text;
  };

  assert.match(
    await ask('GET /items/1', 'Host: api', 'X-HTTP-Method-Override: DELETE', 'x_rewrite_url: /admin', 'X-Other: 1'),
    /^HTTP\/1.1 200 /,
  );
  assert.deepEqual(received, ['GET /items/1 HTTP/1.1\r\nHost: api\r\nX-Other: 1\r\nConnection: close\r\n\r\n']);
  for (const [line, host, answer] of [
    ['POST /items/1', 'api', new RegExp(`^HTTP/1.1 502 [^]*\nscute: not_allowed: ${API} may not be asked this\n$`)],
    ['GET /', 'api', /^HTTP\/1.1 502 [^]*not_allowed/],
    ['GET /items/1', 'other', /^HTTP\/1.1 502 [^]*not_allowed/],
    ['GET /items/secret', 'api', /^HTTP\/1.1 502 [^]*scute: denied: /],
    ['GET /items/secret/', 'api', /^HTTP\/1.1 502 [^]*scute: denied: /],
    ['GET /items/%73ecret', 'api', /^HTTP\/1.1 400 [^]*scute: the path has %73/],
    ['GET /items/x/../secret', 'api', /^HTTP\/1.1 400 [^]*dot segment/],
    ['GET /items/1', 'a..b', /^HTTP\/1.1 400 /],
  ] as const)
    assert.match(await ask(line, `Host: ${host}`), answer, line);
  assert.equal(received.length, 1, 'the server was asked nothing of this');
  const denied = requests(sidecar).find(({ reason }) => reason === 'denied');
  assert.deepEqual([denied?.['rule'], denied?.['peer_id'], denied?.['result']], [`deny ${API} /items/secret`, API, 'upstream_denied']);

  await sidecar.reload(settings({ protocol: 'http', expect: [API], deny: [API] }));
  assert.match(await ask('GET /items/1', 'Host: api'), /^HTTP\/1.1 502 [^]*scute: the server is not who it must be: denied\n$/);
  assert.equal(received.length, 1);
});
