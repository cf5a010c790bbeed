/** The questions in PromQL, and every name in them. Pure: a test holds the names against those that Scute serves. */

/** Of Scute: see docs/metrics.md. */
export const SERIES = {
  expiry: 'scute_x509_svid_expiration_timestamp_seconds',
  begin: 'scute_x509_svid_not_before_timestamp_seconds',
  authority: 'scute_x509_authority_expiration_timestamp_seconds',
  authorityBegin: 'scute_x509_authority_not_before_timestamp_seconds',
  build: 'scute_build_info',
  ready: 'scute_ready',
  connected: 'scute_workload_api_connected',
} as const;

/** Jobs whose targets are sidecars, as in deploy/prometheus: of one that cannot be scraped nothing else is known. */
const SIDECAR_JOBS = 'job=~"scute.*"';

/** Names one sidecar, with its place. */
const SIDECAR = 'job, instance, cluster, namespace, pod, node';

/** An SVID that is past this share of its life was not rotated when it should have been: SPIRE does at half of it. */
export const STUCK_SHARE = 0.75;
/** Of those with the very same time, which no cursor could tell apart, so many are told. */
export const MOST_TIED = 1000;
const MOST_VERSIONS = 50;

/** A set of labels; `trustDomain` is a part of the SPIFFE ID. */
export interface Filter {
  readonly trustDomain?: string | undefined;
  /** By label: equal to it. */
  readonly labels: Readonly<Record<string, string | undefined>>;
  readonly oneOf?: OneOf | undefined;
}

/** A label that is one of several. `pattern` matches these and nothing else. */
export interface OneOf {
  readonly label: string;
  readonly pattern: string;
}

export function svids(filter: Filter): string {
  return `${SERIES.expiry}${matchers(filter)}`;
}

/** Value: when it begins. */
export function begins(filter: Filter): string {
  return `${SERIES.begin}${matchers(filter)}`;
}

/** Those that are past their share. Value: when it expires. */
export function stuckSvids(filter: Filter): string {
  return `(${svids(filter)} and (${arePastTheirShare(filter)}))`;
}

/** The same, to be counted. */
export function arePastTheirShare(filter: Filter): string {
  return `${1 - STUCK_SHARE} * ${begins(filter)} + ${STUCK_SHARE} * ${svids(filter)} < time()`;
}

const TRUST_DOMAIN_OF_ID = '"trust_domain", "$1", "spiffe_id", "spiffe://([^/]*).*"';

export function withTrustDomain(svidExpression: string): string {
  return `label_replace(${svidExpression}, ${TRUST_DOMAIN_OF_ID})`;
}

/** Value: when the first of them expires. */
export function firstBy(label: string, expression: string): string {
  return `(min by (${label}) (${expression}))`;
}

export function countBy(label: string, expression: string): string {
  return `count by (${label}) (${expression})`;
}

/** Of those of `expression` that are in `where`, too. */
export function among(expression: string, where: string): string {
  return `${expression} and (${where})`;
}

/** Value: when the first of its SVIDs expires, or 0 of a sidecar that has none. */
export function sidecars(filter: Filter): string {
  const all = `group by (${SIDECAR}) (${SERIES.build}${matchers(filter)})`;
  return `(min by (${SIDECAR}) (${svids(filter)}) or 0 * ${all})`;
}

export const FACTS_OF_SIDECARS = {
  versions: (filter: Filter): string => `group by (${SIDECAR}, version) (${SERIES.build}${matchers(filter)})`,
  failing: (filter: Filter): string => `${SERIES.ready}${matchers(filter, 'blocks!="false"')} == 0`,
  connected: (filter: Filter): string => `${SERIES.connected}${matchers(filter)}`,
  certificates: (filter: Filter): string => `count by (${SIDECAR}) (${svids(filter)})`,
} as const;

export function unreachable(filter: Filter): string {
  return `(up${matchers(filter, SIDECAR_JOBS)} == 0)`;
}

/** Value: when it expires; of a certificate and its renewal by the same key, the renewal. */
export function authorities(filter: Filter): string {
  return `(${BY_KEY} (${SERIES.authority}${matchers(filter)}))`;
}

