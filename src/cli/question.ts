/** What `scute explain` and `scute policy test` have in common: questions, put to the listeners of a configuration. */
import type { Config, InboundConfig, OutboundConfig } from '../config/config.ts';
import { formatPlace } from '../config/issue.ts';
import type { Located } from '../config/load.ts';
import type { RawQuestion } from '../config/questions.ts';
import { RequestHead } from '../http1/request-head.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { ruleText } from '../policy/rule.ts';
import { explain, type Explanation, type Question, type RuleRef } from '../policy/explain.ts';

/** A listener, and the keys that lead to it. */
interface Placed {
  readonly direction: 'inbound' | 'outbound';
  readonly index: number;
  readonly listener: InboundConfig | OutboundConfig;
}

/** A question that can be put. */
export interface Put {
  readonly placed: Placed;
  readonly question: Question;
}

/** What is wrong with a question, at one of its keys. */
export interface QuestionProblem {
  readonly key: keyof RawQuestion;
  readonly message: string;
}

export type Answer =
  | { readonly allowed: boolean; readonly explanation: Explanation }
  /** Refused with this status, whatever the rules say. */
  | { readonly allowed: false; readonly status: number; readonly detail: string };

/** Finds whom a question is for. The errors name every key that is wrong for that listener. */
export function putQuestion(config: Config, raw: RawQuestion, nowMs: number): Result<Put, readonly QuestionProblem[]> {
  const found = findListener(config, raw.listener);
  if (!found.ok) return err([{ key: 'listener', message: found.error }]);
  const placed = found.value;
  const { name, protocol, policy } = placed.listener;
  const { peer, method, path, host, subject, at = nowMs } = raw;
  const asked = Object.entries({ method, path, host, subject }).filter(([, value]) => value !== undefined);
  if (protocol === 'tcp' && asked.length > 0)
    return err(
      asked.map(([key]) => ({
        key: key as keyof RawQuestion,
        message: `is for protocol: http, and on listener ${name} nobody sees requests`,
      })),
    );
  if (asked.length === 0) return ok({ placed, question: { peer, request: undefined, nowMs: at } });
  const needed = [
    ['method', method, policy.asksForMethod],
    ['path', path, policy.asksForPath],
    ['host', host, policy.asksForHost],
  ] as const;
  const problems: QuestionProblem[] = needed.flatMap(([key, value, isAskedFor]) =>
    isAskedFor && value === undefined ? [{ key, message: `is required: rules of listener ${name} ask for it` }] : [],
  );
  const { jwt } = { jwt: undefined, ...placed.listener };
  if (jwt === undefined && subject !== undefined)
    problems.push({ key: 'subject', message: `is for listeners with jwt, and on listener ${name} nobody looks at tokens` });
  if (jwt?.isRequired === true && subject === undefined)
    problems.push({ key: 'subject', message: `is required: listener ${name} asks each request for a token` });
  if (problems.length > 0) return err(problems);
  return ok({
    placed,
    question: { peer, request: { method: method ?? 'GET', target: path ?? '/', host: host ?? '', subject }, nowMs: at },
  });
}

/** The listener of that name, or the only one. The error is a sentence. */
export function findListener({ inbound, outbound }: Config, name: string | undefined): Result<Placed, string> {
  const all: readonly Placed[] = [
    ...inbound.map((listener, index): Placed => ({ direction: 'inbound', index, listener })),
    ...outbound
      .map((listener, index) => ({ direction: 'outbound', index, listener }) as const)
      .filter(({ listener }) => listener.webPki === undefined),
  ];
  const names = all.map(({ listener }) => listener.name).join(', ');
  const [only] = all;
  if (only === undefined) return err('there are no listeners, so no policy');
  if (name === undefined) return all.length === 1 ? ok(only) : err(`is required: there is ${names}`);
  if (outbound.some((listener) => listener.name === name && listener.webPki !== undefined))
    return err(`${JSON.stringify(name)} leads to a server of the public web, and has no policy`);
  const named = all.find(({ listener }) => listener.name === name);
  return named === undefined ? err(`there is no listener ${JSON.stringify(name)}: there is ${names}`) : ok(named);
}

