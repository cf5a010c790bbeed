import type { ServerResponse } from 'node:http';
import { formatAddress, formatTarget } from '../../config/units.ts';
import { chooseSvid } from '../../identity/snapshot.ts';
import { trustDomainOf } from '../../spiffe/spiffe-id.ts';
import type { JwtBundle } from '../../spiffe/jwt-bundle.ts';
import type { TrustBundle } from '../../spiffe/trust-bundle.ts';
import type { RelationStatus } from '../../telemetry/log/federation-records.ts';
import type { ListenerRef } from '../../telemetry/log/records.ts';
import { strangersWords } from '../../telemetry/log/scrub.ts';
import type { SdsOpenStream, SdsStreamStatus } from '../../telemetry/log/sds-records.ts';
import { certificates, peerIntermediates } from './certificates.ts';
import { BadParameter, listOf, page } from './lists.ts';
import { livePeers } from './peers.ts';
import { rotations } from './rotations.ts';
import type { ApiSource, LiveConnection } from './source.ts';
import { describeApplication } from '../checks/application.ts';
import type * as api from '../api-types.ts';
import { listenerName, peerId } from '../certificates.ts';
import { data, refuseInJson, type Query, type Reply, type Routes } from '../http.ts';
import type { ListenerStatus } from '../inventory.ts';
import { isoTime, timeOf } from '../iso-time.ts';
import type { SeenRefusal } from '../peer-book.ts';
import type { TokenCounts } from '../../telemetry/log/jwt-records.ts';
import { tokenList } from '../checks/tokens.ts';

const MAX_NOTES = 20;
const MAX_WORDS = 500;

const BASE = '/api/v1/';
const PAGED = 'limit, cursor';
/** What there is, and which parameters each has. */
export const RESOURCES: Readonly<Record<string, string>> = {
  overview: '',
  certificates: `${PAGED}, id, kind, spiffeId, trustDomain, expiringIn`,
  'trust-domains': PAGED,
  connections: `${PAGED}, spiffeId, listener`,
  peers: `${PAGED}, search, listener`,
  listeners: '',
  tokens: '',
  readiness: '',
  refusals: PAGED,
  sds: PAGED,
  rotations: '',
  stream: '',
};

/** The routes below `/api/v1/`: the inventory as JSON, and the stream of what changes of it. Reading it changes nothing. */
export function apiRoutes(source: ApiSource, openStream: (response: ServerResponse) => void): Routes {
  const answers: Readonly<Record<string, (search: URLSearchParams) => unknown>> = {
    '': () =>
      ({ version: 1, resources: Object.fromEntries(Object.keys(RESOURCES).map((name) => [name, BASE + name])) }) satisfies api.Index,
    overview: () => overview(source),
    certificates: (search) => certificates(source, search),
    'trust-domains': (search) => trustDomains(source, search),
    connections: (search) => connections(source, search),
    peers: (search) => livePeers(source, search),
    listeners: () => ({ items: source.status.listeners().map((status) => listener(source, status)) }) satisfies api.ListenerList,
    tokens: () => tokenList(source.status.tokens?.() ?? []),
    readiness: () => readiness(source),
    refusals: (search) => refusals(source, search),
    sds: (search) => sds(source, search),
    rotations: () => rotations(source),
  };
  const stream: Reply = { status: 200, body: '', contentType: 'text/event-stream', stream: openStream };
  return {
    ...Object.fromEntries(
      Object.entries(answers).map(([name, answer]) => [
        BASE + name,
        { GET: (query: Query) => reply(query, RESOURCES[name] ?? '', (search) => data(200, answer(search))) },
      ]),
    ),
    [`${BASE}stream`]: { GET: (query) => reply(query, '', () => stream) },
  };
}

