/** `node build/release/publish.ts FOLDER KEY REPOSITORY`: pushes the image of a release that was made before; `npm run release -- --publish` does the same. */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { join } from 'node:path';
import type { Statement } from './provenance.ts';
import { publishArchive } from './registry.ts';
import { readSigningKey } from './signing.ts';
import { verifyRelease } from './verify.ts';

/**
 * Pushes the image of the release in `folder` to `repository` (`HOST[:PORT]/PATH`), signed by `key`. Resolves to its digest, `sha256:…`. Throws,
 * and pushes nothing, unless the folder is all that was signed with this key, and no other: somebody may have changed a file since.
 */
export async function publishRelease(folder: string, repository: string, key: KeyObject): Promise<string> {
  const { statement, envelope } = await verifyRelease(folder, createPublicKey(key));
  const { subject, predicate } = JSON.parse(statement) as Statement;
  const image = subject.find(({ name }) => name === 'image');
  if (image === undefined) throw new Error(`${folder} is a release without an image`);
  const { version } = predicate.buildDefinition.externalParameters;
  // By the digest that was signed: the file is read once more, and may be another by then.
  const digest = `sha256:${image.digest.sha256}`;
  await publishArchive(join(folder, `scute-${version}-image.tar`), repository, { tag: version, digest, key, provenance: envelope });
  return digest;
}

if (import.meta.main) {
  const [folder = '', key = '', repository = ''] = process.argv.slice(2);
  try {
    process.stdout.write(`${repository}@${await publishRelease(folder, repository, await readSigningKey(key))}\n`);
  } catch (cause) {
    process.stderr.write(`${folder} is not published: ${cause instanceof Error ? cause.message : String(cause)}\n`);
    process.exitCode = 1;
  }
}
