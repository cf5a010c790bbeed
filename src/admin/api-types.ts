/**
 * The answers of `/api/v1/`, as TypeScript types alone: nothing is imported, so that a page in a browser can share them. `configs/api.schema.json`
 * says the same as a JSON Schema. All times are ISO 8601 in UTC; null where there is none, or a certificate has a date that cannot be written.
 * Whatever a peer or an SDS client chose is text of bounded length, never markup.
 */

export type Time = string | null;

/** One page of a list. */
export interface Page<T> {
  readonly items: readonly T[];
  /** Ask with `?cursor=` for what follows; null at the end. A page may be shorter than `limit` and not the last. */
  readonly nextCursor: string | null;
}

/** What a certificate is to us. */
export type CertificateKind =
  | 'svid' // ours: the leaf
  | 'intermediate' // ours: of the chain of an SVID
  | 'authority' // of a trust bundle
  | 'peer' // the leaf of a peer that proved who it is
  | 'peer_intermediate' // on the path from such a leaf to its authority
  | 'refused'; // the leaf of a peer that proved nothing: whatever it says of itself is a claim

/** A thing that a standard, or Scute, would have otherwise in a certificate. */
export interface Finding {
  /** `refused`: who shows it is not let in. `tolerated`: the standard asks for it, and we do without. */
  readonly verdict: 'refused' | 'tolerated';
  /** Such as `X509-SVID 4.3`; null where Scute alone asks for it. */
  readonly clause: string | null;
  readonly problem: string;
}

export interface ListenerName {
  readonly name: string;
  readonly direction: 'inbound' | 'outbound';
}

/** An SDS stream that was sent what this certificate is in. */
export interface SdsUse {
  readonly stream: number;
  /** What the client calls itself. */
  readonly node: string;
  /** Of the secret. */
  readonly name: string;
  readonly version: string;
  /** Whether it is the newest that there is under this name. */
  readonly current: boolean;
  readonly status: 'sent' | 'accepted' | 'rejected';
}

/** What became of the last handshake with a peer. */
export interface PeerSeen {
  /** `allow`, or why not: one of the reasons of the metrics and the log. */
  readonly verdict: string;
  /** Why it was refused, in a sentence; null if it was not. */
  readonly detail: string | null;
  /** Handshakes with this certificate since it was first seen; it is forgotten when others have been seen since and none of its connections is open. */
  readonly handshakes: number;
  readonly firstSeenAt: Time;
  readonly lastSeenAt: Time;
  /** Open now. */
  readonly connections: number;
}

export interface Certificate {
  /** Unique among all at one moment, and the same for as long as the certificate is there: what `issuer` refers to. */
  readonly id: string;
  readonly kind: CertificateKind;
  /** Of an SVID or a peer; of `refused` what it claims. Null if there is none, or none that is valid. */
  readonly spiffeId: string | null;
  readonly trustDomain: string | null;
  /** Of an SVID of ours; empty if the Workload API gave none. Null for all others. */
  readonly hint: string | null;
  readonly subject: string;
  readonly issuerName: string;
  /** The `id` of the certificate that signed this one, by the path that was found; null for one that is not below another here, and for `refused`. */
  readonly issuer: string | null;
  /** Lower-case hexadecimal digits. */
  readonly serial: string;
  readonly sha256: string;
  readonly subjectKeyId: string | null;
  readonly issuerKeyId: string | null;
  /** Such as `ec prime256v1`, `rsa 2048`, `ed25519`. */
  readonly keyType: string;
  /** Such as `ecdsa-with-SHA256`, or the OID. */
  readonly signatureAlgorithm: string;
  readonly notBefore: Time;
  readonly notAfter: Time;
  /** `unknown`: it cannot be read. */
  readonly validity: 'valid' | 'expired' | 'not_yet_valid' | 'unknown';
  /** Of its life from `notBefore` to `notAfter`, how much is left: 1 before, 0 after. */
  readonly remainingShare: number;
  /** When we had it first: from the Workload API, an endpoint or a peer. */
  readonly receivedAt: Time;
  /** Of the snapshot that it came with first; null for what peers showed. */
  readonly generation: number | null;
  /** Who gave it. */
  readonly source: 'workload_api' | 'bundle_endpoint' | 'peer';
  /** The listeners that present it (`svid`), or on which it was shown. */
  readonly listeners: readonly ListenerName[];
  /** At most 20 of those that were sent it. */
  readonly sds: readonly SdsUse[];
  /** How many there are. */
  readonly sdsSubscribers: number;
  /** The sets of files that it is in. */
  readonly files: readonly string[];
  /** Of an SVID: how often one for the same SPIFFE ID and hint took the place of another since the start. Null for all others. */
  readonly rotations: number | null;
  /** Of an authority: how many of the certificates of ours it signed. Null for all others. */
  readonly issued: number | null;
  readonly peer: PeerSeen | null;
  readonly findings: readonly Finding[];
}

