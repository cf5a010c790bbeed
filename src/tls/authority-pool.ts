import type { HeldIdentity } from '../identity/snapshot.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import { CLIENT_AUTH, SERVER_AUTH } from '../spiffe/extensions.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';

/**
 * The authorities among which OpenSSL looks for issuers, whichever trust domain the peer turns out to be of. A federated
 * authority may bear the name, the key identifier and even the public key of an issuer of ours; OpenSSL, which may take it
 * for that one, would then apply to our peers what it says of whom it may issue for, and that verdict is final. So
 * those that could are left out: their own peers are judged by our walk, and OpenSSL is asked about the path that it finds.
 */
export function poolOf({ svids, bundles }: HeldIdentity): readonly Certificate[] {
  const ownDomains = new Set(svids.map(({ id }) => trustDomainOf(id)));
  return [...bundles.values()].flatMap(({ trustDomain, authorities }) =>
    ownDomains.has(trustDomain) ? authorities : authorities.filter((authority) => !mayRestrictOthers(authority)),
  );
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
