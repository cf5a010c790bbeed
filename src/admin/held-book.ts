import type { IdentitySnapshot } from '../identity/snapshot.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import { trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { Rotation } from './api-types.ts';

/** A certificate that we hold: ours, or of somebody whom we trust. */
export interface Held {
  /** `KIND:SHA-256`, of an authority `authority:TRUST DOMAIN:SHA-256`. */
  readonly id: string;
  /** Grows with each certificate that comes. */
  readonly seq: number;
  readonly kind: 'svid' | 'intermediate' | 'authority';
  readonly certificate: Certificate;
  readonly trustDomain: TrustDomain;
  /** Of an SVID: never the whole of it, which has the key. `slot` is which of our identities it is, whatever its certificate. */
  readonly svid: { readonly id: SpiffeId; readonly hint: string; readonly slot: string } | undefined;
  /** The `id` of the one above it on the path that was found. */
  readonly issuer: string | undefined;
  readonly source: 'workload_api' | 'bundle_endpoint';
  /** When we had it first, and the generation that brought it. */
  readonly receivedAtMs: number;
  readonly generation: number;
  readonly rotations: number;
  /** Of an authority: how many of ours it signed. */
  readonly issued: number;
}

/** What changed, with the times as they are. */
export interface Change extends Omit<Rotation, 'at' | 'notAfter'> {
  readonly seq: number;
  readonly atMs: number;
  readonly notAfterMs: number | undefined;
}

export const MOST_CHANGES = 128;

export function authorityId(domain: TrustDomain, sha256: string): string {
  return `authority:${domain}:${sha256}`;
}

/**
 * What we hold, with what is known of it beside what the snapshot says: since when, and how often it was rotated. Told of each snapshot,
 * and the only one who remembers those before.
 */
export class HeldBook {
  #held: ReadonlyMap<string, Held> = new Map();
  #changes: Change[] = [];
  #rotations = new Map<string, number>();
  #seq = 0;

