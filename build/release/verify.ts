/** `node build/release/verify.ts FOLDER PUBLIC-KEY`: whether a folder is a release as the holder of the key made it. */
import { hash, type KeyObject } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ENVELOPE, PROVENANCE, SUMS, SUMS_SIGNATURE } from './names.ts';
import { isSignedBy, openEnvelope, readVerifyingKey } from './signing.ts';

const NOT_SUMMED = new Set([SUMS, SUMS_SIGNATURE, ENVELOPE]);

export interface Verified {
  /** Names of the files that were found good. */
  readonly files: readonly string[];
  /** What `provenance.json` says; and the same in its envelope. */
  readonly statement: string;
  readonly envelope: string;
}

/** Throws, with what is wrong. */
export async function verifyRelease(folder: string, key: KeyObject): Promise<Verified> {
  const read = (name: string): Promise<Buffer> => readFile(join(folder, name));
  const sums = await read(SUMS);
  if (!isSignedBy(key, sums, (await read(SUMS_SIGNATURE)).toString())) throw new Error(`${SUMS} is not signed by this key`);
  const digests = new Map([...sums.toString().matchAll(/^([0-9a-f]{64}) {2}(.+)$/gm)].map(([, digest, name = '']) => [name, digest]));
  for (const name of await readdir(folder)) if (!NOT_SUMMED.has(name) && !digests.has(name)) throw new Error(`${name} is not in ${SUMS}`);
  for (const [name, digest] of digests) {
    if (hash('sha256', await read(name)) !== digest) throw new Error(`${name} is not the file that was released: its SHA-256 is another`);
  }
  const envelope = (await read(ENVELOPE)).toString();
  const statement = openEnvelope(key, envelope);
  if (hash('sha256', statement) !== digests.get(PROVENANCE)) throw new Error(`${ENVELOPE} holds another statement than ${PROVENANCE}`);
  return { files: [...digests.keys()], statement, envelope };
}

if (import.meta.main) {
  const [folder = '', key = ''] = process.argv.slice(2);
  try {
    const { files } = await verifyRelease(folder, await readVerifyingKey(key));
    process.stdout.write(files.map((name) => `${name}: good\n`).join(''));
  } catch (cause) {
    process.stderr.write(`${folder} is no release by the holder of ${key}: ${cause instanceof Error ? cause.message : String(cause)}\n`);
    process.exitCode = 1;
  }
}
