/** The kinds of value that a configuration has, each a zod schema from what is written to what the program uses. */
import * as z from 'zod';
import { parseIpRange, type IpRange } from '../lib/ip.ts';
import type { Result } from '../lib/result.ts';
import { compileAllowList, type AllowList } from '../policy/rules.ts';
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
  type Address,
  type UnitProblem,
} from './units.ts';

const WITH_UNIT = 'must be a number with a unit, such as 5s, 100ms or 1h30m';

/** `5s`, `100ms`, `1h30m` → milliseconds; zero allowed. */
export const duration = z.string(WITH_UNIT).transform(judged(parseDuration));

/** As `duration`, but a limit of no time at all would refuse everything. */
export const positiveDuration = z.string(WITH_UNIT).transform(judged(parsePositiveDuration));

/** As `positiveDuration`, or `off`. */
export const durationOrOff = z
  .string(`${WITH_UNIT}, or off`)
  .transform(
    judged((text): Result<number | 'off', UnitProblem> => (text === 'off' ? { ok: true, value: text } : parsePositiveDuration(text))),
  );

/** JSON Schema patterns for editors; the parsers above decide. */
export const durationPattern = DURATION_PATTERN.source;
export const durationOrOffPattern = `^off$|${DURATION_PATTERN.source}`;

export const listenAddress = z.string().transform(judged(parseListenAddress));
export const localListenAddress = z.string().transform(judged(parseLocalListenAddress));
export const targetAddress = z.string().transform(judged(parseTargetAddress));

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

/** SPIFFE IDs and patterns → one compiled list. A problem is reported at the entry that has it. */
export const allowList = z.array(z.string()).transform((entries, context): AllowList => {
  const compiled = compileAllowList(entries);
  if (compiled.ok) return compiled.value;
  for (const problem of compiled.error) {
    for (const [index, entry] of entries.entries()) {
      if (entry === problem.entry)
        context.addIssue({ code: 'custom', message: `${JSON.stringify(entry)}: ${problem.message}`, path: [index], input: entry });
    }
  }
  return z.NEVER;
});

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

function parseTargetAddress(text: string): Result<Address, UnitProblem> {
  const parsed = parseAddress(text);
  if (!parsed.ok || parsed.value.kind === 'unix') return parsed;
  if (parsed.value.port === 0) return { ok: false, error: `${JSON.stringify(text)} has port 0, which nothing listens on` };
  if (parsed.value.host === '0.0.0.0' || parsed.value.host === '::') {
    return { ok: false, error: `${JSON.stringify(text)} is every address of this machine, not one: write 127.0.0.1 or [::1]` };
  }
  return parsed;
}

function judged<T>(parse: (text: string) => Result<T, UnitProblem>) {
  return (text: string, context: z.RefinementCtx<string>): T => {
    const parsed = parse(text);
    if (parsed.ok) return parsed.value;
    context.addIssue({ code: 'custom', message: parsed.error, input: text });
    return z.NEVER;
  };
}
