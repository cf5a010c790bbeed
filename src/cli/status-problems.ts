/** What is wrong with a Scute that runs, why that matters, and what to do. Pure. */
import type {
  Certificate,
  Connection,
  Listener,
  Overview,
  Readiness,
  Refusal,
  Rotations,
  SdsStream,
  TrustDomain,
} from '../admin/api-types.ts';
import { duration } from './draw.ts';

/** What the API says at about one moment. */
export interface Status {
  readonly overview: Overview;
  readonly readiness: Readiness;
  readonly listeners: readonly Listener[];
  readonly svids: readonly Certificate[];
  readonly trustDomains: readonly TrustDomain[];
  /** What signed the default SVID, as far as it is known. */
  readonly issuers: readonly Certificate[];
  /** Those authorities that are the first to end. */
  readonly authorities: readonly Certificate[];
  /** The newest, and so of refusals. */
  readonly connections: readonly Connection[];
  readonly refusals: readonly Refusal[];
  readonly sds: readonly SdsStream[];
  readonly rotations: Rotations;
}

export interface Problem {
  /** `act`: somebody must act now. `look`: somebody should look at it. */
  readonly severity: 'act' | 'look';
  readonly what: string;
  readonly why: string;
  readonly todo: string;
}

interface Advice {
  /** If it is another than whether it blocks readiness says. */
  readonly severity?: Problem['severity'];
  readonly why: string;
  readonly todo: string;
}

/** What a readiness check that fails means. */
export const CHECK_ADVICE: Readonly<Record<string, Advice>> = {
  self_test: {
    why: 'Until it passes nothing is trusted to be verified, so nothing is served.',
    todo: 'wait a moment after the start; if it stays, run the same Node and OpenSSL as scute version names',
  },
  listeners: { why: 'Nobody reaches what is not bound.', todo: 'see the log: the address is taken, or not allowed to be bound' },
  identity: {
    why: 'Without an SVID no connection is let in or out.',
    todo: 'see that the agent runs and that its server has an entry for this workload, as this user, with this SPIFFE ID or hint',
  },
  identity_valid: {
    why: 'Peers refuse an SVID that is not valid, so none is presented.',
    todo: "see that the agent renews SVIDs, and that this machine's clock is right",
  },
  jwt_bundles: {
    why: 'Requests with a token are answered 503, since none can be verified.',
    todo: 'see that the agent serves JWT bundles to this workload',
  },
  federation: {
    why: 'Peers of that trust domain are refused, or will be once its authorities change.',
    todo: 'see the reason under trust, and ask its operators',
  },
  files: {
    why: 'Programs that read these files find none, or an SVID that others refuse.',
    todo: 'see the reason: the directory must be one that Scute may write, in memory, and there must be such an SVID',
  },
  files_current: {
    why: 'Programs go on with files from before, until their SVID expires.',
    todo: 'see the reason, mend the directory, or whoever is to be told; Scute tries again by itself',
  },
  application: {
    severity: 'act',
    why: 'The program that this Scute is for does not run.',
    todo: 'if it waits, mend what is not ready; if it ended, read its own output: Scute ends with its exit code',
  },
  tokens: {
    why: 'Requests of its listeners are answered with a 503, and its files stay as they were, until there is a token.',
    todo: 'see the reason, at the agent or at the token endpoint',
  },
  revocations: {
    why: 'Whom a newer deny list names is still let in.',
    todo: 'mend the deny list; the log has file, line and column, and so has scute check',
  },
  policy_current: {
    why: 'What was in force before still is, and a restart would fail.',
    todo: 'scute check -c FILE has every problem with its place',
  },
  application_exposure: {
    why: 'Whoever reaches the application around Scute needs no identity.',
    todo: 'bind the application to 127.0.0.1 or to a Unix socket',
  },
  configuration_applied: {
    why: 'What the file says there is in force only after a restart.',
    todo: 'restart it at a good moment',
  },
  policy_enforced: {
    why: 'What the policy would deny is let in.',
    todo: 'scute audit lists whom that concerns, with rules to copy; then enforce',
  },
  sds_matchers: {
    why: 'Envoy does not get that secret, and so trusts nobody by it.',
    todo: 'write the policy in what matchers can say, or let Envoy ask Scute; scute check has the place',
  },
  live_connections: {
    why: 'Who is no longer let in may stay as long as a connection is open.',
    todo: 'leave unsafeKeep out',
  },
  not_stopping: { why: 'No new connections are taken.', todo: 'start it again, if it should not stop' },
  starting: { why: 'Nothing is served yet.', todo: 'wait a moment' },
};
const NO_ADVICE: Advice = { why: 'This version of scute status does not know the check.', todo: 'see the log' };

