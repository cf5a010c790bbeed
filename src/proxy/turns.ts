import type { Clock } from '../lib/clock.ts';

/** How many steps are taken before others get a turn: most take a fraction of a millisecond, */
const STEPS_PER_TURN = 32;
/** or many, if somebody outside wants that: so no further one after this. */
const TURN_MS = 4;

interface Work {
  /** Takes one step; false if there was none left. */
  step(): boolean;
}

/**
 * Long work in short turns of the event loop. All that is begun shares the turns: however much there is at once, nobody else waits for more
 * than about one turn.
 */
export class Turns {
  readonly #clock: Clock;
  readonly #work: Work[] = [];
  /** Of the turn that is open; undefined between them. */
  #turn: { readonly untilMs: number; steps: number } | undefined;
  #isTaking = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Calls `step` for each of `items`, in their order, until `goesOn` says no; it is asked before each. Begins at once if there is time left in
   * this turn, and goes on in later ones.
   */
  begin<T>(items: Iterable<T>, step: (item: T) => void, goesOn: () => boolean = always): void {
    const left = items[Symbol.iterator]();
    this.#work.push({
      step() {
        const next = goesOn() ? left.next() : undefined;
        if (next === undefined || next.done === true) return false;
        step(next.value);
        return true;
      },
    });
    if (this.#turn === undefined) this.#open();
    // What is begun by a step waits for its turn.
    else if (!this.#isTaking) this.#take();
  }

  #open(): void {
    this.#turn = { untilMs: this.#clock.monotonic() + TURN_MS, steps: 0 };
    setImmediate(() => {
      this.#turn = undefined;
      if (this.#work.length > 0) this.#open();
    });
    this.#take();
  }

  /** One step of each work after the other, so that none waits for the end of another. */
  #take(): void {
    const turn = this.#turn;
    if (turn === undefined) return;
    this.#isTaking = true;
    try {
      while (turn.steps < STEPS_PER_TURN && (turn.steps === 0 || this.#clock.monotonic() < turn.untilMs)) {
        const work = this.#work.shift();
        if (work === undefined) return;
        turn.steps++;
        if (work.step()) this.#work.push(work);
      }
    } finally {
      this.#isTaking = false;
    }
  }
}

function always(): boolean {
  return true;
}
