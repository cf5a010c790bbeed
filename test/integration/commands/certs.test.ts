import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import type { RequestListener } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { Certificate, CertificatePage } from '../../../src/admin/api-types.ts';
import { askList } from '../../../src/cli/admin-client.ts';
import { everyPage } from '../../support/admin/api.ts';
import { scute, scuteIn } from '../../support/command.ts';
import { API, startInbound, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication } from '../../support/http/http-stage.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { tlsClient } from '../../support/tls-peer.ts';

const NEVER = new AbortController().signal;

async function startWithAdmin(t: TestContext) {
  const application = await startTcpServer(t, (socket) => void socket.resume());
  const stage = await startInbound(t, application.address, { file: { admin: { listen: '127.0.0.1:0' } } });
  return { stage, admin: stage.sidecar.address('admin') };
}

test('scute certs draws every certificate: who uses it, who it is, its life, what signed it, and the peers beside ours', async (t) => {
  const { stage, admin } = await startWithAdmin(t);
  await stage.connect();
  await eventually(async () => assert.equal((await everyPage(stage.sidecar, 'certificates?kind=peer')).length, 1));

  const { code, stdout, stderr } = await scute('certs', '--admin', admin);

  assert.deepEqual([code, stderr], [0, '']);
  const root = String.raw`CN=root \w+,O=Scute development\\, never for production`;
  const life = String.raw`\d+ (?:min|h) \d+ (?:s|min) +`;
  for (const card of [
    String.raw`used by in\n${API}\n${life}\[#+\|[#-]+\] \d+ % +signed by ${root} \(authority of example\.org, [\d a-z]+\)\n` +
      String.raw`X\.509-SVID - subject .* - ec prime256v1 - serial \w+ - valid \d.* UTC - rotated 0 times\n\n`,
    String.raw`${root}\n\d+ days +\[#+\] 100 % +signs itself\nauthority of example\.org - .* - signed 1 of ours\n\n`,
    String.raw`seen on in - 1 open - 1 handshake - allowed\n${WEB}\n${life}\[#+\|[#-]+\] .* signed by ${root} .*\npeer - .*\n\n`,
    String.raw`3 certificates; the first of our SVIDs to end has \d+ .* left\n$`,
  ])
    assert.match(stdout, new RegExp(`(?:^|\\n)${card}`));

  const onlyOurs = await scute('certs', '--admin', admin, '--kind', 'svid', '--spiffe-id', API, '--trust-domain', 'example.org');
  assert.match(onlyOurs.stdout, /signed by CN=root .* \(authority of/, 'what signed it is found, though it is not asked for');
  assert.match(onlyOurs.stdout, /^1 certificate;/m);
  assert.equal((await scute('certs', '--admin', admin, '--trust-domain', 'other.example')).stdout, 'no certificates\n');
});

test('scute certs --json has what the API has, of all pages, in the order in which it is drawn', async (t) => {
  const { stage, admin } = await startWithAdmin(t);
  const folder = await temporaryFolder(t);
  const file = join(folder, 'scute.yaml');
  await writeFile(file, JSON.stringify({ ...stage.with({ listen: '127.0.0.1:1' }), admin: { listen: admin } }));

  const { code, stdout } = await scute('certs', '-c', file, '--json');

  assert.equal(code, 0);
  const { items } = JSON.parse(stdout) as CertificatePage;
  // Time goes on between two answers.
  const still = (list: readonly Certificate[]) => list.map((each) => ({ ...each, remainingShare: 0 }));
  assert.deepEqual(still(items), still(await everyPage(stage.sidecar, 'certificates')));
  assert.deepEqual(
    items.map(({ kind }) => kind),
    ['svid', 'authority'],
  );
});

test('scute certs --expiring-in is for alarms: exit code 1 if something of ours ends so soon, and strangers ring none', async (t) => {
  const { stage, admin } = await startWithAdmin(t);
  const other = createTestAuthority({ trustDomain: 'other.example' });
  const expired = other.issue({ notBefore: Date.now() - 7_200_000, notAfter: Date.now() - 3_600_000 });
  tlsClient(t, stage.address, { cert: expired.chainPem, key: expired.keyPem });
  await eventually(async () => assert.equal((await everyPage(stage.sidecar, 'certificates?kind=refused')).length, 1));

  const fine = await scute('certs', '--admin', admin, '--expiring-in', '1s');
  assert.deepEqual([fine.code, fine.stdout], [0, 'no certificates\n']);
  const soon = await scute('certs', '--admin', admin, '--expiring-in', '2d', '--json');
  assert.deepEqual([soon.code, (JSON.parse(soon.stdout) as CertificatePage).items.map(({ kind }) => kind)], [1, ['svid']]);
  const theirs = await scute('certs', '--admin', admin, '--expiring-in', '1s', '--kind', 'peer', 'refused');
  assert.equal(theirs.code, 1);
  assert.match(
    theirs.stdout,
    /^seen on in - 0 open - 1 handshake - refused: unknown_trust_domain: .*\nclaims to be spiffe:\/\/other\.example\/workload\nended 1 h ago/m,
  );
});

for (const [args, message] of [
  [[], /^scute: nobody to ask: give the configuration file \(-c\), or /],
  [['--admin', '10.0.0.1:1'], /^scute: --admin "10\.0\.0\.1:1" is on another machine: /],
  [['--admin', '127.0.0.1:1', '--kind', 'leaf'], /'leaf' is invalid\. Allowed choices are svid, intermediate, /],
  [['--admin', '127.0.0.1:1', '--trust-domain', 'A'], /^scute: --trust-domain "A" is none/],
  [['--admin', '127.0.0.1:1', '--spiffe-id', 'web'], /^scute: --spiffe-id "web" is no SPIFFE ID: /],
  [['--admin', '127.0.0.1:1', '--expiring-in', '5'], /^scute: --expiring-in "5" /],
] as const)
  test(`scute certs ${args.join(' ')} is wrong usage`, async () => {
    const said = await scute('certs', ...args);

    assert.deepEqual([said.code, said.stdout], [64, '']);
    assert.match(said.stderr, message);
  });

// ——— who answers instead ———

/** As a hostile process that has taken the address would say it. */
const HOSTILE = 'x\u001b[2J\r\n- \u202e\u2028\u009b\u200b\u{e0041}';
const CERTIFICATE: Certificate = {
  id: 'svid:1',
  kind: 'svid',
  spiffeId: HOSTILE,
  trustDomain: HOSTILE,
  hint: HOSTILE,
  subject: HOSTILE,
  issuerName: HOSTILE,
  issuer: HOSTILE,
  serial: HOSTILE,
  sha256: HOSTILE,
  subjectKeyId: HOSTILE,
  issuerKeyId: HOSTILE,
  keyType: HOSTILE,
  signatureAlgorithm: HOSTILE,
  notBefore: HOSTILE,
  notAfter: HOSTILE,
  validity: 'expired',
  remainingShare: 0,
  receivedAt: HOSTILE,
  generation: 1,
  source: 'peer',
  listeners: [{ name: HOSTILE, direction: 'inbound' }],
  sds: [{ stream: 1, node: HOSTILE, name: HOSTILE, version: HOSTILE, current: true, status: 'rejected' }],
  sdsSubscribers: 2,
  files: [HOSTILE],
  rotations: 1,
  issued: 3,
  peer: { verdict: HOSTILE, detail: HOSTILE, handshakes: 1, firstSeenAt: HOSTILE, lastSeenAt: HOSTILE, connections: 2 },
  findings: [{ verdict: 'refused', clause: HOSTILE, problem: HOSTILE }],
};

async function startAdmin(t: TestContext, serve: RequestListener): Promise<string> {
  return (await startHttpApplication(t, serve)).address;
}

function page(items: readonly unknown[], nextCursor: string | null = null): string {
  return JSON.stringify({ items, nextCursor });
}

test('a terminal is told nothing but text and our own colours, and as wide as it is', async (t) => {
  const admin = await startAdmin(t, (_, response) => void response.end(page([CERTIFICATE])));
  const utf8 = { LANG: 'C.UTF-8' };

  for (const columns of [5, 40, 132]) {
    const { stdout } = await scuteIn({ columns, env: utf8 }, 'certs', '--admin', admin);
    // oxlint-disable-next-line no-control-regex -- our own colours, and nothing else
    const plain = stdout.replaceAll(/\u001b\[(?:0|1|2|33|31;1)m/g, '');
    // oxlint-disable-next-line no-control-regex -- these are what is looked for
    assert.doesNotMatch(plain, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200b\u202e\u2028\u{e0041}]/u);
    assert.ok(plain.split('\n').every((line) => line.length <= Math.max(columns, 20)));
    assert.ok(stdout.includes(`\u001b[31;1m${'ended'.padEnd(16)}\u001b[0m`), 'what we present has ended: somebody must act now');
    assert.match(stdout, /━|─/);
  }
  for (const env of [
    { ...utf8, NO_COLOR: '1' },
    { ...utf8, TERM: 'dumb' },
  ])
    assert.ok(!(await scuteIn({ columns: 80, env }, 'certs', '--admin', admin)).stdout.includes('\u001b'));
  const { stdout: other } = await scuteIn({ columns: 200 }, 'certs', '--admin', admin);
  assert.match(other.replaceAll('\u001b', ''), /^[\n\x20-\x7e]*$/, 'a locale that is not UTF-8');
  const piped = (await scute('certs', '--admin', admin)).stdout;
  assert.match(piped, /^[\n\x20-\x7e]*$/);
  assert.equal(piped.split('\n').filter((line) => line.startsWith('- ')).length, 0);

  const json = (await scute('certs', '--admin', admin, '--json')).stdout;
  assert.match(json, /^[\n\x20-\x7e]*$/);
  assert.deepEqual((JSON.parse(json) as CertificatePage).items, [CERTIFICATE]);
});

for (const [what, body, message] of [
  ['answers something else', '<html>', / does not answer in JSON$/],
  ['answers other JSON', '{"items":[{}],"nextCursor":null}', /the answer has a form that this version /],
  ['answers no page', '[]', /the answer has a form that this version /],
] as const)
  test(`scute certs has nothing to draw when what listens there ${what}`, async (t) => {
    const said = await scute('certs', '--admin', await startAdmin(t, (_, response) => void response.end(body)));

    assert.deepEqual([said.code, said.stdout], [69, '']);
    assert.match(said.stderr.trimEnd(), message);
  });

test('scute certs says that nobody is there', async (t) => {
  const gone = await startTcpServer(t, () => undefined);
  await gone.close();

  const said = await scute('certs', '--admin', gone.address);

  assert.deepEqual([said.code, said.stdout], [69, '']);
  assert.match(said.stderr, /^scute: Scute does not run, or its admin listener is elsewhere: /);
});

test('a list is read page by page, to the end or to a bound', async (t) => {
  const asked: string[] = [];
  const address = await startAdmin(t, ({ url = '' }, response) => {
    asked.push(url);
    const at = Number(new URL(url, 'http://a').searchParams.get('cursor') ?? 0);
    if (url.startsWith('/endless')) response.end(page([], String(at + 1)));
    else if (url.startsWith('/slow')) response.write('{');
    else response.end(page([at, `&${at}`], at === 3 ? null : String(at + 1)));
  });
  const to = { kind: 'tcp', host: '127.0.0.1', port: Number(address.split(':')[1]) } as const;
  const limits = { timeoutMs: 600_000, maxBytes: 1_000_000, maxItems: 100, maxPages: 100 };

  const all = await askList(to, '/list?limit=2', NEVER, limits);
  assert.deepEqual(all, { ok: true, value: { items: [0, '&0', 1, '&1', 2, '&2', 3, '&3'], isCut: false } });
  assert.deepEqual(asked, ['/list?limit=2', ...[1, 2, 3].map((cursor) => `/list?limit=2&cursor=${cursor}`)]);
  assert.deepEqual(await askList(to, '/list?', NEVER, { ...limits, maxItems: 3 }), {
    ok: true,
    value: { items: [0, '&0', 1], isCut: true },
  });
  for (const [path, bound, error] of [
    ['/list?', { maxBytes: 60 }, `what listens at ${address} answers with more than 60 bytes`],
    ['/endless?', { maxPages: 3 }, `what listens at ${address} answers with more than 3 pages`],
    ['/slow?', { timeoutMs: 50 }, `the admin listener at ${address} did not answer within 50 ms`],
  ] as const)
    assert.deepEqual(await askList(to, path, NEVER, { ...limits, ...bound }), { ok: false, error });
  assert.deepEqual(await askList(to, '/slow?', AbortSignal.abort(), limits), { ok: false, error: 'stopped' });
});
