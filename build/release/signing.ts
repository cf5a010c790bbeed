/** Signatures by a key in a file: ECDSA on P-256 with SHA-256, which OpenSSL and cosign verify as well. */
import { createPrivateKey, createPublicKey, hash, sign, verify, type KeyObject } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';

const IN_TOTO = 'application/vnd.in-toto+json';
/** Others than its owner may do something with the file. */
const OF_OTHERS = 0o077;

/** Throws, with what is wrong, for a key that others may read or that is of another kind. */
export async function readSigningKey(file: string): Promise<KeyObject> {
  const { mode } = await stat(file);
  if ((mode & OF_OTHERS) !== 0) throw new Error(`${file} may be read or written by others: chmod 600`);
  let key: KeyObject;
  try {
    key = createPrivateKey(await readFile(file));
  } catch (cause) {
    throw new Error(`${file} is no private key in PEM without a passphrase`, { cause });
  }
  return onP256(key, file);
}

export async function readVerifyingKey(file: string): Promise<KeyObject> {
  try {
    return onP256(createPublicKey(await readFile(file)), file);
  } catch (cause) {
    throw new Error(`${file} is no public key in PEM on P-256`, { cause });
  }
}

function onP256(key: KeyObject, file: string): KeyObject {
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw new Error(`${file} is no key on P-256: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`);
  return key;
}

/** In base64, of DER. */
export function signText(key: KeyObject, text: string | Buffer): string {
  return sign('sha256', Buffer.from(text), key).toString('base64');
}

export function isSignedBy(key: KeyObject, text: string | Buffer, signature: string): boolean {
  return verify('sha256', Buffer.from(text), key, Buffer.from(signature.trim(), 'base64'));
}

/** The SHA-256 of the public key. */
function keyId(key: KeyObject): string {
  const open = key.type === 'private' ? createPublicKey(key) : key;
  return hash('sha256', open.export({ type: 'spki', format: 'der' }));
}

interface Envelope {
  readonly payloadType: string;
  readonly payload: string;
  readonly signatures: readonly { readonly keyid: string; readonly sig: string }[];
}

/** A statement of in-toto in an envelope of DSSE 1.0, one line. */
export function envelope(key: KeyObject, statement: string): string {
  const sig = signText(key, preAuthenticated(statement));
  const whole: Envelope = {
    payloadType: IN_TOTO,
    payload: Buffer.from(statement).toString('base64'),
    signatures: [{ keyid: keyId(key), sig }],
  };
  return `${JSON.stringify(whole)}\n`;
}

/** The statement in an envelope. Throws when `key` did not sign it. */
export function openEnvelope(key: KeyObject, text: string): string {
  const { payloadType, payload, signatures } = JSON.parse(text) as Envelope;
  const statement = Buffer.from(payload, 'base64').toString();
  if (payloadType !== IN_TOTO || !signatures.some(({ sig }) => isSignedBy(key, preAuthenticated(statement), sig)))
    throw new Error('the envelope of the provenance is not signed by this key');
  return statement;
}

/** What DSSE signs, so that a payload of one type is none of another. */
function preAuthenticated(statement: string): string {
  return `DSSEv1 ${IN_TOTO.length} ${IN_TOTO} ${Buffer.byteLength(statement)} ${statement}`;
}
