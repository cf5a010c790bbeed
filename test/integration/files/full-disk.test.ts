import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { runChild } from '../../support/child.ts';
import { setOf } from '../../support/files/files.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const CHILD = join(import.meta.dirname, '..', '..', 'support', 'files', 'file-set-child.ts');
const BYTES = 20_000;

/** Runs a shell script on a file system of its own, of 256 KiB, at `$DIR`, which no other process sees. */
async function onSmallDisk(t: TestContext, layout: string, script: string): Promise<string | undefined> {
  const folder = await temporaryFolder(t);
  const set = setOf({ directory: join(folder, 'set'), layout });
  const env = { PATH: process.env['PATH'] ?? '', DIR: folder, NODE: process.execPath, CHILD, SET: JSON.stringify(set) };
  const replace = `replace() { "$NODE" "$CHILD" "$SET" "$1" "" ${BYTES} "$2"; }; numbers() { head -qn1 "$DIR"/set/svid.pem "$DIR"/set/svid_key.pem; }`;
  const mount = 'mount -t tmpfs -o size=256k,mode=0755 none "$DIR" || exit 99';
  const { code, stdout, stderr } = await runChild(
    ['unshare', '--map-root-user', '--mount', '/bin/sh', '-c', `${mount}; ${replace}; ${script}`],
    { env },
  );
  if (stdout === '' && (code === 99 || /unshare/.test(stderr))) return undefined;
  assert.equal(code, 0, stderr);
  return stdout;
}

for (const layout of ['linked', 'flat']) {
  test(`${layout}: on a full disk the old set stays whole, nothing is left of the attempt, and it heals when there is room`, async (t) => {
    const told = await onSmallDisk(
      t,
      layout,
      'replace 1 1; head -c 1000000 /dev/zero 2>/dev/null > "$DIR/filler"; replace 2 2; numbers; ls -A "$DIR/set" | grep -cE "new-|link-"; rm "$DIR/filler"; replace 1 4; numbers',
    );
    if (told === undefined) return t.skip('this machine lets nobody mount a file system');

    assert.deepEqual(
      told
        .trim()
        .split('\n')
        .map((line) => (line.startsWith('{') ? (JSON.parse(line) as { readonly results: unknown }).results : Number(line))),
      [['replaced'], ['full', 'full'], 1, 1, 0, ['replaced'], 4, 4],
    );
  });

  test(`${layout}: on a read-only file system the old set stays, and it heals when it can be written`, async (t) => {
    const told = await onSmallDisk(
      t,
      layout,
      'replace 1 1; mount -o remount,ro none "$DIR"; replace 1 2; numbers; mount -o remount,rw none "$DIR"; replace 1 3; numbers',
    );
    if (told === undefined) return t.skip('this machine lets nobody mount a file system');

    assert.deepEqual(
      told
        .trim()
        .split('\n')
        .map((line) => (line.startsWith('{') ? (JSON.parse(line) as { readonly results: unknown }).results : Number(line))),
      [['replaced'], ['read_only'], 1, 1, ['replaced'], 3, 3],
    );
  });
}
