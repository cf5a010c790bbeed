import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '../src/lib/errors.ts';
import type { Job, JobResult, Load } from './load.ts';
import { anyHash, type CertificateFiles, type Peer, type Task } from './peer.ts';
import { freePort, startProxy, type RunningProxy } from './process.ts';
import type { Subject, Work } from './work.ts';

const SERVING_LIMIT_MS = 10_000;

export interface SubjectOptions {
  readonly work: Work;
  readonly load: Load;
  readonly certificates: CertificateFiles;
  /** Gets the folders of what was started, for who removes them. */
  readonly directories: string[];
}

/** Starts what `work` needs of one peer, and waits until a request was answered through it. */
export async function startSubject(peer: Peer, options: SubjectOptions): Promise<Subject> {
  const { work, load } = options;
  const inbound = await serve(peer, options, { direction: 'inbound', to: load.applications[work.application ?? work.protocol] });
  if (work.topology === 'inbound') return inbound;
  try {
    const outbound = await serve(peer, options, { direction: 'outbound', to: `127.0.0.1:${inbound.proxy.port}` }, inbound.proxy);
    return { ...outbound, tls: inbound.tls };
  } catch (cause) {
    await inbound.proxy.stop();
    throw cause;
  }
}

async function serve(peer: Peer, options: SubjectOptions, task: Pick<Task, 'direction' | 'to'>, behind?: RunningProxy): Promise<Subject> {
  const { work, load, certificates, directories } = options;
  const directory = mkdtempSync(join(tmpdir(), `scute-bench-${peer.name}-`));
  directories.push(directory);
  const port = await freePort();
  const alone = await startProxy(
    peer.prepare({ directory, port, protocol: work.protocol, http2: isHttp2(work), certificates, ...task }),
    port,
  );
  const proxy = behind === undefined ? alone : together(alone, behind);
  const run = (kind: Job['work'], more: Partial<Job>): Promise<JobResult> =>
    load.run({
      name: peer.name,
      work: kind,
      target: `127.0.0.1:${port}`,
      certFile: certificates.clientChain,
      keyFile: certificates.clientKey,
      caFile: certificates.authorities,
      serverId: certificates.serverId,
      plain: task.direction === 'outbound',
      protocol: work.client,
      // Scute's outbound side has a certificate of its own.
      identity: task.direction === 'outbound' ? anyHash(peer.identity(certificates)) : peer.identity(certificates),
      connections: 1,
      warmUpMs: 0,
      windowMs: 0,
      pids: proxy.pids(),
      ...peer.job,
      ...more,
    });
  try {
    // What the client says of itself must not reach the application.
    const { tls } = await run('first', { windowMs: SERVING_LIMIT_MS, forgedIdentity: true });
    return { peer, proxy, servingInMs: performance.now() - proxy.spawnedAtMs, tls, run };
  } catch (cause) {
    await alone.stop();
    throw new Error(`${messageOf(cause)}\n${alone.output()}`, { cause });
  }
}

function isHttp2({ application }: Work): boolean {
  return application === 'h2c' || application === 'grpc';
}

function together(front: RunningProxy, back: RunningProxy): RunningProxy {
  return {
    ...front,
    pids: () => [...front.pids(), ...back.pids()],
    stop: async () => {
      await front.stop();
      await back.stop();
    },
  };
}
