/** `--work overhead`: what it costs the traffic that somebody looks. Scute stands beside itself. */
import type { Load } from './load.ts';
import { watch, type Seen, type Watching } from './dashboard-client.ts';
import { median } from './median.ts';
import type { CertificateFiles, Peer } from './peer.ts';
import { metricsSocket, scuteWith } from './peers/scute.ts';
import { freePort } from './process.ts';
import { compare, type Named, type Row } from './report.ts';
import { runWork } from './run-work.ts';
import type { Figures, Subject, Work } from './work.ts';
import { HTTP1, rates, REQUESTS, TCP } from './works.ts';

/** Of what comes through when nobody looks. */
const LEAST_RATIO = 0.97;

export const OVERHEAD_WORK = {
  name: 'overhead',
  what: 'tcp and http1 with a dashboard open and metrics scraped each second, beside Scute with neither listener',
} as const;

/** As long as the page takes until it has asked for everything again. */
const WINDOW_MS = 5000;
/** Requests a second that leave a core nearly idle, so that what those who look take of it can be seen; and the page has changes to ask about. */
const SPARSE_RATE = 100;
const VARIANTS = [
  ['tcp', TCP],
  ['http1', HTTP1],
] as const;

/** For works in which Scute stands beside itself. */
export interface BesideItself {
  readonly rounds: number;
  readonly load: Load;
  readonly certificates: CertificateFiles;
  readonly version: string;
  readonly signal: AbortSignal;
}

export interface Beside {
  readonly row: Row;
  /** That it costs more than it may. */
  readonly problem: string | undefined;
}

/** In each round with and without, in turns. */
export async function runOverhead({ rounds, load, certificates, version, signal }: BesideItself): Promise<readonly Beside[]> {
  const found: Beside[] = [];
  for (const [variant, how] of VARIANTS) {
    const onlookers = new Onlookers(await freePort());
    const without = scuteWith('without', () => ({}));
    const work: Work = {
      ...OVERHEAD_WORK,
      ...how,
      lines: [{ ...REQUESTS, variant }],
      keep: true,
      measure: (subject) => onlookers.measure(subject),
    };
    try {
      const measured = await runWork(work, { peers: [onlookers.watched, without], rounds, load, certificates, signal });
      for (const row of measured.flatMap((line) => compare(line, named(onlookers.watched), [named(without)]))) {
        const note = `${OVERHEAD_WORK.name} ${variant}: ${onlookers.summary()}`;
        const isDear = row.ratio < LEAST_RATIO;
        const problem = isDear
          ? `${OVERHEAD_WORK.name} ${variant}: ${row.ratio} of what comes through without, and ${LEAST_RATIO} is the least`
          : undefined;
        found.push({ row: { ...row, note }, problem });
      }
    } finally {
      onlookers.stop();
    }
  }
  return found;

  function named({ name, notes }: Peer): Named {
    return { name, version, notes };
  }
}

/** A Scute with both listeners, and those who look at it while it is measured. */
class Onlookers {
  readonly watched: Peer;
  readonly #adminPort: number;
  #socket = '';
  #watching: Watching | undefined;
  /** Milliseconds of CPU time a second: what the same Scute is busier while somebody looks. */
  readonly #taken: number[] = [];
  readonly #all = { events: 0, answers: 0, scrapes: 0, bytes: 0, ms: 0 };

  constructor(adminPort: number) {
    this.#adminPort = adminPort;
    this.watched = scuteWith('scute', (directory) => {
      this.#socket = metricsSocket(directory);
      return { metrics: { listen: `unix://${this.#socket}` }, admin: { listen: `127.0.0.1:${adminPort}` } };
    });
  }

  async measure(subject: Subject): Promise<Figures> {
    const jobs = [{ connections: 64, windowMs: WINDOW_MS }];
    if (subject.peer !== this.watched) return await rates(subject, jobs);
    const watching = watch({ adminPort: this.#adminPort, metricsSocket: this.#socket });
    this.#watching = watching;
    const before = watching.seen();
    const beganAtMs = performance.now();
    const figures = await rates(subject, jobs);
    this.#add(before, watching.seen(), performance.now() - beganAtMs);
    const whileWatched = await sparselyBusy(subject);
    watching.seen();
    watching.stop();
    this.#taken.push(whileWatched - (await sparselyBusy(subject)));
    return figures;
  }

  /** How much they were told. */
  summary(): string {
    const { ms } = this.#all;
    const each = (value: number): string => ((value * 1000) / ms).toFixed(1);
    const { events, answers, scrapes, bytes } = this.#all;
    const told = `in a second ${each(events)} events, ${each(answers)} answers to the page and ${each(scrapes)} scrapes, ${each(bytes / 1024)} KiB together`;
    const taken = [median(this.#taken), Math.min(...this.#taken), Math.max(...this.#taken)].map((busyMs) => busyMs.toFixed(1));
    return `${told}, for ${taken[0]} ms of CPU time in each (${taken[1]} .. ${taken[2]}) beside ${SPARSE_RATE} requests`;
  }

  stop(): void {
    this.#watching?.stop();
  }

  /** A measurement that nobody looked at would say nothing. */
  #add(before: Seen, after: Seen, ms: number): void {
    for (const what of ['events', 'answers', 'scrapes', 'bytes'] as const) {
      const more = after[what] - before[what];
      if (more === 0) throw new Error(`there were no ${what} while it was measured`);
      this.#all[what] += more;
    }
    this.#all.ms += ms;
  }
}

/** Milliseconds of CPU time in a second of little traffic. */
async function sparselyBusy(subject: Subject): Promise<number> {
  const { cpuSeconds, wallSeconds } = await subject.run('offer', {
    connections: 10,
    rate: SPARSE_RATE,
    warmUpMs: 2000,
    windowMs: WINDOW_MS,
  });
  return (cpuSeconds * 1000) / wallSeconds;
}
