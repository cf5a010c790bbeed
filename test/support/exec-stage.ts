import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startChild, type Child, type ChildOptions } from './child.ts';
import { WEB } from './data-path.ts';
import { createTestAuthority } from './pki/pki.ts';
import { killTree } from './process-tree.ts';
import { temporaryFolder } from './temporary-folder.ts';
import { FakeWorkloadApi, svidEntry } from './workload-api.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const authority = createTestAuthority();

/** Another SVID each time. */
export function anSvid(): ReturnType<typeof svidEntry> {
  return svidEntry(authority, authority.issue({ id: WEB }), WEB);
}

/** Chain and key of a peer of the same authority. */
export function aPeer(id: string): { readonly cert: string; readonly key: string } {
  const { chainPem, keyPem } = authority.issue({ id });
  return { cert: chainPem, key: keyPem };
}

export interface ExecStage {
  readonly api: FakeWorkloadApi;
  readonly folder: string;
  readonly admin: string;
  /** `scute exec`, its flags, and the command. The program before it is another that starts it. */
  readonly exec: (command: readonly string[], options?: ExecStageOptions) => Promise<ExecProcess>;
}

export interface ExecStageOptions extends ChildOptions {
  readonly flags?: readonly string[];
  /** Of the section `exec` of the configuration, and of the whole. */
  readonly settings?: object;
  readonly file?: object;
  /** What starts it, as an argument vector that goes on with it. */
  readonly under?: readonly string[];
}

export interface ExecProcess extends Child {
  /** The log, which is on standard error. */
  log(): readonly (Readonly<Record<string, unknown>> & { readonly message: string })[];
}

/** An agent, which gives an SVID unless it is told to be `early`, and what a Scute that runs an application needs. */
export async function startExecStage(t: TestContext, { early = false }: { readonly early?: boolean } = {}): Promise<ExecStage> {
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  if (!early) api.setX509([anSvid()]);
  const folder = await temporaryFolder(t);
  const admin = `unix://${join(folder, 'admin.sock')}`;
  let count = 0;
  return {
    api,
    folder,
    admin,
    async exec(command, { flags = [], settings = {}, file: more = {}, under = [], env = {}, ...rest } = {}) {
      const config = {
        workloadApi: { endpoint: api.endpoint },
        inbound: [{ name: 'in', listen: '127.0.0.1:0', to: '127.0.0.1:1', allow: [WEB] }],
        admin: { listen: admin },
        drainTimeout: '0s',
        exec: settings,
        ...more,
      };
      const file = join(folder, `scute-${(count += 1)}.yaml`);
      await writeFile(file, JSON.stringify(config), { mode: 0o600 });
      // Under --disable-sigusr1 Node blocks that signal, and nobody could send it on.
      const scute = [process.execPath, MAIN, 'exec', '-c', file, ...flags, '--', ...command];
      const [first = '', ...others] = [...under, ...scute];
      const child = await startChild([first, ...others], { env: { PATH: process.env['PATH'] ?? '', ...env }, ...rest });
      let hasEnded = false;
      void child.exited.then(() => (hasEnded = true));
      t.after(async () => {
        if (!hasEnded) await killTree(child.pid);
        await child.stop({ signal: 'SIGKILL' });
      });
      return {
        ...child,
        log: () =>
          child
            .stderr()
            .split('\n')
            .filter((line) => line.startsWith('{'))
            .map((line) => JSON.parse(line) as ReturnType<ExecProcess['log']>[number]),
      };
    },
  };
}
