import type { HeldIdentity } from '../identity/snapshot.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import { CLIENT_AUTH, SERVER_AUTH } from '../spiffe/x509/extensions.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { TrustBundle } from '../spiffe/trust-bundle.ts';

/** A server sends the names of all authorities, for which TLS has 64 KiB and some clients have less: with more no handshake of anybody succeeds. */
const MAX_NAME_BYTES = 16_384;

/**
 * The authorities among which OpenSSL looks for issuers, whichever trust domain the peer turns out to be of. A federated
 * authority may bear the name, the key identifier and even the public key of an issuer of ours; OpenSSL, which may take it
 * for that one, would then apply to our peers what it says of whom it may issue for, and that verdict is final. So
 * those that could are left out: their own peers are judged by our walk, and OpenSSL is asked about the path that it finds. So are all
 * of a trust domain whose names no longer fit beside ours and those of domains with shorter ones.
 */
export function poolOf({ svids, bundles }: HeldIdentity): readonly Certificate[] {
  const ownDomains = new Set(svids.map(({ id }) => trustDomainOf(id)));
  const isOwn = ({ trustDomain }: TrustBundle): boolean => ownDomains.has(trustDomain);
  const all = [...bundles.values()];
  const pool = all.filter(isOwn).flatMap(({ authorities }) => authorities);
  let bytes = nameBytes(pool);
  const federated = all
    .filter((bundle) => !isOwn(bundle))
    .map(({ authorities }) => authorities.filter((authority) => !mayRestrictOthers(authority)));
  for (const harmless of federated.toSorted((a, b) => nameBytes(a) - nameBytes(b))) {
    bytes += nameBytes(harmless);
    if (bytes > MAX_NAME_BYTES) break;
    pool.push(...harmless);
  }
  return pool;
}

/** Of the names in TLS: each with its length before it. */
function nameBytes(authorities: readonly Certificate[]): number {
  return authorities.reduce((sum, { subjectDer }) => sum + 2 + subjectDer.length / 2, 0);
}

/**
 * Name constraints are judged even where the signature is somebody else's, and last. Any other restriction counts for
 * nothing beside a signature that does not hold, so it matters only in a certificate with the key of another, which
 * cannot sign itself.
 */
function mayRestrictOthers(authority: Certificate): boolean {
  const { basicConstraints, keyUsage, extendedKeyUsage, nameConstraints, unknownCritical } = authority.extensions;
  if (nameConstraints !== undefined) return true;
  const isRestricted =
    authority.keyProblem !== undefined ||
    basicConstraints?.isCa !== true ||
    basicConstraints.pathLength !== undefined ||
    keyUsage?.keyCertSign === false ||
    (extendedKeyUsage !== undefined && !(extendedKeyUsage.includes(SERVER_AUTH) && extendedKeyUsage.includes(CLIENT_AUTH))) ||
    unknownCritical.length > 0;
  return isRestricted && !authority.isSignedBy(authority);
}
