/** Scute inside `--work rejudge`: the application that `scute run` starts, a clock that can be set, and a watch on the turns of its event loop. Started by rejudge.ts. */
import { PerformanceObserver, type PerformanceEntry } from 'node:perf_hooks';
import { createApp } from '../src/app.ts';
import type { LoadedConfig } from '../src/config/config-file.ts';
import { createDenyFile } from '../src/config/policy/deny-file.ts';
import { formatIssues } from '../src/config/issue.ts';
import { parseConfig } from '../src/config/load.ts';
import { formatAddress } from '../src/config/units.ts';
import { systemClock, type Clock } from '../src/lib/clock.ts';

export type Ask =
  | { readonly kind: 'start' | 'reload'; readonly config: object }
  /** Wall time goes on by so much. */
  | { readonly kind: 'jump'; readonly ms: number }
  | { readonly kind: 'watch' | 'stop' };

/**
 * `started` has the address; `turns` the longest turn from `watch` to `stop`, in CPU time of the thread and in wall time, and the longest
 * collection of garbage, in wall time, which is in a turn.
 */
export type Answer =
  | { readonly kind: 'started'; readonly address: string }
  | { readonly kind: 'watching' }
  | { readonly kind: 'turns'; readonly cpuMs: number; readonly wallMs: number; readonly collectorMs: number };

let jumpedMs = 0;
const clock: Clock = { ...systemClock, now: () => Date.now() + jumpedMs };
const listeners = new Set<(loaded: LoadedConfig) => void>();

function load(config: object): Promise<LoadedConfig> {
  return parseConfig(JSON.stringify(config), { file: 'bench.yaml', flags: {}, env: {} });
}

async function reload(config: object): Promise<void> {
  const loaded = await load(config);
  for (const listener of listeners) listener(loaded);
}

async function start(config: object): Promise<void> {
  const loaded = await load(config);
  if (!loaded.ok) throw new Error(formatIssues(loaded.error));
  const { revocations } = loaded.value;
  if (revocations === undefined) throw new Error('the deny list is a part of it');
  const denyList = createDenyFile({ file: revocations.file, clock, intervalMs: 100 });
  const read = await denyList.load();
  if (!read.ok) throw new Error(formatIssues(read.error));
  const ending = new AbortController();
  void denyList.watch(ending.signal);
  const app = await createApp(loaded.value, {
    version: 'bench',
    clock,
    denyList,
    reloads: {
      onReload(listener) {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    },
  });
  await app.start(AbortSignal.timeout(30_000));
  process.once('disconnect', () => {
    ending.abort();
    void app.stop('the benchmark is over', AbortSignal.abort());
  });
  const address = app.addresses().get('in');
  if (address === undefined) throw new Error('the listener is not bound');
  tell({ kind: 'started', address: formatAddress(address) });
}

let isWatching = false;
/** Between two looks, when the event loop is idle. */
const LOOK_EVERY_MS = 1;

/**
 * CPU time of the thread, with what the collector takes of it: the machine may be busy with others. The wall time shows what they had. It looks
 * by a timer and not in each turn, which would make 100,000 objects a second and be what the collector has to do. So what is between two looks is
 * taken for one turn: it is that, or some short ones that together took a millisecond more.
 */
function watch(): void {
  isWatching = true;
  let cpuMs = 0;
  let wallMs = 0;
  let collectorMs = 0;
  const collections = new PerformanceObserver((seen) => note(seen.getEntries()));
  const note = (entries: readonly PerformanceEntry[]): void => {
    for (const { duration } of entries) collectorMs = Math.max(collectorMs, duration);
  };
  collections.observe({ entryTypes: ['gc'] });
  let lastAtMs = performance.now();
  let before = process.threadCpuUsage();
  const turn = (): void => {
    const { user, system } = process.threadCpuUsage(before);
    const nowMs = performance.now();
    cpuMs = Math.max(cpuMs, (user + system) / 1000);
    wallMs = Math.max(wallMs, nowMs - lastAtMs - LOOK_EVERY_MS);
    lastAtMs = nowMs;
    before = process.threadCpuUsage();
    if (isWatching) setTimeout(turn, LOOK_EVERY_MS);
    else {
      note(collections.takeRecords());
      collections.disconnect();
      tell({ kind: 'turns', cpuMs, wallMs, collectorMs });
    }
  };
  setImmediate(() => {
    tell({ kind: 'watching' });
    before = process.threadCpuUsage();
    lastAtMs = performance.now();
    setTimeout(turn, LOOK_EVERY_MS);
  });
}

function tell(answer: Answer): void {
  process.send?.(answer);
}

process.on('message', (ask: Ask) => {
  switch (ask.kind) {
    case 'start':
      void start(ask.config);
      return;
    case 'reload':
      void reload(ask.config);
      return;
    case 'jump':
      jumpedMs += ask.ms;
      return;
    case 'watch':
      watch();
      return;
    case 'stop':
      isWatching = false;
  }
});
