/** The answers of the fleet: questions to Prometheus, put together. */
import { isoTime } from '../admin/iso-time.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type * as api from './api-types.ts';
import type { Prometheus } from './prometheus.ts';
import * as series from './series.ts';
import type { Filter } from './series.ts';
import type { Sample, Vector } from './vector.ts';

/** Where a page begins, and how long it is. */
export interface Span {
  /** Only what has a greater value. */
  readonly above: number;
  readonly limit: number;
}

type Answer<T> = Promise<Result<T, api.FleetProblem>>;
type Page<T> = Answer<api.FleetPage<T>>;
type Row = Sample;

export const DIMENSIONS = {
  trust_domain: 'trust_domain',
  issuer: 'issuer_key_id',
  workload: 'spiffe_id',
  cluster: 'cluster',
  namespace: 'namespace',
  node: 'node',
} as const satisfies Readonly<Record<api.Dimension, string>>;

/** Certificates, soonest to expire first. */
export function certificates(prometheus: Prometheus, filter: Filter, stuckOnly: boolean, span: Span): Answer<api.FleetCertificatePage> {
  const all = stuckOnly ? series.stuckSvids(filter) : series.svids(filter);
  return page(prometheus, all, span, async ({ rows, where, atSeconds }) => {
    const begins = await lookUp(prometheus, series.among(series.begins(filter), where), atSeconds, allLabels);
    if (!begins.ok) return begins;
    return ok(rows.map((row) => certificate(row, begins.value.get(allLabels(row))?.value, atSeconds)));
  });
}

function certificate(row: Row, begin: number | undefined, nowSeconds: number): api.FleetCertificate {
  const end = row.value;
  const remaining = begin === undefined || !(end > begin) ? undefined : Math.min(Math.max((end - nowSeconds) / (end - begin), 0), 1);
  const spiffeId = label(row, 'spiffe_id');
  return {
    spiffeId,
    trustDomain: /^spiffe:\/\/([^/]*)/.exec(spiffeId)?.[1] ?? '',
    hint: label(row, 'hint'),
    issuerKeyId: label(row, 'issuer_key_id'),
    notBefore: begin === undefined ? null : timeOf(begin),
    notAfter: timeOf(end),
    remainingShare: remaining ?? null,
    stuck: remaining !== undefined && remaining < 1 - series.STUCK_SHARE,
    sidecar: sidecarOf(row),
  };
}

/** SVIDs by what they have in common; the group with the one that is soonest to expire comes first. */
export function groups(prometheus: Prometheus, by: api.Dimension, filter: Filter, span: Span): Answer<api.FleetGroupPage> {
  const name = DIMENSIONS[by];
  const labelled = (expression: string): string => (by === 'trust_domain' ? series.withTrustDomain(expression) : expression);
  return page(prometheus, series.firstBy(name, labelled(series.svids(filter))), span, async ({ rows, atSeconds }) => {
    const names = rows.map((row) => label(row, name));
    const chosen = by === 'trust_domain' ? oneOf('spiffe_id', names, series.patternOfDomain) : oneOf(name, names, series.literally);
    const count = (which: (filter: Filter) => string): Answer<readonly Row[]> =>
      countAllOf(prometheus, chosen, atSeconds, (some) => series.countBy(name, labelled(which({ ...filter, oneOf: some }))));
    const [counted, stuck] = await Promise.all([count(series.svids), count(series.arePastTheirShare)]);
    if (!counted.ok) return counted;
    if (!stuck.ok) return stuck;
    const valueOf = (facts: readonly Row[]): ((key: string) => number) => {
      const byName = new Map(facts.map((row) => [label(row, name), row.value]));
      return (key) => byName.get(key) ?? 0;
    };
    const [allOf, stuckOf] = [valueOf(counted.value), valueOf(stuck.value)];
    return ok(
      rows.map((row) => ({
        name: label(row, name),
        certificates: allOf(label(row, name)),
        stuck: stuckOf(label(row, name)),
        firstExpiry: timeOf(row.value),
      })),
    );
  });
}