/** What would become of it: by the reader of requests, and then by the policy. */
export function answerQuestion({ placed: { listener }, question }: Put): Answer {
  const { request } = question;
  let read = question;
  if (request !== undefined && listener.http !== undefined) {
    const head = new RequestHead(listener.http.limits);
    const outcome = head.read(Buffer.from(`${request.method} ${request.target} HTTP/1.1\r\nHost: ${request.host}\r\n\r\n`), 0);
    if (outcome.kind === 'bad') return { allowed: false, ...outcome.problem };
    // The limits of heads are larger than any that is whole here.
    if (outcome.kind === 'more') throw new Error('a whole head was not read');
    read = { ...question, request: { method: head.method, target: head.target, host: head.host, subject: request.subject } };
  }
  const explained = explain(listener.policy, read);
  if (!explained.ok) return { allowed: false, status: 400, detail: explained.error };
  return { allowed: explained.value.verdict.allowed, explanation: explained.value };
}

/** The answer in plain words, one line each. */
export function describeAnswer({ placed, question }: Put, answer: Answer, locate: Located<Config>['locate']): readonly string[] {
  const { direction, listener } = placed;
  const rule = (of: RuleRef): string => `${placeOf(placed, of, locate)} ${of.text}`;
  const lines = [
    `listener  ${direction} ${listener.name} at ${placeOf(placed, undefined, locate)}, on ${new Date(question.nowMs).toISOString()}`,
  ];
  if (!('explanation' in answer)) return [`verdict  deny: answered ${answer.status} before any rule: ${answer.detail}`, ...lines];
  const { verdict, audited, misses } = answer.explanation;
  const isConnection = question.request === undefined && listener.http !== undefined;
  return [
    verdict.allowed
      ? `verdict  allow${isConnection ? ' the connection: its requests are judged one by one' : ''}`
      : `verdict  deny: ${verdict.reason}: ${verdict.detail}`,
    ...lines,
    ...(answer.explanation.rule === undefined
      ? [`rule  none${verdict.allowed ? ', but the whole policy is in audit' : ''}`]
      : [`rule  ${rule(answer.explanation.rule)}`]),
    ...(verdict.allowed && verdict.audited !== undefined
      ? [`audit  enforced, it would be: deny: ${verdict.audited}${audited === undefined ? '' : `: ${rule(audited)}`}`]
      : []),
    ...misses.map((miss) => `near  ${rule(miss.rule)}: ${miss.text}`),
  ];
}

/** Where a rule of a listener is written, or the listener itself. */
export function placeOf(placed: Placed, rule: RuleRef | undefined, locate: Located<Config>['locate']): string {
  if (rule?.at !== undefined) return rule.at;
  const keys = rule === undefined ? [] : keysOf(placed, rule);
  return formatPlace(locate([placed.direction, placed.index, ...keys], 'value'));
}

/** Where a rule of a listener that runs is written; undefined if the configuration has no such listener, or another rule in that place. */
export function placeOfRule(
  { value, locate }: Located<Config>,
  direction: 'inbound' | 'outbound',
  name: string,
  of: RuleRef,
): string | undefined {
  const index = value[direction].findIndex((candidate) => candidate.name === name);
  const listener = value[direction][index];
  const spec = listener?.policy.spec[of.effect]?.[of.index];
  if (listener === undefined || spec === undefined || ruleText(spec, of.effect) !== of.text) return undefined;
  return listener.policy.placeOf(of.effect, of.index) ?? placeOf({ direction, index, listener }, of, locate);
}

/** The keys that lead to a rule, from its listener. */
function keysOf({ listener }: Placed, { effect, index }: RuleRef): readonly (string | number)[] {
  if (effect === 'deny') return ['deny', index];
  if (!('unsafeAllowAnyInTrustDomain' in listener)) return ['allow', index];
  return listener.unsafeAllowAnyInTrustDomain === undefined ? ['expect', index] : ['unsafeAllowAnyInTrustDomain'];
}
