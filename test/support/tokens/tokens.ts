/** JWT-SVIDs made by hand, good ones and others, and the JWKS that go with them. */
import { constants, createHmac, generateKeyPairSync, sign, type KeyObject } from 'node:crypto';

export type Json = Readonly<Record<string, unknown>>;
export type Signer = (data: Buffer) => Buffer;

export interface TestKey {
  readonly kid: string;
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}

export const SUBJECT = 'spiffe://example.org/web';
export const AUDIENCE = 'api';

type Kind = 'rsa' | 'P-256' | 'P-384' | 'P-521' | 'ed25519';

/** A key pair, of P-256 unless another kind is named. */
export function testKey(kid: string, kind: Kind = 'P-256'): TestKey {
  const pair =
    kind === 'rsa'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : kind === 'ed25519'
        ? generateKeyPairSync('ed25519')
        : generateKeyPairSync('ec', { namedCurve: kind });
  return { kid, ...pair };
}

/** One element of a JWKS. */
export function jwk({ kid, publicKey }: TestKey, changes: Json = {}): Json {
  return { ...(publicKey.export({ format: 'jwk' }) as Json), kid, use: 'jwt-svid', ...changes };
}

export function jwks(...elements: readonly Json[]): string {
  return JSON.stringify({ keys: elements });
}

/** How each of the nine algorithms, and some that are none of them, signs. */
export function signer(alg: string, { privateKey: key }: TestKey): Signer {
  const hash = `sha${alg.slice(2)}`;
  switch (alg.slice(0, 2)) {
    case 'RS':
      return (data) => sign(hash, data, key);
    case 'PS':
      return (data) => sign(hash, data, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST });
    case 'ES':
      return (data) => sign(hash, data, { key, dsaEncoding: 'ieee-p1363' });
    default:
      return (data) => sign(null, data, key);
  }
}

export function hmac(alg: string, secret: string | Buffer): Signer {
  return (data) =>
    createHmac(`sha${alg.slice(2)}`, secret)
      .update(data)
      .digest();
}

export const base64url = (text: string | Uint8Array): string => Buffer.from(text).toString('base64url');

/** A token of any two texts. */
export function sealed(header: string, claims: string, signed: Signer): string {
  const body = `${base64url(header)}.${base64url(claims)}`;
  return `${body}.${base64url(signed(Buffer.from(body)))}`;
}

export interface TokenOptions {
  readonly key: TestKey;
  /** ES256 if left out. */
  readonly alg?: string;
  /** In place of what a good one has; undefined leaves a member out. */
  readonly header?: Json;
  readonly claims?: Json;
  readonly nowMs?: number;
  readonly signer?: Signer;
}

/** A good token that lives five minutes, but for the changes. */
export function token({ key, alg = 'ES256', header, claims, nowMs = Date.now(), signer: by }: TokenOptions): string {
  const now = Math.floor(nowMs / 1000);
  return sealed(
    JSON.stringify({ alg, kid: key.kid, typ: 'JWT', ...header }),
    JSON.stringify({ sub: SUBJECT, aud: [AUDIENCE], exp: now + 300, iat: now, ...claims }),
    by ?? signer(alg, key),
  );
}
