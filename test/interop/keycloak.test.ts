/** Keycloak, with its SPIFFE identity provider: an access token for a JWT-SVID of the embedded trust domain, used by an unmodified curl. */
import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { get } from 'node:https';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { createLocalJWKSet, jwtVerify, type JSONWebKeySet } from 'jose';
import { systemClock } from '../../src/lib/clock.ts';
import { runChild, startChild } from '../support/child.ts';
import { startExampleDomain, WEB } from '../support/data-path.ts';
import { eventually } from '../support/eventually.ts';
import { createTestAuthority } from '../support/pki/pki.ts';
import { startSidecar } from '../support/sidecar.ts';
import { startSource } from '../support/source-harness.ts';
import { freePort } from '../support/tcp.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { issueForWeb, startWebServer } from '../support/web-server.ts';
import { needs, part } from './parts.ts';

/** It starts a JVM and builds itself anew. */
const START_WITHIN_MS = 240_000;

/** Its realm, with one client that is known by a SPIFFE ID alone. */
function realm(bundleEndpoint: string): object {
  return {
    realm: 'partner',
    enabled: true,
    identityProviders: [
      { alias: 'spiffe', providerId: 'spiffe', enabled: true, config: { issuer: 'spiffe://example.org', bundleEndpoint } },
    ],
    clients: [
      {
        clientId: 'orders',
        enabled: true,
        publicClient: false,
        standardFlowEnabled: false,
        serviceAccountsEnabled: true,
        clientAuthenticatorType: 'federated-jwt',
        attributes: { 'jwt.credential.issuer': 'spiffe', 'jwt.credential.sub': WEB },
      },
    ],
  };
}

/** Its issuer. Ends with the test. */
async function startKeycloak(
  t: TestContext,
  certificate: { readonly cert: string; readonly key: string; readonly ca: string },
  bundleEndpoint: string,
) {
  const program = part('keycloak');
  const file = join(dirname(program), '..', 'data/import/partner-realm.json');
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, JSON.stringify(realm(bundleEndpoint)));
  const port = await freePort();
  const origin = `https://localhost:${port}`;
  const flags = {
    features: 'spiffe,client-auth-federated',
    db: 'dev-mem',
    'https-port': port,
    // It listens there, too.
    'http-port': await freePort(),
    'http-host': '127.0.0.1',
    'https-certificate-file': certificate.cert,
    'https-certificate-key-file': certificate.key,
    'truststore-paths': certificate.ca,
    hostname: origin,
  };
  const child = await startChild(
    [program, 'start-dev', '--import-realm', ...Object.entries(flags).map(([name, value]) => `--${name}=${value}`)],
    { env: { PATH: process.env['PATH'] ?? '', JAVA_OPTS_APPEND: '-XX:TieredStopAtLevel=1' } },
  );
  t.after(async () => {
    await child[Symbol.asyncDispose]();
    await rm(file, { force: true });
  });
  await child.line(/Listening on: .*https:/, { withinMs: START_WITHIN_MS });
  return `${origin}/realms/partner`;
}

test(
  'Keycloak gives an access token for a JWT-SVID, as draft-ietf-oauth-spiffe-client-auth has it',
  needs('keycloak', 'java', 'curl'),
  async (t) => {
    const spiffe = await startExampleDomain(t);
    const source = await startSource(t, spiffe.endpoint('api'), systemClock, true);
    const keys = await eventually(() => {
      const bundle = [...(source.view.current()?.jwtBundles?.values() ?? [])][0];
      assert.ok(bundle !== undefined);
      return bundle.authorities.map(({ keyId, key }) => ({ ...key.export({ format: 'jwk' }), kid: keyId, use: 'jwt-svid', alg: 'ES256' }));
    });
    const ca = createTestAuthority({ trustDomain: 'web.test' });
    const bundles = await startWebServer(t, { ca });
    bundles.answer((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ keys, spiffe_sequence: 1, spiffe_refresh_hint: 300 }));
    });
    const folder = await temporaryFolder(t);
    const { chainPem, keyPem } = issueForWeb(ca);
    const files = { cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem'), ca: bundles.caFile };
    await Promise.all([writeFile(files.cert, chainPem), writeFile(files.key, keyPem)]);
    const issuer = await startKeycloak(t, files, `${bundles.origin}/`);

    const certs = `${issuer}/protocol/openid-connect/certs`;
    const jwks = await new Promise<JSONWebKeySet>((resolve, reject) => {
      get(certs, { ca: ca.pem }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
        response.on('end', () => resolve(JSON.parse(body) as JSONWebKeySet));
      }).on('error', reject);
    });
    const api = await startWebServer(t, { ca });
    api.answer((request, response) => {
      const [, token = ''] = /^Bearer (.+)$/.exec(request.headers.authorization ?? '') ?? [];
      jwtVerify(token, createLocalJWKSet(jwks), { issuer }).then(
        ({ payload }) => response.end(String(payload['azp'])),
        (cause: unknown) => response.writeHead(401).end(String(cause)),
      );
    });
    const listen = join(folder, 'partner.sock');
    await startSidecar(t, {
      workloadApi: { endpoint: spiffe.endpoint('web') },
      credentials: [
        {
          name: 'partner',
          kind: 'client_credentials',
          clientAuth: 'jwt-spiffe',
          tokenEndpoint: `${issuer}/protocol/openid-connect/token`,
          caFile: bundles.caFile,
          jwtAudience: issuer,
        },
      ],
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

    const { stdout } = await runChild([part('curl'), '--silent', '--max-time', '60', '--unix-socket', listen, 'http://partner/orders']);

    assert.equal(stdout, 'orders');
  },
);