/** Value: when it began. What is older may well expire later: a root that had to go, say. */
export function authorityBegins(filter: Filter): string {
  return `${BY_KEY} (${SERIES.authorityBegin}${matchers(filter)})`;
}

/** How many trust it. */
export function trustedBy(filter: Filter): string {
  return `count by (trust_domain, subject_key_id) (${SERIES.authority}${matchers(filter)})`;
}

/** By `trust_domain` and `issuer_key_id`. */
export function issuedBy(filter: Filter): string {
  return `count by (trust_domain, issuer_key_id) (${withTrustDomain(svids(filter))})`;
}

/** Sidecars to which the newest authority of a trust domain has not come. Value: when the newest that they trust began. */
export function lagging(filter: Filter): string {
  const all = `${SERIES.authorityBegin}${matchers(filter)}`;
  return `(max by (${SIDECAR}, trust_domain) (${all}) < on (trust_domain) group_left () max by (trust_domain) (${all}))`;
}

/** When the last expires that they trust. */
export function lastExpiries(filter: Filter): string {
  return `max by (${SIDECAR}, trust_domain) (${SERIES.authority}${matchers(filter)})`;
}

const BY_KEY = 'max by (trust_domain, subject_key_id)';

export const EVERYTHING: Filter = { labels: {} };

/** One number each; no series if it is nought. */
export const COUNTS = {
  sidecars: `count(${SERIES.build})`,
  unreachable: `count(${unreachable(EVERYTHING)})`,
  notReady: `count(group by (${SIDECAR}) (${SERIES.ready}{blocks!="false"} == 0))`,
  disconnected: `count(${SERIES.connected} == 0)`,
  lagging: `count(${lagging(EVERYTHING)})`,
} as const;

export const FIRST_EXPIRY = `min(${SERIES.expiry})`;
export const VERSIONS = `topk(${MOST_VERSIONS}, count by (version) (${SERIES.build}))`;
/** Lives are told in such parts, of which three quarters are a whole number. */
export const LIFE_PARTS = 20;
/** How many have how many of these parts left; at most 21 series, -1 for what is over. */
export const REMAINING_LIFE = `count_values("parts", clamp(floor(${LIFE_PARTS} * (${SERIES.expiry} - time()) / (${SERIES.expiry} - ${SERIES.begin})), -1, ${LIFE_PARTS - 1}))`;

// ——— pages ———

/** The first `limit` beyond a value, and one more, by which to see whether that is all. */
export function firstBeyond(expression: string, above: number, limit: number): string {
  return `bottomk(${limit + 1}, ${expression} > ${numberText(above)})`;
}

/** Those of them that are below a value. */
export function between(expression: string, above: number, below: number): string {
  return `(${expression} > ${numberText(above)}) < ${numberText(below)}`;
}

export function tiedAt(expression: string, value: number): string {
  return `${expression} == ${numberText(value)}`;
}

export function mostTied(expression: string, value: number): string {
  return `bottomk(${MOST_TIED}, ${tiedAt(expression, value)})`;
}

function numberText(value: number): string {
  if (value === Infinity) return '+Inf';
  return value === -Infinity ? '-Inf' : String(value);
}

// ——— text ———

function matchers({ trustDomain, labels, oneOf }: Filter, ...more: readonly string[]): string {
  const equal = Object.entries(labels).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${quoted(value)}`]));
  const domain = trustDomain === undefined ? [] : [`spiffe_id=~${quoted(patternOfDomain(trustDomain))}`];
  const some = oneOf === undefined ? [] : [`${oneOf.label}=~${quoted(oneOf.pattern)}`];
  return `{${[...equal, ...domain, ...some, ...more].join(', ')}}`;
}

/** Matches the SPIFFE IDs of a trust domain. */
export function patternOfDomain(trustDomain: string): string {
  return `spiffe://${literally(trustDomain)}(/.*)?`;
}

/** A string of PromQL, which has the escapes of Go: those that JSON makes are among them. */
function quoted(text: string): string {
  return JSON.stringify(text);
}

/** For a regular expression of RE2. Nothing but what has a meaning is escaped: of plain words Prometheus looks up the series, and tries no others. */
export function literally(text: string): string {
  return text.replaceAll(/[.+*?()|[\]{}^$\\]/g, String.raw`\$&`);
}
