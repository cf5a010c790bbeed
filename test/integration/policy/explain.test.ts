import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { scute, type Said } from '../../support/command.ts';
import { presented, startInbound, WEB } from '../../support/data-path.ts';
import { send, startHttpApplication, startHttpInbound } from '../../support/http/http-stage.ts';
import { codeBlocks } from '../../support/documents.ts';
import { pageOf } from '../../support/reference.ts';
import { startEcho } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';

const CONFIG = `workloadApi: { endpoint: unix:///agent.sock }
inbound:
  - name: api
    listen: 0.0.0.0:8443
    to: 127.0.0.1:8080
    protocol: http
    allow:
      - spiffe://example.org/ops
      - { peer: spiffe://example.org/web, methods: [GET], paths: [/items/**] }
      - peer: spiffe://example.org/contractor
        notAfter: 2027-01-01T00:00:00Z
    deny:
      - { peer: spiffe://example.org/**, paths: [/admin/**] }
  - { name: raw, listen: 0.0.0.0:8444, to: 127.0.0.1:8081, allow: [spiffe://example.org/web] }
  - { name: tried, listen: 0.0.0.0:8445, to: 127.0.0.1:8082, allow: [], policyMode: audit }
  - { name: hosts, listen: 0.0.0.0:8446, to: 127.0.0.1:8083, protocol: http, allow: [{ peer: spiffe://example.org/web, hosts: [api] }] }
outbound:
  - { name: db, listen: unix:///db.sock, to: db:5432, expect: [spiffe://example.org/db], deny: [spiffe://example.org/old] }
  - { name: any, listen: unix:///any.sock, to: db:5433, unsafeAllowAnyInTrustDomain: example.org }
`;

/** Files of these texts in a folder; their names are left out of what is said. */
async function stage(t: TestContext, texts: Readonly<Record<string, string>>) {
  const folder = await temporaryFolder(t);
  for (const [name, text] of Object.entries(texts)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text);
  }
  const path = (name: string): string => join(folder, name);
  return {
    path,
    run: async (...args: readonly string[]): Promise<Said> => {
      const { code, stdout, stderr } = await scute(...args);
      return { code, stdout: stdout.replaceAll(`${folder}/`, ''), stderr: stderr.replaceAll(`${folder}/`, '') };
    },
  };
}

async function explainer(t: TestContext, config = CONFIG): Promise<(flags: string) => Promise<Said>> {
  const { path, run } = await stage(t, { 'scute.yaml': config });
  return (flags) => run('explain', '-c', path('scute.yaml'), ...flags.split(' '));
}

const AT = '--at 2026-11-30T13:00:00+01:00';

