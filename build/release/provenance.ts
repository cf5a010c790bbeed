/** What was made, from what: a statement of in-toto with a predicate of https://slsa.dev/provenance/v1. It claims no level of SLSA. */
import type { Lock } from '../image/debian.ts';
import type { LockedNode } from '../image/node.ts';

export interface Subject {
  readonly name: string;
  readonly digest: { readonly sha256: string };
}

/** A `ResourceDescriptor` of in-toto. */
export interface Input {
  readonly name?: string;
  /** A package URL. */
  readonly uri?: string;
  readonly digest: Readonly<Record<string, string>>;
}

export interface Facts {
  readonly commit: string;
  readonly version: string;
  readonly subjects: readonly Subject[];
  readonly inputs: readonly Input[];
  /** Programs that took part, by name. */
  readonly builder: Readonly<Record<string, string>>;
}

/** Of what is in JSON below, what is read again. */
export interface Statement {
  readonly subject: readonly Subject[];
  readonly predicate: { readonly buildDefinition: { readonly externalParameters: { readonly commit: string; readonly version: string } } };
}

/** In JSON. No time and no machine is in it, so the same commit gives the same statement. */
export function provenance({ commit, version, subjects, inputs, builder }: Facts): string {
  const statement = {
    _type: 'https://in-toto.io/Statement/v1',
    subject: subjects,
    predicateType: 'https://slsa.dev/provenance/v1',
    predicate: {
      buildDefinition: {
        buildType: 'urn:scute:npm-run-release:v1',
        externalParameters: { commit, version },
        internalParameters: {},
        resolvedDependencies: [{ name: 'scute', digest: { gitCommit: commit } }, ...inputs],
      },
      runDetails: { builder: { id: 'urn:scute:who-holds-the-key', version: builder } },
    },
  };
  return `${JSON.stringify(statement, undefined, 2)}\n`;
}

interface LockFile {
  readonly packages: Readonly<Record<string, { readonly version?: string; readonly integrity?: string }>>;
}

/** The packages that a lock file of npm names, with their digests. Throws for one without: it could be anything. */
export function npmInputs(lockFile: string): Input[] {
  const { packages } = JSON.parse(lockFile) as LockFile;
  return Object.entries(packages).flatMap(([path, { version, integrity }]) => {
    if (path === '') return [];
    return [npmInput(path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length), version, integrity)];
  });
}

/** Of a package of npm: its package URL and the SHA-512 of what the registry has. Throws where there is none. */
export function npmInput(
  name: string,
  version: string | undefined,
  integrity: string | undefined,
): { readonly uri: string; readonly digest: { readonly sha512: string } } {
  const [, digest = ''] = /^sha512-([A-Za-z0-9+/=]+)$/.exec(integrity ?? '') ?? [];
  if (digest === '') throw new Error(`${name} ${version} has no SHA-512 in its lock file`);
  const uri = `pkg:npm/${name.replace('@', '%40')}@${version}`;
  return { uri, digest: { sha512: Buffer.from(digest, 'base64').toString('hex') } };
}

/** What is in the image and not of the bundles: Node and Debian's packages, for each processor. */
export function imageInputs(nodes: readonly LockedNode[], debian: Lock): Input[] {
  const ofDebian = Object.entries(debian.packages).flatMap(([name, { version, sha256 }]) =>
    Object.entries(sha256).map(([architecture, digest]) => ({
      uri: `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${architecture}`,
      digest: { sha256: digest },
    })),
  );
  return [...nodes.map(({ name, version, integrity }) => npmInput(name, version, integrity)), ...ofDebian];
}

/** Each once: npm has installed the Node of this machine, too, which is in the image. */
export function eachOnce(inputs: readonly Input[]): Input[] {
  return [...new Map(inputs.map((input) => [JSON.stringify(input), input])).values()];
}
