import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { LiveConnection } from '../../../src/admin/api/source.ts';
import { HeldBook } from '../../../src/admin/held-book.ts';
import type { DrainSelection } from '../../../src/admin/drain.ts';
import type { HttpService } from '../../../src/admin/http.ts';
import type { StatusSource } from '../../../src/admin/inventory.ts';
import { PeerBook } from '../../../src/admin/peer-book.ts';
import type { PolicyStatus } from '../../../src/admin/policy-page.ts';
import { createReadiness } from '../../../src/admin/checks/readiness.ts';
import { createMetricsServer } from '../../../src/admin/metrics-server.ts';
import { createAdminServer } from '../../../src/admin/server.ts';
import type { AdminConfig, LogLevel, MetricsConfig } from '../../../src/config/config.ts';
import type { Address } from '../../../src/config/units.ts';
import { createEvents } from '../../../src/telemetry/events/events.ts';
import { createLogger } from '../../../src/telemetry/log/logger.ts';
import { createMetrics } from '../../../src/telemetry/metrics/metrics.ts';
import { FakeClock } from '../fake-clock.ts';

export const LOOPBACK: AdminConfig = {
  listen: { kind: 'tcp', host: '127.0.0.1', port: 0 },
  socketMode: 0o600,
  socketGid: undefined,
  allowedHosts: [],
};

/** Starts a service that ends with the test, and gives where it is bound. */
export async function startService(t: TestContext, service: HttpService): Promise<Address> {
  await service.start(new AbortController().signal);
  t.after(() => service.stop(AbortSignal.abort()));
  const address = service.address();
  assert.ok(address);
  return address;
}

/** What both servers are made of, with nothing behind it. */
export async function createAdminParts() {
  const lines: string[] = [];
  const log = await createLogger({ level: 'info', format: 'json', destination: { write: (line) => void lines.push(line) } });
  const metrics = createMetrics({ version: '1.2.3' });
  const clock = new FakeClock();
  const events = createEvents({ logger: log.logger, metrics, clock });
  const readiness = createReadiness();
  const shutdowns: number[] = [];
  const drains: DrainSelection[] = [];
  const status: StatusSource = {
    version: '1.2.3',
    startedAtMs: clock.now(),
    now: () => clock.now(),
    config: () => ({}),
    identity: () => undefined,
    listeners: () => [],
    exposed: () => new Map(),
    lastReload: () => undefined,
  };
  const held = new HeldBook();
  const peers = new PeerBook(() => clock.now());
  const sessions: LiveConnection[] = [];
  const connections = () => [{ listener: { name: 'in', direction: 'inbound' } as const, sessions }];
  const inventory = { held, peers, clock, connections, sds: () => undefined };
  return {
    held,
    peers,
    /** Open now: a test adds them. */
    sessions,
    lines,
    log,
    metrics,
    clock,
    events,
    readiness,
    status,
    shutdowns,
    drains,
    logLevel: (): LogLevel => log.level(),
    metricsServer: (config: AdminConfig & Partial<MetricsConfig> = LOOPBACK) =>
      createMetricsServer({ config: { probes: [], ...config }, metrics, readiness, events, clock }),
    adminServer: (config: AdminConfig = LOOPBACK, source: StatusSource = status, policies: readonly PolicyStatus[] = []) =>
      createAdminServer({
        config,
        metrics,
        readiness,
        status: source,
        inventory,
        policies: () => policies,
        log,
        events,
        hasListener: (name) => name === 'in',
        drain: (selection) => drains.push(selection),
        shutdown: () => void shutdowns.push(clock.now()),
      }),
  };
}
