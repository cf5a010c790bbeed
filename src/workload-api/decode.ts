import { createHash } from 'node:crypto';
import type { JwtBundleProblemCode } from '../telemetry/log/jwt-records.ts';
import { readOnlyMap } from '../identity/read-only-map.ts';
import type { HeldIdentity } from '../identity/snapshot.ts';
import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import { parseCrl } from '../spiffe/x509/crl.ts';
import { parseJwtBundle, type JwtBundle, type JwtBundles } from '../spiffe/jwt-bundle.ts';
import { parseSpiffeId, pathOf, trustDomainOf } from '../spiffe/spiffe-id.ts';
import { PEER_PROBLEMS } from '../spiffe/peer-problems.ts';
import { buildTrustBundle, withIntermediates, type AuthorityInDoubt, type TrustBundle } from '../spiffe/trust-bundle.ts';
import { parseTrustDomain, type TrustDomain } from '../spiffe/trust-domain.ts';
import { buildX509Svid, type X509Svid } from '../spiffe/x509-svid.ts';
import {
  readJwtBundlesResponse,
  readX509BundlesResponse,
  readX509SvidResponse,
  type BundleEntries,
  type X509SvidEntry,
  type X509SvidResponse,
} from './wire.ts';

/** Why a message was refused as a whole. One closed set: the label of the metric and the log field. */
export const UPDATE_PROBLEMS = [
  'undecodable', // not a message of the Workload API
  'missing_field', // no SVID, or one without something that it must have
  'bad_spiffe_id',
  'bad_hint',
  'bad_trust_domain', // a key of a bundle map
  'conflicting_bundles',
  'bad_authority',
  'bad_crl',
  'bad_private_key',
  'key_mismatch',
  'wrong_spiffe_id',
  ...PEER_PROBLEMS,
] as const;
export type UpdateProblemCode = (typeof UPDATE_PROBLEMS)[number];

export interface UpdateProblem {
  readonly code: UpdateProblemCode;
  /** A sentence with the offending value; never key material. */
  readonly message: string;
}

/** Why a message of JWT bundles was refused as a whole. */
export interface JwtBundleProblem {
  readonly code: JwtBundleProblemCode;
  /** A sentence with the offending value. */
  readonly message: string;
}

export type Bundles = ReadonlyMap<TrustDomain, TrustBundle>;

/** What a FetchX509SVID message gives. */
export interface DecodedSvids extends Pick<HeldIdentity, 'svids' | 'bundles'> {
  /** A bundle of a trust domain that the message does not have, from concatenated DER certificates, under the message's revocation lists. */
  buildBundle(domain: TrustDomain, der: Uint8Array): Result<TrustBundle, UpdateProblem>;
}

/** What one accepted message says: the whole of what we hold from then on. */
export interface Decoded<T> {
  /** Equal for messages that say the same, whatever order their maps were written in. */
  readonly fingerprint: string;
  /** Judges the content; not done where the fingerprint tells that it was judged before. */
  build(nowMs: number): Result<T, UpdateProblem>;
}

/** SPIFFE Workload API, section 5.1. */
const MAX_HINT_BYTES = 1024;
/** Of all trust domains together: to read a key takes some 30 µs, and everybody waits for it. */
const MAX_ALL_JWT_AUTHORITIES = 4096;

/** Decodes a FetchX509SVID message. Building it gives each SVID verified as a peer's would be, and the bundles; a bad part refuses the whole. */
export function decodeX509Svids(bytes: Uint8Array): Result<Decoded<DecodedSvids>, UpdateProblem> {
  const decoded = decode('X509SVIDResponse', readX509SvidResponse, bytes);
  if (!decoded.ok) return decoded;
  const message = decoded.value;
  const svids = message.svids.map((svid) => [svid.spiffeId, svid.x509Svid, svid.x509SvidKey, svid.bundle, svid.hint]);
  return ok({
    fingerprint: fingerprintOf([message.crl, ...svids, ...message.federatedBundles]),
    build: (nowMs) => guarded(() => buildSvids(message, nowMs)),
  });
}

/** Decodes a FetchX509Bundles message. */
export function decodeX509Bundles(bytes: Uint8Array): Result<Decoded<Bundles>, UpdateProblem> {
  const decoded = decode('X509BundlesResponse', readX509BundlesResponse, bytes);
  if (!decoded.ok) return decoded;
  const message = decoded.value;
  return ok({
    fingerprint: fingerprintOf([message.crl, ...message.bundles]),
    build: () =>
      guarded(() => {
        const bundles = new BundleCollection(message.crl);
        const problem = bundles.addMap(message.bundles, new Set());
        return problem === undefined ? ok(bundles.finish()) : err(problem);
      }),
  });
}

