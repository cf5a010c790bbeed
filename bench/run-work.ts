import { readdirSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import type { Load } from './load.ts';
import type { CertificateFiles, Peer } from './peer.ts';
import { startSubject } from './subject.ts';
import type { Figures, Line, Subject, Work } from './work.ts';

/** Rounds that are not counted, for a proxy that is kept: a sidecar runs for days, so code that compiles while it runs has compiled. */
const WARM_ROUNDS = 2;

/** One line of one work. */
export interface Measured {
  readonly work: Work;
  readonly line: Line;
  /** By peer name; one value a round. */
  readonly values: ReadonlyMap<string, readonly number[]>;
  readonly tls: ReadonlyMap<string, string>;
  /** By peer name; in how many rounds the load was late itself. */
  readonly lateRounds: ReadonlyMap<string, number>;
}

export interface RunOptions {
  readonly peers: readonly Peer[];
  readonly rounds: number;
  readonly load: Load;
  readonly certificates: CertificateFiles;
  readonly signal: AbortSignal;
}

/** Runs one work: in each round all peers one after the other, in an order that rotates. */
export async function runWork(work: Work, { peers, rounds, load, certificates, signal }: RunOptions): Promise<Measured[]> {
  const directories: string[] = [];
  const tls = new Map<string, string>();
  const lateRounds = new Map<string, number>();
  const start = async (peer: Peer): Promise<Subject> => {
    const subject = await startSubject(peer, { work, load, certificates, directories });
    tls.set(peer.name, subject.tls);
    return subject;
  };
  const kept = new Map<Peer, Subject>();
  const values = work.lines.map(() => new Map<string, number[]>(peers.map((peer) => [peer.name, []])));
  try {
    if (work.keep) for (const peer of peers) kept.set(peer, await start(peer));
    for (let round = work.keep ? -WARM_ROUNDS : 0; round < rounds; round++) {
      const offered = await findOffer(work, kept);
      for (let i = 0; i < peers.length; i++) {
        signal.throwIfAborted();
        const peer = peers[(i + round + WARM_ROUNDS) % peers.length];
        if (peer === undefined) continue;
        const figures = await measure(work, kept.get(peer), () => start(peer), offered);
        directories.forEach(cutLogs);
        if (round < 0) continue;
        figures.values.forEach((value, line) => values[line]?.get(peer.name)?.push(value));
        if (figures.late === true) lateRounds.set(peer.name, (lateRounds.get(peer.name) ?? 0) + 1);
      }
    }
  } finally {
    await Promise.all([...kept.values()].map(({ proxy }) => proxy.stop()));
    for (const directory of directories) rmSync(directory, { recursive: true, force: true });
  }
  return work.lines.map((line, i) => ({ work, line, values: values[i] ?? new Map(), tls, lateRounds }));
}

async function measure(work: Work, subject: Subject | undefined, start: () => Promise<Subject>, offered: number): Promise<Figures> {
  if (!work.keep) return work.measure(start);
  if (subject === undefined) throw new Error(`${work.name} keeps its proxies`);
  return work.measure(subject, offered);
}

/** 0 for a work that offers as much as comes through. */
async function findOffer(work: Work, kept: ReadonlyMap<Peer, Subject>): Promise<number> {
  if (!work.keep || work.findOffer === undefined) return 0;
  for (const [peer, subject] of kept) if (peer.name === work.needs) return work.findOffer(subject);
  throw new Error(`${work.name} has nobody to find its offer`);
}

/** A line for each request fills a disk. */
function cutLogs(directory: string): void {
  for (const name of readdirSync(directory)) if (name.endsWith('.log')) truncateSync(join(directory, name));
}
