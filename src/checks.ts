/** What has to be so for this process to be ready, and what is told beside that: each check by the name that the documents have. */
import { applicationCheck } from './admin/checks/application.ts';
import { federationCheck } from './admin/checks/federation.ts';
import { filesCheck, filesCurrentCheck } from './admin/checks/file-sets.ts';
import type { ReloadStatus } from './admin/inventory.ts';
import { isoTime } from './admin/iso-time.ts';
import type { CheckResult, Readiness } from './admin/checks/readiness.ts';
import { tokensCheck } from './admin/checks/tokens.ts';
import type { Config } from './config/config.ts';
import { formatIssues } from './config/issue.ts';
import type { DenyListStatus, DenyListView } from './config/policy/deny-file.ts';
import { unsafeKeepsOf } from './config/policy/live-rules.ts';
import type { PolicyFilesView, PolicyFileStatus } from './config/policy/policy-files.ts';
import { chooseSvid } from './identity/snapshot.ts';
import type { IdentityView } from './identity/store.ts';
import type { Clock } from './lib/clock.ts';
import { auditOf } from './policy/audit.ts';
import type { InboundListener } from './proxy/inbound.ts';
import type { OutboundListener } from './proxy/outbound.ts';
import type { ApplicationStatus } from './telemetry/log/application-records.ts';
import type { TokenStatus } from './telemetry/log/credential-records.ts';
import type { RelationStatus } from './telemetry/log/federation-records.ts';
import type { FileSetStatus } from './telemetry/log/files-records.ts';
import { validityProblem } from './tls/contexts.ts';

/** What is asked each time. */
export interface CheckedParts {
  /** That it was started with. */
  readonly config: Config;
  readonly live: { readonly lastReload: ReloadStatus | undefined };
  readonly policyFiles: PolicyFilesView | undefined;
  readonly denyFile: Pick<DenyListView, 'status'>;
  readonly identity: IdentityView;
  readonly inbound: readonly InboundListener[];
  readonly outbound: readonly OutboundListener[];
  readonly federation: { status(): readonly RelationStatus[] } | undefined;
  readonly fileSets: { status(): readonly FileSetStatus[] } | undefined;
  readonly credentials: { status(): readonly TokenStatus[] } | undefined;
  /** That of the program beside us, if there is one. */
  readonly application: (() => ApplicationStatus | undefined) | undefined;
  readonly exposure: { check(): CheckResult };
  /** Which matchers Envoy is not given, in words. */
  readonly withheld: () => readonly string[];
  readonly isSelfTested: () => boolean;
  readonly clock: Pick<Clock, 'now'>;
}

