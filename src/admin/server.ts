import { LOG_LEVELS, type AdminConfig, type LogLevel, type MetricsConfig } from '../config/config.ts';
import { formatAddress, isLocal } from '../config/units.ts';
import type { Events } from '../telemetry/events.ts';
import type { Log } from '../telemetry/logger.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { apiRoutes } from './api.ts';
import type { ApiSource } from './api-source.ts';
import { answerDrain, type DrainSelection } from './drain.ts';
import { createHttpService, json, plain, type HttpService, type Reply, type Routes } from './http.ts';
import { buildConfigDump, type StatusSource } from './inventory.ts';
import { buildPolicyPage, MOST_LISTED, type PolicyStatus } from './policy-page.ts';
import { formatReadiness, formatReadinessVerbose, type Readiness } from './readiness.ts';

export interface MetricsServerOptions {
  readonly config: MetricsConfig;
  readonly metrics: Metrics;
  readonly readiness: Readiness;
  readonly events: Pick<Events, 'statusRequestRefused'>;
  readonly maxConnections?: number | undefined;
}

export interface AdminServerOptions {
  readonly config: AdminConfig;
  readonly metrics: Metrics;
  readonly readiness: Readiness;
  readonly status: StatusSource;
  readonly inventory: Pick<ApiSource, 'held' | 'peers' | 'clock' | 'connections' | 'sds'>;
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

/** `/metrics`, `/livez` and `/readyz`: nothing that tells a secret or changes anything, so it may be bound anywhere. */
export function createMetricsServer({ config, metrics, readiness, events, maxConnections }: MetricsServerOptions): HttpService {
  return createHttpService({
    name: 'metrics',
    socket: config,
    allowedHosts: config.allowedHosts,
    routes: probeRoutes(metrics, readiness),
    maxConnections,
    refused: (reason, detail) => events.statusRequestRefused('metrics', reason, detail),
  });
}

/** The same, and control. Throws if it were to be reached from another machine: whoever can talk to it may stop the process. */
export function createAdminServer(options: AdminServerOptions): HttpService {
  const { listen } = options.config;
  if (!isLocal(listen)) throw new Error(`the admin API may not listen on ${formatAddress(listen)}: only on a Unix socket or loopback`);
  return createHttpService({
    name: 'admin',
    socket: options.config,
    allowedHosts: options.config.allowedHosts,
    maxConnections: options.maxConnections,
    refused: (reason, detail) => options.events.statusRequestRefused('admin', reason, detail),
    routes: {
      ...probeRoutes(options.metrics, options.readiness),
      ...apiRoutes({ ...options.inventory, status: options.status, readiness: options.readiness }),
      '/config_dump': { GET: () => dump(options.status) },
      '/policy': { GET: ({ search }) => policyPage(options.policies(), search, options.status.now()) },
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

function probeRoutes(metrics: Metrics, readiness: Readiness): Routes {
  // Those who scrape at the same moment share the work.
  let rendering: ReturnType<Metrics['render']> | undefined;
  return {
    '/metrics': {
      async GET() {
        rendering ??= metrics.render().finally(() => {
          rendering = undefined;
        });
        const { contentType, body } = await rendering;
        return { status: 200, body, contentType };
      },
    },
    '/livez': { GET: () => plain(200, 'ok') },
    '/readyz': {
      GET({ search }) {
        const report = readiness.evaluate();
        return { status: report.ready ? 200 : 503, body: search.has('verbose') ? formatReadinessVerbose(report) : formatReadiness(report) };
      },
    },
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
