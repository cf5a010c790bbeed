import assert from 'node:assert/strict';
import { generateKeyPairSync, hash } from 'node:crypto';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { ARCHITECTURES, NATIVE, readLock } from '../../../build/image/debian.ts';
import { lockedNode } from '../../../build/image/node.ts';
import { pullVerified } from '../../../build/release/registry.ts';
import { readVerifyingKey } from '../../../build/release/signing.ts';
import { runChild, type Finished } from '../../support/child.ts';
import { codeBlocks } from '../../support/documents.ts';
import { needs, part } from '../parts.ts';
import { flip, startRegistry, type Registry } from './registry.ts';

const root = join(import.meta.dirname, '../../..');
const env = process.env as Readonly<Record<string, string>>;
const VERSION = (JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }).version;
/** A cold cache on a slow network. */
const BUILD_WITHIN_MS = 1_200_000;

/** In reverse: the registry ends, the folder goes. */
const ends = new AsyncDisposableStack();
let folder = '';
/** A repository with the sources as they are here, committed. */
let source = '';
let out = '';
let registry: Registry | undefined;
/** What `--publish` printed of the image. */
let published = '';

/** Without these a release is made without the image. */
const IMAGE = needs('buildah', 'qemu-user', 'skopeo', 'docker-registry');
const WITH_IMAGE = IMAGE.skip === undefined;

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

before(
  async () => {
    folder = await mkdtemp(join(tmpdir(), 'scute-release-test-'));
    ends.defer(() => rm(folder, { recursive: true, force: true }));
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
    if (WITH_IMAGE) registry = await startRegistry({ after: (end) => ends.defer(async () => void (await end())) }, folder);
    const options = registry === undefined ? ['--no-image'] : ['--publish', `${registry.address}/scute`];
    const { code, stdout, stderr } = await release('--out', out, '--key', keyFile('ours').secret, ...options);
    assert.equal(code, 0, `${stdout.slice(-3000)}\n${stderr.slice(-3000)}`);
    published = stdout.trim().split('\n').at(-1) ?? '';
  },
  { timeout: BUILD_WITHIN_MS },
);

after(() => ends.disposeAsync());

