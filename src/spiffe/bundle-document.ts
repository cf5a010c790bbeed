import { createPublicKey, type JsonWebKeyInput, type KeyObject } from 'node:crypto';
import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { keyProblem } from './x509/algorithms.ts';
import { parseCertificate, type Certificate } from './x509/certificate.ts';
import { readJsonText } from './json-text.ts';
import { PARTNER_BOUNDS, type TrustBundle } from './trust-bundle.ts';

/** A SPIFFE bundle as bundle endpoints serve it (SPIFFE Trust Domain and Bundle, section 4). It does not say whose it is. */
export interface BundleDocument {
  /** Grows with each change; undefined if the publisher does not say. */
  readonly sequence: bigint | undefined;
  /** How often to ask again; undefined if the publisher does not say. Not judged. */
  readonly refreshHintMs: number | undefined;
  /** May be none: then nobody of the trust domain is trusted. */
  readonly authorities: readonly Certificate[];
  readonly jwtAuthorities: readonly JwtAuthority[];
  /** Sentences for the log: what of the document is not used. */
  readonly notes: readonly string[];
}

/** A key that JWT-SVIDs of the trust domain are signed with. */
export interface JwtAuthority {
  readonly keyId: string;
  readonly key: KeyObject;
}

export interface BundleDocumentProblem {
  /** `bad_document`: not a bundle at all; `bad_key`: one of its keys breaks the standard; `too_many_keys`, `too_large`, `long_names`: beyond our bounds. */
  readonly code: 'bad_document' | 'bad_key' | 'too_many_keys' | 'too_large' | 'long_names';
  /** A sentence with the offending value, shortened. */
  readonly message: string;
}

/** Far more than any trust domain has, and little enough to be read in one turn of the event loop; fewer than are trusted of a partner. */
export const MAX_BUNDLE_KEYS = 256;
/** Of all authorities together. Servers name them in every handshake, for which TLS has 64 KiB: Envoy does, with all trust domains' in one list. */
const MAX_NAME_BYTES = 16_384;
/** Of a JWT authority's `kid`. */
const MAX_KEY_ID = 1024;
const MAX_SEQUENCE = 2n ** 64n;
const KEY_TYPES: ReadonlySet<unknown> = new Set(['EC', 'RSA', 'OKP']);

/**
 * Reads a bundle: UTF-8 JSON without repeated keys; `keys` must be there. Elements of an unknown `kty` or `use` are passed over
 * (section 4.2). One of a known use must be as the standard has it, or the whole is refused: what cannot be read may be what matters.
 * Never throws.
 */
export function parseBundleDocument(bytes: Uint8Array): Result<BundleDocument, BundleDocumentProblem> {
  try {
    return readDocument(bytes);
  } catch (thrown) {
    // Not our own refusals alone: a partner sends these bytes, and whatever they trip over must end as one.
    return err({ code: 'bad_document', message: `not a SPIFFE bundle: ${messageOf(thrown).slice(0, 200)}` });
  }
}

