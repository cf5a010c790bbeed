/** The files that the configuration of federation names: read whole, bounded. */
import { open } from 'node:fs/promises';
import { messageOf, ScuteError } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { parseBundleDocument } from '../spiffe/bundle-document.ts';
import { parseCertificate, type Certificate } from '../spiffe/x509/certificate.ts';
import { fromPem } from '../spiffe/x509/pem.ts';

/** A file that the configuration of federation names cannot be used. */
export class FederationFileError extends ScuteError {
  override name = 'FederationFileError';
  readonly code = 'ERR_FEDERATION_FILE';
}

export const MAX_FILE_BYTES = 4_194_304;

/** The bytes of `file`, or a sentence that names it. */
export async function readBounded(file: string): Promise<Result<Buffer, string>> {
  try {
    await using handle = await open(file, 'r');
    const bytes = Buffer.alloc(MAX_FILE_BYTES + 1);
    let length = 0;
    while (length < bytes.length) {
      const { bytesRead } = await handle.read(bytes, length, bytes.length - length, null);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return length > MAX_FILE_BYTES ? err(`${file} is larger than ${MAX_FILE_BYTES} bytes`) : ok(bytes.subarray(0, length));
  } catch (cause) {
    return err(`${file} cannot be read: ${messageOf(cause)}`);
  }
}

/** The X.509 authorities of a bundle in a file: a SPIFFE bundle, or certificates in PEM. At least one. */
export async function readAuthorities(file: string): Promise<Result<readonly Certificate[], string>> {
  const read = await readBounded(file);
  if (!read.ok) return read;
  const found = read.value.includes('-----BEGIN ') ? certificatesOf(read.value.toString('latin1')) : bundleOf(read.value);
  if (!found.ok) return err(`${file}: ${found.error}`);
  return found.value.length === 0 ? err(`${file} has no X.509 authority`) : found;
}

function bundleOf(bytes: Uint8Array): Result<readonly Certificate[], string> {
  const document = parseBundleDocument(bytes);
  return document.ok ? ok(document.value.authorities) : err(document.error.message);
}

function certificatesOf(text: string): Result<readonly Certificate[], string> {
  const certificates: Certificate[] = [];
  for (const [index, der] of fromPem(text).entries()) {
    const parsed = der === undefined ? err('not base64') : parseCertificate(der);
    if (!parsed.ok) return err(`certificate ${index + 1}: ${parsed.error}`);
    certificates.push(parsed.value);
  }
  return ok(certificates);
}
