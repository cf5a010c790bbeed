/** `npm run executable`: Scute as one file with Node in it, `dist/executable/scute`, for the processor of this machine. */
import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { BESIDE, buildBundle } from '../../test/support/build.ts';
import { bundleScript, writeProgram } from '../code-cache/code-cache.ts';
import { licencesText, shippedPackages } from '../licences.ts';

const root = join(import.meta.dirname, '..', '..');
const run = promisify(execFile);

/**
 * Writes the executable to `outfile`. The Node that runs this is the one within. Resolves to the licences of all whose code is in it, which
 * go with it wherever it goes.
 */
export async function buildExecutable(outfile: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-executable-'));
  const inside = (name: string): string => join(folder, name);
  try {
    const { path, inputs } = await buildBundle(inside('scute.js'), { sourceMap: true });
    await writeProgram(path, folder, [process.execPath]);
    await bundleScript(join(import.meta.dirname, 'launch.ts'), inside('launch.cjs'));
    const names = ['scute.cjs', 'scute.cache', ...BESIDE];
    const settings = {
      main: 'launch.cjs',
      output: 'scute',
      disableExperimentalSEAWarning: true,
      // Node takes no option from NODE_OPTIONS or the command line, so none can open the inspector. Scute refuses to start under the former all the same.
      // The second: Node does not read the public web's authorities at each start.
      execArgv: ['--disable-sigusr1', '--use-openssl-ca'],
      execArgvExtension: 'none',
      assets: Object.fromEntries(names.map((name) => [name, name])),
    };
    await writeFile(inside('executable.json'), JSON.stringify(settings));
    await run(process.execPath, ['--build-sea', 'executable.json'], { cwd: folder });
    await mkdir(dirname(outfile), { recursive: true });
    await rm(outfile, { force: true });
    await copyFile(inside('scute'), outfile);
    const ofNode = await readFile(join(root, `node_modules/node-linux-${process.arch}/LICENSE`), 'utf8');
    return `${licencesText(await shippedPackages(root, inputs))}\n${'='.repeat(80)}\nNode.js ${process.versions.node}\n\n${ofNode}`;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const file = join(root, 'dist/executable/scute');
  await writeFile(join(dirname(file), 'LICENCES.txt'), await buildExecutable(file));
  process.stdout.write(`${file}\n`);
}
