import { open, readFile } from 'node:fs/promises';
import { codeOf, messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { Config } from './config.ts';
import { judge, type ConfigIssue, type RawConfig } from './issue.ts';
import { overlay, type Environment } from './precedence.ts';
import { createConfigSchema, type Lookups } from './schema.ts';
import { parseYaml } from './yaml.ts';

/** A configuration is written by hand; what is larger is not one. */
export const MAX_CONFIG_BYTES = 4 * 1024 * 1024;

/** Where a configuration comes from: a file, or the flags of the command line in the shape that a file has. Never both in one place. */
export interface ConfigSources {
  readonly file: string | undefined;
  /** In the shape of a file. Goes before the environment, which goes before the file. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Environment;
}

/** Reads, parses and judges a configuration. All problems come at once, in the order of the file. */
export async function loadConfig({ file, flags, env }: ConfigSources): Promise<Result<Config, readonly ConfigIssue[]>> {
  let raw: RawConfig = { value: {}, locate: () => ({ source: 'command line', line: undefined, column: undefined }) };
  if (file !== undefined) {
    const read = await readConfigFile(file);
    if (!read.ok) return read;
    const parsed = parseYaml(read.value, file);
    if (!parsed.ok) return parsed;
    raw = parsed.value;
  }
  return judge(createConfigSchema(await systemLookups()), overlay(raw, { flags, env }));
}

/** The text of a configuration file, bounded, and UTF-8 or refused. */
export async function readConfigFile(file: string): Promise<Result<string, readonly ConfigIssue[]>> {
  const issue = (message: string): ConfigIssue => ({ source: file, line: undefined, column: undefined, path: '', message });
  try {
    await using handle = await open(file, 'r');
    const bytes = Buffer.alloc(MAX_CONFIG_BYTES + 1);
    let length = 0;
    while (length < bytes.length) {
      const { bytesRead } = await handle.read(bytes, length, bytes.length - length, null);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    if (length > MAX_CONFIG_BYTES) return err([issue(`is larger than ${MAX_CONFIG_BYTES} bytes`)]);
    return ok(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, length)));
  } catch (cause) {
    if (codeOf(cause) === 'ERR_ENCODING_INVALID_ENCODED_DATA') return err([issue('is not UTF-8 text')]);
    return err([issue(`cannot be read: ${messageOf(cause)}`)]);
  }
}

/** Group names from `/etc/group`. Read at each load, so that a reload sees new groups. */
export async function systemLookups(): Promise<Lookups> {
  const groups = new Map<string, number>();
  // An image without shell may have no such file; then groups are given by number.
  const text = await readFile('/etc/group', 'utf8').catch(() => '');
  for (const line of text.split('\n')) {
    const [name, , gid] = line.split(':');
    if (name !== undefined && gid !== undefined && /^\d+$/.test(gid) && !groups.has(name)) groups.set(name, Number(gid));
  }
  return { groupId: (name) => groups.get(name) };
}
