import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { runChild } from '../../support/child.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const IMAGE = join(import.meta.dirname, '../../../build/image/image.ts');
const SCAN = `import(${JSON.stringify(IMAGE)}).then(({ scan }) => scan('layout')).catch(({ message }) => { console.log(message); process.exitCode = 1; })`;

test('a scan says what to do without grype, before anything is built', async () => {
  const { code, stdout, stderr } = await runChild([process.execPath, IMAGE, '--scan'], { env: { PATH: '/nonexistent' } });
  assert.deepEqual([code, stdout], [1, '']);
  assert.equal(stderr, 'image: grype is not on the path: go install github.com/anchore/grype/cmd/grype@latest\n');
});

test('a scan shows what grype says, and tells holes that it found from a list that it could not have', async (t) => {
  const folder = await temporaryFolder(t);
  const scanned = async (grypeEnds: number): Promise<{ readonly code: number | null; readonly stdout: string }> => {
    await writeFile(join(folder, 'grype'), `#!/bin/sh\necho "grype $*"\nexit ${grypeEnds}\n`, { mode: 0o755 });
    return runChild([process.execPath, '--eval', SCAN], {
      env: { PATH: [folder, dirname(process.execPath), '/usr/bin', '/bin'].join(':') },
    });
  };
  const shown = (architecture: string): string =>
    `${architecture}:\ngrype --platform linux/${architecture} --fail-on high oci-dir:layout\n`;
  const cases: [grypeEnds: number, code: number, stdout: string][] = [
    [0, 0, `${shown('amd64')}${shown('arm64')}`],
    [2, 1, `${shown('amd64')}the image for amd64 has holes that are high or critical: they are listed above\n`],
    [1, 1, `${shown('amd64')}grype could not look at the image for amd64, which is built: it needs its list of holes, from a network\n`],
  ];
  for (const [grypeEnds, code, stdout] of cases) {
    const finished = await scanned(grypeEnds);
    assert.deepEqual([finished.code, finished.stdout], [code, stdout]);
  }
});
