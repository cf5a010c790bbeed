/**
 * `--work rejudge` and `--work scrape`: what becomes of Scute's event loop when everybody who is connected is judged again, or closed, and when
 * somebody asks for metrics and pages while they are connected. Nobody stands beside it.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { openSync, renameSync, writeFileSync } from 'node:fs';
import { request, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connect, type TLSSocket } from 'node:tls';
import { openFileLimit } from '../src/transport/file-limit.ts';
import { createKeyPair, createTestAuthority, type TestCertificate } from '../test/support/pki/pki.ts';
import { FakeWorkloadApi, svidEntry } from '../test/support/workload-api.ts';
import { median } from './median.ts';
import { LOAD_CORE, PROXY_CORE, spawnPinned } from './process.ts';
import type { Answer, Ask } from './rejudge-child.ts';
import { aloneRow, type AloneRow } from './report.ts';

const CONNECTIONS = 10_000;

export const REJUDGE_WORK = {
  name: 'rejudge',
  what: `the longest turn of the event loop while ${CONNECTIONS} open connections of as many peers are judged again, swept, drained and closed`,
} as const;

export const SCRAPE_WORK = {
  name: 'scrape',
  what: `the longest turn of the event loop while metrics and pages are asked for with ${CONNECTIONS} connections of as many peers open`,
} as const;

/** One line of `--json`. `ours` is the median, in CPU time of the thread; the spread is what matters. */
export interface RejudgeRow extends AloneRow<'ms'> {
  readonly connections: number;
  /** Of turns in wall time, the longest. */
  readonly wallMs: number;
  /** Of collections of garbage in wall time, the longest of each round, the median. */
  readonly collectorMs: number;
  /** Until the last connection was closed, the median; undefined if they stay. */
  readonly tookMs: number | undefined;
}

const HOUR_MS = 3_600_000;
/** Handshakes at once. */
const AT_ONCE = 24;
/** Long enough for all of them to be judged on a busy machine, and for some sweeps. */
const WATCH_MS = 8000;
/** Until a change of a file is in force, and what a change leaves behind is done. */
const REST_MS = 2000;
/** Descriptors of Scute that no connection has, those that are kept for the admin listener among them. */
const OTHER_FILES = 300;
const OPEN_LIMIT_MS = 300_000;
/** Between an answer and the next question. */
const ASK_EVERY_MS = 100;

export async function runRejudge(options: {
  readonly work: typeof REJUDGE_WORK | typeof SCRAPE_WORK;
  readonly directory: string;
  readonly rounds: number;
  readonly version: string;
  readonly signal: AbortSignal;
}): Promise<readonly RejudgeRow[]> {
  const { work, directory, rounds, version, signal } = options;
  const variants = work === SCRAPE_WORK ? SCRAPES : VARIANTS;
  // Each connection takes two descriptors of Scute.
  const connections = Math.min(CONNECTIONS, Math.floor((openFileLimit() - OTHER_FILES) / 2));
  const api = await FakeWorkloadApi.start();
  const stage = await startStage(directory, api, connections);
  try {
    const all = new Map<string, Turns[]>();
    for (let round = 0; round < rounds; round++) {
      for (const [variant, measure] of variants) {
        signal.throwIfAborted();
        await stage.fill();
        const turns = await measure(stage, round);
        all.set(variant, [...(all.get(variant) ?? []), turns]);
      }
    }
    return [...all].map(([variant, turns]): RejudgeRow => {
      const took = turns.flatMap(({ tookMs }) => tookMs ?? []);
      return {
        ...aloneRow(work.name, { variant, unit: 'ms', values: turns.map(({ cpuMs }) => cpuMs), rounds, version }),
        connections,
        wallMs: tenths(Math.max(...turns.map(({ wallMs }) => wallMs))),
        collectorMs: tenths(median(turns.map(({ collectorMs }) => collectorMs))),
        tookMs: took.length === 0 ? undefined : Math.round(median(took)),
      };
    });
  } finally {
    await stage.stop();
    await api.stop();
  }
}

interface Turns {
  readonly cpuMs: number;
  readonly wallMs: number;
  readonly collectorMs: number;
  /** Until the last was closed, if all were. */
  readonly tookMs: number | undefined;
}

