/** Policies in files of their own, with the listeners that use them. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { createApp } from '../../../src/app.ts';
import { parseConfig } from '../../../src/config/load.ts';
import { API, presented, startExampleDomain, startInbound, WEB, type StageOptions } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication, startHttpInbound, wire, type Wire } from '../../support/http/http-stage.ts';
import { ask } from '../../support/http/http.ts';
import { listText, policyText, startPolicyFile } from '../../support/policy/policy-file.ts';
import { startScute, useScute } from '../../support/scute-process.ts';
import { deltaSecretsOf, openDelta, sdsClient } from '../../support/sds.ts';
import { startSidecar, type LogLine, type Sidecar } from '../../support/sidecar.ts';
import { startEcho } from '../../support/tcp.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';

const OTHER = 'spiffe://example.org/other';

/** A listener that takes its policy from this file. */
function from(policyFile: string, more: object = {}): StageOptions {
  return { listener: { allow: undefined, policyFile, ...more } };
}

function told(sidecar: Sidecar): readonly LogLine[] {
  return sidecar.log().filter(({ message }) => message.startsWith('policy file'));
}

async function toldTimes(sidecar: Sidecar, times: number): Promise<LogLine> {
  return eventually(() => {
    const lines = told(sidecar);
    assert.equal(lines.length, times, JSON.stringify(lines));
    return Promise.resolve(lines.at(-1) as LogLine);
  });
}

test('a policy file says who may connect; when it changes, live connections are judged by it', async (t) => {
  const file = await startPolicyFile(t, policyText([WEB]));
  const application = await startEcho(t);
  const stage = await startInbound(t, application.address, from(file.path));
  const other = presented(await stage.spiffe.issue(OTHER));
  const socket = await stage.connect();
  assert.equal((await outcome(tlsClient(t, stage.address, other))).text, '');

  await file.replace(policyText([OTHER]));

  const line = await toldTimes(stage.sidecar, 2);
  assert.deepEqual(
    [line.message, line['file'], line['entries'], line['added'], line['removed'], line['differences']],
    ['policy file reloaded', file.path, 1, 1, 1, [`+ allow ${OTHER}`, `- allow ${WEB}`]],
  );
  await outcome(socket);
  assert.equal((await stage.sidecar.connection(({ reason }) => reason === 'policy'))['peer_id'], WEB);
  const admitted = wire(tlsClient(t, stage.address, other));
  admitted.socket.write('x');
  await admitted.until('x');
});

test('what a list says of a peer holds at once, whether it allows or denies', async (t) => {
  const file = await startPolicyFile(t, policyText([{ idsFile: 'staff.txt' }], { deny: [{ idsFile: 'gone.txt' }] }));
  await file.replace(listText([WEB, OTHER]), 'staff.txt');
  await file.replace(listText([]), 'gone.txt');
  const application = await startEcho(t);
  const stage = await startInbound(t, application.address, from(file.path));
  const other = presented(await stage.spiffe.issue(OTHER));
  const line = wire(await stage.connect());
  line.socket.write('x');
  await line.until('x');

  await file.replace(listText([WEB]), 'gone.txt');
  await line.over();
  const closed = await stage.sidecar.connection(({ reason }) => reason === 'policy');
  assert.match(String(closed['detail']), /deny idsFile .*gone\.txt/);
  assert.equal((await outcome(await stage.connect())).text, '');
  const stays = wire(tlsClient(t, stage.address, other));
  stays.socket.write('y');
  await stays.until('y');
});

const ALLOWED = 64;
const ROUNDS = 20;