function reply({ search }: Query, allowed: string, answer: (search: URLSearchParams) => Reply): Reply {
  try {
    const known = new Set(allowed.split(', '));
    for (const name of new Set(search.keys())) {
      if (!known.has(name)) throw new BadParameter(`there is no parameter ${JSON.stringify(name.slice(0, 64))} here`);
      if (search.getAll(name).length > 1) throw new BadParameter(`${name} may come once`);
    }
    return answer(search);
  } catch (thrown) {
    if (thrown instanceof BadParameter) return refuseInJson(400, 'bad_request', thrown.message);
    throw thrown;
  }
}

// ——— trust domains ———

function trustDomains({ status, clock }: ApiSource, search: URLSearchParams): api.TrustDomainPage {
  const snapshot = status.identity();
  const relations = new Map((status.federation?.() ?? []).map((relation) => [relation.trustDomain, relation]));
  const own = new Set(snapshot?.kind === 'held' ? snapshot.svids.map(({ id }) => trustDomainOf(id) as string) : []);
  const jwtBundles = new Map<string, JwtBundle>(snapshot?.jwtBundles);
  const names = new Set<string>([...(snapshot?.bundles.keys() ?? []), ...jwtBundles.keys(), ...relations.keys()]);
  // In an order that stays: ours, then by name. There is no more of them than the agent gave or the configuration has.
  const ordered = [...names].toSorted((one, other) => Number(own.has(other)) - Number(own.has(one)) || (one < other ? -1 : 1)).toReversed();
  const bundles = new Map<string, TrustBundle>(snapshot?.bundles);
  const domains = listOf<{ readonly name: string; readonly index: number }, api.TrustDomain>({
    name: 'trust_domain',
    items: () => ordered.map((name, index) => ({ name, index })),
    keyOf: ({ index }) => index,
    fits: () => true,
    describe({ name }) {
      const bundle = bundles.get(name);
      const jwt = jwtBundles.get(name);
      const expiries = bundle?.authorities.map(({ notAfterMs }) => notAfterMs) ?? [];
      const lastMs = expiries.reduce((one, other) => Math.max(one, other), -Infinity);
      const last = bundle?.authorities.find(({ notAfterMs }) => notAfterMs === lastMs);
      const fetched = bundle !== undefined && snapshot?.kind === 'held' && snapshot.endpointBundles.has(bundle.trustDomain);
      return {
        trustDomain: name,
        isOwn: own.has(name),
        source: bundle === undefined ? null : fetched ? 'bundle_endpoint' : 'workload_api',
        authorities: expiries.length,
        firstExpiry: expiries.length === 0 ? null : isoTime(expiries.reduce((one, other) => Math.min(one, other))),
        lastBegin: last === undefined ? null : isoTime(last.notBeforeMs),
        lastExpiry: last === undefined ? null : isoTime(last.notAfterMs),
        revocationLists: bundle?.crls.length ?? 0,
        jwtAuthorities: jwt?.authorities.length ?? null,
        jwtKeyIds: jwt?.authorities.slice(0, MAX_NOTES).map(({ keyId }) => words(keyId)) ?? [],
        notes: [...(bundle?.notes ?? []), ...(jwt?.notes ?? [])].slice(0, MAX_NOTES).map((note) => words(note)),
        endpoint: describeRelation(relations.get(name)),
      };
    },
  });
  return page({ clock }, search, [domains]);
}

function describeRelation(relation: RelationStatus | undefined): api.Relation | null {
  if (relation === undefined) return null;
  const { url, sequence, lastSuccessMs, nextRefreshMs, problem } = relation;
  return {
    url,
    sequence: sequence?.toString() ?? null,
    lastSuccessAt: timeOf(lastSuccessMs),
    nextRefreshAt: timeOf(nextRefreshMs),
    problem: problem === undefined ? null : { reason: problem.reason, detail: problem.detail },
  };
}

// ——— connections, listeners, readiness, refusals ———

interface Open {
  readonly listener: ListenerRef;
  readonly session: LiveConnection;
}

