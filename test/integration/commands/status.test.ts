import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Status } from '../../../src/cli/status-problems.ts';
import { needs } from '../../interop/parts.ts';
import { onTerminal, startChild } from '../../support/child.ts';
import { scute, scuteIn } from '../../support/command.ts';
import { API, presented, startExampleDomain, startInbound, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication, startHttpInbound } from '../../support/http/http-stage.ts';
import { startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { tlsClient } from '../../support/tls-peer.ts';

const MAIN = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));

test('scute status says that all is well, and when what happens next', async (t) => {
  const application = await startTcpServer(t, (socket) => void socket.resume());
  const stage = await startInbound(t, application.address, { file: { admin: { listen: '127.0.0.1:0' } } });
  const admin = stage.sidecar.address('admin');

  const { code, stdout, stderr } = await scute('status', '--admin', admin);

  assert.deepEqual([code, stderr], [0, '']);
  for (const line of [
    /^All is well\. Next: renewal of the SVID in \d+ (?:min|h) [^.]+\.$/,
    /^used by in$/,
    new RegExp(`^${API}$`),
    /^\d+ (?:min|h) .*\[#+\|[#-]+\] .* signed by CN=root .* \(authority of example\.org, 13 days\)$/,
    /^example\.org +1 +\d+ days +the Workload API$/,
    new RegExp(`^in +inbound +${stage.address} +${application.address} +0 +0 +0$`),
    /^nobody was refused since the start$/,
    /^scute 0\.0\.0-test - up \d+ s - (\d+) of \1 checks pass - 0 open connections - 2 certificates in sight - generation 1$/,
  ])
    assert.match(stdout, new RegExp(line.source, 'm'));

  await stage.connect();
  await eventually(async () => {
    const { stdout: later } = await scute('status', '--admin', admin);
    assert.match(later, new RegExp(`^open: 1 +on +with +by the rule +bytes in +bytes out\nfor \\d+ s +in +${WEB} +${WEB} +0 +0$`, 'm'));
  });

  const other = presented(await stage.spiffe.issue('spiffe://example.org/other'));
  await eventually(async () => {
    tlsClient(t, stage.address, other);
    assert.match((await scute('status', '--admin', admin)).stdout, /^\d+ s ago +in +spiffe:\/\/example\.org\/other +not_allowed: /m);
  });
});

test('scute status says first what is wrong and what to do, and its exit code is 1 while Scute is not ready', async (t) => {
  const application = await startHttpApplication(t, (_, response) => void response.end('ok'));
  const stage = await startHttpInbound(t, application.address, {
    listener: { policyMode: 'audit' },
    file: { admin: { listen: '127.0.0.1:0' } },
  });
  const admin = stage.sidecar.address('admin');
  const folder = await temporaryFolder(t);
  const file = join(folder, 'scute.yaml');
  await writeFile(file, JSON.stringify({ ...stage.with({ listen: '127.0.0.1:1' }), admin: { listen: admin } }));
  const ready = await scute('status', '-c', file);
  assert.equal(ready.code, 0, 'a warning');
  assert.match(
    ready.stdout,
    /^Ready\. 1 thing to look at\. .*\n! A warning: policy_enforced: in: in audit: .*\n.* Do: scute audit lists whom/,
  );

  await stage.spiffe.withdraw('api');
  await eventually(async () => {
    const { code, stdout } = await scute('status', '-c', file);
    assert.equal(code, 1);
    assert.match(
      stdout,
      /^Not ready\. 2 things to look at\..*\n! Not ready: identity: .*\n {2}Without an SVID .* Do: see that the agent runs.*\.\n! A warning: policy_enforced/,
    );
    assert.match(stdout, /^identity {2}the Workload API gives us no identity: /m);
  });
  const { code, stdout } = await scute('status', '--admin', admin, '--json');
  const told = JSON.parse(stdout) as Status & { readonly ready: boolean; readonly problems: readonly { readonly severity: string }[] };
  assert.deepEqual(
    [code, told.ready, told.problems.map(({ severity }) => severity), told.svids, told.overview.identity.state],
    [1, false, ['act', 'look'], [], 'none'],
  );

  await stage.spiffe.restore('api');
  await eventually(async () => assert.equal((await scute('status', '-c', file)).code, 0));
});

test('scute status --watch goes on while Scute restarts, and ends when it is told to', async (t) => {
  const folder = await temporaryFolder(t);
  const admin = `unix://${join(folder, 'admin.sock')}`;
  const application = await startTcpServer(t, (socket) => void socket.resume());
  const spiffe = await startExampleDomain(t);
  const start = () => startInbound(t, application.address, { spiffe, file: { admin: { listen: admin } } });
  const stop = new AbortController();
  t.after(() => stop.abort());
  const frames: string[] = [];
  const lines: string[] = [];
  const surroundings = (kept: string[]) => ({ stopped: stop.signal, printed: (text: string) => void kept.push(text) });
  const watching = Promise.all([
    scuteIn(surroundings(frames), 'status', '--admin', admin, '--watch'),
    scuteIn(surroundings(lines), 'status', '--admin', admin, '--watch', '--json'),
  ]);
  const seen = (frame: RegExp, line: RegExp) =>
    eventually(() => {
      assert.match(frames.at(-1) ?? '', frame);
      assert.match(lines.at(-1) ?? '', line);
    });
  const gone = () =>
    seen(
      /^Nobody answers since \d+ s\. It is asked .*\n {2}Scute does not run, or /,
      /^\{"ready":false,"gone":"Scute does not run, .*"\}\n$/,
    );

  await gone();
  const first = await start();
  await seen(/^All is well\./, /^\{"ready":true,"problems":\[\],"overview":.*\}\n$/);
  await first.sidecar.stop();
  await gone();
  await start();
  await seen(/^All is well\./, /^\{"ready":true,/);
  stop.abort();

  assert.deepEqual(
    (await watching).map(({ code, stderr }) => [code, stderr]),
    [
      [0, ''],
      [0, ''],
    ],
  );
});

test('on a terminal scute status --watch draws over what was there, in its size, and ends by Ctrl-C', needs('script'), async (t) => {
  const folder = await temporaryFolder(t);
  const env = { PATH: process.env['PATH'] ?? '', TERM: 'xterm' };
  const [program, ...args] = onTerminal([
    process.execPath,
    '--disable-sigusr1',
    MAIN,
    'status',
    '--watch',
    '--admin',
    `unix://${folder}/none.sock`,
  ]);
  // The terminal is given a size before it is drawn on.
  const sized = args.map((arg) => arg.replace(/^exec /, 'stty cols 40 rows 3; exec '));
  await using child = await startChild([program, ...sized], { env });

  await eventually(() => assert.equal(child.stdout().split('\u001b[H').length > 2, true));
  child.write('\u0003');

  assert.equal((await child.exited).code, 0);
  const frame = child.stdout().split('\u001b[H')[2] ?? '';
  assert.ok(frame.startsWith('\u001b[31;1mNobody answers since '), JSON.stringify(frame));
  // oxlint-disable-next-line no-control-regex -- what is drawn, without what commands the terminal
  const drawn = frame.replaceAll(/\u001b\[[0-9;]*[mKJ]/g, '').split('\r\n');
  assert.equal(drawn[1]?.length, 40);
  assert.ok(drawn.length <= 4);
});

test('scute status ends when nobody reads it any more', async (t) => {
  const folder = await temporaryFolder(t);
  const command = `"$0" --disable-sigusr1 "$1" status --watch --admin "unix://$2/none.sock" | head -n 1; exit "\${PIPESTATUS[0]}"`;
  await using child = await startChild(['bash', '--norc', '-c', command, process.execPath, MAIN, folder], {
    env: { PATH: process.env['PATH'] ?? '' },
  });

  assert.deepEqual([(await child.exited).code, child.stderr()], [141, '']);
});

test('scute status has nothing to say when what listens there says something else', async (t) => {
  for (const [body, message] of [
    ['<html>', /does not answer in JSON\n$/],
    ['{"ready":true}', /the answer has a form that this version of Scute does not know\n$/],
  ] as const) {
    const { address } = await startHttpApplication(t, (_, response) => void response.end(body));
    const said = await scute('status', '--admin', address);
    assert.deepEqual([said.code, said.stdout], [69, '']);
    assert.match(said.stderr, message);
  }
  assert.equal((await scute('status')).code, 64);
});
