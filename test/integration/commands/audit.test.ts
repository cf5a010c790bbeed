import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import type { RequestListener } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { parse } from 'yaml';
import { askAdmin } from '../../../src/cli/admin-client.ts';
import type { ListenerPage, PolicyPage, RefusalLine } from '../../../src/config/policy/policy-page.ts';
import { scute } from '../../support/command.ts';
import { presented, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication, startHttpInbound, wire, type Wire } from '../../support/http/http-stage.ts';
import { startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { tlsClient } from '../../support/tls-peer.ts';

const OTHER = 'spiffe://example.org/other';
const NEVER = new AbortController().signal;

function answered({ text }: Pick<Wire, 'text'>, requests: number): Promise<void> {
  return eventually(() => {
    assert.equal(text().split('200 OK').length - 1, requests);
    return Promise.resolve();
  });
}

test('scute audit prints who would be denied, by the places of the file, and rules that mend it', async (t) => {
  const folder = await temporaryFolder(t);
  const [file, admin] = [join(folder, 'scute.yaml'), join(folder, 'admin.sock')];
  const application = await startHttpApplication(t, (_, response) => void response.end('ok'));
  const listener = {
    allow: [{ peer: WEB, methods: ['GET'], paths: ['/items/**'] }],
    deny: [{ peer: WEB, paths: ['/admin'], mode: 'audit' }],
    policyMode: 'audit',
  };
  const stage = await startHttpInbound(t, application.address, { listener, file: { admin: { listen: `unix://${admin}` } } });
  const write = (more: object = {}): Promise<void> =>
    writeFile(file, JSON.stringify({ admin: { listen: `unix://${admin}` }, ...stage.with({ listen: '127.0.0.1:1', ...more }) }, null, 1));
  await write();
  const other = presented(await stage.spiffe.issue(OTHER));
  const ask = async (who: typeof other, ...lines: readonly string[]): Promise<void> => {
    const line = wire(tlsClient(t, stage.address, who));
    line.socket.write(lines.map((each) => `${each} HTTP/1.1\r\nHost: api.example\r\n\r\n`).join(''));
    await answered(line, lines.length);
    line.socket.end();
  };
  assert.deepEqual(await scute('audit', '-c', file), {
    code: 0,
    stdout: 'listener  in, in audit: the whole policy: it denies nobody and 1 more\nnobody would be denied, as far as was seen\n',
    stderr: '',
  });

  await ask(other, 'GET /items/1', 'GET /items/1', 'GET /a*b');
  await ask(stage.web, 'GET /items/1', 'GET /admin', 'POST /items/1', 'POST /items/1', 'POST /items/1');

  await eventually(async () => {
    const { code, stdout, stderr } = await scute('audit', '-c', file);
    assert.deepEqual([code, stderr], [1, '']);
    const place = String.raw`\S+/scute\.yaml:\d+:\d+`;
    for (const line of [
      String.raw`listener  in, in audit: the whole policy: it denies nobody and 1 more`,
      String.raw`times  last time                 peer                        request        would be`,
      String.raw`3      \S+Z  ${WEB}    POST /items/1  not_allowed; near ${place} ${WEB} GET /items/\*\*: matched but for the method`,
      String.raw`2      \S+Z  ${OTHER}  GET /items/1   not_allowed; near ${place} .*: it is for "web" and not for "other"`,
      String.raw`1      \S+Z  ${WEB}    GET /admin     denied by ${place} deny ${WEB} /admin \(audit\)`,
      String.raw`  - \{ peer: ${OTHER}, methods: \[GET\], paths: \[/items/1\] \}`,
      String.raw`  # no rule for ${OTHER} GET /a\*b: no rule can name such a request exactly`,
    ])
      assert.match(stdout, new RegExp(`^${line}$`, 'm'));
    const copied = parse(stdout.slice(stdout.indexOf('allow:\n'))) as { readonly allow: readonly object[] };
    assert.deepEqual(copied.allow, [
      { peer: WEB, methods: ['POST'], paths: ['/items/1'] },
      { peer: OTHER, methods: ['GET'], paths: ['/items/1'] },
    ]);
  });

  const lines = await scute('audit', '--admin', `unix://${admin}`);
  assert.match(lines.stdout, /denied by deny spiffe/, 'without the file there are no places');
  const json = await scute('audit', '-c', file, '--json');
  const page = JSON.parse(json.stdout) as PolicyPage;
  assert.deepEqual([json.code, page.listeners[0]?.would_deny.length], [1, 4]);

  await write({ allow: [OTHER], deny: [OTHER] });
  assert.match((await scute('audit', '-c', file)).stdout, /denied by deny spiffe/, 'the file has another rule there by now');

  await stage.sidecar.reload(stage.with({ allow: [WEB, OTHER], deny: [], policyMode: 'enforce' }));
  assert.deepEqual(await scute('audit', '-c', file), { code: 0, stdout: 'listener  in, nothing is in audit\n', stderr: '' });
});

test('a flood of paths by one peer is told as such, and hides nobody else', async (t) => {
  const application = await startHttpApplication(t, (_, response) => void response.end('ok'));
  const stage = await startHttpInbound(t, application.address, {
    listener: { allow: [{ peer: WEB, methods: ['PUT'], paths: ['/x'] }], policyMode: 'audit' },
    file: { admin: { listen: '127.0.0.1:0' } },
  });
  const flood = wire(await stage.connect());
  const paths = Array.from({ length: 1000 }, (_, index) => `/orders/${index}/"}]%0A,?secret=${index}`);
  flood.socket.write(paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`).join(''));
  await answered(flood, 1000);
  const late = wire(tlsClient(t, stage.address, presented(await stage.spiffe.issue(OTHER))));
  late.socket.write('GET /1 HTTP/1.1\r\nHost: a\r\n\r\n');
  await answered(late, 1);

  const { code, stdout } = await scute('audit', '--admin', stage.sidecar.address('admin'));

  assert.equal(code, 1);
  assert.match(stdout, new RegExp(`^1 {6}\\S+Z {2}${OTHER} {2}GET /1 .*$`, 'm'));
  assert.match(stdout, /^and 941 times something that is not listed, since too much was asked for$/m);
  assert.match(stdout, new RegExp(`^ {2}# and 941 times something of ${WEB} that is not listed: .*$`, 'm'));
  const copied = parse(stdout.slice(stdout.indexOf('allow:\n'))) as { readonly allow: readonly object[] };
  assert.deepEqual(copied.allow, [
    { peer: OTHER, methods: ['GET'], paths: ['/1'] },
    { peer: WEB, methods: ['GET'], paths: Array.from({ length: 59 }, (_, index) => `/orders/${index}/"}]%0A,`).toSorted() },
  ]);
  assert.doesNotMatch(stdout, /secret/);

  await stage.sidecar.reload(stage.with({ allow: [{ peer: WEB, methods: ['GET'], paths: ['/orders/**'] }] }));
  const mended = await scute('audit', '--admin', stage.sidecar.address('admin'));
  assert.doesNotMatch(mended.stdout, /orders|not listed/);
  assert.match(mended.stdout, /^allow:\n {2}- .*\/1\] \}\n$/m);
});

