/** The kinds of value that a configuration has, each a zod schema from what is written to what the program uses. */
import * as z from 'zod';
import { LONGEST_TIMER_MS } from '../lib/clock.ts';
import { parseIpRange, type IpRange } from '../lib/ip.ts';
import type { Result } from '../lib/result.ts';
import { parseRule, type Effect, type IdsOf, type RuleSpec } from '../policy/rule.ts';
import { DAYS } from '../policy/time-window.ts';
import { parseSpiffeId, type SpiffeId } from '../spiffe/spiffe-id.ts';
import { parseTrustDomain, type TrustDomain } from '../spiffe/trust-domain.ts';
import {
  DURATION_PATTERN,
  isIpAddress,
  isLocal,
  parseAddress,
  parseDnsName,
  parseDuration,
  parseEndpoint,
  parseListenAddress,
  parseWebAddress,
  type Address,
  type TcpAddress,
  type UnitProblem,
} from './units.ts';

const WITH_UNIT = 'must be a number with a unit, such as 5s, 100ms or 1h30m';

const WITH_OFFSET = 'must be a time with an offset from UTC, such as 2027-01-31T09:00:00+01:00';

/** `5s`, `100ms`, `1h30m` → milliseconds; zero allowed. */
export const duration = z.string(WITH_UNIT).transform(judged(parseDuration));

/** As `duration`, but a limit of no time at all would refuse everything. */
export const positiveDuration = z.string(WITH_UNIT).transform(judged(parsePositiveDuration));

/** As `positiveDuration`, for what one timer measures: `Clock` has none that is longer. */
export const timerDuration = positiveDuration.refine((ms) => ms <= LONGEST_TIMER_MS, 'is too long: 1h at most');

const LONGEST_IDENTITY_WAIT_MS = 600_000;

/** Applications wait for as long, and hold what they wait with. */
export const identityWait = duration.refine((waitMs) => waitMs <= LONGEST_IDENTITY_WAIT_MS, 'is too long: 10m at most');

/** As `positiveDuration`, or `off`. */
export const durationOrOff = z
  .string(`${WITH_UNIT}, or off`)
  .transform(
    judged((text): Result<number | 'off', UnitProblem> => (text === 'off' ? { ok: true, value: text } : parsePositiveDuration(text))),
  );

/** Of a `durationOrOff`, for example: undefined is no limit. */
export function unlessOff(limit: number | 'off'): number | undefined {
  return limit === 'off' ? undefined : limit;
}

/** JSON Schema patterns for editors; the parsers above decide. */
export const durationPattern = DURATION_PATTERN.source;
export const durationOrOffPattern = `^off$|${DURATION_PATTERN.source}`;

export const listenAddress = z.string().transform(judged(parseListenAddress));
export const localListenAddress = z.string().transform(judged(parseLocalListenAddress));
/** What other machines reach over TCP. */
export const tcpListenAddress = z.string().transform(judged(parseTcpListenAddress));
export const targetAddress = z.string().transform(judged(parseTargetAddress));
/** As `targetAddress`, or `https://HOST[:PORT]`. */
export const serverAddress = z.string().transform(judged(parseServerAddress));

/** A Workload API address, as written. */
export const endpoint = z.string().transform(
  judged((text): Result<string, UnitProblem> => {
    const parsed = parseEndpoint(text);
    return parsed.ok ? { ok: true, value: text } : parsed;
  }),
);

/** A listener's name: it becomes a metric label and a log field. */
export const listenerName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/, 'must be 1 to 63 letters, digits, "-", "_" or ".", the first a letter or a digit');

/** The name of an HTTP field for the application, none that has a meaning on the connection itself. */
export const fieldName = z
  .string()
  .regex(/^[A-Za-z][A-Za-z0-9-]{0,62}$/, 'must be 1 to 63 letters, digits or "-", the first a letter')
  .refine((name) => !CONNECTION_FIELDS.has(name.toLowerCase()), 'is the name of a field with another meaning');

const CONNECTION_FIELDS: ReadonlySet<string> = new Set([
  'connection',
  'content-length',
  'expect',
  'host',
  'http2-settings',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'x-forwarded-client-cert',
]);

/** Tokens of RFC 9110, section 5.6.2. */
const UPGRADE_PROTOCOL = /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}(?:\/[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64})?$/;
/** HTTP of any version and draft (`h2c-14`), in plain text or in TLS. */
const CARRIES_REQUESTS = /^(?:h[0-9]+c?|https?|s-?http|tls|ssl)(?:[^A-Za-z0-9].*)?$/i;

