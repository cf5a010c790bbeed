/** What files a snapshot makes. Pure: nothing is written here, and the same goes in and comes out. */
import { createHash, type KeyObject } from 'node:crypto';
import { splitName, type FileSetConfig, type JwtFileConfig } from '../config/file-sets.ts';
import { chooseSvid, type IdentitySnapshot } from '../identity/snapshot.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { writeBundleDocument, writeJwtKeys } from '../spiffe/bundle-document.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { JwtBundles } from '../spiffe/jwt-bundle.ts';
import { toPem } from '../spiffe/x509/pem.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { CredentialProblem } from '../telemetry/log/credential-records.ts';
import type { SetProblem } from '../telemetry/log/files-records.ts';

/** A file of a set. */
export interface SetFile {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** It has a private key or a token. */
  readonly isSecret: boolean;
}

/** A JWT-SVID that is held for a file, as whoever keeps it shows it. */
export interface HeldJwt {
  /** One that is valid now, the same object for as long as it is the same token; undefined: there is none. */
  current(): { readonly value: string; readonly expiresAtMs: number } | undefined;
  /** Why the last one could not be fetched; undefined if it could. */
  readonly problem: CredentialProblem | undefined;
}

/** What is to be written, before any format: the certificates, by whose they are. */
export interface SetMaterial {
  readonly svid: X509Svid;
  readonly trustDomain: TrustDomain;
  /** Leaf first; empty where no X.509 is written. */
  readonly chain: readonly Certificate[];
  /** In the order in which they are written: each file of authorities, ours first. */
  readonly bundles: readonly { readonly name: string; readonly authorities: readonly Certificate[] }[];
  /** What is the same in every format, behind the bundles: the bundle map, JWT bundles, tokens. */
  readonly texts: readonly SetFile[];
  /** What of it expires first. Wall time, milliseconds since 1970; Infinity if nothing does. */
  readonly expires: { readonly name: string; readonly atMs: number };
  /** Equal for what makes the same files. */
  readonly fingerprint: string;
  /** Wall time, milliseconds since 1970, from which the same snapshot makes other files; Infinity if time alone changes nothing. */
  readonly changesAtMs: number;
  /** Sentences for the log: what is not written. */
  readonly notes: readonly string[];
}

export interface EncodeProblem {
  readonly reason: SetProblem;
  /** Nothing has gone wrong: what is missing is still to come for the first time. */
  readonly isEarly?: boolean;
  /** A sentence; never key material. */
  readonly detail: string;
}

/** No file system has longer ones. */
const MAX_NAME_BYTES = 255;

/** What `config` asks for of `snapshot`, and of `tokens`, which are held for its `jwtSvids` in their order. `nowMs` is wall time. */
export function materialOf(
  snapshot: IdentitySnapshot | undefined,
  config: FileSetConfig,
  tokens: readonly HeldJwt[],
  nowMs: number,
): Result<SetMaterial, EncodeProblem> {
  const svid = chooseSvid(snapshot, config.identity);
  if (snapshot === undefined || svid === undefined)
    return err({ reason: 'no_svid', detail: whyNone(snapshot, config), isEarly: snapshot === undefined });
  const { names } = config;
  const trustDomain = trustDomainOf(svid.id);
  const notes: string[] = [];
  let changesAtMs = Infinity;
  const inForce = (authorities: readonly Certificate[]): readonly Certificate[] => {
    if (!config.omitExpired) return authorities;
    const valid = authorities.filter(({ notAfterMs }) => nowMs <= notAfterMs);
    for (const { notAfterMs } of valid) changesAtMs = Math.min(changesAtMs, notAfterMs + 1);
    return valid;
  };
  /** The file of `domain` beside that of our trust domain; undefined, with a note, if no file can be called so. */
  const fileOf = (domain: TrustDomain, own: string): string | undefined => {
    const { stem, extension } = splitName(own);
    const name = `${stem}.${domain}${extension}`;
    // A partner chose its name; that must not keep ours from being written.
    if (Buffer.byteLength(name) <= MAX_NAME_BYTES) return name;
    const where = names.bundleMap === undefined ? '' : `, and is in ${names.bundleMap} alone`;
    notes.push(`the bundle of ${domain} has too long a name for a file${where}`);
    return undefined;
  };
  const ours = inForce(snapshot.bundles.get(trustDomain)?.authorities ?? []);
  const others = [...snapshot.bundles]
    .filter(([domain]) => domain !== trustDomain)
    .toSorted(byName)
    .map(([domain, bundle]) => ({ domain, authorities: inForce(bundle.authorities) }));

  const above = config.addIntermediatesToBundle ? svid.chain.slice(1) : [];
  const own = [...above, ...ours];
  const bundles: { readonly name: string; readonly authorities: readonly Certificate[] }[] = [];
  if (names.bundle !== undefined) {
    const authorities = config.mergedBundle ? unique([own, ...others.map((each) => each.authorities)].flat()) : own;
    bundles.push({ name: names.bundle, authorities });
    for (const each of config.mergedBundle || config.ownBundleOnly ? [] : others) {
      const name = fileOf(each.domain, names.bundle);
      if (name !== undefined) bundles.push({ name, authorities: each.authorities });
    }
  }
  const texts: SetFile[] = [];
  const jwtBundles = names.jwtBundle === undefined ? undefined : snapshot.jwtBundles;
  if (names.bundleMap !== undefined) {
    const trusted = new Map([[trustDomain, ours], ...others.map(({ domain, authorities }) => [domain, authorities] as const)]);
    texts.push(textFile(names.bundleMap, writeBundleMap(snapshot, trusted, jwtBundles)));
  }
  if (names.jwtBundle !== undefined) {
    if (jwtBundles === undefined)
      return err({ reason: 'no_jwt_bundle', detail: 'no JWT bundles have come from the Workload API yet', isEarly: true });
    if (config.jwtBundles === 'spiffe-helper') texts.push(textFile(names.jwtBundle, writeAllJwtBundles(jwtBundles)));
    else {
      if (!jwtBundles.has(trustDomain))
        return err({ reason: 'no_jwt_bundle', detail: `the Workload API gives no JWT bundle of ${trustDomain}` });
      for (const [domain, bundle] of [...jwtBundles].toSorted(byName)) {
        const name = domain === trustDomain ? names.jwtBundle : fileOf(domain, names.jwtBundle);
        if (name !== undefined) texts.push(textFile(name, `${JSON.stringify({ keys: writeJwtKeys(bundle.authorities) })}\n`));
      }
    }
  }
  let expires = { name: names.svid ?? '', atMs: names.svid === undefined ? Infinity : (svid.chain[0]?.notAfterMs ?? Infinity) };
  for (const [index, file] of config.jwtSvids.entries()) {
    const held = tokens[index];
    const token = held?.current();
    if (token === undefined) return err(whyNoToken(file, held?.problem));
    texts.push({ name: file.fileName, bytes: Buffer.from(token.value), isSecret: true });
    if (token.expiresAtMs < expires.atMs) expires = { name: file.fileName, atMs: token.expiresAtMs };
  }
  const leaves = names.svid === undefined ? [] : svid.chain;
  const chain = config.addIntermediatesToBundle ? leaves.slice(0, 1) : leaves;
  const digest = createHash('sha256').update(svid.id);
  for (const { name, bytes } of texts) digest.update(`\ntext ${name} ${bytes.length}\n`).update(bytes);
  for (const { sha256 } of chain) digest.update(`svid ${sha256}\n`);
  for (const { name, authorities } of bundles) digest.update([`bundle ${name}`, ...authorities.map(({ sha256 }) => sha256), ''].join('\n'));
  return ok({ svid, trustDomain, chain, bundles, texts, expires, fingerprint: digest.digest('hex'), changesAtMs, notes });
}

