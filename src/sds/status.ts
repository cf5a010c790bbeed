import { formatAddress } from '../config/units.ts';
import type { SdsStatus, SdsStreamStatus, SdsSubject, SdsSubscriptionStatus } from '../telemetry/log/sds-records.ts';
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
      const catalogue = server.catalogue();
      for (const stream of server.streams()) yield { id: stream.ref.id, describe: () => streamStatus(stream, catalogue) };
    },
    *uses(most) {
      const catalogue = server.catalogue();
      // Most clients have the same few names.
      const known = new Map<string, { readonly newest: string | undefined; readonly subject: SdsSubject | undefined }>();
      const look = (name: string, form: ValidationForm) => {
        const key = `${form} ${name}`;
        const found = known.get(key) ?? { newest: newestOf(catalogue, name, form), subject: catalogue?.subject(name, form) };
        known.set(key, found);
        return found;
      };
      let left = most;
      for (const { ref, state, form } of server.streams()) {
        for (const [name, { version, status }] of state.sent) {
          if (left-- <= 0) return;
          const { newest, subject } = look(name, form);
          yield { stream: ref, name, version, status, current: newest === version, subject };
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
      current: sent && newestOf(catalogue, name, form) === sent.version,
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

/** The version of what would be sent now; undefined if there is nothing of this name. */
function newestOf(catalogue: Catalogue | undefined, name: string, form: ValidationForm): string | undefined {
  const found = catalogue?.lookup(name, form);
  return found?.found === true ? found.secret.version : undefined;
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
