/** `--work ext-authz`: checks of an Envoy, without the Envoy. What a check adds to a request through one is printed by test/interop/envoy/ext-authz.test.ts. */
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { BenchIdentities } from './certificates.ts';
import type { CheckReport } from './ext-authz-client.ts';
import { SCUTE_BUNDLE } from './peers/scute.ts';
import { cpuSecondsOfThreads, endAll, LOAD_CORE, PROXY_CORE, spawnPinned, waitForSocket } from './process.ts';
import { aloneRow, type AloneRow } from './report.ts';

export const EXT_AUTHZ_WORK = {
  name: 'ext-authz',
  what: 'checks of Envoy, one and 64 at a time, among 1,000 rules for the peer: time to the answer, CPU of Scute',
} as const;

/** One line of `--json`. `ours` is the median. */
export type ExtAuthzRow = AloneRow<'ms' | 'cpu_us/check'>;

const RULES = 1000;
const AT_A_TIME = [1, 64];
const WARM_CHECKS = 20_000;
const CHECKS = 5000;

export async function runExtAuthz({
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
}): Promise<readonly ExtAuthzRow[]> {
  const { serverWorkloadApi, clientChain, clientId } = identities.certificates;
  const socket = join(directory, 'ext-authz.sock');
  const file = join(directory, 'ext-authz.yaml');
  const allow = Array.from({ length: RULES }, (_, index) => ({ peer: clientId, methods: ['GET'], paths: [`/service${index}/*/items`] }));
  writeFileSync(
    file,
    JSON.stringify({
      workloadApi: { endpoint: serverWorkloadApi },
      sds: { listen: `unix://${socket}`, authorization: {} },
      inbound: [{ name: 'app', listen: '127.0.0.1:0', to: '127.0.0.1:9', protocol: 'http', allow }],
      log: { level: 'info', format: 'json' },
    }),
  );
  const scute = spawnPinned(PROXY_CORE, [process.execPath, '--disable-sigusr1', SCUTE_BUNDLE, 'run', '-c', file], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const client = spawnPinned(LOAD_CORE, [process.execPath, join(import.meta.dirname, 'ext-authz-client.ts')], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const leaf = /-----BEGIN CERTIFICATE-----([^-]*)/.exec(readFileSync(clientChain, 'utf8'))?.[1]?.replaceAll(/\s/g, '') ?? '';
  const check = async (checks: number, atATime: number): Promise<CheckReport & { kind: 'done' }> => {
    client.send({ socket, leaf, checks, atATime });
    const [report] = (await once(client, 'message', { signal })) as [CheckReport];
    if (report.kind === 'failed') throw new Error(`ext-authz: ${report.detail}`);
    return report;
  };
  try {
    await waitForSocket(socket, signal);
    const rows: ExtAuthzRow[] = [];
    for (const atATime of AT_A_TIME) {
      await check(WARM_CHECKS, atATime);
      const measured: { readonly p50Ms: number; readonly p99Ms: number; readonly cpuUs: number }[] = [];
      for (let round = 0; round < rounds; round += 1) {
        const before = cpuSecondsOfThreads(scute.pid ?? 0);
        const { p50Ms, p99Ms } = await check(CHECKS, atATime);
        measured.push({ p50Ms, p99Ms, cpuUs: ((cpuSecondsOfThreads(scute.pid ?? 0) - before) * 1e6) / CHECKS });
      }
      const row = (variant: string, unit: ExtAuthzRow['unit'], values: readonly number[]): ExtAuthzRow =>
        aloneRow('ext-authz', { variant: `${atATime} ${variant}`, unit, values, rounds, version });
      rows.push(
        row(
          'at a time, p50',
          'ms',
          measured.map(({ p50Ms }) => p50Ms),
        ),
        row(
          'at a time, p99',
          'ms',
          measured.map(({ p99Ms }) => p99Ms),
        ),
        row(
          'at a time, CPU',
          'cpu_us/check',
          measured.map(({ cpuUs }) => cpuUs),
        ),
      );
    }
    return rows;
  } finally {
    await endAll(client, scute);
  }
}