export type CertificatePage = Page<Certificate>;

export interface Relation {
  readonly url: string;
  readonly sequence: string | null;
  readonly lastSuccessAt: Time;
  readonly nextRefreshAt: Time;
  readonly problem: { readonly reason: string; readonly detail: string } | null;
}

export interface TrustDomain {
  readonly trustDomain: string;
  /** We hold an SVID of it. */
  readonly isOwn: boolean;
  /** Null: there is no bundle, so nobody of it is trusted. */
  readonly source: 'workload_api' | 'bundle_endpoint' | null;
  readonly authorities: number;
  /** When the first and the last of its authorities expire. */
  readonly firstExpiry: Time;
  /** When the last to expire began. */
  readonly lastBegin: Time;
  readonly lastExpiry: Time;
  readonly revocationLists: number;
  /** The keys of its JWT bundle; null: there is none, or nothing in the configuration needs one. */
  readonly jwtAuthorities: number | null;
  /** The `kid` of the first 20 of them. */
  readonly jwtKeyIds: readonly string[];
  /** At most 20 sentences: what of the bundle is not used, and why. */
  readonly notes: readonly string[];
  /** The bundle endpoint of the configuration. */
  readonly endpoint: Relation | null;
}

export type TrustDomainPage = Page<TrustDomain>;

export interface Connection {
  readonly id: number;
  readonly listener: ListenerName;
  readonly downstreamAddress: string;
  /** The load balancer that announced the client. */
  readonly via: string | null;
  readonly upstreamAddress: string;
  readonly peer: string | null;
  /** The `id` of the peer's certificate. */
  readonly certificate: string | null;
  /** The SPIFFE ID that we presented. */
  readonly presented: string | null;
  readonly tls: { readonly version: string; readonly alpn: string | null } | null;
  readonly rule: string | null;
  /** Only audit let it in: what it would have been refused for. */
  readonly audited: string | null;
  /** It is not allowed, and is being told so. */
  readonly denied: string | null;
  readonly since: Time;
  /** Of the application; over HTTP/2 as of the last request. */
  readonly bytesFromDownstream: number;
  readonly bytesToDownstream: number;
}

export type ConnectionPage = Page<Connection>;

/** An identity that has connections open, and all of them together. */
export interface Peer {
  readonly spiffeId: string;
  readonly connections: number;
  /** Of them: let in by audit alone. */
  readonly audited: number;
  /** The `id` of the certificate of its newest connection, and when that ends. */
  readonly certificate: string;
  readonly notAfter: Time;
  /** Each once. */
  readonly listeners: readonly ListenerName[];
  /** The rules that let them in, each once; at most 20. */
  readonly rules: readonly string[];
  /** Of the oldest. */
  readonly since: Time;
  readonly bytesFromDownstream: number;
  readonly bytesToDownstream: number;
}

