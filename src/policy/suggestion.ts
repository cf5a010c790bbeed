/** Rules to copy: for exactly what was seen, and nothing else. */
import { err, ok, type Result } from '../lib/result.ts';
import type { Policy } from './policy.ts';
import { UNKNOWN_SUBJECT } from './request.ts';
import { asksOfRequests, type Refused } from './refusal.ts';
import { parsePathPattern } from './request-pattern.ts';
import { parseRule, type RuleSpec } from './rule.ts';

/**
 * The narrowest rule that allows what no rule of the policy allows: this peer, and of a request this method, path, host and subject, as
 * far as the policy asks for them. The error, a sentence without anything of the request, says why there is none.
 */
export function ruleFor(policy: Policy, { peer, request, isWhole }: Refused): Result<RuleSpec, string> {
  if (!isWhole) return err('a part of the request is not known');
  if (request === undefined)
    return asksOfRequests(policy) ? err('rules here are about requests, and of this one none is known') : ok({ peer });
  const { method, path, host, subject = UNKNOWN_SUBJECT } = request;
  if (path === '*') return err('"OPTIONS *" asks for no path, so no rule with paths is for it');
  const rule: RuleSpec = {
    peer,
    ...(subject === UNKNOWN_SUBJECT ? {} : { subject }),
    methods: [method],
    ...(path === '' ? {} : { paths: [path] }),
    ...(host === '' ? {} : { hosts: [host] }),
  };
  const pattern = path === '' ? undefined : parsePathPattern(path);
  if (pattern?.ok === true && (pattern.value.hasMore || pattern.value.segments.includes(undefined)))
    return err('a rule would take the "*" of its path for any segment');
  return parseRule(rule, 'allow', 0).ok ? ok(rule) : err('no rule can name such a request exactly');
}

/** Fewer rules that together allow exactly what these allow. */
export function gatherRules(rules: readonly RuleSpec[]): readonly RuleSpec[] {
  return (['methods', 'paths', 'hosts'] as const).reduce(gatherBy, rules);
}

/** Rules that are the same but for one list become one, with all of that list: no pair of values comes in that was not there. */
function gatherBy(rules: readonly RuleSpec[], key: 'methods' | 'paths' | 'hosts'): readonly RuleSpec[] {
  const gathered = new Map<string, { readonly rule: RuleSpec; readonly values: Set<string> }>();
  for (const rule of rules) {
    const alike = JSON.stringify({ ...rule, [key]: rule[key] === undefined });
    const known = gathered.get(alike) ?? { rule, values: new Set() };
    gathered.set(alike, known);
    for (const value of rule[key] ?? []) known.values.add(value);
  }
  return [...gathered.values()].map(({ rule, values }) => (rule[key] === undefined ? rule : { ...rule, [key]: [...values].toSorted() }));
}

/** A rule as an entry of a list in YAML, on one line. Whatever a peer chose of it is text there, and nothing else. */
export function formatRule({ peer = '', subject, methods, paths, hosts }: RuleSpec): string {
  const lists = Object.entries({ methods, paths, hosts }).flatMap(([key, values]) =>
    values === undefined ? [] : [`${key}: [${values.map(yamlText).join(', ')}]`],
  );
  const others = [...(subject === undefined ? [] : [`subject: ${yamlText(subject)}`]), ...lists];
  return others.length === 0 ? yamlText(peer) : `{ peer: ${[yamlText(peer), ...others].join(', ')} }`;
}

/** What no version of YAML takes for anything but text: SPIFFE IDs and paths of these characters, usual methods, names with a dot. */
const PLAIN = /^(?:(?:spiffe:\/)?\/[\w./-]*|GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|[a-z][a-z0-9-]*(?:\.[a-z][a-z0-9-]*)+)$/;

function yamlText(text: string): string {
  return PLAIN.test(text) ? text : JSON.stringify(text);
}
