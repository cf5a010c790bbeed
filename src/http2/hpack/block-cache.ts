/** Header blocks of late and what they said, for as long as the tables are the same. Pure. */
import type { HpackField } from './field.ts';

/**
 * Of one half: blocks, what the objects take, of an entry and of each field, and what is said: who keeps something by a list keeps
 * about as much, and a block of a few octets may say a table many times over.
 */
const MAX_BYTES = 32_768;
const ENTRY_BYTES = 64;
const FIELD_BYTES = 64;
/** Longer blocks are rare, and hardly ever the same again. */
export const MAX_KEPT_BLOCK = 2048;

/**
 * Two halves: what is asked for in the old one moves to the new one; when that is full, it becomes the old one. So blocks that
 * never come again push none out that do.
 */
export class BlockCache {
  #new = new Map<string, readonly HpackField[]>();
  #old = new Map<string, readonly HpackField[]>();
  #newBytes = 0;

  get(block: string): readonly HpackField[] | undefined {
    const recent = this.#new.get(block);
    if (recent !== undefined || this.#old.size === 0) return recent;
    const before = this.#old.get(block);
    if (before !== undefined) this.set(block, before);
    return before;
  }

  set(block: string, fields: readonly HpackField[]): void {
    let bytes = ENTRY_BYTES + block.length;
    for (const [name, value] of fields) bytes += FIELD_BYTES + name.length + value.length;
    if (bytes > MAX_BYTES) return;
    if (this.#newBytes + bytes > MAX_BYTES) {
      this.#old = this.#new;
      this.#new = new Map();
      this.#newBytes = 0;
    }
    this.#new.set(block, fields);
    this.#newBytes += bytes;
  }

  clear(): void {
    // Whenever there is something in the old half, there is in the new one.
    if (this.#new.size === 0) return;
    this.#new.clear();
    this.#old.clear();
    this.#newBytes = 0;
  }
}