test('a policy file and its lists are asked as a configuration is, and each rule is shown where it stands', async (t) => {
  const { path, run } = await stage(t, {
    'scute.yaml': `workloadApi: { endpoint: unix:///agent.sock }
inbound:
  - { name: api, listen: 0.0.0.0:8443, to: 127.0.0.1:8080, policyFile: policies/shared.yaml }
  - { name: own, listen: 0.0.0.0:8444, to: 127.0.0.1:8080, allow: [{ idsFile: lists/staff.txt }] }
sds: { listen: unix:///sds.sock }
`,
    'policies/shared.yaml': `allow:
  - spiffe://example.org/web
  - { idsFile: ../lists/staff.txt, notAfter: 2027-01-01T00:00:00Z }
deny:
  - { idsFile: gone.txt }
...
`,
    'lists/staff.txt': '# staff\n\nspiffe://example.org/ann # boss\nspiffe://partner.test/bob\n...\n',
    'policies/gone.txt': 'spiffe://example.org/carl\n...\n',
    'table.yaml': `- { listener: api, peer: spiffe://example.org/ann, at: 2026-12-01T00:00:00Z, expect: allow }
- { listener: api, peer: spiffe://example.org/ann, at: 2027-12-01T00:00:00Z, expect: deny }
- { listener: own, peer: spiffe://example.org/carl, expect: allow }
`,
  });
  const explain = async (flags: string): Promise<readonly string[]> => {
    const { stdout, stderr } = await run('explain', '-c', path('scute.yaml'), ...`${flags} ${AT}`.split(' '));
    assert.equal(stderr, '');
    return stdout
      .trimEnd()
      .split('\n')
      .filter((line) => !line.startsWith('listener'));
  };

  assert.deepEqual(await explain('--listener api --peer spiffe://example.org/web'), [
    'verdict  allow',
    'rule  policies/shared.yaml:2:5 spiffe://example.org/web',
  ]);
  assert.deepEqual(await explain('--listener api --peer spiffe://example.org/ann'), [
    'verdict  allow',
    'rule  lists/staff.txt:3:1 idsFile lists/staff.txt until 2027-01-01T00:00:00.000Z',
  ]);
  assert.deepEqual(await explain('--listener api --peer spiffe://example.org/carl'), [
    'verdict  deny: denied: spiffe://example.org/carl is denied by a rule: deny idsFile policies/gone.txt',
    'rule  policies/gone.txt:1:1 deny idsFile policies/gone.txt',
  ]);
  assert.deepEqual(await explain('--listener own --peer spiffe://example.org/bob'), [
    'verdict  deny: not_allowed: spiffe://example.org/bob is allowed this by none of the 1 allow rules',
    'rule  none',
    'near  lists/staff.txt:4:1 idsFile lists/staff.txt: matched but for the trust domain',
  ]);
  const tested = await run('policy', 'test', '-c', path('scute.yaml'), path('table.yaml'));
  assert.match(tested.stdout, /^table\.yaml:3:3: expected allow\n[^]*2 passed, 1 failed\n$/);
  const checked = await run('check', '-c', path('scute.yaml'));
  assert.match(
    checked.stdout,
    /admits idsFile lists\/staff\.txt until[^]* {2}by the policy file policies\/shared\.yaml\n {2}list lists\/staff\.txt: 2 SPIFFE IDs\n/,
  );
  const printed = await run('envoy', '-c', path('scute.yaml'));
  assert.match(printed.stderr, /inbound api: the rule "deny idsFile policies\/gone\.txt" cannot be said in matchers/);
});

