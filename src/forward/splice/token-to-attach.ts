import type { AttachedToken } from './heads.ts';

/** The token of ours that one request is to have: looked for when the request is to be sent, and waited for if none is valid then. */
export class TokenToAttach {
  readonly #token: AttachedToken;
  readonly #came: (problem: string | undefined, isWithin: boolean) => void;
  /** As it was when it was looked for last. */
  #block: Buffer | undefined;
  #wait: { abort(): void } | undefined;

  /** `came`: there is one to look for, or why there is none. `isWithin`: it is told within `look`. */
  constructor(token: AttachedToken, came: (problem: string | undefined, isWithin: boolean) => void) {
    this.#token = token;
    this.#came = came;
  }

  get isAwaited(): boolean {
    return this.#wait !== undefined;
  }

  /** Whether there is one that is valid now. If not, it is waited for, once. */
  look(): boolean {
    this.#block = this.#token.block();
    if (this.#block !== undefined) return true;
    if (this.#wait !== undefined) return false;
    let isOver = false;
    let isWithin = true;
    const wait = this.#token.wait((problem) => {
      isOver = true;
      this.#wait = undefined;
      this.#came(problem, isWithin);
    });
    isWithin = false;
    if (!isOver) this.#wait = wait;
    return false;
  }

  /** A head with the token that was found. It is put on one head. */
  putOn(head: Buffer): Buffer {
    const block = this.#block;
    this.#block = undefined;
    return block === undefined ? head : Buffer.concat([head, block]);
  }

  giveUp(): void {
    this.#wait?.abort();
    this.#wait = undefined;
  }
}
