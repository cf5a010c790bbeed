import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { createServer, type TlsOptions, type TLSSocket } from 'node:tls';
import type { PeerReport } from '../../../src/inspect/peer.ts';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { scute, scuteIn, type Said } from '../../support/command.ts';
import { API, presented, startExampleDomain, startInbound, WEB } from '../../support/data-path.ts';
import { denyText } from '../../support/policy/deny-file.ts';
import { COMMON_NAME, createTestAuthority, distinguishedName, ORGANISATION } from '../../support/pki/pki.ts';
import { startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { tlsServer, type Presented } from '../../support/tls-peer.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

/** As web, and with all the time that there is. */
function inspect(spiffe: DevDomain, address: string, ...args: readonly string[]): Promise<Said> {
  return scuteIn({ env: { SPIFFE_ENDPOINT_SOCKET: spiffe.endpoint('web') } }, 'inspect', address, '--timeout', '10m', ...args);
}

async function report(spiffe: DevDomain, address: string, ...args: readonly string[]): Promise<PeerReport & { readonly code: number }> {
  const { code, stdout, stderr } = await inspect(spiffe, address, '--json', ...args);
  assert.equal(stderr, '');
  return { code, ...(JSON.parse(stdout) as PeerReport) };
}

/** A server that presents an SVID of api, unless it is told otherwise. */
async function startApi(t: TestContext, options: TlsOptions = {}, serve: (socket: TLSSocket) => void = (socket) => void socket.resume()) {
  const spiffe = await startExampleDomain(t);
  const server = await tlsServer(t, presented(await spiffe.issue(API)), serve, options);
  return { spiffe, ...server };
}

async function startWith(t: TestContext, shown: Presented) {
  const spiffe = await startExampleDomain(t);
  return { spiffe, ...(await tlsServer(t, shown, (socket) => void socket.resume())) };
}

test('scute inspect shows who a server is, by whom it is signed, and what it asks for, and sends it nothing', async (t) => {
  let received = 0;
  const clients: string[] = [];
  const { spiffe, address } = await startApi(t, { ALPNProtocols: ['h2'] }, (socket) => {
    clients.push(`${(socket.getPeerCertificate() as { subjectaltname?: string }).subjectaltname} ${String(socket.servername)}`);
    socket.on('data', ({ length }: Buffer) => (received += length));
  });

  const { code, stdout, stderr } = await inspect(
    spiffe,
    address,
    '--wait',
    '50ms',
    '--alpn',
    'http/1.1',
    'h2',
    '--server-name',
    'db.internal',
  );

  assert.deepEqual([code, stderr, received, clients], [0, '', 0, [`URI:${WEB} db.internal`]]);
  const root = String.raw`CN=root \w+,O=Scute development\\, never for production`;
  assert.match(
    stdout,
    new RegExp(
      String.raw`^${address}  TLSv1\.3, ALPN h2, asks for a certificate, and was shown ${WEB}\nIt is ${API}\.\n\n` +
        String.raw`${API}\n\d+ min \d+ s +\[#+\|[#-]+\] .* signed by ${root} \(authority of example\.org, 13 days\)\npeer - .*\n\n` +
        String.raw`${root}\n13 days .* signs itself\nauthority of example\.org - .*\n\n$`,
    ),
  );

  const expected = await report(spiffe, address, '--wait', '1ms', '--expect', API);
  assert.deepEqual([expected.code, expected.verdict], [0, { result: 'allow', spiffeId: API, detail: null }]);
  assert.deepEqual(
    expected.certificates.map(({ kind, issuer }) => [kind, issuer]),
    [
      ['peer', expected.certificates[1]?.id],
      ['authority', null],
    ],
  );
  const wrong = await inspect(spiffe, address, '--wait', '1ms', '--expect', WEB);
  assert.equal(wrong.code, 1);
  assert.match(wrong.stdout, /^Refused: not_allowed: it is spiffe:\/\/example\.org\/api, not spiffe:\/\/example\.org\/web$/m);
});

test('scute inspect says that a sidecar does not want us, though the handshake is over by then', async (t) => {
  const application = await startTcpServer(t, (socket) => void socket.resume());
  const stage = await startInbound(t, application.address, { listener: { allow: ['spiffe://example.org/other'] } });

  const { code, stdout } = await inspect(stage.spiffe, stage.address, '--wait', '10m');

  assert.equal(code, 1);
  assert.match(
    stdout,
    new RegExp(
      String.raw`^It is ${API}\.\nIt ended the connection after the handshake: read ECONNRESET\. It may not accept ${WEB}\.$`,
      'm',
    ),
  );

  const nobody = await report(stage.spiffe, stage.address, '--wait', '10m', '--no-svid');
  assert.deepEqual(
    [nobody.code, nobody.presented, nobody.verdict, nobody.askedForCertificate, nobody.afterwards],
    [0, null, null, true, { what: 'ended', detail: 'tlsv13 alert certificate required' }],
  );
  assert.deepEqual([nobody.certificates[0]?.kind, nobody.certificates[0]?.spiffeId], ['refused', API], 'a claim');
});

test('scute inspect tells of TLS 1.2, and of a server that asks for no certificate', async (t) => {
  const { spiffe, address } = await startApi(t, { maxVersion: 'TLSv1.2', requestCert: false });

  const { stdout } = await inspect(spiffe, address, '--wait', '1ms');

  assert.match(stdout, /^\S+ {2}TLSv1\.2, no ALPN, asks for no certificate\nIt is spiffe:\/\/example\.org\/api\.\n/);

  const strict = await startApi(t, { maxVersion: 'TLSv1.2', rejectUnauthorized: true });
  const without = await inspect(strict.spiffe, strict.address, '--no-svid');
  assert.equal(without.code, 1);
  assert.match(without.stdout, /^The TLS handshake failed: ERR_SSL_[\w/]+: .*\. It asks for a certificate, and was shown none\.$/m);
});

test('a server behind a Unix socket is looked at like any other', async (t) => {
  const spiffe = await startExampleDomain(t);
  const path = join(await temporaryFolder(t), 'server.sock');
  const { cert, key } = presented(await spiffe.issue(API));
  const server = createServer(
    { cert, key, requestCert: true, rejectUnauthorized: false },
    (socket) => void socket.on('error', () => undefined).resume(),
  );
  server.listen(path);
  await once(server, 'listening');
  t.after(() => server.close());

  const { code, stdout } = await inspect(spiffe, `unix://${path}`, '--wait', '1ms');

  assert.equal(code, 0);
  assert.match(stdout, new RegExp(`^unix://${path}  TLSv1\\.3, `));
});

test('scute inspect shows the SVID that is named by SPIFFE ID or hint, and no other', async (t) => {
  const clients: string[] = [];
  const { spiffe, address } = await startApi(t, {}, (socket) => {
    clients.push(String((socket.getPeerCertificate() as { subjectaltname?: string }).subjectaltname));
    socket.resume();
  });
  const authority = createTestAuthority();
  const agent = await FakeWorkloadApi.start();
  t.after(() => agent.stop());
  const [first, second] = ['spiffe://example.org/first', 'spiffe://example.org/second'];
  agent.setX509([first, second].map((id, index) => svidEntry(authority, authority.issue({ id }), id, { hint: `hint-${index}` })));
  const shown = (...args: readonly string[]): Promise<Said> =>
    scute('inspect', address, '--workload-api', agent.endpoint, '--wait', '1ms', '--timeout', '10m', ...args);

  for (const args of [[], ['--svid', second], ['--svid', 'hint-0'], ['--svid', 'hint-1']]) {
    const { stdout, code } = await shown(...args);
    // The server is of another authority, so it is refused; it saw us before.
    assert.deepEqual([code, /was shown (\S+)/.exec(stdout)?.[1]], [1, args.at(-1) === second || args.at(-1) === 'hint-1' ? second : first]);
  }
  assert.deepEqual(
    clients,
    [first, second, first, second].map((id) => `URI:${id}`),
  );

  for (const [svid, message] of [
    ['spiffe://example.org/third', /no SVID with the SPIFFE ID spiffe:\/\/example\.org\/third$/],
    ['no\u001b[2J', /no SVID with the hint "no\\u001b\[2J"$/],
    ['', /no SVID with the hint ""$/],
  ] as const) {
    const { code, stdout, stderr } = await shown('--svid', svid);
    assert.deepEqual([code, stdout, clients.length], [69, '', 4]);
    assert.match(stderr.trimEnd(), message);
  }
  assert.equal((await inspect(spiffe, address, '--wait', '1ms', '--svid', WEB)).code, 0);
});

test('scute inspect -c asks the deny list of the configuration, and the Workload API that it names', async (t) => {
  const { spiffe, address } = await startApi(t);
  const folder = await temporaryFolder(t);
  const [file, denied] = [join(folder, 'scute.yaml'), join(folder, 'denied.yaml')];
  const config = {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to: '127.0.0.1:1', allow: [WEB] }],
  };
  const looked = async (more: object): Promise<Said> => {
    // JSON is YAML.
    await writeFile(file, JSON.stringify({ ...config, ...more }));
    return scute('inspect', address, '-c', file, '--wait', '1ms', '--timeout', '10m', '--expect', API);
  };
  const revocations = { file: denied };

  assert.deepEqual((await looked({})).code, 0);
  await writeFile(denied, denyText({ ids: [WEB] }));
  assert.equal((await looked({ revocations })).code, 0);
  await writeFile(denied, denyText({ ids: [API] }));
  const { code, stdout } = await looked({ revocations });
  assert.equal(code, 1);
  assert.match(stdout, /^Refused: revoked: .*spiffe:\/\/example\.org\/api/m);

  // What cannot be read denies nobody, so nobody is judged by it.
  await writeFile(denied, 'ids: [');
  for (const more of [{ revocations }, { revocations: { file: join(folder, 'none.yaml') } }, { unknown: 1 }]) {
    const wrong = await looked(more);
    assert.deepEqual([wrong.code, wrong.stdout], [64, ''], JSON.stringify(more));
    assert.match(wrong.stderr, /(?:denied|none|scute)\.yaml/);
  }
});

