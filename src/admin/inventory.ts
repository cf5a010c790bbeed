import { KeyObject } from 'node:crypto';
import type { DenyListStatus } from '../config/policy/deny-file.ts';
import { formatIssues } from '../config/issue.ts';
import { formatAddress, formatTarget, type Address } from '../config/units.ts';
import type { PolicyFileStatus } from '../config/policy/policy-files.ts';
import { chooseSvid, type IdentitySnapshot, type SvidChoice } from '../identity/snapshot.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { Crl } from '../spiffe/x509/crl.ts';
import type { ApplicationStatus } from '../telemetry/log/application-records.ts';
import type { EndpointStatus, RelationStatus } from '../telemetry/log/federation-records.ts';
import type { FileSetStatus } from '../telemetry/log/files-records.ts';
import type { TokenCounts } from '../telemetry/log/jwt-records.ts';
import type { TokenStatus } from '../telemetry/log/credential-records.ts';
import type { ListenerCounters, ListenerRef } from '../telemetry/log/records.ts';
import { describeApplication } from './checks/application.ts';
import { keyType } from './certificates.ts';
import { describeEndpoint, describeFederation } from './checks/federation.ts';
import { describeFileSets } from './checks/file-sets.ts';
import { isoTime } from './iso-time.ts';
import { describeTokens } from './checks/tokens.ts';

/** One listener as status pages show it. */
export interface ListenerStatus {
  readonly listener: ListenerRef;
  /** Undefined until it is bound. */
  readonly address: Address | undefined;
  readonly to: Address;
  /** Undefined: it presents none. */
  readonly identity: SvidChoice | undefined;
  readonly counters: ListenerCounters;
  /** Undefined where nobody looks at tokens. */
  readonly tokens?: TokenCounts | undefined;
}

export interface ReloadStatus {
  readonly atMs: number;
  readonly ok: boolean;
  readonly differences: readonly string[];
  readonly needRestart: readonly string[];
  readonly problems: readonly string[];
}

/** Everything that `/config_dump` shows, as functions, so that it is read when asked for. */
export interface StatusSource {
  readonly version: string;
  readonly startedAtMs: number;
  now(): number;
  /** The configuration in force. */
  config(): unknown;
  identity(): IdentitySnapshot | undefined;
  listeners(): readonly ListenerStatus[];
  /** By listener name: where its application can be reached around Scute. */
  exposed(): ReadonlyMap<string, readonly string[]>;
  lastReload(): ReloadStatus | undefined;
  /** Those in use. */
  policyFiles?(): readonly PolicyFileStatus[];
  /** Undefined: there is none. */
  denyList?(): DenyListStatus | undefined;
  /** Who is subscribed to which secrets, in JSON values; undefined if SDS is not served. */
  sds?(): unknown;
  /** The relations of the configuration, in its order. */
  federation?(): readonly RelationStatus[];
  /** The sets of files of the configuration, in its order. */
  files?(): readonly FileSetStatus[];
  /** What is put on requests; none if left out. */
  tokens?(): readonly TokenStatus[];
  /** The program that we run; undefined if there is none. */
  application?(): ApplicationStatus | undefined;
  /** Undefined if it is not served. */
  bundleEndpoint?(): EndpointStatus | undefined;
}

/** The status of the whole process as plain JSON values. Private keys are not in it: a KeyObject is never looked into. */
export function buildConfigDump(source: StatusSource): unknown {
  const snapshot = source.identity();
  const listeners = source.listeners();
  return {
    version: source.version,
    node: process.versions.node,
    openssl: process.versions.openssl,
    started_at: isoTime(source.startedAtMs),
    now: isoTime(source.now()),
    live_connections: listeners.reduce((total, { counters }) => total + counters.open, 0),
    listeners: listeners.map((status) => describeListener(status, snapshot, source.exposed())),
    identity: describeIdentity(snapshot, listeners, source.now()),
    sds: source.sds?.() ?? null,
    federation: describeFederation(source.federation?.() ?? []),
    application: describeApplication(source.application?.()),
    files: describeFileSets(source.files?.() ?? []),
    bundle_endpoint: describeEndpoint(source.bundleEndpoint?.()),
    tokens: describeTokens(source.tokens?.() ?? []),
    policy_files: (source.policyFiles?.() ?? []).map(describePolicyFile),
    deny_list: describeDenyList(source.denyList?.()),
    last_reload: describeReload(source.lastReload()),
    config: withoutSecrets(source.config()),
  };
}

function describeListener(
  status: ListenerStatus,
  snapshot: IdentitySnapshot | undefined,
  exposed: ReadonlyMap<string, readonly string[]>,
): object {
  const { counters } = status;
  return {
    name: status.listener.name,
    direction: status.listener.direction,
    address: status.address === undefined ? null : formatAddress(status.address),
    to: formatTarget(status.to),
    identity: status.identity ?? null,
    presents: chooseSvid(snapshot, status.identity)?.id ?? null,
    exposed_at: exposed.get(status.listener.name) ?? [],
    connections: { opened: counters.opened, open: counters.open, waiting: counters.waiting, handshaking: counters.handshaking },
    bytes: {
      downstream_read: counters.downstreamReadBytes,
      downstream_written: counters.downstreamWrittenBytes,
      upstream_read: counters.upstreamReadBytes,
      upstream_written: counters.upstreamWrittenBytes,
    },
  };
}

