/** `--work policy`: what it costs to ask a policy, in this process. Nobody stands beside it: a proxy that is asked over a socket answers another question. */
import { IdsLineReader } from '../src/config/policy/ids-file.ts';
import { inTurns } from '../src/config/in-turns.ts';
import { Authorisation } from '../src/policy/judge.ts';
import { compileInTurns, compilePolicy, type Policy, type PolicySpec } from '../src/policy/policy.ts';
import { requireSpiffeId, type SpiffeId } from '../src/spiffe/spiffe-id.ts';
import { watchTurns } from '../test/support/turns.ts';
import { median } from './median.ts';
import { aloneRow, type AloneRow } from './report.ts';

export const POLICY_WORK = {
  name: 'policy',
  what: 'look-ups among 10 to 1,000,000 SPIFFE IDs, in the policy and in a list, and 10,000 patterns; a request among 1,000 rules for the peer; compiling',
} as const;

/** One line of `--json`. `ours` is the median. */
export type PolicyRow = AloneRow<'ns' | 'ms' | 'bytes/entry'>;

const SIZES = [10, 1000, 100_000, 1_000_000];
const PATTERNS = 10_000;
const RULES = 1000;
/** Of some 32 KiB. */
const LINES_READ = 650;
const BATCH = 1000;
/** Batches a round; the first ones, while code is compiled, do not count. */
const BATCHES = 60;
const WARM_BATCHES = 20;
const WEB = requireSpiffeId('spiffe://example.org/web');

export async function runPolicy({ rounds, version }: { readonly rounds: number; readonly version: string }): Promise<readonly PolicyRow[]> {
  const rows: PolicyRow[] = [];
  const add = (variant: string, unit: PolicyRow['unit'], values: readonly number[]): void => {
    rows.push(aloneRow('policy', { variant, unit, values, rounds, version }));
  };
  const each = <T>(measure: () => T): readonly T[] => Array.from({ length: rounds }, measure);

  // First, while there is no other garbage to collect.
  await measureRulesInTurns(add);
  await measureList(SIZES.at(-1) ?? 0, add, each);
  for (const size of SIZES) {
    const allow = Array.from({ length: size }, (_, index) => idOf(index));
    const { policy, ms, bytes } = compiled({ allow });
    add(
      `${size} ids`,
      'ns',
      each(() => lookUps(policy, (draw) => idOf(draw < 0.5 ? Math.floor(draw * 2 * size) : size + Math.floor(draw * size)))),
    );
    if (size === SIZES.at(-1)) {
      add(`${size} ids compiled`, 'ms', [ms]);
      add(`${size} ids kept`, 'bytes/entry', [bytes / size]);
    }
  }
  const patterns = Array.from({ length: PATTERNS }, (_, index) => `spiffe://example.org/ns/${index}/*/sa/**`);
  const ofPatterns = compiled({ allow: patterns }).policy;
  add(
    `${PATTERNS} patterns`,
    'ns',
    each(() => lookUps(ofPatterns, (draw) => `spiffe://example.org/ns/${Math.floor(draw * 2 * PATTERNS)}/pod/sa/web`)),
  );

  const rules = Array.from({ length: RULES }, (_, index) => ({ peer: WEB, methods: ['GET', 'HEAD'], paths: [`/service${index}/*/items`] }));
  for (const [variant, spec] of [
    ['request without rules', { allow: [WEB] }],
    [`request, ${RULES} rules`, { allow: rules }],
  ] as const) {
    const { policy } = compiled(spec);
    add(
      variant,
      'ns',
      each(() => requests(policy)),
    );
  }
  return rows;
}

type Add = (variant: string, unit: PolicyRow['unit'], values: readonly number[]) => void;