// ——— servers that are not who they should be ———

const foreign = createTestAuthority();

test('a server of a foreign authority is refused, and what it says of itself is a claim, shown inert', async (t) => {
  const subject = distinguishedName([ORGANISATION, 'x\u001b[2J\n\u202e'], [COMMON_NAME, '\u009b1m\u2028']);
  const leaf = foreign.issue({ id: API, subject, keyUsage: ['digitalSignature', 'keyCertSign'] });
  const { spiffe, address } = await startWith(t, { cert: leaf.chainPem, key: leaf.keyPem });
  const env = { SPIFFE_ENDPOINT_SOCKET: spiffe.endpoint('web'), LANG: 'C.UTF-8' };

  const { code, stdout } = await scuteIn({ env }, 'inspect', address, '--wait', '1ms', '--timeout', '10m', '--expect', API);

  assert.equal(code, 1);
  assert.match(stdout, /^Refused: not_an_svid: .*key usage has keyCertSign \(X509-SVID 4\.3\)$/m);
  assert.match(stdout, /^claims to be spiffe:\/\/example\.org\/api$/m);
  assert.match(stdout, /^! refused: key usage has keyCertSign \(X509-SVID 4\.3\)$/m);
  // oxlint-disable-next-line no-control-regex -- these are what is looked for
  assert.doesNotMatch(stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e\u2028]/);

  const plain = foreign.issue({ id: API });
  const other = await startWith(t, { cert: plain.chainPem, key: plain.keyPem });
  const { verdict } = await report(other.spiffe, other.address, '--wait', '1ms');
  assert.deepEqual([verdict?.result, verdict?.spiffeId], ['untrusted_chain', null]);
});

