import type { LogLevel } from '../../config/config.ts';
import type { FaultReason } from '../../http2/frame.ts';
import type { IdentitySnapshot } from '../../identity/snapshot.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Result } from '../../lib/result.ts';
import type { DenyReason, PolicyReason } from '../../policy/verdict.ts';
import type { LogFields, Logger } from '../log/logger.ts';
import { countRequest, type ListenerMetrics, type Metrics } from '../metrics/metrics.ts';
import type {
  CloseReason,
  ConnectionRecord,
  DismissedServer,
  IdentityWaitResult,
  ListenerCounters,
  ListenerRef,
  RefusedAcceptReason,
  RequestRecord,
  StatusRefusal,
} from '../log/records.ts';
import { isSwitched } from '../log/records.ts';
import { strangersWords } from '../log/scrub.ts';
import { connectionMembers, requestMembers } from '../log/traffic-lines.ts';
import { createApplicationEvents, type ApplicationEvents } from './application-events.ts';
import { createManagerEvents, type ManagerEvents } from './manager-events.ts';
import { createCredentialEvents, type CredentialEvents } from './credential-events.ts';
import { createFederationEvents, type FederationEvents } from './federation-events.ts';
import { createFilesEvents, type FilesEvents } from './files-events.ts';
import { createCheckEvents, type CheckEvents } from './ext-authz-events.ts';
import { createJwtEvents, type JwtEvents } from './jwt-events.ts';
import { createProbeEvents, type ProbeEvents } from './probe-events.ts';
import { createSdsEvents, type SdsEvents } from './sds-events.ts';

/** One function for each thing that happens: the metric and the log line together, so that they cannot disagree. */
export interface Events {
  started(version: string): void;
  /** The counters of one listener; call once a listener, when it is made. */
  registerListener(listener: ListenerRef): ListenerCounters;
  listenerBound(listener: ListenerRef, address: string): void;
  /** `metrics`, `admin` or `sds` is bound. */
  statusListenerBound(name: string, address: string): void;
  /** By `listener`, `metrics` or `admin`. Rate-limited in the log, always counted. */
  statusRequestRefused(listener: 'metrics' | 'admin', reason: StatusRefusal, detail: string): void;
  /** Rate-limited in the log, always counted. */
  acceptRefused(listener: ListenerRef, reason: RefusedAcceptReason, detail: string): void;
  /** Of a connection or a request that came before our first SVID. */
  identityWaitEnded(listener: ListenerRef, result: IdentityWaitResult): void;
  /** `reason` is `ok` or why the handshake or the authentication failed. */
  handshakeFinished(listener: ListenerRef, reason: 'ok' | DenyReason, durationMs: number): void;
  /** `rule` is the one that decided, empty if none did; `audited`: only audit let the peer in, which would have been refused for that. */
  authorised(listener: ListenerRef, decision: 'allow' | 'deny', rule: string, audited: PolicyReason | undefined): void;
  /** Of the rules that decided, those for which `isRule` is false are there no longer. */
  rulesInForce(listener: ListenerRef, isRule: (rule: string) => boolean): void;
  /** What of the policy that is in force now is in audit, at each start and reload. */
  auditInForce(listener: ListenerRef, audit: readonly string[]): void;
  /** Which changes open connections outlive although they should not, at each start and reload. */
  unsafeKeepsInForce(listener: ListenerRef, keys: readonly string[]): void;
  /** Over the admin listener, with what was asked for. */
  drainRequested(selection: DrainRequest, connections: number): void;
  /** `near` says which rule nearly allowed what none did. It is called only for a line that is written. */
  connectionClosed(listener: ListenerRef, record: ConnectionRecord, near?: () => string | undefined): void;
  requestFinished(listener: ListenerRef, record: RequestRecord, near?: () => string | undefined): void;
  /** A connection over HTTP/2 is ended since one side of it broke the rules; its own line, or those of its requests, say how. */
  http2Faulted(listener: ListenerRef, side: 'downstream' | 'upstream', reason: FaultReason): void;
  /** Outbound over HTTP: a server that is no longer who it must be is asked nothing more. */
  serverDismissed(listener: ListenerRef, server: DismissedServer): void;
  /** The application can be reached around Scute at `addresses`; empty: no longer. */
  applicationExposed(listener: ListenerRef, addresses: readonly string[]): void;

