import { mkdtempSync, readdirSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Job, Load } from './load.ts';
import type { CertificateFiles, Peer, Protocol } from './peer.ts';
import { freePort, residentBytes, startProxy, type RunningProxy } from './process.ts';

/** What one work needs to measure one proxy. */
interface Bench {
  readonly load: Load;
  readonly certificates: CertificateFiles;
  job(peer: Peer, work: Job['work'], proxy: RunningProxy, more: Partial<Job>): Job;
  /** Starts a proxy and waits until it has answered one request. */
  start(peer: Peer): Promise<Started>;
}

interface Started {
  readonly proxy: RunningProxy;
  readonly servingInMs: number;
  readonly tls: string;
}

/** One line of the table. */
export interface Line {
  /** Distinguishes the lines of one work; empty when there is one. */
  readonly variant: string;
  readonly unit: string;
  readonly better: 'higher' | 'lower';
}

export interface Figures {
  /** One for each line of the work. */
  readonly values: readonly number[];
  readonly tls: string;
}

export interface Work {
  readonly name: string;
  readonly what: string;
  readonly lines: readonly Line[];
  /** How the proxies forward. */
  readonly protocol: Protocol;
  /** What the load speaks. */
  readonly client: Job['protocol'];
  /** Whether a proxy is kept through all rounds (warm), or `measure` starts its own in each. */
  readonly keep: boolean;
  measure(bench: Bench, peer: Peer, kept: RunningProxy | undefined): Promise<Figures>;
}

const MIB = 1024 * 1024;
const IDLE_CONNECTIONS = 4000;
const STARTS_PER_ROUND = 5;
const SERVING_LIMIT_MS = 10_000;
/** Rounds that are not counted, for a proxy that is kept: a sidecar runs for days, so code that compiles while it runs has compiled. */
const WARM_ROUNDS = 2;

export const WORKS: readonly Work[] = [
  {
    name: 'tcp',
    what: '128 bytes there and back, 64 kept connections',
    lines: [{ variant: '', unit: 'requests/cpu-s', better: 'higher' }],
    protocol: 'tcp',
    client: 'frames',
    keep: true,
    measure: async (bench, peer, kept) => rate(bench, peer, kept, [{ work: 'exchange', connections: 64 }]),
  },
  {
    name: 'bulk-tcp',
    what: '1 MiB at a time, 8 kept connections',
    lines: [
      { variant: 'down', unit: 'MiB/cpu-s', better: 'higher' },
      { variant: 'up', unit: 'MiB/cpu-s', better: 'higher' },
    ],
    protocol: 'tcp',
    client: 'frames',
    keep: true,
    measure: async (bench, peer, kept) =>
      rate(bench, peer, kept, [
        { work: 'exchange', connections: 8, downBytes: MIB },
        { work: 'exchange', connections: 8, upBytes: MIB },
      ]),
  },
  {
    name: 'handshake',
    what: 'a new mTLS connection, a connection to the application, one request; 16 clients',
    lines: [{ variant: '', unit: 'connections/cpu-s', better: 'higher' }],
    protocol: 'tcp',
    client: 'frames',
    keep: true,
    measure: async (bench, peer, kept) => rate(bench, peer, kept, [{ work: 'connect', connections: 16 }]),
  },
  {
    name: 'http1',
    what: 'a small GET over HTTP/1.1 with the caller set by the proxy, 64 kept connections; with 1.5 KiB of cookies and tracing fields',
    lines: [
      { variant: '', unit: 'requests/cpu-s', better: 'higher' },
      { variant: 'cookies', unit: 'requests/cpu-s', better: 'higher' },
    ],
    protocol: 'http',
    client: 'http1',
    keep: true,
    measure: async (bench, peer, kept) =>
      rate(bench, peer, kept, [
        { work: 'exchange', connections: 64 },
        { work: 'exchange', connections: 64, cookies: true },
      ]),
  },
  {
    name: 'bulk-http',
    what: 'a body of 1 MiB over HTTP/1.1, 8 kept connections',
    lines: [
      { variant: 'down', unit: 'MiB/cpu-s', better: 'higher' },
      { variant: 'up', unit: 'MiB/cpu-s', better: 'higher' },
    ],
    protocol: 'http',
    client: 'http1',
    keep: true,
    measure: async (bench, peer, kept) =>
      rate(bench, peer, kept, [
        { work: 'exchange', connections: 8, downBytes: MIB },
        { work: 'exchange', connections: 8, upBytes: MIB },
      ]),
  },
  {
    name: 'h2-to-http1',
    what: 'a small GET over HTTP/2 to an application that speaks HTTP/1.1; 64 connections of one stream, 16 of 16 streams',
    lines: [
      { variant: '64x1', unit: 'requests/cpu-s', better: 'higher' },
      { variant: '16x16', unit: 'requests/cpu-s', better: 'higher' },
    ],
    protocol: 'http',
    client: 'http2',
    keep: true,
    measure: async (bench, peer, kept) =>
      rate(bench, peer, kept, [
        { work: 'exchange', connections: 64, streams: 1 },
        { work: 'exchange', connections: 16, streams: 16 },
      ]),
  },
  {
    name: 'memory',
    what: `resident after start, and what each of ${IDLE_CONNECTIONS} idle mTLS connections adds`,
    lines: [
      { variant: 'idle', unit: 'MiB', better: 'lower' },
      { variant: 'connection', unit: 'KiB/connection', better: 'lower' },
    ],
    protocol: 'tcp',
    client: 'frames',
    keep: false,
    measure: async (bench, peer) => {
      const { proxy } = await bench.start(peer);
      try {
        // It has answered one request: what an idle proxy holds that has done its work once.
        await new Promise((resolve) => setTimeout(resolve, 2000));
        const idle = residentBytes(proxy.pids());
        const held = await bench.load.run(bench.job(peer, 'idle', proxy, { connections: IDLE_CONNECTIONS, windowMs: 2000 }));
        return { values: [idle / MIB, (held.rssBytes - idle) / 1024 / held.count], tls: held.tls };
      } finally {
        await proxy.stop();
      }
    },
  },
  {
    name: 'startup',
    what: `from spawning the process until it accepts connections, and until it answered the first mTLS request; median of ${STARTS_PER_ROUND} in each round`,
    lines: [
      { variant: 'listening', unit: 'ms', better: 'lower' },
      { variant: 'serving', unit: 'ms', better: 'lower' },
    ],
    protocol: 'tcp',
    client: 'frames',
    keep: false,
    measure: async (bench, peer) => {
      const listening: number[] = [];
      const serving: number[] = [];
      let tls = '';
      for (let i = 0; i < STARTS_PER_ROUND; i++) {
        const { proxy, servingInMs, tls: negotiated } = await bench.start(peer);
        listening.push(proxy.startedInMs);
        serving.push(servingInMs);
        tls = negotiated;
        await proxy.stop();
      }
      return { values: [median(listening), median(serving)], tls };
    },
  },
];

