import { contextTag, decodeOid, DerError, DerReader, readOnly, Tag, toHex, type DerElement } from './der.ts';

/** A distinguished name. Names are the same name if their DER is; `rdns` is for name constraints, where RFC 5280 7.1 folds case and space. */
export interface DistinguishedName {
  /** DER as hex. */
  readonly der: string;
  readonly isEmpty: boolean;
  /** One text a relative name, attributes sorted, values folded. */
  readonly rdns: readonly string[];
  /** `rdns` as one text, the same for every way of writing one name. */
  readonly folded: string;
  /** Values of the emailAddress attribute, which name constraints also bind (RFC 5280 4.2.1.10). */
  readonly emails: readonly string[];
  /** The common name, unless there are several: readers differ on which of them counts. */
  readonly commonName: string | undefined;
  /** RFC 4514-like text: most specific first, control characters escaped. For logs and pages only. */
  readonly text: string;
}

/** GeneralName, read from the DER: string renderings quote and escape, and must not be split on commas. */
export type GeneralName =
  | { readonly type: 'uri'; readonly value: string }
  | { readonly type: 'dns'; readonly value: string }
  | { readonly type: 'email'; readonly value: string }
  | { readonly type: 'ip'; readonly value: Uint8Array }
  | { readonly type: 'directory'; readonly value: DistinguishedName }
  /** otherName, x400Address, ediPartyName, registeredID: known to be there, not judged. */
  | { readonly type: 'other'; readonly value: number };

const SHORT_NAMES: Readonly<Record<string, string>> = {
  '2.5.4.3': 'CN',
  '2.5.4.5': 'serialNumber',
  '2.5.4.6': 'C',
  '2.5.4.7': 'L',
  '2.5.4.8': 'ST',
  '2.5.4.10': 'O',
  '2.5.4.11': 'OU',
  '2.5.4.45': 'x500UniqueIdentifier',
  '0.9.2342.19200300.100.1.25': 'DC',
};
const COMMON_NAME = '2.5.4.3';
const SMTP_UTF8_MAILBOX = '1.3.6.1.5.5.7.8.9';
const EMAIL_ADDRESS = '1.2.840.113549.1.9.1';

/** Name ::= SEQUENCE OF SET OF SEQUENCE { type, value }. Throws DerError. */
export function decodeName(element: DerElement): DistinguishedName {
  if (element.tag !== Tag.sequence) throw new DerError('a name that is not a sequence');
  const rdns: string[] = [];
  const texts: string[] = [];
  const emails: string[] = [];
  const commonNames: string[] = [];
  const relativeNames = new DerReader(element.content);
  while (!relativeNames.done) {
    const attributes = relativeNames.enter(Tag.set);
    const folded: string[] = [];
    const shown: string[] = [];
    do {
      const attribute = attributes.enter(Tag.sequence);
      const oid = decodeOid(attribute.read(Tag.oid));
      const value = decodeDirectoryString(attribute.any());
      attribute.finish();
      if (oid === EMAIL_ADDRESS) emails.push(value);
      if (oid === COMMON_NAME) commonNames.push(value);
      folded.push(`${oid}=${fold(value)}`);
      shown.push(`${SHORT_NAMES[oid] ?? oid}=${escapeValue(value)}`);
    } while (!attributes.done);
    rdns.push(folded.toSorted().join('\0'));
    texts.push(shown.join('+'));
  }
  return {
    der: toHex(element.whole),
    isEmpty: rdns.length === 0,
    rdns,
    folded: rdns.join('\0\0'),
    emails,
    commonName: commonNames.length === 1 ? commonNames[0] : undefined,
    text: texts.toReversed().join(','),
  };
}

/** GeneralNames ::= SEQUENCE SIZE (1..MAX) OF GeneralName, not those of constraints. Throws DerError. */
export function decodeGeneralNames(bytes: Uint8Array): readonly GeneralName[] {
  const reader = new DerReader(readOnly(bytes, Tag.sequence).content);
  const names: GeneralName[] = [];
  while (!reader.done) {
    const name = decodeGeneralName(reader.any());
    // RFC 5280 4.2.1.6. Readers differ on what others mean.
    if (name.type === 'ip' && name.value.length !== 4 && name.value.length !== 16)
      throw new DerError(`an address of ${name.value.length} bytes`);
    names.push(name);
  }
  if (names.length === 0) throw new DerError('an empty list of names');
  return names;
}

