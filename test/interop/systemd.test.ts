/**
 * systemd's own programs around Scute: systemd-notify, systemd-socket-activate and systemd-analyze. No systemd runs here: what it would hear is
 * heard by a stand-in that speaks the protocol of sd_notify(3), with its barrier.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startChild, type Child } from '../support/child.ts';
import { presented, startExampleDomain, WEB } from '../support/data-path.ts';
import { eventually } from '../support/eventually.ts';
import { anSvid } from '../support/exec-stage.ts';
import { dial, freePort, startEcho } from '../support/tcp.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { outcome, tlsClient, type Presented } from '../support/tls-peer.ts';
import { FakeWorkloadApi } from '../support/workload-api.ts';
import { needs, part, pythonPrograms } from './parts.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../../', import.meta.url));
const MAIN = join(root, 'src/main.ts');
const PATH = { PATH: process.env['PATH'] ?? '' };

async function startStandIn(t: TestContext): Promise<{ readonly socket: string; readonly receiver: Child }> {
  const socket = join(await temporaryFolder(t), 'notify.sock');
  const receiver = await startChild([part('python'), join(pythonPrograms, 'notify_receiver.py'), socket]);
  t.after(() => receiver.stop());
  await receiver.line(/^bound$/);
  return { socket, receiver };
}

test(
  'systemd hears of ready, the identity, a reload, signs of life and the end, each in its place',
  needs('systemd-notify', 'python'),
  async (t) => {
    const { socket, receiver } = await startStandIn(t);
    await using api = await FakeWorkloadApi.start();
    const file = join(await temporaryFolder(t), 'scute.yaml');
    const config = {
      workloadApi: { endpoint: api.endpoint },
      inbound: [{ name: 'in', listen: '127.0.0.1:0', to: '127.0.0.1:1', allow: [WEB] }],
    };
    await writeFile(file, JSON.stringify(config));
    const scute = await startChild([process.execPath, MAIN, 'run', '-c', file], {
      env: { ...PATH, NOTIFY_SOCKET: socket, WATCHDOG_USEC: '2000000' },
    });
    t.after(() => scute.stop());

    let { next } = await receiver.line(/^STATUS=no identity; not ready: .*identity$/);
    await receiver.line(/^WATCHDOG=1$/);
    api.setX509([anSvid()]);
    ({ next } = await receiver.line(new RegExp(`^READY=1 STATUS=${WEB} until 20\\d\\d-.*Z$`), { after: next }));
    assert.ok(
      !receiver
        .lines()
        .slice(0, next - 1)
        .some((line) => line.includes('READY=1')),
      'nothing was ready before',
    );
    scute.signal('SIGHUP');
    ({ next } = await receiver.line(/^RELOADING=1 MONOTONIC_USEC=\d+$/, { after: next }));
    ({ next } = await receiver.line(/^READY=1$/, { after: next }));
    ({ next } = await receiver.line(/^WATCHDOG=1$/, { after: next }));
    scute.signal('SIGTERM');
    await receiver.line(/^STOPPING=1 STATUS=draining$/, { after: next });
    assert.equal((await scute.exited).code, 0);
  },
);

test('without systemd-notify Scute says so in its log, and serves', async (t) => {
  const spiffe = await startExampleDomain(t);
  const scute = await startChild(
    [
      process.execPath,
      MAIN,
      'run',
      '--workload-api',
      spiffe.endpoint('api'),
      '--inbound',
      '127.0.0.1:0',
      '--to',
      '127.0.0.1:1',
      '--allow',
      WEB,
    ],
    { env: { PATH: '/nowhere', NOTIFY_SOCKET: '/nowhere/notify' } },
  );
  t.after(() => scute.stop());

  await scute.line(/systemd cannot be told how Scute is/);
  await scute.line(/identity updated/);
  scute.signal('SIGTERM');
  assert.equal((await scute.exited).code, 0);
});

interface Activated {
  readonly web: Presented;
  /** Scute is started when the first connection comes. */
  readonly start: (sockets: readonly string[], names: string) => Promise<Child>;
}

async function prepareActivation(t: TestContext, listen: string): Promise<Activated> {
  const spiffe = await startExampleDomain(t);
  const echo = await startEcho(t);
  const file = join(await temporaryFolder(t), 'scute.yaml');
  const config = {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ name: 'in', listen, to: echo.address, allow: [WEB] }],
  };
  await writeFile(file, JSON.stringify(config));
  return {
    web: presented(await spiffe.issue(WEB)),
    async start(sockets, names) {
      const flags = sockets.flatMap((socket) => ['-l', socket]);
      const child = await startChild(
        [part('systemd-socket-activate'), ...flags, `--fdname=${names}`, process.execPath, MAIN, 'run', '-c', file],
        { env: PATH },
      );
      t.after(() => child.stop());
      await child.line(/^Listening on /);
      return child;
    },
  };
}

for (const kind of ['tcp', 'unix'] as const) {
  test(
    `a listener takes the ${kind} socket that systemd bound for it, with who waits there already`,
    needs('systemd-socket-activate'),
    async (t) => {
      const path = join(await temporaryFolder(t), 'in.sock');
      const bound = kind === 'tcp' ? `127.0.0.1:${await freePort()}` : path;
      const address = kind === 'tcp' ? bound : `unix://${path}`;
      const { start, web } = await prepareActivation(t, address);
      const scute = await start([bound], 'in');

      // It starts Scute.
      await dial(t, address);
      const client = await eventually(async () => {
        const attempt = tlsClient(t, address, web);
        attempt.end('hello');
        const { text } = await outcome(attempt);
        assert.equal(text, 'hello');
        return attempt;
      });
      assert.ok(client.closed);
      await scute.line(/"listener":"in","address":".*","message":"listening"/);
      scute.signal('SIGTERM');
      assert.equal((await scute.exited).code, 0);
    },
  );
}

test(
  'a socket that is not the one of the listener, or of no listener, is refused with what it is',
  needs('systemd-socket-activate'),
  async (t) => {
    const [one, other] = [await freePort(), await freePort()];
    const { start } = await prepareActivation(t, `127.0.0.1:${one}`);
    for (const [names, port, code, problem] of [
      ['in', other, 1, `a socket was passed that listens at 127.0.0.1:${other}, and the listener is to listen at 127.0.0.1:${one}`],
      [
        'database',
        one,
        64,
        'the service manager passes a socket named "database" (FileDescriptorName=), and there is no such listener; there is in',
      ],
    ] as const) {
      const scute = await start([`127.0.0.1:${port}`], names);
      await dial(t, `127.0.0.1:${port}`);
      assert.equal((await scute.exited).code, code);
      assert.ok(scute.stderr().includes(problem), scute.stderr());
    }
  },
);

test('the units are well formed, and as hard as they say', needs('systemd-analyze'), async () => {
  const unit = join(root, 'deploy/systemd/scute.service');
  const { stdout } = await run(part('systemd-analyze'), ['security', '--offline=true', '--threshold=30', '--no-pager', unit]);
  assert.match(stdout, /Overall exposure level for scute\.service: [0-2]\.\d (?:OK|SAFE|PERFECT)/);

  // Each directive has a comment above it, or stands below another that has.
  const text = await readFile(unit, 'utf8');
  const undescribed = text.split('\n\n').filter((block) => /^\w+=/m.test(block) && !block.includes('#') && !block.startsWith('[Install]'));
  assert.deepEqual(undescribed, []);
});