export type PeerPage = Page<Peer>;

export interface Listener extends ListenerName {
  /** Null until it is bound. */
  readonly address: string | null;
  readonly to: string;
  /** The SPIFFE ID that it presents, and the `id` of that SVID. */
  readonly presents: string | null;
  readonly certificate: string | null;
  /** Addresses at which the application can be reached around Scute. */
  readonly exposedAt: readonly string[];
  readonly connections: { readonly opened: number; readonly open: number; readonly waiting: number; readonly handshaking: number };
  readonly bytes: {
    readonly downstreamRead: number;
    readonly downstreamWritten: number;
    readonly upstreamRead: number;
    readonly upstreamWritten: number;
  };
  /** Of an inbound listener with `jwt`; null for all others. */
  readonly tokens: TokenCounts | null;
}

/** What became of the tokens that requests brought, or should have brought, since the start. */
export interface TokenCounts {
  readonly accepted: number;
  /** The most frequent first. */
  readonly refused: readonly { readonly reason: string; readonly count: number }[];
  readonly lastRefusedAt: Time;
}

export interface ListenerList {
  readonly items: readonly Listener[];
}

/** A token that is put on requests of the application, or written to files. Its text is nowhere here. */
export interface Token {
  /** The name of the credential; of a JWT-SVID `jwt`, its audiences, and whose it is. */
  readonly source: string;
  readonly kind: 'jwt_svid' | 'access_token';
  /** Of the JWT-SVID, or of the one that speaks for us at the token endpoint; of several, with spaces between. */
  readonly audience: string | null;
  /** Whose it is, as the configuration has it; null for the default. */
  readonly spiffeId: string | null;
  readonly listeners: readonly ListenerName[];
  /** The sets of files that it is in. */
  readonly files: readonly string[];
  /** Null: there is none that is valid. */
  readonly expiresAt: Time;
  readonly nextFetchAt: Time;
  /** Why the last fetch failed. */
  readonly problem: { readonly reason: string; readonly detail: string } | null;
}

export interface TokenList {
  readonly items: readonly Token[];
}

export interface ReadinessCheck {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string | null;
  /** False: only a warning. */
  readonly blocks: boolean;
}

export interface Readiness {
  readonly ready: boolean;
  readonly checks: readonly ReadinessCheck[];
}

/** A connection that was refused for its peer. */
export interface Refusal {
  readonly connection: number;
  readonly at: Time;
  readonly listener: ListenerName;
  readonly downstreamAddress: string;
  /** Proven. */
  readonly peer: string | null;
  /** The `id` of the certificate that was shown. */
  readonly certificate: string | null;
  readonly reason: string;
  /** The rule that denied. */
  readonly rule: string | null;
  readonly detail: string;
}

export type RefusalPage = Page<Refusal>;

export interface SdsSubscription {
  readonly name: string;
  /** What was sent last; null if nothing was. */
  readonly version: string | null;
  /** `none`: nothing was sent; `sent`: the client has not said what it makes of it. */
  readonly status: 'none' | 'sent' | 'accepted' | 'rejected';
  /** Why it was rejected, in the client's words. */
  readonly detail: string | null;
  /** Why there is nothing of this name. */
  readonly missing: string | null;
  /** Whether `version` is the newest; null if nothing was sent. */
  readonly current: boolean | null;
}

export interface SdsStream {
  readonly stream: number;
  readonly connection: number;
  readonly protocol: 'sotw' | 'delta';
  readonly aggregated: boolean;
  readonly node: string;
  readonly userAgent: string;
  readonly validation: string | null;
  readonly openedAt: Time;
  readonly responses: number;
  /** It asked for everything. */
  readonly everything: boolean;
  /** At most 100. */
  readonly subscriptions: readonly SdsSubscription[];
  readonly subscriptionsOmitted: number;
}