for (const [what, flags, lines] of [
  [
    'an admitted request, with the rule that decided and the denial that nearly was',
    '--listener api --peer spiffe://example.org/web --method GET --path /items/1?x=%61',
    [
      'verdict  allow',
      'listener  inbound api at scute.yaml:3:5, on 2026-11-30T12:00:00.000Z',
      'rule  scute.yaml:9:9 spiffe://example.org/web GET /items/**',
      'near  scute.yaml:13:9 deny spiffe://example.org/** /admin/**: matched but for the path',
    ],
  ],
  [
    'a request that no rule allows, with those that nearly did',
    '--listener api --peer spiffe://example.org/web --method PUT --path /items/1',
    [
      'verdict  deny: not_allowed: spiffe://example.org/web is allowed this by none of the 3 allow rules',
      'listener  inbound api at scute.yaml:3:5, on 2026-11-30T12:00:00.000Z',
      'rule  none',
      'near  scute.yaml:9:9 spiffe://example.org/web GET /items/**: matched but for the method',
      'near  scute.yaml:8:9 spiffe://example.org/ops: matched but for one segment of the SPIFFE ID: it is for "ops" and not for "web"',
      'near  scute.yaml:10:9 spiffe://example.org/contractor until 2027-01-01T00:00:00.000Z: matched but for one segment of the SPIFFE ID: it is for "contractor" and not for "web"',
    ],
  ],
  [
    'a request that a rule denies',
    '--listener api --peer spiffe://example.org/ops --method GET --path /admin/',
    [
      'verdict  deny: denied: spiffe://example.org/ops is denied by a rule: deny spiffe://example.org/** /admin/**',
      'listener  inbound api at scute.yaml:3:5, on 2026-11-30T12:00:00.000Z',
      'rule  scute.yaml:13:9 deny spiffe://example.org/** /admin/**',
    ],
  ],
  [
    'a path that is answered 400 before any rule',
    '--listener api --peer spiffe://example.org/ops --method GET --path /%61dmin/',
    [
      'verdict  deny: answered 400 before any rule: the path has %61, which servers read in more than one way',
      'listener  inbound api at scute.yaml:3:5, on 2026-11-30T12:00:00.000Z',
    ],
  ],
  [
    'a method that is answered 400 before any rule',
    '--listener api --peer spiffe://example.org/ops --method get --path /',
    [
      'verdict  deny: answered 400 before any rule: the method is not one that is forwarded',
      'listener  inbound api at scute.yaml:3:5, on 2026-11-30T12:00:00.000Z',
    ],
  ],
  [
    'a host that is no host',
    '--listener hosts --peer spiffe://example.org/web --host a/b',
    [
      'verdict  deny: answered 400 before any rule: there is not one valid Host',
      'listener  inbound hosts at scute.yaml:16:5, on 2026-11-30T12:00:00.000Z',
    ],
  ],
  [
    'a connection',
    '--listener api --peer spiffe://example.org/contractor',
    [
      'verdict  allow the connection: its requests are judged one by one',
      'listener  inbound api at scute.yaml:3:5, on 2026-11-30T12:00:00.000Z',
      'rule  scute.yaml:10:9 spiffe://example.org/contractor until 2027-01-01T00:00:00.000Z',
    ],
  ],
  [
    'a stranger of the same name',
    '--listener raw --peer spiffe://other.org/web',
    [
      'verdict  deny: not_allowed: spiffe://other.org/web is allowed this by none of the 1 allow rules',
      'listener  inbound raw at scute.yaml:14:5, on 2026-11-30T12:00:00.000Z',
      'rule  none',
      'near  scute.yaml:14:68 spiffe://example.org/web: matched but for the trust domain',
    ],
  ],
  [
    'what only audit lets pass',
    '--listener tried --peer spiffe://example.org/web',
    [
      'verdict  allow',
      'listener  inbound tried at scute.yaml:15:5, on 2026-11-30T12:00:00.000Z',
      'rule  none, but the whole policy is in audit',
      'audit  enforced, it would be: deny: not_allowed',
    ],
  ],
  [
    'a server that is denied',
    '--listener db --peer spiffe://example.org/old',
    [
      'verdict  deny: denied: spiffe://example.org/old is denied by a rule: deny spiffe://example.org/old',
      'listener  outbound db at scute.yaml:18:5, on 2026-11-30T12:00:00.000Z',
      'rule  scute.yaml:18:97 deny spiffe://example.org/old',
    ],
  ],
  [
    'any server of a trust domain',
    '--listener any --peer spiffe://example.org/x',
    [
      'verdict  allow',
      'listener  outbound any at scute.yaml:19:5, on 2026-11-30T12:00:00.000Z',
      'rule  scute.yaml:19:86 spiffe://example.org/**',
    ],
  ],
] as const)
  test(`scute explain explains ${what}`, async (t) => {
    const explain = await explainer(t);

    assert.deepEqual(await explain(`${flags} ${AT}`), { code: 0, stdout: `${lines.join('\n')}\n`, stderr: '' });
  });

test('scute explain tells the time of a rule that is over, and is about now if no time is given', async (t) => {
  const explain = await explainer(t, CONFIG.replace('2027-01-01', '2001-01-01'));

  const { stdout } = await explain('--listener api --peer spiffe://example.org/contractor');

  assert.match(stdout, /^near .* matched but for the time: it held until 2001-01-01T00:00:00.000Z$/m);
  const [, when = ''] = /, on (\S+)$/m.exec(stdout) ?? [];
  assert.ok(Math.abs(Date.parse(when) - Date.now()) < 60_000, when);
});

