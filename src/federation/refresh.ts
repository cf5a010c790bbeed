/** When to ask a bundle endpoint, and what to make of its answer. Pure. */
import type { BundleDocument } from '../spiffe/bundle-document.ts';

/** SPIFFE Federation, section 4.1, recommends it where the bundle says nothing. */
const DEFAULT_REFRESH_MS = 300_000;
const MIN_REFRESH_MS = 30_000;
const MAX_REFRESH_MS = 3_600_000;
/** A lower sequence number that stays is no stale replica: the publisher began to count anew. */
const BELIEVE_OLDER_MS = 3_600_000;

/** How long what is held may go unasked for. The publisher's hint counts within bounds: it must neither keep us busy nor blind. */
export function refreshInterval(document: Pick<BundleDocument, 'refreshHintMs'> | undefined): number {
  return Math.min(Math.max(document?.refreshHintMs ?? DEFAULT_REFRESH_MS, MIN_REFRESH_MS), MAX_REFRESH_MS);
}

/** What is held of one trust domain, and since when (monotonic) the endpoint gives an older one. */
export interface HeldDocument {
  readonly document: BundleDocument;
  readonly olderSinceMs: number | undefined;
}

export type Comparison =
  | { readonly kind: 'updated' | 'unchanged'; readonly held: HeldDocument }
  | { readonly kind: 'older'; readonly held: HeldDocument; readonly detail: string };

/**
 * What a document that has come makes of the one that is held. One with a lower sequence number (Trust Domain and Bundle, section
 * 4.1.1) is that of a replica left behind, and would bring back authorities that were withdrawn; it is believed only after it was all
 * that came for an hour. Without a number, what came last counts (Federation, section 4.2). `nowMs` is monotonic.
 */
export function compareDocuments(held: HeldDocument | undefined, fresh: BundleDocument, nowMs: number): Comparison {
  const taken: HeldDocument = { document: fresh, olderSinceMs: undefined };
  if (held === undefined) return { kind: 'updated', held: taken };
  const { document, olderSinceMs = nowMs } = held;
  if (sameContent(document, fresh)) {
    // Of replicas that say the same, the one with the highest number.
    const newest = isOlder(fresh, document) ? document : fresh;
    return { kind: 'unchanged', held: { document: newest, olderSinceMs: undefined } };
  }
  if (isOlder(fresh, document) && nowMs - olderSinceMs < BELIEVE_OLDER_MS) {
    const detail = `its sequence number ${fresh.sequence} is lower than ${document.sequence}, which is held`;
    return { kind: 'older', held: { document, olderSinceMs }, detail };
  }
  return { kind: 'updated', held: taken };
}

function isOlder(fresh: BundleDocument, held: BundleDocument): boolean {
  return fresh.sequence !== undefined && held.sequence !== undefined && fresh.sequence < held.sequence;
}

/** Whether both have the same keys; numbers and hints aside. */
function sameContent(a: BundleDocument, b: BundleDocument): boolean {
  return fingerprintOf(a) === fingerprintOf(b);
}

function fingerprintOf({ authorities, jwtAuthorities }: BundleDocument): string {
  const keys = [
    ...authorities.map(({ sha256 }) => sha256),
    ...jwtAuthorities.map(({ keyId, key }) => JSON.stringify([keyId, key.export({ type: 'spki', format: 'der' }).toString('base64')])),
  ];
  return keys.toSorted().join('\n');
}
