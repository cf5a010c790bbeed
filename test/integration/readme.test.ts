import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { rm, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { needs } from '../interop/parts.ts';
import { runChild } from '../support/child.ts';
import { API, startInbound, WEB } from '../support/data-path.ts';
import { codeBlocks } from '../support/documents.ts';
import { documentedMetrics } from '../support/admin/documented-metrics.ts';
import { folderInMemory } from '../support/files/files.ts';
import { ask } from '../support/http/http.ts';
import { send, startHttpInbound, startRawApplication } from '../support/http/http-stage.ts';
import { policyText, startPolicyFile } from '../support/policy/policy-file.ts';
import { below, namesUnder, tableUnder } from '../support/reference.ts';
import { dial, freePort, startEcho } from '../support/tcp.ts';
import { outcome, tlsClient } from '../support/tls-peer.ts';
import { JWT, overHttp1, requestLines, startTokenStage } from '../support/tokens/token-stage.ts';
import { token } from '../support/tokens/tokens.ts';

const root = join(import.meta.dirname, '..', '..');
const blocks = [...codeBlocks('README.md'), ...codeBlocks('docs/guides/quick-start.md')];

function only(info: string): string {
  const [block, ...others] = blocks.filter((each) => each.info === info);
  assert.ok(block !== undefined && others.length === 0, `one block ${info}`);
  return block.text;
}

for (const document of globSync('{*,docs/**/*}.md', { cwd: root }).toSorted()) {
  const runnable = codeBlocks(document).filter(({ info }) => info === 'sh runnable');
  if (runnable.length === 0) continue;
  test(`the commands of ${document}, pasted one after the other, do what it says`, needs('curl'), async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'scute-guide-'));
    t.after(() => rm(folder, { recursive: true, force: true }));
    // Ports and the folder may be in use here, and nobody is there to end what goes on in the background.
    const pasted = ['end() { kill $pids; wait $pids; }', 'trap end EXIT', ...runnable.map(({ text }) => text)].join('\n');
    let script = pasted.replace(/ &$/gm, ' & pids="$pids $!"').replaceAll('/tmp/scute-try', join(folder, 'try'));
    for (const port of ['8080', '8443', '9090']) script = script.replaceAll(new RegExp(`\\b${port}\\b`, 'g'), String(await freePort()));

    const { stdout, stderr } = await runChild(['sh', '-c', script], {
      cwd: root,
      env: { PATH: process.env['PATH'] ?? '', HOME: folder },
    });

    const output = codeBlocks(document).filter(({ info }) => info === 'text output');
    const expected = output.flatMap(({ text }) => text.trimEnd().split('\n'));
    assert.ok(expected.length > 0, 'what is run says something');
    const answers = stdout.split('\n').filter((line) => expected.includes(line));
    assert.deepEqual(answers, expected, stdout + stderr);
  });
}

test('the demo of the README prints what it shows, but for ports and folder', () => {
  const source = readFileSync(join(root, 'src/cli/commands/demo.ts'), 'utf8');
  const shown = only('text demo').trimEnd().split('\n');

  assert.equal(shown.length, 13);
  for (const line of shown) {
    const constant = line
      .replace(/127\.0\.0\.1:\d+|\/tmp\/\S+\.sock|spiffe:\/\/example\.org\/\w+/g, '\0')
      .split('\0')
      .map((part) => RegExp.escape(part))
      .join('\\$\\{\\w+\\}');
    assert.match(source, new RegExp(`^${constant}$`, 'm'));
  }
});

