import type { KeyObject } from 'node:crypto';
import { trustDomainId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { createKeyPair, keyIdentifier, type KeyPair, type KeyType } from '../spiffe/key-pair.ts';
import {
  type CertificateSpec,
  type DistinguishedName,
  type ExtendedKeyUsage,
  type ExtensionSpec,
  type KeyUsage,
  randomSerial,
  toPem,
  writeCertificate,
  writeCrl,
} from '../spiffe/x509-writer.ts';

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
  revocationList(options: RevocationListOptions): Uint8Array;
}

export interface AuthorityOptions {
  readonly trustDomain: TrustDomain;
  readonly keyType: KeyType;
  readonly intermediates: number;
  readonly lifeMs: number;
  readonly nowMs: number;
}

/** What a leaf should be. The defaults make a correct X509-SVID; tests set the rest to make a wrong one. */
export interface LeafRequest {
  /** Goes into the certificate as it is: not checked. */
  readonly id: string;
  readonly keyType: KeyType;
  readonly lifeMs: number;
  readonly nowMs: number;
  readonly dnsNames?: readonly string[] | undefined;
  readonly subject?: DistinguishedName | undefined;
  /** Instead of `id` alone: none, several, or other URIs. */
  readonly uris?: readonly string[] | undefined;
  readonly notBeforeMs?: number | undefined;
  /** Cut to the authority's own end. */
  readonly notAfterMs?: number | undefined;
  readonly ca?: boolean | undefined;
  readonly keyUsage?: readonly KeyUsage[] | undefined;
  readonly extendedKeyUsage?: readonly ExtendedKeyUsage[] | undefined;
  readonly moreExtensions?: readonly ExtensionSpec[] | undefined;
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

interface Issuer {
  readonly name: DistinguishedName;
  readonly key: KeyPair;
  readonly der: Uint8Array;
  readonly notBeforeMs: number;
}

/** Clocks of two machines differ; a certificate that is seen to be not yet valid is a failure that nobody understands. */
const LEAF_BACKDATE_MS = 60_000;
const AUTHORITY_BACKDATE_MS = 3_600_000;
/** Every certificate says that it is not from a real authority. At most 64 characters (RFC 5280, appendix A.1). */
const ORGANIZATION = 'Scute development, never for production';
const LEAF_SUBJECT: DistinguishedName = [{ type: 'O', value: ORGANIZATION }];

/** Makes the keys and certificates of a new authority. */
export async function createAuthority(options: AuthorityOptions): Promise<Authority> {
  const { trustDomain, keyType, intermediates, lifeMs, nowMs } = options;
  const notBeforeMs = nowMs - AUTHORITY_BACKDATE_MS;
  const notAfterMs = wholeSeconds(nowMs + lifeMs);

  const createIssuer = async (role: string, pathLength: number | undefined, parent: Issuer | undefined): Promise<Issuer> => {
    const key = await createKeyPair(keyType);
    // The key identifier in the name keeps apart what came before a rotation and after it.
    const name: DistinguishedName = [
      { type: 'O', value: ORGANIZATION },
      { type: 'CN', value: `${role} ${Buffer.from(keyIdentifier(key.publicKey)).toString('hex', 0, 8)}` },
    ];
    const der = writeCertificate({
      subject: name,
      publicKey: key.publicKey,
      issuer: parent?.name ?? name,
      issuerKey: parent?.key ?? key,
      notBeforeMs,
      notAfterMs,
      uris: [trustDomainId(trustDomain)],
      basicConstraints: { ca: true, pathLength },
      keyUsage: ['keyCertSign', 'cRLSign'],
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
    async issue(request) {
      const key = await createKeyPair(request.keyType);
      const spec = leafSpec(request, { signer, publicKey: key.publicKey, latestMs: notAfterMs });
      return {
        id: request.id,
        key: key.privateKey,
        chainDer: [writeCertificate(spec), ...intermediatesDer],
        serial: spec.serial,
        notAfterMs: spec.notAfterMs,
      };
    },
    revocationList: ({ number, nowMs, lifeMs, revoked }) =>
      writeCrl({
        issuer: signer.name,
        issuerKey: signer.key,
        number,
        thisUpdateMs: nowMs - LEAF_BACKDATE_MS,
        nextUpdateMs: nowMs + lifeMs,
        revoked,
      }),
  };
}

/** The leaf and its intermediates, PEM. */
export function chainPem(svid: IssuedSvid): string {
  return svid.chainDer.map((der) => toPem(der)).join('');
}

/** X509-SVID standard, sections 2 to 4. */
function leafSpec(
  request: LeafRequest,
  by: { readonly signer: Issuer; readonly publicKey: KeyObject; readonly latestMs: number },
): CertificateSpec & { readonly serial: Uint8Array } {
  const { signer, publicKey, latestMs } = by;
  return {
    serial: randomSerial(),
    subject: request.subject ?? LEAF_SUBJECT,
    publicKey,
    issuer: signer.name,
    issuerKey: signer.key,
    notBeforeMs: request.notBeforeMs ?? Math.max(request.nowMs - LEAF_BACKDATE_MS, signer.notBeforeMs),
    notAfterMs: Math.min(wholeSeconds(request.notAfterMs ?? request.nowMs + request.lifeMs), latestMs),
    uris: request.uris ?? [request.id],
    dnsNames: request.dnsNames,
    basicConstraints: { ca: request.ca ?? false },
    keyUsage: request.keyUsage ?? ['digitalSignature'],
    extendedKeyUsage: request.extendedKeyUsage ?? ['serverAuth', 'clientAuth'],
    moreExtensions: request.moreExtensions,
  };
}

/** Certificates hold whole seconds; the end that we report is the one that is written. */
function wholeSeconds(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}