// ——— what is wrong, and who answers instead ———

for (const [args, message] of [
  [[], /^scute: nobody to ask: give the configuration file \(-c\), or /],
  [['--admin', '10.0.0.1:1'], /^scute: --admin "10\.0\.0\.1:1" is on another machine: /],
  [['--admin', '127.0.0.1:0'], /^scute: --admin "127\.0\.0\.1:0" has port 0/],
  [['--admin', 'http://127.0.0.1:1'], /^scute: --admin "http:\/\/127\.0\.0\.1:1" has a scheme/],
  [['--bogus'], /unknown option '--bogus'/],
] as const)
  test(`scute audit ${args.join(' ')} is wrong usage`, async () => {
    const said = await scute('audit', ...args);

    assert.deepEqual([said.code, said.stdout], [64, '']);
    assert.match(said.stderr, message);
  });

test('scute audit says what is wrong with a file, and that it has no admin listener', async (t) => {
  const folder = await temporaryFolder(t);
  const [bad, bare] = [join(folder, 'bad.yaml'), join(folder, 'bare.yaml')];
  await writeFile(bad, 'inbound: 1\n');
  await writeFile(bare, 'workloadApi: { endpoint: unix:///a.sock }\ninbound: [{ listen: 0.0.0.0:1, to: 127.0.0.1:2, allow: [] }]\n');

  for (const [file, message] of [
    [bad, /bad\.yaml:1:10 inbound: /],
    [bare, /bare\.yaml" has no admin listener: give one/],
  ] as const) {
    const said = await scute('audit', '-c', file);
    assert.deepEqual([said.code, said.stdout], [64, '']);
    assert.match(said.stderr, message);
  }
});

test('scute audit says that nobody is there', async (t) => {
  const folder = await temporaryFolder(t);
  const gone = await startTcpServer(t, () => undefined);
  await gone.close();

  for (const address of [`unix://${folder}/admin.sock`, gone.address]) {
    const said = await scute('audit', '--admin', address);
    assert.deepEqual([said.code, said.stdout], [69, '']);
    assert.match(said.stderr, /^scute: Scute does not run, or its admin listener is elsewhere: .*: connect E\w+ .*\n$/);
  }
});

/** Something else that listens where an admin listener might. */
async function startAdmin(t: TestContext, serve: RequestListener): Promise<string> {
  return (await startHttpApplication(t, serve)).address;
}

for (const [what, serve, message] of [
  [
    'is no admin listener',
    (_, response) => void response.writeHead(404).end(),
    / answers 404: it is no admin listener, or that of another /,
  ],
  ['leads elsewhere', (_, response) => void response.writeHead(302, { location: '/policy' }).end(), / answers 302: /],
  ['answers something else', (_, response) => void response.end('<html>'), / does not answer in JSON$/],
  ['answers other JSON', (_, response) => void response.end('{"listeners":[{}]}'), /the answer has a form that this version /],
  [
    'ends early',
    (_, response) => void response.write('{', () => response.destroy()),
    /there is no answer of an admin listener at .*: aborted$/,
  ],
  [
    'speaks another protocol',
    ({ socket }) => void socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n'),
    / answers 101: it is no admin listener, or that of another /,
  ],
  ['ends at once', ({ socket }) => void socket.destroy(), /there is no answer of an admin listener at .*: socket hang up$/],
] as const satisfies readonly (readonly [string, RequestListener, RegExp])[])
  test(`scute audit has nothing to print when what listens there ${what}`, async (t) => {
    const said = await scute('audit', '--admin', await startAdmin(t, serve));

    assert.deepEqual([said.code, said.stdout], [69, '']);
    assert.match(said.stderr.trimEnd(), message);
  });

test('an answer that is too long, or takes too long, is given up, and so is one that is not wanted any more', async (t) => {
  const address = await startAdmin(t, ({ url }, response) => {
    if (url === '/endless') response.write('[');
    else response.end(`"${'a'.repeat(1000)}"`);
  });
  const to = { kind: 'tcp', host: '127.0.0.1', port: Number(address.split(':')[1]) } as const;

  const limits = { timeoutMs: 50, maxBytes: 1001 };
  assert.deepEqual(await askAdmin(to, '/', NEVER, { timeoutMs: 600_000, maxBytes: 1002 }), { ok: true, value: 'a'.repeat(1000) });
  assert.deepEqual(await askAdmin(to, '/', NEVER, { ...limits, timeoutMs: 600_000 }), {
    ok: false,
    error: `what listens at ${address} answers with more than 1001 bytes`,
  });
  assert.deepEqual(await askAdmin(to, '/endless', NEVER, limits), {
    ok: false,
    error: `the admin listener at ${address} did not answer within 50 ms`,
  });
  assert.deepEqual(await askAdmin(to, '/endless', AbortSignal.abort()), { ok: false, error: 'stopped' });
});

/** As a hostile process that has taken the address would say it. */
const HOSTILE = 'x\u001b[2J\r\n- spiffe://evil.org/**\u202e\u2028\u009b';
const REFUSAL: RefusalLine = {
  peer: HOSTILE,
  method: HOSTILE,
  path: HOSTILE,
  host: HOSTILE,
  subject: HOSTILE,
  reason: 'not_allowed',
  rule: null,
  passes_by: null,
  near: { rule: { effect: 'allow', index: 0, text: HOSTILE }, text: HOSTILE },
  passed: 1,
  refused: 0,
  first_at: HOSTILE,
  last_at: HOSTILE,
  allowed_now: true,
  rule_to_allow: HOSTILE,
  no_rule: HOSTILE,
};
const LISTENER: ListenerPage = {
  name: 'in',
  direction: 'inbound',
  mode: 'audit',
  audit_rules: 2,
  in_audit: [HOSTILE],
  rules: [],
  rules_omitted: 0,
  would_deny: [REFUSAL],
  denied: [],
  omitted: 3,
  not_listed: { passed: 5, refused: 1 },
  partly_listed: [{ peer: HOSTILE, passed: 4, refused: 0 }],
  rules_to_copy: [HOSTILE],
};

test('whatever the answer says, a terminal is told nothing but text, and each thing on its line', async (t) => {
  const page = (listeners: ListenerPage[]): string => JSON.stringify({ now: null, listeners } satisfies PolicyPage);
  const address = await startAdmin(t, (_, response) => void response.end(page([LISTENER])));

  const { code, stdout } = await scute('audit', '--admin', address);
  assert.equal(code, 1);
  // oxlint-disable-next-line no-control-regex -- these are what is looked for
  assert.doesNotMatch(stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e\u2028]/);
  assert.match(stdout, /^and 3 more that this answer has no room for$/m);
  assert.match(stdout, /^and 5 times something that is not listed, since too much was asked for$/m);
  assert.match(
    stdout,
    / {2}# and 4 times something of x.* that is not listed: paths that have numbers need a pattern, such as \/orders\/\*$/m,
  );
  assert.equal(stdout.split('\n').filter((line) => line.startsWith('- ')).length, 0);
  assert.equal(stdout.trimEnd().split('\n').length, 10);

  const json = (await scute('audit', '--admin', address, '--json')).stdout;
  assert.match(json, /^[\n\x20-\x7e]*$/);
  assert.deepEqual(JSON.parse(json), JSON.parse(page([LISTENER])));

  const empty = await startAdmin(t, (_, response) => void response.end(page([])));
  assert.deepEqual(await scute('audit', '--admin', empty), { code: 0, stdout: 'there are no inbound listeners\n', stderr: '' });
});
