import { type KeyObject, randomBytes } from 'node:crypto';
import { toPem } from '../spiffe/x509/pem.ts';
import { trustDomainId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { createKeyPair, type KeyType } from './key-pair.ts';
import { type CertificateIssuer, type DistinguishedName, keyIdentifier, writeCertificate, writeCrl } from './x509.ts';

/** A root of one trust domain, and below it the intermediates that sign for it. All in memory. */
export interface Authority {
  readonly trustDomain: TrustDomain;
  /** Self-signed, DER. */
  readonly rootDer: Uint8Array;
  /** The one that signs leaves first, the one that the root signed last; DER. */
  readonly intermediatesDer: readonly Uint8Array[];
  /** Nothing that it issues outlives this. */
  readonly notAfterMs: number;
  issue(request: LeafRequest): Promise<IssuedSvid>;
  /** The revocation list of whoever signs the leaves, DER. */
  revocationList(options: RevocationListOptions): Promise<Uint8Array>;
}

export interface AuthorityOptions {
  readonly trustDomain: TrustDomain;
  readonly keyType: KeyType;
  readonly intermediates: number;
  readonly lifeMs: number;
  readonly nowMs: number;
}

export interface LeafRequest {
  readonly id: string;
  readonly keyType: KeyType;
  /** Cut to the authority's own end. */
  readonly lifeMs: number;
  readonly nowMs: number;
  readonly dnsNames?: readonly string[] | undefined;
  readonly subject?: DistinguishedName | undefined;
}

export interface IssuedSvid {
  readonly id: string;
  readonly key: KeyObject;
  /** Leaf first, then intermediates; no root. DER. */
  readonly chainDer: readonly Uint8Array[];
  /** The leaf's, big-endian. */
  readonly serial: Uint8Array;
  readonly notAfterMs: number;
}

export interface RevocationListOptions {
  readonly number: number;
  readonly nowMs: number;
  readonly lifeMs: number;
  readonly revoked: readonly { readonly serial: Uint8Array; readonly atMs: number }[];
}

interface Issuer extends CertificateIssuer {
  readonly der: Uint8Array;
  readonly notBeforeMs: number;
}

/** Clocks of two machines differ; a certificate that is seen to be not yet valid is a failure that nobody understands. */
const LEAF_BACKDATE_MS = 60_000;
const AUTHORITY_BACKDATE_MS = 3_600_000;
/** Every certificate says that it is not from a real authority. At most 64 characters (RFC 5280, appendix A.1). */
const ORGANIZATION = 'Scute development, never for production';
const LEAF_SUBJECT: DistinguishedName = [{ O: ORGANIZATION }];

/** Makes the keys and certificates of a new authority. */
export async function createAuthority(options: AuthorityOptions): Promise<Authority> {
  const { trustDomain, keyType, intermediates, lifeMs, nowMs } = options;
  const notBeforeMs = nowMs - AUTHORITY_BACKDATE_MS;
  const notAfterMs = wholeSeconds(nowMs + lifeMs);

  const createIssuer = async (role: string, pathLength: number | undefined, parent: Issuer | undefined): Promise<Issuer> => {
    const key = await createKeyPair(keyType);
    // The key identifier in the name keeps apart what came before a rotation and after it.
    const name: DistinguishedName = [{ O: ORGANIZATION }, { CN: `${role} ${(await keyIdentifier(key.publicKey)).slice(0, 16)}` }];
    const der = await writeCertificate({
      serial: randomSerial(),
      subject: name,
      publicKey: key.publicKey,
      issuer: parent ?? { name, key },
      notBeforeMs,
      notAfterMs,
      uri: trustDomainId(trustDomain),
      dnsNames: [],
      authority: { pathLength },
    });
    return { name, key, der, notBeforeMs };
  };

  const root = await createIssuer('root', undefined, undefined);
  const below: Issuer[] = [];
  for (let depth = intermediates - 1; depth >= 0; depth -= 1) below.unshift(await createIssuer('intermediate', depth, below[0] ?? root));
  const signer = below[0] ?? root;
  const intermediatesDer = below.map(({ der }) => der);

  return {
    trustDomain,
    rootDer: root.der,
    intermediatesDer,
    notAfterMs,
    // X509-SVID standard, sections 2 to 4.
    async issue({ id, keyType: leafKeyType, lifeMs: leafLifeMs, nowMs: atMs, dnsNames = [], subject = LEAF_SUBJECT }) {
      const { privateKey, publicKey } = await createKeyPair(leafKeyType);
      const serial = randomSerial();
      const until = { notAfterMs: Math.min(wholeSeconds(atMs + leafLifeMs), notAfterMs) };
      const leaf = await writeCertificate({
        serial,
        subject,
        publicKey,
        issuer: signer,
        notBeforeMs: Math.max(atMs - LEAF_BACKDATE_MS, signer.notBeforeMs),
        ...until,
        uri: id,
        dnsNames,
        authority: undefined,
      });
      return { id, key: privateKey, chainDer: [leaf, ...intermediatesDer], serial, ...until };
    },
    revocationList: ({ number, nowMs: atMs, lifeMs: listLifeMs, revoked }) =>
      writeCrl({ issuer: signer, number, thisUpdateMs: atMs - LEAF_BACKDATE_MS, nextUpdateMs: atMs + listLifeMs, revoked }),
  };
}

/** The leaf and its intermediates, PEM. */
export function chainPem(svid: IssuedSvid): string {
  return svid.chainDer.map((der) => toPem(der)).join('');
}

/** Positive, with 128 random bits after a first byte that keeps all serial numbers of one length. */
function randomSerial(): Uint8Array {
  return Buffer.concat([Buffer.from([1]), randomBytes(16)]);
}

/** Certificates hold whole seconds; the end that we report is the one that is written. */
function wholeSeconds(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}
