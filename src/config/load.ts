import { constants } from 'node:fs';
import { open, readFile, type FileHandle } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type * as z from 'zod';
import { systemClock } from '../lib/clock.ts';
import { codeOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { IdList } from '../policy/id-list.ts';
import type { Policy } from '../policy/policy.ts';
import type { Config } from './config.ts';
import { appearances } from './file-watch.ts';
import { judge, type ConfigIssue, type RawConfig } from './issue.ts';
import { namedFiles } from './named-files.ts';
import { readLists, readPolicyFile, type ReadPolicy } from './policy/policy-file.ts';
import type { PolicyTextParser } from './policy/policy-text.ts';
import { overlay, type Environment } from './policy/precedence.ts';
import { createConfigSchema, type Lookups } from './schema.ts';
import type { SystemUser } from './sections/exec.ts';
import type { FileLookups } from './sections/policy.ts';
import { directoryProblem, lookAtDirectory, type DirectoryLook } from './target-directory.ts';
import { CHANGED, unread, unreadable } from './whole-file.ts';

/** A configuration is written by hand; what is larger is not one. */
export const MAX_CONFIG_BYTES = 4 * 1024 * 1024;
/** Whoever writes to a pipe was started together with us. */
const PIPE_WITHIN_MS = 10_000;
const PIPE_LOOK_MS = 20;

/** Where a configuration comes from: a file, flags, or both. */
export interface ConfigSources {
  readonly file: string | undefined;
  /** In the shape of a file. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Environment;
  /** What a policy file holds, an absolute path; if left out it is read, each time. */
  readonly readPolicy?: ((file: string) => Promise<ReadPolicy>) | undefined;
  /** For one who is about to write there: whose process this is. What is wrong with directories of `files` is a problem of the configuration then. */
  readonly writesAs?: number | undefined;
  /** For one who is about to run it: whether there is an application beside us. */
  readonly runsApplication?: boolean | undefined;
}

/** Reads, parses and judges a configuration. All problems come at once, in the order of the file. */
export async function loadConfig(sources: ConfigSources): Promise<Result<Config, readonly ConfigIssue[]>> {
  if (sources.file === undefined) return parseConfig(undefined, sources);
  const text = await readConfigFile(sources.file);
  return text.ok ? parseConfig(text.value, sources) : text;
}

/** A good value, and where its parts are written. */
export interface Located<T> extends Pick<RawConfig, 'locate'> {
  readonly value: T;
}

/** As `loadConfig`, for one who must also say where a part of it is written. */
export async function loadLocatedConfig(
  sources: ConfigSources & { readonly file: string },
): Promise<Result<Located<Config>, readonly ConfigIssue[]>> {
  const text = await readConfigFile(sources.file);
  return text.ok ? parseLocatedConfig(text.value, sources) : text;
}

/** As `loadConfig`, for the text that the file holds. */
export async function parseConfig(text: string | undefined, sources: ConfigSources): Promise<Result<Config, readonly ConfigIssue[]>> {
  const parsed = await parseLocatedConfig(text, sources);
  return parsed.ok ? ok(parsed.value.value) : parsed;
}

async function parseLocatedConfig(
  text: string | undefined,
  sources: ConfigSources,
): Promise<Result<Located<Config>, readonly ConfigIssue[]>> {
  return (await parseConfigWithLists(text, sources, new Map())).parsed;
}

/** A configuration, and the lists of SPIFFE IDs that it names. */
export interface ParsedWithLists {
  readonly parsed: Result<Located<Config>, readonly ConfigIssue[]>;
  /**
   * Absolute paths, and how the files looked before they were read: the lists, and of a configuration with a problem, which a mend of them may
   * end, the policy files as well.
   */
  readonly files: readonly string[];
  readonly looks: string;
  /** Those that could be read. */
  readonly lists: ReadonlyMap<string, IdList>;
}

/** As `parseConfig`, for one who watches the lists as well. `known` are those that were read last. */
export async function parseConfigWithLists(
  text: string | undefined,
  sources: ConfigSources,
  known: ReadonlyMap<string, IdList>,
): Promise<ParsedWithLists> {
  let raw: RawConfig = { value: {}, locate: () => ({ source: 'command line', line: undefined, column: undefined }) };
  if (text !== undefined) {
    // Parsed only when there is something to parse, because loading the parser takes a while.
    const { parseYaml } = await import('./yaml.ts');
    const parsed = parseYaml(text, sources.file ?? 'configuration');
    if (!parsed.ok) return { parsed, files: [], looks: '', lists: known };
    raw = parsed.value;
  }
  const whole = overlay(raw, sources);
  const { lookups, issues, policies, ...read } = await readNamedFiles(whole.value, sources, known);
  const directoryProblem = await lookAtDirectories(whole.value, sources.writesAs);
  const { runsApplication } = sources;
  const judged = judgeLocated(createConfigSchema({ ...(await systemLookups()), files: lookups, directoryProblem, runsApplication }), whole);
  if (judged.ok && issues.length === 0) return { parsed: judged, ...read };
  return {
    parsed: err([...(judged.ok ? [] : judged.error), ...issues]),
    files: [...read.files, ...policies.flatMap(({ files }) => files)],
    looks: [read, ...policies].flatMap(({ files, looks }) => (files.length === 0 ? [] : [looks])).join('\n'),
    lists: read.lists,
  };
}

/** What is wrong with the directories of `files`, by path; nobody asks unless somebody will write there. */
async function lookAtDirectories(raw: unknown, writesAs: number | undefined): Promise<Lookups['directoryProblem']> {
  if (writesAs === undefined) return undefined;
  const looks = new Map<string, DirectoryLook>();
  // What is no good path is told as that.
  for (const path of namedFiles(raw).directories.filter((text) => /^\/[^\0]+$/.test(text))) looks.set(path, await lookAtDirectory(path));
  const twinOf = (path: string, look: DirectoryLook): string | undefined =>
    [...looks].find(([other, seen]) => other !== path && look.kind !== 'unusable' && seen.kind !== 'unusable' && seen.id === look.id)?.[0];
  return (path, unsafeDisk) => {
    const look = looks.get(path);
    if (look === undefined) return undefined;
    const twin = twinOf(path, look);
    return twin === undefined ? directoryProblem(path, look, { uid: writesAs, unsafeDisk }) : `${path} is ${twin} by another name`;
  };
}

interface NamedAndRead extends Omit<ParsedWithLists, 'parsed'> {
  readonly lookups: FileLookups;
  readonly policies: readonly ReadPolicy[];
  readonly issues: readonly ConfigIssue[];
}

/** Reads what a configuration names: it is judged with it. */
async function readNamedFiles(raw: unknown, sources: ConfigSources, known: ReadonlyMap<string, IdList>): Promise<NamedAndRead> {
  const folder = sources.file === undefined ? process.cwd() : dirname(resolve(sources.file));
  const absolute = (path: string): string => resolve(folder, path);
  const named = namedFiles(raw);
  const issues: ConfigIssue[] = [];
  const policies = new Map<string, ReadPolicy>();
  for (const file of new Set(named.policyFiles.map(absolute))) {
    const policy = await (sources.readPolicy ?? readPolicyNow)(file);
    policies.set(file, policy);
    if (!policy.result.ok) issues.push(...policy.result.error);
  }
  const policyOf = (file: string): Policy | undefined => {
    const result = policies.get(file)?.result;
    return result?.ok === true ? result.value : undefined;
  };
  const files: string[] = [];
  const looks: string[] = [];
  const lists = await readLists([...new Set(named.idsFiles.map(absolute))], known, async (file) => {
    files.push(file);
    looks.push(await appearances([file]));
  });
  if (!lists.ok) issues.push(...lists.error);
  else if (looks.join('\n') !== (await appearances(files))) issues.push(unread(files.join(', '), CHANGED));
  const read = lists.ok ? lists.value : new Map<string, IdList>();
  const lookups = { resolve: absolute, policyOf, idsOf: (file: string) => read.get(file) };
  return { lookups, issues, policies: [...policies.values()], files, looks: looks.join('\n'), lists: lists.ok ? lists.value : known };
}

/** In this thread: nobody is served yet. */
export const parsePolicyNow: PolicyTextParser = async (text, file) => {
  const { parsePolicyText } = await import('./policy/policy-text.ts');
  return parsePolicyText(text, file);
};

function readPolicyNow(file: string): Promise<ReadPolicy> {
  return readPolicyFile(file, { parse: parsePolicyNow, known: new Map() });
}

/** Reads, parses and judges a file by another schema, with the same care and the same messages. */
export async function loadYaml<T>(file: string, schema: z.ZodType<T>): Promise<Result<T, readonly ConfigIssue[]>> {
  const loaded = await loadLocatedYaml(file, schema);
  return loaded.ok ? ok(loaded.value.value) : loaded;
}

/** As `loadYaml`, for one who must also say where a part of it is written. */
export async function loadLocatedYaml<T>(file: string, schema: z.ZodType<T>): Promise<Result<Located<T>, readonly ConfigIssue[]>> {
  const text = await readConfigFile(file);
  if (!text.ok) return text;
  const { parseYaml } = await import('./yaml.ts');
  const parsed = parseYaml(text.value, file);
  return parsed.ok ? judgeLocated(schema, parsed.value) : parsed;
}

function judgeLocated<T>(schema: z.ZodType<T>, raw: RawConfig): Result<Located<T>, readonly ConfigIssue[]> {
  const judged = judge(schema, raw);
  return judged.ok ? ok({ value: judged.value, locate: (path, target) => raw.locate(path, target) }) : judged;
}

/** The text of a configuration file, bounded, and UTF-8 or refused. It may be a pipe, as in `-c /dev/stdin`, that ends within `pipeWithinMs`. */
export async function readConfigFile(
  file: string,
  { pipeWithinMs = PIPE_WITHIN_MS }: { readonly pipeWithinMs?: number } = {},
): Promise<Result<string, readonly ConfigIssue[]>> {
  const wrong = (message: string): Result<never, readonly ConfigIssue[]> => err([unread(file, message)]);
  try {
    // A pipe without a writer would otherwise hold up a thread, and with it the end of this process, whatever signal asks for that.
    await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const kind = await handle.stat();
    if (kind.isDirectory()) return wrong('is a directory, not a file');
    const bytes = Buffer.allocUnsafe(MAX_CONFIG_BYTES + 1);
    const untilMs = systemClock.monotonic() + pipeWithinMs;
    const untilTheEnd = new AbortController().signal;
    let length = 0;
    while (length < bytes.length) {
      const count = await (kind.isFIFO() ? readPipe : readRegular)(handle, bytes, length);
      if (count === 0) break;
      if (count !== undefined) length += count;
      else if (systemClock.monotonic() < untilMs) await systemClock.sleep(PIPE_LOOK_MS, untilTheEnd);
      else return wrong(`is a pipe that nobody wrote to its end within ${pipeWithinMs / 1000} s`);
    }
    if (length > MAX_CONFIG_BYTES) return wrong(`is larger than ${MAX_CONFIG_BYTES} bytes`);
    return ok(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, length)));
  } catch (cause) {
    if (codeOf(cause) === 'ERR_ENCODING_INVALID_ENCODED_DATA') return wrong('is not UTF-8 text');
    return err([unreadable(file, cause)]);
  }
}

