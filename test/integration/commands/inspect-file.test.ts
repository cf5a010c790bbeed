import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { FileReport } from '../../../src/inspect/file.ts';
import { runChild, startChild } from '../../support/child.ts';
import { scute } from '../../support/command.ts';
import { COMMON_NAME, createTestAuthority, distinguishedName, pemOf } from '../../support/pki/pki.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const SCUTE = [process.execPath, '--disable-sigusr1', fileURLToPath(new URL('../../../src/main.ts', import.meta.url))] as const;
const PATH = process.env['PATH'] ?? '';

test('scute inspect draws the certificates of a file, with what the standards say against them', async (t) => {
  const folder = await temporaryFolder(t);
  const root = createTestAuthority();
  const leaf = root.issue({ id: 'spiffe://example.org/web', eku: null });
  const file = join(folder, 'svid.pem');
  await writeFile(file, leaf.pem + root.pem + leaf.keyPem + pemOf('X509 CRL', root.crl()));

  const { code, stdout, stderr } = await scute('inspect', file);

  assert.deepEqual([code, stderr], [0, '']);
  assert.match(
    stdout,
    /^spiffe:\/\/example\.org\/web\n59 min \d+ s +\[#+\|[#-]+\] 98 % +signed by CN=Root example\.org,O=Scute test \(authority of example\.org, 59 min \d+ s\)\nX\.509-SVID - .*\n! tolerated: there is no extended key usage; .* \(X509-SVID 4\.4\)\n\n/,
  );
  assert.match(stdout, /^signed|signs itself\nauthority of example\.org - /m);
  assert.match(
    stdout,
    /\nrevocation list by CN=Root example\.org,O=Scute test, of \S+Z, the next by \S+Z\nIt holds a private key, of which nothing is shown\.\nPEM: 2 certificates\n$/,
  );
  assert.ok(!stdout.includes(leaf.keyDer.toString('base64').slice(40, 80)));

  const json = JSON.parse((await scute('inspect', file, '--json')).stdout) as FileReport & { readonly target: string };
  assert.deepEqual(
    [json.target, json.form, json.privateKeys, json.certificates.map(({ kind }) => kind)],
    [file, 'pem', 1, ['svid', 'authority']],
  );
});

test('the exit code of scute inspect is 1 if what a file has would let somebody down', async (t) => {
  const folder = await temporaryFolder(t);
  const root = createTestAuthority();
  const file = join(folder, 'file.pem');
  for (const [content, message] of [
    [root.issue({ notAfter: Date.now() - 1000 }).pem, /^ended \d+ s ago/m],
    [root.issue({ notBefore: Date.now() + 3_000_000, notAfter: Date.now() + 9_000_000 }).pem, /^begins in 49 min/m],
    [root.issue({ keyUsage: ['keyCertSign', 'digitalSignature'] }).pem, /^! refused: key usage has keyCertSign \(X509-SVID 4\.3\)$/m],
    ['', /^! there is no certificate in it\nDER: 0 certificates$/m],
  ] as const) {
    await writeFile(file, content);
    const { code, stdout, stderr } = await scute('inspect', file);
    assert.deepEqual([code, stderr], [1, '']);
    assert.match(stdout, message);
  }

  for (const missing of [join(folder, 'none'), folder, './a:1']) {
    const { code, stdout, stderr } = await scute('inspect', missing);
    assert.deepEqual([code, stdout], [64, '']);
    assert.match(stderr, /^scute: .* cannot be read: E\w+/);
  }
  const large = join(folder, 'large');
  await writeFile(large, Buffer.alloc(4_194_305));
  assert.match((await scute('inspect', large)).stderr, /is larger than 4194304 bytes\n$/);
});

test('names in a file are shown inert', async (t) => {
  const file = join(await temporaryFolder(t), 'file.pem');
  const subject = distinguishedName([COMMON_NAME, 'x\u001b[2J\n- \u202e\u200b']);
  await writeFile(file, createTestAuthority({ subject }).pem);

  const { stdout } = await scute('inspect', file);

  assert.match(stdout, /^[\n\x20-\x7e]*$/);
  assert.equal(stdout.trimEnd().split('\n').length, 5);
});

test('scute inspect - reads standard input, to its end or to a bound', async () => {
  const { pem } = createTestAuthority();
  const options = { env: { PATH } };

  const good = await runChild([...SCUTE, 'inspect', '-'], { ...options, input: pem });
  assert.deepEqual([good.code, good.stderr], [0, '']);
  assert.match(good.stdout, /PEM: 1 certificate\n$/);

  await using endless = await startChild(['sh', '-c', 'yes | "$@"', 'sh', ...SCUTE, 'inspect', '-'], options);
  assert.deepEqual([(await endless.exited).code, endless.stderr()], [64, 'scute: standard input is larger than 4194304 bytes\n']);

  await using waiting = await startChild([...SCUTE, 'inspect', '-'], options);
  waiting.write(pem);
  waiting.signal('SIGINT');
  assert.notEqual((await waiting.exited).code, 0);
});