test(`a policy file changes under ${ALLOWED} connections at work: who stays allowed loses no request, who is not gets no byte`, async (t) => {
  const file = await startPolicyFile(t, policyText([{ peer: WEB, paths: ['/items/**'] }, { idsFile: 'others.txt' }]));
  await file.replace(listText([OTHER]), 'others.txt');
  // What the peer that is denied asks for is answered slowly: it is on its way when the policy changes.
  const held: (() => void)[] = [];
  const application = await startHttpApplication(t, ({ url }, response) => {
    if (url === '/slow') held.push(() => response.end('late'));
    else response.end(`${url}.`);
  });
  const stage = await startHttpInbound(t, application.address, from(file.path));
  const other = presented(await stage.spiffe.issue(OTHER));
  const asks = async (line: Wire, path: string): Promise<void> => {
    line.socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    await line.until(`${path}.`);
  };
  const denied = Array.from({ length: 8 }, () => wire(tlsClient(t, stage.address, other)));
  await Promise.all(denied.map((line) => asks(line, '/first')));
  for (const line of denied.slice(0, 4)) line.socket.write('GET /slow HTTP/1.1\r\nHost: a\r\n\r\n');
  await eventually(() => Promise.resolve(assert.equal(held.length, 4)));

  let asked = 0;
  const lines = await Promise.all(Array.from({ length: ALLOWED }, async () => wire(await stage.connect())));
  const working = lines.map(async (line, index) => {
    for (let round = 0; round < ROUNDS; round++) {
      await asks(line, `/items/${index}-${round}`);
      asked++;
    }
  });
  await eventually(() => Promise.resolve(assert.ok(asked >= ALLOWED)));
  await file.replace(listText([]), 'others.txt');
  await toldTimes(stage.sidecar, 2);
  const before = denied.map((line) => line.text());
  for (const answer of held) answer();
  // The others go on through many a policy.
  for (let round = 0; round < 5; round++) {
    await file.replace(policyText([WEB, `spiffe://example.org/x${round}`], { deny: [{ peer: WEB, paths: [`/items/x${round}`] }, OTHER] }));
    await toldTimes(stage.sidecar, 3 + round);
  }
  await Promise.all(working);

  assert.equal(asked, ALLOWED * ROUNDS);
  for (const [index, line] of lines.entries()) assert.equal(line.text().match(/HTTP\/1\.1 200 OK/g)?.length, ROUNDS, `connection ${index}`);
  for (const [index, line] of denied.entries()) assert.equal((await line.over()).text, before[index], 'not a byte since');
  assert.equal(await stage.sidecar.metric('scute_tcp_close_total', { reason: 'policy' }), denied.length);
});

test('a listener may go over to a policy file, and back, while it serves', async (t) => {
  const file = await startPolicyFile(t, policyText([OTHER]));
  const application = await startEcho(t);
  const stage = await startInbound(t, application.address);
  const socket = await stage.connect();

  await stage.sidecar.reload(stage.with({ allow: undefined, policyFile: file.path }));
  await outcome(socket);
  await file.replace(policyText([WEB]));
  await toldTimes(stage.sidecar, 1);
  const admitted = wire(await stage.connect());
  await stage.sidecar.reload(stage.with({ allow: [OTHER] }));

  await admitted.over();
  const changed = stage.sidecar.log().filter(({ message }) => message === 'configuration reloaded');
  assert.deepEqual(
    changed.map((line) => line['differences']),
    [[`inbound in: policyFile: none to ${file.path}`], [`inbound in: policyFile: ${file.path} to none`]],
  );
  // Nobody looks at it any more.
  await file.replace(policyText([]));
  assert.equal(await stage.sidecar.metric('scute_policy_file_entries'), 0);
});

test('rules for requests in a file keep a listener that forwards bytes at the policy that it has', async (t) => {
  const file = await startPolicyFile(t, policyText([{ peer: OTHER, paths: ['/x'] }]));
  const application = await startEcho(t);
  const stage = await startInbound(t, application.address);
  const line = wire(await stage.connect());

  await stage.sidecar.reload(stage.with({ allow: undefined, policyFile: file.path, protocol: 'http' }));

  line.socket.write('x');
  await line.until('x');
  assert.match(JSON.stringify(stage.sidecar.log()), /inbound in: its rules for requests, and with them all that changed in its policy/);
});

test('a file that changes while a configuration is read does not get past the listener that it is not for', async (t) => {
  const spiffe = await startExampleDomain(t);
  const file = await startPolicyFile(t, policyText([WEB]));
  const application = await startEcho(t);
  const config = (raw: object): object => ({
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [
      { name: 'web', listen: '127.0.0.1:0', to: '127.0.0.1:1', protocol: 'http', policyFile: file.path },
      { name: 'raw', listen: '127.0.0.1:0', to: application.address, ...raw },
    ],
  });
  const sidecar = await startSidecar(t, config({ allow: [] }));
  const withPaths = policyText([WEB], { deny: [{ peer: WEB, paths: ['/**'] }] });

  await sidecar.reload(config({ policyFile: file.path }), async () => {
    await file.replace(withPaths);
    await toldTimes(sidecar, 2);
  });

  const refused = sidecar.log().find(({ message }) => message === 'configuration not reloaded; the old one stays in force');
  assert.match(String(refused?.['problems']), /policy\.yaml:2:\d+: methods, paths and hosts are for protocol: http, and inbound raw/);
  const web = presented(await spiffe.issue(WEB));
  assert.equal((await outcome(tlsClient(t, sidecar.address('raw'), web))).text, '');
});

