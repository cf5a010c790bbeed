import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createAdminParts, LOOPBACK, startService } from '../../support/admin/admin.ts';
import { eventually } from '../../support/eventually.ts';
import { ask } from '../../support/http/http.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';

const JSON_TYPE = ['content-type', 'application/json'] as const;

test('the admin socket has the mode asked for, answers curl, and is gone after the stop', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'scute-admin-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'admin.sock');
  const { adminServer } = await createAdminParts();
  const server = adminServer({ ...LOOPBACK, listen: { kind: 'unix', path }, socketMode: 0o660 });

  const address = await startService(t, server);

  assert.equal((await stat(path)).mode & 0o777, 0o660);
  assert.equal((await ask(address, '/livez')).status, 200);
  await server.stop(AbortSignal.timeout(60_000));
  assert.deepEqual(await readdir(folder), []);
});

test('a port that is taken fails the start and names the address', async (t) => {
  const holder = createServer().listen(0, '127.0.0.1');
  t.after(() => holder.close());
  await new Promise((resolve) => holder.once('listening', resolve));
  const { port } = holder.address() as { port: number };
  const { adminServer } = await createAdminParts();

  const starting = adminServer({ ...LOOPBACK, listen: { kind: 'tcp', host: '127.0.0.1', port } }).start(new AbortController().signal);

  await assert.rejects(starting, { code: 'ERR_HTTP_LISTEN', message: `admin cannot listen on 127.0.0.1:${port}: the address is in use` });
});

test('the admin API refuses to listen where another machine could reach it', async () => {
  const { adminServer } = await createAdminParts();

  for (const host of ['0.0.0.0', '::', '192.0.2.7']) {
    assert.throws(() => adminServer({ ...LOOPBACK, listen: { kind: 'tcp', host, port: 0 } }), /only on a Unix socket or loopback/);
  }
});

test('a start that was called off binds nothing', async () => {
  const { adminServer } = await createAdminParts();
  const server = adminServer();

  await assert.rejects(server.start(AbortSignal.abort()));

  assert.equal(server.address(), undefined);
  await server.stop(AbortSignal.abort());
});

test('a name that somebody else made to point here is not answered', async (t) => {
  const { adminServer } = await createAdminParts();
  const address = await startService(t, adminServer({ ...LOOPBACK, allowedHosts: ['status.example.org'] }));
  const statusFor = async (host: string): Promise<number> => (await ask(address, '/config_dump', { headers: [['host', host]] })).status;

  for (const host of [
    '127.0.0.1',
    '127.0.0.1:9090',
    '[::1]:9090',
    'localhost',
    'LocalHost:80',
    'status.example.org',
    'Status.Example.Org:8080',
    '10.0.0.7',
  ]) {
    assert.equal(await statusFor(host), 200, host);
  }
  for (const host of [
    'attacker.example',
    'localhost.attacker.example',
    '127.0.0.1.attacker.example',
    'status.example.org.evil',
    '0x7f.1',
    'user@localhost',
    '[::1',
    '::1',
    '[localhost]',
    'localhost:',
  ]) {
    assert.equal(await statusFor(host), 421, host);
  }
  for (const host of ['', 'localhost, attacker.example']) {
    assert.notEqual(await statusFor(host), 200, host);
  }
});

test('a request without Host, or with two, is refused', async (t) => {
  const { adminServer } = await createAdminParts();
  const address = await startService(t, adminServer());

  assert.equal((await ask(address, '/livez', { withoutHost: true })).status, 400);
  const two = [
    ['host', 'localhost'],
    ['host', 'localhost'],
  ] as const;
  assert.equal((await ask(address, '/livez', { headers: two })).status, 400);
});

