/** `--work files`: one rotation into ten sets of files, each with somebody who is told; and what a Scute that does nothing else holds. */
import { once } from 'node:events';
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BenchIdentities } from './certificates.ts';
import { SCUTE_BUNDLE } from './peers/scute.ts';
import { cpuSecondsOfThreads, endAll, PROXY_CORE, residentBytes, spawnPinned } from './process.ts';
import { aloneRow, type AloneRow } from './report.ts';

export const FILES_WORK = {
  name: 'files',
  what: 'one rotation into 10 sets of files: time until the last of 10 was told, CPU; memory and CPU of a Scute that does nothing else, idle',
} as const;

/** One line of `--json`. `ours` is the median. */
export type FilesRow = AloneRow<'ms' | 'cpu_ms' | 'MiB' | 'cpu_ms/s'>;

const SETS = 10;
/** Rotations that are not counted: code that compiles while it runs has compiled. */
const WARM_ROTATIONS = 5;
const IDLE_MS = 20_000;
const TMPFS = 0x01021994;

export async function runFiles({
  directory,
  identities,
  rounds,
  version,
  signal,
}: {
  readonly directory: string;
  readonly identities: BenchIdentities;
  readonly rounds: number;
  readonly version: string;
  readonly signal: AbortSignal;
}): Promise<readonly FilesRow[]> {
  const inMemory = statfsSync('/dev/shm').type === TMPFS;
  const folder = mkdtempSync(join(inMemory ? '/dev/shm' : tmpdir(), 'scute-bench-files-'));
  let told = new Set<string>();
  let lastMs = 0;
  let wake = (): void => {};
  const server = createServer((request, response) => {
    told.add(request.url ?? '');
    lastMs = performance.now();
    response.writeHead(204).end();
    if (told.size === SETS) wake();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const rows: FilesRow[] = [];
  const add = (variant: string, unit: FilesRow['unit'], values: readonly number[]): void => {
    rows.push(aloneRow('files', { variant, unit, values, rounds, version }));
  };
  try {
    for (const format of ['pem', 'pkcs12'] as const) {
      const passwordFile = join(folder, 'password');
      writeFileSync(passwordFile, 'changeit\n');
      const files = Array.from({ length: SETS }, (_, index) => ({
        directory: join(folder, `${format}-${index}`),
        unsafeDisk: !inMemory,
        format,
        ...(format === 'pkcs12' && { passwordFile }),
        notifyDelay: '0s',
        notify: [{ url: `http://127.0.0.1:${port}/${index}` }],
      }));
      const file = join(directory, `files-${format}.yaml`);
      writeFileSync(
        file,
        JSON.stringify({
          workloadApi: { endpoint: identities.certificates.serverWorkloadApi },
          files,
          log: { level: 'info', format: 'json' },
        }),
      );
      const everybody = async (): Promise<void> => {
        if (told.size < SETS) await new Promise<void>((resolve) => (wake = resolve));
        signal.throwIfAborted();
      };
      told = new Set();
      const scute = spawnPinned(PROXY_CORE, [process.execPath, '--disable-sigusr1', SCUTE_BUNDLE, 'run', '-c', file], {
        stdio: ['ignore', 'ignore', 'inherit'],
      });
      try {
        const pid = scute.pid ?? 0;
        await everybody();
        const times: number[] = [];
        const cpu: number[] = [];
        for (let rotation = 0; rotation < WARM_ROTATIONS + rounds; rotation += 1) {
          await settle();
          told = new Set();
          const cpuBefore = cpuSecondsOfThreads(pid);
          const beganMs = performance.now();
          await identities.domain.rotate();
          await everybody();
          const tookMs = lastMs - beganMs;
          await settle();
          if (rotation < WARM_ROTATIONS) continue;
          times.push(tookMs);
          cpu.push((cpuSecondsOfThreads(pid) - cpuBefore) * 1000);
        }
        add(`10 sets of ${format}, last told`, 'ms', times);
        add(`10 sets of ${format}`, 'cpu_ms', cpu);
        const idleBefore = cpuSecondsOfThreads(pid);
        await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
        add(`10 sets of ${format}, idle`, 'MiB', [residentBytes([pid]) / 1_048_576]);
        add(`10 sets of ${format}, idle`, 'cpu_ms/s', [((cpuSecondsOfThreads(pid) - idleBefore) * 1e6) / IDLE_MS]);
      } finally {
        await endAll(scute);
      }
    }
  } finally {
    server.close();
    server.closeAllConnections();
    rmSync(folder, { recursive: true, force: true });
  }
  return rows;
}

/** So that what comes after a rotation is over before the next. */
function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 300));
}
