import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { PEER_PROBLEMS } from '../spiffe/peer-problems.ts';

/** Why a connection was refused. One closed set: the metric label, the log field, the status page and the docs all read this list. */
export const DENY_REASONS = [
  ...PEER_PROBLEMS,
  'self_signed',
  'wrong_name',
  'not_allowed',
  'denied',
  'identity_not_ready',
  'bad_proxy_header',
  'handshake_timeout',
  'protocol_error',
] as const;
export type DenyReason = (typeof DENY_REASONS)[number];

/** What a policy refuses a peer for, or would if it were enforced: a deny rule; no allow rule. */
export const POLICY_REASONS = ['denied', 'not_allowed'] as const;
export type PolicyReason = (typeof POLICY_REASONS)[number];

/** The same reason, if it is one of a policy. */
export function policyReason(reason: string | undefined): PolicyReason | undefined {
  return reason === undefined ? undefined : POLICY_REASONS.find((known) => known === reason);
}

/** What somebody may do, or the `Reason` why not. */
export type VerdictFor<Reason> =
  | {
      readonly allowed: true;
      readonly peer: SpiffeId;
      /** The rule that admitted the peer, in one line. */
      readonly rule: string;
      /** Only audit lets it pass: what it would have been refused for. */
      readonly audited: PolicyReason | undefined;
    }
  | {
      readonly allowed: false;
      /** Present once the peer was authenticated. */
      readonly peer: SpiffeId | undefined;
      readonly reason: Reason;
      /** The rule that denied, in one line. */
      readonly rule: string | undefined;
      /** A sentence for the log: what was wrong, with the value. */
      readonly detail: string;
    };

export type Verdict = VerdictFor<DenyReason>;
