/** What happened on the SDS socket: the closed sets of reasons, and what is said of streams, names and pushes. */

/** Why there is no secret of a name that a client asked for. One closed set: the label of the metric, the log field and the documentation. */
export const SDS_MISSING_REASONS = [
  'unknown_name', // nothing is called so
  'not_held', // an identity or a trust domain that we do not hold
  'not_valid', // the SVID has expired, or is not valid yet
  'unusable', // Envoy would refuse the SVID
  'empty_bundle', // the trust domain has no authorities: nobody of it is trusted
  'pooled_bundles', // all bundles as plain authorities: any of them could issue for each
  'empty_allow_list', // to Envoy, no matchers are everybody
  'inexpressible', // the allow list says what matchers cannot
] as const;
export type SdsMissingReason = (typeof SDS_MISSING_REASONS)[number];

/** Why a client of the SDS socket was refused something. */
export const SDS_REFUSAL_REASONS = [
  'connection_limit', // maxConnections, and all of them have streams
  'stream_limit', // maxStreams
  'connection_stream_limit', // maxStreamsPerConnection
  'name_limit', // maxNames
  'request_size', // maxRequestBytes
  'subscription_size', // the names of one connection are too long together
  'request_rate', // maxRequestRate
  'bad_request', // not a request, a wrong type, compressed
  'unknown_names', // strictUnknownNames, or a unary request of nothing that there is
  'not_ready', // a unary request before the first answer of the Workload API
] as const;
export type SdsRefusalReason = (typeof SDS_REFUSAL_REASONS)[number];

export type SdsProtocol = 'sotw' | 'delta';

/** One stream as log lines name it. What the client says of itself is changed when it says so. */
export interface SdsStreamRef {
  /** Unique in the process. */
  readonly id: number;
  readonly connection: number;
  readonly protocol: SdsProtocol;
  /** Over the aggregated service. */
  readonly aggregated: boolean;
  node: string;
  userAgent: string;
}

export interface SdsName {
  readonly name: string;
  readonly reason: SdsMissingReason;
  readonly detail: string;
}

export interface SdsSent {
  readonly name: string;
  readonly kind: 'certificate' | 'bundle';
  readonly version: string;
}

export interface SdsRound {
  readonly generation: number;
  readonly streams: number;
  readonly secrets: number;
  readonly bytes: number;
  /** From the snapshot to the last write. */
  readonly durationMs: number;
}

/** What a secret is made of: an SVID, by the SHA-256 of its leaf, or the bundles of trust domains. */
export type SdsSubject =
  | { readonly kind: 'svid'; readonly sha256: string }
  | { readonly kind: 'bundles'; readonly trustDomains: readonly string[] };

/** One name that a stream is subscribed to, or was sent. */
export interface SdsSubscriptionStatus {
  readonly name: string;
  readonly version: string | undefined;
  /** `sent` until the client has said what it makes of it. */
  readonly status: 'none' | 'sent' | 'accepted' | 'rejected';
  readonly detail: string | undefined;
  readonly missing: SdsMissingReason | undefined;
  /** Whether `version` is what would be sent now; undefined if nothing was sent. */
  readonly current: boolean | undefined;
}

/** One stream as status pages show it. */
export interface SdsStreamStatus {
  readonly ref: SdsStreamRef;
  readonly validation: string | undefined;
  readonly openedAtMs: number;
  readonly responses: number;
  readonly everything: boolean;
  readonly subscriptions: readonly SdsSubscriptionStatus[];
  readonly subscriptionsOmitted: number;
}

/** A secret that a client has. */
export interface SdsUseStatus {
  readonly stream: SdsStreamRef;
  /** In the client's words, whole: not for pages as it is. */
  readonly name: string;
  readonly version: string;
  readonly current: boolean;
  readonly status: 'sent' | 'accepted' | 'rejected';
  /** What the secret of this name is made of now; undefined if there is none. */
  readonly subject: SdsSubject | undefined;
}

export interface SdsOpenStream {
  readonly id: number;
  describe(): SdsStreamStatus;
}

/** Who is subscribed, read when somebody asks. */
export interface SdsStatus {
  /** Undefined until it is bound. */
  address(): string | undefined;
  /** Each stream by its number, in no order. */
  streams(): Iterable<SdsOpenStream>;
  /** What all clients have, as far as `most` of it. */
  uses(most: number): Iterable<SdsUseStatus>;
}
