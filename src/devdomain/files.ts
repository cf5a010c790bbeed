import { mkdir, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Files and folders that are made, and removed again. */
export interface Footprint {
  /** Makes a folder and those above it, if missing, for this user only. */
  makeFolder(path: string): Promise<void>;
  /** Writes a file that anybody may read, whole or not at all. Not for secrets. */
  writePublicFile(path: string, text: string): Promise<void>;
  /** Removes what was made. Folders that hold anything else stay. */
  remove(): Promise<void>;
}

export function createFootprint(): Footprint {
  const files = new Set<string>();
  /** The deepest first. */
  const folders: string[] = [];
  return {
    async makeFolder(path) {
      const topmost = await mkdir(path, { recursive: true, mode: 0o700 });
      if (topmost === undefined) return;
      const made = [path];
      while (made[0] !== topmost && made[0] !== undefined) made.unshift(dirname(made[0]));
      folders.unshift(...made.toReversed());
    },
    async writePublicFile(path, text) {
      const draft = `${path}.${process.pid}.tmp`;
      await writeFile(draft, text, { mode: 0o644, flag: 'wx' });
      await rename(draft, path);
      files.add(path);
    },
    async remove() {
      for (const file of files) await rm(file, { force: true });
      files.clear();
      // A folder that is not empty holds something of somebody else.
      for (const folder of folders.splice(0)) await rmdir(folder).catch(() => {});
    },
  };
}