test('scute explain takes the one listener that there is', async (t) => {
  const only = 'workloadApi: { endpoint: unix:///a.sock }\ninbound: [{ listen: 0.0.0.0:1, to: 127.0.0.1:2, allow: [spiffe://a.org/b] }]\n';
  const explain = await explainer(t, only);

  assert.match((await explain('--peer spiffe://a.org/b')).stdout, /^verdict {2}allow\n/);
});

for (const [flags, code] of [
  ['--peer spiffe://example.org/web --expect allow', 0],
  ['--peer spiffe://example.org/web --expect deny', 1],
  ['--peer spiffe://example.org/api --expect deny', 0],
  ['--peer spiffe://example.org/api --expect allow', 1],
] as const)
  test(`scute explain ${flags} has exit code ${code}`, async (t) => {
    const explain = await explainer(t);
    const said = await explain(`--listener raw ${flags}`);

    assert.equal(said.code, code, said.stdout);
    assert.equal(/^expected {2}(?:allow|deny)$/m.test(said.stdout), code === 1);
  });

test('what is answered 400 is a deny to --expect', async (t) => {
  const explain = await explainer(t);
  const bad = '--listener api --peer spiffe://example.org/ops --method GET --path /a;b --expect';

  assert.equal((await explain(`${bad} deny`)).code, 0);
  assert.equal((await explain(`${bad} allow`)).code, 1);
});

for (const [flags, message] of [
  ['--listener raw --peer spiffe://example.org/web --path /x', /^command line path: is for protocol: http, and on listener raw nobody/],
  ['--listener api --peer spiffe://example.org/web --method GET', /^command line path: is required: rules of listener api ask for it/],
  ['--listener api --peer spiffe://example.org/web --path /', /^command line method: is required/],
  ['--listener hosts --peer spiffe://example.org/web --path /', /^command line host: is required/],
  ['--peer spiffe://example.org/web', /^command line listener: is required: there is api, raw, tried, hosts, db, any$/m],
  ['--listener no --peer spiffe://example.org/web', /^command line listener: there is no listener "no": there is api, /],
  ['--listener raw --peer example.org/web', /^command line peer: "example\.org\/web" is not a SPIFFE ID/],
  ['--listener raw --peer spiffe://example.org', /^command line peer: is a trust domain/],
  ['--listener raw --peer spiffe://example.org/web --at 2026-11-30', /^command line at: /],
  ['--listener raw --peer spiffe://example.org/web --expect maybe', /^command line expect: must be one of allow, deny/],
  ['--listener api --peer spiffe://example.org/web --method GET --path items', /^command line path: must begin with "\/"/],
  ['--listener api --peer spiffe://example.org/web --method GET\r\nX: --path /', /^command line method: must be visible ASCII/],
  ['--listener api --peer spiffe://example.org/web --method GET --path /\r\nX:1', /^command line path: must have no spaces/],
  ['--listener raw', /required option '--peer <id>'/],
] as const)
  test(`scute explain ${JSON.stringify(flags)} is wrong usage`, async (t) => {
    const explain = await explainer(t);
    const { code, stdout, stderr } = await explain(flags);

    assert.deepEqual([code, stdout], [64, '']);
    assert.match(stderr, message);
  });

test('a configuration that is wrong is told with its places, beside what is wrong with the question', async (t) => {
  const explain = await explainer(t, CONFIG.replace('/items/**', '/items/**/x'));
  const { code, stderr } = await explain('--listener raw --peer x');

  assert.equal(code, 64);
  assert.match(stderr, /^command line peer: .*\nscute\.yaml:9:\d+ inbound\[0\]\.allow\[1\]\.paths\[0\]: /);
});