/** Sidecars; those without an SVID first, then as their SVIDs expire. */
export function sidecars(prometheus: Prometheus, filter: Filter, span: Span): Answer<api.FleetSidecarPage> {
  return page(prometheus, series.sidecars(filter), span, async ({ rows, atSeconds }) => {
    const chosen = oneOf(
      'instance',
      rows.map((row) => label(row, 'instance')),
      series.literally,
    );
    const { versions, failing, connected, certificates: held } = series.FACTS_OF_SIDECARS;
    const asked = (fact: (filter: Filter) => string, ask = askAll): Answer<readonly Row[]> =>
      ask(prometheus, chosen, atSeconds, (some) => fact({ ...filter, oneOf: some }));
    const facts = await Promise.all([asked(versions), asked(failing), asked(connected), asked(held, countAllOf)]);
    const found: ReadonlyMap<string, readonly Row[]>[] = [];
    for (const fact of facts) {
      if (!fact.ok) return fact;
      found.push(Map.groupBy(fact.value, sidecarKey));
    }
    return ok(
      rows.map((row) => {
        const [[version] = [], checks = [], [stream] = [], [certificatesOf] = []] = found.map((fact) => fact.get(sidecarKey(row)) ?? []);
        return {
          sidecar: sidecarOf(row),
          version: version === undefined ? null : label(version, 'version'),
          failing: checks.map((check) => label(check, 'check')),
          connected: stream === undefined ? null : stream.value === 1,
          certificates: certificatesOf?.value ?? 0,
          firstExpiry: row.value === 0 ? null : timeOf(row.value),
        };
      }),
    );
  });
}

/** Sidecars that cannot be scraped. They have no order but that of their labels. */
export function unreachable(prometheus: Prometheus, filter: Filter, span: Span): Answer<api.FleetUnreachablePage> {
  return page(prometheus, series.unreachable(filter), span, ({ rows }) =>
    Promise.resolve(ok(rows.map((row) => ({ sidecar: sidecarOf(row) })))),
  );
}

/** Authorities that anybody trusts, soonest to expire first. */
export function authorities(prometheus: Prometheus, filter: Filter, span: Span): Answer<api.FleetAuthorityPage> {
  return page(prometheus, series.authorities(filter), span, async ({ rows, atSeconds }) => {
    const domains = oneOf(
      'trust_domain',
      rows.map((row) => label(row, 'trust_domain')),
      series.literally,
    );
    const keys = oneOf(
      'issuer_key_id',
      rows.map((row) => label(row, 'subject_key_id')),
      series.literally,
    );
    const ofDomains = (which: (filter: Filter) => string, ask = askAll): Answer<readonly Row[]> =>
      ask(prometheus, domains, atSeconds, (some) => which({ labels: {}, oneOf: some }));
    const [begun, trusted, issued] = await Promise.all([
      ofDomains(series.authorityBegins),
      ofDomains(series.trustedBy, countAllOf),
      countAllOf(prometheus, keys, atSeconds, (some) => series.issuedBy({ labels: {}, oneOf: some })),
    ]);
    if (!begun.ok) return begun;
    if (!trusted.ok) return trusted;
    if (!issued.ok) return issued;
    const keyOf = (row: Row, keyLabel = 'subject_key_id'): string => JSON.stringify([label(row, 'trust_domain'), label(row, keyLabel)]);
    const newestOf = new Map<string, number>();
    for (const row of begun.value) {
      const domain = label(row, 'trust_domain');
      newestOf.set(domain, Math.max(row.value, newestOf.get(domain) ?? -Infinity));
    }
    const isNewest = new Set(begun.value.filter((row) => row.value === newestOf.get(label(row, 'trust_domain'))).map((row) => keyOf(row)));
    const trustedOf = new Map(trusted.value.map((row) => [keyOf(row), row.value]));
    const issuedOf = new Map(issued.value.map((row) => [keyOf(row, 'issuer_key_id'), row.value]));
    return ok(
      rows.map((row) => ({
        trustDomain: label(row, 'trust_domain'),
        subjectKeyId: label(row, 'subject_key_id'),
        notAfter: timeOf(row.value),
        newest: isNewest.has(keyOf(row)),
        trustedBy: trustedOf.get(keyOf(row)) ?? 0,
        issued: issuedOf.get(keyOf(row)) ?? 0,
      })),
    );
  });
}

/** Who still trusts only an old root; the oldest of these first. */
export function lagging(prometheus: Prometheus, filter: Filter, span: Span): Answer<api.FleetLaggingPage> {
  return page(prometheus, series.lagging(filter), span, async ({ rows, atSeconds }) => {
    const chosen = oneOf(
      'instance',
      rows.map((row) => label(row, 'instance')),
      series.literally,
    );
    const last = await askAll(prometheus, chosen, atSeconds, (some) => series.lastExpiries({ ...filter, oneOf: some }));
    if (!last.ok) return last;
    const expiryOf = new Map(last.value.map((row) => [allLabels(row), row.value]));
    return ok(
      rows.map((row) => ({
        trustDomain: label(row, 'trust_domain'),
        sidecar: sidecarOf(row),
        lastExpiry: timeOf(expiryOf.get(allLabels(row)) ?? Number.NaN),
      })),
    );
  });
}