/** What happens, and whether everybody is closed by it. */
const VARIANTS: readonly (readonly [string, (stage: Stage, round: number) => Promise<Turns>])[] = [
  ['swept, nothing due', (stage) => stage.watch(() => undefined)],
  [
    'policy changed, all stay',
    (stage, round) => stage.watch(() => stage.reload({ allow: ALL, deny: [`spiffe://bench.test/other-${round}`] })),
  ],
  ['authority removed, all stay', (stage) => stage.watch(() => stage.trust('other gone'))],
  ['deny list, all stay', (stage, round) => stage.watch(() => stage.deny([`spiffe://bench.test/denied-${round}`]))],
  ['policy changed, all closed', (stage) => stage.watch(() => stage.reload({ allow: [] }), { closes: true })],
  ['authority removed, all closed', (stage) => stage.watch(() => stage.trust('theirs gone'), { closes: true })],
  ['deny list, all closed', (stage) => stage.watch(() => stage.deny(['spiffe://bench.test/peer/*']), { closes: true })],
  ['all expire in one second, and close', (stage) => stage.watch(() => stage.expire({ onPeerExpiry: 'close' }), { closes: true })],
  ['all drained, and cut in one second', (stage) => stage.watch(() => stage.expire({ onPeerExpiry: 'drain' }), { closes: true })],
];

/** Asked one after the other, for as long as it is watched. */
const SCRAPES: typeof VARIANTS = [
  ['nothing asked', (stage) => stage.watch(() => undefined)],
  ['/metrics', (stage) => stage.watch(() => stage.ask('/metrics'))],
  ['/readyz?verbose', (stage) => stage.watch(() => stage.ask('/readyz?verbose'))],
  ['/api/v1/connections', (stage) => stage.watch(() => stage.ask('/api/v1/connections'))],
  ['/api/v1/certificates', (stage) => stage.watch(() => stage.ask('/api/v1/certificates'))],
];

const ALL = ['spiffe://bench.test/**'];
const PEER_LIFE_MS = 5 * HOUR_MS;

interface Stage {
  /** Everybody is connected, and everything as at the start. */
  fill(): Promise<void>;
  watch(cause: () => void, options?: { readonly closes?: boolean }): Promise<Turns>;
  reload(listener: object): void;
  trust(what: 'all' | 'other gone' | 'theirs gone'): void;
  deny(ids: readonly string[]): void;
  expire(listener: object): void;
  /** Asks the admin listener for that, again and again until the watch is over. */
  ask(path: string): void;
  stop(): Promise<void>;
}

