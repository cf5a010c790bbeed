import type { Config } from '../../config/config.ts';
import type { Located } from '../../config/load.ts';
import { policyPageSchema, type ListenerPage, type PolicyPage, type RefusalLine, type RuleLine } from '../../config/policy/policy-page.ts';
import type { Address } from '../../config/units.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import { requireAdmin, type AdminOptions } from '../admin-address.ts';
import { askAdmin, UNKNOWN_FORM } from '../admin-client.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { placeOfRule } from '../question.ts';
import { inAscii, table, visible } from '../text.ts';

export interface AuditOptions extends AdminOptions {
  readonly json?: boolean | undefined;
}

/** `scute audit`: whom the policies of the Scute that runs would deny, were they not in audit, and the rules that would allow it. */
export async function audit(options: AuditOptions, environment: CommandEnvironment, stopped: AbortSignal): Promise<number> {
  const { stdout, stderr } = environment;
  const found = await requireAdmin(options, environment);
  if (found === undefined) return EXIT_USAGE;
  const { address, located } = found;
  const asked = await askAll(address, stopped);
  if (!asked.ok) {
    stderr(`scute: ${visible(asked.error)}\n`);
    return EXIT_UNAVAILABLE;
  }
  const page = asked.value;
  if (options.json === true) stdout(`${inAscii(JSON.stringify(page, null, 2))}\n`);
  else
    stdout(
      page.listeners.map((listener) => describeListener(listener, placesIn(located, listener))).join('\n') ||
        'there are no inbound listeners\n',
    );
  return page.listeners.some((listener) => listener.would_deny.length + listener.not_listed.passed > 0) ? EXIT_FAILED : EXIT_OK;
}

/** Inbound listeners, one after the other, so that no answer is long; nothing is ever in audit on the way out. */
async function askAll(address: Address, stopped: AbortSignal): Promise<Result<PolicyPage, string>> {
  const first = await askPage(address, '/policy?limit=0', stopped);
  if (!first.ok) return first;
  const listeners: ListenerPage[] = [];
  for (const { name, direction } of first.value.listeners) {
    if (direction !== 'inbound') continue;
    const page = await askPage(address, `/policy?listener=${encodeURIComponent(name)}`, stopped);
    if (!page.ok) return page;
    listeners.push(...page.value.listeners);
  }
  return ok({ ...first.value, listeners });
}

async function askPage(address: Address, path: string, stopped: AbortSignal): Promise<Result<PolicyPage, string>> {
  const answer = await askAdmin(address, path, stopped);
  if (!answer.ok) return answer;
  const page = policyPageSchema.safeParse(answer.value);
  return page.success ? ok(page.data) : err(UNKNOWN_FORM);
}

/** A rule with its place, where that is known. */
type Places = (rule: RuleLine) => string;

function placesIn(located: Located<Config> | undefined, { direction, name }: ListenerPage): Places {
  return (rule) => {
    const place = located && placeOfRule(located, direction, name, rule);
    return place === undefined ? rule.text : `${place} ${rule.text}`;
  };
}

function describeListener(listener: ListenerPage, places: Places): string {
  const { name, in_audit, audit_rules, would_deny, omitted, not_listed, partly_listed, rules_to_copy } = listener;
  const [first, ...more] = in_audit;
  const rest = audit_rules - 1;
  const what = first === undefined ? 'nothing is in audit' : `in audit: ${first}${more.length > 0 ? ` and ${rest} more` : ''}`;
  const lines = [`listener  ${name}, ${what}`];
  if (would_deny.length + not_listed.passed === 0)
    return asText(first === undefined ? lines : [...lines, 'nobody would be denied, as far as was seen']);
  const byCount = would_deny.toSorted((a, b) => timesOf(b) - timesOf(a));
  lines.push(...table([['times', 'last time', 'peer', 'request', 'would be'], ...byCount.map((line) => rowOf(line, places))]));
  if (omitted > 0) lines.push(`and ${omitted} more that this answer has no room for`);
  if (not_listed.passed > 0) lines.push(`and ${not_listed.passed} times something that is not listed, since too much was asked for`);
  const notes = [
    ...byCount.flatMap(({ peer, reason, no_rule, ...request }) =>
      no_rule === null || reason === 'denied' ? [] : [`# no rule for ${peer} ${requestOf(request)}: ${no_rule}`],
    ),
    ...partly_listed.flatMap(({ peer, passed }) =>
      passed === 0
        ? []
        : [`# and ${passed} times something of ${peer} that is not listed: paths that have numbers need a pattern, such as /orders/*`],
    ),
  ];
  if (rules_to_copy.length > 0) lines.push('rules to copy, for exactly what is listed:', 'allow:');
  lines.push(...rules_to_copy.map((rule) => `  - ${rule}`), ...notes.map((note) => (rules_to_copy.length > 0 ? `  ${note}` : note)));
  return asText(lines);
}

function rowOf(line: RefusalLine, places: Places): readonly string[] {
  const why =
    line.rule === null
      ? `${line.reason}${line.near === null ? '' : `; near ${places(line.near.rule)}: ${line.near.text}`}`
      : `${line.reason} by ${places(line.rule)}`;
  const passes = line.passes_by === null ? '' : `; passes by ${places(line.passes_by)}`;
  return [
    String(timesOf(line)),
    line.last_at ?? '',
    line.peer,
    requestOf(line),
    `${why}${passes}${line.allowed_now ? '; not at this moment' : ''}`,
  ];
}

/** It may have been refused before the policy was in audit. */
function timesOf({ passed, refused }: RefusalLine): number {
  return passed + refused;
}

function requestOf({ method, path, host, subject }: Pick<RefusalLine, 'method' | 'path' | 'host' | 'subject'>): string {
  if (method === null) return 'any';
  const parts = [method, path, host === null ? null : `host ${host}`, subject === null ? null : `subject ${subject}`];
  return parts.filter((part) => part !== null).join(' ');
}

function asText(lines: readonly string[]): string {
  return lines.map((line) => `${visible(line)}\n`).join('');
}
