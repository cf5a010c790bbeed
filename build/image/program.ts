/** The program's folder in the image: what the launcher starts, and all that it compares. */
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BESIDE, buildBundle } from '../../test/support/build.ts';
import { bundleScript, writeProgram } from '../code-cache/code-cache.ts';
import { sha256Of } from './debian.ts';

/** OpenSSL reads them before any of Scute's code runs. */
const SETTINGS = 'openssl.cnf';

/**
 * Writes it to `folder`, which is there, with V8's code cache for the Node that `node` starts (as for `writeProgram`). Resolves to the files that it
 * was made of.
 */
export async function writeImageProgram(folder: string, node: readonly [string, ...string[]]): Promise<readonly string[]> {
  const made = await mkdtemp(join(tmpdir(), 'scute-image-'));
  try {
    const { path, inputs } = await buildBundle(join(made, 'scute.js'), { sourceMap: true });
    for (const name of BESIDE) await copyFile(join(made, name), join(folder, name));
    await copyFile(join(import.meta.dirname, '../../deploy', SETTINGS), join(folder, SETTINGS));
    const digest = await writeProgram(path, folder, node);
    const digests = [SETTINGS, ...BESIDE].map(async (name) => [name, await sha256Of(join(folder, name))] as const);
    const constants = { SCUTE_DIGEST: digest, SCUTE_BESIDE: Object.fromEntries(await Promise.all(digests)) };
    await bundleScript(join(import.meta.dirname, 'launch.ts'), join(folder, 'launch.cjs'), constants);
    return inputs;
  } finally {
    await rm(made, { recursive: true, force: true });
  }
}
