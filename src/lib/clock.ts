import { performance } from 'node:perf_hooks';

/** Time comes in through this, so that tests can hold it still. Wall time may jump; monotonic time may not. */
export interface Clock {
  /** Wall time, milliseconds since 1970. Certificates are judged by it. */
  now(): number;
  /** Milliseconds since an arbitrary start; never goes back. Durations are measured by it. */
  monotonic(): number;
  /**
   * Runs `task` once after `delayMs` of monotonic time, when what had come by then has been read: who judges that nothing came
   * must not say so of what waits in the kernel. A timer does not keep the process alive.
   */
  after(delayMs: number, task: () => void): Timer;
  /** Resolves after `delayMs`, or at once when `signal` aborts. Never rejects. */
  sleep(delayMs: number, signal: AbortSignal): Promise<void>;
}

export interface Timer {
  cancel(): void;
}

/** `setTimeout` beyond 24.8 days fires at once, so no timer is armed for longer than this: whoever waits for a date re-arms and rechecks. */
export const LONGEST_TIMER_MS = 3_600_000;

/** So late is a timer only if the whole process was held up: stopped, starved, or asleep with its machine. */
const LATE_MS = 100;
/** Then others have as long to answer what they could not have been told before. */
const GRACE_MS = 250;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after: (delayMs, task) => new SystemTimer(Math.min(Math.max(delayMs, 0), LONGEST_TIMER_MS), task),
  sleep(delayMs, signal) {
    return new Promise((resolve) => {
      if (signal.aborted) {
        resolve();
        return;
      }
      const finish = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', finish);
        resolve();
      };
      const timer = setTimeout(finish, Math.min(Math.max(delayMs, 0), LONGEST_TIMER_MS));
      signal.addEventListener('abort', finish, { once: true });
    });
  },
};

class SystemTimer implements Timer {
  readonly #task: () => void;
  readonly #dueMs: number;
  #timer: NodeJS.Timeout;
  #soon: NodeJS.Immediate | undefined;

  constructor(delayMs: number, task: () => void) {
    this.#task = task;
    this.#dueMs = performance.now() + delayMs;
    this.#timer = setTimeout(fire, delayMs, this).unref();
  }

  cancel(): void {
    clearTimeout(this.#timer);
    if (this.#soon !== undefined) clearImmediate(this.#soon);
  }

  /** The event loop runs timers before it reads, and immediates after. */
  fire(): void {
    if (performance.now() - this.#dueMs > LATE_MS) this.#timer = setTimeout(judge, GRACE_MS, this).unref();
    else this.judge();
  }

  judge(): void {
    // Never unreferenced: the event loop would wait for something else to happen first.
    this.#soon = setImmediate(this.#task);
  }
}

function fire(timer: SystemTimer): void {
  timer.fire();
}

function judge(timer: SystemTimer): void {
  timer.judge();
}