test('a release has the package, the executable, what is in them, what they were made of, and digests of all, signed', async () => {
  assert.deepEqual((await readdir(out)).toSorted(), [
    'SHA256SUMS',
    'SHA256SUMS.sig',
    'provenance.intoto.jsonl',
    'provenance.json',
    ...(WITH_IMAGE ? [`scute-${VERSION}-image.tar`] : []),
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
    [
      'a byte of the package',
      (copy) => flip(join(copy, `scute-${VERSION}.tgz`), 100),
      /scute-[\d.]+\.tgz is not the file that was released/,
    ],
    [
      'a byte of the executable',
      (copy) => flip(join(copy, `scute-${VERSION}-linux-${process.arch}`), 100),
      /linux-\w+ is not the file that was released/,
    ],
    ['a byte of the digests', (copy) => flip(join(copy, 'SHA256SUMS'), 100), /SHA256SUMS is not signed by this key/],
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
  const files = (await readdir(out)).filter((name) => name.startsWith('scute-'));
  assert.deepEqual(
    statement.subject.map(({ name }) => name),
    [...files.toSorted(), ...(WITH_IMAGE ? ['image'] : [])],
  );
  for (const { name, digest } of statement.subject) {
    const sha256 = name === 'image' ? published.split('@sha256:')[1] : hash('sha256', await readFile(join(out, name)));
    assert.equal(digest.sha256, sha256, name);
  }
});

interface Component {
  readonly 'bom-ref': string;
  readonly group?: string;
  readonly name: string;
  readonly version: string;
  readonly purl: string;
  readonly hashes?: readonly { readonly content: string }[];
  readonly components?: readonly Component[];
}

/** By CycloneDX's own library, formats and unknown fields too; prints what is wrong, or `null`. */
const VALIDATE = `const { Validation, Spec } = require('@cyclonedx/cyclonedx-library');
new Validation.JsonStrictValidator(Spec.Version.v1dot6).validate(require('fs').readFileSync(0, 'utf8')).then((wrong) => console.log(JSON.stringify(wrong)));`;

test('the SBOM is valid CycloneDX, and lists the packages whose code is shipped, each Node with its parts, Debian’s packages, and nothing else', async () => {
  const text = await readFile(join(out, `scute-${VERSION}.cdx.json`), 'utf8');
  const tool = join(source, 'build/sbom');
  await must(['npm', 'ci', '--ignore-scripts', '--omit=peer', '--no-audit', '--no-fund', '--prefer-offline'], tool);
  const wrong = async (of: string): Promise<string> =>
    (await runChild([process.execPath, '--eval', VALIDATE], { cwd: tool, env, input: of })).stdout.trim();
  assert.equal(await wrong(text), 'null');
  assert.match(await wrong(text.replace('"platform"', '"platfrom"')), /must be equal to one of the allowed values/);

  const { metadata, components, dependencies } = JSON.parse(text) as {
    readonly metadata: { readonly component: Component };
    readonly components: readonly Component[];
    readonly dependencies: readonly { readonly ref: string; readonly dependsOn?: readonly string[] }[];
  };
  const refs = [metadata.component, ...components, ...components.flatMap((one) => one.components ?? [])].map((one) => one['bom-ref']);
  assert.equal(new Set(refs).size, refs.length, 'each has a name of its own');
  for (const ref of dependencies.flatMap((one) => [one.ref, ...(one.dependsOn ?? [])])) assert.ok(refs.includes(ref), ref);

  const names = new Set(components.map(({ group, name }) => (group === undefined ? name : `${group}/${name}`)));
  for (const name of ['preact', 'zod', '@grpc/grpc-js', 'pino-pretty']) assert.ok(names.has(name), name);
  for (const name of ['esbuild', 'typescript', '@cyclonedx/cyclonedx-npm']) assert.ok(!names.has(name), name);
  const licences = (
    await must(['tar', '--extract', '--to-stdout', '--file', join(out, `scute-${VERSION}.tgz`), 'package/LICENCES.txt'])
  ).matchAll(/^={80}\n(\S+) (\S+) /gm);
  const shipped = Array.from(licences, ([, name = '', version = '']) => `pkg:npm/${name.replace('@', '%40')}@${version}`);
  const listed = components.map(({ purl }) => purl.replace(/\?.*/, ''));
  const isNode = (purl: string): boolean => purl.startsWith('pkg:npm/node-linux-');
  assert.deepEqual(listed.filter((purl) => purl.startsWith('pkg:npm/') && !isNode(purl)).toSorted(), shipped.toSorted());

  const nodes = await Promise.all((WITH_IMAGE ? ARCHITECTURES : [NATIVE]).map(lockedNode));
  assert.deepEqual(
    listed.filter(isNode),
    nodes.map(({ name, version }) => `pkg:npm/${name}@${version}`),
  );
  // What Node says of itself, but for numbers of interfaces and what it was built without.
  const parts = Object.entries(process.versions).filter(([name, version]) => version !== '' && !['node', 'modules', 'napi'].includes(name));
  for (const node of components.filter(({ name }) => name === 'node'))
    assert.deepEqual(
      node.components?.map(({ name, version }) => [name, version]),
      parts,
    );
  for (const name of ['openssl', 'v8', 'nghttp2', 'zlib', 'ares', 'icu', 'uv', 'llhttp'])
    assert.ok(
      parts.some(([part]) => part === name),
      name,
    );

  const debian = components.filter(({ purl }) => purl.startsWith('pkg:deb/'));
  const locked = Object.entries((await readLock()).packages).flatMap(([name, { version, sha256 }]) =>
    ARCHITECTURES.map((architecture) => [name, version, sha256[architecture]]),
  );
  assert.deepEqual(
    debian.map(({ name, version, hashes }) => [name, version, hashes?.[0]?.content]),
    WITH_IMAGE ? locked : [],
  );
});

test('the image is in the registry as it is in the release, for both processors, signed', IMAGE, async () => {
  const [repository = '', digest = ''] = published.split('@');
  const open = await readVerifyingKey(keyFile('ours').open);
  const [layout, pulled] = [join(folder, 'layout'), join(folder, 'pulled')];
  await mkdir(layout);
  await must(['tar', '--extract', '--file', join(out, `scute-${VERSION}-image.tar`), '--directory', layout]);
  await pullVerified(repository, digest, pulled, open);
  // By the command for when a push has failed.
  const work = join(folder, 'publishing');
  await mkdir(join(work, 'dist'), { recursive: true });
  await symlink(out, join(work, 'dist/release'));
  await symlink(join(root, 'build'), join(work, 'build'));
  await cp(keyFile('ours').secret, join(work, 'release.key'));
  const [block = assert.fail()] = codeBlocks('docs/releases.md').filter(({ info }) => info === 'sh publish');
  const again = block.text.replace('registry.example/scute', repository).replace(/^node /, `'${process.execPath}' `);
  assert.equal(await must(['/bin/sh', '-e', '-u', '-c', again], work), `${published}\n`);
  const blobs = async (of: string): Promise<string[]> => (await readdir(join(of, 'blobs/sha256'))).toSorted();
  assert.deepEqual(await blobs(pulled), await blobs(layout));
  const { manifests } = JSON.parse(await readFile(join(pulled, 'blobs', digest.replace(':', '/')), 'utf8')) as {
    readonly manifests: readonly { readonly platform: { readonly architecture: string } }[];
  };
  assert.deepEqual(
    manifests.map(({ platform }) => platform.architecture),
    [...ARCHITECTURES],
  );

  const sizes = await Promise.all(
    (await blobs(layout)).map(async (name) => ({ name, size: (await stat(join(layout, 'blobs/sha256', name))).size })),
  );
  const [largest = assert.fail()] = sizes.toSorted((a, b) => b.size - a.size);
  const kept = registry?.blob(`sha256:${largest.name}`) ?? '';
  await flip(kept);
  await assert.rejects(pullVerified(repository, digest, join(folder, 'changed'), open), new RegExp(`[Dd]igest.*${largest.name}`));
  await flip(kept);
});

test(
  'cosign takes the release, the image and what they were made of by the commands of the document, and not with another key',
  needs('cosign', 'buildah', 'qemu-user', 'skopeo', 'docker-registry'),
  async () => {
    const work = join(folder, 'by-cosign');
    await mkdir(join(work, 'dist'), { recursive: true });
    await symlink(out, join(work, 'dist/release'));
    const [block = assert.fail()] = codeBlocks('docs/releases.md').filter(({ info }) => info === 'sh cosign');
    const commands = block.text
      .replaceAll(/registry\.example\/scute@sha256:…/g, published)
      .replaceAll('VERSION', VERSION)
      .trim()
      .split('\n');
    assert.equal(commands.length, 4);
    for (const command of commands) {
      const by = async (name: string): Promise<Finished> => {
        await cp(keyFile(name).open, join(work, 'release.pub'));
        return runChild(['/bin/sh', '-e', '-u', '-c', command], { env: { PATH: dirname(part('cosign')), HOME: work }, cwd: work });
      };
      const ours = await by('ours');
      assert.equal(ours.code, 0, `${command}\n${ours.stderr}`);
      const theirs = await by('theirs');
      assert.notEqual(theirs.code, 0, command);
      assert.match(theirs.stderr, /invalid signature|accepted signatures do not match/i, command);
    }
  },
);

test('without an image and without a key, what is the same to the byte is the package, the executable and its licences', async () => {
  const again = join(folder, 'again');
  const { code, stdout, stderr } = await release('--no-image', '--out', again);
  assert.equal(code, 0, `${stdout.slice(-3000)}\n${stderr.slice(-3000)}`);
  const executable = `scute-${VERSION}-linux-${process.arch}`;
  const same = [executable, `${executable}.licences.txt`, `scute-${VERSION}.tgz`];
  assert.deepEqual((await readdir(again)).toSorted(), ['SHA256SUMS', 'provenance.json', ...same, `scute-${VERSION}.cdx.json`].toSorted());
  for (const name of same) assert.ok((await readFile(join(again, name))).equals(await readFile(join(out, name))), name);
});

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
