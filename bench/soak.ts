/**
 * `npm run soak`: 100,000 short mTLS connections and 1,000 rotations through one inbound listener, and whether memory grew.
 * Resident memory after a forced collection, median of 3, must stay within 10 % or 10 MiB of what it was after the first
 * tenth. Before that, in a process of its own, 10,000 handshakes with strangers, after which it must not be larger than after
 * the first tenth of them by more than 20 MiB; nothing is collected by force there. Exit code 1 if not. It takes some minutes.
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
import {
  applicationCalls,
  bytesOf,
  MOST_CERTIFICATES,
  startStrangeServer,
  strangerFlight,
  strangersCall,
  type Flight,
} from '../test/support/pki/strangers.ts';
import { startIdentities, type BenchIdentities } from './certificates.ts';
import { startLoad } from './load.ts';
import { median } from './median.ts';
import { cpuSeconds, freePort, killAll, residentBytes } from './process.ts';
import type { MemoryReport } from './soak-child.ts';

const MIB = 1024 * 1024;
const PHASES = 10;
const CLIENTS = 16;
const PHASE_LIMIT_MS = 10 * 60_000;
/** Between rotations, so that each reaches Scute as an update of its own. */
const ROTATION_PAUSE_MS = 20;
const ALLOWED_SHARE = 0.1;
const ALLOWED_BYTES = 10 * MIB;
const ALLOWED_FOR_STRANGERS_BYTES = 20 * MIB;

const { values } = parseArgs({
  options: {
    connections: { type: 'string', default: '100000' },
    rotations: { type: 'string', default: '1000' },
    strangers: { type: 'string', default: '10000' },
  },
});
const connections = Number(values.connections) / PHASES;
const rotations = Number(values.rotations) / PHASES;
const strangers = Number(values.strangers);

async function rotate(domain: DevDomain, signal: AbortSignal): Promise<void> {
  for (let i = 0; i < rotations; i++) {
    signal.throwIfAborted();
    await domain.rotate();
    await wait(ROTATION_PAUSE_MS);
  }
}

/**
 * Strangers with flights of so many certificates, as clients and as servers. Says what each kind costs, and whether memory
 * stayed what it was after the first tenth.
 */
async function soakStrangers(directory: string, ending: Ending, stop: AbortSignal, identities: BenchIdentities): Promise<boolean> {
  const { certificates } = identities;
  const flights = [1, 8, 9, 120, MOST_CERTIFICATES].map((count) => strangerFlight(count, { id: certificates.clientId }));
  const [single] = flights;
  if (single === undefined) throw new Error('there are no strangers');
  const server = await startStrangeServer(single);
  ending.unshift(() => server.close());
  const [inbound, outbound] = [await freePort(), await freePort()];
  const metricsSocket = join(directory, 'strangers.sock');
  const { child, died } = await startScute(directory, ending, stop, {
    workloadApi: { endpoint: certificates.serverWorkloadApi },
    inbound: [{ name: 'inbound', listen: `127.0.0.1:${inbound}`, to: '127.0.0.1:9', allow: [certificates.clientId] }],
    outbound: [{ name: 'outbound', listen: `127.0.0.1:${outbound}`, to: server.address, expect: [certificates.clientId] }],
    metrics: { listen: `unix://${metricsSocket}` },
  });
  if (child.pid === undefined) throw new Error('scute has no process');
  const pids = [child.pid];

  const each = strangers / PHASES / flights.length / 2;
  const costs = new Map<string, { readonly seconds: number[]; readonly flight: Flight }>();
  const work = async (role: string, flight: Flight, act: () => Promise<void>): Promise<void> => {
    stop.throwIfAborted();
    const cost = costs.get(`${role} ${flight.what}`) ?? { seconds: [], flight };
    costs.set(`${role} ${flight.what}`, cost);
    const before = cpuSeconds(pids);
    await Promise.race([act(), died]);
    cost.seconds.push((cpuSeconds(pids) - before) / each);
  };
  // V8's young objects have the room that they get under any load, before anything is compared.
  await Promise.race([strangersCall(inbound, single, strangers / 5, CLIENTS), died]);
  const resident: number[] = [];
  for (let phase = 1; phase <= PHASES; phase++) {
    for (const flight of flights) {
      await work('client', flight, () => strangersCall(inbound, flight, each, CLIENTS));
      server.present(flight);
      await work('server', flight, () => applicationCalls(outbound, each, CLIENTS));
    }
    resident.push(residentBytes(pids));
    const metrics = await scrape(metricsSocket);
    const unread = counted(metrics, /^scute_tls_handshakes_total\{.*reason="chain_not_read"/);
    process.stdout.write(
      `${(phase * strangers) / PHASES} strangers, ${unread} of them not read: resident ${((resident.at(-1) ?? 0) / MIB).toFixed(1)} MiB\n`,
    );
  }
  for (const [what, { seconds, flight }] of costs) {
    process.stdout.write(`${what} (${bytesOf(flight)} bytes beside it): ${(1000 * median(seconds)).toFixed(2)} ms of CPU a handshake\n`);
  }
  const grown = (resident.at(-1) ?? Infinity) - (resident[0] ?? 0);
  process.stdout.write(`with strangers, scute grew by ${(grown / MIB).toFixed(1)} MiB since the first tenth; 20.0 MiB are allowed\n`);
  return grown <= ALLOWED_FOR_STRANGERS_BYTES;
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

/** Undone in this order. */
type Ending = (() => Promise<unknown> | void)[];

/** Scute with this configuration, ready, and what happens if it ends by itself. */
async function startScute(
  directory: string,
  ending: Ending,
  stop: AbortSignal,
  configuration: object,
): Promise<{ readonly child: ChildProcess; readonly died: Promise<never> }> {
  const config = join(directory, 'scute.yaml');
  writeFileSync(config, JSON.stringify({ ...configuration, log: { level: 'info', format: 'json' } }));
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
  return { child, died };
}

async function soak(stop: AbortSignal): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'scute-soak-'));
  const ending: Ending = [() => rmSync(directory, { recursive: true, force: true })];
  try {
    const identities = await startIdentities(directory);
    ending.unshift(() => identities.stop());
    const { certificates, domain } = identities;
    if (strangers > 0 && !(await soakStrangers(directory, ending, stop, identities))) return 1;
    if (connections === 0) return 0;

    const load = await startLoad();
    ending.unshift(() => load.stop());

    const port = await freePort();
    const metricsSocket = join(directory, 'metrics.sock');
    const { child, died } = await startScute(directory, ending, stop, {
      workloadApi: { endpoint: certificates.serverWorkloadApi },
      inbound: [{ name: 'inbound', listen: `127.0.0.1:${port}`, to: load.applications.tcp, allow: [certificates.clientId] }],
      metrics: { listen: `unix://${metricsSocket}` },
    });

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
