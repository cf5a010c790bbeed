import { hash } from 'node:crypto';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import { Remembered } from '../lib/remembered.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { DenyList } from '../policy/deny-list.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { MAX_CHAIN_LENGTH, readLeaf, verifyPeer, type AuthenticatedPeer, type PeerRefusal } from '../spiffe/verify.ts';
import { chainOf, leafOf } from './certificates.ts';

/** What a check says of the peer's certificates. */
export interface ShownCertificates {
  /** `attributes.source.certificate`. */
  readonly leaf: string;
  /** What came with it, as `chainIn` gives it; empty: nothing that we are shown. */
  readonly chain: string;
}

/** By the certificates as they were shown, of which some 400 bytes are kept each. */
const MAX_PEERS = 4096;

interface Proven {
  readonly id: SpiffeId;
  readonly validUntilMs: number;
}

/**
 * Who the peers of checks are. Envoy's word is not taken for it: from the leaf to an authority of its own trust domain each step is
 * verified here too, through the chain if Envoy shows it and through the intermediates that we know. Successes are
 * remembered, for one snapshot and deny list: each request of a peer is a check.
 */
export class CheckedPeers {
  readonly #proven = new Remembered<Proven>(MAX_PEERS, Infinity, () => 0);
  #generation = -1;
  #denyList: DenyList | undefined;

  authenticate(shown: ShownCertificates, snapshot: IdentitySnapshot, denyList: DenyList, nowMs: number): Result<SpiffeId, PeerRefusal> {
    if (snapshot.generation !== this.#generation || denyList !== this.#denyList) {
      this.#proven.clear();
      this.#generation = snapshot.generation;
      this.#denyList = denyList;
    }
    const key = hash('sha256', JSON.stringify([shown.leaf, shown.chain]), 'hex');
    const known = this.#proven.get(key);
    if (known !== undefined && nowMs < known.validUntilMs) return ok(known.id);
    const judged = prove(shown, snapshot, denyList, nowMs);
    if (!judged.ok) return judged;
    const { id, validUntilMs } = judged.value;
    this.#proven.set(key, { id, validUntilMs });
    return ok(id);
  }
}

function prove(
  { leaf, chain: shownChain }: ShownCertificates,
  { bundles }: IdentitySnapshot,
  denyList: DenyList,
  nowMs: number,
): Result<AuthenticatedPeer, PeerRefusal> {
  if (leaf === '') {
    const detail = 'the check has no certificate: the peer presented none, or include_peer_certificate is not set';
    return err({ problem: 'no_certificate', detail, claimedId: undefined });
  }
  const leafDer = leafOf(leaf);
  if (!leafDer.ok) return bad(leafDer.error, undefined);
  const claimed = readLeaf(leafDer.value, bundles, nowMs);
  if (!claimed.ok) return claimed;
  const chain = chainOf(shownChain);
  if (!chain.ok) return bad(chain.error, claimed.value.id);
  const sent = chain.value.filter((der) => Buffer.compare(der, leafDer.value) !== 0);
  const known = claimed.value.bundle.intermediates.map((certificate) => certificate.der());
  // What we know ourselves is no more than room is left for: a peer that shows its chain needs none of it.
  const pool = [...sent, ...known.slice(0, Math.max(MAX_CHAIN_LENGTH - 1 - sent.length, 0))];
  const judged = verifyPeer([leafDer.value, ...pool], bundles, nowMs);
  if (!judged.ok) return judged;
  const { id, path } = judged.value;
  const detail = denyList.refusal(id, path);
  return detail === undefined ? judged : err({ problem: 'revoked', detail, claimedId: id });
}

function bad(detail: string, claimedId: SpiffeId | undefined): Result<never, PeerRefusal> {
  return err({ problem: 'bad_certificate', detail, claimedId });
}