/** A list as an `idsFile` has it: what it costs to ask, to keep, and others while it is made. */
async function measureList(size: number, add: Add, each: (measure: () => number) => readonly number[]): Promise<void> {
  const before = process.memoryUsage().arrayBuffers;
  const reader = new IdsLineReader('ids.txt');
  const turns = watchTurns();
  const startedMs = performance.now();
  // As many lines as are read at once.
  for (let from = 0; from < size; from += LINES_READ) {
    const lines = Array.from({ length: Math.min(LINES_READ, size - from) }, (_, index) => `${idOf(from + index)}\n`);
    reader.push(Buffer.from(lines.join('')));
    await new Promise((resolve) => setImmediate(resolve));
  }
  const ids = await inTurns(reader.builder.build('ids.txt', '', undefined));
  const ms = performance.now() - startedMs;
  const longest = turns.stop();
  const policy = compilePolicy({ allow: [{ idsFile: 'ids.txt' }] }, { idsOf: () => ids });
  if (!policy.ok) throw new Error(JSON.stringify(policy.error[0]));
  add(
    `${size} ids in a list`,
    'ns',
    each(() => lookUps(policy.value, (draw) => idOf(draw < 0.5 ? Math.floor(draw * 2 * size) : size + Math.floor(draw * size)))),
  );
  add(`${size} ids in a list made`, 'ms', [ms]);
  add(`${size} ids in a list, longest turn`, 'ms', [longest]);
  add(`${size} ids in a list kept`, 'bytes/entry', [(process.memoryUsage().arrayBuffers - before) / size]);
}

async function measureRulesInTurns(add: Add): Promise<void> {
  const allow = Array.from({ length: PATTERNS }, (_, index) => ({
    peer: `spiffe://example.org/ns/${index}/*/sa/**`,
    methods: ['GET', 'HEAD'],
    paths: [`/service${index}/*/items`],
  }));
  const turns = watchTurns();
  const compiling = await inTurns(compileInTurns({ allow }));
  const longest = turns.stop();
  if (!compiling.ok) throw new Error(JSON.stringify(compiling.error[0]));
  add(`${PATTERNS} rules compiled in turns, longest turn`, 'ms', [longest]);
}

function idOf(index: number): string {
  return `spiffe://example.org/ns/default/sa/workload-${index}`;
}

function compiled(spec: PolicySpec): { readonly policy: Policy; readonly ms: number; readonly bytes: number } {
  const before = heapBytes();
  const startedMs = performance.now();
  const result = compilePolicy(spec);
  const ms = performance.now() - startedMs;
  if (!result.ok) throw new Error(JSON.stringify(result.error[0]));
  return { policy: result.value, ms, bytes: heapBytes() - before };
}

/** Without what nobody holds, where that can be asked for (`--expose-gc`). */
function heapBytes(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}

/** Nanoseconds of a look-up, the median of batches: of strings that nobody has seen, as they come from certificates. */
function lookUps(policy: Policy, make: (draw: number) => string): number {
  return batches(
    () => fresh(make(Math.random())) as SpiffeId,
    (peer) => policy.forPeer(peer).judgeConnection(0).allowed,
  );
}

function requests(policy: Policy): number {
  const authorisation = new Authorisation(
    WEB,
    () => policy,
    () => 0,
  );
  return batches(
    () => fresh(`/service${Math.floor(Math.random() * RULES * 2)}/42/items?page=1`),
    (target) => authorisation.request('GET', target, 'api').ok,
  );
}

function batches<T>(make: () => T, ask: (of: T) => boolean): number {
  const times: number[] = [];
  let answers = 0;
  for (let batch = 0; batch < BATCHES; batch++) {
    const asked = Array.from({ length: BATCH }, make);
    const started = process.hrtime.bigint();
    for (const each of asked) if (ask(each)) answers++;
    const ended = process.hrtime.bigint();
    if (batch >= WARM_BATCHES) times.push(Number(ended - started) / BATCH);
  }
  // So that no look-up is left out as useless.
  if (answers > BATCHES * BATCH) throw new Error('more answers than questions');
  return median(times);
}

/** A string whose hash was never asked for. */
function fresh(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}
