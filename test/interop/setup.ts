// Puts the parts that we did not write, and that come by pip, Go and Maven, into .cache/interop; looks for those of the system.
// `npm run test:parts` runs it first. It says what is missing, and fails only with SCUTE_INTEROP=require.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runChild } from '../support/child.ts';
import {
  everyPartRequired,
  findPart,
  findProgram,
  GO_PACKAGES,
  GO_PROGRAMS,
  HELMS,
  installFolders,
  interopFolder,
  javaProgram,
  KEYCLOAK_VERSION,
  OLDER_NODE_VERSION,
  OLDER_NPM_VERSION,
  PART_NAMES,
  PYTHON_PACKAGES,
} from './parts.ts';

/** A cold cache on a slow network, and compilers on a busy machine. */
const INSTALL_WITHIN_MS = 30 * 60_000;

/** Runs `install`, which makes `program`, unless it has run before with the same `inputs`. */
async function once(name: string, program: string, inputs: readonly string[], install: () => Promise<void>): Promise<void> {
  const stampFile = join(interopFolder, `${name}.stamp`);
  const stamp = createHash('sha256').update(inputs.join('\0')).digest('hex');
  const before = await readFile(stampFile, 'utf8').catch(() => undefined);
  if (before === stamp && existsSync(program)) return;
  const begin = performance.now();
  console.log(`interop: installing ${name} …`);
  await rm(stampFile, { force: true });
  await install();
  await writeFile(stampFile, stamp);
  console.log(`interop: ${name} installed in ${Math.round((performance.now() - begin) / 1000)} s`);
}

async function run(
  argv: readonly [string, ...string[]],
  options: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<string> {
  const env = { ...inherited(), ...options.env };
  const { code, signal, stdout, stderr } = await runChild(argv, { cwd: options.cwd, env, withinMs: INSTALL_WITHIN_MS });
  if (code !== 0) throw new Error(`${argv.join(' ')} ended with ${signal ?? code}: ${(stderr || stdout).trim().slice(-2000)}`);
  return stdout.trim();
}

function inherited(): Record<string, string> {
  return Object.fromEntries(Object.entries(process.env).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])));
}

async function installPythonParts(): Promise<void> {
  const python = findProgram('python3');
  if (python === undefined) throw new Error('python3 is not installed: apt-get install python3 python3-venv');
  const version = await run([python, '--version']);
  const venvPython = join(installFolders.venv, 'bin/python');
  await once('venv', venvPython, [python, version, installFolders.venv, ...PYTHON_PACKAGES], async () => {
    await rm(installFolders.venv, { recursive: true, force: true });
    await run([python, '-m', 'venv', installFolders.venv]);
    await run([venvPython, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...PYTHON_PACKAGES]);
  });
}

async function installGoParts(): Promise<void> {
  const go = findProgram('go', ['/usr/local/go/bin']);
  if (go === undefined) throw new Error('go is not installed: apt-get install golang, or https://go.dev/dl');
  const env = { GOBIN: installFolders.go, CGO_ENABLED: '0' };
  for (const goPackage of GO_PACKAGES) {
    const name = /([^/]+)@/.exec(goPackage)?.[1] ?? goPackage;
    await once(name, join(installFolders.go, name), [goPackage], async () => void (await run([go, 'install', goPackage], { env })));
  }
  // With the flag of the programs below, which are made of the same modules.
  for (const [name, goPackage] of Object.entries(HELMS)) {
    const folder = join(installFolders.go, name);
    const install = async (): Promise<void> =>
      void (await run([go, 'install', '-trimpath', goPackage], { env: { ...env, GOBIN: folder } }));
    await once(name, join(folder, 'helm'), [goPackage], install);
  }
  for (const [name, folder] of Object.entries(GO_PROGRAMS)) {
    const files = (await readdir(folder)).filter((file) => /\.go$|^go\.(mod|sum)$/.test(file)).toSorted();
    const sources = await Promise.all(files.map((file) => readFile(join(folder, file), 'utf8')));
    const peer = join(installFolders.go, name);
    await once(name, peer, [...files, ...sources], async () => {
      await run([go, 'build', '-trimpath', '-o', peer, '.'], { cwd: folder, env });
    });
  }
}