export interface DecodedJwtBundles extends Pick<Decoded<JwtBundles>, 'fingerprint'> {
  build(): Result<JwtBundles, JwtBundleProblem>;
}

/**
 * Decodes a FetchJWTBundles message. A bundle that is no JWKS refuses the whole: the agent writes them itself, so that is no partner's doing.
 */
export function decodeJwtBundles(bytes: Uint8Array): Result<DecodedJwtBundles, JwtBundleProblem> {
  const decoded = decode('JWTBundlesResponse', readJwtBundlesResponse, bytes);
  if (!decoded.ok) return decoded;
  return ok({
    fingerprint: fingerprintOf([...decoded.value]),
    build: () => guarded(() => buildJwtBundles(decoded.value)),
  });
}

function buildJwtBundles(map: BundleEntries): Result<JwtBundles, JwtBundleProblem> {
  const bundles = new Map<TrustDomain, JwtBundle>();
  let authorities = 0;
  for (const [key, jwks] of map) {
    const domain = parseKey(key);
    if (!domain.ok) return domain;
    // Under both names of a trust domain: to choose is to guess whom the agent withdrew.
    if (bundles.has(domain.value))
      return err({ code: 'conflicting_bundles', message: `the message has two JWT bundles of ${domain.value}` });
    const bundle = parseJwtBundle(domain.value, jwks);
    if (!bundle.ok) return err({ code: 'bad_jwt_bundle', message: bundle.error });
    bundles.set(domain.value, bundle.value);
    authorities += bundle.value.authorities.length;
    if (authorities > MAX_ALL_JWT_AUTHORITIES)
      return err({ code: 'too_many_keys', message: `the message has more than ${MAX_ALL_JWT_AUTHORITIES} JWT authorities` });
  }
  return ok(readOnlyMap(bundles));
}

function buildSvids(message: X509SvidResponse, nowMs: number): Result<DecodedSvids, UpdateProblem> {
  const bundles = new BundleCollection(message.crl);
  const svids: X509Svid[] = [];
  const ownDomains = new Set<TrustDomain>();
  const hints = new Set<string>();
  for (const [index, entry] of message.svids.entries()) {
    const domain = checkEntry(entry, index);
    if (!domain.ok) return domain;
    ownDomains.add(domain.value);
    const bundle = bundles.add(domain.value, entry.bundle);
    if (!bundle.ok) return bundle;
    // Section 5.1: of several with one hint the first counts. The bundle of a later one is still a statement about its trust domain.
    if (entry.hint !== '' && hints.has(entry.hint)) continue;
    hints.add(entry.hint);
    const material = { spiffeId: entry.spiffeId, chainDer: entry.x509Svid, keyDer: entry.x509SvidKey, hint: entry.hint };
    const svid = buildX509Svid(material, bundle.value, nowMs);
    if (!svid.ok) return err({ code: svid.error.code, message: `SVID ${index + 1}: ${svid.error.message}` });
    svids.push(svid.value);
    bundles.learn(domain.value, svid.value.intermediates);
  }
  const [first, ...others] = svids;
  if (first === undefined) return err({ code: 'missing_field', message: 'the message has no SVID' });
  // What our own SVID came with is the authority on our own trust domain: a federated entry of that name is passed over.
  const problem = bundles.addMap(message.federatedBundles, ownDomains);
  if (problem !== undefined) return err(problem);
  return ok({
    svids: Object.freeze([first, ...others] as const),
    bundles: bundles.finish(),
    buildBundle: (domain, der) => guarded(() => bundles.build(domain, der, 'leave_out')),
  });
}

/** The mandatory fields of section 5.1, and the trust domain that the SVID's bundle belongs to. */
function checkEntry(entry: X509SvidEntry, index: number): Result<TrustDomain, UpdateProblem> {
  const missing = (field: string): Result<never, UpdateProblem> =>
    err({ code: 'missing_field', message: `SVID ${index + 1} has no ${field}` });
  if (entry.spiffeId === '') return missing('spiffe_id');
  if (entry.x509Svid.length === 0) return missing('x509_svid');
  if (entry.x509SvidKey.length === 0) return missing('x509_svid_key');
  if (entry.bundle.length === 0) return missing('bundle');
  const id = parseSpiffeId(entry.spiffeId);
  if (!id.ok)
    return err({ code: 'bad_spiffe_id', message: `SVID ${index + 1}: ${quoted(entry.spiffeId)} is not a SPIFFE ID: ${id.error}` });
  const hintBytes = Buffer.byteLength(entry.hint);
  if (hintBytes > MAX_HINT_BYTES) {
    return err({
      code: 'bad_hint',
      message: `SVID ${index + 1}: the hint ${quoted(entry.hint)} has ${hintBytes} bytes, more than ${MAX_HINT_BYTES}`,
    });
  }
  return ok(trustDomainOf(id.value));
}

