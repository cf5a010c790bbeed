import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { eventually } from '../../../test/support/eventually.ts';

const LOGGER = new URL('logger.ts', import.meta.url).href;

/** A process whose standard output is a pipe, and whose standard error is read here. */
function start(t: TestContext, program: string): { child: ChildProcess; stderr: () => string } {
  const source = `import { createLogger } from ${JSON.stringify(LOGGER)};\nconst log = await createLogger({ level: 'info', format: 'json' });\n${program}`;
  const child = spawn(process.execPath, ['--input-type=module-typescript', '--eval', source], { stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  return { child, stderr: () => stderr };
}

async function readAll(child: ChildProcess): Promise<string> {
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  await once(child, 'close');
  return text;
}

test('every line is there, in order and whole, when the process ends by itself', async (t) => {
  const { child } = start(t, `for (let n = 0; n < 5000; n += 1) log.logger.info({ n, pad: 'ü'.repeat(100) }, 'line');`);

  const lines = (await readAll(child)).trimEnd().split('\n');

  assert.equal(lines.length, 5000);
  assert.deepEqual(
    lines.map((line) => (JSON.parse(line) as { n: number }).n),
    Array.from({ length: 5000 }, (_, n) => n),
  );
});

test('lines are there when the process dies of an exception', async (t) => {
  const { child } = start(t, `log.logger.info({}, 'last words'); throw new Error('bug');`);

  assert.match(await readAll(child), /last words/);
  assert.equal(child.exitCode, 1);
});

test('a line is written soon although the process goes on', async (t) => {
  const { child } = start(t, `log.logger.info({}, 'hello'); setInterval(() => {}, 1000);`);
  let text = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });

  await eventually(() => assert.match(text, /hello/));
});

test('a reader that stalls costs a bounded amount of memory, is counted, and does not keep the process from ending', async (t) => {
  const { child, stderr } = start(
    t,
    `for (let n = 0; n < 30000; n += 1) log.logger.info({ n, pad: 'x'.repeat(500) }, 'line');
     setTimeout(async () => {
       const kept = 30000 - log.dropped();
       await log.flush(AbortSignal.timeout(200));
       console.error(JSON.stringify({ kept, dropped: log.dropped() }));
     }, 50);`,
  );
  // Standard output is never read.
  const [code] = (await once(child, 'exit')) as [number];

  assert.equal(code, 0);
  const { kept, dropped } = JSON.parse(stderr().trim().split('\n').at(-1) ?? '') as { kept: number; dropped: number };
  assert.ok(kept * 600 < 5 << 20, `${kept} lines were kept`);
  assert.ok(dropped > 29_000, `${dropped} lines were counted as dropped`);
});

test('a reader that goes away does not end the process', async (t) => {
  const { child, stderr } = start(
    t,
    `let n = 0;
     setInterval(() => { log.logger.info({ n: n += 1, pad: 'x'.repeat(20_000) }, 'line'); if (log.dropped() > 3) { console.error('alive'); process.exit(0); } }, 5);`,
  );
  child.stdout?.destroy();

  const [code] = (await once(child, 'exit')) as [number];

  assert.equal(code, 0);
  await eventually(() => assert.match(stderr(), /alive/));
});