test('what a server sends beside its path is shown, and linked to nothing', async (t) => {
  const spiffe = await startExampleDomain(t);
  const { cert, key } = presented(await spiffe.issue(API));
  const { address } = await tlsServer(t, { cert: cert + foreign.pem, key }, (socket) => void socket.resume());

  const { verdict, certificates } = await report(spiffe, address, '--wait', '1ms');

  assert.equal(verdict?.result, 'authenticated');
  assert.deepEqual(
    certificates.map(({ kind, issuer }) => [kind, issuer]),
    [
      ['peer', certificates[2]?.id],
      ['peer_intermediate', null],
      ['authority', null],
    ],
  );
});

test('a chain of 100 certificates is refused and cut, one that is huge is not read', async (t) => {
  const leaf = foreign.issue({ id: API });
  const others = Array.from({ length: 99 }, () => createTestAuthority({ subjectKeyId: null, authorityKeyId: null }).pem);
  const long = await startWith(t, { cert: leaf.pem + others.join(''), key: leaf.keyPem });

  const { code, stdout } = await inspect(long.spiffe, long.address, '--wait', '1ms');
  assert.equal(code, 1);
  assert.match(stdout, /^Refused: \w+: .*$/m);
  assert.match(stdout, /^and 84 more certificates that it sent$/m);
  assert.equal(
    stdout.split('\n').filter((line) => line.includes('nothing is proven of it') || line.includes('intermediate of a peer')).length,
    16,
  );

  const padded = (length: number) => {
    const large = foreign.issue({ id: API, extensions: [{ oid: '1.2.3.4', value: Buffer.alloc(length) }] });
    return startWith(t, { cert: large.pem, key: large.keyPem });
  };
  const huge = await padded(40_000);
  const unread = await report(huge.spiffe, huge.address, '--wait', '1ms');
  assert.deepEqual([unread.code, unread.verdict?.result, unread.certificates[0]?.validity], [1, 'bad_certificate', 'unknown']);
  assert.match(unread.certificates[0]?.findings[0]?.problem ?? '', /^it has 4\d+ bytes, more than 32768, and was not read$/);

  const tooHuge = await padded(120_000);
  const refused = await report(tooHuge.spiffe, tooHuge.address, '--wait', '1ms');
  assert.equal(refused.code, 1);
  assert.deepEqual(refused.handshake.ok ? '' : refused.handshake.code, 'ERR_SSL_EXCESSIVE_MESSAGE_SIZE');
});

