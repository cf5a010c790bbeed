/** What `scute run` and whoever runs beside an application do with `app.ts`. */
import type { Config } from './config/config.ts';
import { createApp, type App, type AppDeps } from './app.ts';

export interface BesideEnd {
  readonly exitCode: number;
  /** For the log. */
  readonly reason: string;
  /** When it aborts, the drain is over at once. */
  readonly hurry?: AbortSignal | undefined;
}

/** Who runs an application, and what is beside it and above it. */
export interface RunDeps {
  readonly stderr: (text: string) => void;
  /** Decides when it is over. */
  readonly beside?: ((app: App) => Promise<BesideEnd>) | undefined;
  /** A service manager, which is told how we are. */
  readonly above?: ((app: App) => { stopping(): void; stopped(): Promise<void> }) | undefined;
}

/**
 * `scute run`: starts, waits for `signal`, drains. Resolves to the exit code: 0 if everything drained, 1 if not or if it could not start. With
 * `beside`, it ends when that does, and with its exit code.
 */
export async function runApp(config: Config, deps: AppDeps & RunDeps, signal: AbortSignal): Promise<number> {
  const app = await createApp(config, deps);
  try {
    await app.start(signal);
  } catch (cause) {
    if (signal.aborted) return 0;
    deps.stderr(`scute: ${describe(cause)}\n`);
    return 1;
  }
  const manager = deps.above?.(app);
  const either = AbortSignal.any([signal, app.stopRequested]);
  const end = await (deps.beside?.(app) ?? aborted(either));
  const { drainTimeoutMs } = app.config();
  const reason = end?.reason ?? String(either.reason);
  manager?.stopping();
  const overdue = drainTimeoutMs === 0 ? AbortSignal.abort() : AbortSignal.timeout(drainTimeoutMs);
  const deadline = end?.hurry === undefined ? overdue : AbortSignal.any([overdue, end.hurry]);
  // The exit code of an application is not lost for what could not be put away.
  const forced = await app.stop(reason, deadline).catch((cause: unknown) => {
    deps.stderr(`scute: ${describe(cause)}\n`);
    return 1;
  });
  await manager?.stopped();
  return end?.exitCode ?? (forced === 0 ? 0 : 1);
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}

function describe(cause: unknown): string {
  if (cause instanceof AggregateError) return cause.errors.map(describe).join('; ');
  if (!(cause instanceof Error)) return String(cause);
  if (cause.cause === undefined) return cause.message;
  const below = describe(cause.cause);
  // Some say it already, in their own words.
  return cause.message.endsWith(below) ? cause.message : `${cause.message}: ${below}`;
}
