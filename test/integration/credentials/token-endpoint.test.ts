import assert from 'node:assert/strict';
import type { RequestListener } from 'node:http';
import { test, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { Address } from '../../../src/config/units.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { ask } from '../../support/http/http.ts';
import { tokenFetched } from '../../support/tokens/held-token.ts';
import { startJwtAgent, type JwtAgent } from '../../support/tokens/jwt-agent.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { freePort } from '../../support/tcp.ts';
import { SUBJECT } from '../../support/tokens/tokens.ts';
import { issueForWeb, startWebServer, type WebServer } from '../../support/web-server.ts';

const ISSUER = 'https://login.partner.example';
const TOKEN = 'opaque-access-token-1';

interface Form {
  readonly url: string;
  readonly fields: Readonly<Record<string, string>>;
  readonly contentType: string | undefined;
}

interface Stage {
  readonly agent: JwtAgent;
  readonly endpoint: WebServer;
  readonly server: WebServer;
  readonly sidecar: Sidecar;
  /** What the endpoint was asked, once it was. */
  readonly forms: readonly Form[];
  readonly asks: () => ReturnType<typeof ask>;
}

/** Answers with `answer`, and keeps what was asked. */
function answersTo(forms: Form[], answer: RequestListener): RequestListener {
  return (request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      forms.push({
        url: request.url ?? '',
        fields: Object.fromEntries(new URLSearchParams(body)),
        contentType: request.headers['content-type'],
      });
      answer(request, response);
    });
  };
}

function sends(value: unknown, status = 200, headers: Record<string, string> = { 'content-type': 'application/json' }): RequestListener {
  return (_request, response) => void response.writeHead(status, headers).end(typeof value === 'string' ? value : JSON.stringify(value));
}

const MTLS = { clientAuth: 'mtls', clientId: 'scute', jwtAudience: undefined };
const GOOD = { access_token: TOKEN, token_type: 'Bearer', expires_in: 3600 };

/** A sidecar that puts a token of the endpoint on requests to the server. */
async function startStage(
  t: TestContext,
  answer: RequestListener = sends(GOOD),
  credential: object = {},
  given: { readonly endpoint?: WebServer; readonly clock?: FakeClock } = {},
): Promise<Stage> {
  const [agent, endpoint, server] = await Promise.all([startJwtAgent(t), given.endpoint ?? startWebServer(t), startWebServer(t)]);
  const forms: Form[] = [];
  endpoint.answer(answersTo(forms, answer));
  const sidecar = await startSidecar(
    t,
    {
      workloadApi: { endpoint: agent.api.endpoint },
      credentials: [
        {
          name: 'partner',
          kind: 'client_credentials',
          tokenEndpoint: `${endpoint.origin}/oauth2/token`,
          caFile: endpoint.caFile,
          jwtAudience: ISSUER,
          ...credential,
        },
      ],
      outbound: [
        {
          name: 'out',
          listen: '127.0.0.1:0',
          protocol: 'http',
          to: server.origin,
          webPki: { caFile: server.caFile },
          credential: { name: 'partner' },
        },
      ],
      admin: { listen: '127.0.0.1:0' },
    },
    given.clock === undefined ? {} : { clock: given.clock },
  );
  return { agent, endpoint, server, sidecar, forms, asks: () => ask(addressOf(sidecar), '/') };
}

function addressOf(sidecar: Sidecar, listener = 'out'): Address {
  const address = sidecar.app.addresses().get(listener);
  assert.ok(address !== undefined);
  return address;
}

test('an access token is fetched with a JWT-SVID as client assertion, and put on every request', async (t) => {
  const { agent, endpoint, server, sidecar, forms, asks } = await startStage(t, sends(GOOD), { scope: ['read', 'write'] });
  await tokenFetched(sidecar);

  const answers = await Promise.all(Array.from({ length: 10 }, asks));

  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
  assert.deepEqual(new Set(server.requests.map(({ headers }) => headers.authorization)), new Set([`Bearer ${TOKEN}`]));
  assert.equal(forms.length, 1);
  assert.deepEqual(forms[0]?.fields, {
    grant_type: 'client_credentials',
    scope: 'read write',
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    client_assertion: agent.signed[0],
  });
  assert.match(forms[0]?.contentType ?? '', /^application\/x-www-form-urlencoded/);
  assert.deepEqual(agent.asked, [{ audience: [ISSUER], spiffeId: '' }]);
  const [asked] = endpoint.requests;
  assert.deepEqual(
    [asked?.method, asked?.url, asked?.headers.authorization, asked?.clientNames],
    ['POST', '/oauth2/token', undefined, undefined],
  );
});

test('over mTLS our X.509-SVID speaks for us, to the token endpoint alone', async (t) => {
  const { agent, endpoint, server, sidecar, forms, asks } = await startStage(t, sends(GOOD), { ...MTLS, spiffeId: SUBJECT });
  await tokenFetched(sidecar);
  assert.equal((await asks()).status, 200);
  assert.deepEqual(forms[0]?.fields, { grant_type: 'client_credentials', client_id: 'scute' });
  assert.equal(endpoint.requests[0]?.clientNames, `URI:${SUBJECT}`);
  assert.equal(server.requests[0]?.clientNames, undefined);
  assert.equal(server.requests[0]?.headers.authorization, `Bearer ${TOKEN}`);
  assert.ok(agent.api.calls.every(({ method }) => method === 'FetchX509SVID'));
});

