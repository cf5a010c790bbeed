/** `IdentityFields` as HTTP/2 has names: what no client may send, and ours. Pure. */
import { foldName } from '../http1/fields.ts';
import { XFCC, type IdentityFields } from '../http1/identity-fields.ts';
import type { HpackField } from './hpack/field.ts';

/** Field lines of ours, as HTTP/2 has them. */
export function fieldsOfLines(lines: Buffer): HpackField[] {
  const each = lines.toString('latin1').split(LINE_END).slice(0, -1);
  return each.map((line) => {
    const colon = line.indexOf(': ');
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 2)];
  });
}

const XFCC_NAME = XFCC.toLowerCase();
const LINE_END = '\r\n';

/** What of the fields of one connection's clients goes to the application. */
export class FieldFilter {
  readonly #identity: IdentityFields;
  /** Of `:authority`, where whom is asked is not for the client to say; undefined: the client's. */
  readonly authority: string | undefined;
  readonly #ours: readonly HpackField[];
  /** As HTTP/1.1 has them. */
  readonly #lines: string;
  /** Of `#list`, which is another one when the policy is. */
  #names: ReadonlySet<string> = new Set();
  #lengths: ReadonlySet<number> = new Set();
  #list: readonly Uint8Array[] | undefined;

  constructor(identity: IdentityFields) {
    this.#identity = identity;
    this.#lines = identity.lines.toString('latin1');
    this.#ours = fieldsOfLines(identity.lines);
    this.authority = identity.host && fieldsOfLines(identity.host)[0]?.[1];
  }

  /** Changes with the policy: what was filtered with another value of it must be filtered again. */
  get removesOverrides(): boolean {
    return this.#identity.removesOverrides;
  }

  /** Looks at the policy anew; before a field section. */
  renew(): void {
    const { names } = this.#identity;
    if (names === this.#list) return;
    this.#list = names;
    this.#names = new Set(names.map((name) => Buffer.from(name).toString('latin1')));
    this.#lengths = new Set(names.map(({ length }) => length));
  }

  /** Whether a field reads, to an application, as one of those that say who asks. */
  isOurs(name: string): boolean {
    return this.#lengths.has(name.length) && this.#names.has(foldName(name));
  }

  /** In a head; in trailers, none is. */
  keeps(name: string): boolean {
    return this.#identity.clientXfcc === 'kept' && name === XFCC_NAME;
  }

  /** Ours, with what is left of the client's own. They come first, as over HTTP/1.1. */
  ours(fields: readonly HpackField[]): HpackField[] {
    const xfcc = this.#appended(fields);
    return xfcc === undefined ? [...this.#ours] : [[XFCC_NAME, xfcc], ...this.#ours];
  }

  /** The same as lines of HTTP/1.1. */
  lines(fields: readonly HpackField[]): string {
    const xfcc = this.#appended(fields);
    return xfcc === undefined ? this.#lines : `${XFCC}: ${xfcc}${LINE_END}${this.#lines}`;
  }

  #appended(fields: readonly HpackField[]): string | undefined {
    const { clientXfcc } = this.#identity;
    if (typeof clientXfcc === 'string') return undefined;
    const values = fields.filter(([name, value]) => name === XFCC_NAME && value !== '').map(([, value]) => value);
    return [...values, clientXfcc.appended.toString('latin1')].join();
  }
}
