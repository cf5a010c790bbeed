import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { formatIssues } from './issue.ts';
import { loadConfig, MAX_CONFIG_BYTES, parseConfig, readConfigFile } from './load.ts';

const NO_ENVIRONMENT = { file: 'scute.yaml', flags: {}, env: {} };

const GOOD = `workloadApi: { endpoint: unix:///agent.sock }
inbound:
  - listen: 127.0.0.1:8443
    to: 127.0.0.1:8080
    allow: [spiffe://example.org/web]
`;

async function problems(text: string): Promise<string[]> {
  const parsed = await parseConfig(text, NO_ENVIRONMENT);
  assert.ok(!parsed.ok, 'was accepted');
  return formatIssues(parsed.error).split('\n');
}

async function temporaryFile(t: TestContext, content: string | Uint8Array): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-load-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, 'scute.yaml'), content);
  return join(folder, 'scute.yaml');
}

test('each problem has file, line, column and path, in the order of the text', async () => {
  const found = await problems(`workloadApi: { endpoint: unix:///agent.sock }
inbound:
  - listen: 127.0.0.1:8443
    to: 127.0.0.1:8080
    allow:
      - spiffe://example.org/web
      - not-an-id
    limits: { handshakeTimeout: 5 }
    alow: []
outbound:
  - listen: 127.0.0.1:1
    to: db.internal:5432
`);

  assert.equal(found.length, 4);
  assert.match(found[0] ?? '', /^scute\.yaml:7:9 inbound\[0\]\.allow\[1\]: "not-an-id"/);
  assert.match(found[1] ?? '', /^scute\.yaml:8:33 inbound\[0\]\.limits\.handshakeTimeout: must be a number with a unit/);
  assert.match(found[2] ?? '', /^scute\.yaml:9:5 inbound\[0\]\.alow: is not known here: did you mean allow\?/);
  assert.match(found[3] ?? '', /^scute\.yaml:11:5 outbound\[0\]\.expect: is required/);
});