/** A protocol that `Upgrade` may name (RFC 9110, section 7.8), none that carries requests, which nobody would judge then. */
export const upgradeProtocol = z
  .string()
  .regex(UPGRADE_PROTOCOL, 'must be the name of one protocol, such as "tcp", or name and version, such as "SPDY/3.1"')
  .refine((protocol) => !protocol.includes('*'), 'must name one protocol: "*" stands for nothing here')
  .refine((protocol) => !CARRIES_REQUESTS.test(protocol), 'would carry requests past the one who judges them');

/** A TLS ALPN protocol name (RFC 7301: 1 to 255 bytes), such as `h2`. */
export const alpnProtocol = z.string().regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 visible ASCII characters');

/** A permission mode in quotes, such as "0660" → 0o660. YAML reads a bare 0660 as the decimal number 660. */
export const socketMode = z
  .string('must be an octal mode in quotes, such as "0660"')
  .regex(/^0?[0-7]{3}$/, 'must be an octal mode in quotes, such as "0660"')
  .transform((text) => Number.parseInt(text, 8));

/** The name for the server in SNI (RFC 6066, section 3: a DNS name, never an IP address). */
export const serverName = z.string().transform(
  judged((text): Result<string, UnitProblem> => {
    const name = isIpAddress(text) ? undefined : parseDnsName(text);
    return name?.ok === true ? name : { ok: false, error: `${JSON.stringify(text)} is not a DNS name` };
  }),
);

/** A host name, without port, that a `Host` header may have. */
export const hostName = z.string().transform(
  judged((text): Result<string, UnitProblem> => {
    const name = parseDnsName(text);
    return name.ok ? name : { ok: false, error: `${JSON.stringify(text)} is not a host name without port` };
  }),
);

/** Where it leads must not depend on where a process was started. */
export const absolutePath = z
  .string()
  .max(4096)
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  .regex(/^\/[^\u0000-\u001f\u007f]+$/, 'must be an absolute path, without control characters');

export const spiffeId = z.string().transform(
  judged((text): Result<SpiffeId, UnitProblem> => {
    const parsed = parseSpiffeId(text);
    return parsed.ok ? parsed : { ok: false, error: `${JSON.stringify(text)} is not a SPIFFE ID: ${parsed.error.replaceAll('_', ' ')}` };
  }),
);

export const trustDomain = z.string().transform(
  judged((text): Result<TrustDomain, UnitProblem> => {
    const parsed = parseTrustDomain(text);
    return parsed.ok
      ? parsed
      : { ok: false, error: `${JSON.stringify(text)} is not a trust domain name: ${parsed.error.replaceAll('_', ' ')}` };
  }),
);

/** SPIFFE Federation, section 5.2.1.1: https, without user info. Written as it was understood. */
export const endpointUrl = z.string().transform(
  judged((text): Result<string, UnitProblem> => {
    const url = URL.parse(text);
    if (url === null || url.protocol !== 'https:') return { ok: false, error: `${JSON.stringify(text)} is not an https URL` };
    if (url.username !== '' || url.password !== '') return { ok: false, error: `${JSON.stringify(text)} has user info` };
    if (url.hash !== '') return { ok: false, error: `${JSON.stringify(text)} has a fragment` };
    return { ok: true, value: url.href };
  }),
);

/** The path of a URL as it stands in a request. */
export const urlPath = z
  .string()
  .regex(/^\/[A-Za-z0-9._~/-]{0,200}$/, 'must be a path such as /bundle.json, of letters, digits and ".", "_", "~", "-", "/"');

export const filePath = z.string().min(1).max(4096);

/** Addresses whose word is taken for something: never all that there are. */
export const ipRange = z.string().transform(
  judged((text): Result<IpRange, UnitProblem> => {
    const range = parseIpRange(text);
    if (range === undefined) return { ok: false, error: `${JSON.stringify(text)} is not an IP address or a range such as 10.0.0.0/8` };
    return range.bits === 0 ? { ok: false, error: `${JSON.stringify(text)} is every address` } : { ok: true, value: range };
  }),
);

