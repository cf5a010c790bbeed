import type { TestContext } from 'node:test';
import { createApp, type App } from '../../src/app.ts';
import type { ConfigReloads, LoadedConfig } from '../../src/config/config-file.ts';
import { createDenyFile, type DenyListView } from '../../src/config/policy/deny-file.ts';
import { formatIssues } from '../../src/config/issue.ts';
import { parseConfig, parsePolicyNow } from '../../src/config/load.ts';
import { parsePolicyApart } from '../../src/config/policy/policy-apart.ts';
import { createPolicyFiles } from '../../src/config/policy/policy-files.ts';
import { formatAddress } from '../../src/config/units.ts';
import { systemClock, type Clock } from '../../src/lib/clock.ts';
import { eventually } from './eventually.ts';
import { ask } from './http/http.ts';

export type LogLine = Readonly<Record<string, unknown>> & { readonly message: string };

/** A whole Scute in this process: as `scute run`, without argv and signals. */
export interface Sidecar {
  readonly app: App;
  /** `127.0.0.1:41234` or `unix:///path`, of a listener, or of `metrics` or `admin`. */
  address(listener: string): string;
  /** Every line logged so far. */
  log(): readonly LogLine[];
  /** The first connection line that fits, once it is written. */
  connection(fits?: (line: LogLine) => boolean): Promise<LogLine>;
  /** The present value of a series, such as `scute_tcp_open_connections{direction="inbound",…}`: the sum of those whose labels fit. */
  metric(name: string, labels?: Readonly<Record<string, string>>): Promise<number>;
  /** Resolves when no readiness check fails. */
  ready(): Promise<void>;
  /** As after a change of the file. `meanwhile` comes between reading it and taking it over. */
  reload(config: object, meanwhile?: () => Promise<void>): Promise<void>;
  /** Resolves to the number of connections that had to be dropped. */
  stop(deadline?: AbortSignal): Promise<number>;
}

export interface SidecarOptions {
  readonly clock?: Clock;
  /** Bytes that are kept of connections that wait, in each direction. */
  readonly maxKeptBytes?: number;
  /** Instead of that in the file that the configuration names. */
  readonly denyList?: DenyListView;
  /** Do not wait for readiness. */
  readonly unready?: boolean;
}

/**
 * Starts a sidecar with a configuration in the shape of the file, and a metrics listener; waits until it is ready; stops
 * it after the test.
 */
export async function startSidecar(t: TestContext, config: object, options: SidecarOptions = {}): Promise<Sidecar> {
  const listeners = new Set<(loaded: LoadedConfig) => void>();
  const reloads: ConfigReloads = {
    onReload(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const lines: LogLine[] = [];
  const policyFiles = createPolicyFiles({
    // The clock of a test may stand still.
    clock: systemClock,
    intervalMs: 10,
    parse: { atStart: parsePolicyNow, later: parsePolicyApart },
  });
  const load = (raw: object): Promise<LoadedConfig> =>
    parseConfig(JSON.stringify({ metrics: { listen: '127.0.0.1:0' }, log: { level: 'debug', format: 'json' }, ...raw }), {
      file: 'test.yaml',
      flags: {},
      env: {},
      readPolicy: (file) => policyFiles.read(file),
    });
  const loaded = await load(config);
  if (!loaded.ok) throw new Error(formatIssues(loaded.error));
  const { revocations } = loaded.value;
  const denyList = options.denyList ?? (revocations && (await watchDenyFile(t, revocations.file)));
  const app = await createApp(loaded.value, {
    version: '0.0.0-test',
    reloads,
    policyFiles,
    denyList,
    clock: options.clock,
    maxKeptBytes: options.maxKeptBytes,
    logDestination: { write: (line) => void lines.push(JSON.parse(line) as LogLine) },
  });
  const watching = new AbortController();
  const watch = policyFiles.watch(watching.signal);
  t.after(async () => {
    watching.abort();
    await watch;
  });
  let stopped: Promise<number> | undefined;
  const stop = (deadline: AbortSignal = AbortSignal.abort()): Promise<number> => (stopped ??= app.stop('the test ended', deadline));
  t.after(() => stop());
  await app.start(AbortSignal.timeout(60_000));

  const address = (listener: string): string => {
    const bound = app.addresses().get(listener);
    if (bound === undefined) throw new Error(`${listener} is not bound`);
    return formatAddress(bound);
  };
  const sidecar: Sidecar = {
    app,
    address,
    log: () => lines,
    connection: (fits = () => true) =>
      eventually(() => {
        const line = lines.find((candidate) => candidate.message === 'connection closed' && fits(candidate));
        if (line === undefined) throw new Error(`no such connection line among\n${lines.map((each) => JSON.stringify(each)).join('\n')}`);
        return Promise.resolve(line);
      }),
    async metric(name, labels = {}) {
      const metrics = app.addresses().get('metrics');
      if (metrics === undefined) throw new Error('metrics are not bound');
      const { body } = await ask(metrics, '/metrics');
      let sum = 0;
      for (const line of body.split('\n')) {
        const parsed = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
        if (parsed?.[1] !== name) continue;
        const found = parsed[2] ?? '';
        if (Object.entries(labels).every(([label, value]) => found.includes(`${label}="${value}"`))) sum += Number(parsed[3]);
      }
      return sum;
    },
    ready: () =>
      eventually(() => {
        const failing = app.notReady();
        if (failing.length > 0) throw new Error(`not ready: ${failing.join(', ')}`);
        return Promise.resolve();
      }),
    async reload(raw, meanwhile) {
      const anew = await load(raw);
      await meanwhile?.();
      for (const listener of listeners) listener(anew);
    },
    stop,
  };
  if (options.unready !== true) await sidecar.ready();
  return sidecar;
}

async function watchDenyFile(t: TestContext, file: string): Promise<DenyListView> {
  const denyFile = createDenyFile({ file, clock: systemClock, intervalMs: 10 });
  const denied = await denyFile.load();
  if (!denied.ok) throw new Error(formatIssues(denied.error));
  const watching = new AbortController();
  const watch = denyFile.watch(watching.signal);
  t.after(async () => {
    watching.abort();
    await watch;
  });
  return denyFile;
}
