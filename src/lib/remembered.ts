/** Values by key: the youngest of those that were set, within a number and a size. */
export class Remembered<T> {
  readonly #known = new Map<string, T>();
  readonly #most: number;
  readonly #mostBytes: number;
  readonly #bytesOf: (value: T) => number;
  #bytes = 0;

  constructor(most: number, mostBytes: number, bytesOf: (value: T) => number) {
    this.#most = most;
    this.#mostBytes = mostBytes;
    this.#bytesOf = bytesOf;
  }

  get(key: string): T | undefined {
    return this.#known.get(key);
  }

  set(key: string, value: T): void {
    // A Map keeps insertion order: deleting first makes this entry the youngest.
    this.#forget(key);
    this.#known.set(key, value);
    this.#bytes += this.#bytesOf(value);
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= this.#most && this.#bytes <= this.#mostBytes) return;
      this.#forget(oldest);
    }
  }

  /** Removes it; undefined if it is not there. */
  take(key: string): T | undefined {
    const value = this.#known.get(key);
    this.#forget(key);
    return value;
  }

  /** The oldest first. */
  values(): IterableIterator<T> {
    return this.#known.values();
  }

  get size(): number {
    return this.#known.size;
  }

  clear(): void {
    this.#known.clear();
    this.#bytes = 0;
  }

  #forget(key: string): void {
    const value = this.#known.get(key);
    if (value === undefined) return;
    this.#known.delete(key);
    this.#bytes -= this.#bytesOf(value);
  }
}
