/** The program's own handlers come first in it, and yet after all that is read to run it: seconds, with a hundredth of a core. */
const ENDING = ['SIGINT', 'SIGTERM'] as const;

/**
 * Takes the signals that ask for the end, for the program that is to be run in this same turn of the event loop: they are heard in the next one, by its handlers.
 * A container's first process would lose what comes before that, since such signals end every process but number 1.
 */
export function keepEndingSignals(): void {
  for (const name of ENDING) process.on(name, () => {});
}
