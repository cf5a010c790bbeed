import { readdirSync, readFileSync, statSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { eventLoopDelay } from './event-loop-delay.ts';
import type { Collected } from './text-format.ts';

/** What the process says of itself at one moment. */
interface Look {
  readonly cpu: NodeJS.CpuUsage;
  readonly memory: NodeJS.MemoryUsage;
  readonly loop: ReturnType<typeof performance.eventLoopUtilization>;
  readonly turns: ReturnType<typeof eventLoopDelay>;
  readonly openFiles: number;
  readonly maxFiles: number;
  readonly lagSeconds: number;
}

/**
 * The usual `process_*` and a few `nodejs_*` series. Nothing is sampled between scrapes by a timer, as others do each 10 ms: a sidecar should
 * cost nothing when idle. Returns what is to be done before each scrape.
 */
export function registerProcessMetrics(define: (metric: Collected) => void): () => Promise<void> {
  let look: Look | undefined;
  const as =
    (type: 'counter' | 'gauge') =>
    (name: string, help: string, read: (look: Look) => number): void =>
      define({ name, type, help, labels: [], collect: (add) => (look === undefined ? undefined : add({}, read(look))) });
  const [counter, gauge] = [as('counter'), as('gauge')];
  counter('process_cpu_user_seconds_total', 'Processor time in user mode', ({ cpu }) => cpu.user / 1e6);
  counter('process_cpu_system_seconds_total', 'Processor time in the kernel', ({ cpu }) => cpu.system / 1e6);
  counter('process_cpu_seconds_total', 'Processor time', ({ cpu }) => (cpu.user + cpu.system) / 1e6);
  gauge('process_start_time_seconds', 'When the process started, in seconds since 1970', () => performance.timeOrigin / 1000);
  gauge('process_resident_memory_bytes', 'Resident memory', ({ memory }) => memory.rss);
  gauge('process_open_fds', 'Open file descriptors', ({ openFiles }) => openFiles);
  gauge('process_max_fds', 'Limit of open file descriptors', ({ maxFiles }) => maxFiles);
  gauge('nodejs_heap_size_used_bytes', 'Heap in use', ({ memory }) => memory.heapUsed);
  gauge('nodejs_external_memory_bytes', 'Memory outside the heap that belongs to objects in it', ({ memory }) => memory.external);
  // Busy divided by busy and idle is how near the one thread is to its limit; the runtime counts it anyway.
  counter('nodejs_eventloop_busy_seconds_total', 'Time in which the event loop worked', ({ loop }) => loop.active / 1000);
  counter('nodejs_eventloop_idle_seconds_total', 'Time in which the event loop waited', ({ loop }) => loop.idle / 1000);
  gauge(
    'nodejs_eventloop_delay_p99_seconds',
    'How long one of a hundred turns of the event loop took at least, in the last minute or two',
    ({ turns }) => turns.p99,
  );
  gauge(
    'nodejs_eventloop_delay_max_seconds',
    'How long the longest turn of the event loop took, in the last minute or two',
    ({ turns }) => turns.max,
  );
  gauge('nodejs_eventloop_lag_seconds', 'How long a task waited for its turn during this scrape', ({ lagSeconds }) => lagSeconds);
  // Begins to count now, and not at the first scrape.
  eventLoopDelay();
  return async () => {
    const lagSeconds = await measureLag();
    look = {
      cpu: process.cpuUsage(),
      memory: process.memoryUsage(),
      loop: performance.eventLoopUtilization(),
      turns: eventLoopDelay(),
      openFiles: countOpenFiles(),
      maxFiles: readFileLimit(),
      lagSeconds,
    };
  };
}

/** NaN where the system does not say. Read at once: for what /proc makes up, another thread would have to be woken, which costs more. */
function countOpenFiles(): number {
  try {
    // Since Linux 6.2 the size of the folder is their number: ten thousand names would each have to become a string.
    const { size } = statSync('/proc/self/fd');
    if (size > 0) return size;
    // One of them is this very listing.
    return readdirSync('/proc/self/fd').length - 1;
  } catch {
    return Number.NaN;
  }
}

function readFileLimit(): number {
  try {
    const [, soft] = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
    return soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft);
  } catch {
    return Number.NaN;
  }
}

function measureLag(): Promise<number> {
  const start = performance.now();
  return new Promise((resolve) => {
    setImmediate(() => resolve((performance.now() - start) / 1000));
  });
}
