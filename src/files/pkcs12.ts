/** Key stores and trust stores in PKCS#12 (RFC 7292), as Java and OpenSSL read them. Loaded when a set asks for it: its packages are large. */
import { BmpString, ObjectIdentifier, OctetString } from 'asn1js';
import * as pkijs from 'pkijs';
import type { FileNames } from '../config/file-sets.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { SetFile, SetMaterial } from './encode.ts';

/**
 * PBES2 of PBKDF2 with HMAC-SHA-256 and AES-256-CBC; the MAC of the whole likewise with SHA-256. As many times as OpenSSL: more would hold others up, and
 * whoever may read the store may read the password.
 */
const ITERATIONS = 2048;
const ENCRYPTION = {
  contentEncryptionAlgorithm: { name: 'AES-CBC', length: 256 },
  hmacHashAlgorithm: 'SHA-256',
  iterationCount: ITERATIONS,
};

const KEY_BAG = '1.2.840.113549.1.12.10.1.2';
const CERTIFICATE_BAG = '1.2.840.113549.1.12.10.1.3';
const FRIENDLY_NAME = '1.2.840.113549.1.9.20';
const LOCAL_KEY_ID = '1.2.840.113549.1.9.21';
/** Java takes no certificate for trusted that does not say so (`trustedKeyUsage`). */
const TRUSTED_KEY_USAGE = '2.16.840.1.113894.746875.1.1';
const ANY_EXTENDED_KEY_USAGE = '2.5.29.37.0';

/** What the key is called in a key store. */
const ALIAS = 'svid';

/** The files of a set: a key store, a trust store for each bundle, and what has no format. `password` is ASCII. */
export async function storeFiles(
  { svid, chain, bundles, texts }: SetMaterial,
  names: FileNames,
  password: string,
): Promise<readonly SetFile[]> {
  const files: SetFile[] = [];
  for (const { name, authorities } of bundles) files.push({ name, bytes: await trustStore(authorities, password), isSecret: false });
  files.push(...texts);
  if (names.svid !== undefined) files.push({ name: names.svid, bytes: await keyStore(svid, chain, password), isSecret: true });
  return files;
}

/** A key store: the key, and the chain with it. `password` is ASCII. */
function keyStore(svid: X509Svid, chain: readonly Certificate[], password: string): Promise<Uint8Array> {
  const key = new pkijs.PKCS8ShroudedKeyBag({
    parsedValue: pkijs.PrivateKeyInfo.fromBER(svid.key.export({ type: 'pkcs8', format: 'der' })),
  });
  const id = attribute(LOCAL_KEY_ID, new OctetString({ valueHex: new Uint8Array(Buffer.from(chain[0]?.sha256 ?? '', 'hex')) }));
  const keyBag = new pkijs.SafeBag({ bagId: KEY_BAG, bagValue: key, bagAttributes: [named(ALIAS), id] });
  const certificates = chain.map((certificate, index) => certificateBag(certificate, index === 0 ? [named(ALIAS), id] : []));
  return store([keyBag], certificates, password, () => key.makeInternalValues({ ...ENCRYPTION, password: bytesOf(password) }));
}

/** A trust store: each certificate is trusted, and called by its fingerprint. */
function trustStore(authorities: readonly Certificate[], password: string): Promise<Uint8Array> {
  const trusted = attribute(TRUSTED_KEY_USAGE, new ObjectIdentifier({ value: ANY_EXTENDED_KEY_USAGE }));
  return store(
    [],
    authorities.map((certificate) => certificateBag(certificate, [named(certificate.sha256), trusted])),
    password,
  );
}

async function store(
  keys: readonly pkijs.SafeBag[],
  certificates: readonly pkijs.SafeBag[],
  password: string,
  encryptKeys: () => Promise<void> = () => Promise.resolve(),
): Promise<Uint8Array> {
  await encryptKeys();
  const contents = (safeBags: readonly pkijs.SafeBag[]) => new pkijs.SafeContents({ safeBags: [...safeBags] });
  // Keys are encrypted one by one, certificates all together.
  const parts = [
    { privacyMode: 0, value: contents(keys), parameters: {} },
    { privacyMode: 1, value: contents(certificates), parameters: { ...ENCRYPTION, password: bytesOf(password) } },
  ].slice(keys.length === 0 ? 1 : 0);
  const authenticatedSafe = new pkijs.AuthenticatedSafe({
    parsedValue: { safeContents: parts.map(({ privacyMode, value }) => ({ privacyMode, value })) },
  });
  const pfx = new pkijs.PFX({ parsedValue: { integrityMode: 0, authenticatedSafe } });
  await authenticatedSafe.makeInternalValues({ safeContents: parts.map(({ parameters }) => parameters) });
  await pfx.makeInternalValues({
    password: bytesOf(password),
    iterations: ITERATIONS,
    pbkdf2HashAlgorithm: 'SHA-256',
    hmacHashAlgorithm: 'SHA-256',
  });
  return new Uint8Array(pfx.toSchema().toBER());
}

function certificateBag(certificate: Certificate, bagAttributes: pkijs.Attribute[]): pkijs.SafeBag {
  const bagValue = new pkijs.CertBag({ parsedValue: pkijs.Certificate.fromBER(certificate.der()) });
  return new pkijs.SafeBag({ bagId: CERTIFICATE_BAG, bagValue, bagAttributes });
}

function attribute(type: string, value: unknown): pkijs.Attribute {
  return new pkijs.Attribute({ type, values: [value] });
}

function named(name: string): pkijs.Attribute {
  return attribute(FRIENDLY_NAME, new BmpString({ value: name }));
}

/** Of ASCII, which both ways to make a key of a password read alike. */
function bytesOf(password: string): ArrayBuffer {
  return new TextEncoder().encode(password).buffer;
}