/** The bundles of one message. Two different ones of the same trust domain refuse the message: to choose is to guess whom the agent withdrew. */
class BundleCollection {
  readonly #crls: readonly Uint8Array[];
  readonly #parsedCrls = new Map<Uint8Array, ReturnType<typeof parseCrl>>();
  readonly #bundles = new Map<TrustDomain, TrustBundle>();

  constructor(crls: readonly Uint8Array[]) {
    this.#crls = crls;
  }

  add(domain: TrustDomain, der: Uint8Array, inDoubt: AuthorityInDoubt = 'refuse'): Result<TrustBundle, UpdateProblem> {
    const built = this.build(domain, der, inDoubt);
    if (!built.ok) return built;
    const held = this.#bundles.get(domain);
    if (held === undefined) {
      this.#bundles.set(domain, built.value);
      return built;
    }
    if (sameAuthorities(held, built.value)) return ok(held);
    return err({ code: 'conflicting_bundles', message: `the message has two different bundles of ${domain}` });
  }

  build(domain: TrustDomain, der: Uint8Array, inDoubt: AuthorityInDoubt): Result<TrustBundle, UpdateProblem> {
    return buildTrustBundle(domain, der, this.#crls, (crl) => this.#parseOnce(crl), inDoubt);
  }

  /** Keys are the trust domain's SPIFFE ID (section 5.1), or its bare name, as some agents write it. */
  addMap(map: BundleEntries, except: ReadonlySet<TrustDomain>): UpdateProblem | undefined {
    for (const [key, der] of map) {
      const domain = parseKey(key);
      if (!domain.ok) return domain.error;
      if (except.has(domain.value)) continue;
      const added = this.add(domain.value, der, 'leave_out');
      if (!added.ok) return added.error;
    }
    return undefined;
  }

  /** What the chains of our own SVIDs say of their trust domain. */
  learn(domain: TrustDomain, intermediates: readonly Certificate[]): void {
    const bundle = this.#bundles.get(domain);
    if (bundle !== undefined && intermediates.length > 0) this.#bundles.set(domain, withIntermediates(bundle, intermediates));
  }

  finish(): Bundles {
    return readOnlyMap(this.#bundles);
  }

  /** Each bundle is matched with all the lists of the message, and a long one takes a tenth of a second to parse. */
  #parseOnce(der: Uint8Array): ReturnType<typeof parseCrl> {
    const parsed = this.#parsedCrls.get(der) ?? parseCrl(der);
    this.#parsedCrls.set(der, parsed);
    return parsed;
  }
}

function parseKey(key: string): Result<TrustDomain, { readonly code: 'bad_trust_domain'; readonly message: string }> {
  const id = parseSpiffeId(key);
  if (id.ok && pathOf(id.value) === '') return ok(trustDomainOf(id.value));
  const domain = parseTrustDomain(key);
  if (domain.ok) return domain;
  return err({ code: 'bad_trust_domain', message: `the bundle key ${quoted(key)} is not a trust domain` });
}

function sameAuthorities(a: TrustBundle, b: TrustBundle): boolean {
  const known = new Set(a.authorities.map((authority) => authority.sha256));
  return a.authorities.length === b.authorities.length && b.authorities.every((authority) => known.has(authority.sha256));
}

function decode<T>(name: string, read: (bytes: Uint8Array) => T, bytes: Uint8Array): Result<T, Undecodable> {
  try {
    return ok(read(bytes));
  } catch (thrown) {
    return err({ code: 'undecodable', message: `${bytes.length} bytes are not a ${name}: ${messageOf(thrown)}` });
  }
}

interface Undecodable {
  readonly code: 'undecodable';
  readonly message: string;
}

/** Nothing that the agent sends may end the process, not even by way of a mistake in what parses it. */
function guarded<T, E>(build: () => Result<T, E>): Result<T, E | Undecodable> {
  try {
    return build();
  } catch (thrown) {
    return err({ code: 'undecodable', message: messageOf(thrown) });
  }
}

/** A digest, so that no copy of the message, which has the private keys, needs to be kept. Each list and each part has its length before it, so that none is taken for two. */
function fingerprintOf(lists: readonly (readonly (string | Uint8Array)[])[]): string {
  const hash = createHash('sha256');
  for (const list of lists) {
    hash.update(`${list.length};`);
    for (const part of list) hash.update(`${Buffer.byteLength(part)}:`).update(part);
  }
  return hash.digest('hex');
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}
