/** How numbers, times and reasons are said. Pure. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const MONTH = 30.44 * DAY;
const YEAR = 365.25 * DAY;

/** Such as `51 min 12 s`, `22 h 40 min`, `6 days`, `11 months`: as exact as anybody needs it. Never negative. */
export function duration(ms: number): string {
  const left = Math.max(ms, 0);
  if (left < MINUTE) return `${Math.floor(left / SECOND)} s`;
  if (left < HOUR) return two(left, MINUTE, 'min', SECOND, 's');
  if (left < 2 * DAY) return two(left, HOUR, 'h', MINUTE, 'min');
  if (left < 2 * MONTH) return `${Math.floor(left / DAY)} days`;
  if (left < 2 * YEAR) return `${Math.floor(left / MONTH)} months`;
  return `${Math.floor(left / YEAR)} years`;
}

function two(ms: number, large: number, largeUnit: string, small: number, smallUnit: string): string {
  const rest = Math.floor((ms % large) / small);
  const whole = `${Math.floor(ms / large)} ${largeUnit}`;
  return rest === 0 ? whole : `${whole} ${rest} ${smallUnit}`;
}

/** The same in one unit, for lists: `51 min`. */
export function briefly(ms: number): string {
  const left = Math.max(ms, 0);
  if (left < MINUTE) return `${Math.floor(left / SECOND)} s`;
  if (left < HOUR) return `${Math.floor(left / MINUTE)} min`;
  if (left < 2 * DAY) return `${Math.floor(left / HOUR)} h`;
  return duration(ms);
}

export function ago(ms: number): string {
  return ms < SECOND ? 'just now' : `${briefly(ms)} ago`;
}

export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(Math.floor(Math.log2(count) / 10), units.length);
  const value = count / 1024 ** power;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[power - 1] ?? ''}`;
}

/** `1,041,220` */
export function number(count: number): string {
  return String(count).replaceAll(/\B(?=(\d{3})+$)/g, ',');
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/** `a`, `a and b`, `a, b and c`. */
export function list(words: readonly string[]): string {
  return words.length < 2 ? (words[0] ?? '') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}

/** Milliseconds since 1970; undefined where there is no time. */
export function parseTime(time: string | null | undefined): number | undefined {
  const ms = time == null ? Number.NaN : Date.parse(time);
  return Number.isNaN(ms) ? undefined : ms;
}

/** `30 Nov 2026, 10:02:11 UTC`. */
export function moment(time: string | null): string {
  const ms = parseTime(time);
  if (ms === undefined) return 'unknown';
  const iso = new Date(ms).toISOString();
  const [, month = 1, day = 1] = /^[+-]?\d+-(\d\d)-(\d\d)/.exec(iso) ?? [];
  return `${Number(day)} ${MONTHS[Number(month) - 1]} ${new Date(ms).getUTCFullYear()}, ${clock(ms)} UTC`;
}

/** `10:02:11`, in UTC. */
export function clock(ms: number): string {
  return new Date(ms).toISOString().slice(-13, -5);
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** `01 4f 67 2e …`: enough to tell two apart. */
export function shortHex(hex: string, digits = 16): string {
  const pairs = hex.slice(0, digits).match(/.{1,2}/g) ?? [];
  return `${pairs.join(' ')}${hex.length > digits ? ' …' : ''}`;
}

/** The name that people know a key by. */
export function keyName(keyType: string): string {
  return keyType
    .replace(/^ec prime256v1$/, 'EC P-256')
    .replace(/^ec secp(\d+)r1$/, 'EC P-$1')
    .replace(/^rsa (\d+)$/, 'RSA $1')
    .replace(/^ed/, 'Ed');
}

/** The common name of `CN=…, O=…`, or all of it. */
export function subjectName(subject: string): string {
  const [, name] = /(?:^|[,+\n]\s*)CN=((?:\\.|[^,+\n\\])+)/.exec(subject) ?? [];
  return name?.replaceAll(/\\(.)/g, '$1') ?? (subject === '' ? 'no name' : subject);
}

/** What a reason of a refusal means, and what to do. The reasons are those of docs/reference/log.md. */
const REASONS: Readonly<Record<string, { readonly means: string; readonly todo: string }>> = {
  no_certificate: {
    means: 'The peer showed no certificate.',
    todo: 'If this is one of your workloads, give its TLS client an X.509-SVID.',
  },
  bad_certificate: {
    means: 'The certificate cannot be read, or its signature does not fit.',
    todo: 'Look at the certificate below: the findings name the clause.',
  },
  not_an_svid: { means: 'The certificate is no X.509-SVID.', todo: 'Look at the certificate below: the findings name the clause.' },
  unknown_trust_domain: {
    means: 'Scute has no trust bundle for the trust domain of this peer.',
    todo: 'Federate with its trust domain, if you trust it.',
  },
  untrusted_chain: {
    means: 'No authority of its own trust domain signed the certificate.',
    todo: 'Compare its issuer with the authorities of the trust domain. A root that has just been replaced may be missing here.',
  },
  expired: {
    means: 'The certificate had expired when the peer connected.',
    todo: "Check the peer's clock and its SPIFFE agent: the SVID was not renewed.",
  },
  not_yet_valid: { means: 'The certificate is not valid yet.', todo: 'Compare the clocks of both machines.' },
  self_signed: {
    means: 'Nobody but the server itself vouches for its certificate.',
    todo: 'Name its certificate or its authority in caFile of webPki, if you trust it.',
  },
  wrong_name: { means: 'The certificate is not for the host that the listener leads to.', todo: 'Check `to` of the listener.' },
  revoked: { means: 'The certificate or the peer is revoked.', todo: 'Remove the entry from the list if this is a mistake.' },
  chain_not_read: { means: 'The chain that the peer sent is too large to be read.', todo: 'Check which intermediates the peer sends.' },
  not_allowed: { means: 'The peer is authenticated, but no rule allows it.', todo: 'Add a rule if it may connect.' },
  denied: { means: 'The peer is authenticated, but a deny rule matches it.', todo: 'Change the deny rule if it may connect.' },
  identity_not_ready: { means: 'This sidecar has no valid identity.', todo: 'Check the Workload API.' },
  bad_proxy_header: {
    means: 'The load balancer sent no valid PROXY header before TLS.',
    todo: 'Enable PROXY protocol on the load balancer, or remove it from acceptFrom.',
  },
  handshake_timeout: { means: 'The peer did not finish the TLS handshake in time.', todo: 'Often a port scan or a slow network.' },
  protocol_error: {
    means: 'The peer does not speak TLS, or no TLS that is accepted.',
    todo: 'Check that the peer uses TLS 1.3, or TLS 1.2 where allowed.',
  },
};

export function reason(name: string): { readonly means: string; readonly todo: string } {
  return Object.hasOwn(REASONS, name) ? (REASONS[name] ?? NONE) : NONE;
}

const NONE = { means: '', todo: '' };

/** With a capital and a full stop. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === '') return '';
  // What is quoted stays as it is.
  const isName = /^[\w.-]+(?::|\()/.test(trimmed);
  const first = isName ? trimmed.charAt(0) : trimmed.charAt(0).toUpperCase();
  return `${first}${trimmed.slice(1)}${/[.!?]$/.test(trimmed) ? '' : '.'}`;
}
