/** What the listener for metrics serves, which the admin listener serves too. */
import type { MetricsConfig } from '../config/config.ts';
import type { Clock } from '../lib/clock.ts';
import type { Events } from '../telemetry/events/events.ts';
import type { Metrics } from '../telemetry/metrics/metrics.ts';
import { createHttpService, plain, type HttpService, type Routes } from './http.ts';
import { createProbe, type ProbeDeps } from './probe.ts';
import { formatReadiness, formatReadinessVerbose, type Readiness } from './checks/readiness.ts';

export interface MetricsServerOptions {
  readonly config: MetricsConfig;
  readonly metrics: Metrics;
  readonly readiness: Readiness;
  readonly events: Pick<Events, 'statusRequestRefused' | 'probes'>;
  readonly clock: Clock;
  readonly maxConnections?: number | undefined;
}

/** `/metrics`, `/livez`, `/readyz`, and the probes of the application: nothing that tells a secret or changes anything, so it may be bound anywhere. */
export function createMetricsServer({ config, metrics, readiness, events, clock, maxConnections }: MetricsServerOptions): HttpService {
  const probes = config.probes.map((probe) => {
    events.probes.registerProbe(probe);
    const probed: ProbeDeps['probed'] = (...what) => events.probes.probed(...what);
    return [probe.path, { GET: createProbe(probe, { clock, probed }) }] as const;
  });
  return createHttpService({
    name: 'metrics',
    socket: config,
    allowedHosts: config.allowedHosts,
    routes: { ...Object.fromEntries(probes), ...probeRoutes(metrics, readiness) },
    maxConnections,
    refused: (reason, detail) => events.statusRequestRefused('metrics', reason, detail),
  });
}

/** `/metrics`, `/livez` and `/readyz`. */
export function probeRoutes(metrics: Metrics, readiness: Readiness): Routes {
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
