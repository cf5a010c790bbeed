import { err, ok, type Result } from '../lib/result.ts';
import type { IdList } from './id-list.ts';
import { matchesPattern, parsePattern, type Pattern } from './pattern.ts';
import { matchesHost, parseHostPattern, parsePathPattern } from './request-pattern.ts';
import { UNKNOWN_SUBJECT, type RequestFacts } from './request.ts';
import type { SegmentPattern } from './segment-trie.ts';
import { isOpen, nextLook, parseWindow, type TimeWindow, type WindowSpec } from './time-window.ts';

export type Effect = 'allow' | 'deny';
/** `audit`: what the rule decides is counted and told, and denies nothing. */
export type Mode = 'enforce' | 'audit';

/** A rule as written. What is left out does not matter to it; a list that is there is never empty. */
export interface RuleSpec {
  /** Of the TLS peer: a SPIFFE ID, or a pattern of them. At most one of this and `idsFile` is there, and neither only beside `subject`. */
  readonly peer?: string | undefined;
  /** A file with SPIFFE IDs: an absolute path. */
  readonly idsFile?: string | undefined;
  /** Of the subject of the JWT-SVID that a request has: a SPIFFE ID, or a pattern of them. */
  readonly subject?: string | undefined;
  readonly methods?: readonly string[] | undefined;
  readonly paths?: readonly string[] | undefined;
  readonly hosts?: readonly string[] | undefined;
  /** Milliseconds since 1970; the rule holds from then on. */
  readonly notBeforeMs?: number | undefined;
  /** Milliseconds since 1970; the rule holds until then, and no longer at that very moment. */
  readonly notAfterMs?: number | undefined;
  /** The rule holds while one of them is open. */
  readonly windows?: readonly WindowSpec[] | undefined;
  readonly mode?: Mode | undefined;
}

/** One rule, compiled. Immutable. */
export interface Rule {
  readonly effect: Effect;
  readonly mode: Mode;
  /** Its place among the rules of its effect, as they were written: 0 and on. */
  readonly index: number;
  /** In one line, as logs and metrics name it: of a bare entry the entry itself. */
  readonly text: string;
  readonly peer: Pattern | ListedPeers | AnyPeer;
  /** A request must have a JWT-SVID of such a subject. */
  readonly subject: Pattern | undefined;
  readonly methods: ReadonlySet<string> | undefined;
  readonly paths: readonly SegmentPattern[] | undefined;
  readonly hosts: ReadonlySet<string> | undefined;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly windows: readonly TimeWindow[] | undefined;
}

/** Whoever a list names. */
export interface ListedPeers {
  readonly kind: 'list';
  readonly ids: IdList;
}

/** Whoever has proven who it is: what the rule asks for is the subject. */
export interface AnyPeer {
  readonly kind: 'any';
}

/** What a file holds that `idsFile` names; undefined if it was not read. */
export type IdsOf = (file: string) => IdList | undefined;

