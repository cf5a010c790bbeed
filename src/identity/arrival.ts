import { chooseSvid, type IdentitySnapshot, type SvidChoice } from './snapshot.ts';

/**
 * Whether the first SVID that `choice` names is still to come. It is until it came, whatever the Workload API says before, such as that we
 * hold none yet: an agent may hear of us later than we start. Once identities were held and then withdrawn, nothing is awaited any more.
 */
export class Arrival {
  readonly #choice: SvidChoice;
  #hasHeld = false;
  #isAwaited = true;

  constructor(choice: SvidChoice) {
    this.#choice = choice;
  }

  get isAwaited(): boolean {
    return this.#isAwaited;
  }

  note(snapshot: IdentitySnapshot): void {
    if (snapshot.kind === 'held') {
      this.#hasHeld = true;
      if (chooseSvid(snapshot, this.#choice) !== undefined) this.#isAwaited = false;
    } else if (this.#hasHeld) this.#isAwaited = false;
  }
}
