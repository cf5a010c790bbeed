/** What Envoy asked and was answered: the closed sets of reasons, and what is said of a check. */
import { POLICY_REASONS, type VerdictFor } from '../../policy/verdict.ts';
import { PEER_PROBLEMS } from '../../spiffe/peer-problems.ts';

/** Why a check was answered with a denial. One closed set: the label of the metric, the log field and the documentation. */
export const CHECK_DENIALS = [
  ...PEER_PROBLEMS,
  ...POLICY_REASONS,
  'identity_not_ready', // the listener has no SVID, or none that is valid
  'no_listener', // the check names none
  'unknown_listener', // no inbound listener has that name
  'inexpressible', // a check of a connection, and rules that look at requests
  'bad_request', // 400: what servers read in more than one way, or a method that is never forwarded
] as const;
export type CheckDenial = (typeof CHECK_DENIALS)[number];

/** Of these, those that whoever asks there is denied for. */
export const DENIES_ALL: ReadonlySet<CheckDenial> = new Set(['no_listener', 'unknown_listener', 'identity_not_ready']);

/** Why a check was not answered at all: it ended with a status of gRPC, which Envoy takes for an error. */
export const CHECK_REFUSALS = [
  'check_limit', // maxConcurrentChecks
  'connection_check_limit', // maxConcurrentChecksPerConnection
  'check_size', // maxRequestBytes
  'check_timeout', // requestTimeout, until it was whole and its answer was taken
  'bad_check', // no CheckRequest
  'compressed',
  'internal_error', // a mistake of ours
] as const;
export type CheckRefusal = (typeof CHECK_REFUSALS)[number];

/** The peer is present once it was proven. */
export type CheckAnswer = VerdictFor<CheckDenial>;

export interface CheckRecord {
  /** Of the configuration; undefined if the check names none that there is. */
  readonly listener: string | undefined;
  /** As Envoy said them; undefined of a check of a connection. */
  readonly request: { readonly method: string; readonly target: string; readonly host: string } | undefined;
  readonly answer: CheckAnswer;
  readonly durationMs: number;
}