function connections(source: ApiSource, search: URLSearchParams): api.ConnectionPage {
  const spiffeId = search.get('spiffeId');
  const name = search.get('listener');
  const { clock } = source;
  const startMs = clock.now() - clock.monotonic();
  const open = listOf<Open, api.Connection>({
    name: 'connection',
    *items() {
      for (const { listener: ref, sessions } of source.connections()) {
        if (name !== null && ref.name !== name) continue;
        for (const session of sessions) yield { listener: ref, session };
      }
    },
    keyOf: ({ session }) => session.id,
    fits: ({ session }) => spiffeId === null || session.proven?.authenticated.id === spiffeId,
    describe({ listener: ref, session }) {
      const { proven } = session;
      return {
        id: session.id,
        listener: listenerName(ref),
        downstreamAddress: words(session.downstreamAddress),
        via: session.via === undefined ? null : words(session.via),
        upstreamAddress: session.upstreamAddress,
        peer: proven?.authenticated.id ?? null,
        certificate: proven === undefined ? null : peerId({ known: proven, sha256: proven.authenticated.leaf.sha256 }),
        presented: session.ownId ?? null,
        // Between two servers there is none.
        tls: proven === undefined || session.tlsVersion === undefined ? null : { version: session.tlsVersion, alpn: session.alpn ?? null },
        rule: session.rule ?? null,
        audited: session.audited ?? null,
        denied: session.denied ?? null,
        since: isoTime(Math.round(startMs + session.startedAtMs)),
        bytesFromDownstream: session.bytesFromDownstream,
        bytesToDownstream: session.bytesToDownstream,
      };
    },
  });
  return page(source, search, [open]);
}

function listener({ status }: ApiSource, { listener: ref, address, to, identity, counters, tokens }: ListenerStatus): api.Listener {
  const svid = chooseSvid(status.identity(), identity);
  return {
    ...listenerName(ref),
    address: address === undefined ? null : formatAddress(address),
    to: formatTarget(to),
    presents: svid?.id ?? null,
    certificate: svid === undefined ? null : svidId(svid),
    exposedAt: status.exposed().get(ref.name) ?? [],
    connections: { opened: counters.opened, open: counters.open, waiting: counters.waiting, handshaking: counters.handshaking },
    bytes: {
      downstreamRead: counters.downstreamReadBytes,
      downstreamWritten: counters.downstreamWrittenBytes,
      upstreamRead: counters.upstreamReadBytes,
      upstreamWritten: counters.upstreamWrittenBytes,
    },
    tokens: tokens === undefined ? null : tokenCounts(tokens),
  };
}

function tokenCounts({ accepted, refused, lastRefusedAtMs }: TokenCounts): api.TokenCounts {
  const reasons = [...refused].map(([reason, count]) => ({ reason, count })).toSorted((one, other) => other.count - one.count);
  return { accepted, refused: reasons, lastRefusedAt: lastRefusedAtMs === undefined ? null : isoTime(lastRefusedAtMs) };
}

function readiness({ readiness: checks }: ApiSource): api.Readiness {
  const { ready, checks: reports } = checks.evaluate();
  return {
    ready,
    checks: reports.map(({ name, ok, detail, blocks }) => ({ name, ok, detail: detail === undefined ? null : words(detail), blocks })),
  };
}

function refusals(source: ApiSource, search: URLSearchParams): api.RefusalPage {
  const refused = listOf<SeenRefusal, api.Refusal>({
    name: 'refusal',
    items: () => source.peers.refusals(),
    keyOf: ({ seq }) => seq,
    fits: () => true,
    describe: ({ atMs, connection, listener: ref, downstreamAddress, peer, sha256, reason, rule, detail }) => ({
      connection,
      at: isoTime(atMs),
      listener: listenerName(ref),
      downstreamAddress: words(downstreamAddress),
      peer: peer ?? null,
      certificate: sha256 === undefined ? null : `${peer === undefined ? 'refused' : 'peer'}:${sha256}`,
      reason,
      rule: rule ?? null,
      detail,
    }),
  });
  return page(source, search, [refused]);
}

