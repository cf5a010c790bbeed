import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { test, type TestContext } from 'node:test';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { systemClock, type Clock } from '../lib/clock.ts';
import { createLogger } from '../telemetry/log/logger.ts';
import { createEvents } from '../telemetry/events/events.ts';
import { createMetrics } from '../telemetry/metrics/metrics.ts';
import type { NotifyFailure } from '../telemetry/log/files-records.ts';
import { Notifier } from './notifier.ts';
import { httpTarget } from './notify-http.ts';
import type { NotifyTarget } from './notify-target.ts';

const CONTEXT = { set: 'web', directory: '/run/web', spiffeId: 'spiffe://example.org/web', replacedAtMs: 0 };

async function startNotifier(t: TestContext, answers: (NotifyFailure | undefined)[] = []) {
  const clock = new FakeClock();
  const lines: string[] = [];
  const { logger } = await createLogger({ level: 'info', format: 'json', destination: { write: (line) => void lines.push(line) } });
  const { files: events } = createEvents({ logger, metrics: createMetrics({ version: '0' }), clock });
  const told: number[] = [];
  let isAnother = false;
  const target: NotifyTarget = {
    kind: 'signal',
    target: '/run/app.pid',
    tell() {
      told.push(clock.monotonic());
      isAnother = false;
      return Promise.resolve(answers.shift());
    },
    isAnother: () => Promise.resolve(isAnother),
  };
  const notifier = new Notifier({ set: 'web', target, delayMs: 200, events, clock, random: () => 1 });
  const stopping = new AbortController();
  const running = notifier.run(stopping.signal);
  t.after(async () => {
    stopping.abort();
    await running;
    assert.equal(clock.armed, 0);
  });
  /** Time goes on in small steps, and whoever wakes has his turn. */
  const pass = async (ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 50) {
      clock.advance(Math.min(left, 50));
      for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { notifier, told, pass, lines, replaceProcess: () => (isAnother = true) };
}

test('replacements that come together are told of once, when there was none for a while', async (t) => {
  const { notifier, told, pass } = await startNotifier(t);

  notifier.replaced(CONTEXT);
  await pass(150);
  notifier.replaced(CONTEXT);
  await pass(150);
  assert.deepEqual(told, []);
  assert.equal(notifier.status.isPending, true);
  await pass(100);

  assert.equal(told.length, 1);
  assert.equal(notifier.status.isPending, false);
});

test('replacements without end are told of all the same', async (t) => {
  const { notifier, told, pass } = await startNotifier(t);

  for (let count = 0; count < 30; count += 1) {
    notifier.replaced(CONTEXT);
    await pass(100);
  }

  assert.deepEqual(told, [2000]);
});

test('what fails is tried again, later and later, until it works; the log has one line for it', async (t) => {
  const failure: NotifyFailure = { reason: 'exit_code', detail: 'ended with exit code 1' };
  const { notifier, told, pass, lines } = await startNotifier(t, [failure, failure, failure]);

  notifier.replaced(CONTEXT);
  await pass(5000);

  assert.deepEqual(told, [200, 700, 1700, 3700]);
  assert.equal(lines.filter((line) => line.includes('not told of new files')).length, 1);
  assert.deepEqual([notifier.status.isPending, notifier.status.problem], [false, undefined]);
});

test('who takes the place of the one that was told is told as well', async (t) => {
  const { notifier, told, pass, replaceProcess } = await startNotifier(t);
  notifier.replaced(CONTEXT);
  await pass(300);

  replaceProcess();
  await pass(1500);

  assert.equal(told.length, 2);
});

test('over HTTP a 2xx counts; another answer, none in time and nobody there do not', async (t) => {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    if (request.url === '/chatty') for (let count = 0; count < 17; count += 1) response.writeProcessing();
    asked.push(`${request.method} ${request.url} ${String(request.headers['scute-set'])}`);
    response.writeHead(request.url === '/good' ? 204 : 302, { location: '/good' }).end();
  }).listen(0, '127.0.0.1');
  const silent = createTcpServer(() => {}).listen(0, '127.0.0.1');
  await Promise.all([once(server, 'listening'), once(silent, 'listening')]);
  t.after(() => {
    server.closeAllConnections();
    server.close();
    silent.close();
  });
  const base = (of: { address(): unknown }): string => `http://127.0.0.1:${(of.address() as AddressInfo).port}`;
  const ask = (url: string, clock: Clock = systemClock) =>
    httpTarget({ url, method: 'POST', timeoutMs: 60_000, clock }).tell(CONTEXT, new AbortController().signal);

  assert.equal(await ask(`${base(server)}/good`), undefined);
  assert.equal((await ask(`${base(server)}/other`))?.reason, 'bad_status');
  assert.deepEqual(asked, ['POST /good web', 'POST /other web']);
  assert.deepEqual(await ask(`${base(server)}/chatty`), {
    reason: 'failed',
    detail: `${base(server)}/chatty: more than 16 interim responses came`,
  });
  const clock = new FakeClock();
  const unanswered = ask(base(silent), clock);
  await eventually(() => assert.equal(clock.armed, 1));
  clock.advance(60_000);
  assert.equal((await unanswered)?.reason, 'timeout');
  const gone = base(server);
  await new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  });
  assert.equal((await ask(gone))?.reason, 'unreachable');
});
