/** What a compiled policy says, held against a plain reading of the rules as they are written. */
import assert from 'node:assert/strict';
import { compilePolicy, type Decision, type Policy, type PolicySpec } from '../../src/policy/policy.ts';
import { factsOf } from '../../src/policy/judge.ts';
import type { RequestFacts } from '../../src/policy/request.ts';
import { ruleText, type RuleSpec } from '../../src/policy/rule.ts';
import { DAYS, type WindowSpec } from '../../src/policy/time-window.ts';
import type { SpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { drawDate, drawPolicy, drawQuestion, HOSTS, METHODS, PATHS, SUBJECTS } from '../support/policy/policies.ts';
import { Draws } from './random.ts';

const QUESTIONS = 40;
export const POLICY_ANSWERS = ['allow', 'audit', 'denied', 'not_allowed'] as const;
export type PolicyAnswer = (typeof POLICY_ANSWERS)[number];

/** One case, a policy and 40 questions: the same for the same number. Throws with all of it if the two differ. Gives the answers. */
export function checkPolicyCase(number: number): Record<PolicyAnswer, number> {
  const draws = new Draws(number);
  const dateMs = drawDate(draws);
  const spec = drawPolicy(draws, dateMs);
  const compiled = compilePolicy(spec);
  assert.ok(compiled.ok, JSON.stringify(compiled));
  const policy = compiled.value;
  const seen = { allow: 0, audit: 0, denied: 0, not_allowed: 0 };
  for (let question = 0; question < QUESTIONS; question++) {
    const { peer, request, nowMs } = drawQuestion(draws, dateMs);
    const answer = ask(policy, peer, request && spell(policy, request, draws), nowMs);
    const expected = naive(spec, peer, request, nowMs);
    if (answer !== expected) fail({ answer, expected, peer, request, nowMs });
    seen[answer.split(' ', 1)[0] as PolicyAnswer]++;
    if (question === 0) checkConnection(peer, nowMs);
    if (question === 0) checkEveryRequest(peer, nowMs);
    if (question < 4) checkNextLook(peer, request, nowMs);
  }
  return seen;

  /** Who is denied the connection is denied every request. */
  function checkConnection(peer: SpiffeId, nowMs: number): void {
    const of = policy.forPeer(peer);
    if (of.judgeConnection(nowMs).allowed) return;
    for (const request of everyRequest())
      if (of.judge(request, nowMs).allowed) fail({ peer, request, nowMs, but: 'the connection is denied' });
  }

  /** Of whom every request is allowed at once, none is denied, nor only passes in audit. */
  function checkEveryRequest(peer: SpiffeId, nowMs: number): void {
    const of = policy.forPeer(peer);
    const every = of.judgeEveryRequest(nowMs);
    if (!every.allowed) return;
    for (const request of everyRequest()) {
      const one = of.judge(request, nowMs);
      if (!one.allowed || (every.audited === undefined && one.audited !== undefined))
        fail({ peer, request, nowMs, but: 'every one is allowed' });
    }
  }

  /** No answer changes before the next look. */
  function checkNextLook(peer: SpiffeId, request: RequestFacts | undefined, nowMs: number): void {
    const nextMs = policy.nextLook(nowMs);
    if (!(nextMs > nowMs)) fail({ nowMs, nextMs });
    const lastMs = Math.min(nextMs, dateMs + 60 * DAY_MS) - 1;
    const now = naive(spec, peer, request, nowMs);
    for (const laterMs of [lastMs, nowMs + draws.below(lastMs - nowMs)]) {
      const later = naive(spec, peer, request, laterMs);
      if (later !== now) fail({ peer, request, nowMs, nextMs, laterMs, now, later });
    }
  }

  function fail(what: object): never {
    assert.fail(JSON.stringify({ number, spec, ...what }));
  }
}

const DAY_MS = 86_400_000;

function* everyRequest(): Generator<RequestFacts> {
  let at = 0;
  for (const host of [...HOSTS, 'else'])
    for (const method of [...METHODS, 'PUT'])
      for (const path of [...PATHS, '/else', '*']) yield { host, method, path, subject: SUBJECTS[(at += 1) % SUBJECTS.length] };
}

/** As it may come, and as what the rules compare. */
function spell(policy: Policy, { method, path, host, subject }: RequestFacts, draws: Draws): RequestFacts {
  const target =
    path === '*' ? path : `${draws.once(4) ? path.replaceAll(/%../g, (found) => found.toLowerCase()) : path}${draws.of(['', '', '?a/b'])}`;
  const authority = `${draws.once(4) ? host.toUpperCase() : host}${draws.of(['', '', '.', ':443'])}`;
  const facts = factsOf(policy, method, target, host.startsWith('[') ? host : authority, subject);
  return typeof facts === 'string' ? assert.fail(`${facts}: ${target} ${authority}`) : facts;
}

function ask(policy: Policy, peer: SpiffeId, request: RequestFacts | undefined, nowMs: number): string {
  const of = policy.forPeer(peer);
  return say(request === undefined ? of.judgeConnection(nowMs) : of.judge(request, nowMs));
}

/** `allow RULE`, `denied RULE`, `not_allowed`; where only audit lets it pass `audit RULE but`, and what would have been said. */
export function say(decision: Decision): string {
  if (!decision.allowed) return decision.rule === undefined ? decision.reason : `${decision.reason} ${decision.rule.text}`;
  return decision.audited === undefined ? `allow ${decision.rule}` : `audit ${decision.rule} but ${say(decision.audited)}`;
}

// ——— the plain reading ———

function naive({ allow, deny = [], mode }: PolicySpec, peer: string, request: RequestFacts | undefined, nowMs: number): string {
  const holds = (rule: RuleSpec | string, effect: 'allow' | 'deny'): boolean => {
    const of = typeof rule === 'string' ? { peer: rule } : rule;
    if (of.peer !== undefined && !fits(of.peer, peer, '[^/]+', '.+')) return false;
    if (nowMs < (of.notBeforeMs ?? -Infinity) || nowMs >= (of.notAfterMs ?? Infinity)) return false;
    if (of.windows?.some((window) => isWithin(window, nowMs)) === false) return false;
    if (request === undefined) return effect === 'allow' || (of.methods ?? of.paths ?? of.hosts ?? of.subject) === undefined;
    const paths = effect === 'deny' && request.path.length > 1 ? [request.path, request.path.replace(/\/$/, '')] : [request.path];
    const { subject } = request;
    const isForSubject =
      of.subject === undefined ||
      (subject === 'unknown' ? effect === 'deny' : subject !== undefined && fits(of.subject, subject, '[^/]+', '.+'));
    return (
      isForSubject &&
      (of.methods?.includes(request.method) ?? true) &&
      (of.hosts?.some((host) => fits(host, request.host, '[^.]+', '')) ?? true) &&
      (of.paths?.some((pattern) => paths.some((path) => fits(pattern, path, '[^/]+', '.*'))) ?? true)
    );
  };
  const isAudit = (rule: RuleSpec | string): boolean => typeof rule !== 'string' && rule.mode === 'audit';
  const allowing = allow.filter((rule) => holds(rule, 'allow'));
  const denying = deny.filter((rule) => holds(rule, 'deny'));
  const denies = denying.find((rule) => !isAudit(rule));
  // The peer's own name is named before any pattern, and what is enforced before what is not.
  const allows = allowing.find((rule) => rule === peer) ?? allowing.find((rule) => !isAudit(rule));
  // With an enforced deny before it, an allow rule in audit counts for nothing.
  const named = allows ?? (denies === undefined ? allowing[0] : undefined);
  const text = named === undefined ? 'audit' : ruleText(named, 'allow');
  const against = denies ?? denying[0];
  const denial = against === undefined ? 'not_allowed' : `denied ${ruleText(against, 'deny')}`;
  if (denies !== undefined) return mode === 'audit' ? `audit ${text} but ${denial}` : denial;
  if (allows !== undefined) return denying.length === 0 ? `allow ${text}` : `audit ${text} but ${denial}`;
  return named !== undefined || mode === 'audit' ? `audit ${text} but ${denial}` : 'not_allowed';
}

const patterns = new Map<string, RegExp>();

/** Whether a pattern, in which `*` is `any` and a last `**` is `rest`, is for the whole of a text. */
function fits(pattern: string, text: string, any: string, rest: string): boolean {
  const key = `${pattern} ${any} ${rest}`;
  let known = patterns.get(key);
  if (known === undefined) {
    const source = pattern.replaceAll(/[.[\]]|[*]{2}$|[*]/g, (found) => (found === '*' ? any : found === '**' ? rest : `\\${found}`));
    known = new RegExp(`^${source}$`);
    patterns.set(key, known);
  }
  return known.test(text);
}

/** Minutes that the clock is ahead of UTC, at first and from each of these times of 2026 on, as the laws there say. */
const CLOCKS: Readonly<Record<string, readonly [first: number, ...(readonly [fromMs: number, minutes: number])[]]>> = {
  UTC: [0],
  'Asia/Kathmandu': [345],
  'Europe/Berlin': [60, [Date.UTC(2026, 2, 29, 1), 120], [Date.UTC(2026, 9, 25, 1), 60]],
  'America/New_York': [-300, [Date.UTC(2026, 2, 8, 7), -240], [Date.UTC(2026, 10, 1, 6), -300]],
  'Australia/Lord_Howe': [660, [Date.UTC(2026, 3, 4, 15), 630], [Date.UTC(2026, 9, 3, 15, 30), 660]],
};

function isWithin({ days, from, to, timeZone }: WindowSpec, nowMs: number): boolean {
  const [first, ...changes] = CLOCKS[timeZone] ?? assert.fail(timeZone);
  const ahead = changes.findLast(([fromMs]) => nowMs >= fromMs)?.[1] ?? first;
  const wall = new Date(nowMs + ahead * 60_000);
  const minute = wall.getUTCHours() * 60 + wall.getUTCMinutes();
  const begin = minuteOf(from);
  const end = minuteOf(to) > begin ? minuteOf(to) : minuteOf(to) + 1440;
  const isOn = (day: number): boolean => days?.includes(DAYS[(day + 7) % 7] ?? assert.fail()) ?? true;
  const today = wall.getUTCDay() - 1;
  // That of today, or what is left of that of yesterday.
  return (isOn(today) && minute >= begin && minute < end) || (isOn(today - 1) && minute + 1440 < end);
}

function minuteOf(time: string): number {
  return Number(time.slice(0, 2)) * 60 + Number(time.slice(3));
}
