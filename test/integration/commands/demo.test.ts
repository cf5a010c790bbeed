import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { needs } from '../../interop/parts.ts';
import { type Child, onTerminal, runChild, startChild } from '../../support/child.ts';

const MAIN = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));

interface Demo {
  readonly child: Child;
  /** Where it makes its files. */
  readonly temporary: string;
  /** The commands that it printed, by the comment above each. */
  readonly commands: ReadonlyMap<string, string>;
}

async function startDemo(t: TestContext): Promise<Demo> {
  const temporary = await mkdtemp(join(tmpdir(), 'demo-'));
  t.after(() => rm(temporary, { recursive: true, force: true }));
  const env = { PATH: process.env['PATH'] ?? '', TMPDIR: temporary };
  const child = await startChild([process.execPath, '--disable-sigusr1', MAIN, 'demo'], { env });
  t.after(() => child.stop());
  await child.line(/^READY/);
  const lines = child.lines();
  const commands = lines.flatMap((line, index): [string, string][] => (line.startsWith('curl ') ? [[lines[index - 1] ?? '', line]] : []));
  return { child, temporary, commands: new Map(commands) };
}

test('the commands that scute demo prints do what it says of them', needs('curl'), async (t) => {
  const { child, commands } = await startDemo(t);
  const run = (about: RegExp) => {
    const [, command] = [...commands].find(([comment]) => about.test(comment)) ?? [];
    assert.ok(command !== undefined, `no command with a comment like ${about}`);
    return runChild(['sh', '-c', command.replace('curl', 'curl --silent --max-time 10')]);
  };

  const allowed = await run(/^# Allowed/);
  assert.match(allowed.stdout, /^Hello, spiffe:\/\/example\.org\/frontend\./);
  assert.match(allowed.stdout, /^ {2}GET \/hello$/m);
  assert.match(allowed.stdout, /^ {2}x-spiffe-id: spiffe:\/\/example\.org\/frontend$/m);

  const refused = await run(/^# Refused: .*not on the allow list/);
  assert.match(refused.stdout, /^HTTP\/1\.1 403 Forbidden\r$/m);
  assert.match(refused.stdout, /^scute: not_allowed: spiffe:\/\/example\.org\/stranger /m);
  await child.line(/"peer_id":"spiffe:\/\/example\.org\/stranger".*"status":403.*"reason":"not_allowed"/);

  const anonymous = await run(/^# Refused: .*without a client certificate/);
  assert.equal(anonymous.stdout, '');
  assert.notEqual(anonymous.code, 0);
  await child.line(/"reason":"no_certificate"/);

  assert.match((await run(/^# Metrics/)).stdout, /^scute_build_info\{/m);
  assert.match((await run(/^# Its status/)).stdout, /readyz check passed/);
  assert.match((await run(/^# Its configuration/)).stdout, /spiffe:\/\/example\.org\/app/);
  assert.equal(commands.size, 6);
  assert.doesNotMatch(child.stdout() + child.stderr(), /PRIVATE KEY/);
});

test(
  'on a terminal, nothing stands before the commands that scute demo prints, and the log after them is for people',
  needs('script'),
  async (t) => {
    const temporary = await mkdtemp(join(tmpdir(), 'demo-'));
    t.after(() => rm(temporary, { recursive: true, force: true }));
    const env = { PATH: process.env['PATH'] ?? '', TMPDIR: temporary };
    await using child = await startChild(onTerminal([process.execPath, '--disable-sigusr1', MAIN, 'demo']), { env });

    await child.line(/INFO.*identity updated/);
    child.write('\u0003');
    await child.exited;

    const lines = child.stdout().split('\r\n');
    const log = lines.findIndex((line) => line.includes('"listener"'));
    assert.match(lines.find((line) => line !== '') ?? '', /^Dashboard: http:\/\/127\.0\.0\.1:\d+\/$/);
    assert.ok(log > lines.findIndex((line) => line.startsWith('READY.')));
    assert.ok(!lines.some((line) => line.startsWith('{')), child.stdout());
  },
);

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`scute demo ends cleanly on ${signal} and leaves no file behind`, async (t) => {
    const { child, temporary } = await startDemo(t);
    assert.equal((await readdir(temporary)).length, 1);

    child.signal(signal);
    const exit = await child.exited;

    assert.equal(exit.code, 0);
    assert.deepEqual(await readdir(temporary), []);
  });
}

test('a second signal ends scute demo at once, and still leaves no file behind', async (t) => {
  const { child, temporary } = await startDemo(t);

  child.signal('SIGINT');
  child.signal('SIGTERM');
  const exit = await child.exited;

  assert.ok(exit.code === 0 || exit.code === 130 || exit.code === 143, `exit code ${exit.code}`);
  assert.deepEqual(await readdir(temporary), []);
});
