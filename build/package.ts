/** `npm run package`: the npm package, as a folder (`dist/`) and packed, `dist/scute-VERSION.tgz`. It publishes nothing. */
import { execFile } from 'node:child_process';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { BESIDE, buildBundle, START } from '../test/support/build.ts';
import { licencesText, shippedPackages, type ShippedPackage } from './licences.ts';

const root = join(import.meta.dirname, '..');
const run = promisify(execFile);

/** What `exports` gives to who validates a configuration, or what the API answers. */
const SCHEMAS = ['scute', 'api', 'fleet-api'].map((name) => `${name}.schema.json`);
const CODE = [START, 'scute.js', ...BESIDE, 'openssl.cnf'];

export interface PackageFolder {
  readonly folder: string;
  readonly version: string;
  /** Whose code is in it. */
  readonly packages: readonly ShippedPackage[];
}

/** Makes the folder that npm packs: bundles without dependencies, and a manifest of its own. */
export async function buildPackage(folder = join(root, 'dist')): Promise<PackageFolder> {
  const { inputs } = await buildBundle(join(folder, 'scute.js'));
  const packages = await shippedPackages(root, inputs);
  const project = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as ProjectManifest;
  await copyFile(join(root, 'deploy/openssl.cnf'), join(folder, 'openssl.cnf'));
  await copyFile(join(root, 'LICENSE'), join(folder, 'LICENSE'));
  await copyFile(join(root, 'CHANGELOG.md'), join(folder, 'CHANGELOG.md'));
  await copyFile(join(import.meta.dirname, 'npm/README.md'), join(folder, 'README.md'));
  for (const schema of SCHEMAS) await copyFile(join(root, 'configs', schema), join(folder, schema));
  await writeFile(join(folder, 'LICENCES.txt'), licencesText(packages));
  await writeFile(join(folder, 'package.json'), `${JSON.stringify(manifest(project), undefined, 2)}\n`);
  return { folder, version: project.version, packages };
}

/** Packs a folder that `buildPackage` made, into `into`; resolves to the file. */
export async function pack({ folder, version }: PackageFolder, into: string): Promise<string> {
  // No script of a package runs, and there is none.
  await run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', into], { cwd: folder });
  return join(into, `scute-${version}.tgz`);
}

interface ProjectManifest {
  readonly version: string;
  readonly description: string;
  readonly license: string;
  readonly engines: { readonly node: string };
}

/** Of the package: what is needed is in it, so it has no dependencies, and nothing runs when it is installed. */
function manifest({ version, description, license, engines }: ProjectManifest): object {
  return {
    name: 'scute',
    version,
    description,
    keywords: ['spiffe', 'spire', 'mtls', 'sidecar', 'proxy', 'svid', 'sds'],
    license,
    type: 'module',
    engines,
    os: ['!win32'],
    bin: { scute: START },
    exports: Object.fromEntries([...SCHEMAS, 'package.json'].map((file) => [`./${file}`, `./${file}`])),
    files: [...CODE, ...SCHEMAS, 'LICENCES.txt', 'CHANGELOG.md'],
  };
}

if (import.meta.main) {
  const made = await buildPackage();
  process.stdout.write(`${await pack(made, made.folder)}: code of ${made.packages.length} packages in it\n`);
}
