import { isatty } from 'node:tty';
import type { App, AppDeps } from '../../app.ts';
import type { BesideEnd } from '../../run-app.ts';
import { unwrittenSets } from '../../admin/checks/file-sets.ts';
import { Application } from '../../application/application.ts';
import { applicationEnvironment } from '../../application/environment.ts';
import { systemClock } from '../../lib/clock.ts';
import { EXIT_UNAVAILABLE, type CommandEnvironment } from '../environment.ts';
import { run } from './run.ts';

export interface ExecOptions {
  readonly config: string;
  readonly user?: string | undefined;
  readonly restartOnRotation?: boolean | undefined;
}

/** How often it is asked whether the application may start: nobody notices so little. */
const LOOK_EVERY_MS = 20;
/** A terminal sends them to us and to the application, which is in the same group, and would have them twice. */
const SENT_BY_TERMINALS: ReadonlySet<string> = new Set(['SIGINT', 'SIGQUIT']);

/** As they end `scute run`: a drain begins, and a second one cuts it off. */
const ENDS_SCUTE: ReadonlySet<string> = new Set(['SIGTERM', 'SIGINT']);

/**
 * `scute exec`: the proxy, and an application that starts when identity and listeners are there. It is sent our signals; when it ends, the
 * listeners drain, and its exit code is ours.
 */
export async function exec(
  command: readonly [string, ...string[]],
  { config, user, restartOnRotation }: ExecOptions,
  environment: CommandEnvironment,
  signal: AbortSignal,
): Promise<number> {
  const flags = { exec: { ...(user !== undefined && { user }), ...(restartOnRotation !== undefined && { restartOnRotation }) } };
  const early: NodeJS.Signals[] = [];
  let send = (name: NodeJS.Signals): void => void early.push(name);
  const onTerminal = isatty(0);
  let wasAsked = false;
  const giveBack = environment.takeSignals?.((name) => send(name));
  let started: Application | undefined;
  const told: AppDeps['application'] = {
    program: command[0],
    get running() {
      return started?.running;
    },
    tell: (name) => started?.tell(name) === true,
  };
  const hurry = new AbortController();
  const beside = async (app: App): Promise<BesideEnd> => {
    const { exec: settings } = app.config();
    app.events.application.expected(command[0]);
    const application = new Application({
      command,
      env: applicationEnvironment(environment.env, settings.user),
      settings,
      clock: systemClock,
      events: app.events.application,
      onOurEnd(listener) {
        process.once('exit', listener);
        return () => process.off('exit', listener);
      },
    });
    started = application;
    send = (name) => {
      // Its end is followed by a drain, which the second who asks for an end need not wait for.
      if (ENDS_SCUTE.has(name)) {
        if (wasAsked && application.isOver) hurry.abort();
        wasAsked = true;
      }
      if (onTerminal && application.running !== undefined && SENT_BY_TERMINALS.has(name)) application.heard(name);
      else application.signal(name);
    };
    for (const name of early) send(name);
    const stopped = AbortSignal.any([signal, app.stopRequested]);
    const stop = (): void => application.stop();
    if (stopped.aborted) stop();
    else stopped.addEventListener('abort', stop, { once: true });
    let isTakingUp = false;
    const stopListening = app.onRotation(() => {
      // One that waits for files of before takes up those of now.
      if (isTakingUp) return;
      isTakingUp = true;
      void takeUp(app, application).finally(() => (isTakingUp = false));
    });
    if (process.pid === 1) app.events.application.reapsNoOrphans();
    try {
      if (!(await isReady(app, settings.waitTimeoutMs, application)))
        return { exitCode: EXIT_UNAVAILABLE, reason: 'what the application needs did not come', hurry: hurry.signal };
      application.start();
      return { exitCode: await application.ended, reason: 'the application ended', hurry: hurry.signal };
    } finally {
      stopListening();
    }
  };
  try {
    return await run(
      { file: config, flags, logStream: 'shared-stderr', application: told },
      { ...environment, onHangup: () => () => undefined },
      signal,
      beside,
    );
  } finally {
    giveBack?.();
  }
}

/** The application reads files: it is started anew when those of the identity are there. */
async function takeUp(app: App, application: Application): Promise<void> {
  const over = new AbortController();
  void application.ended.then(() => over.abort());
  while (areFilesMissing(app) && !application.isOver) await systemClock.sleep(LOOK_EVERY_MS, over.signal);
  application.identityChanged();
}

function areFilesMissing(app: App): boolean {
  return unwrittenSets(app.fileSets(), app.identity()).length > 0;
}

/** Resolves when nothing is missing that blocks, or to false when the time is over; also when the application is not wanted any more. */
async function isReady(app: App, timeoutMs: number | undefined, application: Application): Promise<boolean> {
  const over = new AbortController();
  void application.ended.then(() => over.abort());
  const untilMs = systemClock.monotonic() + (timeoutMs ?? Infinity);
  while ((app.notReady().length > 0 || areFilesMissing(app)) && !application.isOver) {
    if (systemClock.monotonic() >= untilMs) {
      app.events.application.waitedInVain(app.notReady());
      return false;
    }
    await systemClock.sleep(LOOK_EVERY_MS, over.signal);
  }
  return true;
}
