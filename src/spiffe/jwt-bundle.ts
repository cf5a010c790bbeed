import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { keyProblem } from './x509/algorithms.ts';
import { readPublicKey, type JwtAuthority } from './bundle-document.ts';
import { readJsonText } from './json-text.ts';
import type { TrustDomain } from './trust-domain.ts';

/** The keys of one trust domain that JWT-SVIDs are signed with. Beside its X.509 bundle, and never instead of it. None means that nobody is trusted. */
export interface JwtBundle {
  readonly trustDomain: TrustDomain;
  /** No two have one `keyId`. */
  readonly authorities: readonly JwtAuthority[];
  /** Sentences for the log: what of the bundle is not used. */
  readonly notes: readonly string[];
}

export type JwtBundles = ReadonlyMap<TrustDomain, JwtBundle>;

/** Of one trust domain. A partner publishes what it likes, and everybody waits while it is read. */
export const MAX_JWT_AUTHORITIES = 256;
const MAX_KEY_ID = 1024;
const KEY_TYPES: ReadonlySet<unknown> = new Set(['EC', 'RSA', 'OKP']);

/**
 * Reads the JWT bundle of `domain` as the Workload API gives it: a JWKS, UTF-8 JSON without repeated keys (SPIFFE Workload API, section
 * 6.2.2). Elements of an unknown `kty` are passed over, and those of a `use` that is not `jwt-svid`; SPIRE writes no `use` here, so one that
 * is left out counts. A key that cannot be relied on is left out, with a note: a partner chose it. The error says why it is no JWKS.
 * Never throws.
 */
export function parseJwtBundle(domain: TrustDomain, bytes: Uint8Array): Result<JwtBundle, string> {
  try {
    return readBundle(domain, bytes);
  } catch (thrown) {
    return err(`the JWT bundle of ${domain} is no JWKS: ${messageOf(thrown).slice(0, 200)}`);
  }
}

/** The JWT bundle of `domain` that a bundle endpoint gave. */
export function jwtBundleOf(domain: TrustDomain, authorities: readonly JwtAuthority[]): JwtBundle {
  return Object.freeze({ trustDomain: domain, authorities, notes: Object.freeze([]) });
}

function readBundle(domain: TrustDomain, bytes: Uint8Array): Result<JwtBundle, string> {
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  const root: unknown = JSON.parse(text);
  const { repeatedKey } = readJsonText(text);
  if (repeatedKey !== undefined) return err(`the JWT bundle of ${domain} has the key ${shown(repeatedKey)} twice`);
  const keys: unknown = isObject(root) ? root['keys'] : undefined;
  if (!Array.isArray(keys)) return err(`the JWT bundle of ${domain} has no list "keys"`);
  const notes: string[] = [];
  if (keys.length > MAX_JWT_AUTHORITIES)
    notes.push(`JWT bundle of ${domain}: its ${keys.length} keys are more than ${MAX_JWT_AUTHORITIES}; none of them is relied on`);
  const found = new Map<string, JwtAuthority>();
  const ambiguous = new Set<string>();
  for (const [index, element] of keys.length > MAX_JWT_AUTHORITIES ? [] : keys.entries()) {
    const leaveOut = (why: string): void => void notes.push(`JWT bundle of ${domain}, key ${index + 1}: ${why}; it is not relied on`);
    if (!isObject(element)) {
      leaveOut('it is no JSON object');
      continue;
    }
    const { kty, use, kid } = element;
    if (!KEY_TYPES.has(kty) || (use !== undefined && use !== 'jwt-svid')) continue;
    if (typeof kid !== 'string' || kid === '' || kid.length > MAX_KEY_ID) leaveOut('it has no usable "kid"');
    else {
      const key = readPublicKey(element);
      const problem = key === undefined ? 'is not a public key that can be read' : keyProblem(key);
      const known = found.get(kid);
      if (key === undefined || problem !== undefined) leaveOut(`${shown(kid)} ${problem}`);
      else if (known?.key.equals(key) === false) {
        ambiguous.add(kid);
        leaveOut(`another has its "kid" ${shown(kid)}, and neither counts`);
      } else if (known === undefined) found.set(kid, Object.freeze({ keyId: kid, key }));
    }
  }
  const authorities = [...found.values()].filter(({ keyId }) => !ambiguous.has(keyId));
  return ok(Object.freeze({ trustDomain: domain, authorities: Object.freeze(authorities), notes: Object.freeze(notes) }));
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
