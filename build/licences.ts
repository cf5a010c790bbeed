/** The licences of the packages whose code is in what is shipped. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

const LICENCE_FILE = /^(?:licen[cs]e|copying)(?:[.-].*)?$/i;
const NOTICE_FILE = /^notice(?:\..*)?$/i;

/** Packages that carry their licences at the head of files alone: files that have all of them. */
const LICENCE_AT_THE_HEAD: ReadonlyMap<string, readonly string[]> = new Map([
  ['@bufbuild/protobuf', ['dist/esm/index.js', 'dist/esm/wire/varint.js']],
]);

export interface ShippedPackage {
  readonly name: string;
  readonly version: string;
  /** An SPDX expression. */
  readonly license: string;
  /** Of its files of licence and notice, one after the other. */
  readonly text: string;
}

/**
 * The packages among `inputs` (files of a bundle, from `root`), by name. Throws for one that has no licence, in its manifest and as a
 * file: its code may not be passed on without.
 */
export async function shippedPackages(root: string, inputs: readonly string[]): Promise<ShippedPackage[]> {
  const folders = new Set(
    inputs.map((input) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input)?.[0]).filter((folder) => folder !== undefined),
  );
  const all = await Promise.all([...folders].map((folder) => readPackage(join(root, folder))));
  // Some lie in more than one folder.
  const packages = new Map(all.map((one) => [`${one.name} ${one.version}`, one]));
  return [...packages.values()].toSorted((a, b) => (a.name < b.name || (a.name === b.name && a.version < b.version) ? -1 : 1));
}

async function readPackage(folder: string): Promise<ShippedPackage> {
  const { name, version, license } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as Partial<ShippedPackage>;
  if (name === undefined || version === undefined) throw new Error(`${folder}: its package.json has no name or version`);
  const names = (await readdir(folder)).toSorted();
  const licences = names.filter((file) => LICENCE_FILE.test(file));
  const heads = LICENCE_AT_THE_HEAD.get(name) ?? [];
  if (license === undefined || licences.length + heads.length === 0)
    throw new Error(`${name} ${version} has no licence: its code may not be passed on`);
  const read = (file: string): Promise<string> => readFile(join(folder, file), 'utf8');
  const files = [...licences, ...names.filter((file) => NOTICE_FILE.test(file))];
  const texts = [...(await Promise.all(files.map(read))), ...(await Promise.all(heads.map(async (file) => headOf(await read(file)))))];
  return { name, version, license, text: texts.map((text) => text.trim()).join('\n\n') };
}

/** The comment that a file begins with. */
function headOf(source: string): string {
  const comment = /^(?:\/\/.*\n)+/.exec(source)?.[0] ?? '';
  return comment.replaceAll(/^\/\/ ?/gm, '');
}

/** One file with all of them, for people. */
export function licencesText(packages: readonly ShippedPackage[]): string {
  const parts = packages.map(({ name, version, license, text }) => `${'='.repeat(80)}\n${name} ${version} (${license})\n\n${text}\n`);
  return `Code of these packages is in what is shipped of Scute.\n\n${parts.join('\n')}`;
}