export interface Sds extends Page<SdsStream> {
  /** Null if SDS is not served. */
  readonly address: string | null;
}

/** What changed of who we are and whom we trust. */
export interface Rotation {
  readonly at: Time;
  readonly generation: number;
  readonly change: 'svid_added' | 'svid_rotated' | 'svid_removed' | 'authority_added' | 'authority_removed' | 'identity_withdrawn';
  readonly spiffeId: string | null;
  readonly trustDomain: string | null;
  /** The `id` of the certificate that came, and of that which went. */
  readonly certificate: string | null;
  readonly replaced: string | null;
  readonly notAfter: Time;
}

/** What is to come, if nothing comes before. */
export interface Due {
  readonly at: Time;
  readonly what:
    | 'svid_renewal' // half of its life is over: SPIRE renews about now
    | 'svid_overdue' // two thirds are over: we ask for it
    | 'svid_expiry'
    | 'authority_expiry'
    | 'bundle_refresh';
  readonly spiffeId: string | null;
  readonly trustDomain: string | null;
  readonly certificate: string | null;
}

export interface Rotations {
  /** The last 128, newest first. */
  readonly past: readonly Rotation[];
  /** The next 100, soonest first; of authorities those that expire first. */
  readonly due: readonly Due[];
}

/** The program that `scute exec` runs. */
export interface Application {
  readonly program: string;
  readonly state: 'waiting' | 'running' | 'ended';
  /** Since when it is waited for, runs, or does no more. */
  readonly since: Time;
  readonly pid: number | null;
  /** How it ended, or why it did not run. */
  readonly result: string | null;
  readonly exitCode: number | null;
}

export interface Overview {
  readonly version: string;
  readonly node: string;
  readonly openssl: string;
  readonly startedAt: Time;
  readonly now: Time;
  readonly ready: boolean;
  /** Names of the checks that fail. */
  readonly failing: readonly string[];
  readonly warnings: readonly string[];
  readonly identity: {
    readonly state: 'waiting' | 'held' | 'none';
    /** Why there is none. */
    readonly reason: string | null;
    /** Of the default SVID. */
    readonly spiffeId: string | null;
    readonly certificate: string | null;
    readonly generation: number;
    readonly receivedAt: Time;
    /** The first of our SVIDs to expire. */
    readonly firstExpiry: Time;
  };
  readonly certificates: Readonly<Record<CertificateKind, number>>;
  readonly trustDomains: number;
  readonly connections: number;
  readonly listeners: number;
  readonly sdsStreams: number;
  /** Connections refused for their peer since the start. */
  readonly refusals: number;
  /** Null: there is none. */
  readonly application: Application | null;
  readonly lastReload: {
    readonly at: Time;
    readonly ok: boolean;
    readonly differences: readonly string[];
    readonly needRestart: readonly string[];
    readonly problems: readonly string[];
  } | null;
}

/** What a page may want to ask for anew. */
export type StreamTopic =
  | 'identity' // who we are: `overview`, `certificates`, `rotations`
  | 'trust' // whom we trust, and what came of bundle endpoints: `trust-domains`
  | 'readiness'
  | 'peers' // connections came or went: `connections`, `peers`, `certificates` of peers
  | 'traffic' // bytes: `listeners`, `connections`
  | 'refusals'
  | 'sds'
  | 'configuration'; // it was read again, or is in force

/** One event of `stream`: what changed since the one before; the first names every topic, and one that names none is a heartbeat. */
export interface StreamEvent {
  readonly now: Time;
  /** By topic: a number that grows with each change. */
  readonly revisions: Readonly<Partial<Record<StreamTopic, number>>>;
}

/** What there is under `/api/v1/`. */
export interface Index {
  readonly version: 1;
  readonly resources: Readonly<Record<string, string>>;
}

/** Every answer that is not a 200. */
export interface Problem {
  /** One of a closed set. */
  readonly error: string;
  readonly detail: string;
}
