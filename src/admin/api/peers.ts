import type { SpiffeId } from '../../spiffe/spiffe-id.ts';
import type { ListenerRef } from '../../telemetry/log/records.ts';
import { listOf, page } from './lists.ts';
import type { ApiSource, LiveConnection } from './source.ts';
import type * as api from '../api-types.ts';
import { listenerName, peerId } from '../certificates.ts';
import { isoTime } from '../iso-time.ts';
import type { KnownPeer } from '../peer-book.ts';

const MAX_RULES = 20;

/** Connections of one identity. */
interface Group {
  readonly id: SpiffeId;
  /** Its newest connection: by this they are told newest first. */
  newest: number;
  proven: KnownPeer;
  connections: number;
  audited: number;
  /** Each once. Nearly every identity has one listener and one rule: a Map and a Set for each of 10,000 would be most of the work. */
  readonly listeners: ListenerRef[];
  readonly rules: string[];
  startedAtMs: number;
  from: number;
  to: number;
}

/** Who is connected: the open connections by identity, in one pass over them. */
export function livePeers(source: ApiSource, search: URLSearchParams): api.PeerPage {
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
      listeners: group.listeners.map((ref) => listenerName(ref)),
      rules: group.rules,
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
    group = { id, newest: -1, proven, connections: 0, audited: 0, listeners: [ref], rules: [], startedAtMs, from: 0, to: 0 };
    groups.set(id, group);
  }
  if (session.id > group.newest) {
    group.newest = session.id;
    group.proven = proven;
  }
  group.connections += 1;
  if (session.audited !== undefined) group.audited += 1;
  const { listeners, rules } = group;
  if (!listeners.some(({ direction, name }) => direction === ref.direction && name === ref.name)) listeners.push(ref);
  const { rule } = session;
  if (rule !== undefined && rules.length < MAX_RULES && !rules.includes(rule)) rules.push(rule);
  group.startedAtMs = Math.min(group.startedAtMs, session.startedAtMs);
  group.from += session.bytesFromDownstream;
  group.to += session.bytesToDownstream;
}
