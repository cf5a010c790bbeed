import { execFileSync, type ChildProcess } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Application } from './peer.ts';
import { LOAD_CORE, spawnPinned } from './process.ts';

/** One measurement; bench/load/main.go says what each member means. */
export interface Job {
  /** Of the proxy, for errors. */
  readonly name: string;
  readonly work: 'exchange' | 'offer' | 'connect' | 'idle' | 'first' | 'count' | 'once';
  readonly target: string;
  readonly certFile: string;
  readonly keyFile: string;
  readonly caFile: string;
  readonly serverId: string;
  readonly plain: boolean;
  readonly protocol: 'frames' | 'http1' | 'http2' | 'grpc';
  readonly identity: string;
  readonly forgedIdentity?: boolean;
  readonly cookies?: boolean;
  readonly tokenFile?: string;
  readonly newTokens?: boolean;
  readonly subject?: string;
  readonly connections: number;
  readonly streams?: number;
  readonly upBytes?: number;
  readonly downBytes?: number;
  readonly rate?: number;
  readonly total?: number;
  readonly warmUpMs: number;
  readonly windowMs: number;
  readonly pids: readonly number[];
}

export interface JobResult {
  readonly error?: string;
  readonly count: number;
  readonly cpuSeconds: number;
  readonly wallSeconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly lateShare: number;
  readonly rssBytes: number;
  readonly tls: string;
}

export interface Load {
  /** Where the plain applications listen, host:port. */
  readonly applications: Readonly<Record<Application, string>>;
  run(job: Job): Promise<JobResult>;
  stop(): Promise<void>;
}

/** Builds (Go's cache makes that cheap) and starts the load and the applications, in one process on their core. */
export async function startLoad(): Promise<Load> {
  const cache = join(import.meta.dirname, '../.cache/bench');
  mkdirSync(cache, { recursive: true });
  const program = join(cache, 'load');
  execFileSync('go', ['build', '-o', program, '.'], { cwd: join(import.meta.dirname, 'load'), stdio: ['ignore', 'inherit', 'inherit'] });

  const child = spawnPinned(LOAD_CORE, [program], { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, GOMAXPROCS: '1' } });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  const { stdin, stdout } = requirePipes(child);
  // It may have been killed: what is read next says so.
  stdin.on('error', () => undefined);
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<unknown> => {
    const line = await lines.next();
    if (line.done === true) throw new Error('the load ended');
    return JSON.parse(line.value);
  };
  const { applications } = (await next()) as Pick<Load, 'applications'>;
  return {
    applications,
    run: async (job) => {
      stdin.write(`${JSON.stringify(job)}\n`);
      const result = (await next()) as JobResult;
      if (result.error !== undefined) throw new Error(`${job.name}: ${job.work} through ${job.target}: ${result.error}`);
      return result;
    },
    stop: async () => {
      stdin.end();
      await exited;
    },
  };
}

function requirePipes(child: ChildProcess): { stdin: NodeJS.WritableStream; stdout: NodeJS.ReadableStream } {
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new Error('the load has no pipes');
  return { stdin, stdout };
}
