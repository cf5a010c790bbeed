import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';

const OUTPUT = new URL('output.ts', import.meta.url).href;

test('a reader that stalls costs a bounded amount of memory, and what it reads later is whole', async (t) => {
  const program = `import { processOutput } from ${JSON.stringify(OUTPUT)};
    const { stdout } = processOutput(() => {});
    for (let n = 0; n < 20_000; n += 1) stdout(n + 'x'.repeat(1000) + '\\n');
    console.error(process.stdout.writableLength);`;
  const child = spawn(process.execPath, ['--input-type=module-typescript', '--eval', program], { stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  const [kept] = (await once(child.stderr.setEncoding('utf8'), 'data')) as [string];

  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  await once(child, 'close');

  assert.ok(Number(kept) > 1 << 20 && Number(kept) < 5 << 20, kept);
  const lines = text.trimEnd().split('\n');
  assert.ok(lines.length < 6000);
  assert.deepEqual(
    lines,
    Array.from(lines, (_, n) => `${n}${'x'.repeat(1000)}`),
  );
});
