import { statfsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { createConfigSchema } from '../../../src/config/schema.ts';
import type { FileSetConfig } from '../../../src/config/file-sets.ts';

/** `f_type` of tmpfs. */
const TMPFS = 0x01021994;
const MEMORY = '/dev/shm';

/** A new folder that goes with the test, in memory where the machine has such a place; `unsafeDisk` is what a set in it needs. */
export async function folderInMemory(t: TestContext): Promise<{ readonly folder: string; readonly unsafeDisk: boolean }> {
  const isThere = (() => {
    try {
      return statfsSync(MEMORY).type === TMPFS;
    } catch {
      return false;
    }
  })();
  const folder = await mkdtemp(join(isThere ? MEMORY : tmpdir(), 'scute-files-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return { folder, unsafeDisk: !isThere };
}

/** A set as the configuration makes it of `written`. */
export function setOf(written: object): FileSetConfig {
  const schema = createConfigSchema({ groupId: () => undefined });
  const [set] = schema.parse({ workloadApi: { endpoint: 'unix:///run/agent.sock' }, files: [written] }).files;
  if (set === undefined) throw new Error('there is no set');
  return set;
}
