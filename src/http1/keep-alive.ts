/**
 * How long the other side of a connection keeps it without a request: `Keep-Alive: timeout=5, max=100`. No standard in force
 * has the field (RFC 2068, section 19.7.1.1, had); Node, Apache and Tomcat send it. Pure.
 */

export interface KeepAlive {
  /** Undefined: it does not say. */
  readonly timeoutMs: number | undefined;
  /** How many further requests it takes. Undefined: it does not say. */
  readonly max: number | undefined;
}

const SILENT: KeepAlive = Object.freeze({ timeoutMs: undefined, max: undefined });
const PARAMETERS = /(?:^|[,;\s])(timeout|max)="?(\d{1,9})/gi;
/** How much earlier than the other side would, we close: its answer, our request and its end take a while to cross. */
const AHEAD_MS = 1000;

/** What it says, the least of it where it says several things. Nonsense says nothing. */
export function parseKeepAlive(value: string): KeepAlive {
  if (value === '') return SILENT;
  let timeoutMs: number | undefined;
  let max: number | undefined;
  for (const [, name = '', number = ''] of value.matchAll(PARAMETERS)) {
    if (name.toLowerCase() === 'max') max = Math.min(max ?? Infinity, Number(number));
    else timeoutMs = Math.min(timeoutMs ?? Infinity, Number(number) * 1000);
  }
  return { timeoutMs, max };
}

/** How long a connection may lie idle and still be used; 0: not at all. `silentMs` is for one of which nothing is said; undefined: any time. */
export function usableMs({ timeoutMs }: KeepAlive, silentMs: number | undefined): number {
  if (timeoutMs === undefined) return silentMs ?? Infinity;
  return Math.max(timeoutMs - AHEAD_MS, 0);
}

/** For how long one connection may rest between requests, by what the other side has said on it, and whether it takes another one. */
export class Keeping {
  readonly #silentMs: number | undefined;
  #usableMs: number;
  #said = '';
  /** Requests that it still takes. */
  #left = Infinity;

  /** `silentMs` as for `usableMs`, which counts until it has said anything. */
  constructor(silentMs: number | undefined) {
    this.#silentMs = silentMs;
    this.#usableMs = usableMs(SILENT, silentMs);
  }

  /** From when it comes to rest. */
  get usableMs(): number {
    return this.#usableMs;
  }

  /** A request was answered, and `said` is its Keep-Alive. Answers whether another one may be asked. */
  mayRest(said: string): boolean {
    this.#left--;
    // Most say the same each time, or nothing.
    if (said !== this.#said) {
      this.#said = said;
      const keepAlive = parseKeepAlive(said);
      this.#usableMs = usableMs(keepAlive, this.#silentMs);
      this.#left = keepAlive.max ?? this.#left;
    }
    return this.#left > 0 && this.#usableMs > 0;
  }
}
