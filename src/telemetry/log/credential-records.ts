/** What happens with tokens of ours, as those who count it and those who write it down share it. A token itself is in none of it. */

/** Why there is no new token. One closed set: the `result` label of the metric, beside `ok`, the log field, and what an application is told. */
export const CREDENTIAL_PROBLEMS = [
  'identity_not_ready', // there is no SVID, or it was withdrawn
  'agent_unavailable', // FetchJWTSVID failed: no connection, no answer in time, or another failure of the agent's
  'not_entitled', // the agent gives us no JWT-SVID, or not this one
  'agent_refused', // the agent does not like the request
  'not_supported', // the agent has no JWT profile
  'bad_svid', // what the agent gave is no JWT-SVID of ours, or our own bundle does not vouch for it
  'unreachable', // no connection to the token endpoint
  'tls_failed',
  'not_authenticated', // the token endpoint is not who it must be
  'broken', // the connection broke, or what came is not HTTP
  'timeout',
  'redirected', // nobody follows it: the request has a credential in it
  'compressed',
  'too_large',
  'refused', // the token endpoint answered with an error of OAuth
  'server_error', // 5xx
  'bad_status', // anything else that is not 200
  'bad_content_type',
  'bad_answer', // no token answer of OAuth, or a token that cannot stand in a field
  'bad_token_type', // not Bearer
  'bad_expiry', // no expires_in, or one that cannot be
  'expired', // what came had expired already
] as const;
export type CredentialProblemCode = (typeof CREDENTIAL_PROBLEMS)[number];

export const CREDENTIAL_RESULTS = ['ok', ...CREDENTIAL_PROBLEMS] as const;
export type CredentialResult = (typeof CREDENTIAL_RESULTS)[number];

export interface CredentialProblem {
  readonly reason: CredentialProblemCode;
  /** A sentence for the log: never a token, nor anything that could hold one. */
  readonly detail: string;
}

/** One token as status pages show it. Times are wall time, milliseconds since 1970. */
export interface TokenStatus {
  /** The name of the credential; of a JWT-SVID `jwt`, its audiences, and whose it is. */
  readonly source: string;
  readonly kind: 'jwt_svid' | 'access_token';
  /** Whom the JWT-SVID that it is, or that stands behind it, is for, with spaces between; and whose it is, as the configuration has it. */
  readonly audience: string | undefined;
  readonly spiffeId: string | undefined;
  /** The outbound listeners that put it on requests, by name. */
  readonly listeners: readonly string[];
  /** The sets of files that it is in, by name. */
  readonly sets: readonly string[];
  /** Undefined: none is held that is valid. */
  readonly expiresAtMs: number | undefined;
  /** When another is asked for; undefined while that is under way. */
  readonly nextFetchAtMs: number | undefined;
  /** Why the last fetch failed; undefined if it did not. */
  readonly problem: CredentialProblem | undefined;
}
