import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { parseCertificate, type Certificate } from './x509/certificate.ts';
import { checkLeafProfile, claimedIdOf } from './leaf-profile.ts';
import { datesProblem, findPath, type SecondJudge } from './path.ts';
import type { PeerProblem } from './peer-problems.ts';
import { revocationOf } from './revocation.ts';
import { trustDomainOf, type SpiffeId } from './spiffe-id.ts';
import type { TrustBundle } from './trust-bundle.ts';
import type { TrustDomain } from './trust-domain.ts';

/** A peer whose chain was verified. Who it is, not what it may do. */
export interface AuthenticatedPeer {
  readonly id: SpiffeId;
  readonly leaf: Certificate;
  /** The certificates as sent: leaf first, the rest in the peer's order, needed or not. */
  readonly chain: readonly Certificate[];
  /** Leaf first, authority last: the path that our own walk found. */
  readonly path: readonly Certificate[];
  /** The X.509 authority of the peer's own trust domain that the path ends in. */
  readonly authority: Certificate;
  /** Earliest end of validity in the path. */
  readonly expiresAtMs: number;
  /** That, or the end of one of the lists consulted, if it is earlier: this answer must not be used after it. */
  readonly validUntilMs: number;
}

export interface PeerRefusal {
  readonly problem: PeerProblem;
  /** A sentence with the offending value, for logs. */
  readonly detail: string;
  /** The SPIFFE ID that the leaf claims, if it has a valid one: unproven. */
  readonly claimedId: SpiffeId | undefined;
}

/** Certificates that a peer may send. */
export const MAX_CHAIN_LENGTH = 8;
/** Bytes of all of them together: eight with RSA keys of 4096 bits have half of it. OpenSSL lets 100 KB through, which take 50 ms to read. */
export const MAX_CHAIN_BYTES = 32_768;

/** What a leaf says by itself: nothing of it is proven. */
export interface ClaimedLeaf {
  readonly leaf: Certificate;
  readonly id: SpiffeId;
  /** Of the trust domain in its SPIFFE ID. */
  readonly bundle: TrustBundle;
}

/**
 * What can be said against a peer by its leaf alone, before anything is asked of the certificates that came with it: its
 * size, its profile, its dates, and whether we know its trust domain. It never throws.
 */
export function readLeaf(
  leafDer: Uint8Array,
  bundles: ReadonlyMap<TrustDomain, TrustBundle>,
  nowMs: number,
): Result<ClaimedLeaf, PeerRefusal> {
  return guarded(() => {
    if (leafDer.length > MAX_CHAIN_BYTES) return tooManyBytes(leafDer.length);
    const parsed = parseLeaf(leafDer);
    if (!parsed.ok) return parsed;
    const claimed = claimOf(parsed.value, bundles);
    if (!claimed.ok) return claimed;
    const dates = datesProblem([claimed.value.leaf], nowMs);
    return dates === undefined ? claimed : refuse(dates.problem, dates.detail, claimed.value.id);
  });
}

/**
 * Who a peer is, from the certificates that it sent (leaf first, the rest in any order), each one whole DER: X509-SVID
 * standard, section 5. The chain is verified against the bundle of the trust domain named in the leaf's own SPIFFE ID and
 * nothing else, then the revocation lists of that bundle. `nowMs` is wall time, milliseconds since 1970. A path to which
 * `second` objects does not count. What expired since `sinceMs`, which is no later than `nowMs`, is taken for valid; by default nothing is.
 * Whatever the bytes are, the answer is a value; it never throws.
 */
export function verifyPeer(
  chainDer: readonly Uint8Array[],
  bundles: ReadonlyMap<TrustDomain, TrustBundle>,
  nowMs: number,
  second?: SecondJudge,
  sinceMs = nowMs,
): Result<AuthenticatedPeer, PeerRefusal> {
  return guarded(() => verify(chainDer, bundles, nowMs, second, sinceMs));
}

function guarded<T>(judge: () => Result<T, PeerRefusal>): Result<T, PeerRefusal> {
  try {
    return judge();
  } catch (thrown) {
    // A mistake of ours: it refuses this peer, and must not end the process that serves the others.
    return refuse('bad_certificate', `the certificates could not be judged: ${messageOf(thrown)}`);
  }
}

function verify(
  chainDer: readonly Uint8Array[],
  bundles: ReadonlyMap<TrustDomain, TrustBundle>,
  nowMs: number,
  second: SecondJudge | undefined,
  sinceMs: number,
): Result<AuthenticatedPeer, PeerRefusal> {
  const [leafDer, ...poolDer] = chainDer;
  if (leafDer === undefined) return refuse('no_certificate', 'the peer sent no certificate');
  if (chainDer.length > MAX_CHAIN_LENGTH)
    return refuse('bad_certificate', `the peer sent ${chainDer.length} certificates, more than ${MAX_CHAIN_LENGTH}`);
  const bytes = chainDer.reduce((sum, der) => sum + der.length, 0);
  if (bytes > MAX_CHAIN_BYTES) return tooManyBytes(bytes);
  const parsedLeaf = parseLeaf(leafDer);
  if (!parsedLeaf.ok) return parsedLeaf;

  const pool: Certificate[] = [];
  for (const [index, der] of poolDer.entries()) {
    const parsed = parseCertificate(der);
    if (!parsed.ok) return refuse('bad_certificate', `certificate ${index + 2}: ${parsed.error}`, claimedIdOf(parsedLeaf.value));
    pool.push(parsed.value);
  }

  const claimed = claimOf(parsedLeaf.value, bundles);
  if (!claimed.ok) return claimed;
  const { leaf, id, bundle } = claimed.value;

  const path = findPath(leaf, pool, bundle, nowMs, second, sinceMs);
  if (!path.ok) return refuse(path.error.problem, path.error.detail, id);
  const authority = path.value.at(-1);
  if (authority === undefined) return refuse('untrusted_chain', `no authority for ${id}`, id);

  const revocation = revocationOf(path.value, bundle, nowMs);
  if (revocation.revoked) return refuse('revoked', revocation.detail, id);

  const expiresAtMs = Math.min(...path.value.map((certificate) => certificate.notAfterMs));
  return ok(
    Object.freeze({
      id,
      leaf,
      chain: Object.freeze([leaf, ...pool]),
      path: Object.freeze(path.value),
      authority,
      expiresAtMs,
      validUntilMs: Math.min(revocation.validUntilMs, expiresAtMs),
    }),
  );
}

function parseLeaf(leafDer: Uint8Array): Result<Certificate, PeerRefusal> {
  const leaf = parseCertificate(leafDer);
  return leaf.ok ? leaf : refuse('bad_certificate', `leaf: ${leaf.error}`);
}

function claimOf(leaf: Certificate, bundles: ReadonlyMap<TrustDomain, TrustBundle>): Result<ClaimedLeaf, PeerRefusal> {
  const profile = checkLeafProfile(leaf);
  if (!profile.ok) return refuse('not_an_svid', profile.error, claimedIdOf(leaf));
  const id = profile.value;
  const bundle = bundles.get(trustDomainOf(id));
  return bundle === undefined ? refuse('unknown_trust_domain', `no bundle for the trust domain of ${id}`, id) : ok({ leaf, id, bundle });
}

function tooManyBytes(bytes: number): Result<never, PeerRefusal> {
  return refuse('bad_certificate', `the peer sent certificates of ${bytes} bytes, more than ${MAX_CHAIN_BYTES}`);
}

function refuse(problem: PeerProblem, detail: string, claimedId?: SpiffeId): Result<never, PeerRefusal> {
  return err({ problem, detail, claimedId });
}