test('matchers for Envoy follow the policy file of a listener; what they cannot say is withheld', async (t) => {
  const spiffe = await startExampleDomain(t);
  const application = await startEcho(t);
  const file = await startPolicyFile(t, policyText([WEB]));
  await file.replace(listText([API]), 'ids.txt');
  const socket = `unix://${join(file.folder, 'sds.sock')}`;
  const config = (name: string, port: number): object => ({
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ name, listen: `127.0.0.1:${port}`, to: application.address, policyFile: file.path }],
    sds: { listen: socket, matchers: [{ secret: 'ROOTCA', listener: name }] },
  });
  const sidecar = await startSidecar(t, config('in', 0));
  const stream = openDelta(sdsClient(t, socket));
  stream.send({ resourceNamesSubscribe: ['ROOTCA'] });
  assert.deepEqual(deltaSecretsOf(await stream.next())[0]?.matchers, [`exact ${WEB}`]);

  await file.replace(policyText([API]));
  assert.deepEqual(deltaSecretsOf(await stream.next())[0]?.matchers, [`exact ${API}`]);
  await file.replace(policyText([API, { idsFile: 'ids.txt' }]));
  assert.deepEqual((await stream.next()).removedResources, ['ROOTCA']);
  await file.replace(policyText([WEB]));
  assert.deepEqual(deltaSecretsOf(await stream.next())[0]?.matchers, [`exact ${WEB}`]);

  // Of a listener that runs after a restart only, they follow its file as well.
  await sidecar.reload(config('new', 1));
  await file.replace(policyText([API]));
  assert.deepEqual(deltaSecretsOf(await stream.next())[0]?.matchers, [`exact ${API}`]);
});