/** As `scute certs` and the alarms have it: SPIRE renews at half, and we ask at two thirds. */
const OVERDUE_BELOW = 1 / 3;
/** An authority with so little left, and less than a third of its life, should have a successor. */
export const AUTHORITY_SOON_MS = 7 * 86_400_000;

/** What must be done comes first. */
export function problemsOf(status: Status, nowMs: number): readonly Problem[] {
  const problems = [...checks(status), ...identity(status, nowMs), ...trust(status, nowMs), ...sds(status)];
  return [...problems.filter(({ severity }) => severity === 'act'), ...problems.filter(({ severity }) => severity === 'look')];
}

function checks({ readiness }: Status): Problem[] {
  return readiness.checks
    .filter(({ ok }) => !ok)
    .map(({ name, detail, blocks }) => ({
      severity: blocks ? 'act' : 'look',
      what: `${blocks ? 'Not ready' : 'A warning'}: ${name}${detail === null ? '' : `: ${detail}`}`,
      ...(Object.hasOwn(CHECK_ADVICE, name) ? (CHECK_ADVICE[name] ?? NO_ADVICE) : NO_ADVICE),
    }));
}

function identity({ svids }: Status, nowMs: number): Problem[] {
  return svids.flatMap((svid): Problem[] => {
    const { validity, remainingShare, spiffeId, findings } = svid;
    const name = spiffeId ?? svid.subject;
    const found: Problem[] = findings
      .filter(({ verdict }) => verdict === 'refused')
      .map(({ problem, clause }) => ({
        severity: 'act',
        what: `Our SVID ${name}: ${problem}${clause === null ? '' : ` (${clause})`}`,
        why: 'Peers refuse it.',
        todo: 'mend how the server issues it',
      }));
    const endMs = timeOf(svid.notAfter);
    if (validity === 'valid' && remainingShare < OVERDUE_BELOW && endMs !== undefined)
      found.push({
        severity: 'look',
        what: `Our SVID ${name} ends in ${duration(endMs - nowMs)}, and no newer one came`,
        why: 'When it ends, no connection is let in or out.',
        todo: 'see that the agent reaches its server; Scute asks it for a newer one each minute',
      });
    return found;
  });
}

function trust({ trustDomains, authorities }: Status, nowMs: number): Problem[] {
  return trustDomains.flatMap(({ trustDomain, source, authorities: count, lastExpiry, endpoint }): Problem[] => {
    const why = `Peers of ${trustDomain} are refused.`;
    const todo = endpoint === null ? "see that the Workload API's server has its bundle" : `see ${endpoint.url}, and ask its operators`;
    if (source === null || count === 0) return [{ severity: 'look', what: `There is no authority of ${trustDomain}`, why, todo }];
    const lastMs = timeOf(lastExpiry);
    if (lastMs === undefined) return [];
    if (lastMs <= nowMs) return [{ severity: 'act', what: `All authorities of ${trustDomain} have expired`, why, todo }];
    // Of a short life, a week may be all: it is time when less than a third is left.
    const isFresh = authorities.some((each) => each.trustDomain === trustDomain && each.remainingShare >= OVERDUE_BELOW);
    if (lastMs - nowMs > AUTHORITY_SOON_MS || isFresh) return [];
    return [
      {
        severity: 'look',
        what: `The last authority of ${trustDomain} expires in ${duration(lastMs - nowMs)}, and no newer one has been announced`,
        why: `When it expires, peers of ${trustDomain} are refused.`,
        todo: `ask its operators to publish the next authority`,
      },
    ];
  });
}

function sds({ sds: streams }: Status): Problem[] {
  return streams.flatMap(({ node, subscriptions }) =>
    subscriptions
      .filter(({ status }) => status === 'rejected')
      .map(({ name, detail }): Problem => ({
        severity: 'look',
        what: `The SDS client ${JSON.stringify(node)} rejects ${JSON.stringify(name)}${detail === null ? '' : `: ${detail}`}`,
        why: 'It goes on with what it had before, which ends one day.',
        todo: 'see its own log',
      })),
  );
}

export function timeOf(time: string | null): number | undefined {
  const ms = Date.parse(time ?? '');
  return Number.isNaN(ms) ? undefined : ms;
}