export interface RuleProblem {
  /** The keys that lead to the value that is wrong, from the rule. */
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** Methods that are forwarded at all: tokens in upper case, without the one that no proxy of requests forwards. */
const METHOD = /^[A-Z][A-Z-]*$/;
const NEVER_FORWARDED = 'TRACE';
const MAX_TEXT = 400;

/** Compiles a rule. The errors name every value that is wrong, or that makes the rule match nothing. */
export function parseRule(
  spec: RuleSpec | string,
  effect: Effect,
  index: number,
  idsOf: IdsOf = () => undefined,
): Result<Rule, readonly RuleProblem[]> {
  const written: RuleSpec = typeof spec === 'string' ? { peer: spec } : spec;
  const problems: RuleProblem[] = [];
  const peer = parsePeer(written, idsOf);
  if (!peer.ok) problems.push({ ...peer.error, path: typeof spec === 'string' ? [] : peer.error.path });

  const subject = written.subject === undefined ? ok(undefined) : parsePattern(written.subject);
  if (!subject.ok) problems.push({ path: ['subject'], message: `${JSON.stringify(written.subject)}: ${subject.error}` });
  for (const [at, method] of (written.methods ?? []).entries()) {
    if (method === NEVER_FORWARDED) problems.push({ path: ['methods', at], message: `${JSON.stringify(method)} is never forwarded` });
    else if (!METHOD.test(method))
      problems.push({ path: ['methods', at], message: `${JSON.stringify(method)} is no method, such as "GET"` });
  }
  const paths = gather(written.paths, 'paths', parsePathPattern, problems);
  const hosts = gather(written.hosts, 'hosts', parseHostPattern, problems);
  const windows: TimeWindow[] = [];
  for (const [at, window] of (written.windows ?? []).entries()) {
    const parsed = parseWindow(window);
    if (parsed.ok) windows.push(parsed.value);
    else problems.push(...parsed.error.map(({ key, message }) => ({ path: ['windows', at, key], message })));
  }
  for (const key of ['methods', 'paths', 'hosts', 'windows'] as const)
    if (written[key]?.length === 0)
      problems.push({ path: [key], message: `an empty list of ${key} matches nothing: leave it out for all` });
  const { notBeforeMs = -Infinity, notAfterMs = Infinity } = written;
  if (!(notBeforeMs < notAfterMs)) problems.push({ path: ['notAfter'], message: 'the rule ends before it begins, so it never holds' });

  if (problems.length > 0 || !peer.ok || !subject.ok) return err(problems);
  return ok(
    Object.freeze({
      effect,
      mode: written.mode ?? 'enforce',
      index,
      text: ruleText(spec, effect),
      peer: peer.value,
      subject: subject.value,
      methods: written.methods === undefined ? undefined : new Set(written.methods),
      paths,
      hosts: hosts === undefined ? undefined : new Set(hosts),
      notBeforeMs,
      notAfterMs,
      windows: written.windows === undefined ? undefined : windows,
    }),
  );
}

function parsePeer({ peer, idsFile, subject }: RuleSpec, idsOf: IdsOf): Result<Rule['peer'], RuleProblem> {
  if (peer !== undefined && idsFile !== undefined) return err({ path: ['idsFile'], message: 'replaces peer: set one of the two' });
  if (idsFile !== undefined) {
    const ids = idsOf(idsFile);
    return ids === undefined ? err({ path: ['idsFile'], message: `${idsFile} cannot be used` }) : ok({ kind: 'list', ids });
  }
  if (peer === undefined && subject !== undefined) return ok(ANY_PEER);
  if (peer === undefined) return err({ path: ['peer'], message: 'is required, or idsFile or subject' });
  const parsed = parsePattern(peer);
  return parsed.ok ? parsed : err({ path: ['peer'], message: `${JSON.stringify(peer)}: ${parsed.error}` });
}

const ANY_PEER: AnyPeer = { kind: 'any' };

function gather<T>(
  texts: readonly string[] | undefined,
  key: string,
  parse: (text: string) => Result<T, string>,
  problems: RuleProblem[],
): readonly T[] | undefined {
  return texts?.flatMap((text, at) => {
    const parsed = parse(text);
    if (parsed.ok) return [parsed.value];
    problems.push({ path: [key, at], message: `${JSON.stringify(text)}: ${parsed.error}` });
    return [];
  });
}

/** A rule in one line, as logs, metrics and reloads name it: a bare entry as written, and of long others the beginning. */
export function ruleText(spec: RuleSpec | string, effect: Effect): string {
  if (typeof spec === 'string') return effect === 'deny' ? `deny ${spec}` : spec;
  const { peer, idsFile, subject, methods, paths, hosts, notBeforeMs, notAfterMs, windows, mode } = spec;
  const parts = [
    ...(effect === 'deny' ? ['deny'] : []),
    ...(peer === undefined ? (idsFile === undefined ? [] : [`idsFile ${idsFile}`]) : [peer]),
    ...(subject === undefined ? [] : [`subject ${subject}`]),
    ...(methods === undefined ? [] : [methods.join(',')]),
    ...(paths === undefined ? [] : [paths.join(',')]),
    ...(hosts === undefined ? [] : [`host ${hosts.join(',')}`]),
    ...(notBeforeMs === undefined ? [] : [`from ${new Date(notBeforeMs).toISOString()}`]),
    ...(notAfterMs === undefined ? [] : [`until ${new Date(notAfterMs).toISOString()}`]),
    ...(windows ?? []).map(({ days, from, to, timeZone }) => `${days === undefined ? '' : `${days.join(',')} `}${from}-${to} ${timeZone}`),
  ];
  const text = parts.join(' ');
  return `${text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text}${mode === 'audit' ? ' (audit)' : ''}`;
}

/** Whether the rule asks for something of a request. Without one it is not known whether it holds. */
export function asksOfRequest({ methods, paths, hosts, subject }: Rule): boolean {
  return methods !== undefined || paths !== undefined || hosts !== undefined || subject !== undefined;
}

/** Whether the rule holds at some times and not at others. */
export function isTimed({ notBeforeMs, notAfterMs, windows }: Rule): boolean {
  return notBeforeMs > -Infinity || notAfterMs < Infinity || windows !== undefined;
}

export function holdsAt(
  { notBeforeMs, notAfterMs, windows }: Pick<Rule, 'notBeforeMs' | 'notAfterMs' | 'windows'>,
  nowMs: number,
): boolean {
  // Written so that a time that is no number is outside of everything.
  return nowMs >= notBeforeMs && nowMs < notAfterMs && (windows === undefined || windows.some((window) => isOpen(window, nowMs)));
}

/** Whether the rule is for such requests, but for their path. */
export function isForMethodAndHost({ methods, hosts }: Pick<Rule, 'methods' | 'hosts'>, { method, host }: RequestFacts): boolean {
  return (methods === undefined || methods.has(method)) && (hosts === undefined || matchesHost(hosts, host));
}

/** Whether the rule is for requests with such a token, or with none. */
export function isForSubject({ subject, effect }: Pick<Rule, 'subject' | 'effect'>, { subject: given }: RequestFacts): boolean {
  if (subject === undefined) return true;
  // Where nobody can say whose it is, nothing is allowed for it, and what may be denied is.
  if (given === UNKNOWN_SUBJECT) return effect === 'deny';
  return given !== undefined && matchesPattern(subject, given);
}

/** A time after `nowMs` and not later than the next one at which `holdsAt` changes: then it is to be asked again. */
export function nextLookAt({ notBeforeMs, notAfterMs, windows }: Rule, nowMs: number): number {
  const looks = [notBeforeMs, notAfterMs].filter((ms) => ms > nowMs);
  // Outside of its dates the windows decide nothing.
  if (windows !== undefined && nowMs >= notBeforeMs && nowMs < notAfterMs) looks.push(...windows.map((window) => nextLook(window, nowMs)));
  return Math.min(Infinity, ...looks);
}