test('a JWT-SVID is exchanged for an access token', async (t) => {
  const { agent, sidecar, forms, asks } = await startStage(
    t,
    sends({ ...GOOD, issued_token_type: 'urn:ietf:params:oauth:token-type:access_token' }),
    {
      kind: 'token_exchange',
      audience: ['partner-api'],
      spiffeId: SUBJECT,
    },
  );
  await tokenFetched(sidecar);
  assert.equal((await asks()).status, 200);
  assert.deepEqual(forms[0]?.fields, {
    grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
    audience: 'partner-api',
    requested_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    subject_token: agent.signed[0],
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
  });
  assert.deepEqual(agent.asked, [{ audience: [ISSUER], spiffeId: SUBJECT }]);
});

test('a resource is named as it was written, since servers compare it so', async (t) => {
  const { sidecar, forms } = await startStage(t, sends(GOOD), { resource: ['https://API.example'] });
  await tokenFetched(sidecar);

  assert.equal(forms[0]?.fields['resource'], 'https://API.example');
});

test('an id_token that the scope openid brings says nothing of the access token, whoever it is from', async (t) => {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const id_token = `${part({ alg: 'RS256' })}.${part({ iss: 'https://login.example', aud: 'other', sub: 'x', iat: 1, exp: 2 })}.c2ln`;
  const { sidecar, asks, server } = await startStage(t, sends({ ...GOOD, id_token }), { scope: ['openid'] });
  await tokenFetched(sidecar);

  assert.equal((await asks()).status, 200);
  assert.equal(server.requests[0]?.headers.authorization, `Bearer ${TOKEN}`);
});

/** Never answers. */
const silent: RequestListener = () => undefined;

