import type { ServerResponse } from 'node:http';
import { formatAddress, parseDuration } from '../config/units.ts';
import { chooseSvid } from '../identity/snapshot.ts';
import type { Clock } from '../lib/clock.ts';
import { trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustBundle } from '../spiffe/trust-bundle.ts';
import type { PolicyReason } from '../policy/verdict.ts';
import type { RelationStatus } from '../telemetry/federation-records.ts';
import type { ListenerRef } from '../telemetry/records.ts';
import type { SdsOpenStream, SdsStatus, SdsStreamStatus } from '../telemetry/sds-records.ts';
import { strangersWords } from '../telemetry/scrub.ts';
import type * as api from './api-types.ts';
import { describeHeld, describePeer, describePeerIntermediate, listenerName, peerId, peerIntermediateId } from './certificates.ts';
import type { Held, HeldBook } from './held-book.ts';
import { data, refuseInJson, type Query, type Reply, type Routes } from './http.ts';
import type { ListenerStatus, StatusSource } from './inventory.ts';
import { isoTime } from './iso-time.ts';
import { formatCursor, newest, parseCursor, type Cursor, type Source } from './page.ts';
import type { KnownPeer, PeerBook, SeenPeer, SeenRefusal } from './peer-book.ts';
import type { Readiness } from './readiness.ts';

/** An open connection, as its listener keeps it. */
export interface LiveConnection {
  readonly id: number;
  readonly downstreamAddress: string;
  readonly via: string | undefined;
  readonly upstreamAddress: string;
  /** Of the monotonic clock. */
  readonly startedAtMs: number;
  readonly tlsVersion: string | undefined;
  readonly alpn: string | undefined;
  readonly proven: KnownPeer | undefined;
  readonly ownId: SpiffeId | undefined;
  readonly rule: string | undefined;
  readonly audited: PolicyReason | undefined;
  readonly denied: string | undefined;
  readonly bytesFromDownstream: number;
  readonly bytesToDownstream: number;
}

/** Everything that the API shows, read when somebody asks. */
export interface ApiSource {
  readonly status: StatusSource;
  readonly readiness: Readiness;
  readonly held: HeldBook;
  readonly peers: PeerBook;
  readonly clock: Pick<Clock, 'now' | 'monotonic'>;
  connections(): Iterable<{ readonly listener: ListenerRef; readonly sessions: Iterable<LiveConnection> }>;
  /** Undefined if SDS is not served. */
  sds(): SdsStatus | undefined;
}

const DEFAULT_LIMIT = 50;
const MAX_LIMIT = 500;
/** A page is cut short when it took so long to make: to read a certificate anew takes a tenth of a millisecond, or several if its issuer wants that. */
const PAGE_MS = 4;
/** Of what SDS clients have, so much is looked at for a page of certificates. */
const MOST_USES = 10_000;
const MAX_USES_SHOWN = 20;
const MAX_NOTES = 20;
const MAX_DUE = 100;
/** A hundred years: of no authority in use is more left. */
const LONGEST_LIFE_MS = 36_500 * 86_400_000;
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
  readiness: '',
  refusals: PAGED,
  sds: PAGED,
  rotations: '',
  stream: '',
};

export const CERTIFICATE_KINDS = ['svid', 'intermediate', 'authority', 'peer', 'peer_intermediate', 'refused'] as const;

/** A parameter that is not understood: whoever asks learns which, instead of getting something else than it asked for. */
class BadParameter extends Error {}

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

// ——— certificates ———

type Intermediate = SeenPeer & { readonly known: KnownPeer };