test('each problem of a rule is told where it is written, with all others', async () => {
  const found = await problems(`workloadApi: { endpoint: unix:///agent.sock }
inbound:
  - listen: 127.0.0.1:8443
    to: 127.0.0.1:8080
    allow:
      - spiffe://example.org/web
      - peer: spiffe://example.org/w*b
        methods: [get]
        paths: []
        windows: [{ days: [mon], from: "9:00", to: "24:01", timeZone: Europe/Atlantis }]
      - peer: spiffe://example.org/a
        paths:
          - /a/../b
        notBefore: 2027-02-30T00:00:00Z
        notAfter: 2027-02-20
        windows: [{ days: [Mon], from: "9:00", to: "17:00", timeZone: Europe/Atlantis }]
      - { peer: spiffe://example.org/x, methds: [GET], mode: off }
      - { methods: [] }
      - 5
    deny: [{ peer: spiffe://example.org/y, paths: [/admin], hosts: [api] }]
    policyMode: off
outbound:
  - listen: 127.0.0.1:1
    to: db.internal:5432
    expect:
      - { peer: spiffe://example.org/**, methods: [GET] }
      - { peer: spiffe://example.org/db, mode: audit }
    deny: [{ peer: spiffe://example.org/db, mode: audit }]
`);

  assert.deepEqual(
    found.map((line) => line.replace('spiffe://example.org', '').replace(/(: [^:,(]*).*/, '$1')),
    [
      'scute.yaml:7:15 inbound[0].allow[1].peer: "/w*b"',
      'scute.yaml:8:18 inbound[0].allow[1].methods: is for protocol',
      'scute.yaml:8:19 inbound[0].allow[1].methods[0]: "get" is no method',
      'scute.yaml:9:16 inbound[0].allow[1].paths: an empty list of paths matches nothing',
      'scute.yaml:9:16 inbound[0].allow[1].paths: is for protocol',
      'scute.yaml:10:40 inbound[0].allow[1].windows[0].from: "9',
      'scute.yaml:10:52 inbound[0].allow[1].windows[0].to: "24',
      'scute.yaml:10:71 inbound[0].allow[1].windows[0].timeZone: "Europe/Atlantis" is no time zone that is known here',
      'scute.yaml:13:11 inbound[0].allow[2].paths: is for protocol',
      'scute.yaml:14:20 inbound[0].allow[2].notBefore: "2027-02-30T00',
      'scute.yaml:15:19 inbound[0].allow[2].notAfter: "2027-02-20" is not a time with an offset from UTC',
      'scute.yaml:16:28 inbound[0].allow[2].windows[0].days[0]: must be one of mon',
      'scute.yaml:17:41 inbound[0].allow[3].methds: is not known here',
      'scute.yaml:17:62 inbound[0].allow[3].mode: must be one of enforce',
      'scute.yaml:18:9 inbound[0].allow[4].peer: is required',
      'scute.yaml:18:20 inbound[0].allow[4].methods: an empty list of methods matches nothing',
      'scute.yaml:18:20 inbound[0].allow[4].methods: is for protocol',
      'scute.yaml:19:9 inbound[0].allow[5]: must be a SPIFFE ID',
      'scute.yaml:20:51 inbound[0].deny[0].paths: is for protocol',
      'scute.yaml:20:68 inbound[0].deny[0].hosts: is for protocol',
      'scute.yaml:21:17 inbound[0].policyMode: must be one of enforce',
      'scute.yaml:26:9 outbound[0].expect[0]: "/**" is any server of the trust domain',
      'scute.yaml:26:51 outbound[0].expect[0].methods: is for protocol',
      'scute.yaml:27:48 outbound[0].expect[1].mode: is for inbound',
      'scute.yaml:28:51 outbound[0].deny[0].mode: is for inbound',
    ],
  );
});

test('a problem inside an anchor is found at the anchor, and one of an alias too', async () => {
  const found = await problems(`workloadApi: { endpoint: unix:///agent.sock }
inbound:
  - { listen: 127.0.0.1:1, to: 127.0.0.1:8080, allow: &all [bad] }
  - { listen: 127.0.0.1:2, to: 127.0.0.1:8080, allow: *all }
`);

  assert.deepEqual(
    found.map((line) => line.replace(/: .*/, '')),
    ['scute.yaml:3:61 inbound[0].allow[0]', 'scute.yaml:3:61 inbound[1].allow[0]'],
  );
});

test('duplicate keys, broken YAML, several documents and unknown tags are errors with their places', async () => {
  const bad: [string, RegExp][] = [
    [`${GOOD}inbound: []\n`, /^scute\.yaml:6:1: not valid YAML: Map keys must be unique/],
    [`${GOOD}log: { level: [ }\n`, /^scute\.yaml:6:\d+: not valid YAML/],
    [`${GOOD}\tlog: {}\n`, /^scute\.yaml:6:1: not valid YAML/],
    [`${GOOD}---\n${GOOD}`, /not valid YAML: .*multiple documents/],
    [`${GOOD}log: !!js/function "x"\n`, /^scute\.yaml:6:6: not valid YAML: Unresolved tag/],
    [`${GOOD}log: *nothing\n`, /not valid YAML: .*alias/i],
    [`${GOOD}? [a, b]\n: 1\n`, /not valid YAML: /],
  ];
  for (const [text, expected] of bad) assert.match((await problems(text)).join('\n'), expected);
});

test('an empty file, a comment alone and a scalar are errors', async () => {
  for (const text of ['', '# nothing\n', 'null\n', 'text\n', '[]\n']) assert.equal((await problems(text)).length, 1, JSON.stringify(text));
});

test('aliases that multiply are stopped', async () => {
  const levels = Array.from({ length: 12 }, (_, n) => `l${n + 1}: &l${n + 1} [${Array(10).fill(`*l${n}`).join(', ')}]`);

  const found = await problems(`l0: &l0 [x]\n${levels.join('\n')}\n`);

  assert.match(found[0] ?? '', /Excessive alias count/);
});

test('nesting without end is an error, not a crash', async () => {
  const found = await problems(`a: ${'['.repeat(200_000)}`);

  assert.match(found[0] ?? '', /not valid YAML/);
});

test('a merge key is an unknown key, and __proto__ changes nothing', async () => {
  assert.match((await problems(`${GOOD}<<: { log: {} }\n`)).join(), /is not known here/);
  assert.match((await problems(`${GOOD}__proto__: { drainTimeout: 0s }\n`)).join(), /__proto__: is not known here/);
});

test('control characters of a file do not reach the terminal', async () => {
  const found = await problems(`${GOOD}"\\e[2J\\x9b": 1\nlog: { level: "\\e[2J\\x9b" }\ndrainTimeout: "\\e[2J"\n`);

  // oxlint-disable-next-line no-control-regex -- that is what is looked for
  assert.doesNotMatch(found.join(''), /[\u0000-\u001f\u007f-\u009f]/);
});

test('JSON is accepted, because it is YAML', async () => {
  const text = JSON.stringify({
    workloadApi: { endpoint: 'unix:///agent.sock' },
    inbound: [{ listen: '127.0.0.1:1', to: '127.0.0.1:2', allow: [] }],
  });

  assert.ok((await parseConfig(text, NO_ENVIRONMENT)).ok);
});

test('flags go before the file, the file before the environment, the environment before the defaults', async () => {
  const env = { SPIFFE_ENDPOINT_SOCKET: 'unix:///environment.sock', SCUTE_LOG_LEVEL: 'debug' };
  const flags = { workloadApi: { endpoint: 'unix:///flag.sock' } };
  const withoutEndpoint = GOOD.replace(/^workloadApi:.*\n/m, '');
  const all: [string, object, string, string][] = [
    [GOOD, flags, 'unix:///flag.sock', 'debug'],
    [`${GOOD}log: { level: error }\n`, { log: { level: 'trace' } }, 'unix:///agent.sock', 'trace'],
    [`${GOOD}log: { level: error }\n`, {}, 'unix:///agent.sock', 'error'],
    [`${GOOD}log: { format: json }\n`, {}, 'unix:///agent.sock', 'debug'],
    [withoutEndpoint, {}, 'unix:///environment.sock', 'debug'],
    [withoutEndpoint, flags, 'unix:///flag.sock', 'debug'],
  ];

  for (const [text, given, endpoint, level] of all) {
    const loaded = await parseConfig(text, { file: 'f', flags: { ...given }, env });
    assert.ok(loaded.ok, text);
    assert.deepEqual([loaded.value.workloadApi.endpoint, loaded.value.log.level], [endpoint, level], text);
  }
  const bare = await parseConfig(GOOD, { file: 'f', flags: {}, env: {} });
  assert.ok(bare.ok);
  assert.equal(bare.value.log.level, 'info');
});

test('a variable that nothing asks for is not even judged', async () => {
  const loaded = await parseConfig(GOOD, { file: 'f', flags: {}, env: { SPIFFE_ENDPOINT_SOCKET: 'nonsense' } });

  assert.ok(loaded.ok);
});

test('an empty variable counts as unset', async () => {
  const loaded = await parseConfig(GOOD, { file: 'f', flags: {}, env: { SCUTE_LOG_LEVEL: '' } });

  assert.ok(loaded.ok);
  assert.equal(loaded.value.log.level, 'info');
});

test('a problem is blamed on where the value came from', async () => {
  const env = { SPIFFE_ENDPOINT_SOCKET: 'nonsense' };

  const text = GOOD.replace(/^workloadApi:.*\n/m, '');
  const loaded = await parseConfig(text, { file: 'scute.yaml', flags: { log: { level: 'loud' } }, env });

  assert.ok(!loaded.ok);
  const found = formatIssues(loaded.error);
  assert.match(found, /^environment variable SPIFFE_ENDPOINT_SOCKET workloadApi\.endpoint: "nonsense"/m);
  assert.match(found, /^command line log\.level: must be one of/m);
});

test('flags alone are a configuration', async () => {
  const inbound = [{ listen: '127.0.0.1:1', to: '127.0.0.1:2', allow: ['spiffe://example.org/web'] }];

  const loaded = await loadConfig({ file: undefined, flags: { inbound, workloadApi: { endpoint: 'tcp://127.0.0.1:8000' } }, env: {} });

  assert.ok(loaded.ok);
});

test('a file that is missing, a folder, too large or not UTF-8 is an error that names it', async (t) => {
  const large = await temporaryFile(t, Buffer.alloc(MAX_CONFIG_BYTES + 1, '#'));
  const latin = await temporaryFile(t, Buffer.from('name: caf\xe9\n', 'latin1'));
  const cases: [string, RegExp][] = [
    ['/nonexistent/scute.yaml', /cannot be read: ENOENT/],
    [tmpdir(), /is a directory, not a file$/],
    [large, /is larger than/],
    [latin, /is not UTF-8/],
  ];
  for (const [file, expected] of cases) {
    const loaded = await loadConfig({ file, flags: {}, env: {} });
    assert.ok(!loaded.ok);
    const text = formatIssues(loaded.error);
    assert.ok(text.startsWith(`${file}: `), text);
    assert.match(text, expected);
  }
});

async function pipe(t: TestContext): Promise<string> {
  const file = `${await temporaryFile(t, '')}.pipe`;
  await promisify(execFile)('mkfifo', [file]);
  return file;
}

test('a pipe is read to its end, however late and in however many parts it is written', async (t) => {
  const file = await pipe(t);
  const reading = readConfigFile(file);
  const writer = await open(file, 'r+');
  // More than a pipe holds: so somebody reads by the time that it is written.
  const first = `#${'x'.repeat(100_000)}\n`;
  await writer.write(first);
  await writer.write(GOOD);
  await writer.close();

  const text = await reading;

  assert.ok(text.ok && text.value === first + GOOD);
});

test('a pipe that nobody writes to, or that does not end, is an error after a while, and holds up no thread', async (t) => {
  const [silent, endless] = [await pipe(t), await pipe(t)];
  await using writer = await open(endless, 'r+');
  await writer.write(GOOD);

  for (const file of [silent, endless]) {
    const text = await readConfigFile(file, { pipeWithinMs: 50 });
    assert.ok(!text.ok);
    assert.equal(formatIssues(text.error), `${file}: is a pipe that nobody wrote to its end within 0.05 s`);
  }
});