const FAILURES: readonly { readonly what: string; readonly reason: string; readonly answer: RequestListener }[] = [
  { what: 'redirects', reason: 'redirected', answer: sends('', 307, { location: 'https://elsewhere.example/token' }) },
  { what: 'answers HTML', reason: 'bad_content_type', answer: sends('<html>log in</html>', 200, { 'content-type': 'text/html' }) },
  { what: 'answers a megabyte', reason: 'too_large', answer: sends({ ...GOOD, padding: 'x'.repeat(1_048_576) }) },
  { what: 'answers more than any token has', reason: 'too_large', answer: sends({ ...GOOD, padding: 'x'.repeat(65_536) }) },
  {
    what: 'answers a megabyte without saying so',
    reason: 'too_large',
    answer: (_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      for (let part = 0; part < 32; part++) response.write(' '.repeat(32_768));
      response.end(JSON.stringify(GOOD));
    },
  },
  {
    what: 'answers a compressed megabyte',
    reason: 'compressed',
    answer: (_request, response) =>
      void response
        .writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' })
        .end(gzipSync(JSON.stringify({ ...GOOD, padding: 'x'.repeat(1_048_576) }))),
  },
  { what: 'refuses the client', reason: 'refused', answer: sends({ error: 'invalid_client', error_description: 'who?' }, 401) },
  {
    what: 'refuses the client with a challenge',
    reason: 'refused',
    answer: sends({ error: 'invalid_client' }, 401, { 'content-type': 'application/json', 'www-authenticate': 'Basic realm="x"' }),
  },
  { what: 'is out of order', reason: 'server_error', answer: sends({ error: 'server_error' }, 503) },
  { what: 'is somewhere else', reason: 'bad_status', answer: sends('not found', 404, { 'content-type': 'text/plain' }) },
  { what: 'gives a token of another type', reason: 'bad_token_type', answer: sends({ ...GOOD, token_type: 'DPoP' }) },
  { what: 'does not say how long a token lives', reason: 'bad_expiry', answer: sends({ access_token: TOKEN, token_type: 'Bearer' }) },
  { what: 'gives a token for no time', reason: 'bad_expiry', answer: sends({ ...GOOD, expires_in: 0 }) },
  { what: 'gives a token for ever', reason: 'bad_expiry', answer: sends({ ...GOOD, expires_in: 1e15 }) },
  {
    what: 'gives an expired token',
    reason: 'expired',
    answer: sends({ ...GOOD, access_token: `e30.${Buffer.from('{"exp":1700000000}').toString('base64url')}.c2ln` }),
  },
  { what: 'gives a token that would be two fields', reason: 'bad_answer', answer: sends({ ...GOOD, access_token: 'a\r\nX-Admin: 1' }) },
  { what: 'gives what the library takes for no answer of OAuth', reason: 'bad_answer', answer: sends({ ...GOOD, scope: 7 }) },
  { what: 'gives an id_token that is none', reason: 'bad_answer', answer: sends({ ...GOOD, id_token: 7 }) },
  { what: 'gives no token', reason: 'bad_answer', answer: sends({}) },
  { what: 'breaks off', reason: 'broken', answer: (request) => void request.socket.destroy() },
  {
    what: 'breaks off within its answer',
    reason: 'broken',
    answer: (request, response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' }).write('{"access_token":"');
      setImmediate(() => request.socket.destroy());
    },
  },
];

for (const { what, reason, answer } of FAILURES) {
  test(`an endpoint that ${what} is told as ${reason}, and the application is told no more than that`, async (t) => {
    const { server, sidecar, asks } = await startStage(t, answer);
    await failsFor({ server, sidecar, asks }, reason);
  });
}

test('an endpoint that gives back what it was asked with has given nothing: what speaks for us goes to no server', async (t) => {
  const starting = startStage(t, (request, response) => {
    void starting.then(({ forms }) => sends({ ...GOOD, access_token: forms.at(-1)?.fields['client_assertion'] })(request, response));
  });
  await failsFor(await starting, 'bad_answer');
});

async function failsFor({ server, sidecar, asks }: Pick<Stage, 'server' | 'sidecar' | 'asks'>, reason: string): Promise<void> {
  // On a busy machine that may take longer than a request waits.
  await eventually(async () => assert.ok((await sidecar.metric('scute_token_fetches_total', { source: 'partner', result: reason })) >= 1));
  const refused = await asks();
  assert.deepEqual([refused.status, refused.body], [503, `scute: there is no token to attach: ${reason}\n`]);
  assert.equal(server.requests.length, 0);
  assert.ok(
    sidecar.log().some(({ message, source, reason: told }) => message === 'token not fetched' && source === 'partner' && told === reason),
  );
  assert.equal(await sidecar.metric('scute_http_requests_total', { result: 'token_unavailable', status: '503' }), 1);
}

test('an endpoint that is not there, or cannot prove who it is, is sent no assertion', async (t) => {
  const foreign = await startWebServer(t, { certificate: issueForWeb(createTestAuthority({ trustDomain: 'foreign.test' })) });
  await failsFor(await startStage(t, sends(GOOD), {}, { endpoint: foreign }), 'not_authenticated');
  assert.equal(foreign.requests.length, 0);

  const port = await freePort();
  await failsFor(await startStage(t, sends(GOOD), { tokenEndpoint: `https://localhost:${port}/token` }), 'unreachable');

  const named = await startWebServer(t);
  await failsFor(
    await startStage(t, sends(GOOD), { tokenEndpoint: `https://127.0.0.1:${named.port}/token`, caFile: named.caFile }),
    'not_authenticated',
  );
  assert.equal(named.requests.length, 0);
});

test('while an endpoint is slow requests wait for no longer than the bound, and others are not held up', async (t) => {
  const { server, sidecar, asks } = await startStage(t, silent);
  const own = ask(addressOf(sidecar), '/', { headers: [['authorization', 'Basic own']] });
  assert.equal((await own).status, 200);
  const waited = await asks();
  assert.equal(waited.status, 503);
  assert.equal(server.requests.length, 1);
});

test('the old token serves for as long as it is valid while the endpoint fails, and no longer', async (t) => {
  const clock = new FakeClock();
  const { endpoint, server, sidecar, asks } = await startStage(t, sends({ ...GOOD, expires_in: 600 }), MTLS, { clock });
  await tokenFetched(sidecar);
  assert.equal((await asks()).status, 200);
  endpoint.answer(sends({ error: 'server_error' }, 500));
  clock.advance(330_000);
  await eventually(async () => assert.ok((await sidecar.metric('scute_token_fetches_total', { result: 'server_error' })) >= 1));
  assert.equal((await asks()).status, 200);
  clock.advance(268_000);
  await eventually(async () => assert.equal((await asks()).body, 'scute: there is no token to attach: server_error\n'));
  assert.equal(server.requests.length, 2);

  endpoint.answer(sends({ ...GOOD, access_token: 'opaque-access-token-2' }));
  await eventually(async () => {
    clock.advance(30_000);
    assert.equal((await asks()).status, 200);
  });
  assert.equal(server.requests.at(-1)?.headers.authorization, 'Bearer opaque-access-token-2');
});

test('no token is on a page, in a metric or in the log, whatever the endpoint says of it', async (t) => {
  let assertion = '';
  const { agent, sidecar, asks, endpoint, forms } = await startStage(t);
  await tokenFetched(sidecar);
  assert.equal((await asks()).status, 200);
  assertion = agent.signed[0] ?? '';
  endpoint.answer(
    answersTo([], (_request, response) =>
      sends({ error: assertion, error_description: `${assertion} and ${TOKEN}`, error_uri: assertion }, 400)(_request, response),
    ),
  );
  assert.equal(forms.length, 1);
  const admin = addressOf(sidecar, 'admin');
  const pages = await Promise.all(['/config_dump', '/metrics', '/api/v1/overview', '/api/v1/listeners'].map((path) => ask(admin, path)));
  const text = [JSON.stringify(sidecar.log()), ...pages.map(({ body }) => body)].join('\n');
  for (const secret of [TOKEN, ...assertion.split('.')]) assert.ok(secret.length > 10 && !text.includes(secret), secret);
});
