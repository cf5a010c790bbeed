/** Runs `steps` to their end. Where others are served meanwhile, `config/in-turns.ts` does it. */
export function atOnce<T>(steps: Generator<void, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}
