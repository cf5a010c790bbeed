/** The fields that an encoder had put into its table, newest first (RFC 7541, sections 2.3.2, 4.3 and 4.4). Pure. */
import { fieldSize, type HpackField } from './field.ts';

/** Places of old that are cleared away at once, when they are also half of all. */
const WORTH_MOVING = 16;

export class DynamicTable {
  /** From the oldest to the newest; those before `#oldest` are gone. */
  #fields: (HpackField | undefined)[] = [];
  #oldest = 0;
  #bytes = 0;
  #maxBytes: number;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** What the fields may count for together. */
  get maxBytes(): number {
    return this.#maxBytes;
  }

  /** The `index`th, of which the newest is 0; undefined if there are not so many. */
  at(index: number): HpackField | undefined {
    const place = this.#fields.length - 1 - index;
    return place < this.#oldest ? undefined : this.#fields[place];
  }

  /** Drops the oldest to make room. One that is too large for the whole table leaves it empty, and is not an error. */
  insert(field: HpackField): void {
    const size = fieldSize(field);
    this.#evict(this.#maxBytes - size);
    if (size > this.#maxBytes) return;
    this.#fields.push(field);
    this.#bytes += size;
  }

  resize(maxBytes: number): void {
    this.#maxBytes = maxBytes;
    this.#evict(maxBytes);
  }

  #evict(toBytes: number): void {
    while (this.#bytes > toBytes && this.#oldest < this.#fields.length) {
      const gone = this.#fields[this.#oldest];
      this.#fields[this.#oldest++] = undefined;
      if (gone !== undefined) this.#bytes -= fieldSize(gone);
    }
    if (this.#oldest < WORTH_MOVING || this.#oldest * 2 < this.#fields.length) return;
    this.#fields = this.#fields.slice(this.#oldest);
    this.#oldest = 0;
  }
}
