import { readdir, readFile, stat } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { Counter, Gauge, type Registry } from 'prom-client';
import { eventLoopDelay } from './event-loop-delay.ts';

/**
 * The usual `process_*` and a few `nodejs_*` series, read when scraped. prom-client's own default set is not used: its
 * delay histogram wakes the process every 10 ms for as long as it lives, and a sidecar should cost nothing when idle.
 */
export function registerProcessMetrics(registry: Registry): void {
  const registers = [registry];
  const counter = (name: string, help: string, read: () => number): void => {
    const made: Counter = new Counter({
      name,
      help,
      registers,
      collect() {
        made.reset();
        made.inc(read());
      },
    });
  };
  const gauge = (name: string, help: string, read: () => number | Promise<number>): void => {
    const made: Gauge = new Gauge({
      name,
      help,
      registers,
      async collect() {
        made.set(await read());
      },
    });
  };
  counter('process_cpu_user_seconds_total', 'Processor time in user mode', () => process.cpuUsage().user / 1e6);
  counter('process_cpu_system_seconds_total', 'Processor time in the kernel', () => process.cpuUsage().system / 1e6);
  counter('process_cpu_seconds_total', 'Processor time', () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  gauge('process_start_time_seconds', 'When the process started, in seconds since 1970', () => performance.timeOrigin / 1000);
  gauge('process_resident_memory_bytes', 'Resident memory', () => process.memoryUsage.rss());
  gauge('process_open_fds', 'Open file descriptors', countOpenFiles);
  gauge('process_max_fds', 'Limit of open file descriptors', readFileLimit);
  gauge('nodejs_heap_size_used_bytes', 'Heap in use', () => process.memoryUsage().heapUsed);
  gauge('nodejs_external_memory_bytes', 'Memory outside the heap that belongs to objects in it', () => process.memoryUsage().external);
  // Busy divided by busy and idle is how near the one thread is to its limit; the runtime counts it anyway.
  counter(
    'nodejs_eventloop_busy_seconds_total',
    'Time in which the event loop worked',
    () => performance.eventLoopUtilization().active / 1000,
  );
  counter(
    'nodejs_eventloop_idle_seconds_total',
    'Time in which the event loop waited',
    () => performance.eventLoopUtilization().idle / 1000,
  );
  // Begins to count now, and not at the first scrape.
  eventLoopDelay();
  gauge(
    'nodejs_eventloop_delay_p99_seconds',
    'How long one of a hundred turns of the event loop took at least, in the last minute or two',
    () => eventLoopDelay().p99,
  );
  gauge(
    'nodejs_eventloop_delay_max_seconds',
    'How long the longest turn of the event loop took, in the last minute or two',
    () => eventLoopDelay().max,
  );
  gauge('nodejs_eventloop_lag_seconds', 'How long a task waited for its turn during this scrape', measureLag);
}

/** NaN where the system does not say. */
async function countOpenFiles(): Promise<number> {
  try {
    // Since Linux 6.2 the size of the folder is their number: ten thousand names would each have to become a string.
    const { size } = await stat('/proc/self/fd');
    if (size > 0) return size;
    // One of them is this very listing.
    return (await readdir('/proc/self/fd')).length - 1;
  } catch {
    return Number.NaN;
  }
}

async function readFileLimit(): Promise<number> {
  try {
    const [, soft] = /^Max open files\s+(\S+)/m.exec(await readFile('/proc/self/limits', 'utf8')) ?? [];
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
