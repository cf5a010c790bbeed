/** What our own bundle endpoint says: of our trust domain, what the Workload API gave. Pure. */
import { chooseSvid, type IdentitySnapshot, type SvidChoice } from '../identity/snapshot.ts';
import { writeBundleDocument } from '../spiffe/bundle-document.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';

export interface ServedDocument {
  readonly trustDomain: TrustDomain;
  readonly sequence: bigint;
  readonly authorities: number;
  readonly text: string;
  /** Equal for what has the same content. */
  readonly fingerprint: string;
}

/**
 * The document for `snapshot`, or `last` if that says the same; undefined if we hold no identity, and so no trust domain of our own.
 * The Workload API gives no sequence number (Trust Domain and Bundle, section 4.1.1), so it is the time of the change in seconds since
 * 1970, and more than the last one: it grows over restarts as well, as far as the clock does. `last` outlives an identity that was taken back.
 */
export function documentOf(
  snapshot: IdentitySnapshot,
  choice: SvidChoice,
  refreshHintMs: number,
  last: ServedDocument | undefined,
  nowMs: number,
): ServedDocument | undefined {
  const svid = chooseSvid(snapshot, choice);
  const bundle = svid && snapshot.bundles.get(trustDomainOf(svid.id));
  if (bundle === undefined) return undefined;
  const { trustDomain, authorities } = bundle;
  const fingerprint = [trustDomain, ...authorities.map(({ sha256 }) => sha256).toSorted()].join('\n');
  if (fingerprint === last?.fingerprint) return last;
  const seconds = BigInt(Math.max(Math.floor(nowMs / 1000), 1));
  const sequence = last === undefined || seconds > last.sequence ? seconds : last.sequence + 1n;
  const text = writeBundleDocument(bundle, sequence, refreshHintMs);
  return Object.freeze({ trustDomain, sequence, authorities: authorities.length, text, fingerprint });
}
