/** `npm run bench`: measures Scute beside Envoy, HAProxy and nginx in one run. docs/performance.md tells how, and the results. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { everyPartRequired } from '../test/interop/parts.ts';
import { buildBundle } from '../test/support/build.ts';
import { messageOf } from '../src/lib/errors.ts';
import { startIdentities } from './certificates.ts';
import { startLoad } from './load.ts';
import { OVERHEAD_WORK, runOverhead } from './overhead.ts';
import type { Peer } from './peer.ts';
import { EXT_AUTHZ_WORK, runExtAuthz } from './ext-authz.ts';
import { FILES_WORK, runFiles } from './files.ts';
import { JWT_WORK, runJwt } from './jwt.ts';
import { envoy } from './peers/envoy.ts';
import { haproxy } from './peers/haproxy.ts';
import { nginx } from './peers/nginx.ts';
import { buildShipped, scute, SCUTE_BUNDLE, shipped } from './peers/scute.ts';
import { killAll, pinToLoadCore } from './process.ts';
import { compare, formatRow, TABLE_HEAD, type Named } from './report.ts';
import { runWork } from './run-work.ts';
import { POLICY_WORK, runPolicy } from './policy.ts';
import { RULES_WORK, runRules } from './rules.ts';
import { REJUDGE_WORK, runRejudge, SCRAPE_WORK } from './rejudge.ts';
import { runSds, SDS_WORK } from './sds.ts';
import type { Work } from './work.ts';
import { WORKS } from './works.ts';

const PEERS: readonly Peer[] = [envoy, haproxy, nginx];
const EXIT_FAILED = 1;
const EXIT_USAGE = 64;
const MAX_ROUNDS = 1000;

/** Measured without other proxies beside them. */
const ALONE = [SDS_WORK, EXT_AUTHZ_WORK, FILES_WORK, POLICY_WORK, REJUDGE_WORK, SCRAPE_WORK, OVERHEAD_WORK, RULES_WORK, JWT_WORK];

/** Scute stands beside itself. */
const BESIDE_ITSELF = [
  { work: OVERHEAD_WORK, run: runOverhead },
  { work: RULES_WORK, run: runRules },
  { work: JWT_WORK, run: runJwt },
];

const USAGE = `usage: npm run bench -- [--work NAME]... [--peer NAME]... [--rounds N] [--json]

  --work    what to measure, repeated or with commas; all if left out
${[...WORKS, ...ALONE].map((work) => `              ${work.name.padEnd(12)} ${work.what}`).join('\n')}
  --peer    whom to compare with, repeated or with commas: ${PEERS.map((peer) => peer.name).join(', ')}; all if left out
  --rounds  how often; the median counts (5)
  --json    one JSON object a line, for each work and peer

Work is counted per CPU-second of the proxy: pinned to core 0, the load and the application to core 1.
`;

interface Selection {
  readonly works: readonly Work[];
  readonly sds: boolean;
  readonly extAuthz: boolean;
  readonly files: boolean;
  readonly policy: boolean;
  readonly besideItself: typeof BESIDE_ITSELF;
  readonly turns: readonly (typeof REJUDGE_WORK | typeof SCRAPE_WORK)[];
  readonly peers: readonly Peer[];
  readonly rounds: number;
  readonly json: boolean;
}

class UsageError extends Error {
  override name = 'UsageError';
}

function select(argv: readonly string[]): Selection | 'help' {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      work: { type: 'string', multiple: true },
      peer: { type: 'string', multiple: true },
      rounds: { type: 'string', default: '5' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return 'help';
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > MAX_ROUNDS)
    throw new UsageError(`--rounds ${JSON.stringify(values.rounds)} is not a whole number from 1 to ${MAX_ROUNDS}`);
  const picked = pick<{ readonly name: string }>('work', [...WORKS, ...ALONE], values.work);
  const works = WORKS.filter((work) => picked.includes(work));
  return {
    works,
    sds: picked.includes(SDS_WORK),
    extAuthz: picked.includes(EXT_AUTHZ_WORK),
    files: picked.includes(FILES_WORK),
    policy: picked.includes(POLICY_WORK),
    besideItself: BESIDE_ITSELF.filter(({ work }) => picked.includes(work)),
    turns: [REJUDGE_WORK, SCRAPE_WORK].filter((work) => picked.includes(work)),
    peers: pick('peer', PEERS, values.peer),
    rounds,
    json: values.json,
  };
}

