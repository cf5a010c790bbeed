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
  /** Of `#list`, which is another one when the policy is. */
  #names: ReadonlySet<string> = new Set();
  #lengths: ReadonlySet<number> = new Set();
  #list: readonly Uint8Array[] | undefined;

  constructor(identity: IdentityFields) {
    this.#identity = identity;
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
    const { clientXfcc } = this.#identity;
    const all = [...this.#ours];
    if (typeof clientXfcc === 'string') return all;
    const values = fields.filter(([name, value]) => name === XFCC_NAME && value !== '').map(([, value]) => value);
    return [[XFCC_NAME, [...values, clientXfcc.appended.toString('latin1')].join()], ...all];
  }
}
