import { isDigestOfKey } from '../spiffe/x509/algorithms.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import { pathOf, trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { NO_DIFFERENCE, TextTableBuilder, type Difference, type TextTable } from '../lib/text-table.ts';
import { parsePattern, type Pattern } from './pattern.ts';
import { SegmentTrie } from './segment-trie.ts';

/** What entries name: SPIFFE IDs; certificates by their SHA-256; certificates by serial number and key identifier of the issuer. */
export const DENY_KINDS = ['ids', 'certificates', 'serials'] as const;
export type DenyKind = (typeof DENY_KINDS)[number];

/**
 * Whom nobody shall trust any more, whatever else speaks for them. Immutable. What it costs to ask does not depend on its length,
 * and an empty list costs nothing.
 */
export interface DenyList {
  readonly size: number;
  /** A sentence with the entry that names the peer, or a certificate of `path` (leaf first, authority last); undefined if none does. */
  refusal(id: SpiffeId, path: readonly Certificate[]): string | undefined;
  /** Whether one entry names all whom `pattern` names. */
  namesAll(pattern: Pattern): boolean;
  /** Whether an entry names the certificate of this authority. */
  namesAuthority(authority: Certificate): boolean;
  /** The entries that are not in `other`, by hash: how many, and the first of them. A part at a time. */
  notIn(other: DenyList, most: number): Generator<void, Difference>;
  /** Whether an entry, as `notIn` gives it, is in the list. */
  has(entry: string): boolean;
}

export const EMPTY_DENY_LIST: DenyList = Object.freeze({
  size: 0,
  refusal: () => undefined,
  namesAll: () => false,
  namesAuthority: () => false,
  // oxlint-disable-next-line require-yield -- there is nothing to look through
  *notIn() {
    return NO_DIFFERENCE;
  },
  has: () => false,
});

/** Each is kept in memory one way or another. */
export const MAX_DENY_ENTRIES = 5_000_000;
export const MAX_DENY_BYTES = 1_073_741_824;
/** Patterns are objects, which V8 looks at again and again. */
export const MAX_DENY_PATTERNS = 100_000;

/** Gathers the entries of one list. */
export class DenyListBuilder {
  readonly #texts = new TextTableBuilder();
  /** The line of each pattern's entry. */
  readonly #patterns = new Map<TrustDomain, SegmentTrie<PatternEntry>>();
  #patternCount = 0;

