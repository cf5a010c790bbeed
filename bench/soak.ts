/**
 * `npm run soak`: 100,000 short mTLS connections and 1,000 rotations through one inbound listener, and whether memory grew.
 * Resident memory after a forced collection, median of 3, must stay within 10 % or 10 MiB of what it was after the first
 * tenth. Exit code 1 if not. It takes some minutes.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { DevDomain } from '../src/devdomain/dev-domain.ts';
import { startIdentities } from './certificates.ts';
import { startLoad } from './load.ts';
import { freePort, killAll } from './process.ts';
import type { MemoryReport } from './soak-child.ts';

const MIB = 1024 * 1024;
const PHASES = 10;
const CLIENTS = 16;
const PHASE_LIMIT_MS = 10 * 60_000;
/** Between rotations, so that each reaches Scute as an update of its own. */
const ROTATION_PAUSE_MS = 20;
const ALLOWED_SHARE = 0.1;
const ALLOWED_BYTES = 10 * MIB;

const { values } = parseArgs({
  options: { connections: { type: 'string', default: '100000' }, rotations: { type: 'string', default: '1000' } },
});
const connections = Number(values.connections) / PHASES;
const rotations = Number(values.rotations) / PHASES;

async function rotate(domain: DevDomain, signal: AbortSignal): Promise<void> {
  for (let i = 0; i < rotations; i++) {
    signal.throwIfAborted();
    await domain.rotate();
    await wait(ROTATION_PAUSE_MS);
  }
}

/** Three forced collections: the median by resident memory. */
async function memoryOf(child: ChildProcess): Promise<MemoryReport> {
  const reports: MemoryReport[] = [];
  for (let i = 0; i < 3; i++) {
    await wait(1000);
    child.send('measure');
    const [report] = (await once(child, 'message', { signal: AbortSignal.timeout(30_000) })) as [MemoryReport];
    reports.push(report);
  }
  const [, middle] = reports.toSorted((a, b) => a.rss - b.rss);
  if (middle === undefined) throw new Error('no memory was reported');
  return middle;
}

/** What Scute counted itself. */
async function scrape(socketPath: string): Promise<string> {
  const call = request({ socketPath, path: '/metrics', headers: { host: 'localhost' } });
  call.end();
  const [response] = (await once(call, 'response')) as [AsyncIterable<Buffer>];
  let text = '';
  for await (const chunk of response) text += chunk.toString();
  return text;
}

function counted(metrics: string, series: RegExp): number {
  return metrics
    .split('\n')
    .filter((line) => series.test(line))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
}

function formatMemory({ rss, heapUsed, external }: MemoryReport): string {
  return `resident ${(rss / MIB).toFixed(1)} MiB, heap ${(heapUsed / MIB).toFixed(1)}, external ${(external / MIB).toFixed(1)}`;
}

async function soak(stop: AbortSignal): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'scute-soak-'));
  const ending: (() => Promise<unknown> | void)[] = [() => rmSync(directory, { recursive: true, force: true })];
  try {
    const identities = await startIdentities(directory);
    ending.unshift(() => identities.stop());
    const { certificates, domain } = identities;
    const load = await startLoad();
    ending.unshift(() => load.stop());

    const port = await freePort();
    const metricsSocket = join(directory, 'metrics.sock');
    const config = join(directory, 'scute.yaml');
    writeFileSync(
      config,
      JSON.stringify({
        workloadApi: { endpoint: certificates.serverWorkloadApi },
        inbound: [{ name: 'inbound', listen: `127.0.0.1:${port}`, to: load.applications.tcp, allow: [certificates.clientId] }],
        metrics: { listen: `unix://${metricsSocket}` },
        log: { level: 'info', format: 'json' },
      }),
    );
    const errors = join(directory, 'errors.log');
    // Every connection is logged as always; nobody keeps the lines.
    const child = spawn(process.execPath, ['--disable-sigusr1', '--expose-gc', join(import.meta.dirname, 'soak-child.ts'), config], {
      stdio: ['ignore', openSync('/dev/null', 'w'), openSync(errors, 'w'), 'ipc'],
      env: { PATH: process.env['PATH'] },
    });
    const exited = new Promise((resolve) => child.once('exit', resolve));
    stop.addEventListener('abort', () => child.kill('SIGKILL'));
    ending.unshift(() => {
      child.kill('SIGKILL');
      return exited;
    });
    const died = exited.then(() => Promise.reject(new Error(`scute ended:\n${readFileSync(errors, 'utf8').slice(-4000)}`)));
    died.catch(() => undefined);
    await Promise.race([once(child, 'message', { signal: AbortSignal.timeout(30_000) }), died]);

    const job = {
      work: 'count',
      target: `127.0.0.1:${port}`,
      name: 'scute',
      certFile: certificates.clientChain,
      keyFile: certificates.clientKey,
      caFile: certificates.authorities,
      serverId: certificates.serverId,
      plain: false,
      protocol: 'frames',
      identity: '',
      warmUpMs: 0,
      pids: [],
    } as const;
    await load.run({ ...job, work: 'first', connections: 1, windowMs: 10_000 });

    let first: MemoryReport | undefined;
    let last: MemoryReport | undefined;
    const begin = performance.now();
    for (let phase = 1; phase <= PHASES; phase++) {
      const limit = AbortSignal.any([stop, AbortSignal.timeout(PHASE_LIMIT_MS)]);
      await Promise.race([
        Promise.all([load.run({ ...job, connections: CLIENTS, total: connections, windowMs: PHASE_LIMIT_MS }), rotate(domain, limit)]),
        died,
      ]);
      last = await memoryOf(child);
      first ??= last;
      const seconds = Math.round((performance.now() - begin) / 1000);
      process.stdout.write(`${phase * connections} connections, ${phase * rotations} rotations, ${seconds} s: ${formatMemory(last)}\n`);
    }
    if (first === undefined || last === undefined) throw new Error('nothing was measured');

    const metrics = await scrape(metricsSocket);
    const updates = counted(metrics, /^scute_x509_svid_updates_total\{.*result="ok"/);
    const grown = last.rss - first.rss;
    const allowed = Math.max(first.rss * ALLOWED_SHARE, ALLOWED_BYTES);
    process.stdout.write(
      `scute took ${updates} updates; it grew by ${(grown / MIB).toFixed(1)} MiB since the first tenth; ${(allowed / MIB).toFixed(1)} MiB are allowed\n`,
    );
    if (updates < rotations * PHASES) {
      process.stderr.write(`soak: scute saw ${updates} updates, not ${rotations * PHASES}\n`);
      return 1;
    }
    return grown <= allowed ? 0 : 1;
  } finally {
    for (const end of ending) await end();
  }
}

const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => {
    stop.abort(new Error(`stopped by ${name}`));
    killAll();
  });
}
try {
  process.exitCode = await soak(stop.signal);
} catch (cause) {
  process.stderr.write(`soak: ${String(stop.signal.aborted ? stop.signal.reason : cause)}\n`);
  process.exitCode = 1;
} finally {
  killAll();
}