function certificates(source: ApiSource, search: URLSearchParams): api.CertificatePage {
  const nowMs = source.clock.now();
  const kind = search.get('kind');
  if (kind !== null && !CERTIFICATE_KINDS.some((known) => known === kind))
    throw new BadParameter(`kind must be one of ${CERTIFICATE_KINDS.join(', ')}`);
  const id = search.get('id');
  const trustDomain = search.get('trustDomain');
  const spiffeId = search.get('spiffeId');
  const expiresBeforeMs = durationOf(search, nowMs);
  const isOf = (claimed: SpiffeId | undefined): boolean =>
    (spiffeId === null || claimed === spiffeId) &&
    (trustDomain === null || (claimed !== undefined && trustDomainOf(claimed) === trustDomain));
  const isDue = (notAfterMs: number): boolean => expiresBeforeMs === undefined || notAfterMs < expiresBeforeMs;
  /** Of those whose end is known when they are read. */
  const ifDue = (described: api.Certificate | undefined): api.Certificate | undefined =>
    described !== undefined && isDue(described.notAfter === null ? Infinity : Date.parse(described.notAfter)) ? described : undefined;

  let uses: Uses | undefined;
  const heldOf = (name: Held['kind']): List<api.Certificate> =>
    listOf<Held, api.Certificate>({
      name,
      items: () => source.held.of(name),
      keyOf: ({ seq }) => seq,
      fits: (held) =>
        (id === null || held.id === id) &&
        (trustDomain === null || held.trustDomain === trustDomain) &&
        (spiffeId === null || held.svid?.id === spiffeId) &&
        isDue(held.certificate.notAfterMs),
      describe(held) {
        uses ??= usesOf(source);
        return describeHeld(held, uses(held), nowMs);
      },
    });
  const peers = listOf<Intermediate, api.Certificate>({
    name: 'peer',
    items: () => source.peers.proven(),
    keyOf: ({ seq }) => seq,
    fits(seen) {
      const { authenticated } = seen.known;
      return (id === null || peerId(seen) === id) && isOf(authenticated.id) && isDue(authenticated.leaf.notAfterMs);
    },
    describe: (seen) => describePeer(seen, nowMs),
  });
  const strangers = listOf<SeenPeer, api.Certificate>({
    name: 'refused',
    items: () => source.peers.strangers(),
    keyOf: ({ seq }) => seq,
    fits: (seen) => (id === null || peerId(seen) === id) && isOf(seen.strange?.claimedId),
    describe: (seen) => ifDue(describePeer(seen, nowMs)),
  });
  const between = listOf<PeerIntermediate, api.Certificate>({
    name: 'peer_intermediate',
    items: () => (spiffeId === null ? peerIntermediates(source.peers) : []),
    keyOf: ({ key }) => key,
    // It has no SPIFFE ID of its own.
    fits: ({ seen, index }) =>
      spiffeId === null &&
      (id === null || peerIntermediateId(seen.known.authenticated.issuers[index]) === id) &&
      isOf(seen.known.authenticated.id),
    describe: ({ seen, index }) => ifDue(describePeerIntermediate(seen, index, nowMs)),
  });
  const all = [heldOf('svid'), heldOf('intermediate'), heldOf('authority'), peers, between, strangers];
  return page(source, search, kind === null ? all : all.filter(({ name }) => name === kind));
}

/** One above the leaf of a peer, below its authority. Many peers share it. */
interface PeerIntermediate {
  /** Of its SHA-256: an order that stays as it is. */
  readonly key: number;
  readonly seen: Intermediate;
  readonly index: number;
}

function* peerIntermediates(peers: PeerBook): Generator<PeerIntermediate> {
  const told = new Set<string>();
  for (const seen of peers.proven()) {
    const { issuers } = seen.known.authenticated;
    for (let index = 0; index < issuers.length - 1; index++) {
      const sha256 = issuers[index] ?? '';
      if (told.has(sha256)) continue;
      told.add(sha256);
      yield { key: Number.parseInt(sha256.slice(0, 12), 16), seen, index };
    }
  }
}

type Uses = (held: Held) => Pick<api.Certificate, 'listeners' | 'sds' | 'sdsSubscribers'>;

