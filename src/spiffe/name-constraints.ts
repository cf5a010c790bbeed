import { asIpv6, ipOf } from '../lib/ip.ts';
import type { Certificate } from './x509/certificate.ts';
import type { NameConstraints } from './x509/extensions.ts';
import type { GeneralName } from './x509/names.ts';

/** What may still be compared for one chain, on all of its paths together. Whoever judges a chain makes one. */
export interface Comparisons {
  left: number;
}

/** Names times constraints, each of some 0.5 to 1 µs. Thousands against thousands, or on hundreds of paths, are an attack, not a chain. */
export function allowedComparisons(): Comparisons {
  return { left: 25_000 };
}

/**
 * What in `below`, the certificates under the authority that sets `constraints`, breaks them; undefined if nothing does.
 * URI, DNS, e-mail, IP and directory names are judged (RFC 5280 4.2.1.10). A constraint on any other kind is not
 * understood: it breaks if the extension is critical, or if a certificate below has a name of that kind. One that is
 * malformed breaks in any case, and so does a malformed name of a kind that is constrained: readers differ on what such mean.
 * Self-issued certificates are not exempt, which is stricter than the RFC.
 */
export function nameConstraintProblem(
  constraints: NameConstraints,
  below: readonly Certificate[],
  comparisons: Comparisons,
): string | undefined {
  const { permitted, excluded } = constraints;
  const take = (): boolean => (comparisons.left -= permitted.length + excluded.length) >= 0;
  if (!take()) return TOO_MANY;
  for (const base of [...permitted, ...excluded]) {
    if (base.type === 'other' && constraints.critical) return 'constrains names of a kind that is not understood';
    if (!isWellFormedBase(base)) return `constrains names by ${describe(base)}, which is malformed`;
  }
  for (const certificate of below) {
    for (const name of namesOf(certificate)) {
      if (!take()) return TOO_MANY;
      const relevant = permitted.filter((base) => base.type === name.type);
      const forbidding = excluded.filter((base) => base.type === name.type);
      if (relevant.length === 0 && forbidding.length === 0) continue;
      const judged = judgedOf(name);
      if (judged === undefined) return `constrains names, and ${describe(name)} cannot be judged`;
      if (forbidding.some((base) => touches(judged, base))) return `excludes ${describe(name)}`;
      if (relevant.length > 0 && !relevant.some((base) => isWithin(judged, base))) return `does not permit ${describe(name)}`;
    }
  }
  return undefined;
}

const TOO_MANY = 'has too many name constraints to judge';

/** The alternative names, the subject, and the e-mail addresses in the subject. */
function* namesOf(certificate: Certificate): Generator<GeneralName> {
  const { subjectName, extensions } = certificate;
  if (!subjectName.isEmpty) yield { type: 'directory', value: subjectName };
  for (const value of subjectName.emails) yield { type: 'email', value };
  yield* extensions.subjectAltName?.names ?? [];
}

/** Whether all that `name` may stand for is permitted by `base`, of the same kind. */
function isWithin(name: GeneralName, base: GeneralName): boolean {
  if (name.type === 'uri' && base.type === 'uri') return isHostWithin(name.value, base.value);
  // Of a wildcard all that it stands for is below the rest of it, and that is below the base or is the base.
  if (name.type === 'dns' && base.type === 'dns') return isDomainWithin(name.value.replace(WILDCARD, ''), base.value);
  if (name.type === 'email' && base.type === 'email') return isMailboxWithin(name.value, base.value);
  if (name.type === 'ip' && base.type === 'ip') return isAddressWithin(name.value, base.value);
  if (name.type === 'directory' && base.type === 'directory')
    return base.value.rdns.every((relativeName, index) => name.value.rdns[index] === relativeName);
  // The same kind, but not one that is judged.
  return false;
}

/** Whether anything that `name` may stand for, or that somebody may take it for, is excluded by `base`, of the same kind. */
function touches(name: GeneralName, base: GeneralName): boolean {
  // Not judged, so certainly excluded.
  if (name.type === 'other') return true;
  // What an empty URI or e-mail base means is not said: here, everything.
  if ((base.type === 'uri' || base.type === 'email') && base.value === '') return true;
  if (isWithin(name, base)) return true;
  // However many labels somebody lets a wildcard stand for.
  if (name.type === 'dns' && base.type === 'dns' && WILDCARD.test(name.value))
    return isDomainWithin(base.value, name.value.replace(WILDCARD, ''));
  // Hosts disagree on whether the case of what is before the @ matters.
  if (name.type === 'email' && base.type === 'email') return isMailboxWithin(name.value.toLowerCase(), base.value.toLowerCase());
  // An IPv4 address in IPv6 (RFC 4291 2.5.5.2) is the same host.
  if (name.type === 'ip' && base.type === 'ip') {
    const address = ipOf(name.value);
    return [address, asIpv6(address)].some((bytes) => isAddressWithin(Uint8Array.from(bytes), base.value));
  }
  return false;
}