  /** What is wrong with an entry, a phrase; undefined if it was taken. `line` is where it stands, from 1. */
  add(kind: DenyKind, value: string, line: number): string | undefined {
    if (this.#texts.size >= MAX_DENY_ENTRIES) return `there are more than ${MAX_DENY_ENTRIES} entries`;
    if (this.#texts.bytes >= MAX_DENY_BYTES) return `there are more than ${MAX_DENY_BYTES} bytes of entries`;
    switch (kind) {
      case 'ids':
        return this.#addId(value, line);
      case 'certificates': {
        const digest = hexOf(value);
        if (digest?.length !== 64) return 'must be the SHA-256 of a certificate: 64 hexadecimal digits, with or without colons';
        this.#texts.add(digest, line);
        return undefined;
      }
      case 'serials': {
        const [, sign = '', serial, keyId] = /^(-?)([^@]*)@([^@]*)$/.exec(value) ?? [];
        const digits = serial === undefined ? undefined : hexOf(serial);
        const key = keyId === undefined ? undefined : hexOf(keyId);
        if (digits === undefined || digits.length > MAX_HEX_DIGITS)
          return 'must be a serial number in hexadecimal digits, "@", and the key identifier of its issuer';
        if (key === undefined || key.length % 2 !== 0 || key.length > MAX_HEX_DIGITS)
          return 'the key identifier of the issuer, after "@", must be whole bytes in hexadecimal digits';
        const shown = sign + shortest(digits);
        this.#texts.add(`${shown}@${key}`, line, shown.length);
        return undefined;
      }
    }
  }

  #addId(value: string, line: number): string | undefined {
    const parsed = parsePattern(value);
    if (!parsed.ok) return parsed.error;
    const pattern = parsed.value;
    if (pattern.kind === 'segments') {
      if (this.#patternCount >= MAX_DENY_PATTERNS) return `there are more than ${MAX_DENY_PATTERNS} entries with "*"`;
      this.#patternCount += 1;
      const trie = this.#patterns.get(pattern.trustDomain) ?? new SegmentTrie<PatternEntry>();
      this.#patterns.set(pattern.trustDomain, trie);
      trie.at(pattern, () => ({ text: value, line }));
    }
    this.#texts.add(value, line);
    return undefined;
  }

  /** Makes the list, a part at a time. `source` is the file, for sentences. */
  *build(source: string): Generator<void, DenyList> {
    return new CompiledDenyList(source, yield* this.#texts.build(), this.#patterns);
  }
}

interface PatternEntry {
  readonly text: string;
  readonly line: number;
}

class CompiledDenyList implements DenyList {
  readonly #source: string;
  readonly #texts: TextTable;
  readonly #patterns: ReadonlyMap<TrustDomain, SegmentTrie<PatternEntry>>;

  constructor(source: string, texts: TextTable, patterns: ReadonlyMap<TrustDomain, SegmentTrie<PatternEntry>>) {
    this.#source = source;
    this.#texts = texts;
    this.#patterns = patterns;
  }

  get size(): number {
    return this.#texts.size;
  }

  refusal(id: SpiffeId, path: readonly Certificate[]): string | undefined {
    const named = this.#textEntry(id) ?? this.#patternEntry(id);
    if (named !== undefined) return `${id} is on the deny list${named.text === id ? '' : `, as ${named.text}`} (${this.#at(named)})`;
    for (const [index, certificate] of path.entries()) {
      const entry = this.#certificateEntry(certificate, path[index + 1]);
      if (entry === undefined) continue;
      const which = index === 0 ? 'its certificate' : `the certificate of ${JSON.stringify(certificate.subject)}, above its own,`;
      return `${which} is on the deny list, as ${entry.text} (${this.#at(entry)})`;
    }
    return undefined;
  }

  namesAll(pattern: Pattern): boolean {
    if (pattern.kind === 'exact') return this.refusal(pattern.id, []) !== undefined;
    return this.#patterns.get(pattern.trustDomain)?.covers(pattern) === true;
  }

  namesAuthority(authority: Certificate): boolean {
    return this.#certificateEntry(authority, undefined) !== undefined;
  }

  notIn(other: DenyList, most: number): Generator<void, Difference> {
    return this.#texts.without((text) => other.has(text), most);
  }

  has(text: string): boolean {
    const at = text.indexOf('@');
    for (let entry = this.#texts.find(at === -1 ? text : text.slice(0, at)); entry !== undefined; entry = this.#texts.next(entry))
      if (this.#texts.text(entry) === text) return true;
    return false;
  }

  /** An entry that is `text` as a whole. */
  #textEntry(text: string): PatternEntry | undefined {
    for (let entry = this.#texts.find(text); entry !== undefined; entry = this.#texts.next(entry))
      if (this.#texts.text(entry) === text) return { text, line: this.#texts.line(entry) };
    return undefined;
  }

  #patternEntry(id: SpiffeId): PatternEntry | undefined {
    let first: PatternEntry | undefined;
    this.#patterns.get(trustDomainOf(id))?.find(pathOf(id), (entry) => (first ??= entry));
    return first;
  }

  /** `issuer` is what stands above the certificate on the path; undefined for an authority, where the path ends. */
  #certificateEntry(certificate: Certificate, issuer: Certificate | undefined): PatternEntry | undefined {
    const byHash = this.#textEntry(certificate.sha256);
    if (byHash !== undefined) return byHash;
    const serial = certificate.serial.startsWith('-') ? certificate.serial : shortest(certificate.serial);
    for (let entry = this.#texts.find(serial); entry !== undefined; entry = this.#texts.next(entry)) {
      const text = this.#texts.text(entry);
      // Of a hash that looks like this serial number nothing is left, which is nobody's key identifier.
      if (isIssuedBy(certificate, issuer, text.slice(serial.length + 1))) return { text, line: this.#texts.line(entry) };
    }
    return undefined;
  }

  #at({ line }: PatternEntry): string {
    return `${this.#source}:${line}`;
  }
}

/**
 * Whether the issuer of a certificate has this key identifier: its own certificate on the path says so, or it is a usual digest of its
 * key, which stays the same whichever certificate of it a peer shows. What a peer's certificate says of its issuer does not count; what
 * an authority says of its own does, for it came from the Workload API.
 */
function isIssuedBy(certificate: Certificate, issuer: Certificate | undefined, keyId: string): boolean {
  if (issuer !== undefined) return issuer.subjectKeyId === keyId || isDigestOfKey(keyId, issuer.publicKey);
  if (certificate.authorityKeyId === keyId) return true;
  return certificate.subjectDer === certificate.issuerDer && isIssuedBy(certificate, certificate, keyId);
}

/** Twice what RFC 5280 4.1.2.2 allows a serial number, and more than any digest. */
const MAX_HEX_DIGITS = 128;

/** Lower-case digits without colons, or undefined if that is not what it is. */
function hexOf(text: string): string | undefined {
  return /^[0-9A-Fa-f]{1,2}(?::[0-9A-Fa-f]{2})*$|^[0-9A-Fa-f]+$/.test(text) ? text.replaceAll(':', '').toLowerCase() : undefined;
}

/** Serial numbers are numbers: leading zeros mean nothing. */
function shortest(digits: string): string {
  return digits.replace(/^0+(?=.)/, '');
}