/** Where what we hold is used: which listeners present it, and which SDS clients have it. */
function usesOf(source: ApiSource): Uses {
  const { status } = source;
  const snapshot = status.identity();
  const bySubject = new Map<string, { readonly shown: api.SdsUse[]; count: number }>();
  for (const { stream, name, version, current, status: state, subject } of source.sds()?.uses(MOST_USES) ?? []) {
    const keys = subject === undefined ? [] : subject.kind === 'svid' ? [subject.sha256] : subject.trustDomains;
    for (const key of keys) {
      const found = bySubject.get(key) ?? { shown: [], count: 0 };
      bySubject.set(key, found);
      found.count += 1;
      if (found.shown.length < MAX_USES_SHOWN)
        found.shown.push({ stream: stream.id, node: stream.node, name, version, current, status: state });
    }
  }
  const listeners = status.listeners().map(({ listener: ref, identity }) => ({ ref, svid: chooseSvid(snapshot, identity) }));
  return ({ kind, certificate, svid, trustDomain }) => {
    // Of a chain, the intermediates go where the leaf goes.
    const presents = listeners.filter(({ svid: shown }) =>
      kind === 'svid'
        ? shown?.chain[0]?.sha256 === certificate.sha256 && shown.hint === svid?.hint
        : kind === 'intermediate' && shown?.chain.some(({ sha256 }) => sha256 === certificate.sha256) === true,
    );
    const found = kind === 'intermediate' ? undefined : bySubject.get(kind === 'svid' ? certificate.sha256 : trustDomain);
    return { listeners: presents.map(({ ref }) => listenerName(ref)), sds: found?.shown ?? [], sdsSubscribers: found?.count ?? 0 };
  };
}

// ——— trust domains ———