function textFile(name: string, text: string): SetFile {
  return { name, bytes: Buffer.from(text), isSecret: false };
}

function byName([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}

function whyNoToken({ fileName, audience }: JwtFileConfig, problem: CredentialProblem | undefined): EncodeProblem {
  const why = problem === undefined ? 'the one that was held has expired' : `${problem.reason}: ${problem.detail}`;
  // That is what is said of it until the agent was asked for the first time.
  const isEarly = problem?.reason === 'identity_not_ready';
  return { reason: 'no_token', detail: `there is no valid JWT-SVID for ${audience.join(' ')} (${fileName}): ${why}`, isEarly };
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
function writeBundleMap(
  { bundles }: IdentitySnapshot,
  trusted: ReadonlyMap<TrustDomain, readonly Certificate[]>,
  jwtBundles: JwtBundles | undefined,
): string {
  const domains = [...new Set([...trusted.keys(), ...(jwtBundles?.keys() ?? [])])];
  const entries = domains.flatMap((domain) => {
    const [bundle, jwt] = [bundles.get(domain), jwtBundles?.get(domain)];
    if (bundle === undefined && jwt === undefined) return [];
    const { keys } =
      bundle === undefined
        ? { keys: [] }
        : (JSON.parse(writeBundleDocument({ ...bundle, authorities: trusted.get(domain) ?? [] }, 1n, 0)) as { readonly keys: object[] });
    const forTokens = writeJwtKeys(jwt?.authorities ?? []).map((key) => ({ ...key, use: 'jwt-svid' }));
    return [[domain, { keys: [...keys, ...forTokens] }] as const];
  });
  return `${JSON.stringify({ trust_domains: Object.fromEntries(entries) })}\n`;
}

/** `{NAME: JWKS in base64}`: what spiffe-helper makes of them. */
function writeAllJwtBundles(bundles: JwtBundles): string {
  const entries = [...bundles]
    .toSorted(byName)
    .map(([domain, { authorities }]) => [domain, Buffer.from(JSON.stringify({ keys: writeJwtKeys(authorities) })).toString('base64')]);
  return JSON.stringify(Object.fromEntries(entries));
}

/** The files of a set in PEM or DER. PKCS#12 is `pkcs12.ts`'s. */
export function plainFiles({ svid, chain, bundles, texts }: SetMaterial, config: FileSetConfig): Result<readonly SetFile[], EncodeProblem> {
  const { names, combined, keyFormat } = config;
  const format = config.format === 'der' ? 'der' : 'pem';
  const certificates = (list: readonly Certificate[]): Uint8Array =>
    format === 'pem' ? Buffer.from(list.map((each) => toPem(each.der())).join('')) : Buffer.concat(list.map((each) => each.der()));
  const files = [...bundles.map(({ name, authorities }) => ({ name, bytes: certificates(authorities), isSecret: false })), ...texts];
  if (names.svid === undefined) return ok(files);
  const key = exportKey(svid.key, keyFormat, format);
  if (key === undefined)
    return err({
      reason: 'key_format',
      detail: `the key of ${svid.id} is ${svid.key.asymmetricKeyType ?? 'unknown'}, which ${keyFormat} is not for`,
    });
  const written = certificates(chain);
  return ok([
    ...files,
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