  workloadApiConnected(endpoint: string): void;
  /** `code` is the gRPC status name, or `TRANSPORT`. */
  workloadApiStreamFailed(error: { readonly code: string; readonly message: string }, retryInMs: number): void;
  identityUpdated(snapshot: IdentitySnapshot): void;
  /** The same identity with other bundles of bundle endpoints, which were told of already. */
  endpointBundlesUpdated(snapshot: IdentitySnapshot): void;
  identityUpdateRejected(problem: { readonly code: string; readonly message: string }): void;

  /** What happens on the SDS socket. */
  readonly sds: SdsEvents;
  /** What Envoy asks there. */
  readonly checks: CheckEvents;
  /** What happens with tokens that are put on requests. */
  readonly credentials: CredentialEvents;
  /** What happens between bundle endpoints. */
  readonly federation: FederationEvents;
  /** What becomes of the application of `scute exec`. */
  readonly application: ApplicationEvents;
  /** What a service manager is told. */
  readonly manager: ManagerEvents;
  /** What the application says when it is probed by way of us. */
  readonly probes: ProbeEvents;
  /** What happens to sets of files. */
  readonly files: FilesEvents;
  /** What happens with JWT bundles. */
  readonly jwt: JwtEvents;

  logLevelChanged(from: LogLevel, to: LogLevel): void;
  configReloaded(differences: readonly string[], needRestart: readonly string[]): void;
  configReloadFailed(problems: readonly string[]): void;
  denyListLoaded(file: string, entries: number): void;
  denyListReloaded(reload: DenyListDifference): void;
  denyListReloadFailed(problems: readonly string[]): void;
  policyFileLoaded(file: string, entries: number): void;
  policyFileReloaded(reload: DenyListDifference & { readonly file: string }): void;
  policyFileReloadFailed(file: string, problems: readonly string[]): void;
  /** A file of authorities of the web changed: so many are in force, or what is wrong with it, and those before stay. */
  authoritiesReloaded(file: string, outcome: Result<number, string>): void;
  stopping(reason: string, openConnections: number): void;
  stopped(drained: boolean, forcedConnections: number): void;
}

/** Those that are absent were not asked for. */
export interface DrainRequest {
  readonly peer: string | undefined;
  readonly trustDomain: string | undefined;
  readonly listener: string | undefined;
}

/** What a deny list has that the one before had not, and the reverse: how many entries, and the first of them. */
export interface DenyListDifference {
  readonly entries: number;
  readonly added: { readonly count: number; readonly first: readonly string[] };
  readonly removed: { readonly count: number; readonly first: readonly string[] };
}

export interface EventsOptions {
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly clock: Clock;
}

/** Of lines that an attacker or a broken agent could repeat at will, one of each kind is written in this time. */
const REPEAT_LOG_MS = 5000;

type LineLevel = 'debug' | 'info' | 'warn' | 'error';

/** How loud the line of an ended connection is. What a stranger can cause is never louder than `info`. */
const CLOSE_LEVELS: Readonly<Record<CloseReason, LineLevel>> = {
  finished: 'info',
  downstream_reset: 'info',
  upstream_reset: 'info',
  upstream_refused: 'warn',
  upstream_timeout: 'warn',
  upstream_unresolved: 'warn',
  upstream_denied: 'warn',
  upstream_tls_failed: 'warn',
  idle_timeout: 'info',
  lifetime: 'info',
  authority_removed: 'info',
  revoked: 'info',
  policy: 'info',
  token_ended: 'info',
  identity_withdrawn: 'info',
  peer_svid_expired: 'info',
  own_svid_expired: 'info',
  drain_requested: 'info',
  waiting_limit: 'info',
  denied: 'info',
  handshake_failed: 'info',
  shutdown: 'info',
  protocol_error: 'info',
  internal_error: 'error',
};

/** Whoever asks chooses what is quoted in it. */
const MAX_STATUS_DETAIL = 200;

/** A partner decides how many there are. */
const MAX_NOTES = 20;

