import type { CheckLimits } from '../config/config.ts';
import type { IdentityView } from '../identity/store.ts';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { DenyList } from '../policy/deny-list.ts';
import { nearestMiss } from '../policy/explain.ts';
import { UNKNOWN_SUBJECT } from '../policy/request.ts';
import { policyReason } from '../policy/verdict.ts';
import type { CheckEvents } from '../telemetry/events/ext-authz-events.ts';
import type { CheckAnswer, CheckRefusal } from '../telemetry/log/ext-authz-records.ts';
import type { Refusals } from '../telemetry/log/refusals.ts';
import { judgeCheck, removedFields, type CheckedListener } from './check.ts';
import { CheckedPeers } from './peers.ts';
import { decodeCheck, encodeAnswer } from './wire.ts';

export interface CheckServiceDeps {
  readonly limits: CheckLimits;
  /** The inbound listener that runs under that name. */
  readonly listener: (name: string) => CheckedListener | undefined;
  readonly identity: IdentityView;
  /** In force now. */
  readonly denyList: () => DenyList;
  readonly events: CheckEvents;
  /** Who was refused what, and what only audit let pass: as of the listeners' own connections. */
  readonly refusals: Pick<Refusals, 'record'>;
  readonly clock: Clock;
}

/** Why a check is not answered. */
export interface RefusedCheck {
  readonly reason: CheckRefusal;
  /** A sentence. */
  readonly detail: string;
}

/** `envoy.service.auth.v3.Authorization`, but for its transport. */
export interface CheckService {
  readonly limits: CheckLimits;
  /** Takes the place of a check, which `end` gives back, or says why there is none; `ofConnection` is how many its connection has. */
  begin(ofConnection: number): RefusedCheck | undefined;
  end(): void;
  /** The answer to a whole check. `elsewhere` names the listener if the check cannot. */
  answer(bytes: Uint8Array, elsewhere: string | undefined): Result<Buffer, RefusedCheck>;
  /** Counts and tells what was refused. */
  refused(refusal: RefusedCheck): void;
}

/** Among how many rules the one is sought that nearly allowed what was denied: that takes a tenth of a millisecond. */
const MOST_RULES = 100;

/** Answers Envoy's checks by the newest policies of the inbound listeners. */
export function createCheckService({ limits, listener, identity, denyList, events, refusals, clock }: CheckServiceDeps): CheckService {
  const peers = new CheckedPeers();
  let open = 0;
  const answerOf = (bytes: Uint8Array, elsewhere: string | undefined): Result<Buffer, RefusedCheck> => {
    const begunAtMs = clock.monotonic();
    const { maxRequestBytes } = limits;
    if (bytes.length > maxRequestBytes)
      return err({ reason: 'check_size', detail: `a check of ${bytes.length} bytes: ${maxRequestBytes} are allowed` });
    const decoded = decodeCheck(bytes, elsewhere);
    if (!decoded.ok) return err({ reason: 'bad_check', detail: decoded.error });
    const { check, fieldNames } = decoded.value;
    const nowMs = clock.now();
    const named = check.listener === undefined ? undefined : listener(check.listener);
    const answer = judgeCheck(check, { listener: named, snapshot: identity.current(), denyList: denyList(), peers, nowMs });
    const removes = named !== undefined && check.request !== undefined ? removedFields(named, fieldNames) : [];
    const encoded = encodeAnswer(answer, removes);
    const { request } = check;
    const record = { listener: named && check.listener, request, answer, durationMs: clock.monotonic() - begunAtMs };
    const asked = request && { ...request, subject: UNKNOWN_SUBJECT };
    events.checked(record, () => near(named, answer, asked, nowMs));
    const reason = policyReason(answer.allowed ? answer.audited : answer.reason);
    if (named !== undefined && check.listener !== undefined && answer.peer !== undefined && reason !== undefined) {
      const event = { peer: answer.peer, reason, isEnforced: !answer.allowed, request: asked };
      refusals.record({ direction: 'inbound', name: check.listener }, named.policy, event);
    }
    return ok(encoded);
  };
  return {
    limits,
    begin(ofConnection) {
      const { maxConcurrentChecks, maxConcurrentChecksPerConnection } = limits;
      if (ofConnection >= maxConcurrentChecksPerConnection)
        return {
          reason: 'connection_check_limit',
          detail: `more than ${maxConcurrentChecksPerConnection} checks at a time on one connection`,
        };
      if (open >= maxConcurrentChecks) return { reason: 'check_limit', detail: `more than ${maxConcurrentChecks} checks at a time` };
      open += 1;
      events.opened();
      return undefined;
    },
    end() {
      open -= 1;
      events.ended();
    },
    answer(bytes, elsewhere) {
      try {
        return answerOf(bytes, elsewhere);
      } catch (thrown) {
        // A mistake of ours: gRPC would give it a status, and nobody would know why.
        return err({ reason: 'internal_error', detail: `the check could not be judged: ${messageOf(thrown)}` });
      }
    },
    refused: ({ reason, detail }) => events.refused(reason, detail),
  };
}

function near(
  listener: CheckedListener | undefined,
  { peer }: CheckAnswer,
  request: Parameters<typeof nearestMiss>[1]['request'],
  nowMs: number,
): string | undefined {
  return listener === undefined || peer === undefined ? undefined : nearestMiss(listener.policy, { peer, request, nowMs }, MOST_RULES);
}
