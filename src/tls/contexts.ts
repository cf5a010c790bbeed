import { messageOf } from '../lib/errors.ts';
import { createTlsContext } from '../transport/node.ts';
import type { TlsContext } from '../transport/connection.ts';
import { chooseSvid, type HeldIdentity, type IdentitySnapshot, type SvidChoice } from '../identity/snapshot.ts';
import type { IdentityView } from '../identity/store.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import { poolOf } from './authority-pool.ts';

/** All that one handshake needs to know of our side, from one snapshot: it cannot pair an SVID with another update's bundles. */
export interface OwnIdentity {
  readonly snapshot: IdentitySnapshot;
  readonly svid: X509Svid;
  readonly context: TlsContext;
}

/** Wall time at which what we present expires, leaf or intermediate. */
export function expiryOf({ svid }: OwnIdentity): number {
  return Math.min(...svid.chain.map((certificate) => certificate.notAfterMs));
}

/** Why there is nothing to present. */
export interface NotReady {
  readonly detail: string;
}

export interface TlsContexts {
  /** What a listener presents now; never an SVID that is expired or not yet valid, and never another one than asked for. */
  own(choice: SvidChoice, nowMs: number): OwnIdentity | NotReady;
}

/** One TLS context for each SVID and generation, made when it is first needed (making one takes over a millisecond). */
export function createTlsContexts(identity: IdentityView): TlsContexts {
  let generation = -1;
  let made = new Map<X509Svid, OwnIdentity | NotReady>();
  return {
    own(choice, nowMs) {
      const snapshot = identity.current();
      const svid = chooseSvid(snapshot, choice);
      if (snapshot?.kind !== 'held' || svid === undefined) return { detail: whyNone(snapshot, choice) };
      const problem = validityProblem(svid, nowMs);
      if (problem !== undefined) return { detail: problem };
      if (snapshot.generation !== generation) {
        generation = snapshot.generation;
        made = new Map();
      }
      let own = made.get(svid);
      if (own === undefined) {
        own = buildOwn(snapshot, svid);
        made.set(svid, own);
      }
      return own;
    },
  };
}

/** A sentence if a certificate of the chain is not valid at `nowMs`. */
export function validityProblem({ id, chain }: X509Svid, nowMs: number): string | undefined {
  for (const certificate of chain) {
    if (nowMs > certificate.notAfterMs) return `our SVID ${id} expired at ${isoTime(certificate.notAfterMs)}`;
    if (nowMs < certificate.notBeforeMs) return `our SVID ${id} is not valid before ${isoTime(certificate.notBeforeMs)}`;
  }
  return undefined;
}

/** OpenSSL may refuse what we accepted, such as a weak key in a certificate that the agent sent without need. Nobody is served then, and nothing ends. */
function buildOwn(snapshot: HeldIdentity, svid: X509Svid): OwnIdentity | NotReady {
  try {
    return { snapshot, svid, context: buildContext(snapshot, svid) };
  } catch (cause) {
    return { detail: `our SVID ${svid.id} cannot be used for TLS: ${messageOf(cause)}` };
  }
}

function buildContext(snapshot: HeldIdentity, svid: X509Svid): TlsContext {
  return presenting(
    svid,
    poolOf(snapshot).map((authority) => authority.pem()),
  );
}

/** A context in which we are `svid`, and trust these authorities. Throws if OpenSSL refuses one of them. */
export function presenting(svid: X509Svid, authoritiesPem: readonly string[] | 'web'): TlsContext {
  // With a leaf alone OpenSSL would search and verify a chain for our own certificate in every handshake, and send what it
  // finds: the authority. Sent by us, it costs nothing.
  const sent = svid.chain.length === 1 ? [...svid.chain, svid.authority] : svid.chain;
  return createTlsContext({
    own: { chainPem: sent.map((certificate) => certificate.pem()).join(''), keyPem: svid.key.export({ type: 'pkcs8', format: 'pem' }) },
    authoritiesPem,
  });
}

function whyNone(snapshot: IdentitySnapshot | undefined, choice: SvidChoice): string {
  if (snapshot === undefined) return 'no SVID has come from the Workload API yet';
  if (snapshot.kind === 'none') return `we hold no identity: ${snapshot.reason}`;
  switch (choice.by) {
    case 'default':
      return 'the Workload API gave no default SVID';
    case 'id':
      return `the Workload API gives no SVID with the SPIFFE ID ${choice.id}`;
    case 'hint':
      return `the Workload API gives no SVID with the hint ${JSON.stringify(choice.hint)}`;
  }
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}
