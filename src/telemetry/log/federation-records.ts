/** What happens between bundle endpoints, theirs and ours, as those who count it and those who write it down share it. */

/** Why a bundle was not fetched, or not taken. One closed set: the `result` label of the metric, beside those of success, and the log field. */
export const REFRESH_PROBLEMS = [
  'own_trust_domain', // the trust domain is ours
  'bad_file', // bundleFile or caFile cannot be read
  'no_bundle', // https_spiffe: no bundle to judge the endpoint by
  'unreachable', // no connection
  'tls_failed',
  'not_authenticated', // the endpoint is not who it must be
  'broken', // the connection broke, or what came is not HTTP
  'timeout',
  'bad_status',
  'bad_redirect', // not https, with user info, or too many
  'bad_content_type',
  'compressed',
  'too_large',
  'bad_document',
  'bad_key',
  'too_many_keys',
  'long_names',
  'older', // its sequence number is lower than that of what is held
] as const;
export type RefreshProblem = (typeof REFRESH_PROBLEMS)[number];

export const REFRESH_RESULTS = ['updated', 'unchanged', ...REFRESH_PROBLEMS] as const;
export type RefreshResult = (typeof REFRESH_RESULTS)[number];

/** How a request to our own bundle endpoint went. One closed set: the `result` label of the metric. */
export const ENDPOINT_RESULTS = [
  'served',
  'not_found', // 404: another path
  'bad_method', // 405: not GET
  'not_ready', // no identity: 503, or no TLS at all
  'no_request', // TLS failed, or the other side left before it asked
  'timeout', // cut off: the whole took too long
  'connection_limit', // closed unread
] as const;
export type EndpointResult = (typeof ENDPOINT_RESULTS)[number];

/** Our own bundle endpoint as status pages show it. */
export interface EndpointStatus {
  /** Undefined while there is nothing to serve. */
  readonly trustDomain: string | undefined;
  readonly sequence: bigint | undefined;
  readonly authorities: number;
}

/** What is told of a bundle that was taken. */
export interface TakenBundle {
  readonly sequence: bigint | undefined;
  readonly authorities: number;
  readonly jwtAuthorities: number;
}

export interface FetchProblem {
  readonly reason: RefreshProblem;
  /** A sentence; may quote what the endpoint said. */
  readonly detail: string;
}

/** One relation as status pages show it. Times are wall time, milliseconds since 1970. */
export interface RelationStatus {
  readonly trustDomain: string;
  readonly url: string;
  /** Whose word on the trust domain is in force; undefined: nobody of it is trusted. */
  readonly inForce: 'bundle_endpoint' | 'workload_api' | undefined;
  readonly sequence: bigint | undefined;
  readonly jwtAuthorities: number;
  readonly lastSuccessMs: number | undefined;
  readonly nextRefreshMs: number | undefined;
  /** Why the last refresh failed; undefined if it did not. */
  readonly problem: FetchProblem | undefined;
}
