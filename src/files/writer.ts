/** Puts a set in force, whole, and takes away what is not in force any longer. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { appearances } from '../config/file-watch.ts';
import { isOfFamily, type FileSetConfig } from '../config/file-sets.ts';
import type { SetFile } from './encode.ts';
import { Folder, SetWriteError, type Ownership } from './folder.ts';

/** The link that is swapped, as Kubernetes calls it. */
const DATA = '..data';
/** A set that is whole; one that is being written, or a file of the flat layout; a link that is about to be put in its place. */
const SET = '..set-';
const UNFINISHED = '..new-';
const LINK = '..link-';

export interface SetWriter {
  /** Puts `files` in force. Until it resolves what was before is in force, or what is new, never a mixture but in the flat layout. Throws `SetWriteError`. */
  replace(files: readonly SetFile[]): Promise<void>;
  /** Whether what was put in force last is there as it was. */
  isIntact(): Promise<boolean>;
  /** Removes what a crash, or a disk that was full, left unfinished. */
  tidy(): Promise<void>;
  /** Takes the set away. */
  cleanUp(): Promise<void>;
}

export interface SetWriterOptions {
  readonly config: FileSetConfig;
  /** Called after each step on the way to a replacement, with its name: for tests that end the process there. */
  readonly afterStep?: ((step: string) => void) | undefined;
}