const WILDCARD = /^\*\./;
/** A domain name without the root's dot, in ASCII; underscores, which SPIFFE and many a network have, are let through. */
const DOMAIN = /^(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*$/i;
/** What may be read as an IPv4 address, 0x7f.1 among it. */
const ADDRESS = /^(?:(?:\d+|0x[0-9a-f]*)(?:\.|$))+$/i;
/** What is before the @, of at most 64 characters (RFC 5321 4.5.3.1.1), if it needs no quotes (4.1.2): what does is read in many ways. */
const LOCAL_PART = /^(?=.{1,64}$)[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*$/;

/**
 * What of a name is judged, if it can be: all of it, and of a URI the host. A URI that has none, or an address, must be refused
 * (RFC 5280 4.2.1.10).
 */
function judgedOf(name: GeneralName): GeneralName | undefined {
  switch (name.type) {
    case 'uri': {
      const host = hostOf(name.value);
      return host === undefined ? undefined : { type: 'uri', value: host };
    }
    case 'dns':
      return DOMAIN.test(name.value.replace(WILDCARD, '')) ? name : undefined;
    case 'email':
      return isMailbox(name.value) ? name : undefined;
    case 'ip':
    case 'directory':
    case 'other':
      return name;
  }
}

/**
 * Whether a constraint has one of the forms of RFC 5280 4.2.1.10. Nothing at all is let through where it has one meaning (DNS) or is
 * read in the way that refuses more. A DNS base with a leading dot, which some write, has none: it is for URIs and mailboxes.
 */
function isWellFormedBase(base: GeneralName): boolean {
  switch (base.type) {
    case 'uri':
      return base.value === '' || isHostBase(base.value);
    case 'dns':
      return base.value === '' || DOMAIN.test(base.value);
    case 'email':
      return base.value === '' || isHostBase(base.value) || isMailbox(base.value);
    case 'ip':
      return (base.value.length === 8 || base.value.length === 32) && isPrefix(base.value.subarray(base.value.length / 2));
    case 'directory':
    case 'other':
      return true;
  }
}

/** A host, or with a leading dot what is below it. */
function isHostBase(base: string): boolean {
  const host = base.replace(/^\./, '');
  return DOMAIN.test(host) && !ADDRESS.test(host);
}

function isMailbox(mailbox: string): boolean {
  const at = mailbox.lastIndexOf('@');
  return at !== -1 && LOCAL_PART.test(mailbox.slice(0, at)) && DOMAIN.test(mailbox.slice(at + 1));
}

/** A mask of ones and then zeros, as in CIDR (RFC 4632). */
function isPrefix(mask: Uint8Array): boolean {
  const end = mask.findIndex((byte) => byte !== 0xff);
  return end === -1 || (PREFIX_ENDS.includes(mask[end] ?? 0) && mask.subarray(end + 1).every((byte) => byte === 0));
}

const PREFIX_ENDS: readonly number[] = [0x00, 0x80, 0xc0, 0xe0, 0xf0, 0xf8, 0xfc, 0xfe];

function hostOf(uri: string): string | undefined {
  // RFC 3986 2: no other characters, a backslash least of all, which some read as a slash.
  if (!/^[\w\-.~:/?#[\]@!$&'()*+,;=%]+$/.test(uri)) return undefined;
  const match = /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?([^/?#:@[\]]+)(?::\d*)?(?:[/?#]|$)/i.exec(uri);
  const host = match?.[1];
  return host === undefined || !DOMAIN.test(host) || ADDRESS.test(host) ? undefined : host.toLowerCase();
}

/** `.example.org` is what lies below it, `example.org` is that host alone. */
function isHostWithin(host: string, base: string): boolean {
  const wanted = base.toLowerCase();
  if (wanted === '') return false;
  return wanted.startsWith('.') ? host.endsWith(wanted) && host.length > wanted.length : host === wanted;
}

/** A DNS base is the name itself and everything below it. An empty base is everything. */
function isDomainWithin(name: string, base: string): boolean {
  const [domain, wanted] = [name.toLowerCase(), base.toLowerCase()];
  return wanted === '' || domain === wanted || domain.endsWith(`.${wanted}`);
}

function isMailboxWithin(mailbox: string, base: string): boolean {
  const at = mailbox.lastIndexOf('@');
  const [local, host] = [mailbox.slice(0, at), mailbox.slice(at + 1).toLowerCase()];
  const baseAt = base.lastIndexOf('@');
  if (baseAt === -1) return isHostWithin(host, base);
  return local === base.slice(0, baseAt) && host === base.slice(baseAt + 1).toLowerCase();
}

/** An address base is address and mask. Of another family, it says nothing. */
function isAddressWithin(address: Uint8Array, base: Uint8Array): boolean {
  if (base.length !== address.length * 2) return false;
  return address.every((byte, index) => {
    const mask = base[address.length + index] ?? 0;
    return (byte & mask) === ((base[index] ?? 0) & mask);
  });
}

function describe(name: GeneralName): string {
  switch (name.type) {
    case 'directory':
      return `the subject ${JSON.stringify(name.value.text)}`;
    case 'ip':
      return `the address ${JSON.stringify(name.value.join('.'))}`;
    default:
      return `${name.type} ${JSON.stringify(name.value)}`;
  }
}
