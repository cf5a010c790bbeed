/** `--work sds`: one rotation told to many Envoys. There is no peer beside it in the same run: what the SPIRE agent needs is in docs/performance.md. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { once } from 'node:events';
import type { BenchIdentities } from './certificates.ts';
import { cpuSecondsOfThreads, endAll, LOAD_CORE, PROXY_CORE, residentBytes, spawnPinned, waitForSocket } from './process.ts';
import { SCUTE_BUNDLE } from './peers/scute.ts';
import type { Report } from './sds-client.ts';
import { aloneRow, type AloneRow } from './report.ts';

export const SDS_WORK = {
  name: 'sds',
  what: 'one rotation to 100, 1,000 and 2,000 SDS streams over 50 connections: CPU of Scute, time to the last, memory',
} as const;

/** One line of `--json`. `ours` is the median. */
export interface SdsRow extends AloneRow<'cpu_s' | 'cpu_us/stream' | 'ms' | 'KiB/stream'> {
  readonly streams: number;
}

const SIZES = [100, 1000, 2000];
const CONNECTIONS = 50;
/** Rotations that are not counted: code that compiles while it runs has compiled. */
const WARM_ROTATIONS = 10;
/** So that garbage of the last round, and acknowledgements, are over before the CPU is read. */
const SETTLE_MS = 300;

interface Round {
  readonly cpuSeconds: number;
  readonly lastMs: number;
  readonly p99Ms: number;
}

export async function runSds(options: {
  readonly directory: string;
  readonly identities: BenchIdentities;
  readonly rounds: number;
  readonly version: string;
  readonly signal: AbortSignal;
}): Promise<readonly SdsRow[]> {
  const { rounds, version } = options;
  const rows: SdsRow[] = [];
  for (const streams of SIZES) {
    const { measured, memoryKib } = await measure(streams, options);
    const row = (variant: string, unit: SdsRow['unit'], values: readonly number[]): SdsRow => ({
      ...aloneRow('sds', { variant: `${streams}${variant}`, unit, values, rounds, version }),
      streams,
    });
    const cpu = measured.map(({ cpuSeconds }) => cpuSeconds);
    rows.push(
      row('', 'cpu_s', cpu),
      row(
        'per stream',
        'cpu_us/stream',
        cpu.map((seconds) => (seconds * 1e6) / streams),
      ),
      row(
        'p99',
        'ms',
        measured.map(({ p99Ms }) => p99Ms),
      ),
      row(
        'last',
        'ms',
        measured.map(({ lastMs }) => lastMs),
      ),
      row(' memory', 'KiB/stream', [memoryKib]),
    );
  }
  return rows;
}

async function measure(
  streams: number,
  { directory, identities, rounds, signal }: Parameters<typeof runSds>[0],
): Promise<{ readonly measured: readonly Round[]; readonly memoryKib: number }> {
  const socket = join(directory, `sds-${streams}.sock`);
  const file = join(directory, `sds-${streams}.yaml`);
  const metrics = join(directory, `sds-metrics-${streams}.sock`);
  writeFileSync(
    file,
    JSON.stringify({
      workloadApi: { endpoint: identities.certificates.serverWorkloadApi },
      sds: { listen: `unix://${socket}` },
      metrics: { listen: `unix://${metrics}` },
      log: { level: 'info', format: 'json' },
    }),
  );
  const scute = spawnPinned(PROXY_CORE, [process.execPath, '--disable-sigusr1', SCUTE_BUNDLE, 'run', '-c', file], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const client = spawnPinned(LOAD_CORE, [process.execPath, join(import.meta.dirname, 'sds-client.ts')], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const pid = scute.pid ?? 0;
  try {
    await waitForSocket(socket, signal);
    const next = async (): Promise<Report & { kind: 'round' }> => {
      const [report] = (await once(client, 'message', { signal })) as [Report];
      if (report.kind === 'failed') throw new Error(`sds: ${report.detail}`);
      return report;
    };
    await settle();
    const before = residentBytes([pid]);
    client.send({ socket, streams, connections: CONNECTIONS });
    await next();
    await settle();
    const memoryKib = (residentBytes([pid]) - before) / 1024 / streams;
    const measured: Round[] = [];
    for (let rotation = 0; rotation < WARM_ROTATIONS + rounds; rotation += 1) {
      const cpu = cpuSecondsOfThreads(pid);
      const begin = process.hrtime.bigint();
      const told = next();
      await identities.domain.rotate();
      const { atNs } = await told;
      await settle();
      const delaysMs = atNs.map((at) => Number(BigInt(at) - begin) / 1e6).toSorted((a, b) => a - b);
      if (rotation < WARM_ROTATIONS) continue;
      measured.push({
        cpuSeconds: cpuSecondsOfThreads(pid) - cpu,
        lastMs: delaysMs.at(-1) ?? 0,
        p99Ms: delaysMs[Math.ceil(0.99 * streams) - 1] ?? 0,
      });
    }
    return { measured, memoryKib };
  } finally {
    await endAll(client, scute);
  }
}

function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
}