/** The named ones in the order of `all`; all if none is named. */
function pick<T extends { readonly name: string }>(option: string, all: readonly T[], given: readonly string[] | undefined): readonly T[] {
  if (given === undefined) return all;
  const names = new Set(given.flatMap((text) => text.split(',')));
  for (const name of names) {
    if (!all.some((one) => one.name === name))
      throw new UsageError(`--${option} ${JSON.stringify(name)} is unknown: one of ${all.map((one) => one.name).join(', ')}`);
  }
  return all.filter((one) => names.has(one.name));
}

/** Those that are installed, with their versions; the others are named on standard error. */
function installed(peers: readonly Peer[]): ReadonlyMap<Peer, string> {
  const found = new Map<Peer, string>();
  for (const peer of peers) {
    const version = peer.version();
    if (version === undefined) process.stderr.write(`bench: ${peer.name} is not installed and is skipped; to get it: ${peer.install}\n`);
    else found.set(peer, version);
  }
  return found;
}

function named({ name, notes }: Peer, version: string): Named {
  return { name, version, notes };
}

async function measure(
  { works, sds, extAuthz, files, policy, besideItself, turns, peers, rounds, json }: Selection,
  signal: AbortSignal,
): Promise<number> {
  // Some are measured alone.
  const others = installed(works.length === 0 ? [] : peers);
  if (works.length > 0 && others.size < peers.length && everyPartRequired) return EXIT_FAILED;
  if (works.length > 0 && others.size === 0) throw new Error('there is nobody to compare with');
  await buildBundle(SCUTE_BUNDLE);
  if (works.some(({ asShipped }) => asShipped === true)) await buildShipped();
  const ours = named(scute, scute.version() ?? 'unknown');
  const notes = new Set<string>();
  let written = 0;
  let failed = false;

  const directory = mkdtempSync(join(tmpdir(), 'scute-bench-'));
  const ending: (() => Promise<void> | void)[] = [() => rmSync(directory, { recursive: true, force: true })];
  try {
    pinToLoadCore();
    if (policy) {
      for (const row of await runPolicy({ rounds, version: ours.version })) {
        const text = `${`policy ${row.variant}`.padEnd(34)} ${row.ours} ${row.unit} [${row.spread.join(' .. ')}]`;
        process.stdout.write(`${json ? JSON.stringify(row) : text}\n`);
        written += 1;
      }
      if (works.length === 0 && !sds && !extAuthz && !files && besideItself.length === 0 && turns.length === 0) return 0;
    }
    for (const work of turns) {
      for (const row of await runRejudge({ work, directory, rounds, version: ours.version, signal })) {
        const times = `[${row.spread.join(' .. ')}], collector ${row.collectorMs} ms, ${row.wallMs} ms of wall time${row.tookMs === undefined ? '' : `, closed in ${row.tookMs} ms`}`;
        const text = `${`${row.work} ${row.variant}`.padEnd(46)} ${row.ours} ${row.unit} ${times}; ${row.connections} connections`;
        process.stdout.write(`${json ? JSON.stringify(row) : text}\n`);
        written += 1;
      }
    }
    if (turns.length > 0 && works.length === 0 && !sds && !extAuthz && !files && besideItself.length === 0) return 0;
    const identities = await startIdentities(directory);
    ending.unshift(() => identities.stop());
    const alone = { directory, identities, rounds, version: ours.version, signal };
    for (const [name, run] of [
      ['sds', sds ? runSds : undefined],
      ['ext-authz', extAuthz ? runExtAuthz : undefined],
      ['files', files ? runFiles : undefined],
    ] as const) {
      try {
        for (const row of (await run?.(alone)) ?? []) {
          const text = `${`${name} ${row.variant}`.padEnd(28)} ${row.ours} ${row.unit} [${row.spread.join(' .. ')}]`;
          process.stdout.write(`${json ? JSON.stringify(row) : text}\n`);
          written += 1;
        }
      } catch (cause) {
        if (signal.aborted) throw cause;
        process.stderr.write(`bench: ${name} failed: ${messageOf(cause)}\n`);
        failed = true;
      }
    }
    if (works.length === 0 && besideItself.length === 0) return failed ? EXIT_FAILED : 0;
    const load = await startLoad();
    ending.unshift(() => load.stop());
    if (!json) process.stdout.write(`${TABLE_HEAD}\n`);
    for (const { work, run } of besideItself) {
      try {
        for (const { row, problem } of await run({
          rounds,
          load,
          certificates: identities.certificates,
          version: ours.version,
          signal,
          domain: identities.domain,
        })) {
          process.stdout.write(`${json ? JSON.stringify(row) : formatRow(row)}\n`);
          if (row.note !== undefined) notes.add(row.note);
          written += 1;
          if (problem === undefined) continue;
          process.stderr.write(`bench: ${problem}\n`);
          failed = true;
        }
      } catch (cause) {
        if (signal.aborted) throw cause;
        process.stderr.write(`bench: ${work.name} failed: ${messageOf(cause)}\n`);
        failed = true;
      }
    }
    for (const work of works) {
      const able = [...others.keys()].filter(({ name }) => work.beside?.includes(name) ?? true);
      if (work.needs !== undefined && !able.some(({ name }) => name === work.needs)) {
        process.stderr.write(`bench: ${work.name} is skipped: it needs ${work.needs}\n`);
        continue;
      }
      const theirs = able.map((peer) => named(peer, others.get(peer) ?? 'unknown'));
      try {
        const { certificates } = identities;
        const forms = work.asShipped === true ? shipped : [scute];
        const measured = await runWork(work, { peers: [...forms, ...able], rounds, load, certificates, signal });
        for (const row of measured.flatMap((line) => forms.flatMap((form) => compare(line, { ...ours, name: form.name }, theirs)))) {
          process.stdout.write(`${json ? JSON.stringify(row) : formatRow(row)}\n`);
          if (row.note !== undefined) notes.add(row.note);
          written += 1;
        }
      } catch (cause) {
        if (signal.aborted) throw cause;
        // What was measured of the other works is not lost.
        process.stderr.write(`bench: ${work.name} failed: ${messageOf(cause)}\n`);
        failed = true;
      }
    }
  } finally {
    for (const end of ending) await end();
  }
  if (!json) for (const note of notes) process.stdout.write(`note: ${note}\n`);
  return failed || written === 0 ? EXIT_FAILED : 0;
}

async function main(): Promise<number> {
  let selection: Selection | 'help';
  try {
    selection = select(process.argv.slice(2));
  } catch (problem) {
    if (!(problem instanceof UsageError || problem instanceof TypeError)) throw problem;
    process.stderr.write(`bench: ${problem.message}\n\n${USAGE}`);
    return EXIT_USAGE;
  }
  if (selection === 'help') {
    process.stdout.write(USAGE);
    return 0;
  }
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => {
      stop.abort(new Error(name));
      // What is being measured fails at once, and everything is removed on the way out.
      killAll();
    });
  }
  try {
    return await measure(selection, stop.signal);
  } catch (cause) {
    process.stderr.write(`bench: ${stop.signal.aborted ? `stopped by ${messageOf(stop.signal.reason)}` : messageOf(cause)}\n`);
    return EXIT_FAILED;
  } finally {
    killAll();
  }
}

process.exitCode = await main();
