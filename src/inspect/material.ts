/** What a file of certificates has in it: PEM, DER, or a SPIFFE bundle. Pure, and never throws. */
import { parseBundleDocument, type JwtAuthority } from '../spiffe/bundle-document.ts';
import { parseCertificate, splitCertificates, type Certificate } from '../spiffe/x509/certificate.ts';
import { parseCrl, type Crl } from '../spiffe/x509/crl.ts';
import { DerReader, Tag } from '../spiffe/x509/der.ts';

export interface Material {
  readonly form: 'pem' | 'der' | 'bundle';
  /** In the order of the file. */
  readonly certificates: readonly Certificate[];
  readonly lists: readonly Crl[];
  /** Of a bundle. */
  readonly jwtAuthorities: readonly JwtAuthority[];
  readonly sequence: bigint | undefined;
  readonly refreshHintMs: number | undefined;
  /** How many there are. Nothing of them is read. */
  readonly privateKeys: number;
  /** Sentences: what of the file is not shown. */
  readonly notes: readonly string[];
  /** Sentences: what of it is wrong. */
  readonly problems: readonly string[];
}

/** Each is read, and drawn. */
const MAX_PARTS = 256;

const NOTHING: Omit<Material, 'form'> = {
  certificates: [],
  lists: [],
  jwtAuthorities: [],
  sequence: undefined,
  refreshHintMs: undefined,
  privateKeys: 0,
  notes: [],
  problems: [],
};

export function readMaterial(bytes: Uint8Array): Material {
  const text = Buffer.from(bytes).toString('latin1');
  if (text.includes('-----BEGIN ')) return readPem(text);
  return /^[\s\u00ef\u00bb\u00bf]*\{/.test(text.slice(0, 1024)) ? readBundle(bytes) : readDer(bytes);
}

/** Parts of a file, gathered one by one. */
class Parts {
  readonly certificates: Certificate[] = [];
  readonly lists: Crl[] = [];
  readonly notes: string[] = [];
  readonly problems: string[] = [];
  privateKeys = 0;

  /** Whether there is room for one more; if not, that is told. */
  hasRoom(): boolean {
    if (this.certificates.length + this.lists.length + this.notes.length + this.problems.length < MAX_PARTS) return true;
    this.problems.push(`there are more than ${MAX_PARTS} parts: the rest was not read`);
    return false;
  }

  certificate(der: Uint8Array): void {
    const parsed = parseCertificate(der);
    if (parsed.ok) this.certificates.push(parsed.value);
    else this.problems.push(`certificate ${this.certificates.length + 1}: ${parsed.error}`);
  }

  list(der: Uint8Array): void {
    const parsed = parseCrl(der);
    if (parsed.ok) this.lists.push(parsed.value);
    else this.problems.push(`revocation list: ${parsed.error}`);
  }

  whole(form: Material['form']): Material {
    const { certificates, lists, privateKeys, notes } = this;
    const isEmpty = certificates.length + lists.length + privateKeys + this.problems.length === 0;
    const problems = isEmpty ? ['there is no certificate in it'] : this.problems;
    return { ...NOTHING, form, certificates, lists, privateKeys, notes, problems };
  }
}

const BEGIN = /-----BEGIN ([A-Z0-9 ]{1,64})-----/g;

/** RFC 7468: what stands between the parts is passed over. */
function readPem(text: string): Material {
  const parts = new Parts();
  BEGIN.lastIndex = 0;
  for (let found = BEGIN.exec(text); found !== null && parts.hasRoom(); found = BEGIN.exec(text)) {
    const label = found[1] ?? '';
    const from = BEGIN.lastIndex;
    const to = text.indexOf(`-----END ${label}-----`, from);
    const isKey = label.endsWith('PRIVATE KEY');
    if (isKey) parts.privateKeys += 1;
    if (to === -1) {
      parts.problems.push(`${isKey ? 'a private key' : `a ${label}`} has no end`);
      break;
    }
    BEGIN.lastIndex = to;
    if (isKey) continue;
    if (label === 'CERTIFICATE' || label === 'X509 CRL') {
      const base64 = text.slice(from, to).replaceAll(/\s/g, '');
      const der = Buffer.from(base64, 'base64');
      if (der.toString('base64') !== base64) parts.problems.push(`a ${label} is not base64`);
      else if (label === 'CERTIFICATE') parts.certificate(der);
      else parts.list(der);
    } else parts.notes.push(`a ${label} is not shown`);
  }
  return parts.whole('pem');
}

/** Certificates one after the other, as the Workload API has them; or one list; or a key. */
function readDer(bytes: Uint8Array): Material {
  const parts = new Parts();
  const split = splitCertificates(bytes);
  if (!split.ok) parts.problems.push(`neither PEM nor a SPIFFE bundle, and ${split.error}`);
  for (const der of split.ok ? split.value : []) {
    if (!parts.hasRoom()) break;
    if (isPrivateKey(der)) parts.privateKeys += 1;
    else if (parseCrl(der).ok) parts.list(der);
    else parts.certificate(der);
  }
  return parts.whole('der');
}

/** PKCS #8, PKCS #1 and SEC 1 begin with a version, which neither certificates nor lists do; so does PKCS #12, which has keys in it. */
function isPrivateKey(der: Uint8Array): boolean {
  try {
    return new DerReader(der).enter(Tag.sequence).optional(Tag.integer) !== undefined;
  } catch {
    return false;
  }
}

function readBundle(bytes: Uint8Array): Material {
  const privateKeys = countPrivateKeys(bytes);
  const parsed = parseBundleDocument(bytes);
  if (!parsed.ok) return { ...NOTHING, form: 'bundle', privateKeys, problems: [parsed.error.message] };
  const { authorities, jwtAuthorities, sequence, refreshHintMs, notes } = parsed.value;
  const isEmpty = authorities.length === 0;
  return {
    ...NOTHING,
    form: 'bundle',
    certificates: authorities,
    jwtAuthorities,
    sequence,
    refreshHintMs,
    privateKeys,
    notes: isEmpty ? [...notes, 'it has no X.509 authority: nobody of the trust domain is trusted by it'] : notes,
  };
}

/** Keys of a bundle, or of a JWK set, that have the member which makes them private (RFC 7518). */
function countPrivateKeys(bytes: Uint8Array): number {
  try {
    const { keys } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { readonly keys?: unknown };
    const isPrivate = (key: unknown): boolean => typeof key === 'object' && key !== null && ('d' in key || 'k' in key);
    return Array.isArray(keys) ? keys.filter(isPrivate).length : 0;
  } catch {
    // It is no bundle either, and will be told so.
    return 0;
  }
}
