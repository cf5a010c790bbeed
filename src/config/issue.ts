import type * as z from 'zod';
import { err, ok, type Result } from '../lib/result.ts';

/** One thing that is wrong with a configuration, and where. */
export interface ConfigIssue {
  /** The file as it was named, or `command line` or `environment`. */
  readonly source: string;
  /** From 1, as editors count; undefined where there is no text to point at. */
  readonly line: number | undefined;
  readonly column: number | undefined;
  /** As in `inbound[0].allow`; empty for the whole. */
  readonly path: string;
  readonly message: string;
  /** What was short may be there again without a change to any file. */
  readonly mayPass?: true;
}

export type IssuePath = readonly PropertyKey[];

/** A parsed but unjudged configuration, and where its parts came from. */
export interface RawConfig {
  readonly value: unknown;
  /** Where the value at `path` is written, or, with `key`, its key. What is missing is located at the nearest thing around it. */
  locate(path: IssuePath, target: 'key' | 'value'): Pick<ConfigIssue, 'source' | 'line' | 'column'>;
}

/** Judges a raw configuration by a schema. The value comes out deep-frozen; the issues in the order of the text. */
export function judge<T>(schema: z.ZodType<T>, raw: RawConfig): Result<T, readonly ConfigIssue[]> {
  const judged = parse(schema, raw.value);
  if (judged === 'too many problems')
    return err([{ ...raw.locate([], 'value'), path: '', message: 'has more problems than can be told: is it a configuration at all?' }]);
  if (judged.success) return ok(deepFreeze(judged.data));
  const all = judged.error.issues.flatMap(ofMeantKind);
  let left = 0;
  const issues = all.slice(0, MAX_ISSUES).flatMap((issue): ConfigIssue[] => {
    if (issue.code !== 'unrecognized_keys') {
      return [{ ...raw.locate(issue.path, 'value'), path: formatPath(issue.path), message: sentence(issue) }];
    }
    const known = knownKeys(schema, issue.path);
    left += Math.max(0, issue.keys.length - MAX_ISSUES);
    return issue.keys.slice(0, MAX_ISSUES).map((key) => {
      const path = [...issue.path, key];
      return { ...raw.locate(path, 'key'), path: formatPath(path), message: unknownKey(key, known) };
    });
  });
  left += Math.max(0, all.length - MAX_ISSUES);
  issues.sort((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0));
  if (left > 0) issues.push({ ...raw.locate([], 'value'), path: '', message: `has ${left} more problems` });
  return err(issues);
}

/** Problems that are told one by one. */
const MAX_ISSUES = 100;

/** zod hands the problems of a list on as the arguments of one call, of which there may be only so many. */
function parse<T>(schema: z.ZodType<T>, value: unknown): z.ZodSafeParseResult<T> | 'too many problems' {
  try {
    return schema.safeParse(value, { reportInput: false });
  } catch (cause) {
    if (cause instanceof RangeError) return 'too many problems';
    throw cause;
  }
}

/** Where several kinds of value will do, the problems of the one that was meant, if one of them takes that type of value at all. */
function ofMeantKind(issue: z.core.$ZodIssue): readonly z.core.$ZodIssue[] {
  if (issue.code !== 'invalid_union') return [issue];
  const meant = issue.errors.filter((issues) => !issues.some(({ code, path }) => code === 'invalid_type' && path.length === 0));
  const [only, ...more] = meant;
  if (only === undefined || more.length > 0) return [issue];
  return only.map((inner) => ({ ...inner, path: [...issue.path, ...inner.path] })).flatMap(ofMeantKind);
}

/** `scute.yaml:12:5 inbound[0].allow: …`, one issue a line. */
export function formatIssues(issues: readonly ConfigIssue[]): string {
  return issues
    .map(({ path, message, ...place }) => (path === '' ? `${formatPlace(place)}: ${message}` : `${formatPlace(place)} ${path}: ${message}`))
    .join('\n');
}

/** `scute.yaml:12:5`. */
export function formatPlace({ source, line, column }: Pick<ConfigIssue, 'source' | 'line' | 'column'>): string {
  return line === undefined ? source : `${source}:${line}:${column ?? 1}`;
}

/** `inbound[0].allow`. */
export function formatPath(path: IssuePath): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else text += `${text === '' ? '' : '.'}${printable(String(part))}`;
  }
  return text;
}

function sentence(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return issue.message.endsWith('received undefined') ? 'is required' : lowerFirst(issue.message.replace(/^Invalid input: /, ''));
    case 'invalid_value':
      return `must be ${issue.values.length === 1 ? '' : 'one of '}${issue.values.map(String).join(', ')}`;
    case 'invalid_union':
      return issue.message === 'Invalid input' ? 'must be text or a whole number' : issue.message;
    case 'too_small':
      return `must be at least ${issue.minimum}`;
    case 'too_big':
      return `must be at most ${issue.maximum}`;
    case 'custom':
    case 'invalid_format':
      return issue.message;
    default:
      return lowerFirst(issue.message);
  }
}

function unknownKey(key: string, known: readonly string[]): string {
  const close = known.map((candidate) => ({ candidate, distance: editDistance(key.toLowerCase(), candidate.toLowerCase()) }));
  const best = close.filter(({ distance }) => distance <= 2).toSorted((a, b) => a.distance - b.distance)[0];
  if (best !== undefined) return `is not known here: did you mean ${best.candidate}?`;
  return known.length === 0 ? 'is not known here' : `is not known here: there is ${known.join(', ')}`;
}

/** The keys that the schema has at `path`. */
function knownKeys(schema: z.ZodType, path: IssuePath): readonly string[] {
  let at: unknown = schema;
  for (const part of path) {
    const inner = unwrap(at);
    if (typeof part === 'number') at = inner?.element;
    else at = inner?.shape?.[String(part)];
  }
  return Object.keys(unwrap(at)?.shape ?? {});
}

interface Definition {
  readonly shape?: Readonly<Record<string, unknown>>;
  readonly element?: unknown;
  readonly innerType?: unknown;
  readonly in?: unknown;
  readonly options?: readonly unknown[];
}

/** The definition below `optional`, `prefault` and transforms. */
function unwrap(schema: unknown): Definition | undefined {
  let definition = (schema as { def?: Definition } | undefined)?.def;
  while (definition !== undefined && definition.shape === undefined && definition.element === undefined) {
    // Of several kinds, only one has keys.
    const inner = definition.innerType ?? definition.in ?? definition.options?.find((option) => unwrap(option)?.shape !== undefined);
    if (inner === undefined) return undefined;
    definition = (inner as { def?: Definition }).def;
  }
  return definition;
}

function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return Infinity;
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const replaced = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min(replaced, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? Infinity;
}

/** Text of a file that goes to a terminal: no control characters, bounded. */
function printable(text: string): string {
  const plain = /^[\w.-]{1,100}$/.test(text) ? text : JSON.stringify(text.slice(0, 100));
  // oxlint-disable-next-line no-control-regex -- JSON.stringify leaves DEL and the C1 controls
  return plain.replace(/[\u007f-\u009f]/g, '?');
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  for (const inner of Object.values(value)) deepFreeze(inner);
  return Object.freeze(value);
}
