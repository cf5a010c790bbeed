import { createFleetPageRoutes } from '../admin/dashboard.ts';
import { createHttpService, type HttpService } from '../admin/http.ts';
import type { SocketConfig } from '../config/config.ts';
import type { Clock } from '../lib/clock.ts';
import { strangersWords } from '../telemetry/log/scrub.ts';
import { fleetRoutes } from './api.ts';
import { createPrometheus, type PrometheusOptions } from './prometheus.ts';

export interface FleetOptions extends Omit<PrometheusOptions, 'clock'> {
  readonly listen: SocketConfig['listen'];
  readonly clock: Clock;
  /** A line for whoever watches. */
  readonly say: (line: string) => void;
}

const MAX_DETAIL = 300;
/** The same is not said again so soon. */
const SAID_FOR_MS = 60_000;
/** Who is in the group of the process may not read it. */
const SOCKET_MODE = 0o600;

/** The fleet: no identity, no listener of the proxy, nothing but answers about what Prometheus knows. */
export function createFleet({ listen, clock, say, ...options }: FleetOptions): HttpService {
  const prometheus = createPrometheus({ ...options, clock });
  const refusals = new Map<string, { saidMs: number; count: number }>();
  let lastProblem: string | undefined;
  const service = createHttpService({
    name: 'fleet',
    socket: { listen, socketMode: SOCKET_MODE, socketGid: undefined },
    allowedHosts: [],
    routes: {
      ...createFleetPageRoutes(),
      ...fleetRoutes({
        prometheus,
        url: options.url,
        clock,
        asked(problem) {
          if (problem?.reason === lastProblem) return;
          lastProblem = problem?.reason;
          say(
            problem === undefined ? 'Prometheus answers again' : `no answer from Prometheus: ${problem.reason}: ${words(problem.detail)}`,
          );
        },
      }),
    },
    refused(reason, detail) {
      const known = refusals.get(reason) ?? { saidMs: -Infinity, count: 0 };
      refusals.set(reason, known);
      known.count += 1;
      if (clock.monotonic() - known.saidMs < SAID_FOR_MS) return;
      known.saidMs = clock.monotonic();
      say(`refused: ${reason}: ${words(detail)} (${known.count} so far)`);
    },
  });
  return {
    ...service,
    async stop(deadline) {
      prometheus.stop();
      await service.stop(deadline);
    },
  };
}

function words(detail: string): string {
  return strangersWords(detail, MAX_DETAIL);
}
