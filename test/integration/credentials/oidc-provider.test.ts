/** Access tokens of a provider that is not ours, for SVIDs of the embedded trust domain, used by an unmodified curl. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { decodeProtectedHeader, jwtVerify } from 'jose';
import { errors, Provider, type Context } from 'oidc-provider';
import { systemClock } from '../../../src/lib/clock.ts';
import { needs } from '../../interop/parts.ts';
import { runChild } from '../../support/child.ts';
import { startExampleDomain, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { tokenFetched } from '../../support/tokens/held-token.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { startSource } from '../../support/source-harness.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { startWebServer, type WebServer } from '../../support/web-server.ts';

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const CLIENT = 'scute';

interface Stage {
  readonly endpoint: WebServer;
  readonly sidecar: Sidecar;
  /** What the API said to curl. */
  readonly curl: () => Promise<{ readonly status: string; readonly body: string }>;
}

/** A provider, an API that takes its tokens alone, and a sidecar that leads to it. */
async function startStage(t: TestContext, credential: object | ((issuer: string) => object), client: object): Promise<Stage> {
  const spiffe = await startExampleDomain(t);
  const source = await startSource(t, spiffe.endpoint('api'), systemClock, true);
  const endpoint = await startWebServer(t, { tls: { ca: [spiffe.bundlePem('example.org')] } });
  const provider = new Provider(endpoint.origin, {
    clients: [{ client_id: CLIENT, redirect_uris: [], response_types: [], ...client }],
    scopes: ['orders.read'],
    ttl: { ClientCredentials: 600 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      mTLS: {
        enabled: true,
        tlsClientAuth: true,
        getCertificate: ({ socket }: Context) => socket.getPeerCertificate().raw,
        certificateAuthorized: ({ socket }: Context) => socket.authorized,
        certificateSubjectMatches: ({ socket }: Context, _property: string, expected: string) =>
          socket.getPeerCertificate().subjectaltname === `URI:${expected}`,
      },
    },
    clientAuthMethods: ['none', 'private_key_jwt', 'tls_client_auth'],
  });
  /** By access token: whose JWT-SVID it was given for. */
  const subjects = new Map<string, string | undefined>();
  provider.registerGrantType(
    EXCHANGE,
    async (context) => {
      const { client: asking, params } = context.oidc;
      assert.equal(params['subject_token_type'], 'urn:ietf:params:oauth:token-type:jwt');
      const jwt = params['subject_token'] ?? '';
      const { kid } = decodeProtectedHeader(jwt);
      const bundle = [...(source.view.current()?.jwtBundles?.values() ?? [])].find(({ trustDomain }) => trustDomain === 'example.org');
      const authority = bundle?.authorities.find(({ keyId }) => keyId === kid);
      if (authority === undefined) throw new errors.InvalidGrant('nobody vouches for it');
      const { payload } = await jwtVerify(jwt, authority.key, { audience: endpoint.origin });
      const token = new provider.ClientCredentials({ client: asking, scope: 'orders.read' });
      const access_token = await token.save();
      subjects.set(access_token, payload.sub);
      context.body = {
        access_token,
        issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
        token_type: 'Bearer',
        expires_in: token.expiration,
      };
    },
    ['subject_token', 'subject_token_type', 'requested_token_type', 'audience', 'scope'],
  );
  endpoint.answer(provider.callback());

  const api = await startWebServer(t);
  api.answer((request, response) => {
    const [, value = ''] = /^Bearer (.+)$/.exec(request.headers.authorization ?? '') ?? [];
    void provider.ClientCredentials.find(value).then((token) => {
      if (token?.isValid !== true) return response.writeHead(401).end('no');
      const { clientId, scope = '' } = token;
      return response.end(JSON.stringify({ clientId, scope, subject: subjects.get(value) }));
    });
  });
  const asked = typeof credential === 'function' ? credential(endpoint.origin) : credential;
  const listen = join(await temporaryFolder(t), 'partner.sock');
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    credentials: [{ name: 'partner', tokenEndpoint: `${endpoint.origin}/token`, caFile: endpoint.caFile, clientId: CLIENT, ...asked }],
    outbound: [
      {
        name: 'out',
        listen: `unix://${listen}`,
        protocol: 'http',
        to: api.origin,
        webPki: { caFile: api.caFile },
        credential: { name: 'partner' },
      },
    ],
  });
  const curl = async () => {
    const { stdout, code } = await runChild([
      'curl',
      '--silent',
      '--write-out',
      '\n%{http_code}',
      '--unix-socket',
      listen,
      'http://partner/orders',
    ]);
    assert.equal(code, 0, stdout);
    const [, body = '', status = ''] = /^(.*?)\n*\n(\d+)$/s.exec(stdout) ?? [];
    return { status, body };
  };
  return { endpoint, sidecar, curl };
}

test('a JWT-SVID is exchanged for an access token of the provider, and curl gets what that is good for', needs('curl'), async (t) => {
  const stage = await startStage(t, (jwtAudience) => ({ kind: 'token_exchange', scope: ['orders.read'], jwtAudience }), {
    grant_types: [EXCHANGE],
    token_endpoint_auth_method: 'none',
  });
  await tokenFetched(stage.sidecar);
  const { status, body } = await stage.curl();
  assert.deepEqual([status, JSON.parse(body)], ['200', { clientId: CLIENT, scope: 'orders.read', subject: WEB }]);
  assert.equal(stage.endpoint.requests.length, 1);
  assert.equal((await stage.curl()).status, '200');
  assert.equal(stage.endpoint.requests.length, 1);
});

test('over mTLS the X.509-SVID gets an access token of the provider (RFC 8705)', needs('curl'), async (t) => {
  const stage = await startStage(
    t,
    { kind: 'client_credentials', clientAuth: 'mtls', scope: ['orders.read'] },
    {
      grant_types: ['client_credentials'],
      scope: 'orders.read',
      token_endpoint_auth_method: 'tls_client_auth',
      tls_client_auth_san_uri: WEB,
    },
  );
  await tokenFetched(stage.sidecar);
  const { status, body } = await stage.curl();
  assert.deepEqual([status, JSON.parse(body)], ['200', { clientId: CLIENT, scope: 'orders.read' }]);
});

test('an X.509-SVID of somebody else gets none', needs('curl'), async (t) => {
  const stage = await startStage(
    t,
    { kind: 'client_credentials', clientAuth: 'mtls' },
    {
      grant_types: ['client_credentials'],
      token_endpoint_auth_method: 'tls_client_auth',
      tls_client_auth_san_uri: 'spiffe://example.org/other',
    },
  );
  await eventually(async () =>
    assert.deepEqual(await stage.curl(), { status: '503', body: 'scute: there is no token to attach: refused' }),
  );
  await eventually(() => assert.ok(stage.sidecar.log().some(({ detail }) => detail === 'the token endpoint answered 401: invalid_client')));
});

test(
  'a JWT-SVID is no client assertion for a provider that asks for iss and jti: that is told, and nothing else',
  needs('curl'),
  async (t) => {
    const stage = await startStage(t, (jwtAudience) => ({ kind: 'client_credentials', jwtAudience }), {
      grant_types: ['client_credentials'],
      token_endpoint_auth_method: 'private_key_jwt',
      jwks: { keys: [] },
    });
    await eventually(async () =>
      assert.deepEqual(await stage.curl(), { status: '503', body: 'scute: there is no token to attach: refused' }),
    );
  },
);
