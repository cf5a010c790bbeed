import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { formatIssues } from '../../config/issue.ts';
import { loadYaml } from '../../config/load.ts';
import { type DevConfig, type DevConfigInput, devConfigSchema } from '../../devdomain/config.ts';
import { createDevDomain } from '../../devdomain/dev-domain.ts';
import { systemClock } from '../../lib/clock.ts';
import { messageOf } from '../../lib/errors.ts';
import { ok } from '../../lib/result.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';

const WARNING =
  'WARNING: this is a development trust domain. Whoever can open its sockets holds its identities. Never use it in production.';
const STOP_WITHIN_MS = 5000;

/**
 * `scute dev`: the embedded trust domain alone, as `file` says. Prints one line a socket, then READY, and serves until `signal`
 * aborts. Resolves to the exit code.
 */
export async function runDev(file: string | undefined, environment: CommandEnvironment, signal: AbortSignal): Promise<number> {
  const folder = file === undefined ? await defaultFolder(environment) : undefined;
  try {
    const config = file === undefined ? ok(defaultConfig(folder?.path ?? tmpdir())) : await loadYaml(file, devConfigSchema);
    if (!config.ok) {
      environment.stderr(`${formatIssues(config.error)}\n`);
      return EXIT_USAGE;
    }
    return await serve(config.value, environment, signal);
  } finally {
    await folder?.remove();
  }
}

async function serve(config: DevConfig, { stdout, stderr }: CommandEnvironment, signal: AbortSignal): Promise<number> {
  const domain = createDevDomain(config, {
    clock: systemClock,
    onFailure: (failure) => stderr(`rotation failed: ${messageOf(failure)}\n`),
  });
  try {
    await domain.start(signal);
  } catch (cause) {
    stderr(`scute dev could not start: ${messageOf(cause)}\n`);
    return EXIT_FAILED;
  }
  stderr(`${WARNING}\n`);
  for (const { endpoint, ids } of domain.workloads()) stdout(`SPIFFE_ENDPOINT_SOCKET=${endpoint}  ${ids.join(' ') || '(no identity)'}\n`);
  stdout('READY\n');
  await aborted(signal);
  try {
    await domain.stop(AbortSignal.timeout(STOP_WITHIN_MS));
  } catch (cause) {
    const failures: readonly unknown[] = cause instanceof AggregateError ? cause.errors : [cause];
    stderr(`scute dev left something behind: ${failures.map(messageOf).join('; ')}\n`);
    return EXIT_FAILED;
  }
  return EXIT_OK;
}

/** What `scute dev` serves without a file: one trust domain with two workloads. */
function defaultConfig(folder: string): DevConfig {
  const workload = (name: string) => ({ socket: join(folder, `${name}.sock`), ids: [`spiffe://example.org/${name}`] });
  const input: DevConfigInput = { trustDomains: [{ name: 'example.org', workloads: [workload('web'), workload('api')] }] };
  return devConfigSchema.parse(input);
}

/**
 * `$XDG_RUNTIME_DIR` belongs to this user alone, so the path there can be the same each time. In the common temporary
 * folder a known name could be taken by anybody first.
 */
async function defaultFolder({ env }: CommandEnvironment): Promise<{ readonly path: string; remove(): Promise<void> }> {
  const runtime = env['XDG_RUNTIME_DIR'];
  if (runtime !== undefined && isAbsolute(runtime)) return { path: join(runtime, 'scute-dev'), remove: async () => {} };
  const path = await mkdtemp(join(tmpdir(), 'scute-dev-'));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/** Resolves when `signal` aborts. Keeps the process alive meanwhile: a trust domain without workloads has no sockets that would. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const alive = setInterval(() => {}, 3_600_000);
    const finish = (): void => {
      clearInterval(alive);
      resolve();
    };
    signal.addEventListener('abort', finish, { once: true });
  });
}
