import type { OutboundXfccMode, XfccMode } from '../http1/identity-fields.ts';
import type { SvidChoice } from '../identity/snapshot.ts';
import type { IpRange } from '../lib/ip.ts';
import type { Policy } from '../policy/policy.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import type { FileSetConfig } from './file-sets.ts';
import type { AttachConfig, CredentialConfig } from './sections/credentials.ts';
import type { LiveRules } from './policy/live-rules.ts';
import type { ProbeConfig } from './sections/probes.ts';
import type { Address, TcpAddress } from './units.ts';

/** A valid configuration: defaults filled in, everything parsed, deep-frozen. `schema.ts` makes it, and has the description of each field. */
export interface Config {
  /** `unix:///path` or `tcp://IP:PORT`. */
  readonly workloadApi: { readonly endpoint: string };
  readonly inbound: readonly InboundConfig[];
  readonly outbound: readonly OutboundConfig[];
  /** Undefined: not served. */
  readonly metrics: MetricsConfig | undefined;
  /** Undefined: not served. */
  readonly admin: AdminConfig | undefined;
  /** Undefined: not served. */
  readonly sds: SdsConfig | undefined;
  /** Of one trust domain each. */
  readonly federation: readonly FederationConfig[];
  /** Undefined: not served. */
  readonly bundleEndpoint: BundleEndpointConfig | undefined;
  /** In the order of the configuration. */
  readonly files: readonly FileSetConfig[];
  /** By name, each once. */
  readonly credentials: readonly CredentialConfig[];
  /** Undefined: nobody is revoked but by the revocation lists of the Workload API. */
  readonly revocations: RevocationsConfig | undefined;
  /** For `scute exec`. */
  readonly exec: ExecConfig;
  readonly log: { readonly level: LogLevel; readonly format: LogFormat };
  /** How long a stop waits for open connections, and how long each that drains may take; 0 closes them at once. */
  readonly drainTimeoutMs: number;
}

/** The application that `scute exec` runs. */
export interface ExecConfig {
  /** Undefined: that of Scute. */
  readonly user: ExecUser | undefined;
  readonly restartOnRotation: boolean;
  /** From a SIGTERM of ours to a SIGKILL. */
  readonly stopTimeoutMs: number;
  /** Until identity and listeners are there. Undefined: no limit. */
  readonly waitTimeoutMs: number | undefined;
}

export interface ExecUser {
  readonly uid: number;
  readonly gid: number;
  /** As the system knows it; undefined if it does not. */
  readonly login: { readonly name: string; readonly home: string } | undefined;
}