// ——— tables ———

async function testTable(t: TestContext, table: string, config = CONFIG): Promise<Said> {
  const { path, run } = await stage(t, { 'scute.yaml': config, 'table.yaml': table });
  return run('policy', 'test', '-c', path('scute.yaml'), path('table.yaml'));
}

test('scute policy test counts what is answered as expected, and explains each that is not', async (t) => {
  const { code, stdout, stderr } = await testTable(
    t,
    `- { listener: raw, peer: spiffe://example.org/web, expect: allow, rule: spiffe://example.org/web }
- { listener: api, peer: spiffe://example.org/ops, method: GET, path: /admin/x, at: 2026-11-30T12:00:00Z, expect: allow }
- { listener: api, peer: spiffe://example.org/contractor, at: 2027-01-01T00:00:00Z, expect: deny }
- listener: raw
  peer: spiffe://example.org/web
  expect: allow
  rule: spiffe://example.org/**
- { listener: api, peer: spiffe://example.org/ops, method: GET, path: //, expect: deny, rule: deny it }
`,
  );

  assert.deepEqual([code, stderr], [1, '']);
  assert.deepEqual(
    stdout.split('\n').filter((line) => !/^ {2}(?:near|listener)/.test(line)),
    [
      'table.yaml:2:3: expected allow',
      '  verdict  deny: denied: spiffe://example.org/ops is denied by a rule: deny spiffe://example.org/** /admin/**',
      '  rule  scute.yaml:13:9 deny spiffe://example.org/** /admin/**',
      'table.yaml:4:3: expected allow by "spiffe://example.org/**"',
      '  verdict  allow',
      '  rule  scute.yaml:14:68 spiffe://example.org/web',
      'table.yaml:8:3: expected deny by "deny it"',
      '  verdict  deny: answered 400 before any rule: the path has an empty segment',
      '2 passed, 3 failed',
      '',
    ],
  );
});

test('a table that is answered as it expects has exit code 0', async (t) => {
  assert.deepEqual(await testTable(t, '[{ listener: raw, peer: spiffe://example.org/web, expect: allow }]'), {
    code: 0,
    stdout: '1 passed, 0 failed\n',
    stderr: '',
  });
});

test('a table with anything wrong is not put at all, and every problem is told with its place', async (t) => {
  const broken = await testTable(
    t,
    `- { listener: raw, peer: spiffe://example.org/web, expect: deny }
- { listener: raw, peer: web, expect: no }
- { listener: raw, pear: spiffe://example.org/web, expect: deny }
- { listener: raw, peer: spiffe://example.org/web }
- just text
`,
  );
  assert.deepEqual([broken.code, broken.stdout], [64, '']);
  assert.deepEqual(
    broken.stderr
      .trimEnd()
      .split('\n')
      .map((line) => line.split(': ')[0]),
    [
      'table.yaml:2:26 [1].peer',
      'table.yaml:2:39 [1].expect',
      'table.yaml:3:3 [2].peer',
      'table.yaml:3:20 [2].pear',
      'table.yaml:4:3 [3].expect',
      'table.yaml:5:3 [4]',
    ],
  );

  const unfit = await testTable(
    t,
    `- { listener: raw, peer: spiffe://example.org/web, expect: deny }
- { listener: no, peer: spiffe://example.org/web, expect: deny }
- { listener: raw, peer: spiffe://example.org/web, method: GET, path: /, expect: deny }
- { listener: api, peer: spiffe://example.org/web, host: a, expect: deny }
- { peer: spiffe://example.org/web, expect: deny }
`,
  );
  assert.deepEqual([unfit.code, unfit.stdout], [64, '']);
  assert.deepEqual(
    unfit.stderr
      .trimEnd()
      .split('\n')
      .map((line) => line.split(': ')[0]),
    [
      'table.yaml:2:15 [1].listener',
      'table.yaml:3:60 [2].method',
      'table.yaml:3:71 [2].path',
      'table.yaml:4:3 [3].method',
      'table.yaml:4:3 [3].path',
      'table.yaml:5:3 [4].listener',
    ],
  );
});