test('log lines have the fields, metrics the labels and readiness the checks that the documents name', async (t) => {
  const application = await startEcho(t);
  // Nobody is there; what is told of it is.
  const federation = [{ trustDomain: 'partner.example', url: 'https://127.0.0.1:1/', profile: 'https_web' }];
  const { folder, unsafeDisk } = await folderInMemory(t);
  const files = [{ directory: join(folder, 'set'), unsafeDisk }];
  const partner = { listen: '127.0.0.1:0', to: '127.0.0.1:1', expect: [API], protocol: 'http', jwt: { audience: 'partner' } };
  const options = { listener: { alpn: ['echo'] }, file: { federation, files, outbound: [partner] } };
  const { spiffe, sidecar, address, connect } = await startInbound(t, application.address, options);
  const plain = await connect();
  plain.end('hello');
  plain.resume();
  const allowed = await sidecar.connection();
  const withAlpn = await connect({ ALPNProtocols: ['echo'] });
  withAlpn.end('hello');
  withAlpn.resume();
  const agreed = await sidecar.connection(({ alpn }) => alpn !== undefined);
  assert.equal((await outcome(tlsClient(t, address, undefined))).text, '');
  const denied = await sidecar.connection(({ verdict }) => verdict === 'deny');
  const lenient = await startInbound(t, application.address, { spiffe, listener: { allow: [], policyMode: 'audit' } });
  (await lenient.connect()).end('hello').resume();
  const audited = await lenient.sidecar.connection();
  const nearby = await startInbound(t, application.address, { spiffe, listener: { allow: ['spiffe://example.org/nearly'] } });
  await outcome(tlsClient(t, nearby.address, nearby.web));
  const nearlyAllowed = await nearby.sidecar.connection();
  const behind = await startInbound(t, application.address, { spiffe, listener: { proxyProtocol: { acceptFrom: ['127.0.0.1'] } } });
  const balancer = await dial(t, behind.address);
  balancer.write('PROXY TCP4 203.0.113.7 198.51.100.1 40112 443\r\n');
  tlsClient(t, behind.address, behind.web, { socket: balancer }).end('hello').resume();
  const announced = await behind.sidecar.connection();

  const example: unknown = JSON.parse(only('json log'));
  assert.ok(typeof example === 'object' && example !== null);
  assert.deepEqual(Object.keys(example), Object.keys(allowed));

  const everywhere = ['level', 'time', 'message'];
  const fields = new Set(
    [allowed, agreed, denied, audited, nearlyAllowed, announced]
      .flatMap((line) => Object.keys(line))
      .filter((field) => !everywhere.includes(field)),
  );
  const logTable = tableUnder('Log').flatMap(([first]) => first ?? []);
  assert.deepEqual(logTable.toSorted(), [...fields].toSorted());

  // The echo is no HTTP, which is told as well as any answer; a stranger to the list is told no.
  const web = await startHttpInbound(t, application.address, { spiffe });
  await (await send(web, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')).over();
  await web.sidecar.reload(web.with({ allow: [], policyMode: 'audit' }));
  await (await send(web, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')).over();
  await web.sidecar.reload(web.with({ allow: ['spiffe://example.org/nearly'] }));
  await (await send(web, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')).over();
  const [failed, passed, refused] = web.sidecar.log().filter(({ message }) => message === 'request finished');
  assert.ok(failed !== undefined && passed !== undefined && refused !== undefined);
  // One that closes under its second request has it sent once more.
  const asked = new WeakSet<object>();
  const closing = await startRawApplication(t, (_, socket) => {
    if (asked.has(socket)) return void socket.end();
    asked.add(socket);
    return 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
  });
  const { path: policyFile } = await startPolicyFile(t, policyText([WEB]));
  const kept = await startHttpInbound(t, closing.address, { spiffe, listener: { allow: undefined, policyFile } });
  const twice = await send(kept, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await twice.until('ok');
  twice.socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await twice.until(/ok[^]*ok/);
  const again = kept.sidecar.log().find(({ message, retries }) => message === 'request finished' && retries !== undefined);
  assert.ok(again !== undefined);
  const [, paragraph = ''] = /^(A request over `protocol: http`[\s\S]*?)\n\n/m.exec(below('Log')) ?? [];
  const told = [...paragraph.matchAll(/`([a-z_]+)`/g)].map(([, field = '']) => field);
  const asking = await startTokenStage(t, { jwt: JWT });
  await overHttp1(asking)([['Authorization', `Bearer ${token({ key: asking.key })}`]]);
  const [proven] = requestLines(asking.sidecar);
  assert.ok(proven !== undefined);
  const requestFields = new Set(
    Object.keys({ ...failed, ...passed, ...refused, ...again, ...proven }).filter((field) => !everywhere.includes(field)),
  );
  assert.deepEqual(told.toSorted(), [...requestFields].toSorted());

  const metrics = sidecar.app.addresses().get('metrics');
  const webMetrics = web.sidecar.app.addresses().get('metrics');
  const keptMetrics = kept.sidecar.app.addresses().get('metrics');
  assert.ok(metrics !== undefined && webMetrics !== undefined && keptMetrics !== undefined);
  const bodies = await Promise.all([metrics, webMetrics, keptMetrics].map((each) => ask(each, '/metrics')));
  const body = bodies.map((answer) => answer.body).join('');
  const samples = [...body.matchAll(/^(\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? \S+$/gm)];
  assert.ok(samples.length > 100);
  const documented = new Map(documentedMetrics().map(({ name, labels }) => [name, labels]));
  for (const [sample, name = '', found = ''] of samples) {
    const given = [...found.matchAll(/(\w+)="(?:[^"\\]|\\.)*"/g)].map(([, label = '']) => label).filter((label) => label !== 'le');
    assert.deepEqual(given.toSorted(), documented.get(name)?.toSorted(), sample);
  }

  const checksAt = async (address: typeof metrics): Promise<(string | undefined)[]> => {
    const { body: verbose } = await ask(address, '/readyz?verbose');
    return [...verbose.matchAll(/^\[.\](\w+)/gm)].map(([, check]) => check);
  };
  const askingMetrics = asking.sidecar.app.addresses().get('metrics');
  assert.ok(askingMetrics !== undefined);
  const ofTokens = 'jwt_bundles';
  assert.ok((await checksAt(askingMetrics)).includes(ofTokens));
  // Its test is one of scute exec.
  const ofExec = 'application';
  assert.deepEqual(
    namesUnder('Probes and readiness').filter((check) => check !== ofTokens && check !== ofExec),
    await checksAt(metrics),
  );
});

test('the admin listener answers what the documents name, and the commands for it work', needs('curl'), async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'scute-readme-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const socket = join(folder, 'admin.sock');
  const application = await startEcho(t);
  const { sidecar } = await startInbound(t, application.address, { file: { admin: { listen: `unix://${socket}` } } });
  const admin = sidecar.app.addresses().get('admin');
  assert.ok(admin !== undefined);

  for (const request of namesUnder('The admin listener').filter((name) => name.startsWith('GET '))) {
    assert.equal((await ask(admin, request.replace('GET ', ''))).status, 200, request);
  }
  const commands = ['API', 'The admin listener'].flatMap((heading) => below(heading).match(/^curl .*$/gm) ?? []);
  assert.equal(commands.length, 6);
  for (const command of commands) {
    const { code, stderr } = await runChild([
      'sh',
      '-c',
      command.replace('curl', 'curl --fail --silent').replace('/run/scute/admin.sock', socket),
    ]);
    assert.equal(code, 0, command + stderr);
  }
  assert.equal(sidecar.app.stopRequested.aborted, true);
});
