/** `npm run fuzz -- [--cases N] [--seed S]`: HTTP/1.1 as Scute reads it, held against llhttp, for as long as one likes. */
import { parseArgs } from 'node:util';
import { checkCase } from './http-differential.ts';

const PROGRESS_MS = 30_000;

const { values } = parseArgs({ options: { cases: { type: 'string', default: '1000000' }, seed: { type: 'string', default: '1' } } });
const cases = Number(values.cases);
const seed = Number(values.seed);
if (!Number.isSafeInteger(cases) || cases < 1 || !Number.isSafeInteger(seed) || seed < 0) {
  process.stderr.write('usage: npm run fuzz -- [--cases N] [--seed S], both whole numbers\n');
  process.exitCode = 64;
} else run();

function run(): void {
  const begin = performance.now();
  let told = begin;
  let withMessages = 0;
  let messages = 0;
  for (let index = 0; index < cases; index++) {
    // A case is told by its number alone.
    const number = seed + index;
    try {
      const taken = checkCase(number);
      messages += taken;
      if (taken > 0) withMessages++;
    } catch (error) {
      process.stderr.write(`case ${number} (npm run fuzz -- --cases 1 --seed ${number}) after ${index} good ones: ${String(error)}\n`);
      process.exitCode = 1;
      return;
    }
    if (performance.now() - told < PROGRESS_MS) continue;
    told = performance.now();
    process.stdout.write(`${index + 1} cases in ${Math.round((told - begin) / 1000)} s\n`);
  }
  const seconds = (performance.now() - begin) / 1000;
  process.stdout.write(
    `${cases} cases from seed ${seed} in ${seconds.toFixed(1)} s: no difference; ${withMessages} had messages that Scute takes, ${messages} in all\n`,
  );
}