export interface Measured {
  readonly work: Work;
  readonly line: Line;
  /** By peer name; one value a round. */
  readonly values: ReadonlyMap<string, readonly number[]>;
  readonly tls: ReadonlyMap<string, string>;
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
  const bench: Bench = {
    load,
    certificates,
    job: (peer, kind, proxy, more) => ({
      work: kind,
      target: `127.0.0.1:${proxy.port}`,
      certFile: certificates.clientChain,
      keyFile: certificates.clientKey,
      caFile: certificates.authorities,
      serverId: certificates.serverId,
      protocol: work.client,
      identity: peer.identity(certificates),
      connections: 1,
      warmUpMs: 0,
      windowMs: 0,
      pids: proxy.pids(),
      ...more,
    }),
    start: async (peer) => {
      const directory = mkdtempSync(join(tmpdir(), `scute-bench-${peer.name}-`));
      directories.push(directory);
      const port = await freePort();
      const proxy = await startProxy(
        peer.prepare({ directory, port, protocol: work.protocol, application: load.applications[work.protocol], certificates }),
        port,
      );
      try {
        const { tls } = await load.run(bench.job(peer, 'first', proxy, { windowMs: SERVING_LIMIT_MS, forgedIdentity: true }));
        return { proxy, servingInMs: performance.now() - proxy.spawnedAtMs, tls };
      } catch (cause) {
        await proxy.stop();
        throw new Error(`${peer.name}: ${String(cause)}\n${proxy.output()}`, { cause });
      }
    },
  };
  const kept = new Map<string, RunningProxy>();
  const values = work.lines.map(() => new Map<string, number[]>(peers.map((peer) => [peer.name, []])));
  const tls = new Map<string, string>();
  try {
    if (work.keep) for (const peer of peers) kept.set(peer.name, (await bench.start(peer)).proxy);
    for (let round = work.keep ? -WARM_ROUNDS : 0; round < rounds; round++) {
      for (let i = 0; i < peers.length; i++) {
        signal.throwIfAborted();
        const peer = peers[(i + round + WARM_ROUNDS) % peers.length];
        if (peer === undefined) continue;
        const figures = await work.measure(bench, peer, kept.get(peer.name));
        directories.forEach(cutLogs);
        if (round < 0) continue;
        tls.set(peer.name, figures.tls);
        figures.values.forEach((value, line) => values[line]?.get(peer.name)?.push(value));
      }
    }
  } finally {
    await Promise.all([...kept.values()].map((proxy) => proxy.stop()));
    for (const directory of directories) rmSync(directory, { recursive: true, force: true });
  }
  return work.lines.map((line, i) => ({ work, line, values: values[i] ?? new Map(), tls }));
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** A line for each request fills a disk. */
function cutLogs(directory: string): void {
  for (const name of readdirSync(directory)) if (name.endsWith('.log')) truncateSync(join(directory, name));
}

async function rate(
  bench: Bench,
  peer: Peer,
  proxy: RunningProxy | undefined,
  jobs: readonly (Partial<Job> & { work: Job['work'] })[],
): Promise<Figures> {
  if (proxy === undefined) throw new Error('the work keeps its proxies');
  const values: number[] = [];
  let tls = '';
  for (const job of jobs) {
    const result = await bench.load.run(bench.job(peer, job.work, proxy, { warmUpMs: 1000, windowMs: 2000, ...job }));
    if (result.count === 0 || result.cpuSeconds === 0) throw new Error(`nothing came through 127.0.0.1:${proxy.port}`);
    const scale = ((job.upBytes ?? 0) + (job.downBytes ?? 0)) / MIB || 1;
    values.push((result.count * scale) / result.cpuSeconds);
    tls = result.tls;
  }
  return { values, tls };
}