test('what a server sends after the handshake is neither shown nor waited for', async (t) => {
  const { spiffe, address } = await startApi(t, {}, (socket) => {
    const flood = (): void => {
      while (!socket.destroyed && socket.write(Buffer.alloc(65_536, '\u001b')));
      socket.once('drain', flood);
    };
    flood();
  });

  const { code, stdout } = await inspect(spiffe, address, '--wait', '10m', '--json');

  assert.equal(code, 0);
  assert.deepEqual((JSON.parse(stdout) as PeerReport).afterwards, { what: 'spoke', detail: null });
  assert.ok(stdout.length < 10_000);
});

// ——— no TLS, nobody, nothing ———

for (const [what, serve, expected] of [
  ['speaks no TLS', 'HTTP/1.1 400 Bad Request\r\n\r\n', { code: 1, text: /^The TLS handshake failed: ERR_SSL_\w+: / }],
  ['resets', 'reset', { code: 1, text: /^The TLS handshake failed: ECONNRESET: / }],
  ['ends', 'end', { code: 1, text: /^The TLS handshake failed: ECONNRESET: .*\.$/ }],
] as const)
  test(`scute inspect says that a server ${what}`, async (t) => {
    const spiffe = await startExampleDomain(t);
    const { address } = await startTcpServer(t, (socket) => {
      socket.once('data', () => {
        if (serve === 'reset') socket.resetAndDestroy();
        else if (serve === 'end') socket.end();
        else socket.write(serve);
      });
    });

    const { code, stdout } = await inspect(spiffe, address);

    assert.equal(code, expected.code);
    assert.match(stdout.split('\n')[0] ?? '', /^\S+ {2}no TLS connection$/);
    assert.match(stdout.split('\n')[1] ?? '', expected.text);
  });

