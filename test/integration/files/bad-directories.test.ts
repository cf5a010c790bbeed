import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
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
    '  - { name: web, directory: /no/such/place, notify: [{ pidFile: /run/web.pid }, { child: SIGUSR2 }] }\n',
    'check',
  );

  assert.equal(code, 0);
  assert.match(stdout, /files web {2}\/no\/such\/place[^]*then SIGUSR2 to the application of scute exec\n/);
});
