import assert from 'node:assert/strict';
import { chmod, chown, lchown, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { runChild } from '../../support/child.ts';
import { folderInMemory } from '../../support/files/files.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const MAIN = join(import.meta.dirname, '..', '..', '..', 'src', 'main.ts');

async function runWith(folder: string, files: string, command = 'run') {
  const file = join(folder, 'scute.yaml');
  await writeFile(file, `workloadApi: { endpoint: unix://${folder}/agent.sock }\nfiles:\n${files}`);
  return runChild([process.execPath, '--disable-sigusr1', MAIN, command, '-c', file], { env: { PATH: '/usr/bin:/bin' } });
}

test('what is wrong with directories is named with file, line and column before anything is written', async (t) => {
  const { folder, unsafeDisk } = await folderInMemory(t);
  const disk = await temporaryFolder(t);
  const more = `, unsafeDisk: ${unsafeDisk}`;
  await mkdir(join(folder, 'open'));
  await chmod(join(folder, 'open'), 0o777);
  await mkdir(join(folder, 'real'), { mode: 0o755 });
  await symlink('real', join(folder, 'link'));
  await writeFile(join(folder, 'file'), '');
  await mkdir(join(folder, 'twin'), { mode: 0o755 });
  await symlink(folder, join(folder, 'twin', 'up'));

  const { code, stderr } = await runWith(
    folder,
    ['open', 'link', 'file', 'no/such', 'real', 'twin/up/real', 'new', 'twin/up/new']
      .map((name) => `  - { directory: ${folder}/${name}${more} }\n`)
      .join('') + `  - { directory: ${disk}/set }\n`,
  );

  assert.equal(code, 64);
  const place = `${join(folder, 'scute.yaml')}:`;
  assert.deepEqual(
    stderr
      .trim()
      .split('\n')
      // Where temporary files are kept in memory there is nothing wrong with that one.
      .filter((line) => !line.includes('files[8]'))
      .map((line) => line.replace(place, '').replaceAll(folder, '')),
    [
      '3:18 files[0].directory: /open is writable by others (mode 777): name a directory within it, which Scute makes',
      '4:18 files[1].directory: /link is a symbolic link',
      '5:18 files[2].directory: /file is not a directory',
      '6:18 files[3].directory: there is no directory /no to make it in',
      '7:18 files[4].directory: /real is /twin/up/real by another name',
      '8:18 files[5].directory: /twin/up/real is /real by another name',
      '9:18 files[6].directory: /new is /twin/up/new by another name',
      '10:18 files[7].directory: /twin/up/new is /new by another name',
    ],
  );
  if (!unsafeDisk) assert.match(stderr, /:11:18 files\[8\]\.directory: .* is not in memory \(tmpfs or ramfs\).*unsafeDisk/);
  assert.deepEqual([await readdir(join(folder, 'open')), await readdir(join(folder, 'real')), await readdir(disk)], [[], [], []]);
});

test('a configuration may be checked where its directories are not', async (t) => {
  const folder = await temporaryFolder(t);

  const { code, stdout } = await runWith(
    folder,
    '  - { name: web, directory: /no/such/place, notify: [{ pidFile: /run/web.pid }] }\n',
    'check',
  );

  assert.equal(code, 0);
  assert.match(stdout, /files web {2}\/no\/such\/place/);
});

test(
  'root writes below no folder in whose place another user may put something else, through whatever links the way leads',
  { skip: process.getuid?.() === 0 ? false : 'needs root' },
  async (t) => {
    const { folder, unsafeDisk } = await folderInMemory(t);
    const make = async (name: string, mode: number, uid = 0): Promise<void> => {
      await mkdir(join(folder, name));
      await chown(join(folder, name), uid, 0);
      await chmod(join(folder, name), mode);
    };
    await make('open', 0o777);
    await make('open/inner', 0o755);
    await make('theirs', 0o755, 12_345);
    await make('theirs/inner', 0o755);
    await make('sticky', 0o1777);
    await make('sticky/ours', 0o755);
    await make('sticky/theirs', 0o755, 12_345);
    await symlink(folder, join(folder, 'sticky', 'link'));
    await lchown(join(folder, 'sticky', 'link'), 12_345, 0);
    await symlink('open/inner', join(folder, 'link'));

    const names = ['open/inner/set', 'theirs/inner/set', 'sticky/theirs/set', 'sticky/link/set', 'link/other'];
    // What cannot lead astray: an emptyDir, a folder of somebody else, our own folder in such as /tmp.
    const good = ['open/set', 'theirs/set', 'sticky/ours/set'];
    const files = [...names, ...good].map((name) => `  - { directory: ${folder}/${name}, unsafeDisk: ${unsafeDisk} }\n`).join('');
    const { code, stderr } = await runWith(folder, files);

    assert.equal(code, 64);
    const why = 'which lets others have root write elsewhere: name a directory right within it, or another';
    assert.deepEqual(
      stderr
        .trim()
        .split('\n')
        .map((line) => line.replace(`${join(folder, 'scute.yaml')}:`, '').replaceAll(folder, '')),
      [
        `3:18 files[0].directory: /open, above /open/inner/set, is writable by others (mode 777), ${why}`,
        `4:18 files[1].directory: /theirs, above /theirs/inner/set, belongs to user 12345, ${why}`,
        `5:18 files[2].directory: /sticky, above /sticky/theirs/set, is writable by others (mode 1777), ${why}`,
        `6:18 files[3].directory: /sticky, above /sticky/link/set, is writable by others (mode 1777), ${why}`,
        `7:18 files[4].directory: /open, above /link/other, is writable by others (mode 777), ${why}`,
      ],
    );
    assert.deepEqual(await readdir(join(folder, 'open')), ['inner']);
  },
);
