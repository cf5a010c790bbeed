import assert from 'node:assert/strict';
import { generateKeyPairSync, hash } from 'node:crypto';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { Ajv } from 'ajv';
import { runChild, type Finished } from '../../support/child.ts';
import { codeBlocks } from '../../support/documents.ts';
import { needs, part } from '../parts.ts';

const root = join(import.meta.dirname, '../../..');
const env = process.env as Readonly<Record<string, string>>;
const VERSION = (JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }).version;
/** A cold cache on a slow network. */
const BUILD_WITHIN_MS = 1_200_000;

let folder = '';
/** A repository with the sources as they are here, committed. */
let source = '';
let out = '';

function keyFile(name: string): { readonly secret: string; readonly open: string } {
  return { secret: join(folder, `${name}.key`), open: join(folder, `${name}.pub`) };
}

async function makeKey(name: string, namedCurve = 'P-256'): Promise<void> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', {
    namedCurve,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  const { secret, open } = keyFile(name);
  await writeFile(secret, privateKey, { mode: 0o600 });
  await writeFile(open, publicKey, { mode: 0o600 });
}

async function must(argv: readonly [string, ...string[]], cwd = folder): Promise<string> {
  const { code, stdout, stderr } = await runChild(argv, { cwd, env, withinMs: BUILD_WITHIN_MS });
  assert.equal(code, 0, `${argv.join(' ')}\n${stdout.slice(-3000)}\n${stderr.slice(-3000)}`);
  return stdout;
}

function release(...args: readonly string[]): Promise<Finished> {
  return runChild([process.execPath, 'build/release/release.ts', ...args], { cwd: source, env, withinMs: BUILD_WITHIN_MS });
}

function verify(of: string, key: string): Promise<Finished> {
  return runChild([process.execPath, join(root, 'build/release/verify.ts'), of, key], { env });
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'scute-release-test-'));
  source = join(folder, 'source');
  out = join(folder, 'out');
  for (const name of ['ours', 'theirs']) await makeKey(name);
  const files = (await must(['git', 'ls-files', '--cached', '--others', '--exclude-standard', '-z'], root))
    .split('\0')
    .filter((file) => file !== '');
  for (const file of files) {
    await mkdir(dirname(join(source, file)), { recursive: true });
    await cp(join(root, file), join(source, file)).catch((cause: unknown) => {
      // Removed, and not committed yet.
      if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause;
    });
  }
  const author = ['-c', 'user.name=Test', '-c', 'user.email=test@example.org'];
  await must(['git', 'init', '--quiet'], source);
  await must(['git', 'add', '--all'], source);
  await must(['git', ...author, 'commit', '--quiet', '--message', 'as it is'], source);
  const { code, stdout, stderr } = await release('--no-image', '--out', out, '--key', keyFile('ours').secret);
  assert.equal(code, 0, `${stdout.slice(-3000)}\n${stderr.slice(-3000)}`);
});

after(() => rm(folder, { recursive: true, force: true }));

test('a release has the package, the executable, what is in them, what they were made of, and digests of all, signed', async () => {
  assert.deepEqual((await readdir(out)).toSorted(), [
    'SHA256SUMS',
    'SHA256SUMS.sig',
    'provenance.intoto.jsonl',
    'provenance.json',
    `scute-${VERSION}-linux-${process.arch}`,
    `scute-${VERSION}-linux-${process.arch}.licences.txt`,
    `scute-${VERSION}.cdx.json`,
    `scute-${VERSION}.tgz`,
  ]);
  const good = await verify(out, keyFile('ours').open);
  assert.deepEqual([good.code, good.stderr], [0, '']);
  await must(['sha256sum', '--check', '--strict', 'SHA256SUMS'], out);
});

