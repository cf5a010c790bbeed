/** What is in the release, as CycloneDX 1.6. The packages of npm are listed by CycloneDX's own tool; Node, its parts and Debian's packages are added. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Lock } from '../image/debian.ts';
import type { LockedNode } from '../image/node.ts';
import type { ShippedPackage } from '../licences.ts';
import { npmInput } from './provenance.ts';

const run = promisify(execFile);
const MAX_BYTES = 2 ** 26;
/** Of `process.versions`: no parts of Node, but numbers of interfaces. */
const NO_PARTS = new Set(['node', 'modules', 'napi']);

export interface Component {
  readonly type: string;
  readonly 'bom-ref': string;
  readonly group?: string;
  readonly name: string;
  readonly version: string;
  readonly purl: string;
  readonly hashes?: readonly { readonly alg: string; readonly content: string }[];
  readonly components?: readonly Component[];
  readonly [more: string]: unknown;
}

export interface Dependency {
  readonly ref: string;
  readonly dependsOn?: readonly string[];
}

export interface Sbom {
  readonly metadata: { readonly component: { readonly 'bom-ref': string }; readonly [more: string]: unknown };
  readonly components: readonly Component[];
  readonly dependencies: readonly Dependency[];
  readonly [more: string]: unknown;
}

/** What CycloneDX's tool says of the project in `root`: all packages of the lock file. The tool is installed, by its own lock file. */
export async function listLocked(root: string): Promise<Sbom> {
  const folder = join(root, 'build/sbom');
  await run('npm', ['ci', '--ignore-scripts', '--omit=optional', '--omit=peer', '--no-audit', '--no-fund'], { cwd: folder });
  const options = ['--package-lock-only', '--flatten-components', '--output-reproducible', '--spec-version', '1.6', '--no-validate'];
  const tool = join(folder, 'node_modules/.bin/cyclonedx-npm');
  const { stdout } = await run(process.execPath, [tool, ...options], { cwd: root, maxBuffer: MAX_BYTES });
  return JSON.parse(stdout) as Sbom;
}

interface Shipped {
  readonly packages: readonly ShippedPackage[];
  /** For each processor for which something is shipped. */
  readonly nodes: readonly LockedNode[];
  /** Of Node's parts, `process.versions`, which are the same for each processor. */
  readonly versions: Readonly<Record<string, string | undefined>>;
  readonly debian: Lock | undefined;
}

/** Of `locked`, the packages whose code is shipped; and each Node with its parts, and Debian's packages. Throws for a package that is not locked. */
export function describeShipped(locked: Sbom, { packages, nodes, versions, debian }: Shipped): Sbom {
  const ofNpm = packages.map(({ name, version }) => {
    const found = locked.components.find((one) => one.version === version && fullName(one) === name);
    if (found === undefined) throw new Error(`${name} ${version} is shipped, and not in the lock file`);
    // All of them are shipped, whatever they were to who builds.
    return { ...found, scope: 'required', properties: [] };
  });
  const ofNode = nodes.map((node) => nodeComponent(node, versions));
  const ofDebian = debian === undefined ? [] : debianComponents(debian);
  const program = locked.metadata.component['bom-ref'];
  const kept = new Set(ofNpm.map((one) => one['bom-ref']));
  const within = (refs: readonly string[] = []): string[] => refs.filter((ref) => kept.has(ref));
  const ofThese = locked.dependencies
    .filter(({ ref }) => kept.has(ref))
    .map(({ ref, dependsOn }) => ({ ref, dependsOn: within(dependsOn) }));
  const shipped = [...kept, ...[...ofNode, ...ofDebian].map((one) => one['bom-ref'])];
  return {
    ...locked,
    components: [...ofNpm, ...ofNode, ...ofDebian],
    dependencies: [{ ref: program, dependsOn: shipped }, ...ofThese],
  };
}

function fullName({ group, name }: Component): string {
  return group === undefined || group === '' ? name : `${group}/${name}`;
}

/** The program is of a package of npm. Throws where `versions` are those of another. */
function nodeComponent({ name, version, integrity }: LockedNode, versions: Readonly<Record<string, string | undefined>>): Component {
  if (versions['node'] !== version) throw new Error(`${name} is ${version}, and the parts are those of ${versions['node']}`);
  const { uri: purl, digest } = npmInput(name, version, integrity);
  const parts = Object.entries(versions).flatMap(([part, ofPart]): Component[] => {
    if (NO_PARTS.has(part) || ofPart === undefined || ofPart === '') return [];
    const partPurl = `pkg:generic/${part}@${encodeURIComponent(ofPart)}`;
    return [{ type: 'library', 'bom-ref': `${purl}|${partPurl}`, name: part, version: ofPart, purl: partPurl }];
  });
  return {
    type: 'platform',
    'bom-ref': purl,
    name: 'node',
    version,
    purl,
    cpe: `cpe:2.3:a:nodejs:node.js:${version}:*:*:*:*:*:*:*`,
    hashes: [{ alg: 'SHA-512', content: digest.sha512 }],
    components: parts,
  };
}

function debianComponents({ suite, packages }: Lock): Component[] {
  return Object.entries(packages).flatMap(([name, { version, sha256 }]) =>
    Object.entries(sha256).map(([architecture, content]) => {
      const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${architecture}&distro=${suite}`;
      return { type: 'library', 'bom-ref': purl, name, version, purl, hashes: [{ alg: 'SHA-256', content }] };
    }),
  );
}