/** The one place where metrics are counted and lines are written. */
export function createEvents({ logger, metrics, clock }: EventsOptions): Events {
  // A WeakMap look-up by the listener object itself is all that a hot call pays to find its numbers.
  const known = new WeakMap<ListenerRef, ListenerMetrics>();
  const numbersOf = (listener: ListenerRef): ListenerMetrics => {
    let numbers = known.get(listener);
    if (numbers === undefined) {
      numbers = metrics.listener(listener);
      known.set(listener, numbers);
    }
    return numbers;
  };
  const repeated = createRepeatFilter(clock);
  const exposed = new Set<string>();
  let identity: IdentitySnapshot['kind'] | undefined;

  const bundleNotes = ({ bundles }: IdentitySnapshot): void => {
    const notes = [...bundles.values()].flatMap((bundle) => bundle.notes);
    if (notes.length > 0)
      logger.warn({ notes: notes.slice(0, MAX_NOTES), count: notes.length }, 'not everything in the trust bundles is used');
  };

  return {
    started(version) {
      logger.info({ version, node: process.versions.node, openssl: process.versions.openssl, pid: process.pid }, 'started');
    },
    registerListener: (listener) => numbersOf(listener).counters,
    listenerBound(listener, address) {
      logger.info({ direction: listener.direction, listener: listener.name, address }, 'listening');
    },
    statusListenerBound(name, address) {
      logger.info({ listener: name, address }, 'listening');
    },
    statusRequestRefused(listener, reason, detail) {
      metrics.statusRefusals[listener][reason] += 1;
      repeated(`status ${listener} ${reason}`, (count) =>
        logger.info({ listener, reason, detail: strangersWords(detail, MAX_STATUS_DETAIL), count }, 'status request refused'),
      );
    },
    acceptRefused(listener, reason, detail) {
      numbersOf(listener).refusedAccepts[reason] += 1;
      repeated(`accept ${listener.direction} ${listener.name} ${reason}`, (count) =>
        logger.warn({ direction: listener.direction, listener: listener.name, reason, detail, count }, 'connections refused unread'),
      );
    },
    identityWaitEnded(listener, result) {
      numbersOf(listener).identityWaits[result] += 1;
    },
    handshakeFinished(listener, reason, durationMs) {
      const numbers = numbersOf(listener);
      numbers.handshakes[reason] += 1;
      numbers.handshakeDurations.observe(durationMs);
    },
    authorised(listener, decision, rule, audited) {
      const numbers = numbersOf(listener);
      if (decision === 'deny') numbers.denied.add(rule);
      else if (audited === undefined) numbers.allowed.add(rule);
      else {
        numbers.allowedInAudit.add(rule);
        numbers.audited.connection[audited] += 1;
      }
    },
    rulesInForce(listener, isRule) {
      const { allowed, denied, allowedInAudit } = numbersOf(listener);
      const checked = listener.direction === 'inbound' ? metrics.checks.byRule(listener.name) : [];
      for (const tally of [allowed, denied, allowedInAudit, ...checked]) tally.keep(isRule);
    },
    auditInForce(listener, audit) {
      numbersOf(listener).inAudit = audit.length;
      const { name, direction } = listener;
      const fields = { direction, listener: name, audit: audit.slice(0, MAX_NOTES), count: audit.length };
      if (audit.length > 0) logger.warn(fields, 'a policy is in audit: whom it would deny passes');
    },
    unsafeKeepsInForce(listener, keys) {
      numbersOf(listener).unsafeKeeps = keys.length;
      const fields = { direction: listener.direction, listener: listener.name, settings: keys };
      if (keys.length > 0) logger.warn(fields, 'open connections are kept whose peers would not be let in now');
    },
    drainRequested({ peer, trustDomain, listener }, connections) {
      logger.info({ peer_id: peer, trust_domain: trustDomain, listener, connections }, 'connections asked to drain');
    },
    connectionClosed(listener, record, near) {
      const numbers = numbersOf(listener);
      numbers.closes[record.closeReason] += 1;
      // Strangers that are turned away would be most of them.
      if (record.verdict === 'allow') numbers.connectionDurations.observe(record.durationMs);
      // A load balancer's probe connects and hangs up; nobody wants a line for each.
      const isProbe = record.closeReason === 'downstream_reset' && record.verdict === 'none';
      const level = isProbe ? 'debug' : CLOSE_LEVELS[record.closeReason];
      if (logger.isLevelEnabled(level)) logger.members(level, connectionMembers(listener, record, near), 'connection closed');
    },
    requestFinished(listener, record, near) {
      const numbers = numbersOf(listener);
      countRequest(numbers.requests, record.status, record.result);
      if (record.retries > 0) numbers.retries.add(record.result);
      if (record.verdict?.allowed === true && record.verdict.audited !== undefined) numbers.audited.request[record.verdict.audited] += 1;
      // A connection that was switched to another protocol lasts as long as it is wanted.
      if (!isSwitched(record)) numbers.requestDurations.observe(record.durationMs);
      if (logger.isLevelEnabled('info')) logger.members('info', requestMembers(listener, record, near), 'request finished');
    },
    http2Faulted(listener, side, reason) {
      numbersOf(listener).http2Faults[side === 'downstream' ? 'src' : 'dst'][reason] += 1;
    },
    serverDismissed(listener, { connection, peerId, reason, detail }) {
      numbersOf(listener).dismissedServers[reason] += 1;
      const fields = { direction: listener.direction, listener: listener.name, connection, peer_id: peerId, reason, detail };
      logger.info(fields, 'connection to the server ended');
    },
    applicationExposed(listener, addresses) {
      metrics.setApplicationExposed(listener, addresses.length > 0);
      if (addresses.length > 0) {
        exposed.add(listener.name);
        logger.warn({ direction: listener.direction, listener: listener.name, addresses }, 'the application can be reached around Scute');
      } else if (exposed.delete(listener.name)) {
        logger.info({ direction: listener.direction, listener: listener.name }, 'the application can no longer be reached around Scute');
      }
    },

    workloadApiConnected(endpoint) {
      metrics.setWorkloadApiConnected(true);
      logger.info({ endpoint }, 'Workload API connected');
    },
    workloadApiStreamFailed(error, retryInMs) {
      metrics.setWorkloadApiConnected(false);
      metrics.workloadApiErrors.add(error.code);
      repeated(`workload-api ${error.code}`, (count) =>
        logger.warn({ code: error.code, detail: error.message, retry_in_ms: Math.round(retryInMs), count }, 'Workload API stream failed'),
      );
    },
    identityUpdated(snapshot) {
      metrics.setIdentity(snapshot);
      metrics.identityUpdates.ok.add(snapshot.kind === 'held' ? 'ok' : 'no_identity');
      if (snapshot.kind === 'held') logger.info(identityFields(snapshot), 'identity updated');
      else {
        const { generation, reason } = snapshot;
        if (identity === 'held') logger.warn({ generation, reason }, 'identity withdrawn');
        else if (identity === undefined) logger.warn({ generation, reason }, 'no identity');
        // Authorities alone are given, and change, also while there is no identity.
        else logger.info({ generation, trust_domains: [...snapshot.bundles.keys()] }, 'trust bundles updated');
      }
      identity = snapshot.kind;
      bundleNotes(snapshot);
    },
    endpointBundlesUpdated(snapshot) {
      metrics.setIdentity(snapshot);
      bundleNotes(snapshot);
    },
    identityUpdateRejected(problem) {
      metrics.identityUpdates.rejected.add(problem.code);
      repeated(`update ${problem.code}`, (count) =>
        logger.warn({ code: problem.code, detail: problem.message, count }, 'identity update rejected; the last good one stays in force'),
      );
    },

    sds: createSdsEvents({ logger, metrics: metrics.sds, repeated }),
    checks: createCheckEvents({ logger, metrics: metrics.checks, repeated }),
    manager: createManagerEvents({ logger, metrics: metrics.manager, repeated }),
    application: createApplicationEvents({ logger, metrics: metrics.application, clock }),
    probes: createProbeEvents({ logger, metrics: metrics.probes, repeated }),
    credentials: createCredentialEvents({ logger, metrics: metrics.credentials }),
    federation: createFederationEvents({ logger, metrics: metrics.federation, clock }),
    files: createFilesEvents({ logger, metrics: metrics.files, clock }),
    jwt: createJwtEvents({
      logger,
      metrics: metrics.jwt,
      streamErrors: metrics.workloadApiErrors,
      setIdentity: (snapshot) => metrics.setIdentity(snapshot),
      repeated,
    }),

    logLevelChanged(from, to) {
      logger.warn({ from, to }, 'log level changed');
    },
    configReloaded(differences, needRestart) {
      metrics.configReloads.ok += 1;
      logger.info({ differences }, 'configuration reloaded');
      if (needRestart.length > 0) logger.warn({ settings: needRestart }, 'some settings take effect only after a restart');
    },
    configReloadFailed(problems) {
      metrics.configReloads.failed += 1;
      logger.error({ problems }, 'configuration not reloaded; the old one stays in force');
    },
    denyListLoaded(file, entries) {
      metrics.setDenyListEntries(entries);
      logger.info({ file, entries }, 'deny list in force');
    },
    denyListReloaded({ entries, added, removed }) {
      metrics.denyListReloads.ok += 1;
      metrics.setDenyListEntries(entries);
      const differences = [...added.first.map((entry) => `+ ${entry}`), ...removed.first.map((entry) => `- ${entry}`)];
      logger.info({ entries, added: added.count, removed: removed.count, differences }, 'deny list reloaded');
    },
    denyListReloadFailed(problems) {
      metrics.denyListReloads.failed += 1;
      logger.error({ problems }, 'deny list not reloaded; the old one stays in force');
    },
    policyFileLoaded(file, entries) {
      logger.info({ file, entries }, 'policy file in force');
    },
    policyFileReloaded({ file, entries, added, removed }) {
      metrics.policyFileReloads.ok += 1;
      const differences = [...added.first.map((entry) => `+ ${entry}`), ...removed.first.map((entry) => `- ${entry}`)];
      logger.info({ file, entries, added: added.count, removed: removed.count, differences }, 'policy file reloaded');
    },
    policyFileReloadFailed(file, problems) {
      metrics.policyFileReloads.failed += 1;
      logger.error({ file, problems }, 'policy file not reloaded; the old policy stays in force');
    },
    authoritiesReloaded(file, outcome) {
      metrics.authoritiesReloads[outcome.ok ? 'ok' : 'failed'] += 1;
      if (outcome.ok) logger.info({ file, authorities: outcome.value }, 'authorities of the web reloaded');
      else logger.error({ file, detail: outcome.error }, 'authorities of the web not reloaded; the old ones stay in force');
    },
    stopping(reason, openConnections) {
      logger.info({ reason, open_connections: openConnections }, 'stopping');
    },
    stopped(drained, forcedConnections) {
      logger.info({ drained, forced_connections: forcedConnections }, 'stopped');
    },
  };
}