function trustDomains({ status, clock }: ApiSource, search: URLSearchParams): api.TrustDomainPage {
  const snapshot = status.identity();
  const relations = new Map((status.federation?.() ?? []).map((relation) => [relation.trustDomain, relation]));
  const own = new Set(snapshot?.kind === 'held' ? snapshot.svids.map(({ id }) => trustDomainOf(id) as string) : []);
  const names = new Set<string>([...(snapshot?.bundles.keys() ?? []), ...relations.keys()]);
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
      const expiries = bundle?.authorities.map(({ notAfterMs }) => notAfterMs) ?? [];
      const fetched = bundle !== undefined && snapshot?.kind === 'held' && snapshot.endpointBundles.has(bundle.trustDomain);
      return {
        trustDomain: name,
        isOwn: own.has(name),
        source: bundle === undefined ? null : fetched ? 'bundle_endpoint' : 'workload_api',
        authorities: expiries.length,
        firstExpiry: expiries.length === 0 ? null : isoTime(expiries.reduce((one, other) => Math.min(one, other))),
        lastExpiry: expiries.length === 0 ? null : isoTime(expiries.reduce((one, other) => Math.max(one, other))),
        revocationLists: bundle?.crls.length ?? 0,
        notes: bundle?.notes.slice(0, MAX_NOTES).map((note) => words(note)) ?? [],
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

/** Connections of one identity. */
interface Group {
  readonly id: SpiffeId;
  /** Its newest connection: by this they are told newest first. */
  newest: number;
  proven: KnownPeer;
  connections: number;
  audited: number;
  readonly listeners: Map<string, ListenerRef>;
  readonly rules: Set<string>;
  startedAtMs: number;
  from: number;
  to: number;
}

function livePeers(source: ApiSource, search: URLSearchParams): api.PeerPage {
  const sought = search.get('search')?.toLowerCase() ?? '';
  const name = search.get('listener');
  const { clock } = source;
  const startMs = clock.now() - clock.monotonic();
  const groups = new Map<SpiffeId, Group>();
  for (const { listener: ref, sessions } of source.connections()) {
    if (name !== null && ref.name !== name) continue;
    for (const session of sessions) if (session.proven !== undefined) gather(groups, ref, session, session.proven);
  }
  const grouped = listOf<Group, api.Peer>({
    name: 'peer',
    items: () => groups.values(),
    keyOf: ({ newest: key }) => key,
    fits: ({ id }) => id.toLowerCase().includes(sought),
    describe: (group) => ({
      spiffeId: group.id,
      connections: group.connections,
      audited: group.audited,
      certificate: peerId({ known: group.proven, sha256: group.proven.authenticated.leaf.sha256 }),
      notAfter: isoTime(group.proven.authenticated.leaf.notAfterMs),
      listeners: [...group.listeners.values()].map((ref) => listenerName(ref)),
      rules: [...group.rules].slice(0, MAX_NOTES),
      since: isoTime(Math.round(startMs + group.startedAtMs)),
      bytesFromDownstream: group.from,
      bytesToDownstream: group.to,
    }),
  });
  return page(source, search, [grouped]);
}

function gather(groups: Map<SpiffeId, Group>, ref: ListenerRef, session: LiveConnection, proven: KnownPeer): void {
  const { id } = proven.authenticated;
  let group = groups.get(id);
  if (group === undefined) {
    const { startedAtMs } = session;
    group = { id, newest: -1, proven, connections: 0, audited: 0, listeners: new Map(), rules: new Set(), startedAtMs, from: 0, to: 0 };
    groups.set(id, group);
  }
  if (session.id > group.newest) {
    group.newest = session.id;
    group.proven = proven;
  }
  group.connections += 1;
  if (session.audited !== undefined) group.audited += 1;
  group.listeners.set(`${ref.direction} ${ref.name}`, ref);
  if (session.rule !== undefined) group.rules.add(session.rule);
  group.startedAtMs = Math.min(group.startedAtMs, session.startedAtMs);
  group.from += session.bytesFromDownstream;
  group.to += session.bytesToDownstream;
}

function listener({ status }: ApiSource, { listener: ref, address, to, identity, counters }: ListenerStatus): api.Listener {
  const svid = chooseSvid(status.identity(), identity);
  return {
    ...listenerName(ref),
    address: address === undefined ? null : formatAddress(address),
    to: formatAddress(to),
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
  };
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

// ——— what was, and what is to come ———

function rotations(source: ApiSource): api.Rotations {
  const past = source.held.changes
    .toReversed()
    .map(({ atMs, notAfterMs, generation, change, spiffeId, trustDomain, certificate, replaced }): api.Rotation => ({
      at: isoTime(atMs),
      generation,
      change,
      spiffeId,
      trustDomain,
      certificate,
      replaced,
      notAfter: timeOf(notAfterMs),
    }));
  return { past, due: due(source) };
}

function due({ held, status, clock }: ApiSource): readonly api.Due[] {
  const nowMs = clock.now();
  const found: { readonly atMs: number; readonly due: Omit<api.Due, 'at'> }[] = [];
  const tell = (atMs: number | undefined, expected: Omit<api.Due, 'at'>): void => {
    if (atMs !== undefined && atMs > nowMs) found.push({ atMs, due: expected });
  };
  for (const { id, svid, trustDomain, certificate } of held.of('svid')) {
    const { notBeforeMs, notAfterMs } = certificate;
    const lifeMs = notAfterMs - notBeforeMs;
    const of = { spiffeId: svid?.id ?? null, trustDomain, certificate: id };
    tell(notBeforeMs + lifeMs / 2, { what: 'svid_renewal', ...of });
    tell(notBeforeMs + (lifeMs * 2) / 3, { what: 'svid_overdue', ...of });
    tell(notAfterMs, { what: 'svid_expiry', ...of });
  }
  const authorities = newest<Held>(
    {
      name: 'authority',
      items: () => held.of('authority'),
      // The first to expire are the greatest.
      keyOf: ({ certificate }) => -certificate.notAfterMs,
      fits: ({ certificate }) => certificate.notAfterMs > nowMs,
    },
    Infinity,
    MAX_DUE,
  );
  for (const { id, trustDomain, certificate } of authorities)
    tell(certificate.notAfterMs, { what: 'authority_expiry', spiffeId: null, trustDomain, certificate: id });
  for (const { trustDomain, nextRefreshMs } of status.federation?.() ?? [])
    tell(nextRefreshMs, { what: 'bundle_refresh', spiffeId: null, trustDomain, certificate: null });
  return found
    .toSorted((one, other) => one.atMs - other.atMs)
    .slice(0, MAX_DUE)
    .map(({ atMs, due: expected }) => ({ at: isoTime(atMs), ...expected }));
}

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

// ——— pages ———

/** A list that can be cut into pages. */
interface List<A> {
  readonly name: string;
  /** The newest `limit` below `below`; fewer when it is `untilMs` of the monotonic clock, but one at least. `next` is where to go on. */
  take(below: number, limit: number, isLate: () => boolean): { readonly items: readonly A[]; readonly next: number | undefined };
  isEmpty(): boolean;
}

/** `describe` may say undefined: then it is passed over. */
function listOf<T, A>(source: Source<T> & { describe(item: T): A | undefined }): List<A> {
  return {
    name: source.name,
    isEmpty: () => newest(source, Infinity, 1).length === 0,
    take(below, limit, isLate) {
      const chosen = newest(source, below, limit + 1);
      const items: A[] = [];
      for (const [index, item] of chosen.entries()) {
        const before = chosen[index - 1];
        if (before !== undefined && (index === limit || isLate())) return { items, next: source.keyOf(before) };
        const described = source.describe(item);
        if (described !== undefined) items.push(described);
      }
      return { items, next: undefined };
    },
  };
}

/** One page of several lists, one after the other. */
function page<A>({ clock }: Pick<ApiSource, 'clock'>, search: URLSearchParams, lists: readonly List<A>[]): api.Page<A> {
  const limit = limitOf(search);
  const cursor = cursorOf(search, lists);
  const untilMs = clock.monotonic() + PAGE_MS;
  const isLate = (): boolean => clock.monotonic() > untilMs;
  const items: A[] = [];
  let below = cursor?.below ?? Infinity;
  const from = cursor === undefined ? 0 : lists.findIndex(({ name }) => name === cursor.source);
  for (const list of lists.slice(from)) {
    if (items.length >= limit || (items.length > 0 && isLate())) {
      if (list.isEmpty()) continue;
      return { items, nextCursor: formatCursor({ source: list.name, below: Number.MAX_SAFE_INTEGER }) };
    }
    const taken = list.take(below, limit - items.length, isLate);
    items.push(...taken.items);
    if (taken.next !== undefined) return { items, nextCursor: formatCursor({ source: list.name, below: taken.next }) };
    below = Infinity;
  }
  return { items, nextCursor: null };
}

function limitOf(search: URLSearchParams): number {
  const text = search.get('limit');
  if (text === null) return DEFAULT_LIMIT;
  const limit = /^[0-9]{1,4}$/.test(text) ? Number(text) : 0;
  if (limit < 1 || limit > MAX_LIMIT) throw new BadParameter(`limit must be a whole number from 1 to ${MAX_LIMIT}`);
  return limit;
}

function cursorOf(search: URLSearchParams, lists: readonly { readonly name: string }[]): Cursor | undefined {
  const text = search.get('cursor');
  if (text === null) return undefined;
  const cursor = parseCursor(text);
  if (cursor === undefined || !lists.some(({ name }) => name === cursor.source))
    throw new BadParameter('cursor is not one that this list gave');
  return cursor;
}

/** The moment before which something has to expire: `expiringIn` is such as `5m`. */
function durationOf(search: URLSearchParams, nowMs: number): number | undefined {
  const text = search.get('expiringIn');
  if (text === null) return undefined;
  const duration = parseDuration(text, LONGEST_LIFE_MS);
  if (!duration.ok) throw new BadParameter(`expiringIn: ${duration.error}`);
  return nowMs + duration.value;
}

/** The `id` of an SVID that we hold, where one certificate stands for one identity. */
function svidId({ chain }: { readonly chain: readonly { readonly sha256: string }[] }): string {
  return `svid:${chain[0]?.sha256 ?? ''}`;
}

/** Of text that somebody else has a say in. */
function words(text: string): string {
  return strangersWords(text, MAX_WORDS);
}

function timeOf(ms: number | undefined): api.Time {
  return ms === undefined ? null : isoTime(ms);
}

function count(items: Iterable<unknown>): number {
  let found = 0;
  for (const _ of items) found += 1;
  return found;
}
