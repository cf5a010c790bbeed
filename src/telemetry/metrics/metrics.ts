import { Gauge, Registry } from 'prom-client';
import { inTurns } from '../../config/in-turns.ts';
import { FAULT_REASONS, type FaultReason } from '../../http2/frame.ts';
import type { IdentitySnapshot } from '../../identity/snapshot.ts';
import { DENY_REASONS, POLICY_REASONS, type DenyReason, type PolicyReason } from '../../policy/verdict.ts';
import {
  CLOSE_REASONS,
  emptyCounters,
  HTTP_RESULTS,
  IDENTITY_WAIT_RESULTS,
  REFUSED_ACCEPT_REASONS,
  STATUS_REFUSALS,
} from '../log/records.ts';
import type {
  CloseReason,
  HttpResult,
  IdentityWaitResult,
  ListenerCounters,
  ListenerRef,
  RefusedAcceptReason,
  StatusRefusal,
} from '../log/records.ts';
import { registerApplicationMetrics, type ApplicationMetrics } from './application-metrics.ts';
import { registerCertificateMetrics } from './certificate-metrics.ts';
import { CONNECTION_SECONDS, Durations, durationsMetric, REQUEST_SECONDS, type DefineDurations, type DurationSeries } from './durations.ts';
import { registerManagerMetrics, type ManagerMetrics } from './manager-metrics.ts';
import { registerProbeMetrics, type ProbeMetrics } from './probe-metrics.ts';
import { registerProcessMetrics } from './process-metrics.ts';
import { registerCheckMetrics, type CheckMetrics } from './ext-authz-metrics.ts';
import { registerCredentialMetrics, type CredentialMetrics } from './credential-metrics.ts';
import { registerFederationMetrics, type FederationMetrics } from './federation-metrics.ts';
import { registerFilesMetrics, type FilesMetrics } from './files-metrics.ts';
import { registerJwtMetrics, type JwtMetrics } from './jwt-metrics.ts';
import { registerSdsMetrics, type SdsMetrics } from './sds-metrics.ts';
import { countsByLabel, createTally, type Tally } from './tally.ts';
import { writeMetrics, type Add, type Collected, type Define } from './text-format.ts';
import { zeroes } from './zeroes.ts';

export interface MetricsOptions {
  readonly version: string;
  /** How TLS is set up: facts of the build, shown as labels of one series that is always 1. */
  readonly tls?: { readonly versions: string; readonly groups: string; readonly ciphers: string; readonly fips: string } | undefined;
  /** Read at each scrape. */
  readonly droppedLogLines?: (() => number) | undefined;
}

/**
 * What the data path counts for one listener, in plain integers: a connection costs a few additions, and prom-client
 * (which hashes labels at each increment) sees them only when somebody scrapes.
 */
export interface ListenerMetrics {
  readonly listener: ListenerRef;
  readonly counters: ListenerCounters;
  readonly refusedAccepts: Record<RefusedAcceptReason, number>;
  readonly handshakes: Record<'ok' | DenyReason, number>;
  readonly closes: Record<CloseReason, number>;
  /** Connections to servers that were ended while the application's went on. */
  readonly dismissedServers: Record<CloseReason, number>;
  readonly requests: RequestCounts;
  /** Outbound: what waited for our first SVID. */
  readonly identityWaits: Record<IdentityWaitResult, number>;
  /** Who broke the rules of HTTP/2, or flooded us: the client or the application. */
  readonly http2Faults: Readonly<Record<'src' | 'dst', Record<FaultReason, number>>>;
  /** Requests that were sent once more, by how they went then. */
  readonly retries: Tally;
  /** By the rule that decided; empty if none did. */
  readonly allowed: Tally;
  readonly denied: Tally;
  /** Would not have been, were all of the policy enforced. */
  readonly allowedInAudit: Tally;
  /** What only audit let pass. */
  readonly audited: Readonly<Record<'connection' | 'request', Record<PolicyReason, number>>>;
  /** What of the policy is in audit: how much of it. */
  inAudit: number;
  /** Which changes open connections outlive although they should not: how many. */
  unsafeKeeps: number;
  readonly handshakeDurations: Durations;
  readonly requestDurations: Durations;
  /** Of those that were admitted. */
  readonly connectionDurations: Durations;
}

