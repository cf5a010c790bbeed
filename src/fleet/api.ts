/** `/api/v1/fleet/`: what may be asked, and how often it is asked of Prometheus. */
import { BadParameter } from '../admin/api/lists.ts';
import { data, refuseInJson, type Query, type Reply, type Routes } from '../admin/http.ts';
import type { Clock } from '../lib/clock.ts';
import { Remembered } from '../lib/remembered.ts';
import type { Result } from '../lib/result.ts';
import type { FleetIndex, FleetProblem, FleetRefusal } from './api-types.ts';
import { authorities, certificates, DIMENSIONS, groups, lagging, overview, sidecars, unreachable, type Span } from './fleet.ts';
import type { Prometheus } from './prometheus.ts';
import type { Filter } from './series.ts';

export interface FleetApiOptions {
  readonly prometheus: Prometheus;
  /** As it is told. */
  readonly url: URL;
  readonly clock: Pick<Clock, 'monotonic'>;
  /** Prometheus did not answer as it should, or does again. */
  readonly asked: (problem: FleetProblem | undefined) => void;
}

const BASE = '/api/v1/fleet/';
const PAGED = 'limit, cursor';
const PLACE = 'job, instance, cluster, namespace, pod, node';
/** What there is, and which parameters each has. */
export const FLEET_RESOURCES: Readonly<Record<string, string>> = {
  overview: '',
  certificates: `${PAGED}, trustDomain, spiffeId, issuer, ${PLACE}, stuck`,
  groups: `${PAGED}, by, trustDomain, issuer, ${PLACE}`,
  sidecars: `${PAGED}, ${PLACE}`,
  unreachable: `${PAGED}, ${PLACE}`,
  authorities: `${PAGED}, trustDomain`,
  lagging: `${PAGED}, trustDomain`,
};

const INDEX: FleetIndex = { version: 1, resources: Object.fromEntries(Object.keys(FLEET_RESOURCES).map((name) => [name, BASE + name])) };

const DEFAULT_LIMIT = 50;
const MAX_LIMIT = 500;
const MAX_PARAMETER = 2048;
/** Who asks again sooner is told the same, so that a wall of pages asks no more of Prometheus than one. It scrapes less often than that. */
const FRESH_MS = 2000;
const MOST_KEPT = 64;
const MOST_KEPT_BYTES = 16 * 1024 * 1024;
/** Answers that are made at once. */
const MOST_UNDER_WAY = 32;

/** Asks of which nothing else is known but that they are right. */
type Ask = () => Promise<Result<unknown, FleetProblem>>;

/** The routes below `/api/v1/fleet/`. Reading them changes nothing. */
export function fleetRoutes({ prometheus, url, clock, asked }: FleetApiOptions): Routes {
  const kept = new Remembered<{ readonly reply: Reply; readonly untilMs: number }>(
    MOST_KEPT,
    MOST_KEPT_BYTES,
    ({ reply }) => reply.body.length,
  );
  const underWay = new Map<string, Promise<Reply>>();

  const questions: Readonly<Record<string, (search: URLSearchParams) => Ask>> = {
    overview: () => async () => {
      const told = await overview(prometheus, url);
      asked(
        [told.counts, told.firstExpiry, told.remainingLife, told.versions].find(({ problem }) => problem !== null)?.problem ?? undefined,
      );
      return { ok: true, value: told };
    },
    certificates: (search) => {
      const [filter, span, stuck] = [filterOf(search), spanOf(search), flagOf(search, 'stuck')];
      return () => certificates(prometheus, filter, stuck, span);
    },
    groups: (search) => {
      const [by, filter, span] = [search.get('by') ?? '', filterOf(search), spanOf(search)];
      if (!isDimension(by)) throw new BadParameter(`by is one of ${Object.keys(DIMENSIONS).join(', ')}`);
      return () => groups(prometheus, by, filter, span);
    },
    sidecars: (search) => {
      const [filter, span] = [filterOf(search), spanOf(search)];
      return () => sidecars(prometheus, filter, span);
    },
    unreachable: (search) => {
      const [filter, span] = [filterOf(search), spanOf(search)];
      return () => unreachable(prometheus, filter, span);
    },
    authorities: (search) => {
      const [filter, span] = [domainOf(search), spanOf(search)];
      return () => authorities(prometheus, filter, span);
    },
    lagging: (search) => {
      const [filter, span] = [domainOf(search), spanOf(search)];
      return () => lagging(prometheus, filter, span);
    },
  };

  /** One answer for all who ask the same at about the same time. */
  const shared = (key: string, ask: Ask): Promise<Reply> | Reply => {
    const known = kept.get(key);
    if (known !== undefined && clock.monotonic() < known.untilMs) return known.reply;
    const begun = underWay.get(key);
    if (begun !== undefined) return begun;
    if (underWay.size >= MOST_UNDER_WAY) return failed({ reason: 'busy', detail: `${MOST_UNDER_WAY} answers are being made already` });
    const made = make(ask, asked).finally(() => underWay.delete(key));
    underWay.set(key, made);
    return made.then((reply) => {
      kept.set(key, { reply, untilMs: clock.monotonic() + FRESH_MS });
      return reply;
    });
  };

  return {
    [BASE]: { GET: () => data(200, INDEX) },
    ...Object.fromEntries(
      Object.entries(questions).map(([name, question]) => [
        BASE + name,
        { GET: (query: Query) => answer(name, query, (search) => shared(keyOf(name, search), question(search))) },
      ]),
    ),
  };
}