test('the program takes over what comes, keeps to the old when files break or go, and says so', async (t) => {
  const spiffe = await startExampleDomain(t);
  const application = await startEcho(t);
  const file = await startPolicyFile(t, policyText([{ idsFile: 'ids.txt' }]));
  await file.replace(listText([WEB]), 'ids.txt');
  await file.replace(listText([]), 'own.txt');
  const admin = join(file.folder, 'admin.sock');
  const listener = { listen: '127.0.0.1:0', to: application.address };
  const config = {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [
      { ...listener, name: 'shared', policyFile: file.path },
      { ...listener, name: 'own', allow: [{ idsFile: join(file.folder, 'own.txt') }] },
    ],
    metrics: { listen: '127.0.0.1:0' },
    admin: { listen: `unix://${admin}` },
  };
  // As it is shipped, where the parser's thread has a file of its own.
  const scute = await useScute(t, { config, entry: 'bundle' });
  await scute.ready('shared', 'own', 'metrics');
  const [shared, own, port] = [await scute.address('shared'), await scute.address('own'), await scute.port('metrics')];
  const web = presented(await spiffe.issue(WEB));
  const get = async (what: string): Promise<string> => (await fetch(`http://127.0.0.1:${port}/${what}`)).text();
  const isRefused = async (address: string): Promise<void> => assert.equal((await outcome(tlsClient(t, address, web))).text, '');
  const open = wire(tlsClient(t, shared, web));
  open.socket.write('x');
  await open.until('x');
  await isRefused(own);
  assert.match(await get('readyz?verbose'), /^\[\+\]policy_current ok: 1 policy files$/m);
  assert.match(await get('metrics'), /^scute_policy_file_entries\{file=".*policy\.yaml"\} 2$/m);

  await file.replace(policyText([{ idsFile: 'ids.txt' }, OTHER]));
  await scute.logged(({ message, ...line }) => message === 'policy file reloaded' && line['added'] === 1);
  await file.replace(listText([OTHER]), 'ids.txt');
  await open.over();
  await isRefused(shared);
  await file.replace(listText([WEB]), 'own.txt');
  const reloaded = await scute.logged(({ message }) => message === 'configuration reloaded');
  assert.deepEqual(reloaded['differences'], [
    `inbound own: idsFile ${join(file.folder, 'own.txt')}: 1 added, 0 removed`,
    `inbound own: idsFile ${join(file.folder, 'own.txt')} + ${WEB}`,
  ]);
  const admitted = wire(tlsClient(t, own, web));
  admitted.socket.write('y');
  await admitted.until('y');

  await file.replace(`${OTHER}\n`, 'ids.txt');
  const failed = await scute.logged(({ message }) => message === 'policy file not reloaded; the old policy stays in force');
  assert.match(String(failed['problems']), /ids\.txt:2:1: the line "\.\.\." is missing/);
  await rm(file.path);
  await eventually(() => Promise.resolve(assert.equal(scute.log().filter(({ message }) => message === failed.message).length, 2)));
  await isRefused(shared);
  await file.replace('nobody\n...\n', 'own.txt');
  const unloaded = await scute.logged(({ message }) => message === 'configuration not reloaded; the old one stays in force');
  assert.match(String(unloaded['problems']), /own\.txt:1:1: "nobody"/);
  const ready = await get('readyz?verbose');
  assert.match(
    ready,
    /^\[!\]policy_current warning: what was before is in force: .*cannot be used; .*policy\.yaml: cannot be read: ENOENT/m,
  );
  assert.match(ready, /^readyz check passed$/m);
  assert.match(await get('metrics'), /^scute_policy_file_reloads_total\{result="failed"\} 2$/m);
  const { body } = await ask({ kind: 'unix', path: admin }, '/config_dump');
  const [dumped] = (JSON.parse(body) as { policy_files: Record<string, unknown>[] }).policy_files;
  assert.deepEqual([dumped?.['file'], dumped?.['entries'], dumped?.['result']], [file.path, 3, 'failed']);
  assert.match(String(dumped?.['problems']), /policy\.yaml: cannot be read: ENOENT/);

  await file.replace(listText([WEB, WEB]), 'ids.txt');
  await file.replace(policyText([{ idsFile: 'ids.txt' }]));
  await scute.logged(({ message, ...line }) => message === 'policy file reloaded' && line['entries'] === 3);
  await file.replace(listText([WEB]), 'own.txt');
  await eventually(async () => assert.match(await get('readyz?verbose'), /^\[\+\]policy_current ok: 1 policy files$/m));
  scute.child.signal('SIGHUP');
  await scute.logged(({ message, ...line }) => message === 'policy file reloaded' && line['added'] === 0 && line['removed'] === 0);
});

for (const [how, text, problem] of [
  ['missing', undefined, /policyFile: .*policy\.yaml cannot be used\n.*policy\.yaml: cannot be read: ENOENT/],
  ['wrong', policyText(['nobody']), /policy\.yaml:1:9 allow\[0\]: "nobody"/],
  ['cut off', policyText([WEB]).replace('...\n', ''), /policy\.yaml:2:1: the line "\.\.\." is missing/],
] as const) {
  test(`a policy file that is ${how} at the start: exit code 64, and nothing was started`, async (t) => {
    const file = await startPolicyFile(t, text ?? '');
    if (text === undefined) await rm(file.path);
    const config = {
      workloadApi: { endpoint: 'unix:///nobody/there.sock' },
      inbound: [{ listen: '127.0.0.1:0', to: '127.0.0.1:1', policyFile: file.path }],
    };
    for (const command of ['run', 'check']) {
      await using scute = await startScute({ args: [command], config });

      assert.equal((await scute.exited).code, 64, command);
      assert.match(scute.child.stderr(), problem);
      assert.deepEqual(scute.log(), []);
    }
  });
}

test('an application whose configuration names a policy file is not made without those who watch it', async (t) => {
  const file = await startPolicyFile(t, policyText([WEB]));
  const raw = { workloadApi: { endpoint: 'unix:///a' }, inbound: [{ listen: '127.0.0.1:0', to: '127.0.0.1:1', policyFile: file.path }] };
  const loaded = await parseConfig(JSON.stringify(raw), { file: 'test.yaml', flags: {}, env: {} });
  assert.ok(loaded.ok);

  await assert.rejects(createApp(loaded.value, { version: '0' }), /nobody watches the policy files/);
});