test('scute inspect gives up a server that is silent or not there, and an agent that has nothing for it', async (t) => {
  const spiffe = await startExampleDomain(t);
  const silent = await startTcpServer(t, (socket) => void socket.resume());
  const gone = await startTcpServer(t, () => undefined);
  await gone.close();
  const mute = await FakeWorkloadApi.start();
  t.after(() => mute.stop());
  const withApi = (endpoint: string) => ['--workload-api', endpoint];
  await spiffe.withdraw('api');
  for (const [address, args, message] of [
    [silent.address, ['--timeout', '300ms', '--no-svid'], /^scute: \S+ did not finish the TLS handshake within 300 ms\n$/],
    [gone.address, ['--no-svid'], /^scute: \S+: connect ECONNREFUSED \S+\n$/],
    ['nobody.invalid:1', ['--no-svid'], /^scute: "nobody\.invalid" cannot be resolved: /],
    [silent.address, withApi('unix:///nonexistent/agent.sock'), /^scute: there is no SVID to show: unix:\/\/\/nonexistent\/agent\.sock: /],
    [silent.address, withApi(spiffe.endpoint('api')), /^scute: there is no SVID to show: .*PERMISSION_DENIED/],
    [
      silent.address,
      [...withApi(mute.endpoint), '--timeout', '300ms'],
      /^scute: there is no SVID to show: .* gave nothing within 300 ms\n$/,
    ],
  ] as const) {
    const said = await scute('inspect', address, ...args);
    assert.deepEqual([said.code, said.stdout], [69, '']);
    assert.match(said.stderr, message);
  }

  const stop = new AbortController();
  const stopped = scuteIn({ stopped: stop.signal }, 'inspect', silent.address, '--no-svid', '--timeout', '10m');
  stop.abort();
  assert.deepEqual((await stopped).stderr, 'scute: stopped\n');
});

for (const [args, message] of [
  [['127.0.0.1:1'], /no Workload API address: .*; or give --no-svid/],
  [['127.0.0.1:1', '--no-svid', '--expect', API], /^scute: --expect needs the bundles that come with an SVID/],
  [['127.0.0.1:1', '--expect', 'api'], /^scute: --expect "api" is no SPIFFE ID: /],
  [['127.0.0.1:1', '--no-svid', '-c', 'scute.yaml'], /^scute: -c is for judging the server/],
  [['127.0.0.1:1', '--svid', 'spiffe://'], /^scute: --svid "spiffe:\/\/" is no SPIFFE ID: /],
  [['127.0.0.1:0', '--no-svid'], /has port 0/],
  [['127.0.0.1:70000'], /has a port above 65535/],
  [['unix:relative'], /has no absolute path/],
  [['127.0.0.1:1', '--no-svid', '--server-name', '10.0.0.1'], /^scute: --server-name "10\.0\.0\.1" is neither/],
  [['127.0.0.1:1', '--no-svid', '--alpn', 'a b'], /^scute: --alpn "a b" is no name of a protocol/],
  [['127.0.0.1:1', '--no-svid', '--timeout', '5'], /^scute: --timeout "5" /],
  [['127.0.0.1:1', '--no-svid', '--wait', '2h'], /^scute: --wait "2h" /],
  [['svid.pem', '--server-name', 'a'], /^scute: --server-name is for servers, and "svid\.pem" is not an address/],
  [['svid.pem', '--no-svid'], /^scute: --no-svid is for servers, and /],
  [['svid.pem', '--svid', 'a'], /^scute: --svid is for servers, and /],
  [['svid.pem', '-c', 'scute.yaml'], /^scute: --config is for servers, and /],
] as const)
  test(`scute inspect ${args.join(' ')} is wrong usage`, async () => {
    const said = await scute('inspect', ...args);

    assert.deepEqual([said.code, said.stdout], [64, '']);
    assert.match(said.stderr, message);
  });