function answer(name: string, { search }: Query, reply: (search: URLSearchParams) => Promise<Reply> | Reply): Promise<Reply> | Reply {
  try {
    const known = new Set((FLEET_RESOURCES[name] ?? '').split(', '));
    for (const parameter of new Set(search.keys())) {
      if (!known.has(parameter)) throw new BadParameter(`there is no parameter ${JSON.stringify(parameter.slice(0, 64))} here`);
      const [value = '', ...more] = search.getAll(parameter);
      if (more.length > 0) throw new BadParameter(`${parameter} may come once`);
      if (value.length > MAX_PARAMETER) throw new BadParameter(`${parameter} is longer than ${MAX_PARAMETER} letters`);
    }
    return reply(search);
  } catch (thrown) {
    if (thrown instanceof BadParameter) return refuseInJson(400, 'bad_request', thrown.message);
    throw thrown;
  }
}

async function make(ask: Ask, asked: FleetApiOptions['asked']): Promise<Reply> {
  const told = await ask();
  if (!told.ok) asked(told.error);
  return told.ok ? data(200, told.value) : failed(told.error);
}

/** 502: it is not we who fail. */
function failed({ reason, detail }: FleetProblem): Reply {
  return data(reason === 'busy' ? 503 : 502, { error: reason, detail } satisfies FleetRefusal);
}

function keyOf(name: string, search: URLSearchParams): string {
  const sorted = new URLSearchParams(search);
  sorted.sort();
  return `${name}?${sorted.toString()}`;
}

function spanOf(search: URLSearchParams): Span {
  const limitText = search.get('limit') ?? String(DEFAULT_LIMIT);
  const limit = /^[0-9]{1,4}$/.test(limitText) ? Number(limitText) : 0;
  if (limit < 1 || limit > MAX_LIMIT) throw new BadParameter(`limit must be a whole number from 1 to ${MAX_LIMIT}`);
  const cursor = search.get('cursor');
  if (cursor === null) return { above: -Infinity, limit };
  if (!/^-?(?:\d{1,20}(?:\.\d{1,20})?(?:e[+-]?\d{1,3})?|Infinity)$/.test(cursor))
    throw new BadParameter('cursor is not one that this list gave');
  return { above: Number(cursor), limit };
}

function filterOf(search: URLSearchParams): Filter {
  const of = (name: string): string | undefined => search.get(name) ?? undefined;
  return {
    trustDomain: of('trustDomain'),
    labels: {
      spiffe_id: of('spiffeId'),
      issuer_key_id: of('issuer'),
      job: of('job'),
      instance: of('instance'),
      cluster: of('cluster'),
      namespace: of('namespace'),
      pod: of('pod'),
      node: of('node'),
    },
  };
}

/** Authorities have a label for it. */
function domainOf(search: URLSearchParams): Filter {
  return { labels: { trust_domain: search.get('trustDomain') ?? undefined } };
}

function flagOf(search: URLSearchParams, name: string): boolean {
  const text = search.get(name) ?? 'false';
  if (text !== 'true' && text !== 'false') throw new BadParameter(`${name} is true or false`);
  return text === 'true';
}

function isDimension(name: string): name is keyof typeof DIMENSIONS {
  return Object.hasOwn(DIMENSIONS, name);
}
