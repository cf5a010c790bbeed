/** What files a snapshot makes. Pure: nothing is written here, and the same goes in and comes out. */
import { createHash, type KeyObject } from 'node:crypto';
import { splitName, type FileSetConfig } from '../config/file-sets.ts';
import { chooseSvid, type IdentitySnapshot } from '../identity/snapshot.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { writeBundleDocument } from '../spiffe/bundle-document.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import { toPem } from '../spiffe/pem.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { SetProblem } from '../telemetry/log/files-records.ts';

/** A file of a set. */
export interface SetFile {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** It has a private key. */
  readonly isSecret: boolean;
}

/** What is to be written, before any format: the certificates, by whose they are. */
export interface SetMaterial {
  readonly svid: X509Svid;
  readonly trustDomain: TrustDomain;
  /** Leaf first. */
  readonly chain: readonly Certificate[];
  /** In the order in which they are written: each file of authorities, ours first. */
  readonly bundles: readonly { readonly name: string; readonly authorities: readonly Certificate[] }[];
  /** The bundle map, JSON. */
  readonly bundleMap: string;
  /** Equal for what makes the same files. */
  readonly fingerprint: string;
  /** Wall time, milliseconds since 1970, from which the same snapshot makes other files; Infinity if time alone changes nothing. */
  readonly changesAtMs: number;
  /** Sentences for the log: what is not written. */
  readonly notes: readonly string[];
}

export interface EncodeProblem {
  readonly reason: SetProblem;
  /** A sentence; never key material. */
  readonly detail: string;
}

/** No file system has longer ones. */
const MAX_NAME_BYTES = 255;

/** What `config` asks for of `snapshot`. `nowMs` is wall time. */
export function materialOf(
  snapshot: IdentitySnapshot | undefined,
  config: FileSetConfig,
  nowMs: number,
): Result<SetMaterial, EncodeProblem> {
  const svid = chooseSvid(snapshot, config.identity);
  if (snapshot === undefined || svid === undefined) return err({ reason: 'no_svid', detail: whyNone(snapshot, config) });
  const trustDomain = trustDomainOf(svid.id);
  const notes: string[] = [];
  let changesAtMs = Infinity;
  const inForce = (authorities: readonly Certificate[]): readonly Certificate[] => {
    if (!config.omitExpired) return authorities;
    const valid = authorities.filter(({ notAfterMs }) => nowMs <= notAfterMs);
    for (const { notAfterMs } of valid) changesAtMs = Math.min(changesAtMs, notAfterMs + 1);
    return valid;
  };
  const ours = inForce(snapshot.bundles.get(trustDomain)?.authorities ?? []);
  const others = [...snapshot.bundles]
    .filter(([domain]) => domain !== trustDomain)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([domain, bundle]) => ({ domain, authorities: inForce(bundle.authorities) }));

  const above = config.addIntermediatesToBundle ? svid.chain.slice(1) : [];
  const own = [...above, ...ours];
  const bundles = [
    { name: config.names.bundle, authorities: config.mergedBundle ? unique([own, ...others.map((each) => each.authorities)].flat()) : own },
  ];
  if (!config.mergedBundle && !config.ownBundleOnly) {
    const { stem, extension } = splitName(config.names.bundle);
    for (const { domain, authorities } of others) {
      const name = `${stem}.${domain}${extension}`;
      // A partner chose its name; that must not keep ours from being written.
      if (Buffer.byteLength(name) > MAX_NAME_BYTES)
        notes.push(`the bundle of ${domain} has too long a name for a file, and is in ${config.names.bundleMap} alone`);
      else bundles.push({ name, authorities });
    }
  }
  const trusted = new Map([[trustDomain, ours], ...others.map(({ domain, authorities }) => [domain, authorities] as const)]);
  const bundleMap = writeBundleMap(snapshot, trusted);
  const chain = config.addIntermediatesToBundle ? svid.chain.slice(0, 1) : svid.chain;
  const digest = createHash('sha256').update(bundleMap);
  for (const { sha256 } of chain) digest.update(`svid ${sha256}\n`);
  for (const { name, authorities } of bundles) digest.update([`bundle ${name}`, ...authorities.map(({ sha256 }) => sha256), ''].join('\n'));
  return ok({ svid, trustDomain, chain, bundles, bundleMap, fingerprint: digest.digest('hex'), changesAtMs, notes });
}

function whyNone(snapshot: IdentitySnapshot | undefined, { identity }: FileSetConfig): string {
  if (snapshot === undefined) return 'no identity has come yet';
  if (snapshot.kind === 'none') return `the Workload API gives no identity: ${snapshot.reason}`;
  return identity.by === 'default'
    ? 'there is no SVID'
    : `there is no SVID with ${identity.by === 'id' ? identity.id : `the hint ${JSON.stringify(identity.hint)}`}`;
}

function unique(certificates: readonly Certificate[]): readonly Certificate[] {
  return [...new Map(certificates.map((certificate) => [certificate.sha256, certificate])).values()];
}

/** `{"trust_domains": {NAME: BUNDLE}}`, with what each bundle has beyond sequence and refresh hint, which readers of a file have no use for. */
function writeBundleMap({ bundles }: IdentitySnapshot, trusted: ReadonlyMap<TrustDomain, readonly Certificate[]>): string {
  const entries = [...trusted].flatMap(([domain, authorities]) => {
    const bundle = bundles.get(domain);
    if (bundle === undefined) return [];
    const { keys } = JSON.parse(writeBundleDocument({ ...bundle, authorities }, 1n, 0)) as { readonly keys: unknown };
    return [[domain, { keys }] as const];
  });
  return `${JSON.stringify({ trust_domains: Object.fromEntries(entries) })}\n`;
}

/** The files of a set in PEM or DER. PKCS#12 is `pkcs12.ts`'s. */
export function plainFiles(
  { svid, chain, bundles, bundleMap }: SetMaterial,
  config: FileSetConfig,
): Result<readonly SetFile[], EncodeProblem> {
  const { names, combined, keyFormat } = config;
  const format = config.format === 'der' ? 'der' : 'pem';
  const certificates = (list: readonly Certificate[]): Uint8Array =>
    format === 'pem' ? Buffer.from(list.map((each) => toPem(each.der())).join('')) : Buffer.concat(list.map((each) => each.der()));
  const key = exportKey(svid.key, keyFormat, format);
  if (key === undefined)
    return err({
      reason: 'key_format',
      detail: `the key of ${svid.id} is ${svid.key.asymmetricKeyType ?? 'unknown'}, which ${keyFormat} is not for`,
    });
  const written = certificates(chain);
  return ok([
    ...bundles.map(({ name, authorities }) => ({ name, bytes: certificates(authorities), isSecret: false })),
    ...(names.bundleMap === undefined ? [] : [{ name: names.bundleMap, bytes: Buffer.from(bundleMap), isSecret: false }]),
    ...(names.key === undefined ? [] : [{ name: names.key, bytes: key, isSecret: true }]),
    { name: names.svid, bytes: combined ? Buffer.concat([key, written]) : written, isSecret: combined },
  ]);
}

/** Undefined if the key has no such form. */
function exportKey(key: KeyObject, type: FileSetConfig['keyFormat'], format: 'pem' | 'der'): Buffer | undefined {
  if (type !== 'pkcs8' && key.asymmetricKeyType !== (type === 'pkcs1' ? 'rsa' : 'ec')) return undefined;
  // The union of formats is none of the overloads.
  return format === 'pem' ? Buffer.from(key.export({ type, format })) : key.export({ type, format });
}
