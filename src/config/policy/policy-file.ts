import { inTurns } from '../in-turns.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import type { IdList } from '../../policy/id-list.ts';
import { compileInTurns, type Policy } from '../../policy/policy.ts';
import type { Effect } from '../../policy/rule.ts';
import { appearances } from '../file-watch.ts';
import { readIdsFile } from './ids-file.ts';
import { formatPlace, type ConfigIssue } from '../issue.ts';
import type { PolicyTextParser, WrittenPolicy } from './policy-text.ts';
import { CHANGED, readText, unread } from '../whole-file.ts';

/** A policy is written by hand; what is longer lies in lists. */
export const MAX_POLICY_BYTES = 4 * 1024 * 1024;
/** Each costs every look-up something. */
export const MAX_LISTS = 64;

/** What came of reading a policy file and the lists that it names: they are one. */
export interface ReadPolicy {
  readonly result: Result<Policy, readonly ConfigIssue[]>;
  /** All files that were needed. */
  readonly files: readonly string[];
  /** How they looked before they were read. */
  readonly looks: string;
}

export interface ReadPolicyOptions {
  readonly parse: PolicyTextParser;
  /** The lists that were read last, by file. */
  readonly known: ReadonlyMap<string, IdList>;
  /** Once it is aborted, nobody waits for the policy. */
  readonly stop?: AbortSignal | undefined;
}

/** Reads and compiles a policy file, an absolute path, a part at a time. Files that change meanwhile are refused: half of them could be old. */
export async function readPolicyFile(file: string, { parse, known, stop }: ReadPolicyOptions): Promise<ReadPolicy> {
  const files = [file];
  const looks = [await appearances([file])];
  const read = async (): Promise<Result<Policy, readonly ConfigIssue[]>> => {
    const text = await readText(file, MAX_POLICY_BYTES);
    if (!text.ok) return err([text.error]);
    const written = await parse(text.value, file, stop);
    if (!written.ok) return written;
    const lists = await readLists(listsOf(written.value), known, async (list) => {
      files.push(list);
      looks.push(await appearances([list]));
    });
    if (!lists.ok) return lists;
    const compiled = await inTurns(
      compileInTurns(written.value.spec, { idsOf: (list) => lists.value.get(list), placeOf: placesIn(file, written.value) }),
    );
    // Whatever a rule needs was checked when it was parsed, but for the lists.
    if (!compiled.ok) return err(compiled.error.map(({ message }) => unread(file, message)));
    return looks.join('\n') === (await appearances(files)) ? compiled : err([unread(file, `or a list that it names ${CHANGED}`)]);
  };
  const result = await read();
  return { result, files, looks: looks.join('\n') };
}

/** Reads lists one after the other; `about` is told of each before. */
export async function readLists(
  files: readonly string[],
  known: ReadonlyMap<string, IdList>,
  about: (file: string) => Promise<void>,
): Promise<Result<ReadonlyMap<string, IdList>, readonly ConfigIssue[]>> {
  const lists = new Map<string, IdList>();
  const issues: ConfigIssue[] = [];
  for (const [index, file] of files.entries()) {
    if (index >= MAX_LISTS) return err([...issues, unread(file, `is one more list than the ${MAX_LISTS} that there may be`)]);
    await about(file);
    const read = await readIdsFile(file, known.get(file));
    if (read.ok) lists.set(file, read.value);
    else issues.push(...read.error);
  }
  return issues.length > 0 ? err(issues) : ok(lists);
}

function listsOf({ spec: { allow, deny = [] } }: WrittenPolicy): readonly string[] {
  return [
    ...new Set([...allow, ...deny].flatMap((rule) => (typeof rule === 'string' || rule.idsFile === undefined ? [] : [rule.idsFile]))),
  ];
}

function placesIn(file: string, { places }: WrittenPolicy): (effect: Effect, index: number) => string {
  return (effect, index) => formatPlace({ source: file, line: places[effect][index * 2], column: places[effect][index * 2 + 1] });
}