async function startStage(directory: string, api: FakeWorkloadApi, connections: number): Promise<Stage> {
  // Ours, that of the peers, and one that nobody needs.
  const authorities = { ours: authority(), theirs: authority(), other: authority() };
  const own = authorities.ours.issue({ id: 'spiffe://bench.test/server', notAfter: Date.now() + 1000 * HOUR_MS });
  const key = createKeyPair('p256');
  let jumpedMs = 0;
  const peers = (): TestCertificate[] => {
    const notAfter = Date.now() + jumpedMs + PEER_LIFE_MS;
    return Array.from({ length: connections }, (_, index) =>
      authorities.theirs.issue({ id: `spiffe://bench.test/peer/${index}`, key, notAfter }),
    );
  };
  let issued = peers();
  const trust: Stage['trust'] = (what) => {
    const { ours, theirs, other } = authorities;
    const trusted = what === 'all' ? [ours, theirs, other] : what === 'other gone' ? [ours, theirs] : [ours, other];
    api.setX509([svidEntry(ours, own, 'spiffe://bench.test/server', { bundle: Buffer.concat(trusted.map(({ der }) => der)) })]);
  };
  trust('all');
  const denyFile = join(directory, 'rejudge-deny.yaml');
  const deny = (ids: readonly string[]): void => {
    writeFileSync(`${denyFile}.new`, `ids:\n${ids.map((id) => `  - ${id}\n`).join('')}...\n`);
    renameSync(`${denyFile}.new`, denyFile);
  };
  const nobody = ['spiffe://bench.test/nobody'];
  deny(nobody);

  // Another process, for its descriptors.
  const script =
    "require('net').createServer((s) => s.on('error', () => {})).listen(0, '127.0.0.1', function () { process.send(this.address().port) })";
  const application = spawnPinned(LOAD_CORE, [process.execPath, '-e', script], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const [port] = (await once(application, 'message')) as [number];
  const child = spawnPinned(PROXY_CORE, [process.execPath, join(import.meta.dirname, 'rejudge-child.ts')], {
    stdio: ['ignore', openSync(join(directory, 'rejudge.log'), 'a'), 'inherit', 'ipc'],
  });
  const adminSocket = join(directory, 'rejudge-admin.sock');
  const config = (listener: object): object => ({
    workloadApi: { endpoint: api.endpoint },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to: `127.0.0.1:${port}`, allow: ALL, ...listener }],
    limits: { maxConnections: CONNECTIONS, maxHandshakes: AT_ONCE * 2 },
    revocations: { file: denyFile },
    admin: { listen: `unix://${adminSocket}` },
    drainTimeout: '2s',
    log: { format: 'json' },
  });
  const ask = (message: Ask): void => void child.send(message);
  let asking = new AbortController();
  let problem: Error | undefined;
  const askAgain = async (path: string, { signal }: AbortController): Promise<void> => {
    while (!signal.aborted) {
      const status = await statusOf(adminSocket, path);
      if (status !== 200) throw new Error(`${path} was answered with ${status}`);
      await delay(ASK_EVERY_MS);
    }
  };
  ask({ kind: 'start', config: config({}) });
  const { address } = await answerOf(child, 'started');

  const open = new Map<number, TLSSocket>();
  const jump = (ms: number): void => {
    jumpedMs += ms;
    ask({ kind: 'jump', ms });
  };
  const expire: Stage['expire'] = (listener) => {
    ask({ kind: 'reload', config: config(listener) });
    jump(PEER_LIFE_MS + 1000);
  };
  return {
    async fill() {
      ask({ kind: 'reload', config: config({}) });
      trust('all');
      deny(nobody);
      await delay(REST_MS);
      if (open.size === connections) return;
      if (jumpedMs > 0) issued = peers();
      const missing = Array.from({ length: connections }, (_, index) => index)
        .filter((index) => !open.has(index))
        .values();
      const until = AbortSignal.timeout(OPEN_LIMIT_MS);
      const opening = async (): Promise<void> => {
        for (const index of missing) {
          until.throwIfAborted();
          const certificate = issued[index];
          if (certificate === undefined) throw new Error('a peer without a certificate');
          const socket = await opened(Number(address.split(':')[1]), certificate);
          open.set(index, socket);
          socket.once('close', () => open.delete(index));
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, opening));
      await delay(REST_MS);
    },
    async watch(cause, { closes = false } = {}) {
      ask({ kind: 'watch' });
      await answerOf(child, 'watching');
      const beganAtMs = performance.now();
      cause();
      // Those that stay cannot be told from outside when they have been judged.
      if (closes) await Promise.all([...open.values()].map((socket) => new Promise((resolve) => socket.once('close', resolve))));
      else await delay(WATCH_MS);
      asking.abort();
      const tookMs = closes ? performance.now() - beganAtMs : undefined;
      await delay(REST_MS);
      ask({ kind: 'stop' });
      const { cpuMs, wallMs, collectorMs } = await answerOf(child, 'turns');
      if (problem !== undefined) throw problem;
      if (!closes && open.size < connections) throw new Error(`${connections - open.size} connections were closed`);
      return { cpuMs, wallMs, collectorMs, tookMs };
    },
    reload: (listener) => ask({ kind: 'reload', config: config(listener) }),
    trust,
    deny,
    expire,
    ask(path) {
      asking = new AbortController();
      askAgain(path, asking).catch((cause: unknown) => {
        problem = cause instanceof Error ? cause : new Error(String(cause));
      });
    },
    stop: async () => {
      for (const socket of open.values()) socket.destroy();
      for (const other of [child, application]) other.kill();
      await Promise.resolve();
    },
  };
}

function authority() {
  return createTestAuthority({ trustDomain: 'bench.test', notAfter: Date.now() + 1000 * HOUR_MS });
}

async function answerOf<K extends Answer['kind']>(child: ChildProcess, kind: K): Promise<Extract<Answer, { readonly kind: K }>> {
  for (;;) {
    const [answer] = (await once(child, 'message')) as [Answer];
    if (answer.kind === kind) return answer as Extract<Answer, { readonly kind: K }>;
  }
}

/** After its handshake, and admitted: what follows it on the wire is only told to who was. */
async function opened(port: number, { chainPem, keyPem }: TestCertificate): Promise<TLSSocket> {
  const socket = connect({ port, host: '127.0.0.1', cert: chainPem, key: keyPem, rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  socket.on('error', () => undefined);
  socket.resume();
  return socket;
}

/** Reads the whole answer. */
async function statusOf(socketPath: string, path: string): Promise<number | undefined> {
  const asked = request({ socketPath, path, headers: { host: 'localhost' } }).end();
  const [answer] = (await once(asked, 'response')) as [IncomingMessage];
  answer.resume();
  await once(answer, 'end');
  return answer.statusCode;
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}