// ——— SDS ———

function sds(source: ApiSource, search: URLSearchParams): api.Sds {
  const served = source.sds();
  const streams = listOf<SdsOpenStream, api.SdsStream>({
    name: 'stream',
    items: () => served?.streams() ?? [],
    keyOf: ({ id }) => id,
    fits: () => true,
    describe: (stream) => describeStream(stream.describe()),
  });
  return { address: served?.address() ?? null, ...page(source, search, [streams]) };
}

function describeStream({
  ref,
  validation,
  openedAtMs,
  responses,
  everything,
  subscriptions,
  subscriptionsOmitted,
}: SdsStreamStatus): api.SdsStream {
  return {
    stream: ref.id,
    connection: ref.connection,
    protocol: ref.protocol,
    aggregated: ref.aggregated,
    node: ref.node,
    userAgent: ref.userAgent,
    validation: validation ?? null,
    openedAt: isoTime(openedAtMs),
    responses,
    everything,
    subscriptions: subscriptions.map(({ name, version, status, detail, missing, current }) => ({
      name,
      version: version ?? null,
      status,
      detail: detail ?? null,
      missing: missing ?? null,
      current: current ?? null,
    })),
    subscriptionsOmitted,
  };
}

// ——— all of it ———

function overview(source: ApiSource): api.Overview {
  const { status, held, peers, clock } = source;
  const snapshot = status.identity();
  const report = source.readiness.evaluate();
  const listeners = status.listeners();
  const svids = snapshot?.kind === 'held' ? snapshot.svids : [];
  const [first] = svids;
  const counts = peers.counts;
  const reload = status.lastReload();
  const failing = report.checks.filter(({ ok }) => !ok);
  return {
    version: status.version,
    node: process.versions.node,
    openssl: process.versions.openssl,
    startedAt: isoTime(status.startedAtMs),
    now: isoTime(clock.now()),
    ready: report.ready,
    failing: failing.filter(({ blocks }) => blocks).map(({ name }) => name),
    warnings: failing.filter(({ blocks }) => !blocks).map(({ name }) => name),
    identity: {
      state: snapshot?.kind ?? 'waiting',
      reason: snapshot?.kind === 'none' ? words(snapshot.reason) : null,
      spiffeId: first?.id ?? null,
      certificate: first === undefined ? null : svidId(first),
      generation: snapshot?.generation ?? 0,
      receivedAt: timeOf(snapshot?.receivedAtMs),
      firstExpiry: svids.length === 0 ? null : isoTime(Math.min(...svids.map(({ chain }) => chain[0]?.notAfterMs ?? Infinity))),
    },
    certificates: {
      svid: count(held.of('svid')),
      intermediate: count(held.of('intermediate')),
      authority: count(held.of('authority')),
      peer: counts.proven,
      peer_intermediate: count(peerIntermediates(peers)),
      refused: counts.strangers,
    },
    trustDomains: snapshot?.bundles.size ?? 0,
    connections: listeners.reduce((sum, { counters }) => sum + counters.open, 0),
    listeners: listeners.length,
    sdsStreams: count(source.sds()?.streams() ?? []),
    refusals: counts.refusals,
    application: describeApplication(status.application?.()),
    lastReload:
      reload === undefined
        ? null
        : {
            at: isoTime(reload.atMs),
            ok: reload.ok,
            differences: reload.differences,
            needRestart: reload.needRestart,
            problems: reload.problems,
          },
  };
}

/** The `id` of an SVID that we hold, where one certificate stands for one identity. */
function svidId({ chain }: { readonly chain: readonly { readonly sha256: string }[] }): string {
  return `svid:${chain[0]?.sha256 ?? ''}`;
}

/** Of text that somebody else has a say in. */
function words(text: string): string {
  return strangersWords(text, MAX_WORDS);
}

function count(items: Iterable<unknown>): number {
  let found = 0;
  for (const _ of items) found += 1;
  return found;
}