test('the commands by which the document verifies take the release, and not with another key', needs('openssl'), async () => {
  const work = join(folder, 'verifying');
  await mkdir(join(work, 'dist'), { recursive: true });
  await symlink(out, join(work, 'dist/release'));
  await symlink(join(root, 'build'), join(work, 'build'));
  const path = [dirname(process.execPath), dirname(part('openssl')), '/usr/bin', '/bin'].join(':');
  const blocks = codeBlocks('docs/releases.md').filter(({ info }) => info === 'sh verify');
  assert.equal(blocks.length, 2);
  for (const { text } of blocks) {
    const by = async (name: string): Promise<Finished> => {
      await cp(keyFile(name).open, join(work, 'release.pub'));
      return runChild(['/bin/sh', '-e', '-u', '-c', text], { env: { ...env, PATH: path }, cwd: work });
    };
    const { code, stdout, stderr } = await by('ours');
    assert.deepEqual([code, stderr], [0, ''], text);
    assert.match(stdout, new RegExp(`^scute-${VERSION}\\.tgz: (?:good|OK)$`, 'm'));
    assert.notEqual((await by('theirs')).code, 0, text);
  }
});

test('a changed byte, a file more, a digest more or another key is no release', async () => {
  const cases: [what: string, change: (copy: string) => Promise<unknown>, problem: RegExp][] = [
    ['a byte of the package', (copy) => flip(join(copy, `scute-${VERSION}.tgz`)), /scute-[\d.]+\.tgz is not the file that was released/],
    [
      'a byte of the executable',
      (copy) => flip(join(copy, `scute-${VERSION}-linux-${process.arch}`)),
      /linux-\w+ is not the file that was released/,
    ],
    ['a byte of the digests', (copy) => flip(join(copy, 'SHA256SUMS')), /SHA256SUMS is not signed by this key/],
    ['a file more', (copy) => writeFile(join(copy, 'install.sh'), ''), /install\.sh is not in SHA256SUMS/],
    ['another statement', (copy) => flip(join(copy, 'provenance.intoto.jsonl'), '"payload":"'.length + 60), /provenance/],
  ];
  for (const [what, change, problem] of cases) {
    const copy = join(folder, 'copy');
    await cp(out, copy, { recursive: true });
    await change(copy);
    const { code, stdout, stderr } = await verify(copy, keyFile('ours').open);
    assert.deepEqual([code, stdout], [1, ''], what);
    assert.match(stderr, problem, what);
    await rm(copy, { recursive: true });
  }
  const { code, stderr } = await verify(out, keyFile('theirs').open);
  assert.equal(code, 1);
  assert.match(stderr, /SHA256SUMS is not signed by this key/);
});

async function flip(file: string, at = 100): Promise<void> {
  const bytes = await readFile(file);
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  await writeFile(file, bytes);
}

interface Statement {
  readonly subject: readonly { readonly name: string; readonly digest: { readonly sha256: string } }[];
  readonly predicate: {
    readonly buildDefinition: {
      readonly externalParameters: { readonly commit: string };
      readonly resolvedDependencies: readonly {
        readonly name?: string;
        readonly uri?: string;
        readonly digest: Readonly<Record<string, string>>;
      }[];
    };
  };
}

test('the provenance names the commit, the lock files, Node, every package that took part, and what was made', async () => {
  const statement = JSON.parse(await readFile(join(out, 'provenance.json'), 'utf8')) as Statement & Record<string, unknown>;
  assert.equal(statement['_type'], 'https://in-toto.io/Statement/v1');
  assert.equal(statement['predicateType'], 'https://slsa.dev/provenance/v1');
  const { externalParameters, resolvedDependencies } = statement.predicate.buildDefinition;
  const commit = (await must(['git', 'rev-parse', 'HEAD'], source)).trim();
  assert.equal(externalParameters.commit, commit);
  const by = (name: string): Readonly<Record<string, string>> | undefined =>
    resolvedDependencies.find((input) => (input.uri ?? input.name) === name)?.digest;
  assert.deepEqual(by('scute'), { gitCommit: commit });
  for (const file of ['package-lock.json', 'build/sbom/package-lock.json', 'build/image/packages.json'])
    assert.deepEqual(by(file), { sha256: hash('sha256', await readFile(join(source, file))) }, file);
  assert.match(by('node')?.['sha256'] ?? '', /^[0-9a-f]{64}$/);
  for (const name of ['esbuild', 'preact', '%40grpc/grpc-js', '%40cyclonedx/cyclonedx-npm']) {
    const found = resolvedDependencies.find(({ uri }) => uri?.startsWith(`pkg:npm/${name}@`));
    assert.match(found?.digest['sha512'] ?? '', /^[0-9a-f]{128}$/, name);
  }
  for (const { name, digest } of statement.subject) assert.equal(digest.sha256, hash('sha256', await readFile(join(out, name))), name);
  assert.equal(statement.subject.length, 4);
});

