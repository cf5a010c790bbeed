/** Where in a bundle the code of its sources lies, by its source map. */

/** As V8 counts: from 0. */
interface Position {
  readonly lineNumber: number;
  readonly columnNumber: number;
}

/** From a position to before another. */
export interface Place {
  readonly from: Position;
  readonly to: Position;
}

const DIGITS = new Map(Array.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/', (digit, value) => [digit, value]));

/**
 * The places of the sources that `isWanted`, in order; those that touch are one. `map` is a source map (ECMA-426), in which esbuild has each source as
 * one piece or few.
 */
export function placesOf(map: string, isWanted: (source: string) => boolean): readonly Place[] {
  const { sources, mappings } = JSON.parse(map) as { readonly sources: readonly string[]; readonly mappings: string };
  const wanted = sources.map(isWanted);
  const places: Place[] = [];
  let from: Position | undefined;
  let source = 0;
  for (const [lineNumber, line] of mappings.split(';').entries()) {
    let columnNumber = 0;
    for (const segment of line.split(',')) {
      const [column = 0, sourceDelta] = numbersOf(segment);
      columnNumber += column;
      if (sourceDelta === undefined) continue;
      source += sourceDelta;
      if (wanted[source] === true) {
        from ??= { lineNumber, columnNumber };
      } else if (from !== undefined) {
        places.push({ from, to: { lineNumber, columnNumber } });
        from = undefined;
      }
    }
  }
  if (from !== undefined) places.push({ from, to: { lineNumber: mappings.split(';').length, columnNumber: 0 } });
  return places;
}

/** Base64 VLQ: five bits a digit, the lowest first, and in the first digit the sign. */
function numbersOf(segment: string): readonly number[] {
  const numbers: number[] = [];
  let value = 0;
  let shift = 0;
  for (const digit of segment) {
    const bits = DIGITS.get(digit);
    if (bits === undefined) throw new Error(`${JSON.stringify(segment)} is no segment of a source map`);
    value += (bits & 31) << shift;
    shift += 5;
    if ((bits & 32) !== 0) continue;
    numbers.push((value & 1) === 0 ? value >> 1 : -(value >> 1));
    value = 0;
    shift = 0;
  }
  return numbers;
}
