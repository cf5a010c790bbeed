import { createWatch } from '../lib/watch.ts';
import type { IdentitySnapshot } from './snapshot.ts';

/** The reading side: all that anybody but the Workload API source ever holds. */
export interface IdentityView {
  /** Undefined until the first answer of the Workload API was accepted. */
  current(): IdentitySnapshot | undefined;
  /** Called at once with the current snapshot, if any, then with every later one. Returns the way to stop. */
  subscribe(listener: (snapshot: IdentitySnapshot) => void): () => void;
}

/** The writing side: only `workload-api/source.ts` is given it. */
export interface IdentityPublisher {
  publish(snapshot: IdentitySnapshot): void;
}

export function createIdentityStore(): { view: IdentityView; publisher: IdentityPublisher } {
  const cell = createWatch<IdentitySnapshot>();
  return {
    view: { current: () => cell.get(), subscribe: (listener) => cell.subscribe(listener) },
    publisher: {
      publish(snapshot) {
        const held = cell.get();
        // A stream that was already replaced may still deliver; its answer is older than ours.
        if (held !== undefined && snapshot.generation <= held.generation) return;
        cell.set(snapshot);
      },
    },
  };
}