export function registerChecks(readiness: Readiness, parts: CheckedParts): void {
  const { config, live, policyFiles, denyFile, identity, inbound, outbound, federation, fileSets, credentials, application } = parts;
  const { exposure, withheld, isSelfTested, clock } = parts;
  const listeners = [...inbound, ...outbound];
  readiness.register('self_test', () => (isSelfTested() ? { ok: true } : { ok: false, detail: 'the TLS self-test has not finished' }));
  readiness.register('listeners', () => firstProblem(listeners, (listener) => (listener.address === undefined ? 'not bound' : undefined)));
  readiness.register('identity', () => {
    if (config.sds !== undefined && chooseSvid(identity.current(), config.sds.identity) === undefined)
      return { ok: false, detail: 'sds: there is no default SVID to serve' };
    if (config.bundleEndpoint !== undefined && chooseSvid(identity.current(), config.bundleEndpoint.identity) === undefined)
      return { ok: false, detail: 'bundleEndpoint: there is no SVID to serve the bundle of' };
    return firstProblem(listeners, (listener) =>
      chooseSvid(identity.current(), listener.config.identity) === undefined ? listener.notReady() : undefined,
    );
  });
  readiness.register('identity_valid', () => {
    for (const [name, choice] of [
      ['sds', config.sds?.identity],
      ['bundleEndpoint', config.bundleEndpoint?.profile.kind === 'https_spiffe' ? config.bundleEndpoint.identity : undefined],
    ] as const) {
      const served = choice && chooseSvid(identity.current(), choice);
      const problem = served && validityProblem(served, clock.now());
      if (problem !== undefined) return { ok: false, detail: `${name}: ${problem}` };
    }
    return firstProblem(listeners, (listener) =>
      chooseSvid(identity.current(), listener.config.identity) === undefined ? undefined : listener.notReady(),
    );
  });
  if (federation !== undefined) readiness.register('federation', () => federationCheck(federation.status()), { blocks: false });
  if (fileSets !== undefined) {
    readiness.register('files', () => filesCheck(fileSets.status(), clock.now()));
    readiness.register('files_current', () => filesCurrentCheck(fileSets.status()), { blocks: false });
  }
  if (application !== undefined) readiness.register('application', () => applicationCheck(application(), clock.now()), { blocks: false });
  if (credentials !== undefined) readiness.register('tokens', () => tokensCheck(credentials.status()), { blocks: false });
  readiness.register('revocations', () => denyListCheck(denyFile.status()), { blocks: false });
  readiness.register('policy_current', () => policiesCheck(live.lastReload, policyFiles?.status() ?? []), { blocks: false });
  readiness.register('application_exposure', () => exposure.check(), { blocks: false });
  readiness.register('configuration_applied', () => appliedCheck(live.lastReload), { blocks: false });
  readiness.register(
    'policy_enforced',
    () =>
      firstProblem(inbound, ({ config: { policy } }) => {
        const [first, ...more] = auditOf(policy);
        return first === undefined ? undefined : `in audit: ${first}${more.length === 0 ? '' : ` and ${more.length} more`}`;
      }),
    { blocks: false },
  );
  readiness.register('sds_matchers', () => matchersCheck(withheld()), { blocks: false });
  readiness.register(
    'live_connections',
    () =>
      firstProblem(listeners, ({ config: rules }) => {
        const keys = unsafeKeepsOf(rules);
        return keys.length === 0 ? undefined : `${keys.join(' and ')}: unsafeKeep`;
      }),
    { blocks: false },
  );
  if (config.inbound.some((listener) => listener.jwt !== undefined))
    readiness.register('jwt_bundles', () =>
      identity.current()?.jwtBundles === undefined ? { ok: false, detail: 'the Workload API has given no JWT bundles yet' } : { ok: true },
    );
}

interface Checked {
  readonly ref: { readonly name: string };
}

function firstProblem<T extends Checked>(listeners: readonly T[], problemOf: (listener: T) => string | undefined): CheckResult {
  for (const listener of listeners) {
    const problem = problemOf(listener);
    if (problem !== undefined) return { ok: false, detail: `${listener.ref.name}: ${problem}` };
  }
  return { ok: true };
}

/** Whether what the file says is in force. Of one that is wrong, nothing is known. */
function appliedCheck(lastReload: ReloadStatus | undefined): CheckResult {
  const [first, ...more] = lastReload?.needRestart ?? [];
  if (first === undefined) return { ok: true };
  return { ok: false, detail: `only after a restart: ${first}${more.length === 0 ? '' : `; and ${more.length} more`}` };
}

function denyListCheck(status: DenyListStatus | undefined): CheckResult {
  if (status === undefined) return { ok: true };
  const inForce = `${status.entries} entries, read at ${isoTime(status.readAtMs)}`;
  const [first, ...more] = status.failure?.problems ?? [];
  if (first === undefined) return { ok: true, detail: inForce };
  const others = more.length === 0 ? '' : `; and ${more.length} more problems`;
  return { ok: false, detail: `the deny list before is in force (${inForce}): ${formatIssues([first])}${others}` };
}

function matchersCheck([first, ...more]: readonly string[]): CheckResult {
  if (first === undefined) return { ok: true };
  return { ok: false, detail: `${first}${more.length === 0 ? '' : `; and ${more.length} more`}` };
}

/** Whether what is in force is what the files say now. */
function policiesCheck(lastReload: ReloadStatus | undefined, status: readonly PolicyFileStatus[]): CheckResult {
  const problems = status.flatMap(({ problems: [first, ...more] }) =>
    first === undefined ? [] : [`${first}${more.length === 0 ? '' : `; and ${more.length} more problems`}`],
  );
  if (lastReload?.ok === false) problems.unshift(...lastReload.problems.slice(0, 1));
  if (problems.length > 0) return { ok: false, detail: `what was before is in force: ${problems.join('; ')}` };
  return status.length === 0 ? { ok: true } : { ok: true, detail: `${status.length} policy files` };
}
