/** A cell with one writer and many readers. Readers pull the value, or subscribe to be told of later ones. */
export interface Watch<T> {
  get(): T | undefined;
  set(value: T): void;
  /** Calls `listener` at once with the value held, if any, then with each later one. Returns the way to stop. */
  subscribe(listener: (value: T) => void): () => void;
}

export function createWatch<T>(initial?: T): Watch<T> {
  const listeners = new Set<(value: T) => void>();
  let held = initial;
  return {
    get: () => held,
    set(value) {
      held = value;
      tellEach(listeners, value);
    },
    subscribe(listener) {
      // A wrapper, so that subscribing the same function twice gives two subscriptions.
      const own = (value: T): void => listener(value);
      listeners.add(own);
      if (held !== undefined) own(held);
      return () => listeners.delete(own);
    },
  };
}

/**
 * Calls each listener with `value`, but those that another has made leave meanwhile. One that throws keeps nobody from hearing. What it
 * threw is a mistake of ours and ends the process as an uncaught exception: on a stack of its own, since whoever calls may catch, and
 * take it for a failure of the world.
 */
export function tellEach<T>(listeners: ReadonlySet<(value: T) => void>, value: T): void {
  const told = [...listeners];
  for (const listener of told) {
    if (!listeners.has(listener)) continue;
    try {
      listener(value);
    } catch (mistake) {
      queueMicrotask(() => {
        throw mistake;
      });
    }
  }
}