/** All that is known of identity: each SVID with where it is used, each authority of each trust domain, each revocation list. */
export function describeIdentity(snapshot: IdentitySnapshot | undefined, listeners: readonly ListenerStatus[], nowMs: number): unknown {
  if (snapshot === undefined) return { kind: 'waiting' };
  const svids = snapshot.kind === 'held' ? snapshot.svids : [];
  return {
    kind: snapshot.kind,
    ...(snapshot.kind === 'none' ? { reason: snapshot.reason } : {}),
    generation: snapshot.generation,
    received_at: isoTime(snapshot.receivedAtMs),
    svids: svids.map((svid, index) => ({
      spiffe_id: svid.id,
      hint: svid.hint,
      is_default: index === 0,
      used_by: listeners.filter((status) => chooseSvid(snapshot, status.identity) === svid).map((status) => status.listener.name),
      chain: svid.chain.map((certificate) => describeCertificate(certificate, nowMs)),
      authority_sha256: svid.authority.sha256,
    })),
    bundles: [...snapshot.bundles.values()].map((bundle) => ({
      trust_domain: bundle.trustDomain,
      source: snapshot.kind === 'held' && snapshot.endpointBundles.has(bundle.trustDomain) ? 'bundle_endpoint' : 'workload_api',
      authorities: bundle.authorities.map((certificate) => ({
        ...describeCertificate(certificate, nowMs),
        issued: svids.filter((svid) => svid.authority.sha256 === certificate.sha256).map((svid) => svid.id),
      })),
      crls: bundle.crls.map(describeCrl),
    })),
    jwt_bundles: [...(snapshot.jwtBundles?.values() ?? [])].map(({ trustDomain, authorities }) => ({
      trust_domain: trustDomain,
      authorities: authorities.map(({ keyId, key }) => ({ kid: keyId, key_type: keyType(key) })),
    })),
  };
}

function describeCertificate(certificate: Certificate, nowMs: number): object {
  return {
    subject: certificate.subject,
    issuer: certificate.issuer,
    serial: certificate.serial,
    subject_key_id: certificate.subjectKeyId ?? null,
    issuer_key_id: certificate.authorityKeyId ?? null,
    not_before: isoTime(certificate.notBeforeMs),
    not_after: isoTime(certificate.notAfterMs),
    is_valid_now: certificate.notBeforeMs <= nowMs && nowMs <= certificate.notAfterMs,
    key_type: keyType(certificate.publicKey),
    sha256: certificate.sha256,
  };
}

function describeCrl(crl: Crl): object {
  return {
    issuer: crl.issuer,
    this_update: isoTime(crl.thisUpdateMs),
    next_update: crl.nextUpdateMs === undefined ? null : isoTime(crl.nextUpdateMs),
  };
}

function describeDenyList(status: DenyListStatus | undefined): object | null {
  if (status === undefined) return null;
  const { file, entries, readAtMs, failure } = status;
  return {
    file,
    entries,
    read_at: isoTime(readAtMs),
    failed_at: failure === undefined ? null : isoTime(failure.atMs),
    problems: failure === undefined ? [] : formatIssues(failure.problems).split('\n'),
  };
}

function describeReload(reload: ReloadStatus | undefined): object | null {
  if (reload === undefined) return null;
  return {
    at: isoTime(reload.atMs),
    result: reload.ok ? 'ok' : 'failed',
    differences: reload.differences,
    need_restart: reload.needRestart,
    problems: reload.problems,
  };
}

function describePolicyFile({ file, lists, entries, loadedAtMs, problems }: PolicyFileStatus): object {
  return { file, lists, entries, loaded_at: isoTime(loadedAtMs), result: problems.length === 0 ? 'ok' : 'failed', problems };
}

const SECRET_NAME = /key(?:pem)?$|secret|password|passphrase|token(?!Endpoint$)/i;

/** A copy in plain JSON values. Key objects, bytes, and text in fields that are named like secrets do not come through. */
function withoutSecrets(value: unknown, within = ''): unknown {
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value;
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object') return undefined;
  if (value instanceof KeyObject || ArrayBuffer.isView(value)) return '[redacted]';
  if (value instanceof Map) return withoutSecrets(Object.fromEntries(value));
  if (Array.isArray(value) || value instanceof Set) return [...value].map((item) => withoutSecrets(item, within));
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => {
      // Of matchers it is the name of a trust bundle.
      const isSecret = SECRET_NAME.test(name) && !(within === 'matchers' && name === 'secret');
      return [name, typeof inner === 'string' && isSecret ? '[redacted]' : withoutSecrets(inner, name)];
    }),
  );
}
