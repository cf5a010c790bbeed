import assert from 'node:assert/strict';
import { writeFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { runChild, startChild } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { folderInMemory } from '../../support/files/files.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { needs, part } from '../parts.ts';
import { rotateUnderLoad, SERVER, startFilesStage, visit } from './rotations.ts';

const SERVER_SOURCE = join(import.meta.dirname, '..', 'java', 'StoreServer.java');

test(
  'Java and OpenSSL read key stores and trust stores, and take what is in a trust store for trusted',
  needs('keytool', 'openssl'),
  async (t) => {
    const spiffe = await startDevDomain(
      t,
      { name: 'example.org', federatesWith: ['partner.example'], workloads: { server: [SERVER] } },
      { name: 'partner.example' },
    );
    const { folder, unsafeDisk } = await folderInMemory(t);
    const [directory, passwordFile] = [join(folder, 'set'), join(folder, 'password')];
    await writeFile(passwordFile, 'correct horse 1!\n');
    await startSidecar(t, {
      workloadApi: { endpoint: spiffe.endpoint('server') },
      files: [{ directory, unsafeDisk, format: 'pkcs12', passwordFile }],
    });
    const list = async (name: string): Promise<string> => {
      const { stdout } = await runChild([
        part('keytool'),
        '-list',
        '-v',
        '-keystore',
        join(directory, name),
        '-storepass:file',
        passwordFile,
      ]);
      return stdout;
    };

    assert.match(await list('svid.p12'), /Alias name: svid[^]*Entry type: PrivateKeyEntry[^]*URIName: spiffe:\/\/example\.org\/server/);
    assert.match(await list('svid_bundle.p12'), /Your keystore contains 1 entry[^]*Entry type: trustedCertEntry/);
    assert.match(await list('svid_bundle.partner.example.p12'), /Entry type: trustedCertEntry/);
    const read = await runChild([
      part('openssl'),
      'pkcs12',
      '-in',
      join(directory, 'svid.p12'),
      '-passin',
      `file:${passwordFile}`,
      '-noenc',
      '-info',
    ]);
    assert.match(read.stderr, /MAC: sha256, Iteration 2048[^]*Shrouded Keybag: PBES2, PBKDF2, AES-256-CBC/);
    assert.match(read.stdout, /BEGIN PRIVATE KEY/);
    await writeFile(join(folder, 'wrong'), 'correct horse 2!\n');
    const wrong = await runChild([
      part('openssl'),
      'pkcs12',
      '-in',
      join(directory, 'svid.p12'),
      '-passin',
      `file:${join(folder, 'wrong')}`,
      '-noenc',
    ]);
    assert.notEqual(wrong.code, 0);
  },
);

test(
  'a Java server takes 100 rotations of a key store when it is asked over HTTP, and no client fails',
  needs('java', 'javac'),
  async (t) => {
    const stage = await startFilesStage(t);
    const { folder, directory, spiffe } = stage;
    const passwordFile = join(folder, 'password');
    await writeFile(passwordFile, 'changeit\n');
    const pem = join(folder, 'pem');
    // The port is known when it runs, for which it needs a first set.
    const stores = { directory, unsafeDisk: stage.unsafeDisk, format: 'pkcs12', passwordFile, notifyDelay: '1ms' };
    const first = await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('server') }, files: [stores] });
    const java = await startChild([part('java'), '-Xmx128m', SERVER_SOURCE, directory, passwordFile]);
    t.after(() => java.stop().then(() => undefined));
    const { text } = await java.line(/^ports \d+ \d+$/);
    const [port = 0, reloadPort = 0] = text.split(' ').slice(1).map(Number);
    await first.stop();
    const notify = [{ url: `http://127.0.0.1:${reloadPort}/reload` }];
    await startSidecar(t, {
      workloadApi: { endpoint: spiffe.endpoint('server') },
      files: [
        { ...stores, name: 'stores', notify },
        { name: 'pem', directory: pem, unsafeDisk: stage.unsafeDisk },
      ],
    });
    const own = await spiffe.issue(SERVER);
    const client = { cert: own.chainPem, key: own.keyPem };
    const once = (ca: string): Promise<string> => visit(port, ca, client, { ask: '', answer: 'hello' });
    await eventually(async () => once(await readFile(join(pem, 'svid_bundle.pem'), 'utf8')));

    await rotateUnderLoad({ ...stage, directory: pem }, once);
  },
);
