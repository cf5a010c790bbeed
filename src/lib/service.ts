/** Something with a lifetime. Services start in order and stop in reverse. */
export interface Service {
  readonly name: string;
  /** Acquires everything that can fail (bind, open, read). Rejects if `signal` aborts. */
  start(signal: AbortSignal): Promise<void>;
  /** Takes no new work and finishes the old; when `deadline` aborts, drops the rest. Safe to call twice. */
  stop(deadline: AbortSignal): Promise<void>;
}

/** Starts services in order. If one fails, those before it are stopped, and the errors are joined. */
export async function startAll(services: readonly Service[], signal: AbortSignal): Promise<void> {
  const started: Service[] = [];
  for (const service of services) {
    try {
      await service.start(signal);
      started.push(service);
    } catch (cause) {
      const failures = await stopAll([...started, service], AbortSignal.abort());
      if (failures.length === 0) throw cause;
      throw new AggregateError([cause, ...failures], `${service.name} could not start`, { cause });
    }
  }
}

/** Stops services in reverse order. A failing stop does not keep the others from stopping; what failed is returned. */
export async function stopAll(services: readonly Service[], deadline: AbortSignal): Promise<unknown[]> {
  const failures: unknown[] = [];
  for (const service of services.toReversed()) {
    try {
      await service.stop(deadline);
    } catch (failure) {
      failures.push(failure);
    }
  }
  return failures;
}
