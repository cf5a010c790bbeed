import { chooseSvid } from '../../identity/snapshot.ts';
import { trustDomainOf, type SpiffeId } from '../../spiffe/spiffe-id.ts';
import { strangersWords } from '../../telemetry/log/scrub.ts';
import { BadParameter, durationOf, listOf, page, type List } from './lists.ts';
import type { ApiSource } from './source.ts';
import type * as api from '../api-types.ts';
import { describeHeld, describePeer, describePeerIntermediate, listenerName, peerId, peerIntermediateId } from '../certificates.ts';
import type { Held } from '../held-book.ts';
import type { KnownPeer, PeerBook, SeenPeer } from '../peer-book.ts';

/** Of what SDS clients have, so much is looked at for a page of certificates. */
const MOST_USES = 5000;
const MAX_USES_SHOWN = 20;
const MAX_NAME = 200;

export const CERTIFICATE_KINDS = ['svid', 'intermediate', 'authority', 'peer', 'peer_intermediate', 'refused'] as const;

type Intermediate = SeenPeer & { readonly known: KnownPeer };

/** `certificates`: each certificate in sight. */
export function certificates(source: ApiSource, search: URLSearchParams): api.CertificatePage {
  const nowMs = source.clock.now();
  const kind = search.get('kind');
  if (kind !== null && !CERTIFICATE_KINDS.some((known) => known === kind))
    throw new BadParameter(`kind must be one of ${CERTIFICATE_KINDS.join(', ')}`);
  const id = search.get('id');
  const trustDomain = search.get('trustDomain');
  const spiffeId = search.get('spiffeId');
  const expiresBeforeMs = durationOf(search, nowMs);
  const isOf = (claimed: SpiffeId | undefined): boolean =>
    (spiffeId === null || claimed === spiffeId) &&
    (trustDomain === null || (claimed !== undefined && trustDomainOf(claimed) === trustDomain));
  const isDue = (notAfterMs: number): boolean => expiresBeforeMs === undefined || notAfterMs < expiresBeforeMs;
  /** Of those whose end is known when they are read. */
  const ifDue = (described: api.Certificate | undefined): api.Certificate | undefined =>
    described !== undefined && isDue(described.notAfter === null ? Infinity : Date.parse(described.notAfter)) ? described : undefined;

  let uses: Uses | undefined;
  const heldOf = (name: Held['kind']): List<api.Certificate> =>
    listOf<Held, api.Certificate>({
      name,
      items: () => source.held.of(name),
      keyOf: ({ seq }) => seq,
      fits: (held) =>
        (id === null || held.id === id) &&
        (trustDomain === null || held.trustDomain === trustDomain) &&
        (spiffeId === null || held.svid?.id === spiffeId) &&
        isDue(held.certificate.notAfterMs),
      describe(held) {
        uses ??= usesOf(source);
        return describeHeld(held, uses(held), nowMs);
      },
    });
  const peers = listOf<Intermediate, api.Certificate>({
    name: 'peer',
    items: () => source.peers.proven(),
    keyOf: ({ seq }) => seq,
    fits(seen) {
      const { authenticated } = seen.known;
      return (id === null || peerId(seen) === id) && isOf(authenticated.id) && isDue(authenticated.leaf.notAfterMs);
    },
    describe: (seen) => describePeer(seen, nowMs),
  });
  const strangers = listOf<SeenPeer, api.Certificate>({
    name: 'refused',
    items: () => source.peers.strangers(),
    keyOf: ({ seq }) => seq,
    fits: (seen) => (id === null || peerId(seen) === id) && isOf(seen.strange?.claimedId),
    describe: (seen) => ifDue(describePeer(seen, nowMs)),
  });
  const between = listOf<PeerIntermediate, api.Certificate>({
    name: 'peer_intermediate',
    items: () => (spiffeId === null ? peerIntermediates(source.peers) : []),
    keyOf: ({ key }) => key,
    // It has no SPIFFE ID of its own.
    fits: ({ seen, index }) =>
      spiffeId === null &&
      (id === null || peerIntermediateId(seen.known.authenticated.issuers[index]) === id) &&
      isOf(seen.known.authenticated.id),
    describe: ({ seen, index }) => ifDue(describePeerIntermediate(seen, index, nowMs)),
  });
  const all = [heldOf('svid'), heldOf('intermediate'), heldOf('authority'), peers, between, strangers];
  return page(source, search, kind === null ? all : all.filter(({ name }) => name === kind));
}

/** One above the leaf of a peer, below its authority. Many peers share it. */
interface PeerIntermediate {
  /** Of its SHA-256: an order that stays as it is. */
  readonly key: number;
  readonly seen: Intermediate;
  readonly index: number;
}

export function* peerIntermediates(peers: PeerBook): Generator<PeerIntermediate> {
  const told = new Set<string>();
  for (const seen of peers.proven()) {
    const { issuers } = seen.known.authenticated;
    for (let index = 0; index < issuers.length - 1; index++) {
      const sha256 = issuers[index] ?? '';
      if (told.has(sha256)) continue;
      told.add(sha256);
      yield { key: Number.parseInt(sha256.slice(0, 12), 16), seen, index };
    }
  }
}

type Uses = (held: Held) => Pick<api.Certificate, 'listeners' | 'sds' | 'sdsSubscribers' | 'files'>;

/** Where what we hold is used: which listeners present it, which SDS clients have it, and which sets of files. */
function usesOf(source: ApiSource): Uses {
  const { status } = source;
  const snapshot = status.identity();
  const bySubject = new Map<string, { readonly shown: api.SdsUse[]; count: number }>();
  for (const { stream, name, version, current, status: state, subject } of source.sds()?.uses(MOST_USES) ?? []) {
    const keys = subject === undefined ? [] : subject.kind === 'svid' ? [subject.sha256] : subject.trustDomains;
    for (const key of keys) {
      const found = bySubject.get(key) ?? { shown: [], count: 0 };
      bySubject.set(key, found);
      found.count += 1;
      if (found.shown.length >= MAX_USES_SHOWN) continue;
      found.shown.push({ stream: stream.id, node: stream.node, name: strangersWords(name, MAX_NAME), version, current, status: state });
    }
  }
  const sets = (status.files?.() ?? []).flatMap(({ name, inForce }) =>
    inForce === undefined ? [] : [{ name, has: inForce.certificates }],
  );
  const listeners = status.listeners().map(({ listener: ref, identity }) => ({ ref, svid: chooseSvid(snapshot, identity) }));
  return ({ kind, certificate, svid, trustDomain }) => {
    // Of a chain, the intermediates go where the leaf goes.
    const presents = listeners.filter(({ svid: shown }) =>
      kind === 'svid'
        ? shown?.chain[0]?.sha256 === certificate.sha256 && shown.hint === svid?.hint
        : kind === 'intermediate' && shown?.chain.some(({ sha256 }) => sha256 === certificate.sha256) === true,
    );
    const found = kind === 'intermediate' ? undefined : bySubject.get(kind === 'svid' ? certificate.sha256 : trustDomain);
    return {
      listeners: presents.map(({ ref }) => listenerName(ref)),
      sds: found?.shown ?? [],
      sdsSubscribers: found?.count ?? 0,
      files: sets.filter(({ has }) => has.has(certificate.sha256)).map(({ name }) => name),
    };
  };
}
