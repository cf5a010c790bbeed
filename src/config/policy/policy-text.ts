/** Reads the text of a policy file. Pure; a large one takes a second, so a process that serves has it done apart. */
import { dirname, resolve } from 'node:path';
import * as z from 'zod';
import { atOnce } from '../../lib/at-once.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import { IdListBuilder } from '../../policy/id-list.ts';
import type { PolicySpec } from '../../policy/policy.ts';
import type { Effect, RuleSpec } from '../../policy/rule.ts';
import { checkPolicy, evenIfIncomplete } from '../consistency.ts';
import * as field from '../fields.ts';
import { judge, type ConfigIssue } from '../issue.ts';
import { MAX_ISSUES } from '../line-reader.ts';
import { parseYaml } from '../yaml.ts';

/** A policy and where each of its rules is written. Plain data. */
export interface WrittenPolicy {
  readonly spec: PolicySpec;
  /** Line and column, from 1, of one rule after the other. */
  readonly places: Readonly<Record<Effect, Uint32Array>>;
}

/** Nobody waits for what it finds once `stop` is aborted: it may give up then, with a problem. */
export type PolicyTextParser = (text: string, file: string, stop?: AbortSignal) => Promise<Result<WrittenPolicy, readonly ConfigIssue[]>>;

/** Of all rules, as JSON: more than a file may have without aliases. */
const MAX_LETTERS = 16 * 1024 * 1024;

const END_MARK = /^\.\.\.[ \t]*(?:[ \t]#.*)?\r?$/;
const BLANK = /^[ \t]*(?:#.*)?\r?$/;

/** `file` is its absolute path. The lists that it names are not looked into. The first problems alone are told. */
export function parsePolicyText(text: string, file: string): Result<WrittenPolicy, readonly ConfigIssue[]> {
  const cutOff = cutOffAt(text);
  if (cutOff !== undefined)
    return err([
      {
        source: file,
        line: cutOff,
        column: 1,
        path: '',
        message: 'the line "..." is missing, with which the file must end: it may have been cut off',
      },
    ]);
  const raw = parseYaml(text, file);
  if (!raw.ok) return err(raw.error.slice(0, MAX_ISSUES));
  const judged = judge(policySchema(dirname(file)), raw.value);
  if (!judged.ok) return err(judged.error.slice(0, MAX_ISSUES));
  const { allow, deny, mode } = judged.value;
  if (isLong([...allow, ...deny]))
    return err([
      { ...raw.value.locate([], 'value'), path: '', message: `has rules of more than ${MAX_LETTERS} letters, its aliases followed` },
    ]);
  const placesOf = (effect: Effect, { length }: readonly unknown[]): Uint32Array =>
    Uint32Array.from(
      Array.from({ length }, (_, index) => raw.value.locate([effect, index], 'value')).flatMap(({ line = 1, column = 1 }) => [
        line,
        column,
      ]),
    );
  return ok({ spec: { allow, deny, mode }, places: { allow: placesOf('allow', allow), deny: placesOf('deny', deny) } });
}

export function policySchema(folder: string) {
  z.config({ jitless: true });
  const none = atOnce(new IdListBuilder().build('', '', undefined));
  const lists: field.ListLookups = { resolve: (path) => resolve(folder, path), idsOf: () => none };
  return z
    .strictObject({
      allow: field.ruleList('allow', lists),
      deny: field.ruleList('deny', lists).prefault([]),
      mode: z.enum(['enforce', 'audit']).prefault('enforce'),
    })
    .superRefine(checkPolicy, evenIfIncomplete);
}

/** Each may be written once and stand for many, which take memory and time each. */
function isLong(rules: readonly (string | RuleSpec)[]): boolean {
  let letters = 0;
  return rules.some((rule) => (letters += JSON.stringify(rule).length) > MAX_LETTERS);
}

/** The number of the line that should be the end mark, and is not there. Behind it there may be comments and blank lines. */
function cutOffAt(text: string): number | undefined {
  for (let end = text.length; ;) {
    const begin = end === 0 ? 0 : text.lastIndexOf('\n', end - 1) + 1;
    const line = text.slice(begin, end);
    if (END_MARK.test(line)) return undefined;
    if (!BLANK.test(line) || begin === 0) break;
    end = begin - 1;
  }
  return text.split('\n').length + (text.endsWith('\n') || text === '' ? 0 : 1);
}