/** A TLV type for the SPIFFE ID: ztunnel's, or one that the PROXY protocol leaves to applications. */
export const spiffeIdTlv = z
  .int('must be a whole number, such as 0xD0')
  .refine((type) => type === 0xd0 || (type >= 0xe0 && type <= 0xef), 'must be 0xD0, or 0xE0 to 0xEF');

/** RFC 3339, with an offset from UTC → milliseconds since 1970. */
export const timestamp = z.string(WITH_OFFSET).transform(judged(parseTimestamp));

/** Of one key of a rule, so that no single rule takes long. Further ones are for a further rule. */
const MAX_VALUES = 1000;

const texts = z.array(z.string());

const timeWindow = z.strictObject({
  days: z.array(z.enum(DAYS)).optional().meta({ description: 'days on which it opens; every day if left out' }),
  from: z.string().meta({ description: 'the time of the day at which it opens, such as `"22:00"`' }),
  to: z.string().meta({
    description: 'the time at which it closes, up to `"24:00"`; at or before `from` it is that of the next day',
  }),
  timeZone: z.string().meta({ description: 'whose clock that is, such as `Europe/Berlin` or `UTC`' }),
});

/** What rules that name lists need. */
export interface ListLookups {
  /** The absolute path of a file, by its name where it is named. */
  resolve(path: string): string;
  readonly idsOf: IdsOf;
}

/** A path, relative to the file that names it → an absolute one. */
export const fileBeside = ({ resolve }: Pick<ListLookups, 'resolve'>) =>
  z
    .string()
    .min(1)
    .max(4096)
    // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
    .regex(/^[^\u0000-\u001f\u007f]+$/, 'must be a path without control characters')
    .transform(resolve);

const peer = z.string();
const PEER = 'who: a SPIFFE ID or a pattern of them';

const times = {
  notBefore: timestamp.optional().meta({ description: 'the rule holds from this time on, such as `2027-01-31T09:00:00+01:00`' }),
  notAfter: timestamp.optional().meta({ description: 'the rule holds until this time; what it had admitted is closed then' }),
  windows: z.array(timeWindow).max(MAX_VALUES).optional().meta({ description: 'the rule holds while one of these is open' }),
};

const ruleWith = (lists: ListLookups) =>
  z
    .strictObject({
      peer: peer.optional().meta({ description: `${PEER}. Required, unless there is \`idsFile\` or \`subject\`` }),
      subject: peer.optional().meta({
        description:
          'for listeners with `jwt`: whose token a request must have, a SPIFFE ID or a pattern of them. Without `peer` whoever brings it, with it this peer alone. Any or none if left out',
      }),
      idsFile: fileBeside(lists).optional().meta({
        description:
          'instead of `peer`: a text file with SPIFFE IDs, one a line, and a last line `...`; read again when it changes. A path from the folder of the file that names it',
      }),
      methods: texts
        .max(MAX_VALUES)
        .optional()
        .meta({ description: 'for `protocol: http`: methods, such as `[GET, HEAD]`; GET does not include HEAD. All if left out' }),
      paths: texts.max(MAX_VALUES).optional().meta({
        description:
          'for `protocol: http`: paths; `*` is one segment, `/**` at the end whatever follows that slash. All if left out. A path that servers read in more than one way is then answered 400',
      }),
      hosts: texts.max(MAX_VALUES).optional().meta({
        description:
          'for `protocol: http`: hosts, in lower case without port; `*.` is one label. All if left out. A request without a host is then answered 400',
      }),
      ...times,
      mode: z.enum(['enforce', 'audit']).prefault('enforce').meta({
        description:
          '`audit`: an `allow` rule admits, a `deny` rule denies nothing, and who passes because of that is counted and logged; for `inbound` alone',
      }),
    })
    .transform(({ mode, ...written }): RuleSpec => ({ ...withTimes(written), ...(mode === 'audit' && { mode }) }));

/** What Envoy can be told of whom to admit: nothing of requests. */
const timedRule = z.strictObject({ peer: peer.meta({ description: PEER }), ...times }).transform(withTimes);

function withTimes<T extends { readonly notBefore?: number | undefined; readonly notAfter?: number | undefined }>({
  notBefore,
  notAfter,
  ...others
}: T): Omit<T, 'notBefore' | 'notAfter'> & Pick<RuleSpec, 'notBeforeMs' | 'notAfterMs'> {
  return {
    ...others,
    ...(notBefore !== undefined && { notBeforeMs: notBefore }),
    ...(notAfter !== undefined && { notAfterMs: notAfter }),
  };
}