for (const [what, table, message] of [
  ['has no question', '[]', /table\.yaml:1:1: has no question/],
  ['is empty', '', /table\.yaml:1:1: is empty/],
  ['is no list', 'peer: x', /table\.yaml:1:1: expected array/],
  ['is no YAML', '- {', /table\.yaml:1:\d+: not valid YAML/],
] as const)
  test(`a table that ${what} tests nothing, and is an error`, async (t) => {
    const { code, stdout, stderr } = await testTable(t, table);

    assert.deepEqual([code, stdout], [64, '']);
    assert.match(stderr, message);
  });

test('a table that is not there, and a command that is not there, are wrong usage', async (t) => {
  const { path, run } = await stage(t, { 'scute.yaml': CONFIG });
  const missing = await run('policy', 'test', '-c', path('scute.yaml'), path('none.yaml'));
  assert.deepEqual([missing.code, missing.stdout], [64, '']);
  assert.match(missing.stderr, /^none\.yaml: cannot be read/);

  for (const args of [['policy'], ['policy', 'tset'], ['policy', 'tset', '--help'], ['policy', 'test']])
    assert.equal((await run(...args)).code, 64, args.join(' '));
});

test('the example table holds for the example configuration', async () => {
  const root = join(import.meta.dirname, '../../..');
  const said = await scute('policy', 'test', '-c', join(root, 'configs/full.yaml'), join(root, 'configs/policy/questions.yaml'));

  assert.equal(said.code, 0, said.stdout + said.stderr);
  assert.match(said.stdout, /^\d\d passed, 0 failed\n$/);
});

test('the documents show what scute explain says', async () => {
  const blocks = codeBlocks(pageOf('Asking a policy'));
  const at = blocks.findIndex(({ info }) => info === 'sh explain');
  const [command = '', output] = [blocks[at]?.text.replace(/^scute /, ''), blocks[at + 1]?.text];

  assert.deepEqual(await scute(...command.replaceAll('\\\n', ' ').trim().split(/\s+/)), { code: 0, stdout: output, stderr: '' });
});

// ——— the log ———

const MANY = Array.from({ length: 1000 }, (_, index) => `spiffe://far.example/x/y/z/${index}`);

test('the line of a refused connection names the rule that nearly allowed it, unless there are too many', async (t) => {
  const echo = await startEcho(t);
  const near = 'spiffe://partner.example/web';
  for (const [allow, expected] of [
    [[near], `${near}: matched but for the trust domain`],
    [['spiffe://far.example/x'], undefined],
    [[near, ...MANY], undefined],
  ] as const) {
    const of = await startInbound(t, echo.address, { listener: { allow } });
    await outcome(tlsClient(t, of.address, presented(await of.spiffe.issue(WEB))));
    const line = await of.sidecar.connection();
    assert.deepEqual([line['reason'], line['near']], ['not_allowed', expected]);
  }
});

test('the line of a refused request names the rule that nearly allowed it, and that of another has none', async (t) => {
  const application = await startHttpApplication(t, (_, response) => response.end('ok'));
  const of = await startHttpInbound(t, application.address, {
    listener: { allow: [{ peer: WEB, methods: ['GET'] }], deny: [{ peer: WEB, paths: ['/no'] }] },
  });
  for (const line of ['POST /', 'GET /', 'GET /no'])
    await (await send(of, `${line} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n`)).over();

  assert.deepEqual(
    of.sidecar
      .log()
      .filter(({ message }) => message === 'request finished')
      .map(({ status, near }) => [status, near]),
    [
      [403, `${WEB} GET: matched but for the method`],
      [200, undefined],
      [403, undefined],
    ],
  );
});
