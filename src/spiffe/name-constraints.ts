import type { Certificate } from './certificate.ts';
import type { NameConstraints } from './extensions.ts';
import type { GeneralName } from './names.ts';

/** Names times constraints compared for one chain. A list of thousands against a list of thousands is an attack, not a certificate. */
const MAX_COMPARISONS = 100_000;

/**
 * What in `below`, the certificates under the authority that sets `constraints`, breaks them; undefined if nothing does.
 * URI, DNS, e-mail, IP and directory names are judged (RFC 5280 4.2.1.10). A constraint on any other kind is not
 * understood: it breaks if the extension is critical, or if a certificate below has a name of that kind. Self-issued
 * certificates are not exempt, which is stricter than the RFC.
 */
export function nameConstraintProblem(constraints: NameConstraints, below: readonly Certificate[]): string | undefined {
  const { permitted, excluded } = constraints;
  if (constraints.critical && [...permitted, ...excluded].some((base) => base.type === 'other'))
    return 'constrains names of a kind that is not understood';
  let comparisons = 0;
  for (const certificate of below) {
    for (const name of namesOf(certificate)) {
      comparisons += permitted.length + excluded.length;
      if (comparisons > MAX_COMPARISONS) return 'has too many name constraints to judge';
      const relevant = permitted.filter((base) => base.type === name.type);
      const forbidding = excluded.filter((base) => base.type === name.type);
      if (relevant.length === 0 && forbidding.length === 0) continue;
      if (!isJudgeable(name)) return `constrains names, and ${describe(name)} cannot be judged`;
      if (forbidding.some((base) => isWithin(name, base, 'excluded'))) return `excludes ${describe(name)}`;
      if (relevant.length > 0 && !relevant.some((base) => isWithin(name, base, 'permitted'))) return `does not permit ${describe(name)}`;
    }
  }
  return undefined;
}

/** The alternative names, the subject, and the e-mail addresses in the subject. */
function* namesOf(certificate: Certificate): Generator<GeneralName> {
  const { subjectName, extensions } = certificate;
  if (!subjectName.isEmpty) yield { type: 'directory', value: subjectName };
  for (const value of subjectName.emails) yield { type: 'email', value };
  yield* extensions.subjectAltName?.names ?? [];
}

/** `name` and `base` are of the same type. */
function isWithin(name: GeneralName, base: GeneralName, list: 'permitted' | 'excluded'): boolean {
  if (name.type === 'uri' && base.type === 'uri') return isHostWithin(hostOf(name.value) ?? '', base.value, list);
  if (name.type === 'dns' && base.type === 'dns') return isDomainWithin(name.value, base.value);
  if (name.type === 'email' && base.type === 'email') return isMailboxWithin(name.value, base.value, list);
  if (name.type === 'ip' && base.type === 'ip') return isAddressWithin(name.value, base.value);
  if (name.type === 'directory' && base.type === 'directory')
    return base.value.rdns.every((relativeName, index) => name.value.rdns[index] === relativeName);
  // The same kind, but not one that is judged: certainly excluded, certainly not permitted.
  return list === 'excluded';
}

/** A URI is judged by its host; one without a host, or whose host is an address, must be refused (RFC 5280 4.2.1.10). */
function isJudgeable(name: GeneralName): boolean {
  if (name.type === 'uri') return hostOf(name.value) !== undefined;
  if (name.type === 'ip') return name.value.length === 4 || name.value.length === 16;
  return true;
}

function hostOf(uri: string): string | undefined {
  const match = /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?([^/?#:@[\]]+)(?::\d*)?(?:[/?#]|$)/i.exec(uri);
  const host = match?.[1];
  return host === undefined || /^[\d.]+$/.test(host) ? undefined : host.toLowerCase();
}

/** `.example.org` is what lies below it, `example.org` is that host alone. An empty base is read in the way that refuses more. */
function isHostWithin(host: string, base: string, list: 'permitted' | 'excluded'): boolean {
  const wanted = base.toLowerCase();
  if (wanted === '') return list === 'excluded';
  return wanted.startsWith('.') ? host.endsWith(wanted) && host.length > wanted.length : host === wanted;
}

/** A DNS base is the name itself and everything below; some write it with a leading dot. An empty base is everything. */
function isDomainWithin(name: string, base: string): boolean {
  const wanted = base.toLowerCase().replace(/^\./, '');
  const domain = name.toLowerCase().replace(/\.$/, '');
  return wanted === '' || domain === wanted || domain.endsWith(`.${wanted}`);
}

function isMailboxWithin(mailbox: string, base: string, list: 'permitted' | 'excluded'): boolean {
  const at = mailbox.lastIndexOf('@');
  const [local, host] = [mailbox.slice(0, Math.max(at, 0)), mailbox.slice(at + 1).toLowerCase()];
  const baseAt = base.lastIndexOf('@');
  if (baseAt === -1) return isHostWithin(host, base, list);
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