test('only a POST with JSON that no page of another origin sent shuts down', async (t) => {
  const { adminServer, shutdowns } = await createAdminParts();
  const address = await startService(t, adminServer());
  const post = async (...headers: (readonly [string, string])[]): Promise<number> =>
    (await ask(address, '/shutdown', { method: 'POST', headers })).status;

  const get = await ask(address, '/shutdown');
  assert.equal(get.status, 405);
  assert.equal(get.headers['allow'], 'POST');
  assert.equal((await ask(address, '/shutdown', { method: 'DELETE', headers: [JSON_TYPE] })).status, 405);
  assert.equal(await post(), 415);
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data',
    'text/plain; application/json',
    'application/jsonp',
  ]) {
    assert.equal(await post(['content-type', type]), 415, type);
  }
  for (const origin of [
    'http://attacker.example',
    'null',
    'https://localhost',
    'http://localhost:1',
    'http://localhost.attacker.example',
  ]) {
    assert.equal(await post(JSON_TYPE, ['origin', origin]), 403, origin);
  }
  for (const site of ['cross-site', 'same-site', 'anything']) {
    assert.equal(await post(JSON_TYPE, ['sec-fetch-site', site]), 403, site);
  }
  assert.equal(await post(JSON_TYPE, ['host', 'attacker.example']), 421);
  assert.equal(shutdowns.length, 0);

  const accepted = await ask(address, '/shutdown', {
    method: 'POST',
    headers: [
      ['content-type', 'Application/JSON; charset=utf-8'],
      ['origin', 'http://localhost'],
      ['sec-fetch-site', 'same-origin'],
    ],
  });
  assert.equal(accepted.status, 202);
  assert.deepEqual(JSON.parse(accepted.body), { status: 'stopping' });
  assert.equal(shutdowns.length, 1);
});

test('the log level is read and changed while running, and the change is logged', async (t) => {
  const { adminServer, logLevel, lines } = await createAdminParts();
  const address = await startService(t, adminServer());
  const put = (body: string) => ask(address, '/loglevel', { method: 'PUT', headers: [JSON_TYPE], body });

  assert.deepEqual(JSON.parse((await ask(address, '/loglevel')).body), { level: 'info' });
  assert.equal((await put('{"level":"debug"}')).status, 200);
  assert.equal(logLevel(), 'debug');
  assert.match(lines.at(-1) ?? '', /"from":"info","to":"debug","message":"log level changed"/);

  for (const body of [
    '{"level":"loud"}',
    '{"level":"debug","more":1}',
    '{}',
    '[]',
    'null',
    '"debug"',
    '',
    '{"level":',
    '{"__proto__":{"level":"error"}}',
  ]) {
    assert.equal((await put(body)).status, 400, body);
  }
  assert.equal(logLevel(), 'debug');
  assert.equal((await put('{"level":"error"}')).status, 200);
  assert.match(lines.at(-1) ?? '', /"from":"debug","to":"error"/);
});

test('a body beyond 16 KiB is refused, whether its length is said or not', async (t) => {
  const { adminServer, logLevel } = await createAdminParts();
  const address = await startService(t, adminServer());
  assert.ok(address.kind === 'tcp');

  const said = await ask(address, '/loglevel', { method: 'PUT', headers: [JSON_TYPE], body: `{"level":"debug"${' '.repeat(20_000)}}` });
  const chunk = `4000\r\n${' '.repeat(0x4000)}\r\n`;
  const unsaid = await raw(
    address,
    `PUT /loglevel HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}${chunk}0\r\n\r\n`,
  );

  assert.equal(said.status, 413);
  assert.match(unsaid, /^HTTP\/1\.1 413 /);
  assert.equal(logLevel(), 'info');
});

test('a target that is not a path, headers that are too large, and garbage get an error and the server lives on', async (t) => {
  const { adminServer } = await createAdminParts();
  const address = await startService(t, adminServer());
  assert.ok(address.kind === 'tcp');

  assert.match(await raw(address, 'GET http://attacker.example/config_dump HTTP/1.1\r\nHost: localhost\r\n\r\n'), /^HTTP\/1\.1 400 /);
  assert.match(await raw(address, 'OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'), /^HTTP\/1\.1 400 /);
  assert.match(await raw(address, `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`), /^HTTP\/1\.1 431 /);
  assert.match(await raw(address, '\u0016\u0003\u0001 not HTTP\r\n\r\n'), /^HTTP\/1\.1 400 /);
  assert.equal((await ask(address, '/__proto__')).status, 404);
  assert.equal((await ask(address, '/livez')).status, 200);
});