/** How many bytes came; 0 at the end. */
async function readRegular(handle: FileHandle, bytes: Buffer, from: number): Promise<number> {
  return (await handle.read(bytes, from, bytes.length - from, null)).bytesRead;
}

/** The same; undefined while there is no more, or nobody has begun to write. */
async function readPipe(handle: FileHandle, bytes: Buffer, from: number): Promise<number | undefined> {
  try {
    return (await readRegular(handle, bytes, from)) || (from === 0 ? undefined : 0);
  } catch (cause) {
    if (codeOf(cause) === 'EAGAIN') return undefined;
    throw cause;
  }
}

/** Names from `/etc/group` and `/etc/passwd`. Read at each load, so that a reload sees new ones. */
export async function systemLookups(): Promise<Lookups> {
  const groups = new Map<string, number>();
  const users = new Map<string | number, SystemUser>();
  for (const [name, , gid] of await linesOf('/etc/group'))
    if (name !== undefined && gid !== undefined && /^\d+$/.test(gid) && !groups.has(name)) groups.set(name, Number(gid));
  for (const [name, , uid = '', gid = '', , home = '/'] of await linesOf('/etc/passwd')) {
    if (name === undefined || !/^\d+$/.test(uid) || !/^\d+$/.test(gid)) continue;
    const user = { name, uid: Number(uid), gid: Number(gid), home };
    for (const key of [user.name, user.uid]) if (!users.has(key)) users.set(key, user);
  }
  return { groupId: (name) => groups.get(name), user: (nameOrUid) => users.get(nameOrUid) };
}

/** An image without shell may have no such file; then users and groups are given by number. */
async function linesOf(file: string): Promise<string[][]> {
  const text = await readFile(file, 'utf8').catch(() => '');
  return text.split('\n').map((line) => line.split(':'));
}
