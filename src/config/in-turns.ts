import { setImmediate as othersTurn } from 'node:timers/promises';

/** How long steps go on before others get a turn. The last of them may take some milliseconds more. */
const TURN_MS = 4;

/** Runs `steps` to their end, a few milliseconds at a time: what takes long stops nobody else. */
export async function inTurns<T>(steps: Generator<void, T>): Promise<T> {
  let untilMs = performance.now() + TURN_MS;
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    if (performance.now() < untilMs) continue;
    await othersTurn();
    untilMs = performance.now() + TURN_MS;
  }
}
