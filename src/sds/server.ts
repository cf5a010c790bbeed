import { createServer, type AddressInfo, type Server as NetServer, type Socket } from 'node:net';
import type { SdsConfig } from '../config/config.ts';
import { formatAddress, type Address } from '../config/units.ts';
import type { CheckService } from '../ext-authz/service.ts';
import { listening } from '../grpc/listening.ts';
import type { IdentityView } from '../identity/store.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { codeOf, messageOf, ScuteError } from '../lib/errors.ts';
import type { Service } from '../lib/service.ts';
import { WallAlarm } from '../lib/wall-alarm.ts';
import { createWatch } from '../lib/watch.ts';
import type { DenyList } from '../policy/deny-list.ts';
import type { Policy } from '../policy/policy.ts';
import type { SdsEvents } from '../telemetry/events/sds-events.ts';
import { prepareUnixSocket, type PreparedUnixSocket } from '../transport/unix-socket.ts';
import { SdsConnection, type ConnectionDeps } from './connection.ts';
import { Pusher } from './pusher.ts';
import { buildCatalogue, type Catalogue } from './secrets.ts';
import type { XdsStream } from './stream.ts';

export interface SdsServerDeps {
  readonly config: SdsConfig;
  readonly identity: IdentityView;
  /** The policies that go into validation contexts, by the name of the secret. */
  readonly policies: () => ReadonlyMap<string, Policy>;
  /** In force now. */
  readonly denyList: () => DenyList;
  readonly events: SdsEvents;
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** What answers the checks of Envoy; undefined: they are not answered. */
  readonly checks: CheckService | undefined;
}

export interface SdsServer extends Service {
  /** Where it is bound; undefined before `start`. A port of 0 has become the real one. */
  address(): Address | undefined;
  streams(): readonly XdsStream[];
  /** In force now; undefined before the first answer of the Workload API. */
  catalogue(): Catalogue | undefined;
  /** A policy is another one, or the deny list. */
  policyChanged(): void;
}

/** The SDS socket could not be bound. */
export class SdsListenError extends ScuteError {
  override name = 'SdsListenError';
  readonly code = 'ERR_SDS_LISTEN';
}

/** How long clients have to read their last status. */
const LAST_MESSAGES_MS = 250;
/** How often connections are looked at for what the limits of gRPC do not see. */
const LOOK_EVERY_MS = 250;

/**
 * Serves Envoy's Secret Discovery Service: certificates with private keys, to whoever may open the socket. Node cannot read a peer's credentials,
 * so the socket's permissions are the authentication.
 */
export function createSdsServer(deps: SdsServerDeps): SdsServer {
  const { config, identity, events, clock } = deps;
  const connections = new Set<SdsConnection>();
  const isServing = createWatch(false);
  let catalogue: Catalogue | undefined;
  let listener: NetServer | undefined;
  let prepared: PreparedUnixSocket | undefined;
  let bound: Address | undefined;
  let look: Timer | undefined;
  let unsubscribe: (() => void) | undefined;
  let stopped: Promise<void> | undefined;
  let lastConnection = 0;
  let lastStream = 0;
  let openStreams = 0;

  const pusher = new Pusher({
    clock,
    catalogue: () => catalogue,
    *streams() {
      for (const connection of connections) yield* connection.streams();
    },
    pushed: (round) => events.pushed(round),
  });

  const rebuild = (): void => {
    const snapshot = identity.current();
    if (snapshot === undefined || stopped !== undefined) return;
    const nowMs = clock.now();
    catalogue = buildCatalogue(snapshot, { ...config, policies: deps.policies(), denyList: deps.denyList() }, nowMs);
    events.notes(catalogue.notes);
    if (isServing.get() !== true) isServing.set(true);
    alarm.set(nowMs, catalogue.changesAtMs ?? Infinity);
    pusher.changed();
  };
  /** SVIDs, revocation lists and rules begin and end. */
  const alarm = new WallAlarm(clock, rebuild);

  const connectionDeps: ConnectionDeps = {
    config,
    events,
    clock,
    isServing,
    catalogue() {
      alarm.check();
      return catalogue;
    },
    holdsCertificates: () => pusher.holdsCertificates,
    released: () => pusher.released(),
    nextStream: () => (lastStream += 1),
    noncePrefix: () => `${Math.floor(deps.random() * 0x1_0000_0000).toString(16)}-`,
    openStream() {
      if (openStreams >= config.limits.maxStreams) return false;
      openStreams += 1;
      return true;
    },
    closeStream: () => (openStreams -= 1),
    checks: deps.checks,
  };

  const accept = (socket: Socket): void => {
    if (connections.size >= config.limits.maxConnections && !makeRoom()) {
      events.refused('connection_limit', `${connections.size} connections are open, each with a stream`);
      socket.destroy();
      return;
    }
    lastConnection += 1;
    const connection = new SdsConnection(socket, lastConnection, connectionDeps);
    connections.add(connection);
    events.connectionOpened();
    socket.once('close', () => {
      connections.delete(connection);
      events.connectionClosed();
    });
  };

  /** The oldest connection without a stream or a check goes, so that idle ones keep nobody out. */
  const makeRoom = (): boolean => {
    for (const connection of connections) {
      if (!connection.isIdle) continue;
      connections.delete(connection);
      connection.destroy();
      return true;
    }
    return false;
  };

  const lookAround = (): void => {
    for (const connection of connections) connection.look();
    look = clock.after(LOOK_EVERY_MS, lookAround);
  };

  return {
    name: 'SDS',
    address: () => bound,
    streams: () => [...connections].flatMap((connection) => [...connection.streams()]),
    catalogue: () => catalogue,
    policyChanged: rebuild,
    async start(signal) {
      signal.throwIfAborted();
      const { listen } = config;
      listener = createServer({ noDelay: true }, accept);
      try {
        if (listen.kind === 'unix') {
          prepared = await prepareUnixSocket(listen.path, { mode: config.socketMode, gid: config.socketGid });
          await listening(listener, { path: prepared.bindPath });
          await prepared.publish();
          bound = listen;
        } else {
          await listening(listener, { host: listen.host, port: listen.port });
          bound = { ...listen, port: (listener.address() as AddressInfo).port };
        }
      } catch (cause) {
        await prepared?.release();
        listener.close();
        const why = codeOf(cause) === 'EADDRINUSE' ? 'the address is in use' : messageOf(cause);
        throw new SdsListenError(`SDS cannot listen on ${formatAddress(listen)}: ${why}`, { cause });
      }
      unsubscribe = identity.subscribe(rebuild);
      lookAround();
    },
    stop(deadline) {
      stopped ??= (async () => {
        unsubscribe?.();
        pusher.stop();
        alarm.stop();
        look?.cancel();
        await prepared?.release();
        listener?.close();
        // At once, however long the rest of the process drains: a client reconnects to whoever serves next, and keeps what it has until then.
        await Promise.all([...connections].map((connection) => connection.stop(LAST_MESSAGES_MS, deadline)));
      })();
      return stopped;
    },
  };
}
