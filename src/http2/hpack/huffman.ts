/** Strings in the Huffman code of HPACK (RFC 7541, section 5.2 and appendix B). Pure. */

/**
 * Bits of the code of each byte. The codes follow: in the order of lengths, among those of one length in the order of bytes,
 * each is the one before it plus one. EOS, of 30 bits, is the last.
 */
export const HUFFMAN_BITS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10,
  12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7,
  7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22,
  23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22,
  23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20,
  24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const SHORTEST_BITS = 5;

/**
 * A step for each state and four bits that come: the next state, from bit 16 on; the byte that ends here, from bit 1 on, if bit 0
 * is set. A code has more than four bits, so at most one ends. The states are the inner nodes of the tree of codes; 0 is its root.
 */
const STEPS = new Int32Array(256 * 16);
/** A step to EOS, which nobody may send. */
const NO_STEP = -1;
/** 1: nothing but the first bits of EOS, seven of them at most, came since the last byte: the text may end here. */
const MAY_END = new Uint8Array(256);

buildSteps();

function buildSteps(): void {
  // The tree: below each inner node one for a 0 and one for a 1; leaves are written as -1 - byte.
  const children: [number, number][] = [[0, 0]];
  const EOS_LEAF = -257;
  const order = HUFFMAN_BITS.map((bits, byte) => ({ bits, byte })).toSorted((a, b) => a.bits - b.bits || a.byte - b.byte);
  let code = 0;
  let length = 0;
  for (const { bits, byte } of order) {
    code <<= bits - length;
    length = bits;
    plant(code++, bits, -1 - byte);
  }
  plant(code, length, EOS_LEAF);

  for (const state of children.keys()) {
    for (let nibble = 0; nibble < 16; nibble++) {
      let node = state;
      let ended = 0;
      for (let bit = 3; bit >= 0 && node >= 0; bit--) {
        node = children[node]?.[(nibble >> bit) & 1 ? 1 : 0] ?? EOS_LEAF;
        if (node === EOS_LEAF || node >= 0) continue;
        ended = ((-1 - node) << 1) | 1;
        node = 0;
      }
      STEPS[state * 16 + nibble] = node === EOS_LEAF ? NO_STEP : (node << 16) | ended;
    }
  }
  for (let node = 0, ones = 0; ones <= 7; ones++, node = children[node]?.[1] ?? 0) MAY_END[node] = 1;

  function plant(code: number, bits: number, leaf: number): void {
    let node = 0;
    for (let bit = bits - 1; bit >= 0; bit--) {
      const side = (code >> bit) & 1 ? 1 : 0;
      const below = children[node] ?? [0, 0];
      if (bit === 0) below[side] = leaf;
      // The root is below none, so 0 is no node yet.
      else if (below[side] === 0) below[side] = children.push([0, 0]) - 1;
      node = below[side];
    }
  }
}

/** Most bytes that come of `length` bytes of the code. */
export function huffmanBound(length: number): number {
  return Math.floor((length * 8) / SHORTEST_BITS);
}

/**
 * Writes what the bytes of `coded` from `from` to `to` stand for to the beginning of `plain`, which has room for `huffmanBound`.
 * Answers how many bytes it wrote, or -1: EOS, or padding that is longer than seven bits or not of ones.
 */
export function huffmanDecode(coded: Uint8Array, from: number, to: number, plain: Uint8Array): number {
  let state = 0;
  let length = 0;
  for (let at = from; at < to; at++) {
    const byte = coded[at] ?? 0;
    const high = STEPS[state * 16 + (byte >> 4)] ?? NO_STEP;
    if (high === NO_STEP) return -1;
    if ((high & 1) !== 0) plain[length++] = high >> 1;
    const low = STEPS[(high >> 16) * 16 + (byte & 15)] ?? NO_STEP;
    if (low === NO_STEP) return -1;
    if ((low & 1) !== 0) plain[length++] = low >> 1;
    state = low >> 16;
  }
  return MAY_END[state] === 1 ? length : -1;
}
