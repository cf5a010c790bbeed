import { formatAddress } from '../config/units.ts';
import type { SdsServer } from './server.ts';
import { shorten } from './stream-state.ts';
import type { XdsStream } from './stream.ts';

/** Streams and names that one page lists. */
const MAX_STREAMS = 1000;
const MAX_NAMES = 100;

/** Who is subscribed to what, at which version, and whether it was accepted: plain JSON values, without any secret. */
export function describeSds(server: Pick<SdsServer, 'address' | 'streams'>): unknown {
  const address = server.address();
  const streams = server.streams();
  return {
    address: address === undefined ? null : formatAddress(address),
    streams: streams.slice(0, MAX_STREAMS).map(describeStream),
    streams_omitted: Math.max(streams.length - MAX_STREAMS, 0),
  };
}

function describeStream({ ref, state, openedAtMs }: XdsStream): object {
  const names = new Set([...state.names, ...state.sent.keys()]);
  return {
    stream: ref.id,
    connection: ref.connection,
    protocol: ref.protocol,
    aggregated: ref.aggregated,
    node: ref.node,
    user_agent: ref.userAgent,
    validation: state.node?.form ?? null,
    opened_at: new Date(openedAtMs).toISOString(),
    responses: state.responses,
    everything: state.wildcard !== 'none',
    subscriptions: [...names].slice(0, MAX_NAMES).map((name) => {
      const sent = state.sent.get(name);
      return {
        name: shorten(name),
        version: sent?.version ?? null,
        // `sent` until the client has said what it makes of it.
        status: sent?.status ?? 'none',
        detail: sent?.detail ?? null,
        missing: state.missing.get(name) ?? null,
      };
    }),
    subscriptions_omitted: Math.max(names.size - MAX_NAMES, 0),
  };
}