/** By status and result in one number. A status is one of 500, so this stays small whatever an application answers. */
export type RequestCounts = Map<number, number>;

/** On how many connections the rule with that text decided; undefined if that was not counted. */
export function decidedBy({ allowed, denied, allowedInAudit }: ListenerMetrics, rule: string): number | undefined {
  return [allowed, denied, allowedInAudit].reduce<number | undefined>((sum, tally) => {
    const count = tally.of(rule);
    return sum === undefined || count === undefined ? undefined : sum + count;
  }, 0);
}

export function countRequest(counts: RequestCounts, status: number, result: HttpResult): void {
  const key = HTTP_RESULTS.indexOf(result) * 1000 + status;
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

export interface ReadinessSeries {
  readonly name: string;
  readonly ok: boolean;
  /** False: only told, whoever is ready stays so. */
  readonly blocks: boolean;
}

/** Descriptors of one use. */
export interface FileSeries {
  readonly use: string;
  readonly held: number;
  /** Nobody else takes these. */
  readonly kept: number;
  readonly most: number;
}

/** What is told, without its values. */
export interface MetricDescription {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly labels: readonly string[];
}

/** The metrics of one application, in a registry of their own. Written through `Events`, read through `render`. */
export interface Metrics {
  /** The numbers of one listener; the same object for the same listener. */
  listener(listener: ListenerRef): ListenerMetrics;
  readonly identityUpdates: { readonly ok: Tally; readonly rejected: Tally };
  readonly workloadApiErrors: Tally;
  readonly configReloads: { ok: number; failed: number };
  readonly denyListReloads: { ok: number; failed: number };
  readonly policyFileReloads: { ok: number; failed: number };
  readonly authoritiesReloads: { ok: number; failed: number };
  readonly statusRefusals: Readonly<Record<'metrics' | 'admin', Record<StatusRefusal, number>>>;
  readonly sds: SdsMetrics;
  readonly checks: CheckMetrics;
  readonly federation: FederationMetrics;
  readonly application: ApplicationMetrics;
  readonly manager: ManagerMetrics;
  readonly files: FilesMetrics;
  readonly credentials: CredentialMetrics;
  readonly jwt: JwtMetrics;
  readonly probes: ProbeMetrics;
  setWorkloadApiConnected(connected: boolean): void;
  /** Replaces everything that is said of certificates: series of vanished ones go. */
  setIdentity(snapshot: IdentitySnapshot): void;
  setApplicationExposed(listener: ListenerRef, exposed: boolean): void;
  setDenyListEntries(entries: number): void;
  /** `checks` is asked at each scrape. */
  setReadinessSource(checks: () => readonly ReadinessSeries[]): void;
  /** Asked at each scrape. */
  setPolicyFilesSource(files: () => readonly PolicyFileSeries[]): void;
  /** Both are asked at each scrape: descriptors by their use, and bytes that are kept of connections that wait, by direction. */
  setWaitingSource(files: () => readonly FileSeries[], keptBytes: () => Readonly<Record<string, number>>): void;
  /** All that there is, also what has no series yet: documents, rules and dashboards are held against it. */
  describe(): Promise<readonly MetricDescription[]>;
  /** The Prometheus text format. */
  render(): Promise<{ readonly contentType: string; readonly body: string }>;
}

/** A policy file that is in force. */
export interface PolicyFileSeries {
  readonly file: string;
  readonly entries: number;
}

/** Connections that Scute ended by itself although both sides were well. */
const DRAIN_REASONS = [
  'lifetime',
  'idle_timeout',
  'authority_removed',
  'revoked',
  'policy',
  'identity_withdrawn',
  'peer_svid_expired',
  'own_svid_expired',
  'drain_requested',
  'shutdown',
] as const;
const LISTENER = ['direction', 'listener'] as const;

export function createMetrics(options: MetricsOptions): Metrics {
  const registry = new Registry();
  const listeners = new Map<string, ListenerMetrics>();

  const collected: Collected[] = [];
  type Collect = Collected['collect'];
  const collect = (type: 'counter' | 'gauge', name: string, help: string, labels: readonly string[], told: Collect): void =>
    void collected.push({ name: `scute_${name}`, type, help, labels, collect: told });
  const counter: Define = (...metric) => collect('counter', ...metric);
  const gauge: Define = (...metric) => collect('gauge', ...metric);
  const histogram: DefineDurations = (name, ...metric) => void collected.push(durationsMetric(`scute_${name}`, ...metric));
  /** One that is set when its value changes. */
  const kept = (name: string, help: string, labelNames: readonly string[] = []): Gauge =>
    new Gauge({ name: `scute_${name}`, help, labelNames: [...labelNames], registers: [registry] });
  /** One counter or gauge over all listeners. */
  const each = (visit: (metrics: ListenerMetrics, labels: { direction: string; listener: string }, add: Add) => void): Collect =>
    function* (add) {
      for (const metrics of listeners.values()) {
        visit(metrics, { direction: metrics.listener.direction, listener: metrics.listener.name }, add);
        yield;
      }
    };
  const byReason = (counts: Record<string, number>, reasons: readonly string[], labels: Record<string, string>, add: Add): void => {
    for (const reason of reasons) add({ ...labels, reason }, counts[reason] ?? 0);
  };

  kept('build_info', 'What is running; always 1', ['version', 'nodejs', 'openssl']).set(
    { version: options.version, nodejs: process.versions.node, openssl: process.versions.openssl },
    1,
  );
  if (options.tls !== undefined)
    kept('tls_info', 'How TLS is set up; always 1', ['versions', 'groups', 'ciphers', 'fips']).set({ ...options.tls }, 1);

  // `peer` says which side, as linkerd does: src is who connected to us, dst whom we connected to. Connections are counted by src.
  const tcp = [...LISTENER, 'peer'];
  counter(
    'tcp_open_total',
    'Connections accepted',
    tcp,
    each((m, labels, add) => add({ ...labels, peer: 'src' }, m.counters.opened)),
  );
  gauge(
    'tcp_open_connections',
    'Connections open now',
    tcp,
    each((m, labels, add) => add({ ...labels, peer: 'src' }, m.counters.open)),
  );
  counter(
    'tcp_close_total',
    'Connections ended, by reason',
    [...tcp, 'reason'],
    each((m, labels, add) => byReason(m.closes, CLOSE_REASONS, { ...labels, peer: 'src' }, add)),
  );
  counter(
    'tcp_read_bytes_total',
    'Application bytes read from that side',
    tcp,
    each((m, labels, add) => {
      add({ ...labels, peer: 'src' }, m.counters.downstreamReadBytes);
      add({ ...labels, peer: 'dst' }, m.counters.upstreamReadBytes);
    }),
  );
  counter(
    'tcp_write_bytes_total',
    'Application bytes written to that side',
    tcp,
    each((m, labels, add) => {
      add({ ...labels, peer: 'src' }, m.counters.downstreamWrittenBytes);
      add({ ...labels, peer: 'dst' }, m.counters.upstreamWrittenBytes);
    }),
  );
  const durationsOf = (pick: (metrics: ListenerMetrics) => Durations) => (): DurationSeries[] =>
    [...listeners.values()].map((m) => ({ labels: { direction: m.listener.direction, listener: m.listener.name }, durations: pick(m) }));
  histogram(
    'tcp_connection_duration_seconds',
    'Time from accepting a connection that was admitted to its end',
    LISTENER,
    durationsOf((m) => m.connectionDurations),
  );
  gauge(
    'tcp_waiting_connections',
    'Connections accepted that wait for a place',
    LISTENER,
    each((m, labels, add) => add(labels, m.counters.waiting)),
  );
  let keptBytes = (): Readonly<Record<string, number>> => ({});
  gauge('tcp_waiting_bytes', 'Memory for what connections that wait have said', ['direction'], (add) => {
    for (const [direction, bytes] of Object.entries(keptBytes())) add({ direction }, bytes);
  });
  let files = (): readonly FileSeries[] => [];
  const filesBy = (name: string, help: string, pick: (series: FileSeries) => number): void => {
    gauge(name, help, ['use'], (add) => {
      for (const series of files()) add({ use: series.use }, pick(series));
    });
  };
  filesBy('file_descriptors', 'File descriptors that are taken, by what for', ({ held }) => held);
  filesBy('file_descriptors_kept', 'File descriptors that nobody else takes', ({ kept }) => kept);
  filesBy('file_descriptors_max', 'The most file descriptors that may be taken', ({ most }) => most);
  gauge(
    'tls_handshaking_connections',
    'TLS handshakes under way',
    LISTENER,
    each((m, labels, add) => add(labels, m.counters.handshaking)),
  );
  counter(
    'accept_refused_total',
    'Connections dropped before anything was read from them',
    [...LISTENER, 'reason'],
    each((m, labels, add) => byReason(m.refusedAccepts, REFUSED_ACCEPT_REASONS, labels, add)),
  );
  counter(
    'identity_waits_total',
    'Connections (tcp) and requests (http) that waited for our first SVID, by how the wait ended',
    [...LISTENER, 'result'],
    each((m, labels, add) => {
      if (m.listener.direction === 'inbound') return;
      for (const result of IDENTITY_WAIT_RESULTS) add({ ...labels, result }, m.identityWaits[result]);
    }),
  );
  counter(
    'connections_drained_total',
    'Connections that Scute ended by itself',
    [...LISTENER, 'reason'],
    each((m, labels, add) => {
      for (const reason of DRAIN_REASONS) add({ ...labels, reason }, m.closes[reason] + m.dismissedServers[reason]);
    }),
  );
  counter(
    'tls_handshakes_total',
    'TLS handshakes and authentications finished; the reason is ok or why they failed',
    [...LISTENER, 'result', 'reason'],
    each((m, labels, add) => {
      add({ ...labels, result: 'ok', reason: 'ok' }, m.handshakes.ok);
      byReason(m.handshakes, DENY_REASONS, { ...labels, result: 'error' }, add);
    }),
  );
  counter(
    'http2_faults_total',
    'Connections that Scute ended since a side broke the rules of HTTP/2, or flooded it',
    [...LISTENER, 'peer', 'reason'],
    each((m, labels, add) => {
      for (const peer of ['src', 'dst'] as const) byReason(m.http2Faults[peer], FAULT_REASONS, { ...labels, peer }, add);
    }),
  );
  histogram(
    'tls_handshake_duration_seconds',
    'Time from the first byte to the verdict of authentication',
    LISTENER,
    durationsOf((m) => m.handshakeDurations),
  );
  counter(
    'authorization_total',
    'Verdicts on authenticated peers; rule is the one that decided, empty if none did',
    [...LISTENER, 'decision', 'mode', 'rule'],
    each((m, labels, add) => {
      const of = (tally: Tally, decision: 'allow' | 'deny', mode: 'enforce' | 'audit'): void => {
        for (const [rule, count] of countsByLabel(tally)) add({ ...labels, decision, mode, rule }, count);
      };
      of(m.denied, 'deny', 'enforce');
      of(m.allowed, 'allow', 'enforce');
      of(m.allowedInAudit, 'allow', 'audit');
    }),
  );
  counter(
    'audit_passed_total',
    'Connections and requests that only audit let pass, by what they would have been refused for',
    [...LISTENER, 'kind', 'reason'],
    each((m, labels, add) => {
      for (const kind of ['connection', 'request'] as const) byReason(m.audited[kind], POLICY_REASONS, { ...labels, kind }, add);
    }),
  );
  gauge(
    'audit_rules',
    'How much of the policy of that listener is in audit: 0 if all of it is enforced',
    LISTENER,
    each((m, labels, add) => add(labels, m.inAudit)),
  );
  gauge(
    'unsafe_keeps',
    'Of how many changes it is said that open connections of that listener outlive them: unsafeKeep',
    LISTENER,
    each((m, labels, add) => add(labels, m.unsafeKeeps)),
  );
  counter(
    'http_requests_total',
    'Requests over HTTP, by the status that the caller was sent (0: none) and how they went',
    [...LISTENER, 'status', 'result'],
    each((m, labels, add) => {
      for (const [key, count] of m.requests) {
        add({ ...labels, status: String(key % 1000), result: HTTP_RESULTS[Math.floor(key / 1000)] ?? '' }, count);
      }
    }),
  );

  counter(
    'http_retries_total',
    'Requests that were sent once more, since a connection that had been used before was closed under them, by how they went then',
    [...LISTENER, 'result'],
    each((m, labels, add) => {
      for (const [result, count] of m.retries.entries()) add({ ...labels, result }, count);
    }),
  );

  histogram(
    'http_request_duration_seconds',
    'Time from the whole head of a request to the last byte of its response',
    LISTENER,
    durationsOf((m) => m.requestDurations),
  );

  const setCertificates = registerCertificateMetrics(gauge);
  const generation = kept('identity_generation', 'The number of the identity snapshot in force; 0 before the first');
  const identityUpdates = { ok: createTally(['ok', 'no_identity']), rejected: createTally([]) };
  counter('x509_svid_updates_total', 'Answers of the Workload API: taken, or rejected as unusable', ['result', 'reason'], (add) => {
    for (const [reason, count] of identityUpdates.ok.entries()) add({ result: 'ok', reason }, count);
    for (const [reason, count] of identityUpdates.rejected.entries()) add({ result: 'rejected', reason }, count);
  });
  const connected = kept('workload_api_connected', '1 while the stream to the Workload API is open');
  const lastUpdate = kept(
    'workload_api_last_update_timestamp_seconds',
    'When the last usable answer of the Workload API came; 0 before the first',
  );
  const workloadApiErrors = createTally(['UNAVAILABLE', 'PERMISSION_DENIED']);
  counter('workload_api_errors_total', 'Streams to the Workload API that failed, by gRPC status', ['code'], (add) => {
    for (const [code, count] of workloadApiErrors.entries()) add({ code }, count);
  });
  const configReloads = { ok: 0, failed: 0 };
  counter('config_reloads_total', 'Reloads of the configuration', ['result'], (add) => {
    add({ result: 'ok' }, configReloads.ok);
    add({ result: 'failed' }, configReloads.failed);
  });
  const denyListReloads = { ok: 0, failed: 0 };
  counter('deny_list_reloads_total', 'Reloads of the deny list', ['result'], (add) => {
    add({ result: 'ok' }, denyListReloads.ok);
    add({ result: 'failed' }, denyListReloads.failed);
  });
  const statusRefusals = { metrics: zeroes(STATUS_REFUSALS), admin: zeroes(STATUS_REFUSALS) };
  counter('status_requests_refused_total', 'Requests that the metrics or admin listener refused', ['listener', 'reason'], (add) => {
    for (const listener of ['metrics', 'admin'] as const)
      for (const reason of STATUS_REFUSALS) add({ listener, reason }, statusRefusals[listener][reason]);
  });
  const denyListEntries = kept('deny_list_entries', 'Entries of the deny list in force; 0 without one');
  const policyFileReloads = { ok: 0, failed: 0 };
  counter('policy_file_reloads_total', 'Reloads of policy files, each with its lists', ['result'], (add) => {
    add({ result: 'ok' }, policyFileReloads.ok);
    add({ result: 'failed' }, policyFileReloads.failed);
  });
  const authoritiesReloads = { ok: 0, failed: 0 };
  counter('authorities_reloads_total', 'Reloads of files with authorities of the public web', ['result'], (add) => {
    add({ result: 'ok' }, authoritiesReloads.ok);
    add({ result: 'failed' }, authoritiesReloads.failed);
  });
  let policyFiles: () => readonly PolicyFileSeries[] = () => [];
  gauge('policy_file_entries', 'Rules of a policy file in force, and SPIFFE IDs of the lists that it names', ['file'], (add) => {
    for (const { file, entries } of policyFiles()) add({ file }, entries);
  });
  const applicationExposed = kept('application_exposed', '1 if the application of that listener can also be reached around Scute', [
    'listener',
  ]);
  let readiness = noChecks;
  gauge('ready', '1 for each readiness check that holds; blocks is false if it only warns', ['check', 'blocks'], (add) => {
    for (const { name, ok, blocks } of readiness()) add({ check: name, blocks: String(blocks) }, ok ? 1 : 0);
  });
  gauge('clock_timestamp_seconds', 'What time it is here: certificates are judged by this clock', [], (add) => add({}, Date.now() / 1000));
  counter('log_dropped_total', 'Log lines thrown away because standard output did not take them', [], (add) =>
    add({}, options.droppedLogLines?.() ?? 0),
  );
  const sds = registerSdsMetrics(registry, counter, gauge);
  const checks = registerCheckMetrics(counter, gauge, histogram);
  const federation = registerFederationMetrics(counter, gauge);
  const application = registerApplicationMetrics(counter, gauge);
  const manager = registerManagerMetrics(counter);
  const fileSets = registerFilesMetrics(counter, gauge);
  const credentials = registerCredentialMetrics(counter, gauge);
  const jwt = registerJwtMetrics(counter, gauge);
  const probes = registerProbeMetrics(counter);
  registerProcessMetrics(registry);

  return {
    listener(listener) {
      const key = `${listener.direction} ${listener.name}`;
      const known = listeners.get(key);
      if (known !== undefined) return known;
      const made: ListenerMetrics = {
        listener,
        counters: emptyCounters(),
        refusedAccepts: zeroes(REFUSED_ACCEPT_REASONS),
        handshakes: zeroes(['ok', ...DENY_REASONS]),
        closes: zeroes(CLOSE_REASONS),
        dismissedServers: zeroes(CLOSE_REASONS),
        requests: new Map(),
        identityWaits: zeroes(IDENTITY_WAIT_RESULTS),
        http2Faults: { src: zeroes(FAULT_REASONS), dst: zeroes(FAULT_REASONS) },
        retries: createTally(['forwarded']),
        allowed: createTally([]),
        denied: createTally(['']),
        allowedInAudit: createTally([]),
        audited: { connection: zeroes(POLICY_REASONS), request: zeroes(POLICY_REASONS) },
        inAudit: 0,
        unsafeKeeps: 0,
        handshakeDurations: new Durations(),
        requestDurations: new Durations(REQUEST_SECONDS),
        connectionDurations: new Durations(CONNECTION_SECONDS),
      };
      listeners.set(key, made);
      return made;
    },
    identityUpdates,
    workloadApiErrors,
    configReloads,
    denyListReloads,
    policyFileReloads,
    authoritiesReloads,
    statusRefusals,
    sds,
    checks,
    federation,
    application,
    manager,
    files: fileSets,
    credentials,
    jwt,
    probes,
    setWorkloadApiConnected: (isConnected) => connected.set(isConnected ? 1 : 0),
    setIdentity(snapshot) {
      generation.set(snapshot.generation);
      jwt.setBundles(snapshot);
      lastUpdate.set(snapshot.receivedAtMs / 1000);
      setCertificates(snapshot);
    },
    setDenyListEntries: (entries) => denyListEntries.set(entries),
    setApplicationExposed: (listener, exposed) => applicationExposed.set({ listener: listener.name }, exposed ? 1 : 0),
    setReadinessSource(checks) {
      readiness = checks;
    },
    setPolicyFilesSource(ask) {
      policyFiles = ask;
    },
    setWaitingSource(askFiles, askBytes) {
      files = askFiles;
      keptBytes = askBytes;
    },
    async describe() {
      const known = new Map(registry.getMetricsAsArray().map((metric) => [metric.name, metric]));
      const others = (await registry.getMetricsAsJSON()).map(({ name, type, help }) => {
        const { labelNames } = known.get(name) as unknown as { readonly labelNames: readonly string[] };
        // prom-client counts types in its declarations and names them in its answers.
        return { name, type: String(type), help, labels: labelNames };
      });
      return [...collected.map(({ name, type, help, labels }) => ({ name, type, help, labels })), ...others];
    },
    async render() {
      const parts: string[] = [];
      await inTurns(writeMetrics(collected, (text) => parts.push(text)));
      parts.push(await registry.metrics());
      return { contentType: registry.contentType, body: parts.join('') };
    },
  };
}

function noChecks(): readonly ReadinessSeries[] {
  return [];
}