/** What stands above all lists. A question that fails leaves the others. */
export async function overview(prometheus: Prometheus, url: URL): Promise<api.FleetOverview> {
  const ask = async (promql: string): Answer<Vector> => onlyCounts(await prometheus.query(promql), ({ samples }) => samples);
  const [counts, lives, first, versions] = await Promise.all([
    countAll(ask),
    ask(series.REMAINING_LIFE),
    prometheus.query(series.FIRST_EXPIRY),
    ask(series.VERSIONS),
  ]);
  const at = [lives, first, versions].map((answer) => (answer.ok ? answer.value.atSeconds : undefined)).find((time) => time !== undefined);
  const whole: Result<api.FleetCounts, api.FleetProblem> = !lives.ok
    ? lives
    : !counts.ok
      ? counts
      : ok({ ...counts.value, ...lifeCounts(lives.value) });
  return {
    now: at === undefined ? null : timeOf(at),
    prometheus: url.href,
    counts: partOf(whole, (value) => value),
    firstExpiry: partOf(first, ({ samples: [sample] }) => (sample === undefined ? null : timeOf(sample.value))),
    remainingLife: partOf(lives, (vector) => {
      const certificates = (from: number, to: number): number => haveLeft(vector, from, to);
      return (['expired', 0, 1, 2, 3, 4, 5, 6, 7, 8, 9] as const).map((tenth) => ({
        tenth,
        certificates: tenth === 'expired' ? certificates(-1, 0) : certificates(tenth / 10, (tenth + 1) / 10),
      }));
    }),
    versions: partOf(versions, ({ samples }) =>
      samples
        .map((sample) => ({ version: label(sample, 'version'), sidecars: sample.value }))
        .toSorted((one, other) => other.sidecars - one.sidecars || (one.version < other.version ? -1 : 1)),
    ),
  };
}

/** What is no count is more than nothing, or less, to nobody: all would seem well. */
function onlyCounts<A>(answer: Result<A, api.FleetProblem>, samplesOf: (value: A) => readonly Sample[]): Result<A, api.FleetProblem> {
  const odd = answer.ok ? samplesOf(answer.value).find(({ value }) => !Number.isSafeInteger(value) || value < 0) : undefined;
  return odd === undefined ? answer : err({ reason: 'not_prometheus', detail: `it counts ${odd.value}` });
}

async function countAll(ask: (promql: string) => Answer<Vector>): Answer<Record<keyof typeof series.COUNTS, number>> {
  const names = Object.keys(series.COUNTS) as (keyof typeof series.COUNTS)[];
  const counts: Record<keyof typeof series.COUNTS, number> = { sidecars: 0, unreachable: 0, notReady: 0, disconnected: 0, lagging: 0 };
  const answers = await Promise.all(names.map(async (name) => ({ name, answer: await ask(series.COUNTS[name]) })));
  for (const { name, answer } of answers) {
    if (!answer.ok) return answer;
    counts[name] = answer.value.samples[0]?.value ?? 0;
  }
  return ok(counts);
}

function lifeCounts(lives: Vector): Pick<api.FleetCounts, 'certificates' | 'expired' | 'stuck'> {
  return {
    certificates: haveLeft(lives, -1, 1),
    expired: haveLeft(lives, -1, 0),
    stuck: haveLeft(lives, -1, 1 - series.STUCK_SHARE),
  };
}

/** How many have a share of their life left from `from` to below `to`; what is over is at -1. */
function haveLeft({ samples }: Vector, from: number, to: number): number {
  return samples.reduce((sum, sample) => {
    const parts = Number(label(sample, 'parts'));
    const share = parts < 0 ? -1 : parts / series.LIFE_PARTS;
    return share >= from && share < to ? sum + sample.value : sum;
  }, 0);
}

function partOf<A, T>(answer: Result<A, api.FleetProblem>, read: (value: A) => T): api.Part<T> {
  return answer.ok ? { value: read(answer.value), problem: null } : { value: null, problem: answer.error };
}

// ——— pages ———

interface Taken {
  /** In order. */
  readonly rows: readonly Row[];
  /** These alone, in PromQL, to ask for more of them. */
  readonly where: string;
  /** For the questions that follow: all are about one moment. */
  readonly atSeconds: number;
}

/**
 * One page of `expression`, by value. What has the same value is never parted, since no cursor could tell where to go on; only of more than
 * `MOST_TIED` the rest is left out, and counted.
 */
