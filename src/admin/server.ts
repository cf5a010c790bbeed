import { LOG_LEVELS, type AdminConfig, type LogLevel } from '../config/config.ts';
import { formatAddress, isLocal } from '../config/units.ts';
import type { Clock } from '../lib/clock.ts';
import { oneAtATime } from '../lib/in-turn.ts';
import type { Events } from '../telemetry/events/events.ts';
import type { Log } from '../telemetry/log/logger.ts';
import type { Metrics } from '../telemetry/metrics/metrics.ts';
import { apiRoutes } from './api/api.ts';
import type { ApiSource } from './api/source.ts';
import { createDashboardRoutes } from './dashboard.ts';
import { answerDrain, type DrainSelection } from './drain.ts';
import { EventStreams, type Looks } from './api/event-streams.ts';
import { createHttpService, json, MOST_CONNECTIONS, plain, streamsAmong, type HttpService, type Reply } from './http.ts';
import { buildConfigDump, type StatusSource } from './inventory.ts';
import { buildPolicyPage, MOST_LISTED, type PolicyStatus } from './policy-page.ts';
import { probeRoutes } from './metrics-server.ts';
import type { Readiness } from './checks/readiness.ts';

export interface AdminServerOptions {
  readonly config: AdminConfig;
  readonly metrics: Metrics;
  readonly readiness: Readiness;
  readonly status: StatusSource;
  readonly inventory: Pick<ApiSource, 'held' | 'peers' | 'connections' | 'sds'> & { readonly clock: Clock };
  /** Of each listener. */
  readonly policies: () => readonly PolicyStatus[];
  readonly log: Pick<Log, 'level' | 'setLevel'>;
  readonly events: Pick<Events, 'logLevelChanged' | 'statusRequestRefused'>;
  /** Begins to drain; returns at once. Called again if asked again. */
  readonly shutdown: () => void;
  readonly hasListener: (name: string) => boolean;
  /** Begins to drain connections; returns how many. */
  readonly drain: (selection: DrainSelection) => number;
  readonly maxConnections?: number | undefined;
}

/** What the metrics server has, but probes of the application, and control. Throws if it were to be reached from another machine: whoever can talk to it may stop the process. */
export function createAdminServer(options: AdminServerOptions): HttpService {
  const { listen } = options.config;
  if (!isLocal(listen)) throw new Error(`the admin API may not listen on ${formatAddress(listen)}: only on a Unix socket or loopback`);
  // They take turns of the event loop: as many at a time as there are askers would take as many.
  const policyPages = oneAtATime();
  const streams = new EventStreams({ clock: options.inventory.clock, look: () => look(options) });
  return createHttpService({
    name: 'admin',
    socket: options.config,
    allowedHosts: options.config.allowedHosts,
    maxConnections: options.maxConnections,
    maxStreams: streamsAmong(options.maxConnections ?? MOST_CONNECTIONS),
    refused: (reason, detail) => options.events.statusRequestRefused('admin', reason, detail),
    routes: {
      ...probeRoutes(options.metrics, options.readiness),
      ...createDashboardRoutes(),
      ...apiRoutes({ ...options.inventory, status: options.status, readiness: options.readiness }, (response) => streams.open(response)),
      '/config_dump': { GET: () => dump(options.status) },
      '/policy': { GET: ({ search }) => policyPages(() => policyPage(options.policies(), search, options.status.now())) },
      '/shutdown': {
        POST() {
          options.shutdown();
          return json(202, { status: 'stopping' });
        },
      },
      '/drain': { POST: ({ body }) => answerDrain(body, options.hasListener, options.drain) },
      '/loglevel': {
        GET: () => json(200, { level: options.log.level() }),
        PUT({ body }) {
          const level = readLevel(body);
          if (level === undefined) return plain(400, `the body must be {"level": LEVEL} with one of ${LOG_LEVELS.join(', ')}`);
          const before = options.log.level();
          // The line is a warning: it is written while the level lets it through.
          if (level === 'error') options.events.logLevelChanged(before, level);
          options.log.setLevel(level);
          if (level !== 'error') options.events.logLevelChanged(before, level);
          return json(200, { level });
        },
      },
    },
  });
}

/** What the streams of changes compare: counts and times, not what is behind them. */
function look({ status, inventory, readiness, metrics }: AdminServerOptions): Looks {
  const snapshot = status.identity();
  const counters = status.listeners().map(({ counters }) => counters);
  const sum = (count: (of: (typeof counters)[number]) => number): number => counters.reduce((total, each) => total + count(each), 0);
  const { streams, sent, accepted, rejected, removed, missing } = metrics.sds;
  return {
    identity: `${snapshot?.kind} ${snapshot?.generation}`,
    trust: JSON.stringify([
      snapshot?.generation,
      (status.federation?.() ?? []).map(({ sequence, lastSuccessMs, problem }) => [String(sequence), lastSuccessMs, problem?.reason]),
    ]),
    readiness: JSON.stringify(readiness.evaluate()),
    peers: JSON.stringify(counters.map(({ opened, open, waiting, handshaking }) => [opened, open, waiting, handshaking])),
    traffic: String(sum((of) => of.downstreamReadBytes + of.downstreamWrittenBytes + of.upstreamReadBytes + of.upstreamWrittenBytes)),
    refusals: String(inventory.peers.counts.refusals),
    sds: JSON.stringify([streams, sent, accepted, rejected, removed, missing]),
    configuration: String(status.lastReload()?.atMs),
  };
}

function dump(status: StatusSource): Reply {
  const reply = json(200, buildConfigDump(status));
  // Nothing above puts a key in; if something ever does, nobody gets to see it.
  return reply.body.includes('PRIVATE KEY') ? plain(500, 'internal error') : reply;
}

async function policyPage(all: readonly PolicyStatus[], search: URLSearchParams, nowMs: number): Promise<Reply> {
  const limit = search.get('limit') ?? String(MOST_LISTED);
  if (!/^\d{1,4}$/.test(limit) || Number(limit) > MOST_LISTED) return plain(400, `limit must be a number up to ${MOST_LISTED}`);
  const name = search.get('listener');
  const asked = name === null ? all : all.filter(({ listener }) => listener.name === name);
  if (name !== null && asked.length === 0) return plain(404, 'there is no such listener');
  return json(200, await buildPolicyPage(asked, Number(limit), nowMs));
}

function readLevel(body: unknown): LogLevel | undefined {
  if (typeof body !== 'object' || body === null || !('level' in body) || Object.keys(body).length !== 1) return undefined;
  return LOG_LEVELS.find((level) => level === body.level);
}
