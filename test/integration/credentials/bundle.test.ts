import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rootCertificates } from 'node:tls';
import { parseAddress } from '../../../src/config/units.ts';
import { runChild } from '../../support/child.ts';
import { startExampleDomain, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { ask } from '../../support/http/http.ts';
import { startScute } from '../../support/scute-process.ts';
import { startWebServer } from '../../support/web-server.ts';

test('what is shipped puts an access token on requests, for a JWT-SVID', async (t) => {
  const [spiffe, endpoint, server] = await Promise.all([startExampleDomain(t), startWebServer(t), startWebServer(t)]);
  endpoint.answer((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ access_token: 'opaque', token_type: 'bearer', expires_in: 60 }));
  });
  const config = {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    credentials: [
      {
        name: 'partner',
        kind: 'token_exchange',
        tokenEndpoint: `${endpoint.origin}/token`,
        caFile: endpoint.caFile,
        jwtAudience: endpoint.origin,
        spiffeId: WEB,
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
    metrics: { listen: '127.0.0.1:0' },
  };
  await using scute = await startScute({ config, entry: 'bundle' });
  await scute.ready('out');
  const address = parseAddress(await scute.address('out'));
  assert.ok(address.ok);

  await eventually(async () => assert.equal((await ask(address.value, '/')).status, 200));

  assert.equal(server.requests[0]?.headers.authorization, 'Bearer opaque');
  assert.equal(endpoint.requests.length, 1);
});

test('scute check says what would be put on requests, and of a CA file that is missing', async (t) => {
  const server = await startWebServer(t);
  const listener = { name: 'partner', listen: 'unix:///run/p.sock', protocol: 'http', to: 'https://api.partner.example', webPki: true };
  const checked = async (more: object, credentials: readonly object[] = []) => {
    const config = { workloadApi: { endpoint: 'unix:///a.sock' }, credentials, outbound: [{ ...listener, ...more }] };
    await using scute = await startScute({ config, args: ['check'] });
    return { ...(await scute.exited), stdout: scute.child.stdout(), stderr: scute.child.stderr() };
  };
  const google = { name: 'google', kind: 'google', audience: ['//iam.googleapis.com/projects/1'] };
  const good = await checked({ webPki: { caFile: server.caFile }, credential: { name: 'google' } }, [google]);
  assert.equal(good.code, 0, good.stderr);
  const lines = good.stdout.split('\n');
  assert.ok(lines.includes(`  a server of the public web, by ${server.caFile}; our SVID is not presented`), good.stdout);
  assert.ok(lines.includes('  puts the access token of google in Authorization of each request that has none'));
  assert.ok(
    lines.includes('credential google  access tokens of https://sts.googleapis.com/v1/token for a JWT-SVID (token_exchange, none)'),
  );

  const missing = await checked({ webPki: { caFile: '/nowhere/ca.pem' } });
  assert.equal(missing.code, 64);
  assert.match(missing.stderr, /\/nowhere\/ca\.pem: cannot be read/);
  const unknown = await checked({ credential: { name: 'other' } }, [google]);
  assert.match(unknown.stderr, /there is no credential "other"/);
  assert.equal((await checked({ jwt: { audience: '' } })).code, 64);
});

test('authorities of the public web are those of Node and of NODE_EXTRA_CA_CERTS, also where Node is told to leave them to OpenSSL', async (t) => {
  const [spiffe, server] = await Promise.all([startExampleDomain(t), startWebServer(t)]);
  const config = {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    outbound: [{ name: 'out', listen: '127.0.0.1:0', protocol: 'http', to: server.origin, webPki: true }],
    metrics: { listen: '127.0.0.1:0' },
  };
  const source = new URL('../../../src/transport/node.ts', import.meta.url).href;
  const count = `import(${JSON.stringify(source)}).then(({ webAuthoritiesPem }) => console.log(webAuthoritiesPem().length))`;
  for (const [name, option, status, more] of [
    ['NODE_EXTRA_CA_CERTS', '--use-bundled-ca', 200, 1],
    ['NODE_EXTRA_CA_CERTS', '--use-openssl-ca', 200, 1],
    ['SSL_CERT_FILE', '--use-openssl-ca', 502, 0],
  ] as const) {
    const env = { [name]: server.caFile };
    const counted = await runChild([process.execPath, option, '--eval', count], { env });
    assert.equal(Number(counted.stdout), rootCertificates.length + more, counted.stderr);
    await using scute = await startScute({ config, nodeArgs: [option], env });
    const address = parseAddress(await scute.address('out'));
    assert.ok(address.ok);
    assert.equal((await ask(address.value, '/')).status, status, `${name} ${option}`);
  }
});
