/** Runs work when that before it is over, however it ended; settles as the work does. */
export type InTurn = <T>(work: () => Promise<T>) => Promise<T>;

/** A queue of its own: one piece of work at a time, in the order of the calls. */
export function oneAtATime(): InTurn {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const mine = last.then(work);
    last = mine.catch(() => {});
    return mine;
  };
}