async function page<T>(prometheus: Prometheus, expression: string, span: Span, describe: (taken: Taken) => Answer<readonly T[]>): Page<T> {
  const { above, limit } = span;
  const first = series.firstBeyond(expression, above, limit);
  const answer = await prometheus.query(first);
  if (!answer.ok) return answer;
  const { atSeconds, samples } = answer.value;
  if (atSeconds === undefined) return ok({ now: null, items: [], nextCursor: null, omitted: 0 });
  let rows = inOrder(samples);
  let where = first;
  let next: number | undefined;
  let omitted = 0;
  const beyond = rows[limit];
  if (beyond !== undefined) {
    rows = rows.filter(({ value }) => value < beyond.value);
    where = series.between(expression, above, beyond.value);
    next = rows.at(-1)?.value;
    if (next === undefined) {
      next = beyond.value;
      where = series.mostTied(expression, next);
      const [tied, answered] = await Promise.all([
        prometheus.query(where, atSeconds),
        prometheus.query(`count(${series.tiedAt(expression, next)})`, atSeconds),
      ]);
      if (!tied.ok) return tied;
      const counted = onlyCounts(answered, (vector) => vector.samples);
      if (!counted.ok) return counted;
      rows = inOrder(tied.value.samples);
      omitted = Math.max((counted.value.samples[0]?.value ?? 0) - rows.length, 0);
    }
  }
  const items = await describe({ rows, where, atSeconds });
  if (!items.ok) return items;
  return ok({ now: timeOf(atSeconds), items: items.value, nextCursor: next === undefined ? null : String(next), omitted });
}

function inOrder(samples: readonly Sample[]): readonly Row[] {
  return samples
    .map((row) => ({ row, key: allLabels(row) }))
    .toSorted((one, other) => one.row.value - other.row.value || (one.key < other.key ? -1 : 1))
    .map(({ row }) => row);
}

async function lookUp(
  prometheus: Prometheus,
  promql: string,
  atSeconds: number,
  keyOf: (row: Row) => string,
): Answer<ReadonlyMap<string, Row>> {
  const answer = await prometheus.query(promql, atSeconds);
  return answer.ok ? ok(new Map(answer.value.samples.map((row) => [keyOf(row), row]))) : err(answer.error);
}

/** So long may a pattern be: Prometheus reads it anew for each question. */
const MAX_PATTERN = 32_768;

/** Patterns that match these values and nothing else; as many as it takes, so that none is too long. */
function oneOf(name: string, values: readonly string[], patternOf: (value: string) => string): readonly series.OneOf[] {
  const chunks: string[][] = [];
  let length = MAX_PATTERN;
  for (const pattern of new Set(values.map(patternOf))) {
    length += pattern.length + 1;
    if (length > MAX_PATTERN) {
      chunks.push([]);
      length = pattern.length;
    }
    chunks.at(-1)?.push(pattern);
  }
  return chunks.map((patterns) => ({ label: name, pattern: patterns.join('|') }));
}

/** The answers of all together. */
async function askAll(
  prometheus: Prometheus,
  chosen: readonly series.OneOf[],
  atSeconds: number,
  question: (some: series.OneOf) => string,
): Answer<readonly Row[]> {
  const all: Row[] = [];
  for (const some of chosen) {
    const answer = await prometheus.query(question(some), atSeconds);
    if (!answer.ok) return answer;
    all.push(...answer.value.samples);
  }
  return ok(all);
}

/** The same, where each is how many there are of something. */
async function countAllOf(...question: Parameters<typeof askAll>): Answer<readonly Row[]> {
  return onlyCounts(await askAll(...question), (rows) => rows);
}

// ——— labels ———

function label({ labels }: Row, name: string): string {
  return labels.get(name) ?? '';
}

/** But for the name of the metric. */
function allLabels({ labels }: Row): string {
  return JSON.stringify([...labels].filter(([name]) => name !== '__name__').toSorted(([one], [other]) => (one < other ? -1 : 1)));
}

function sidecarKey(row: Row): string {
  return JSON.stringify(['job', 'instance', 'cluster', 'namespace', 'pod', 'node'].map((name) => label(row, name)));
}

function sidecarOf(row: Row): api.SidecarName {
  return {
    job: label(row, 'job'),
    instance: label(row, 'instance'),
    place: { cluster: label(row, 'cluster'), namespace: label(row, 'namespace'), pod: label(row, 'pod'), node: label(row, 'node') },
  };
}

function timeOf(seconds: number): api.Time {
  return isoTime(seconds * 1000);
}
