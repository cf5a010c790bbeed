/** The streams that were closed last. It is asked only about frames that come late, or never should. Pure. */
export class RecentStreams {
  readonly #ids: Uint32Array;
  #next = 0;
  /** The highest of those that there was no room for any more. */
  #forgotten = 0;

  constructor(most: number) {
    this.#ids = new Uint32Array(most);
  }

  add(stream: number): void {
    this.#forgotten = Math.max(this.#forgotten, this.#ids[this.#next] ?? 0);
    this.#ids[this.#next] = stream;
    this.#next = (this.#next + 1) % this.#ids.length;
  }

  has(stream: number): boolean {
    return this.#ids.includes(stream);
  }

  /** It is one of them, or may have been. */
  mayHaveHad(stream: number): boolean {
    return stream <= this.#forgotten || this.has(stream);
  }
}