/** The libraries by Maven, the program by the compiler alone, and beside it a script that starts it. */
async function installJavaParts(): Promise<void> {
  const [maven, compiler, java] = ['mvn', 'javac', 'java'].map((program) => findProgram(program));
  if (maven === undefined || compiler === undefined || java === undefined)
    throw new Error('Maven or a Java compiler is not installed: apt-get install maven default-jdk-headless');
  const { java: folder } = installFolders;
  const [pom, source] = await Promise.all(['pom.xml', 'Main.java'].map((file) => readFile(join(javaProgram, file), 'utf8')));
  const program = join(folder, 'java-peer');
  await once('java-peer', program, [java, String(pom), String(source)], async () => {
    const [libraries, classes] = [join(folder, 'lib'), join(folder, 'classes')];
    await rm(folder, { recursive: true, force: true });
    await mkdir(classes, { recursive: true });
    const repository = join(interopFolder, 'm2');
    const goal = ['dependency:copy-dependencies', `-DoutputDirectory=${libraries}`];
    await run([maven, '--batch-mode', '--quiet', `-Dmaven.repo.local=${repository}`, ...goal], { cwd: javaProgram });
    await run([compiler, '--release', '17', '-cp', join(libraries, '*'), '-d', classes, join(javaProgram, 'Main.java')]);
    await writeFile(program, `#!/bin/sh\nexec '${java}' -cp '${classes}:${join(libraries, '*')}' Main "$@"\n`, { mode: 0o755 });
  });
}

/** Of the archive, as Maven Central has it. */
const KEYCLOAK_SHA256 = 'dd9834c023460be856f731423d86228c23b5d002194a2064642bec0cc6573eaa';

async function installKeycloak(): Promise<void> {
  const [curl, python] = [findProgram('curl'), findProgram('python3')];
  if (curl === undefined || python === undefined) throw new Error('curl and python3 are needed for Keycloak: apt-get install curl python3');
  const folder = installFolders.keycloak;
  const name = `keycloak-quarkus-dist-${KEYCLOAK_VERSION}.zip`;
  const url = `https://repo1.maven.org/maven2/org/keycloak/keycloak-quarkus-dist/${KEYCLOAK_VERSION}/${name}`;
  const program = join(folder, `keycloak-${KEYCLOAK_VERSION}/bin/kc.sh`);
  await once('keycloak', program, [url, KEYCLOAK_SHA256], async () => {
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    const archive = join(folder, name);
    await run([curl, '--fail', '--silent', '--show-error', '--location', '--output', archive, url]);
    const digest = createHash('sha256')
      .update(await readFile(archive))
      .digest('hex');
    if (digest !== KEYCLOAK_SHA256) throw new Error(`${url} has another digest: ${digest}`);
    await run([python, '-m', 'zipfile', '-e', archive, folder]);
    await chmod(program, 0o755);
    await rm(archive);
  });
}

/** As a package of npm, which has it for these processors. */
async function installOlderNode(): Promise<void> {
  const folder = installFolders.node;
  const names = [`node-linux-${process.arch}@${OLDER_NODE_VERSION}`, `npm@${OLDER_NPM_VERSION}`];
  await once('node', join(folder, 'node_modules/.bin/node'), names, async () => {
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    await run(['npm', 'install', '--no-save', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', folder, ...names]);
  });
}

await mkdir(installFolders.go, { recursive: true });
const results = await Promise.allSettled([
  installPythonParts(),
  installGoParts(),
  installJavaParts(),
  installKeycloak(),
  installOlderNode(),
]);
const failures = results.flatMap((result) => (result.status === 'rejected' ? (result.reason as Error).message : []));
const missing = PART_NAMES.flatMap((name) => {
  const found = findPart(name);
  return 'missing' in found ? found.missing : [];
});
for (const problem of new Set([...failures, ...missing])) console.log(`interop: ${problem}`);
if (failures.length + missing.length > 0) {
  if (everyPartRequired) process.exitCode = 1;
  else console.log('interop: tests that need a missing part are skipped by name; SCUTE_INTEROP=require makes them fail');
}