/** Rules, each of which is good. A problem is reported at the value that has it. */
export function ruleList(effect: Effect, lists: ListLookups) {
  return rulesOf(ruleWith(lists), effect, lists.idsOf);
}

/** Rules that ask for nothing but peers and times, each of which is good. */
export const timedRuleList = rulesOf(timedRule, 'allow');

function rulesOf<S extends z.ZodType<RuleSpec>>(ofRule: S, effect: Effect, idsOf?: IdsOf) {
  const check = (spec: string | RuleSpec, context: z.RefinementCtx): void => {
    const parsed = parseRule(spec, effect, 0, idsOf);
    if (parsed.ok) return;
    for (const { path, message } of parsed.error) context.addIssue({ code: 'custom', message, path: [...path], input: spec });
  };
  return z.array(z.union([z.string().superRefine(check), ofRule.superRefine(check)], 'must be a SPIFFE ID, a pattern, or a rule'));
}

/** The days of a month that there are, with the time of a day that there is. */
function parseTimestamp(text: string): Result<number, UnitProblem> {
  const parts = /^(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/i.exec(text);
  const [, year = '', month = '', day = ''] = parts ?? [];
  const isDay = new Date(Date.UTC(Number(year), Number(month) - 1, Number(day))).toISOString().startsWith(`${year}-${month}-${day}`);
  return parts !== null && isDay
    ? { ok: true, value: Date.parse(text.toUpperCase()) }
    : { ok: false, error: `${JSON.stringify(text)} is not ${WITH_OFFSET.replace('must be ', '')}` };
}

function parsePositiveDuration(text: string): Result<number, UnitProblem> {
  const parsed = parseDuration(text);
  if (parsed.ok && parsed.value === 0) return { ok: false, error: `${JSON.stringify(text)} is no time at all` };
  return parsed;
}

function parseLocalListenAddress(text: string): Result<Address, UnitProblem> {
  const parsed = parseListenAddress(text);
  if (parsed.ok && !isLocal(parsed.value)) {
    return { ok: false, error: `${JSON.stringify(text)} can be reached from other machines: use a Unix socket or a loopback address` };
  }
  return parsed;
}

function parseTcpListenAddress(text: string): Result<TcpAddress, UnitProblem> {
  const parsed = parseListenAddress(text);
  if (!parsed.ok) return parsed;
  const { value } = parsed;
  return value.kind === 'tcp' ? { ok: true, value } : { ok: false, error: `${JSON.stringify(text)} is not a TCP address: write IP:PORT` };
}

function parseServerAddress(text: string): Result<Address, UnitProblem> {
  return text.startsWith('https:') ? reachable(text, parseWebAddress(text)) : parseTargetAddress(text);
}

function parseTargetAddress(text: string): Result<Address, UnitProblem> {
  return reachable(text, parseAddress(text));
}

function reachable<A extends Address>(text: string, parsed: Result<A, UnitProblem>): Result<A, UnitProblem> {
  if (!parsed.ok || parsed.value.kind === 'unix') return parsed;
  if (parsed.value.port === 0) return { ok: false, error: `${JSON.stringify(text)} has port 0, which nothing listens on` };
  if (parsed.value.host === '0.0.0.0' || parsed.value.host === '::') {
    return { ok: false, error: `${JSON.stringify(text)} is every address of this machine, not one: write 127.0.0.1 or [::1]` };
  }
  return parsed;
}

/** A switch for what is dangerous. */
export const unsafe = (description: string) => z.boolean().prefault(false).meta({ description });

/** A user or a group, by name or number. */
export function numbered(kind: 'user' | 'group', numberOf: (name: string) => number | undefined) {
  return z.union([z.int().min(0).max(4_294_967_294), z.string().min(1)]).transform((named, context) => {
    const id = typeof named === 'number' ? named : numberOf(named);
    if (id !== undefined) return id;
    context.addIssue({ code: 'custom', message: `there is no ${kind} ${JSON.stringify(named)}`, input: named });
    return z.NEVER;
  });
}

function judged<T>(parse: (text: string) => Result<T, UnitProblem>) {
  return (text: string, context: z.RefinementCtx<string>): T => {
    const parsed = parse(text);
    if (parsed.ok) return parsed.value;
    context.addIssue({ code: 'custom', message: parsed.error, input: text });
    return z.NEVER;
  };
}