function identityFields(snapshot: IdentitySnapshot & { readonly kind: 'held' }): LogFields {
  return {
    generation: snapshot.generation,
    svids: snapshot.svids.map((svid) => {
      const [leaf] = svid.chain;
      return {
        spiffe_id: svid.id,
        hint: svid.hint,
        serial: leaf?.serial,
        issuer_key_id: leaf?.authorityKeyId,
        expires_at: leaf === undefined ? undefined : isoTime(leaf.notAfterMs),
      };
    }),
    trust_domains: [...snapshot.bundles.keys()],
  };
}

/** Certificates may carry dates that JavaScript cannot write. */
function isoTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? 'unknown' : date.toISOString();
}

/** Calls `log(1)` for the first of a kind; those that follow are gathered, and told with their number each time the window is over. */
function createRepeatFilter(clock: Clock): (kind: string, log: (count: number) => void) => void {
  const windows = new Map<string, { count: number; log: (count: number) => void }>();
  const open = (kind: string): void => {
    clock.after(REPEAT_LOG_MS, () => {
      const window = windows.get(kind);
      if (window === undefined) return;
      if (window.count === 0) {
        windows.delete(kind);
        return;
      }
      const { count, log } = window;
      window.count = 0;
      log(count);
      open(kind);
    });
  };
  return (kind, log) => {
    const window = windows.get(kind);
    if (window !== undefined) {
      window.count += 1;
      window.log = log;
      return;
    }
    windows.set(kind, { count: 0, log });
    log(1);
    open(kind);
  };
}