  /** `nowMs` is wall time, milliseconds since 1970. */
  update(snapshot: IdentitySnapshot, nowMs: number): void {
    const before = this.#held;
    const isFirst = this.#seq === 0;
    const after = new Map<string, Held>();
    const bySlot = new Map([...before.values()].flatMap((held) => (held.svid === undefined ? [] : [[held.svid.slot, held] as const])));
    const changes: Omit<Change, 'seq'>[] = [];
    const { generation } = snapshot;
    const tell = (change: Change['change'], of: Held | undefined, replaced: Held | undefined): void => {
      const one = of ?? replaced;
      changes.push({
        atMs: nowMs,
        generation,
        change,
        spiffeId: one?.svid?.id ?? null,
        trustDomain: one?.trustDomain ?? null,
        certificate: of?.id ?? null,
        replaced: replaced?.id ?? null,
        notAfterMs: one?.certificate.notAfterMs,
      });
    };
    const svids = snapshot.kind === 'held' ? snapshot.svids : [];
    const issued = issuedBy(svids);
    const add = (id: string, held: Omit<Held, 'id' | 'seq' | 'receivedAtMs' | 'generation'>): Held => {
      const known = before.get(id);
      const since = known ?? { seq: ++this.#seq, receivedAtMs: nowMs, generation };
      const { seq, receivedAtMs } = since;
      const made = Object.freeze({ ...held, id, seq, receivedAtMs, generation: since.generation });
      after.set(id, made);
      return made;
    };

    for (const bundle of snapshot.bundles.values()) {
      const { trustDomain } = bundle;
      const fetched = snapshot.kind === 'held' && snapshot.endpointBundles.has(trustDomain);
      const common = { kind: 'authority', trustDomain, svid: undefined, issuer: undefined, rotations: 0 } as const;
      for (const certificate of bundle.authorities) {
        const id = authorityId(trustDomain, certificate.sha256);
        const source = fetched ? 'bundle_endpoint' : 'workload_api';
        const made = add(id, { ...common, certificate, source, issued: issued.get(id) ?? 0 });
        if (!before.has(id) && !isFirst) tell('authority_added', made, undefined);
      }
    }
    // The default one last, so that it is the newest of its snapshot.
    const slots = slotsOf(svids);
    for (const [index, svid] of [...svids.entries()].toReversed()) {
      const trustDomain = trustDomainOf(svid.id);
      const common = { trustDomain, source: 'workload_api', issued: 0 } as const;
      const above = [...svid.intermediates.map(({ sha256 }) => `intermediate:${sha256}`), authorityId(trustDomain, svid.authority.sha256)];
      for (const certificate of svid.chain.slice(1)) {
        const at = svid.intermediates.findIndex(({ sha256 }) => sha256 === certificate.sha256);
        const id = `intermediate:${certificate.sha256}`;
        const issuer = at === -1 ? undefined : above[at + 1];
        if (!after.has(id)) add(id, { ...common, kind: 'intermediate', certificate, svid: undefined, issuer, rotations: 0 });
      }
      const [leaf] = svid.chain;
      if (leaf === undefined) continue;
      const slot = slots[index] ?? '';
      const earlier = bySlot.get(slot);
      bySlot.delete(slot);
      let id = `svid:${leaf.sha256}`;
      // The agent may give one certificate twice, for two purposes.
      while (after.has(id)) id += '+';
      const isRotated = earlier !== undefined && earlier.certificate.sha256 !== leaf.sha256;
      const rotations = (this.#rotations.get(slot) ?? 0) + (isRotated ? 1 : 0);
      this.#rotations.set(slot, rotations);
      const made = add(id, {
        ...common,
        kind: 'svid',
        certificate: leaf,
        svid: { id: svid.id, hint: svid.hint, slot },
        issuer: above[0],
        rotations,
      });
      if (isRotated) tell('svid_rotated', made, earlier);
      else if (earlier === undefined) tell('svid_added', made, undefined);
    }
    if (snapshot.kind === 'none' && bySlot.size > 0) tell('identity_withdrawn', undefined, undefined);
    for (const gone of bySlot.values()) tell('svid_removed', undefined, gone);
    for (const held of before.values()) if (held.kind === 'authority' && !after.has(held.id)) tell('authority_removed', undefined, held);
    for (const slot of this.#rotations.keys()) if (!slots.includes(slot)) this.#rotations.delete(slot);

    this.#held = after;
    const first = this.#changes.at(-1)?.seq ?? 0;
    // A partner may change any number of authorities at once: what is ours is told last, so it stays.
    const [theirs, ours] = [true, false].map((of) => changes.filter(({ change }) => change.startsWith('authority_') === of));
    const ranked = [...(theirs ?? []), ...(ours ?? [])];
    this.#changes = [...this.#changes, ...ranked.map((change, index) => ({ ...change, seq: first + index + 1 }))].slice(-MOST_CHANGES);
  }

  get(id: string): Held | undefined {
    return this.#held.get(id);
  }

  *of(kind: Held['kind']): Generator<Held> {
    for (const held of this.#held.values()) if (held.kind === kind) yield held;
  }

  /** The oldest first. */
  get changes(): readonly Change[] {
    return this.#changes;
  }
}

/** Which of our identities each of them is: of several with one SPIFFE ID and hint, by their order. */
function slotsOf(svids: readonly X509Svid[]): readonly string[] {
  const counts = new Map<string, number>();
  return svids.map(({ id, hint }) => {
    const name = `${id} ${hint}`;
    const count = counts.get(name) ?? 0;
    counts.set(name, count + 1);
    return `${count} ${name}`;
  });
}

/** By the `id` of an authority: how many certificates of ours it signed. */
function issuedBy(svids: readonly X509Svid[]): ReadonlyMap<string, number> {
  const signed = new Map<string, Set<string>>();
  for (const { id, chain, intermediates, authority } of svids) {
    const last = intermediates.at(-1) ?? chain[0];
    const key = authorityId(trustDomainOf(id), authority.sha256);
    if (last !== undefined) signed.set(key, (signed.get(key) ?? new Set<string>()).add(last.sha256));
  }
  return new Map([...signed].map(([key, certificates]) => [key, certificates.size]));
}
