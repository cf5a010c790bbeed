import assert from 'node:assert/strict';
import { chmod, chown, lstat, mkdir, readdir, readFile, readlink, realpath, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { readdirSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { folderInMemory, setOf } from '../../test/support/files/files.ts';
import { numberedFiles, readSet } from '../../test/support/files/numbered-files.ts';
import type { FileSetConfig } from '../config/file-sets.ts';
import { SetWriteError } from './folder.ts';
import { createSetWriter } from './writer.ts';

const isRoot = process.getuid?.() === 0;
const LAYOUTS = ['linked', 'flat'] as const;

async function aSet(t: TestContext, more: object = {}): Promise<FileSetConfig> {
  const { folder, unsafeDisk } = await folderInMemory(t);
  return setOf({ directory: join(folder, 'set'), unsafeDisk, ...more });
}

async function refusal(config: FileSetConfig): Promise<SetWriteError> {
  return createSetWriter({ config })
    .replace(numberedFiles(config, 9))
    .then(
      () => assert.fail('it was written'),
      (cause: unknown) => {
        assert.ok(cause instanceof SetWriteError, String(cause));
        return cause;
      },
    );
}

for (const layout of LAYOUTS) {
  test(`${layout}: a set is replaced, and nothing is left of the way there`, async (t) => {
    const config = await aSet(t, { layout });
    const writer = createSetWriter({ config });

    for (const number of [1, 2, 3, 4]) {
      await writer.replace(numberedFiles(config, number));
      assert.deepEqual(await readSet(config), [number, number]);
      assert.equal(await writer.isIntact(), true);
    }

    const names = await readdir(config.directory);
    assert.deepEqual(names.filter((name) => !name.startsWith('..')).toSorted(), [
      'svid.pem',
      'svid_bundle.pem',
      'svid_bundles.json',
      'svid_key.pem',
    ]);
    // The link, the set in force and the one before.
    assert.equal(names.filter((name) => name.startsWith('..')).length, layout === 'linked' ? 3 : 0);
    assert.equal((await stat(join(config.directory, 'svid_key.pem'))).mode & 0o7777, 0o600);
  });

  test(`${layout}: the bundle of a trust domain that is gone goes as well`, async (t) => {
    const config = await aSet(t, { layout });
    const writer = createSetWriter({ config });
    const files = numberedFiles(config, 1);

    await writer.replace([{ name: 'svid_bundle.partner.example.pem', bytes: Buffer.from('x'), isSecret: false }, ...files]);
    assert.ok((await readdir(config.directory)).includes('svid_bundle.partner.example.pem'));
    await writer.replace(files);

    assert.equal((await readdir(config.directory)).includes('svid_bundle.partner.example.pem'), false);
  });

  test(`${layout}: what was changed or removed by somebody else is noticed`, async (t) => {
    const config = await aSet(t, { layout });
    const writer = createSetWriter({ config });
    const key = join(config.directory, 'svid_key.pem');
    for (const harm of [
      () => rm(config.directory, { recursive: true }),
      () => writeFile(key, 'another key'),
      () => chmod(key, 0o644),
      () => rm(key),
    ]) {
      await writer.replace(numberedFiles(config, 1));
      assert.equal(await writer.isIntact(), true);
      await harm();
      assert.equal(await writer.isIntact(), false, harm.toString());
      // A key that is no link any longer would be somebody else's.
      if (layout === 'linked' || harm.toString().includes('directory')) await rm(config.directory, { recursive: true, force: true });
    }
  });

  test(`${layout}: a set is taken away with all that leads to it, and what others put there stays`, async (t) => {
    const config = await aSet(t, { layout });
    const writer = createSetWriter({ config });
    await writer.replace(numberedFiles(config, 1));
    await writer.replace(numberedFiles(config, 2));
    await writeFile(join(config.directory, 'theirs'), '');

    await createSetWriter({ config }).cleanUp();

    assert.deepEqual(await readdir(config.directory), ['theirs']);
  });

  test(`${layout}: what a crash left unfinished is removed at the next start, and nothing else`, async (t) => {
    const config = await aSet(t, { layout });
    await createSetWriter({ config }).replace(numberedFiles(config, 1));
    const before = (await readdir(config.directory)).toSorted();
    await mkdir(join(config.directory, '..new-0123456789abcdef'));
    await writeFile(join(config.directory, '..new-0123456789abcdef', 'svid_key.pem'), 'half');
    await writeFile(join(config.directory, '..new-0123456789abcde0-3'), 'half');
    await symlink('..set-0123456789abcdef', join(config.directory, '..link-0123456789abcdef'));
    await writeFile(join(config.directory, '..newspaper'), 'theirs');

    await createSetWriter({ config }).tidy();

    assert.deepEqual((await readdir(config.directory)).toSorted(), [...before, '..newspaper'].toSorted());
  });

  test(`${layout}: a link that somebody planted is neither followed nor replaced`, async (t) => {
    const config = await aSet(t, { layout });
    const victim = join(config.directory, '..', 'victim');
    await writeFile(victim, 'untouched');
    await mkdir(config.directory, { mode: 0o755 });
    await symlink(victim, join(config.directory, 'svid_key.pem'));

    const { reason, message } = await refusal(config);

    assert.equal(reason, 'foreign_file');
    assert.match(message, /svid_key\.pem is not of this set/);
    assert.equal(await readFile(victim, 'utf8'), 'untouched');
    assert.deepEqual(await readdir(config.directory), ['svid_key.pem']);
  });

  test(`${layout}: a directory that is a link, no directory, or writable by others is refused, and nothing is written`, async (t) => {
    const config = await aSet(t, { layout });
    const elsewhere = join(config.directory, '..', 'elsewhere');
    await mkdir(elsewhere);

    await symlink(elsewhere, config.directory);
    assert.equal((await refusal(config)).reason, 'bad_directory');
    await rm(config.directory);
    await writeFile(config.directory, '');
    assert.equal((await refusal(config)).reason, 'bad_directory');
    await rm(config.directory);
    await mkdir(config.directory);
    await chmod(config.directory, 0o777);
    const { reason, message } = await refusal(config);

    assert.equal(reason, 'bad_directory');
    assert.match(message, /is writable by others \(mode 777\)/);
    assert.deepEqual([await readdir(config.directory), await readdir(elsewhere)], [[], []]);
  });

  test(`${layout}: a directory that belongs to another is refused`, { skip: isRoot ? false : 'needs root' }, async (t) => {
    const config = await aSet(t, { layout });
    await mkdir(config.directory);
    await chown(config.directory, 12_345, 12_345);

    const { reason, message } = await refusal(config);

    assert.equal(reason, 'bad_directory');
    assert.match(message, /belongs to user 12345/);
    assert.deepEqual(await readdir(config.directory), []);
  });
}

test('the link that is swapped may be no file, and lead nowhere but to a set', async (t) => {
  const config = await aSet(t);
  await mkdir(config.directory, { mode: 0o755 });
  for (const plant of [
    () => mkdir(join(config.directory, '..data')),
    () => writeFile(join(config.directory, '..data'), ''),
    () => symlink('/etc', join(config.directory, '..data')),
    () => symlink('..set-0123456789abcdef/../..', join(config.directory, '..data')),
  ]) {
    await plant();

    assert.equal((await refusal(config)).reason, 'foreign_file', plant.toString());
    await rm(join(config.directory, '..data'), { recursive: true });
  }
});

test(
  'files have their mode and owner before a link leads to them, and the directory of a set its mode',
  { skip: isRoot ? false : 'needs root' },
  async (t) => {
    const config = await aSet(t, { owner: 1234, group: 4321, keyFileMode: '0640', certFileMode: '0444', directoryMode: '0750' });
    const modes: string[] = [];
    const writer = createSetWriter({
      config,
      afterStep(step) {
        if (step !== 'finished') return;
        const [whole = ''] = readdirSync(config.directory);
        for (const name of ['.', 'svid_key.pem']) modes.push((statSync(join(config.directory, whole, name)).mode & 0o7777).toString(8));
      },
    });

    await writer.replace(numberedFiles(config, 1));

    const folder = await realpath(join(config.directory, '..data'));
    const of = async (path: string) => {
      const { uid, gid, mode } = await lstat(path);
      return [uid, gid, (mode & 0o7777).toString(8)];
    };
    assert.deepEqual(await of(join(folder, 'svid_key.pem')), [1234, 4321, '640']);
    assert.deepEqual(await of(join(folder, 'svid.pem')), [1234, 4321, '444']);
    // Who owns a file need not own the directory, where he could put others.
    assert.deepEqual(await of(folder), [process.getuid?.(), 4321, '750']);
    assert.deepEqual(modes, ['750', '640'], 'while nothing leads there');
  },
);

test('a directory that somebody puts in the place of a set while it is removed is not followed out of', async (t) => {
  const config = await aSet(t);
  const writer = createSetWriter({ config });
  await writer.replace(numberedFiles(config, 1));
  await writer.replace(numberedFiles(config, 2));
  const victims = join(config.directory, '..', 'victims');
  await mkdir(victims);
  await writeFile(join(victims, 'file'), '');
  const current = await readlink(join(config.directory, '..data'));
  const previous = (await readdir(config.directory)).find((name) => name.startsWith('..set-') && name !== current) ?? '';
  await rename(join(config.directory, previous), join(config.directory, '..', 'moved'));
  await symlink(victims, join(config.directory, previous));

  await writer.replace(numberedFiles(config, 3));

  assert.deepEqual(await readdir(victims), ['file']);
  assert.equal((await readdir(config.directory)).includes(basename(previous)), false);
});

test(
  'a folder above that others come to be able to write is noticed before anything is written',
  { skip: isRoot ? false : 'needs root' },
  async (t) => {
    const { folder, unsafeDisk } = await folderInMemory(t);
    await mkdir(join(folder, 'above', 'inner'), { recursive: true, mode: 0o755 });
    const config = setOf({ directory: join(folder, 'above', 'inner', 'set'), unsafeDisk });
    await createSetWriter({ config }).replace(numberedFiles(config, 1));
    await chmod(join(folder, 'above'), 0o777);

    const { reason, message } = await refusal(config);

    assert.equal(reason, 'bad_directory');
    assert.match(message, /above, above .*set, is writable by others \(mode 777\)/);
    assert.deepEqual(await readSet(config), [1, 1]);
  },
);

test('a directory that a process made and could not finish gets the mode that it is to have', async (t) => {
  const config = await aSet(t);
  await mkdir(config.directory, { mode: 0o700 });

  await createSetWriter({ config }).replace(numberedFiles(config, 1));

  assert.equal((await stat(config.directory)).mode & 0o777, 0o755);
});

test('a set that another Scute takes away while it is written is not in force, and the next replacement is', async (t) => {
  const config = await aSet(t);
  const { directory } = config;
  let isShared = false;
  const writer = createSetWriter({
    config,
    afterStep(step) {
      if (step !== 'finished' || !isShared) return;
      const current = readlinkSync(join(directory, '..data'));
      for (const name of readdirSync(directory))
        if (name.startsWith('..set-') && name !== current) rmSync(join(directory, name), { recursive: true });
    },
  });
  await writer.replace(numberedFiles(config, 1));
  isShared = true;

  await assert.rejects(writer.replace(numberedFiles(config, 2)), {
    reason: 'failed',
    message: `${directory} was changed while it was written: does another Scute write there?`,
  });
  isShared = false;
  await writer.replace(numberedFiles(config, 3));

  assert.deepEqual(await readSet(config), [3, 3]);
});
