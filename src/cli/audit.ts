import type { Config } from '../config/config.ts';
import { formatIssues } from '../config/issue.ts';
import { loadLocatedConfig, type Located } from '../config/load.ts';
import { policyPageSchema, type ListenerPage, type PolicyPage, type RefusalLine, type RuleLine } from '../config/policy-page.ts';
import type { Address } from '../config/units.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { askAdmin, parseAdminAddress } from './admin-client.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, type CommandEnvironment } from './environment.ts';
import { placeOfRule } from './question.ts';

export interface AuditOptions {
  readonly config?: string | undefined;
  /** Goes before the address in the file. */
  readonly admin?: string | undefined;
  readonly json?: boolean | undefined;
}

/** `scute audit`: whom the policies of the Scute that runs would deny, were they not in audit, and the rules that would allow it. */
export async function audit(
  { config, admin, json = false }: AuditOptions,
  { env, stdout, stderr }: CommandEnvironment,
  stopped: AbortSignal,
): Promise<number> {
  const wrong = (problem: string): number => {
    stderr(`scute: ${problem}\n`);
    return EXIT_USAGE;
  };
  let located: Located<Config> | undefined;
  if (config !== undefined) {
    const loaded = await loadLocatedConfig({ file: config, flags: {}, env });
    if (!loaded.ok) {
      stderr(`${formatIssues(loaded.error)}\n`);
      return EXIT_USAGE;
    }
    located = loaded.value;
  }
  const given = admin === undefined ? undefined : parseAdminAddress(admin);
  if (given?.ok === false) return wrong(`--admin ${given.error}`);
  const address = given?.value ?? located?.value.admin?.listen;
  if (address === undefined)
    return wrong(
      config === undefined
        ? 'nobody to ask: give the configuration file (-c), or the address of the admin listener (--admin)'
        : `${JSON.stringify(config)} has no admin listener: give one to the Scute that runs ("admin: { listen: unix:///run/scute/admin.sock }"), or its address (--admin)`,
    );
  const asked = await askAll(address, stopped);
  if (!asked.ok) {
    stderr(`scute: ${visible(asked.error)}\n`);
    return EXIT_UNAVAILABLE;
  }
  const page = asked.value;
  if (json) stdout(`${inAscii(JSON.stringify(page, null, 2))}\n`);
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
  return page.success ? ok(page.data) : err('the answer has a form that this version of Scute does not know');
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

function requestOf({ method, path, host }: Pick<RefusalLine, 'method' | 'path' | 'host'>): string {
  if (method === null) return 'any';
  return [method, path, host === null ? null : `host ${host}`].filter((part) => part !== null).join(' ');
}

/** Beyond it a cell moves what follows, and not the whole column: peers choose how long theirs are. */
const WIDEST = 60;

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.min(WIDEST, Math.max(...rows.map((row) => (row[column] ?? '').length))));
  return rows.map((row) => row.map((cell, column) => cell.padEnd(column === row.length - 1 ? 0 : (widths[column] ?? 0))).join('  '));
}

function asText(lines: readonly string[]): string {
  return lines.map((line) => `${visible(line)}\n`).join('');
}

/** What a peer chose, or whatever listens there, must not command a terminal, nor turn what follows around. */
function visible(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, '\ufffd');
}

/** The same JSON value. */
function inAscii(json: string): string {
  return json.replaceAll(/[\u007f-\uffff]/g, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