export function createSetWriter({ config, afterStep = () => {} }: SetWriterOptions): SetWriter {
  const { directory, layout, certFileMode, keyFileMode, directoryMode, uid, gid, unsafeDisk, anyDirectory } = config;
  const ofFolder: Ownership = { uid: undefined, gid, mode: directoryMode };
  const { svid, key, bundle, bundleMap, jwtBundle } = config.names;
  const ownNames = [svid, key, bundle, bundleMap, jwtBundle, ...config.jwtSvids.map(({ fileName }) => fileName)];
  const families = [config.ownBundleOnly ? undefined : bundle, config.jwtBundles === 'apart' ? jwtBundle : undefined];
  let intact: { readonly paths: readonly string[]; readonly looks: string } | undefined;

  const ownershipOf = ({ isSecret }: SetFile): Ownership => ({ uid, gid, mode: isSecret ? keyFileMode : certFileMode });
  /** Names that this set may have had before: of federated trust domains that are gone. */
  const isOfBundle = (name: string): boolean => families.some((own) => own !== undefined && isOfFamily(own, name));

  async function replaceLinked(folder: Folder, files: readonly SetFile[]): Promise<void> {
    const before = await folder.look(DATA);
    const previous = before !== undefined && 'link' in before && isName(SET, before.link) ? before.link : undefined;
    if (before !== undefined && previous === undefined) throw foreign(folder, DATA);
    for (const { name } of files) {
      const found = await folder.look(name);
      if (found !== undefined && !('link' in found && found.link === `${DATA}/${name}`)) throw foreign(folder, name);
    }
    const id = randomBytes(8).toString('hex');
    const [unfinished, whole, link] = [`${UNFINISHED}${id}`, `${SET}${id}`, `${LINK}${id}`];
    try {
      {
        await using inner = await folder.makeFolder(unfinished);
        afterStep('made');
        for (const file of files) {
          await inner.writeNew(file.name, file.bytes, ownershipOf(file));
          afterStep(`wrote ${file.name}`);
        }
        await inner.setOwnership(ofFolder);
        await inner.sync();
      }
      await folder.rename(unfinished, whole);
      await folder.sync();
      afterStep('finished');
      await folder.link(whole, link);
      afterStep('linked');
      await folder.rename(link, DATA);
      // Whoever else writes here takes it for one that is over, as long as nothing leads to it.
      if ((await folder.look(whole)) === undefined)
        throw new SetWriteError('failed', `${folder.path} was changed while it was written: does another Scute write there?`);
    } catch (cause) {
      // The disk may be full because of them.
      for (const name of [unfinished, whole, link]) await folder.remove(name).catch(() => {});
      throw cause;
    }
    afterStep('swapped');
    await folder.sync();
    const names = await folder.names();
    for (const { name } of files) if (!names.includes(name)) await folder.link(`${DATA}/${name}`, name);
    afterStep('shown');
    for (const name of names) {
      if (name.startsWith('..')) {
        if (isName(SET, name) && name !== whole && name !== previous) await folder.remove(name);
        continue;
      }
      const found = await folder.look(name);
      const isStale =
        found !== undefined && 'link' in found && found.link === `${DATA}/${name}` && !files.some((file) => file.name === name);
      if (isStale) await folder.remove(name);
    }
    await folder.sync();
    afterStep('tidied');
  }

  async function replaceFlat(folder: Folder, files: readonly SetFile[]): Promise<void> {
    for (const { name } of files) {
      const found = await folder.look(name);
      if (found !== undefined && !('isFile' in found && found.isFile && isOurs(found.uid))) throw foreign(folder, name);
    }
    const id = randomBytes(8).toString('hex');
    const unfinished = (index: number): string => `${UNFINISHED}${id}-${index}`;
    try {
      for (const [index, file] of files.entries()) {
        await folder.writeNew(unfinished(index), file.bytes, ownershipOf(file));
        afterStep(`wrote ${file.name}`);
      }
      await folder.sync();
      for (const [index, { name }] of files.entries()) {
        await folder.rename(unfinished(index), name);
        afterStep(`renamed ${name}`);
      }
    } catch (cause) {
      for (const index of files.keys()) await folder.remove(unfinished(index)).catch(() => {});
      throw cause;
    }
    await folder.sync();
    for (const name of families.some(Boolean) ? await folder.names() : []) {
      if (!isOfBundle(name) || files.some((file) => file.name === name)) continue;
      const found = await folder.look(name);
      if (found !== undefined && 'isFile' in found && found.isFile && isOurs(found.uid)) await folder.remove(name);
    }
    afterStep('tidied');
  }

  const isOurs = (owner: number): boolean => anyDirectory || owner === process.getuid?.() || owner === uid;

  return {
    async replace(files) {
      try {
        await using folder = await Folder.ofSet(directory, ofFolder, { unsafeDisk, anyDirectory });
        await removeUnfinished(folder);
        await (layout === 'linked' ? replaceLinked : replaceFlat)(folder, files);
      } catch (cause) {
        throw SetWriteError.from(cause, `${directory} cannot be written`);
      }
      const paths = files.map(({ name }) => join(directory, name));
      intact = { paths, looks: await appearances(paths) };
    },
    isIntact: async () => intact !== undefined && (await appearances(intact.paths)) === intact.looks,
    async tidy() {
      await using folder = await Folder.existing(directory);
      if (folder !== undefined) await removeUnfinished(folder);
    },
    async cleanUp() {
      await using folder = await Folder.existing(directory);
      if (folder === undefined) return;
      const names = await folder.names();
      // What leads to the set goes before the set.
      for (const name of names) {
        const found = await folder.look(name);
        const isOfFlat = layout === 'flat' && (ownNames.includes(name) || isOfBundle(name));
        if (found !== undefined && ('link' in found ? found.link === `${DATA}/${name}` : isOfFlat && found.isFile && isOurs(found.uid)))
          await folder.remove(name);
      }
      const data = layout === 'linked' ? await folder.look(DATA) : undefined;
      if (data !== undefined && 'link' in data && isName(SET, data.link)) await folder.remove(DATA);
      for (const name of names) if (isName(SET, name)) await folder.remove(name);
      await removeUnfinished(folder);
      await folder.sync();
      intact = undefined;
    },
  };
}

async function removeUnfinished(folder: Folder): Promise<void> {
  for (const name of await folder.names()) if (isName(UNFINISHED, name) || isName(LINK, name)) await folder.remove(name);
}

/** Names that we give, and nobody by chance. */
function isName(prefix: string, name: string): boolean {
  return name.startsWith(prefix) && /^[0-9a-f]{16}(?:-\d+)?$/.test(name.slice(prefix.length));
}

function foreign(folder: Folder, name: string): SetWriteError {
  return new SetWriteError('foreign_file', `${folder.path}/${name} is not of this set: the directory must be for it alone`);
}