export const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** `auto` is pretty on a terminal, JSON elsewhere. */
export const LOG_FORMATS = ['auto', 'json', 'pretty'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** Where a socket is bound, and who may use it if it is a Unix socket. */
export interface SocketConfig {
  readonly listen: Address;
  /** Permission bits of a Unix socket. */
  readonly socketMode: number;
  /** The group that owns a Unix socket; that of the process if undefined. */
  readonly socketGid: number | undefined;
}

export type Protocol = 'tcp' | 'http';

interface ListenerConfig extends SocketConfig, LiveRules {
  /** Unique over all listeners. */
  readonly name: string;
  readonly to: Address;
  readonly protocol: Protocol;
  /** Offered in this order; empty: no ALPN. */
  readonly alpn: readonly string[];
  readonly identity: SvidChoice;
  readonly limits: Limits;
  /** Where the policy comes from, an absolute path; undefined: it is in the configuration. */
  readonly policyFile: string | undefined;
}

/** TLS in, plain text to the application. */
export interface InboundConfig extends ListenerConfig {
  /** Present for `http`. */
  readonly http: HttpConfig | undefined;
  /** Who may connect, and ask for what. */
  readonly policy: Policy;
  readonly proxyProtocol: ProxyProtocolConfig;
  /** With `http` alone; undefined: nobody looks at tokens. */
  readonly jwt: JwtConfig | undefined;
}

/** The JWT-SVIDs of requests. */
export interface JwtConfig {
  /** Never empty. */
  readonly audiences: readonly string[];
  readonly header: string;
  /** A request without one is refused. */
  readonly isRequired: boolean;
  readonly subjectHeader: string;
  /** The application gets the token itself, too. */
  readonly forwardsToken: boolean;
}

/** `conn` is the addresses alone; `tls` also what is known of TLS and the SPIFFE ID; `tls-full` also the peer's certificate. */
export const PROXY_PROTOCOL_MODES = ['off', 'conn', 'tls', 'tls-full'] as const;
export type ProxyProtocolMode = (typeof PROXY_PROTOCOL_MODES)[number];

export interface ProxyProtocolConfig {
  /** To the application, ahead of everything else. */
  readonly send: ProxyProtocolMode;
  readonly spiffeIdTlv: number;
  /** Who must send a header ahead of TLS. Empty: nobody may. */
  readonly acceptFrom: readonly IpRange[];
}

/** Plain text in, TLS to a server. */
export interface OutboundConfig extends ListenerConfig {
  /** Present for `http`. */
  readonly http: OutboundHttpConfig | undefined;
  /** Who the server must be, and may be asked for what. It allows somebody; a whole trust domain only with `unsafeAllowAnyInTrustDomain`. */
  readonly policy: Policy;
  readonly unsafeAllowAnyInTrustDomain: TrustDomain | undefined;
  /** How long a connection (`tcp`) or a request (`http`) that comes before the first SVID waits for it; 0: not at all. */
  readonly identityWaitMs: number;
  /** For SNI instead of the host of `to`. */
  readonly serverName: string | undefined;
  /** The server is one of the public web: its certificate is for the host of `to`, and nobody's SPIFFE ID counts. */
  readonly webPki: WebPkiConfig | undefined;
  /** What is put on requests before they go; undefined for nothing. */
  readonly attach: AttachConfig | undefined;
}

export interface WebPkiConfig {
  /** Undefined: the authorities of the public web. */
  readonly caFile: string | undefined;
}

/** What `protocol: http` speaks with peers, by its names in ALPN; the better one first. */
export const HTTP_PROTOCOLS: readonly string[] = ['h2', 'http/1.1'];

/** How the application speaks: nothing is guessed. `h2c` is HTTP/2 in plain text, from the first byte on (prior knowledge). */
export const APPLICATION_PROTOCOLS = ['http/1.1', 'h2c'] as const;
export type ApplicationProtocol = (typeof APPLICATION_PROTOCOLS)[number];

/** What carries the requests of HTTP/2 peers to an application that speaks HTTP/1.1: Scute's own reader and writer of both, or Node's HTTP/2 and http-proxy. */
export const TRANSLATIONS = ['scute', 'http-proxy'] as const;
export type Translation = (typeof TRANSLATIONS)[number];

/** What is spoken with peers before an application that speaks so: HTTP/1.1 is translated to HTTP/2 for nobody. */
export const PEER_PROTOCOLS: Readonly<Record<ApplicationProtocol, readonly string[]>> = { 'http/1.1': HTTP_PROTOCOLS, h2c: ['h2'] };

/** To the application, request by request. */
export interface HttpConfig {
  readonly application: ApplicationProtocol;
  readonly translation: Translation;
  readonly xfcc: XfccMode;
  /** Name of a field that has the peer's SPIFFE ID alone; undefined for none. */
  readonly spiffeIdHeader: string | undefined;
  /** Requests of one HTTP/2 connection at once. */
  readonly maxConcurrentStreams: number;
  /** What may be asked for by `Upgrade`, or by an extended CONNECT, besides WebSockets. */
  readonly upgrades: readonly string[];
  /** Extended CONNECT is taken, WebSockets over HTTP/2 that is (RFC 8441), where the application says that it takes it. */
  readonly extendedConnect: boolean;
  readonly limits: HttpLimits;
}

/** To a server, request by request. */
export interface OutboundHttpConfig {
  readonly application: ApplicationProtocol;
  readonly xfcc: OutboundXfccMode;
  /** Requests of one connection at once, before an application that speaks `h2c`. */
  readonly maxConcurrentStreams: number;
  /** What may be asked for by `Upgrade`, or by an extended CONNECT, besides WebSockets. */
  readonly upgrades: readonly string[];
  /** Extended CONNECT is taken, where the server says that it takes it. */
  readonly extendedConnect: boolean;
  readonly limits: HttpLimits;
}

export interface HttpLimits {
  readonly maxHeadBytes: number;
  readonly maxFields: number;
  /** Undefined: no limit. */
  readonly maxBodyBytes: number | undefined;
  readonly headTimeoutMs: number;
  /** Of a request's body, while we take it. Undefined: no limit. */
  readonly minBodyBytesPerSecond: number | undefined;
  /** Undefined: no limit. */
  readonly responseTimeoutMs: number | undefined;
  /** How long a connection to the other side is kept without a request, if that side does not say. Undefined: any time. */
  readonly upstreamIdleTimeoutMs: number | undefined;
}

export interface Limits {
  readonly connectTimeoutMs: number;
  readonly handshakeTimeoutMs: number;
  /** Undefined: no limit. */
  readonly idleTimeoutMs: number | undefined;
  /** Undefined: no limit. */
  readonly maxLifetimeMs: number | undefined;
  readonly maxConnections: number;
  readonly maxHandshakes: number;
  readonly maxWaiting: number;
  /** Undefined: no probes. */
  readonly tcpKeepAliveMs: number | undefined;
}

export interface MetricsConfig extends SocketConfig {
  readonly allowedHosts: readonly string[];
  /** By path, each once. */
  readonly probes: readonly ProbeConfig[];
}

export interface AdminConfig extends SocketConfig {
  readonly allowedHosts: readonly string[];
}

/** Who is refused whatever else speaks for them. */
export interface RevocationsConfig {
  /** The deny list: an absolute path. */
  readonly file: string;
}

/** Envoy's Secret Discovery Service. */
export interface SdsConfig extends SocketConfig {
  /** Which SVID the default one is. */
  readonly identity: SvidChoice;
  readonly defaultSvidName: string;
  readonly defaultBundleName: string;
  readonly defaultAllBundlesName: string;
  readonly disableSpiffeCertValidation: boolean;
  readonly strictUnknownNames: boolean;
  readonly crls: boolean;
  readonly matchers: readonly SdsMatchers[];
  readonly limits: SdsLimits;
  /** Of the answers to Envoy's checks, which are given on the same socket; undefined: none are. */
  readonly authorization: CheckLimits | undefined;
}

export interface CheckLimits {
  readonly maxConcurrentChecks: number;
  readonly maxConcurrentChecksPerConnection: number;
  readonly maxRequestBytes: number;
  /** From the beginning of a check until its answer was taken. */
  readonly requestTimeoutMs: number;
}

/** Whose peers the validation context of one name admits: those of an inbound listener, or of a list of its own. */
export interface SdsMatchers {
  /** The name of the secret. */
  readonly secret: string;
  /** The name of the listener; undefined if the list is its own. */
  readonly listener: string | undefined;
  readonly policy: Policy | undefined;
  /** Where that comes from, if not from the configuration. */
  readonly policyFile?: string | undefined;
}

export const ENDPOINT_PROFILES = ['https_spiffe', 'https_web'] as const;

/** Where the bundle of another trust domain comes from. */
export interface FederationConfig {
  readonly trustDomain: TrustDomain;
  /** `https:`, without user info. */
  readonly url: string;
  readonly profile: FederationProfile;
}

export type FederationProfile =
  | {
      readonly kind: 'https_spiffe';
      readonly endpointSpiffeId: SpiffeId;
      /** Of the trust domain of that ID: until a newer one is known. */
      readonly bundleFile: string | undefined;
    }
  | {
      readonly kind: 'https_web';
      /** Undefined: the authorities of the public web. */
      readonly caFile: string | undefined;
    };

/** Where the bundle of our own trust domain is served. */
export interface BundleEndpointConfig {
  readonly listen: TcpAddress;
  /** The one target that is answered. */
  readonly path: string;
  /** Whose trust domain it is, and who serves it with `https_spiffe`. */
  readonly identity: SvidChoice;
  readonly profile: { readonly kind: 'https_spiffe' } | { readonly kind: 'https_web'; readonly certFile: string; readonly keyFile: string };
  readonly refreshHintMs: number;
}

export interface SdsLimits {
  readonly maxConnections: number;
  readonly maxStreams: number;
  readonly maxStreamsPerConnection: number;
  /** Of one stream. */
  readonly maxNames: number;
  readonly maxRequestBytes: number;
  /** Of the names of one connection. */
  readonly maxSubscriptionBytes: number;
  /** Requests a second, of one connection, that do more than answer a response of ours. */
  readonly maxRequestRate: number;
}
