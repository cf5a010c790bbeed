import type { IdentitySnapshot } from './snapshot.ts';

/** Tells updates that bring other SVIDs than those that were held from all others. */
export class RotationWatch {
  #held: string | undefined;

  /** Whether what is held now is not what was: not at the first, and not for what is withdrawn, or comes back as it was. */
  isRotation(snapshot: IdentitySnapshot): boolean {
    if (snapshot.kind !== 'held') return false;
    const held = snapshot.svids.map(({ chain }) => chain.map(({ sha256 }) => sha256).join(' ')).join('\n');
    const isAnother = this.#held !== undefined && this.#held !== held;
    this.#held = held;
    return isAnother;
  }
}
