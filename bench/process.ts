import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';

/** How to start one proxy. Its output goes to a file, as a supervisor would have it; nothing is read from it. */
export interface Command {
  readonly argv: readonly [string, ...string[]];
  readonly environment?: Readonly<Record<string, string>>;
  readonly outputFile: string;
}

export interface RunningProxy {
  readonly port: number;
  /** Of `performance.now`. */
  readonly spawnedAtMs: number;
  /** From spawning the process until it accepted the first TCP connection. */
  readonly startedInMs: number;
  /** The process and its children, as they are now. */
  pids(): number[];
  /** The end of what it wrote. */
  output(): string;
  stop(): Promise<void>;
}

/** The proxy's core, and the core of the load, the application and this process. */
export const PROXY_CORE = '0';
export const LOAD_CORE = '1';

const START_LIMIT_MS = 20_000;
const STOP_LIMIT_MS = 3_000;
const running = new Set<ChildProcess>();

/** Ends, at once, everything that is still running. For the way out: also after a failure or a signal. */
export function killAll(): void {
  for (const child of running) {
    for (const pid of processTree(child.pid)) tryKill(pid, 'SIGKILL');
  }
}

/** Keeps this process off the proxy's core. */
export function pinToLoadCore(): void {
  execFileSync('taskset', ['-acp', LOAD_CORE, String(process.pid)], { stdio: 'ignore' });
}

/** Starts a process that `killAll` knows of. */
export function spawnPinned(core: string, command: readonly string[], options: Parameters<typeof spawn>[2]): ChildProcess {
  const child = spawn('taskset', ['-c', core, ...command], options);
  running.add(child);
  child.on('exit', () => running.delete(child));
  return child;
}

/** Starts a proxy on its core and waits until `port` accepts. */
export async function startProxy(command: Command, port: number): Promise<RunningProxy> {
  // Appending, as the logs do: they are cut between measurements.
  const output = openSync(command.outputFile, 'a');
  const begin = performance.now();
  const child = spawnPinned(PROXY_CORE, command.argv, {
    stdio: ['ignore', output, output],
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...command.environment },
  });
  closeSync(output);
  const exited = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(`${command.argv[0]} ended with ${signal ?? code}`));
    child.once('error', (error) => resolve(`${command.argv[0]}: ${error.message}`));
  });
  let over: string | undefined;
  void exited.then((why) => (over = why));
  while (!(await accepts(port))) {
    if (over === undefined && performance.now() - begin > START_LIMIT_MS) over = `${command.argv[0]} does not accept on port ${port}`;
    if (over !== undefined) {
      for (const pid of processTree(child.pid)) tryKill(pid, 'SIGKILL');
      throw new Error(`${over}\n${readFileSync(command.outputFile, 'utf8').slice(-4000)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const startedInMs = performance.now() - begin;
  const tail = (): string => readFileSync(command.outputFile, 'utf8').slice(-4000);
  return {
    port,
    spawnedAtMs: begin,
    startedInMs,
    pids: () => {
      if (over !== undefined) throw new Error(`${over}\n${tail()}`);
      return processTree(child.pid);
    },
    output: tail,
    stop: async () => {
      const pids = processTree(child.pid);
      tryKill(child.pid, 'SIGTERM');
      const timer = setTimeout(() => {
        for (const pid of pids) tryKill(pid, 'SIGKILL');
      }, STOP_LIMIT_MS);
      await exited;
      clearTimeout(timer);
      for (const pid of pids) tryKill(pid, 'SIGKILL');
    },
  };
}

/** A port of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Resident memory of the processes in bytes. */
export function residentBytes(pids: readonly number[]): number {
  let pages = 0;
  for (const pid of pids) pages += Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]);
  return pages * 4096;
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

function processTree(pid: number | undefined): number[] {
  if (pid === undefined) return [];
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    return [pid, ...(children === '' ? [] : children.split(' ').flatMap((child) => processTree(Number(child))))];
  } catch {
    return [];
  }
}

function tryKill(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended already.
  }
}

/** CPU time of the processes so far, in seconds: user and system, in ticks of 10 ms. */
export function cpuSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in brackets may hold anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / 100;
}

/** Ends these, one after the other. */
export async function endAll(...children: readonly ChildProcess[]): Promise<void> {
  for (const child of children) {
    const exited = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : undefined;
    child.kill();
    await exited;
  }
}

/** Resolves when there is a socket of that path. */
export async function waitForSocket(path: string, signal: AbortSignal): Promise<void> {
  const begin = performance.now();
  for (;;) {
    try {
      readFileSync(path);
    } catch (problem) {
      // A socket cannot be read, but it is there.
      if ((problem as NodeJS.ErrnoException).code !== 'ENOENT') return;
    }
    signal.throwIfAborted();
    if (performance.now() - begin > START_LIMIT_MS) throw new Error(`scute does not serve ${path}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** What all threads of a process have used, to the nanosecond; clock ticks would be too coarse. */
export function cpuSecondsOfThreads(pid: number): number {
  let nanoseconds = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ', 1)[0]);
  }
  return nanoseconds / 1e9;
}
