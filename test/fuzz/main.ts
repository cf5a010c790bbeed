/** `npm run fuzz -- [--subject http|policy|config|hpack|jwt] [--cases N] [--seed S]`, for as long as one likes: each subject held against another reading, or against any bytes. */
import { parseArgs } from 'node:util';
import { HpackDifferential } from './hpack-differential.ts';
import { checkConfiguration, SUBJECTS as PARTS } from './configurations.ts';
import { checkCase } from './http-differential.ts';
import { checkPolicyCase, POLICY_ANSWERS } from './policy-differential.ts';
import { Draws } from './random.ts';
import { checkTokenCase } from './tokens.ts';

const PROGRESS_MS = 30_000;

interface Subject {
  /** Throws, or rejects, if something differs. A case is told by its number alone. */
  check(number: number): void | Promise<void>;
  /** Throws if something differs that was not looked at yet. */
  finish?(): void;
  /** What there was in all the cases, in words. */
  summary(): string;
}

const SUBJECTS: Readonly<Record<string, () => Subject>> = {
  /** HTTP/1.1 as Scute reads it, and llhttp. */
  http() {
    let withMessages = 0;
    let messages = 0;
    return {
      check(number) {
        const taken = checkCase(number);
        messages += taken;
        if (taken > 0) withMessages++;
      },
      summary: () => `${withMessages} had messages that Scute takes, ${messages} in all`,
    };
  },
  /** Compiled policies, and the rules as they are written. */
  policy() {
    const answers = { allow: 0, audit: 0, denied: 0, not_allowed: 0 };
    return {
      check(number) {
        const seen = checkPolicyCase(number);
        for (const answer of POLICY_ANSWERS) answers[answer] += seen[answer];
      },
      summary: () => POLICY_ANSWERS.map((answer) => `${answers[answer]} × ${answer}`).join(', '),
    };
  },
  /** Configurations, policies and lists as they are read, whatever is written. */
  config() {
    const good = new Map<string, number>();
    return {
      check(number) {
        const { subject, isGood } = checkConfiguration(new Draws(number));
        if (isGood) good.set(subject, (good.get(subject) ?? 0) + 1);
      },
      summary: () => PARTS.map((part) => `${part} ${good.get(part) ?? 0} × good`).join(', '),
    };
  },
  /** HPACK, and golang.org/x/net, which `npm run test:parts` builds. */
  hpack() {
    const differential = new HpackDifferential();
    return {
      check: (number) => differential.check(number),
      finish: () => differential.finish(),
      summary() {
        const seen = [...differential.seen].map(([said, times]) => `${times} × ${said}`);
        const met = [...differential.differences].toSorted();
        return `blocks ${seen.join(', ')}; ${differential.written} written; met ${met.join(', ')}`;
      },
    };
  },
  /** JWT-SVIDs, and the validator of the embedded trust domain. */
  jwt() {
    const verdicts = new Map<string, number>();
    return {
      async check(number) {
        const verdict = await checkTokenCase(number);
        verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
      },
      summary: () => [...verdicts].map(([verdict, count]) => `${count} × ${verdict}`).join(', '),
    };
  },
};

const { values } = parseArgs({
  options: {
    subject: { type: 'string', default: 'http' },
    cases: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
  },
});
const cases = Number(values.cases);
const seed = Number(values.seed);
const subject = Object.hasOwn(SUBJECTS, values.subject) ? SUBJECTS[values.subject]?.() : undefined;
if (subject === undefined || !Number.isSafeInteger(cases) || cases < 1 || !Number.isSafeInteger(seed) || seed < 0) {
  process.stderr.write(
    `usage: npm run fuzz -- [--subject ${Object.keys(SUBJECTS).join('|')}] [--cases N] [--seed S], both whole numbers\n`,
  );
  process.exitCode = 64;
} else await run(subject);

async function run(of: Subject): Promise<void> {
  const begin = performance.now();
  let told = begin;
  for (let index = 0; index < cases; index++) {
    const number = seed + index;
    try {
      await of.check(number);
      if (index === cases - 1) of.finish?.();
    } catch (error) {
      const again = `npm run fuzz -- --subject ${values.subject} --cases 1 --seed ${number}`;
      process.stderr.write(`case ${number} (${again}) after ${index} good ones: ${String(error)}\n`);
      process.exitCode = 1;
      return;
    }
    if (performance.now() - told < PROGRESS_MS) continue;
    told = performance.now();
    process.stdout.write(`${index + 1} cases in ${Math.round((told - begin) / 1000)} s\n`);
  }
  const seconds = (performance.now() - begin) / 1000;
  process.stdout.write(`${cases} cases from seed ${seed} in ${seconds.toFixed(1)} s: nothing wrong; ${of.summary()}\n`);
}
