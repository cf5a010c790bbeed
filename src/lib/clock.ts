import { performance } from 'node:perf_hooks';

/** Time comes in through this, so that tests can hold it still. Wall time may jump; monotonic time may not. */
export interface Clock {
  /** Wall time, milliseconds since 1970. Certificates are judged by it. */
  now(): number;
  /** Milliseconds since an arbitrary start; never goes back. Durations are measured by it. */
  monotonic(): number;
  /** Runs `task` once after `delayMs` of monotonic time. A timer does not keep the process alive. */
  after(delayMs: number, task: () => void): Timer;
  /** Resolves after `delayMs`, or at once when `signal` aborts. Never rejects. */
  sleep(delayMs: number, signal: AbortSignal): Promise<void>;
}

export interface Timer {
  cancel(): void;
}

/** `setTimeout` beyond 24.8 days fires at once, so no timer is armed for longer than this: whoever waits for a date re-arms and rechecks. */
export const LONGEST_TIMER_MS = 3_600_000;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(delayMs, task) {
    const timer = setTimeout(task, Math.min(Math.max(delayMs, 0), LONGEST_TIMER_MS));
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
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
