/** What was made, from what: a statement of in-toto with a predicate of https://slsa.dev/provenance/v1. It claims no level of SLSA. */

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
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    const [, digest = ''] = /^sha512-([A-Za-z0-9+/=]+)$/.exec(integrity ?? '') ?? [];
    if (digest === '') throw new Error(`${name} ${version} has no SHA-512 in its lock file`);
    const uri = `pkg:npm/${name.replace('@', '%40')}@${version}`;
    return [{ uri, digest: { sha512: Buffer.from(digest, 'base64').toString('hex') } }];
  });
}