function readDocument(bytes: Uint8Array): Result<BundleDocument, BundleDocumentProblem> {
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  const root: unknown = JSON.parse(text);
  const { repeatedKey, numbers } = readJsonText(text);
  if (repeatedKey !== undefined) return err({ code: 'bad_document', message: `the key ${shown(repeatedKey)} is there twice` });
  if (!isObject(root)) return err({ code: 'bad_document', message: 'the bundle is not a JSON object' });
  const { keys, spiffe_refresh_hint: hint } = root;
  const sequence = root['spiffe_sequence'] === undefined ? undefined : wholeNumber(numbers.get('spiffe_sequence'));
  if (!Array.isArray(keys)) return err({ code: 'bad_document', message: 'the bundle has no list "keys"' });
  if (keys.length > MAX_BUNDLE_KEYS)
    return err({ code: 'too_many_keys', message: `the bundle has ${keys.length} keys, more than ${MAX_BUNDLE_KEYS}` });
  if (sequence === null)
    return err({ code: 'bad_document', message: `spiffe_sequence ${shown(root['spiffe_sequence'])} is not a whole number of 64 bits` });
  if (hint !== undefined && !(typeof hint === 'number' && Number.isSafeInteger(hint) && hint >= 0))
    return err({ code: 'bad_document', message: `spiffe_refresh_hint ${shown(hint)} is not a whole number of seconds` });

  const authorities = new Map<string, Certificate>();
  const jwtAuthorities = new Map<string, JwtAuthority>();
  const notes: string[] = [];
  let derBytes = 0;
  for (const [index, element] of keys.entries()) {
    const bad = (message: string): Result<never, BundleDocumentProblem> => err({ code: 'bad_key', message: `key ${index + 1} ${message}` });
    if (!isObject(element)) return bad('is not a JSON object');
    if (!KEY_TYPES.has(element['kty'])) continue;
    if (element['use'] === 'x509-svid') {
      const authority = readX509Authority(element);
      if (!authority.ok) return bad(authority.error);
      authorities.set(authority.value.sha256, authority.value);
      derBytes += authority.value.der().length;
      // Whoever builds a bundle of them would trust none.
      if (derBytes > PARTNER_BOUNDS.bytes)
        return err({ code: 'too_large', message: `its authorities have more than ${PARTNER_BOUNDS.bytes} bytes` });
    } else if (element['use'] === 'jwt-svid') {
      const { kid } = element;
      if (typeof kid !== 'string' || kid === '' || kid.length > MAX_KEY_ID) return bad('is for JWT-SVIDs and has no usable "kid"');
      if (jwtAuthorities.has(kid)) return bad(`has the "kid" ${shown(kid)} of another`);
      const key = readPublicKey(element);
      if (key === undefined) return bad('is not a public key that can be read');
      const problem = keyProblem(key);
      if (problem === undefined) jwtAuthorities.set(kid, Object.freeze({ keyId: kid, key }));
      else notes.push(`the JWT authority ${shown(kid)} ${problem}; it is not relied on`);
    }
  }
  const nameBytes = [...authorities.values()].reduce((sum, { subjectDer }) => sum + subjectDer.length / 2, 0);
  if (nameBytes > MAX_NAME_BYTES)
    return err({ code: 'long_names', message: `the names of its authorities have ${nameBytes} bytes, more than ${MAX_NAME_BYTES}` });
  return ok(
    Object.freeze({
      sequence,
      refreshHintMs: hint === undefined ? undefined : hint * 1000,
      authorities: Object.freeze([...authorities.values()]),
      jwtAuthorities: Object.freeze([...jwtAuthorities.values()]),
      notes: Object.freeze(notes),
    }),
  );
}

/** X509-SVID, section 6.1: exactly one certificate; RFC 7517, section 4.7: it has the key that the element describes. */
function readX509Authority(element: Readonly<Record<string, unknown>>): Result<Certificate, string> {
  const { x5c } = element;
  if (!Array.isArray(x5c) || x5c.length !== 1 || typeof x5c[0] !== 'string')
    return err('is for X.509-SVIDs and has not exactly one certificate');
  const der = Buffer.from(x5c[0], 'base64');
  if (der.length > PARTNER_BOUNDS.bytesOfOne)
    return err(`has a certificate of ${der.length} bytes, more than ${PARTNER_BOUNDS.bytesOfOne}`);
  if (der.toString('base64') !== x5c[0]) return err('has a certificate that is not base64');
  const certificate = parseCertificate(der);
  if (!certificate.ok) return err(`has a certificate that cannot be read: ${certificate.error}`);
  if (readPublicKey(element)?.equals(certificate.value.publicKey) !== true) return err('is not the key of its certificate');
  return certificate;
}

/** The public key of a JWK; what it may say of a private one is not looked at. */
export function readPublicKey({ kty, crv, x, y, n, e }: Readonly<Record<string, unknown>>): KeyObject | undefined {
  try {
    return createPublicKey({ key: { kty, crv, x, y, n, e } as JsonWebKeyInput['key'], format: 'jwk' });
  } catch {
    return undefined;
  }
}

/**
 * The bundle of a trust domain as a document (section 4): its X.509 authorities, but those that nobody should rely on, which would make
 * some readers refuse the whole. `refreshHintMs` in whole seconds.
 */
export function writeBundleDocument(bundle: TrustBundle, sequence: bigint, refreshHintMs: number): string {
  const keys = bundle.authorities
    .filter(({ keyProblem: problem }) => problem === undefined)
    .map((authority) => ({
      ...authority.publicKey.export({ format: 'jwk' }),
      use: 'x509-svid',
      x5c: [Buffer.from(authority.der()).toString('base64')],
    }));
  const rest = JSON.stringify({ spiffe_refresh_hint: Math.floor(refreshHintMs / 1000), keys });
  // JSON has no limit on integers, JSON.stringify has.
  return `{"spiffe_sequence":${sequence},${rest.slice(1)}\n`;
}

/** The keys of a JWKS (RFC 7517), without a `use`, as the Workload API has them. */
export function writeJwtKeys(authorities: readonly JwtAuthority[]): readonly object[] {
  return authorities.map(({ keyId, key }) => ({ ...key.export({ format: 'jwk' }), kid: keyId }));
}

/** A double cannot hold 64 bits, so the number is read from the text. Null if it is none. */
function wholeNumber(text: string | undefined): bigint | null {
  if (text === undefined || !/^\d{1,20}$/.test(text)) return null;
  const number = BigInt(text);
  return number < MAX_SEQUENCE ? number : null;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
