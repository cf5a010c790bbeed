import { BAD_ENDS, type ApplicationEnd, type ApplicationStatus } from '../../telemetry/log/application-records.ts';
import type * as api from '../api-types.ts';
import { isoTime } from '../iso-time.ts';
import type { CheckResult } from './readiness.ts';

/** So long the first SVID, files and listeners may take before somebody should look. */
const PATIENCE_MS = 30_000;

const SAID: Readonly<Record<Exclude<ApplicationEnd, 'ok' | 'asked'>, string>> = {
  exit_code: 'ended by itself',
  signal: 'was ended by a signal that Scute did not send',
  not_ended: 'runs as another user, could not be ended, and runs on',
  not_started: 'could not be started',
  not_ready: 'was not started: what it needs did not come in time',
};

/** A warning while the application that we run waits for long, or when it ended badly. */
export function applicationCheck(status: ApplicationStatus | undefined, nowMs: number): CheckResult {
  if (status === undefined) return { ok: true };
  const { program, state, sinceMs } = status;
  const since = `since ${isoTime(sinceMs)}`;
  if (state === 'running') return { ok: true, detail: `${program} runs ${since}` };
  if (state === 'waiting') return { ok: nowMs - sinceMs < PATIENCE_MS, detail: `${program} waits to be started ${since}` };
  const { end, exitCode, detail } = status;
  const more = [exitCode === undefined ? undefined : `exit code ${exitCode}`, detail].filter((part) => part !== undefined);
  const said = end === 'ok' || end === 'asked' ? 'ended' : SAID[end];
  return { ok: !BAD_ENDS.has(end), detail: [`${program} ${said}`, ...more].join(': ') };
}

/** The application as plain JSON values; null if there is none. */
export function describeApplication(status: ApplicationStatus | undefined): api.Application | null {
  if (status === undefined) return null;
  const { program, state, sinceMs } = status;
  const ended = state === 'ended' ? status : undefined;
  return {
    program,
    state,
    since: isoTime(sinceMs),
    pid: state === 'running' ? status.pid : null,
    result: ended?.end ?? null,
    exitCode: ended?.exitCode ?? null,
  };
}