test('the SBOM is valid CycloneDX, and lists the packages whose code is shipped, Node and its parts, and nothing else of npm', async () => {
  const sbom = JSON.parse(await readFile(join(out, `scute-${VERSION}.cdx.json`), 'utf8')) as {
    readonly components: readonly {
      readonly group?: string;
      readonly name: string;
      readonly purl: string;
      readonly components?: readonly { readonly name: string }[];
    }[];
  };
  const schemas = await schemaFolder();
  const ajv = new Ajv({ strict: false, validateFormats: false });
  for (const name of ['spdx', 'jsf-0.82'])
    ajv.addSchema(await schemaOf(schemas, name), `http://cyclonedx.org/schema/${name}.SNAPSHOT.schema.json`);
  const isValid = ajv.compile(await schemaOf(schemas, 'bom-1.6'));
  assert.ok(isValid(sbom), JSON.stringify(isValid.errors));

  const names = new Set(sbom.components.map(({ group, name }) => (group === undefined ? name : `${group}/${name}`)));
  for (const name of ['preact', 'zod', '@grpc/grpc-js', 'pino-pretty']) assert.ok(names.has(name), name);
  for (const name of ['esbuild', 'typescript', '@cyclonedx/cyclonedx-npm']) assert.ok(!names.has(name), name);
  const licences = (
    await must(['tar', '--extract', '--to-stdout', '--file', join(out, `scute-${VERSION}.tgz`), 'package/LICENCES.txt'])
  ).matchAll(/^={80}\n(\S+) (\S+) /gm);
  const shipped = Array.from(licences, ([, name = '', version = '']) => `pkg:npm/${name.replace('@', '%40')}@${version}`);
  const listed = sbom.components.map(({ purl }) => purl.replace(/\?.*/, '')).filter((purl) => purl.startsWith('pkg:npm/'));
  assert.deepEqual(listed.toSorted(), shipped.toSorted());
  const parts = sbom.components.find(({ name }) => name === 'node')?.components?.map(({ name }) => name) ?? [];
  for (const name of ['openssl', 'v8', 'uv', 'nghttp2', 'llhttp', 'zlib']) assert.ok(parts.includes(name), name);
});

/** CycloneDX's own, which its tool brings: installed as the release did. */
async function schemaFolder(): Promise<string> {
  const tool = join(source, 'build/sbom');
  await must(['npm', 'ci', '--ignore-scripts', '--omit=optional', '--omit=peer', '--no-audit', '--no-fund', '--prefer-offline'], tool);
  return join(tool, 'node_modules/@cyclonedx/cyclonedx-library/res/schema');
}

async function schemaOf(schemas: string, name: string): Promise<object> {
  return JSON.parse(await readFile(join(schemas, `${name}.SNAPSHOT.schema.json`), 'utf8')) as object;
}

test('what is not committed, a folder that is there, and a key that others may read are refused before anything is built', async () => {
  await makeKey('odd', 'P-384');
  const { secret } = keyFile('theirs');
  const elsewhere = join(folder, 'elsewhere');
  const refused = async (problem: RegExp, code: number, ...args: readonly string[]): Promise<void> => {
    const finished = await release(...args);
    assert.equal(finished.code, code);
    assert.match(finished.stderr, problem);
    await assert.rejects(stat(elsewhere), { code: 'ENOENT' });
  };
  await refused(/is there already/, 1, '--out', out);
  await refused(/no key on P-256/, 1, '--out', elsewhere, '--key', keyFile('odd').secret);
  await refused(/no private key/, 1, '--out', elsewhere, '--key', keyFile('ours').open);
  await refused(/--publish pushes a signed image/, 64, '--out', elsewhere, '--publish', '127.0.0.1:1/scute');
  await refused(/Unknown option '--pubish'/, 64, '--pubish', 'x');
  await chmod(secret, 0o640);
  await refused(/may be read or written by others/, 1, '--out', elsewhere, '--key', secret);
  await writeFile(join(source, 'new.txt'), '');
  await refused(/what is not committed would not be in the release:\n\?\? new\.txt/, 1, '--out', elsewhere);
  await rm(join(source, 'new.txt'));
});
