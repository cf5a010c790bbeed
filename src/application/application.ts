import { spawn, type ChildProcess } from 'node:child_process';
import type { ExecConfig } from '../config/config.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import type { ApplicationEvents } from '../telemetry/events/application-events.ts';
import type { StartReason, StopReason } from '../telemetry/log/application-records.ts';
import { EXIT_NOT_ENDED, exitCodeOf, exitCodeOfFailure, exitCodeOfSignal } from './exit-code.ts';

export interface ApplicationOptions {
  /** An argument vector: no shell reads it. */
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly settings: Pick<ExecConfig, 'user' | 'restartOnRotation' | 'stopTimeoutMs'>;
  readonly clock: Clock;
  readonly events: ApplicationEvents;
  /** Calls `listener` at the very end of this process, in which nothing can be awaited. Returns the way to stop. */
  readonly onOurEnd: (listener: () => void) => () => void;
}

export interface RunningApplication {
  readonly pid: number;
  /** Monotonic, from before it could do anything. */
  readonly startedAtMs: number;
}

/** However often identity changes, an application is not started anew more often than this. */
const SHORTEST_RUN_MS = 10_000;
/** After these nobody wants it to be started anew. */
const ENDING: ReadonlySet<string> = new Set(['SIGTERM', 'SIGINT', 'SIGQUIT']);

/**
 * The program beside us. It has our standard streams and no other descriptor of ours, is sent what we are sent, and is never started anew
 * because it ended: only because it was asked to, so that it takes up another identity.
 */
export class Application {
  /** Resolves to its exit code, 128 + n if a signal ended it: when it has ended, or could not be started. */
  readonly ended: Promise<number>;
  readonly #options: ApplicationOptions;
  readonly #end: (exitCode: number) => void;
  #child: ChildProcess | undefined;
  #running: RunningApplication | undefined;
  /** Why the system did not let us send the last signal. */
  #notSent: unknown;
  #isOver = false;
  /** Nobody wants it to be started anew. */
  #isLast = false;
  /** It was asked to end, to be started anew. */
  #isRestarting = false;
  #killTimer: Timer | undefined;
  #restartTimer: Timer | undefined;
  #stopListening: (() => void) | undefined;

  constructor(options: ApplicationOptions) {
    this.#options = options;
    const { promise, resolve } = Promise.withResolvers<number>();
    this.ended = promise;
    this.#end = resolve;
  }

  /** It has ended, or is not to be started. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Its process, while there is one; another object for each. */
  get running(): RunningApplication | undefined {
    return this.#running;
  }