export function decodeGeneralName(element: DerElement): GeneralName {
  const { tag, content } = element;
  switch (tag) {
    case contextTag(1, 'primitive'):
      return { type: 'email', value: decodeIa5(content) };
    case contextTag(2, 'primitive'):
      return { type: 'dns', value: decodeIa5(content) };
    case contextTag(6, 'primitive'):
      return { type: 'uri', value: decodeIa5(content) };
    case contextTag(7, 'primitive'):
      return { type: 'ip', value: content };
    case contextTag(4, 'constructed'): {
      const inner = new DerReader(content);
      const name = decodeName(inner.read(Tag.sequence));
      inner.finish();
      return { type: 'directory', value: name };
    }
    case contextTag(0, 'constructed'): {
      const inner = new DerReader(content);
      const kind = decodeOid(inner.read(Tag.oid));
      const value = inner.enter(contextTag(0, 'constructed'));
      inner.finish();
      // RFC 9598 3: a mailbox as well, and name constraints for mailboxes bind it.
      if (kind === SMTP_UTF8_MAILBOX) return { type: 'email', value: decodeUtf8(value.read(Tag.utf8String).content) };
      return { type: 'other', value: tag & 0x1f };
    }
    case contextTag(3, 'constructed'):
    case contextTag(5, 'constructed'):
    case contextTag(8, 'primitive'):
      return { type: 'other', value: tag & 0x1f };
    default:
      throw new DerError(`a name of unknown kind 0x${tag.toString(16)}`);
  }
}

function decodeIa5(content: Uint8Array): string {
  for (const byte of content) if (byte >= 0x80) throw new DerError('a name with bytes outside ASCII');
  return Buffer.from(content).toString('latin1');
}

function decodeDirectoryString({ tag, content }: DerElement): string {
  switch (tag) {
    case Tag.utf8String:
      return decodeUtf8(content);
    case Tag.numericString:
    case Tag.printableString:
    case Tag.teletexString:
    case Tag.ia5String:
    case Tag.visibleString:
      return Buffer.from(content).toString('latin1');
    case Tag.bmpString:
      if (content.length % 2 !== 0) throw new DerError('a malformed text in a name');
      return Buffer.from(content).swap16().toString('utf16le');
    case Tag.universalString:
      return decodeUniversalString(content);
    default:
      // Any type may stand here; one that is not text is shown and compared as its bytes.
      return `#${toHex(content)}`;
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Strictly: a lenient reader takes two texts for the same one. */
function decodeUtf8(content: Uint8Array): string {
  try {
    return utf8.decode(content);
  } catch {
    throw new DerError('a malformed text in a name');
  }
}

/** UTF-32, most significant byte first. */
function decodeUniversalString(content: Uint8Array): string {
  const reader = new DataView(content.buffer, content.byteOffset, content.byteLength);
  let text = '';
  for (let at = 0; at < content.length; at += 4) {
    const point = content.length % 4 === 0 ? reader.getUint32(at) : Infinity;
    if (point > 0x10ffff) throw new DerError('a malformed text in a name');
    text += String.fromCodePoint(point);
  }
  return text;
}

/**
 * What follows a character without being one: no script puts more than 30 together (UAX #15, 13), and putting them in order takes time with
 * the square of their number, 0.1 s for those that fit into one certificate.
 */
const CROWD = /\p{M}[\p{M}\p{Cc}\p{Default_Ignorable_Code_Point}]{30}/u;

/** RFC 5280 7.1 by way of RFC 4518: case, the ways to write one character, spaces, and what is not to be seen make no difference. */
function fold(value: string): string {
  if (CROWD.test(value)) throw new DerError('a text in a name with more than 30 marks in a row');
  return (
    value
      .normalize('NFKC')
      .toLowerCase()
      .replace(/\s/g, ' ')
      // Before what it stood between is put together.
      .replace(/[\p{Cc}\p{Default_Ignorable_Code_Point}]/gu, '')
      .normalize('NFKC')
      .replace(/ +/g, ' ')
      .trim()
  );
}

function escapeValue(value: string): string {
  return value
    .replace(/[\\,+"<>;=]/g, (character) => `\\${character}`)
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}
