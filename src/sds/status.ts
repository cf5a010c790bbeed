import { formatAddress } from '../config/units.ts';
import type { SdsStatus, SdsStreamStatus, SdsSubscriptionStatus, SdsUseStatus } from '../telemetry/sds-records.ts';
import type { Catalogue } from './secrets.ts';
import type { SdsServer } from './server.ts';
import { shorten, type SentSecret } from './stream-state.ts';
import type { XdsStream } from './stream.ts';
import type { ValidationForm } from './validation-form.ts';

/** Streams and names that one page lists. */
const MAX_STREAMS = 1000;
const MAX_NAMES = 100;

type Server = Pick<SdsServer, 'address' | 'streams' | 'catalogue'>;

/** Who is subscribed to what, without any secret. */
export function sdsStatus(server: Server): SdsStatus {
  return {
    address() {
      const address = server.address();
      return address === undefined ? undefined : formatAddress(address);
    },
    *streams() {
      for (const { ref } of server.streams()) yield ref.id;
    },
    describe(id) {
      const stream = server.streams().find(({ ref }) => ref.id === id);
      return stream && streamStatus(stream, server.catalogue());
    },
    *uses(most) {
      const catalogue = server.catalogue();
      let left = most;
      for (const { ref, state, form } of server.streams()) {
        for (const [name, { version, status }] of state.sent) {
          if (left-- <= 0) return;
          const subject = catalogue?.subject(name, form);
          const use: SdsUseStatus = {
            stream: ref,
            name: shorten(name),
            version,
            status,
            current: isNewest(catalogue, name, form, version),
            subject,
          };
          yield use;
        }
      }
    },
  };
}

/** All of it as plain JSON values. */
export function describeSds(server: Server): unknown {
  const streams = server.streams();
  return {
    address: sdsStatus(server).address() ?? null,
    streams: streams.slice(0, MAX_STREAMS).map((stream) => describeStream(streamStatus(stream, server.catalogue()))),
    streams_omitted: Math.max(streams.length - MAX_STREAMS, 0),
  };
}

function streamStatus({ ref, state, form, openedAtMs }: XdsStream, catalogue: Catalogue | undefined): SdsStreamStatus {
  const names = new Set([...state.names, ...state.sent.keys()]);
  const subscription = (name: string): SdsSubscriptionStatus => {
    const sent: SentSecret | undefined = state.sent.get(name);
    return {
      name: shorten(name),
      version: sent?.version,
      status: sent?.status ?? 'none',
      detail: sent?.detail,
      missing: state.missing.get(name),
      current: sent && isNewest(catalogue, name, form, sent.version),
    };
  };
  return {
    ref,
    validation: state.node?.form,
    openedAtMs,
    responses: state.responses,
    everything: state.wildcard !== 'none',
    subscriptions: [...names].slice(0, MAX_NAMES).map(subscription),
    subscriptionsOmitted: Math.max(names.size - MAX_NAMES, 0),
  };
}

function isNewest(catalogue: Catalogue | undefined, name: string, form: ValidationForm, version: string): boolean {
  const found = catalogue?.lookup(name, form);
  return found?.found === true && found.secret.version === version;
}

function describeStream({
  ref,
  validation,
  openedAtMs,
  responses,
  everything,
  subscriptions,
  subscriptionsOmitted,
}: SdsStreamStatus): object {
  return {
    stream: ref.id,
    connection: ref.connection,
    protocol: ref.protocol,
    aggregated: ref.aggregated,
    node: ref.node,
    user_agent: ref.userAgent,
    validation: validation ?? null,
    opened_at: new Date(openedAtMs).toISOString(),
    responses,
    everything,
    subscriptions: subscriptions.map(({ name, version, status, detail, missing }) => ({
      name,
      version: version ?? null,
      status,
      detail: detail ?? null,
      missing: missing ?? null,
    })),
    subscriptions_omitted: subscriptionsOmitted,
  };
}