test('what is no request that can be read is refused, counted and answered like any other', async (t) => {
  const { adminServer, metrics } = await createAdminParts();
  const address = await startService(t, adminServer());
  assert.ok(address.kind === 'tcp');
  const host = 'Host: localhost\r\n';

  for (const [reason, status, sent] of [
    ['head_too_large', 431, `GET / HTTP/1.1\r\n${host}X: ${'x'.repeat(20_000)}\r\n\r\n`],
    ['head_too_large', 431, `GET /${'x'.repeat(20_000)} HTTP/1.1\r\n${host}\r\n`],
    ['bad_request', 400, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['bad_request', 400, '\u0016\u0003\u0001 not HTTP\r\n\r\n'],
    ['bad_method', 405, `CONNECT localhost:1 HTTP/1.1\r\n${host}\r\n`],
    ['not_found', 404, `GET /nothing HTTP/1.1\r\n${host}Expect: something\r\nConnection: close\r\n\r\n`],
  ] as const) {
    const before = metrics.statusRefusals.admin[reason];
    const answer = await raw(address, sent);
    assert.match(
      answer,
      new RegExp(`^HTTP/1\\.1 ${status} [^]*\r\ncontent-security-policy: default-src 'none'; frame-ancestors 'none'\r\n`),
    );
    assert.match(answer, /\r\nconnection: close\r\n/i);
    assert.equal(metrics.statusRefusals.admin[reason], before + 1, sent.slice(0, 40));
  }
  assert.equal((await ask(address, '/livez')).status, 200);
});

test('idle connections of others do not keep a request out', async (t) => {
  const { adminServer } = await createAdminParts();
  const address = await startService(t, adminServer());
  assert.ok(address.kind === 'tcp');
  const idle = Array.from({ length: 200 }, () => connect(address.port, address.host).on('error', () => undefined));
  t.after(() => {
    for (const socket of idle) socket.destroy();
  });
  await Promise.all(idle.map((socket) => new Promise((resolve) => socket.once('connect', resolve))));

  assert.equal((await ask(address, '/livez')).status, 200);
});

test('who has asked only half does not delay a stop', async (t) => {
  const { adminServer } = await createAdminParts();
  const service = adminServer();
  const address = await startService(t, service);
  assert.ok(address.kind === 'tcp');
  const head = 'PUT /loglevel HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 20\r\n';
  const ended = ['GET /livez HTTP/1.1\r\nHo', `${head}\r\n{`, `${head}Expect: 100-continue\r\n\r\n`].map((half) => {
    const socket = connect(address.port, address.host).on('error', () => undefined);
    t.after(() => socket.destroy());
    socket.write(half);
    socket.resume();
    return once(socket, 'close');
  });
  await eventually(() => Promise.resolve(assert.equal(service.connections(), 3)));
  // What was sent before this has been read.
  assert.equal((await ask(address, '/livez')).status, 200);

  const begun = performance.now();
  // No deadline: it has to end by itself.
  await service.stop(new AbortController().signal);
  await Promise.all(ended);
  assert.ok(performance.now() - begun < 10_000);
});

test('no answer is stored, sniffed or embedded elsewhere, and each ends with a newline', async (t) => {
  const { adminServer } = await createAdminParts();
  const address = await startService(t, adminServer());

  for (const path of ['/livez', '/readyz', '/readyz?verbose', '/metrics', '/config_dump', '/loglevel', '/nothing-here']) {
    const { headers, body } = await ask(address, path);
    assert.equal(headers['cache-control'], 'no-store', path);
    assert.equal(headers['x-content-type-options'], 'nosniff', path);
    assert.equal(headers['cross-origin-resource-policy'], 'same-origin', path);
    assert.equal(headers['access-control-allow-origin'], undefined, path);
    assert.ok(body.endsWith('\n'), path);
  }
});

test('the dump has every certificate with where it is used, and no private key', async (t) => {
  const authority = createTestAuthority();
  const other = createTestAuthority({ trustDomain: 'partner.example' });
  const web = svidOf(authority, 'spiffe://example.org/web');
  const batch = svidOf(authority, 'spiffe://example.org/batch', { hint: 'batch', key: 'ed25519' });
  const snapshot = heldSnapshot([web, batch], [authority, other], 3);
  const { adminServer, status, metrics } = await createAdminParts();
  const listener = { name: 'in', direction: 'inbound' } as const;
  const { counters } = metrics.listener(listener);
  counters.open = 2;
  const pem = web.key.export({ format: 'pem', type: 'pkcs8' });
  const address = await startService(
    t,
    adminServer(LOOPBACK, {
      ...status,
      identity: () => snapshot,
      config: () => ({ list: new Set(['a']), bytes: new Map([['b', 1n]]), svid: web, privateKeyPem: pem }),
      exposed: () => new Map([['in', ['0.0.0.0:8080']]]),
      lastReload: () => ({ atMs: 0, ok: false, differences: [], needRestart: [], problems: ['scute.yaml:1:1 bad'] }),
      listeners: () => [
        {
          listener,
          address: { kind: 'tcp', host: '0.0.0.0', port: 8443 },
          to: { kind: 'tcp', host: '127.0.0.1', port: 8080 },
          identity: { by: 'hint', hint: 'batch' },
          counters,
        },
      ],
    }),
  );

  const { status: code, headers, body } = await ask(address, '/config_dump');

  assert.equal(code, 200);
  assert.equal(headers['content-type'], 'application/json');
  const dump = JSON.parse(body) as Record<string, unknown>;
  assert.equal(dump['version'], '1.2.3');
  assert.equal(dump['live_connections'], 2);
  assert.deepEqual((dump['last_reload'] as Record<string, unknown>)['problems'], ['scute.yaml:1:1 bad']);
  const [shown] = dump['listeners'] as Record<string, unknown>[];
  assert.equal(shown?.['presents'], 'spiffe://example.org/batch');
  assert.equal(shown?.['address'], '0.0.0.0:8443');
  assert.deepEqual(shown?.['exposed_at'], ['0.0.0.0:8080']);
  const identity = dump['identity'] as { generation: number; svids: Record<string, unknown>[]; bundles: Record<string, unknown>[] };
  assert.equal(identity.generation, 3);
  assert.deepEqual(
    identity.svids.map((svid) => [svid['spiffe_id'], svid['hint'], svid['is_default'], svid['used_by']]),
    [
      ['spiffe://example.org/web', '', true, []],
      ['spiffe://example.org/batch', 'batch', false, ['in']],
    ],
  );
  const [leaf] = (identity.svids[1]?.['chain'] ?? []) as Record<string, unknown>[];
  assert.equal(leaf?.['serial'], batch.chain[0]?.serial);
  assert.equal(leaf?.['key_type'], 'ed25519');
  assert.equal(leaf?.['issuer_key_id'], batch.chain[0]?.authorityKeyId);
  assert.equal(leaf?.['is_valid_now'], true);
  assert.deepEqual(
    identity.bundles.map((bundle) => bundle['trust_domain']),
    ['example.org', 'partner.example'],
  );
  const secret = web.key.export({ format: 'der', type: 'pkcs8' });
  assert.ok(!body.includes('PRIVATE KEY'));
  assert.ok(!body.includes(secret.toString('base64').slice(40, 80)));
  assert.ok(!body.includes(String(web.key.export({ format: 'jwk' }).d)));
});

test('control and inventory are not on the metrics listener', async (t) => {
  const { metricsServer } = await createAdminParts();
  const address = await startService(t, metricsServer());

  assert.equal((await ask(address, '/config_dump')).status, 404);
  assert.equal((await ask(address, '/loglevel')).status, 404);
  assert.equal((await ask(address, '/shutdown', { method: 'POST', headers: [JSON_TYPE] })).status, 404);
});

/** Sends these very bytes and gives all that comes back until the end. */
function raw(address: { readonly host: string; readonly port: number }, text: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(address.port, address.host, () => socket.write(text));
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      answer += chunk;
      if (answer.includes('\r\n\r\n')) socket.destroy();
    });
    // A reset after the answer is an end like another.
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(answer));
  });
}