  /** Starts it, once, unless it was asked to end before. */
  start(): void {
    if (!this.#isOver) this.#launch('start');
  }

  /** Sends it a signal. Before it was started, those that end a program end the wait for it. */
  signal(name: NodeJS.Signals): void {
    if (ENDING.has(name)) this.#isLast = true;
    if (this.#child === undefined) {
      if (ENDING.has(name)) this.#over(exitCodeOfSignal(name));
    } else if (!this.#send(name) && ENDING.has(name)) this.#endInTime();
  }

  /** Sends it a signal that is not to end it. False: the system does not let us. */
  tell(name: NodeJS.Signals): boolean {
    return this.#send(name);
  }

  /** It is to end: it is asked to, and made to when `stopTimeout` is over. */
  stop(): void {
    this.#isLast = true;
    if (this.#child === undefined) this.#over(exitCodeOfSignal('SIGTERM'));
    else this.#askToEnd('shutdown');
  }

  /** There are other SVIDs. A program that cannot take them up while it runs is started anew, if the configuration says so. */
  identityChanged(): void {
    if (!this.#options.settings.restartOnRotation || this.#child === undefined || this.#isLast || this.#isRestarting) return;
    const ranMs = this.#options.clock.monotonic() - (this.#running?.startedAtMs ?? 0);
    this.#restartTimer ??= this.#options.clock.after(SHORTEST_RUN_MS - ranMs, () => {
      this.#restartTimer = undefined;
      if (this.#child === undefined || this.#isLast) return;
      this.#isRestarting = true;
      this.#askToEnd('rotation');
    });
  }

  #launch(reason: StartReason): void {
    const { command, env, settings, clock, events, onOurEnd } = this.#options;
    const [file, ...args] = command;
    const { user } = settings;
    const failed = (cause: unknown): void => {
      events.notStarted(file, messageOf(cause));
      this.#over(exitCodeOfFailure(cause));
    };
    let child: ChildProcess;
    const startedAtMs = clock.monotonic();
    try {
      // What it writes goes where ours would, without passing through us; descriptors of ours are closed when it is executed.
      child = spawn(file, args, { env, stdio: 'inherit', ...(user && { uid: user.uid, gid: user.gid }) });
    } catch (cause) {
      failed(cause);
      return;
    }
    this.#child = child;
    // Undefined if it could not be started, of which `error` tells.
    if (child.pid !== undefined) this.#running = { pid: child.pid, startedAtMs };
    let hasStarted = false;
    child.once('spawn', () => {
      hasStarted = true;
      events.started(reason, { command: file, pid: child.pid ?? 0, uid: user?.uid });
    });
    child.on('error', (cause) => {
      // After its start, that a signal could not be sent, while that is being tried.
      if (hasStarted) this.#notSent = cause;
      else failed(cause);
    });
    // Not `close`: whoever it started may go on writing.
    child.once('exit', (code, signal) => this.#exited(code, signal));
    // Scute may end by itself, for a mistake. Of a SIGKILL it hears nothing.
    this.#stopListening ??= onOurEnd(() => this.#child?.kill('SIGTERM'));
  }

  #askToEnd(reason: StopReason): void {
    this.#options.events.asked(reason);
    this.#send('SIGTERM');
    this.#endInTime();
  }

  #endInTime(): void {
    const { clock, events, settings } = this.#options;
    this.#killTimer ??= clock.after(settings.stopTimeoutMs, () => {
      if (this.#send('SIGKILL')) events.killed(settings.stopTimeoutMs);
      else this.#leave();
    });
  }

  /** False, and told, if the system does not let us: it runs as another user by now, as what `sudo` starts does. One that has ended counts as told. */
  #send(name: NodeJS.Signals): boolean {
    this.#notSent = undefined;
    this.#child?.kill(name);
    if (this.#notSent === undefined) return true;
    this.#options.events.notSent(name, { pid: this.#running?.pid ?? 0, detail: messageOf(this.#notSent) });
    return false;
  }

  /** It cannot be ended: we go on with it, or end without it. */
  #leave(): void {
    this.#killTimer = undefined;
    const isRestarting = this.#isRestarting && !this.#isLast;
    this.#isRestarting = false;
    this.#options.events.notEnded(isRestarting ? 'rotation' : 'shutdown', this.#running?.pid ?? 0);
    if (isRestarting) return;
    this.#child?.unref();
    this.#over(EXIT_NOT_ENDED);
  }

  #exited(code: number | null, signal: NodeJS.Signals | null): void {
    this.#killTimer?.cancel();
    this.#killTimer = undefined;
    this.#restartTimer?.cancel();
    this.#restartTimer = undefined;
    this.#child = undefined;
    this.#running = undefined;
    // We have gone on without it.
    if (this.#isOver) return;
    const exitCode = exitCodeOf(code, signal);
    const wasAsked = this.#isLast || this.#isRestarting;
    this.#options.events.ended(exitCode, wasAsked ? 'asked' : signal !== null ? 'signal' : code === 0 ? 'ok' : 'exit_code');
    const isRestarting = this.#isRestarting && !this.#isLast;
    this.#isRestarting = false;
    if (isRestarting) this.#launch('rotation');
    else this.#over(exitCode);
  }

  #over(exitCode: number): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#isLast = true;
    this.#stopListening?.();
    this.#end(exitCode);
  }
}
