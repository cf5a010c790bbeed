/** The one description of a configuration: checks, defaults, JSON Schema and the reference table all come from it. Pure. */
import * as z from 'zod';
import { OUTBOUND_XFCC_MODES, XFCC_MODES } from '../http1/identity-fields.ts';
import { WEBSOCKET } from '../http1/upgrades.ts';
import type { SvidChoice } from '../identity/snapshot.ts';
import { compilePolicy, type Policy, type PolicySpec } from '../policy/policy.ts';
import type { IdsOf } from '../policy/rule.ts';
import {
  ENDPOINT_PROFILES,
  APPLICATION_PROTOCOLS,
  PEER_PROTOCOLS,
  TRANSLATIONS,
  LOG_FORMATS,
  LOG_LEVELS,
  PROXY_PROTOCOL_MODES,
  type BundleEndpointConfig,
  type CheckLimits,
  type Config,
  type FederationConfig,
  type HttpConfig,
  type HttpLimits,
  type InboundConfig,
  type Limits,
  type OutboundConfig,
  type OutboundHttpConfig,
  type Protocol,
  type SdsConfig,
  type SocketConfig,
  type WebPkiConfig,
} from './config.ts';
import {
  checkBundleEndpoint,
  checkFederation,
  checkInbound,
  checkListeners,
  checkOutbound,
  checkSds,
  checkSocket,
  evenIfIncomplete,
} from './consistency.ts';
import { createExecSection, type UserLookups } from './exec-section.ts';
import { attachedCredential, attachedJwt, attachOf, credentials } from './credentials.ts';
import * as field from './fields.ts';
import { fileSetSchema } from './file-sets.ts';
import { inboundJwt } from './jwt.ts';
import { probes } from './probes.ts';
import { ON_CHANGE, ON_EXPIRY, type LiveRules } from './policy/live-rules.ts';

/** What the schema must ask the system about. */
export interface Lookups extends UserLookups {
  /** What the files hold that the configuration names; none are known if left out. */
  readonly files?: FileLookups | undefined;
  /** What is wrong with a directory for a set of files; undefined if nothing is. Not asked if left out. */
  readonly directoryProblem?: ((path: string, unsafeDisk: boolean) => string | undefined) | undefined;
  /** Whether there is an application beside us; nobody knows if left out. */
  readonly runsApplication?: boolean | undefined;
}

export interface FileLookups {
  /** The absolute path of a file that the configuration names. */
  resolve(path: string): string;
  /** Undefined if it cannot be used. */
  policyOf(file: string): Policy | undefined;
  readonly idsOf: IdsOf;
}

const NO_FILES: FileLookups = { resolve: (path) => path, policyOf: () => undefined, idsOf: () => undefined };

const DEFAULT_SOCKET_MODE = 0o600;

const limitFields = {
  connectTimeout: {
    schema: field.positiveDuration,
    default: '5s',
    pattern: field.durationPattern,
    description: 'time to connect to `to`, DNS included',
  },
  handshakeTimeout: {
    schema: field.positiveDuration,
    default: '5s',
    pattern: field.durationPattern,
    description: 'time for the TLS handshake, from accepting or connecting to the verdict; nobody waits longer for a place than twice this',
  },
  idleTimeout: {
    schema: field.durationOrOff,
    default: '1h',
    pattern: field.durationOrOffPattern,
    description: 'a connection without a byte in either direction for this long is closed; `off`: never',
  },
  maxLifetime: {
    schema: field.durationOrOff,
    default: 'off',
    pattern: field.durationOrOffPattern,
    description: 'a connection is closed when it is this old; `off`: never',
  },
  tcpKeepAlive: {
    schema: field.durationOrOff,
    default: '60s',
    pattern: field.durationOrOffPattern,
    description: 'silence before TCP keep-alive probes are sent; `off`: none',
  },
} as const;

const countFields = {
  maxConnections: { default: 10_000, description: 'open connections of the listener; further ones wait' },
  maxHandshakes: { default: 1000, description: 'TLS handshakes under way, of peers not yet authenticated; further ones wait' },
  maxWaiting: {
    default: 16_384,
    description: 'accepted connections that wait for one of the places above, for a limited time; further ones are reset',
  },
} as const;

const count = z.int().min(1).max(1_000_000);

/** The top-level `limits`: every field has a default. */
const defaultLimits = z
  .strictObject({
    connectTimeout: withDefault(limitFields.connectTimeout),
    handshakeTimeout: withDefault(limitFields.handshakeTimeout),
    idleTimeout: withDefault(limitFields.idleTimeout),
    maxLifetime: withDefault(limitFields.maxLifetime),
    tcpKeepAlive: withDefault(limitFields.tcpKeepAlive),
    maxConnections: count.prefault(countFields.maxConnections.default).meta({ description: countFields.maxConnections.description }),
    maxHandshakes: count.prefault(countFields.maxHandshakes.default).meta({ description: countFields.maxHandshakes.description }),
    maxWaiting: count.prefault(countFields.maxWaiting.default).meta({ description: countFields.maxWaiting.description }),
  })
  .prefault({})
  .meta({ description: 'limits of every listener that does not set its own' });

/** A listener's own `limits`: what it leaves out comes from the top-level ones. */
const ownLimits = z
  .strictObject({
    connectTimeout: withoutDefault(limitFields.connectTimeout),
    handshakeTimeout: withoutDefault(limitFields.handshakeTimeout),
    idleTimeout: withoutDefault(limitFields.idleTimeout),
    maxLifetime: withoutDefault(limitFields.maxLifetime),
    tcpKeepAlive: withoutDefault(limitFields.tcpKeepAlive),
    maxConnections: count.optional().meta({ description: countFields.maxConnections.description }),
    maxHandshakes: count.optional().meta({ description: countFields.maxHandshakes.description }),
    maxWaiting: count.optional().meta({ description: countFields.maxWaiting.description }),
  })
  .prefault({})
  .meta({ description: 'limits of this listener; what is left out comes from the top-level `limits`' });

const identity = z
  .strictObject({
    id: field.spiffeId.optional().meta({ description: 'the SVID with this SPIFFE ID' }),
    hint: z.string().min(1).max(1024).optional().meta({ description: 'the SVID with this hint' }),
  })
  .refine((choice) => (choice.id === undefined) !== (choice.hint === undefined), 'needs either id or hint')
  .transform((choice): SvidChoice => {
    if (choice.id !== undefined) return { by: 'id', id: choice.id };
    return choice.hint === undefined ? { by: 'default' } : { by: 'hint', hint: choice.hint };
  })
  .optional()
  .meta({ description: 'which of several SVIDs to present; the first that the Workload API gives if left out. Never another one instead' });

const alpnProtocols = z
  .array(field.alpnProtocol)
  .refine((protocols) => new Set(protocols).size === protocols.length, 'has a protocol twice');

const outboundAlpn = alpnProtocols.optional().meta({
  description:
    'ALPN protocols, best first, such as `[h2]`. If left out: none, but `[h2]` for an application that speaks `h2c`, where the server must agree to it',
});

const httpLimitFields = {
  maxHeadBytes: z.int().min(1024).max(1_048_576).prefault(32_768).meta({ description: "bytes of a request's or a response's head" }),
  maxFields: z.int().min(10).max(10_000).prefault(1000).meta({ description: 'fields of a head, and of trailers' }),
  maxBodyBytes: z.int().min(1).optional().meta({ description: "bytes of a request's body; no limit if left out" }),
  headTimeout: field.positiveDuration.prefault('10s').meta({
    description: "time for a request's head, from its first byte to its last; trailers likewise",
    pattern: field.durationPattern,
  }),
  minBodyRate: z
    .union([z.int().min(1), z.literal('off')])
    .prefault(240)
    .meta({
      description:
        "bytes a second, over each 5 seconds, that a request's body must make while nothing but the sender holds it up; `off`: no limit",
    }),
  responseTimeout: field.durationOrOff.prefault('60s').meta({
    description: 'time for the application to answer, from the end of the request to the head of the response; `off`: no limit',
    pattern: field.durationOrOffPattern,
  }),
};

/** `standard` is shorter than the other side usually keeps a connection, `who` is that side. */
const upstreamIdleTimeout = (standard: string, who: string, why: string) =>
  field.durationOrOff.prefault(standard).meta({
    description: `how long a connection to ${who} is kept without a request, unless ${who} says how long in \`Keep-Alive: timeout=\`, which is heeded; it must be shorter than ${who} keeps it${why}. \`off\`: any time`,
    pattern: field.durationOrOffPattern,
  });

const upgrades = z
  .array(field.upgradeProtocol)
  .max(16)
  .refine((names) => new Set(names.map((name) => name.toLowerCase())).size === names.length, 'has a protocol twice')
  // It may be said, and is there in any case.
  .transform((names) => names.filter((name) => name.toLowerCase() !== WEBSOCKET))
  .prefault([])
  .meta({
    description:
      'protocols that `Upgrade` may ask for besides `websocket`, such as `[tcp]` for Docker and `[SPDY/3.1]` for Kubernetes, over HTTP/1.1: after the 101 bytes pass unread. HTTP and TLS are refused. With `extendedConnect`: that `:protocol` may name',
  });

const extendedConnect = (description: string) => z.boolean().prefault(false).meta({ description });

const httpLimits = z.strictObject({ ...httpLimitFields, upstreamIdleTimeout: field.durationOrOff });

function limitsOfHttp({
  headTimeout,
  responseTimeout,
  minBodyRate,
  upstreamIdleTimeout: idle,
  ...sizes
}: z.output<typeof httpLimits>): HttpLimits {
  return {
    maxHeadBytes: sizes.maxHeadBytes,
    maxFields: sizes.maxFields,
    maxBodyBytes: sizes.maxBodyBytes,
    headTimeoutMs: headTimeout,
    minBodyBytesPerSecond: unlessOff(minBodyRate),
    responseTimeoutMs: unlessOff(responseTimeout),
    upstreamIdleTimeoutMs: unlessOff(idle),
  };
}

const http = z
  .strictObject({
    application: z.enum(APPLICATION_PROTOCOLS).prefault('http/1.1').meta({
      description:
        'how the application speaks: `http/1.1`; or `h2c`, HTTP/2 in plain text, as gRPC servers do, and then peers must speak HTTP/2, too',
    }),
    xfcc: z.enum(XFCC_MODES).prefault('sanitize-set').meta({
      description:
        "the field `X-Forwarded-Client-Cert`: `sanitize-set` puts the peer's there instead of any that it sent, `sanitize` only removes it; `unsafe-forward` leaves what the peer sent, and `unsafe-append` puts the peer's after it: any peer can then name anybody",
    }),
    spiffeIdHeader: field.fieldName.optional().meta({
      description: "name of a field for the peer's SPIFFE ID alone, removed from what peers send; none if left out",
    }),
    maxConcurrentStreams: z.int().min(1).max(10_000).prefault(100).meta({
      description: 'requests of one HTTP/2 connection at once; each may hold a connection to the application, unless that speaks `h2c`',
    }),
    translation: z.enum(TRANSLATIONS).prefault('scute').meta({
      description:
        'what carries requests of HTTP/2 peers to an application that speaks HTTP/1.1: `scute`, what is its own; or `http-proxy`, with the HTTP/2 and HTTP/1.1 of Node, which is slower',
    }),
    upgrades,
    extendedConnect: extendedConnect(
      'WebSockets over HTTP/2 (RFC 8441), and what `upgrades` names, pass: if an application that speaks `h2c` offers them, and rules see the method `CONNECT`; or as an `Upgrade` of HTTP/1.1, and rules see its `GET`',
    ),
    ...httpLimitFields,
    upstreamIdleTimeout: upstreamIdleTimeout('1500ms', 'the application', ' (gunicorn: 2 s, uvicorn: 5 s), and a new one costs little'),
  })
  .transform(
    ({ application, translation, xfcc, spiffeIdHeader, maxConcurrentStreams, upgrades, extendedConnect, ...limits }): HttpConfig => ({
      application,
      translation,
      xfcc,
      spiffeIdHeader,
      maxConcurrentStreams,
      upgrades,
      extendedConnect,
      limits: limitsOfHttp(limits),
    }),
  );

const outboundHttp = z
  .strictObject({
    application: z.enum(APPLICATION_PROTOCOLS).prefault('http/1.1').meta({
      description:
        'how the application speaks: `http/1.1`; or `h2c`, HTTP/2 in plain text from the first byte on, as gRPC clients do, and then the server must speak HTTP/2, too',
    }),
    xfcc: z.enum(OUTBOUND_XFCC_MODES).prefault('sanitize').meta({
      description:
        'the field `X-Forwarded-Client-Cert`: `sanitize` removes it, `unsafe-forward` leaves what the application sent, which may name anybody',
    }),
    maxConcurrentStreams: z.int().min(1).max(10_000).prefault(100).meta({
      description: 'with `h2c`: requests of one connection at once',
    }),
    upgrades,
    extendedConnect: extendedConnect(
      'with `application: h2c`: WebSockets over HTTP/2 (RFC 8441), and what `upgrades` names, pass if the server offers them; rules see the method `CONNECT`',
    ),
    ...httpLimitFields,
    upstreamIdleTimeout: upstreamIdleTimeout(
      '50s',
      'the server',
      ' (load balancers and nginx: 60 s and more), and a new one costs a handshake',
    ),
  })
  .transform(({ application, xfcc, maxConcurrentStreams, upgrades, extendedConnect, ...limits }): OutboundHttpConfig => ({
    application,
    xfcc,
    maxConcurrentStreams,
    upgrades,
    extendedConnect,
    limits: limitsOfHttp(limits),
  }));

const webPki = z
  .union([
    z.literal(true),
    z.strictObject({
      caFile: field.filePath.meta({
        description: 'a file with the authorities (PEM) that may vouch for the server, read again when it changes',
      }),
    }),
  ])
  .transform((given): WebPkiConfig => ({ caFile: given === true ? undefined : given.caFile }));

const name = (direction: string) =>
  field.listenerName.optional().meta({
    description: `name in logs and metrics, unique over all listeners; \`${direction}-0\`, \`${direction}-1\` … by position if left out`,
  });

const proxyProtocol = z
  .strictObject({
    send: z.enum(PROXY_PROTOCOL_MODES).prefault('off').meta({
      description:
        'what the application is told, in a header of version 2 ahead of everything else: `conn` addresses; `tls` also TLS version, ALPN, SNI and the SPIFFE ID; `tls-full` also the certificate of the peer. It must expect one',
    }),
    spiffeIdTlv: field.spiffeIdTlv
      .prefault(0xd0)
      .meta({ description: 'type of the TLV with the SPIFFE ID: `0xD0` (208, as ztunnel has it), or `0xE0` to `0xEF`' }),
    acceptFrom: z.array(field.ipRange).prefault([]).meta({
      description:
        'load balancers, by address or range such as `10.0.0.0/8`, that must send a header of version 1 or 2 ahead of TLS; the address in it is the one that is logged and sent on. Nobody else may',
    }),
  })
  .prefault({})
  .meta({ description: 'the PROXY protocol, towards the application and from a load balancer' });

const allowedHosts = z
  .array(field.hostName)
  .prefault([])
  .meta({ description: 'host names that a request may be addressed to, besides `localhost` and IP addresses' });

const secretName = (name: string, description: string) =>
  z
    .string()
    .min(1)
    .max(2048)
    .prefault(name)
    .meta({ description: `${description}; the SPIRE agent has the same option` });

const sdsLimit = (most: number, standard: number, description: string) => z.int().min(1).max(most).prefault(standard).meta({ description });

const sdsLimits = z
  .strictObject({
    maxConnections: sdsLimit(
      10_000,
      256,
      'connections, and a quarter of the file descriptors at most; then one without a stream makes room, or the new one is closed',
    ),
    maxStreams: sdsLimit(1_000_000, 10_000, 'streams of all connections'),
    maxStreamsPerConnection: sdsLimit(100_000, 1000, 'streams of one connection; an Envoy has one a secret'),
    maxNames: sdsLimit(100_000, 1000, 'names that one stream may ask for'),
    maxRequestBytes: sdsLimit(4_194_304, 262_144, 'bytes of a request; what an Envoy says of itself takes some ten thousand'),
    maxSubscriptionBytes: sdsLimit(1_073_741_824, 1_048_576, 'bytes of the names that one connection asks for, and 64 more for each name'),
    maxRequestRate: sdsLimit(
      1_000_000,
      200,
      'requests a second of one connection that do more than answer a response, such as new streams and health checks, and ten times as many at once; acknowledgements are free',
    ),
  })
  .prefault({})
  .meta({ description: 'limits; beyond one a stream ends with RESOURCE_EXHAUSTED' });

const authorization = z
  .strictObject({
    maxConcurrentChecks: sdsLimit(1_000_000, 1024, 'checks at a time, of all connections'),
    maxConcurrentChecksPerConnection: sdsLimit(100_000, 512, 'checks at a time of one connection; a thread of Envoy has one'),
    maxRequestBytes: sdsLimit(
      4_194_304,
      262_144,
      'bytes of a check, which has all fields of the request; Envoy takes requests of 60 KiB of them',
    ),
    requestTimeout: field.positiveDuration.prefault('5s').meta({
      description: 'how long a check may take until it has come whole and its answer was taken',
      pattern: field.durationPattern,
    }),
  })
  .transform(({ requestTimeout, ...limits }): CheckLimits => ({ ...limits, requestTimeoutMs: requestTimeout }));

const sdsMatchers = z
  .strictObject({
    secret: z
      .string()
      .min(1)
      .max(2048)
      .meta({ description: 'the name of the secret, such as `ROOTCA`; other names of the same bundle stay as they are' }),
    listener: field.listenerName.optional().meta({
      description:
        'the inbound listener whose policy it is, as it changes; a rule that asks for more than a peer and times withholds the secret',
    }),
    allow: field.timedRuleList.optional().meta({ description: 'or a list of its own, with no more than peers and times' }),
  })
  .transform(({ secret, listener, allow }) => ({ secret, listener, policy: allow && policyFrom(undefined, { allow }, NO_FILES).policy }));

const federation = z
  .strictObject({
    trustDomain: field.trustDomain.meta({ description: 'whose bundle it is, as agreed with them: not ours' }),
    url: field.endpointUrl.meta({ description: 'the bundle endpoint: `https://HOST[:PORT]/PATH`' }),
    profile: z.enum(ENDPOINT_PROFILES).meta({
      description:
        'how the endpoint proves who it is: `https_spiffe` by an X.509-SVID, `https_web` by a certificate for the host name of `url`',
    }),
    endpointSpiffeId: field.spiffeId
      .optional()
      .meta({ description: '`https_spiffe`: the SPIFFE ID that the endpoint must have. Required' }),
    bundleFile: field.filePath.optional().meta({
      description:
        '`https_spiffe`: a file with the bundle of the trust domain of `endpointSpiffeId`, as a SPIFFE bundle (JSON) or PEM, by which the endpoint is judged until a newer one is known. Required where `endpointSpiffeId` is of `trustDomain`',
    }),
    caFile: field.filePath.optional().meta({
      description: '`https_web`: a file with the authorities (PEM) that may vouch for the endpoint; those of the public web if left out',
    }),
  })
  .superRefine(checkFederation, evenIfIncomplete)
  .transform(({ trustDomain, url, profile, endpointSpiffeId, bundleFile, caFile }): FederationConfig => {
    if (profile === 'https_web' || endpointSpiffeId === undefined) return { trustDomain, url, profile: { kind: 'https_web', caFile } };
    return { trustDomain, url, profile: { kind: 'https_spiffe', endpointSpiffeId, bundleFile } };
  });

const bundleEndpoint = z
  .strictObject({
    listen: field.tcpListenAddress.meta({ description: 'where to serve it: `IP:PORT`; anybody may ask' }),
    path: field.urlPath.prefault('/').meta({ description: 'the path that is answered; every other is not found' }),
    profile: z.enum(ENDPOINT_PROFILES).meta({
      description: 'how it proves who it is: `https_spiffe` by our X.509-SVID, `https_web` by the certificate of `certFile`',
    }),
    identity: identity.meta({
      description: 'which of several SVIDs says what our trust domain is; the first that the Workload API gives if left out',
    }),
    certFile: field.filePath.optional().meta({
      description: '`https_web`: a file with the certificate and its intermediates (PEM), read again when it changes',
    }),
    keyFile: field.filePath.optional().meta({ description: '`https_web`: a file with its private key (PEM), read again when it changes' }),
    refreshHint: field.positiveDuration.prefault('5m').meta({
      description: 'how often others should ask, in whole seconds',
      pattern: field.durationPattern,
    }),
  })
  .superRefine(checkBundleEndpoint, evenIfIncomplete)
  .transform(({ listen, path, profile, identity: choice, certFile, keyFile, refreshHint }): BundleEndpointConfig => {
    const files = profile === 'https_web' && certFile !== undefined && keyFile !== undefined ? { certFile, keyFile } : undefined;
    return {
      listen,
      path,
      identity: choice ?? { by: 'default' },
      profile: files === undefined ? { kind: 'https_spiffe' } : { kind: 'https_web', ...files },
      refreshHintMs: refreshHint,
    };
  });

/** `onExpiry` has another default for each protocol. */
const liveFields = {
  onPolicyChange: z.enum(ON_CHANGE).prefault('close').meta({
    description:
      'what becomes of an open connection when the policy, or a time in it, no longer allows its peer, or a request that is under way: `close` cuts what is under way; `drain` lets it end, for `drainTimeout` at most, and takes nothing new; `unsafeKeep` lets it go on without end. Further requests are judged by the new policy in any case',
  }),
  onAuthorityRemoved: z.enum(ON_CHANGE).prefault('close').meta({
    description:
      "likewise, when the peer's chain leads to no authority that is still trusted; with `unsafeKeep` its requests go on to be judged by the policy. What is revoked is closed in any case",
  }),
  onPeerExpiry: z.enum(ON_EXPIRY).optional().meta({
    description:
      "likewise, when the peer's SVID, or a certificate above it, expires after the handshake; over HTTP `drain` lets what is under way end, however long it takes, and a client ask once more within 5 seconds. If left out, `drain` for `protocol: http` and `keep` for `tcp`",
  }),
  onOwnExpiry: z.enum(ON_EXPIRY).optional().meta({
    description:
      'likewise, when the SVID expires that we presented in the handshake of that connection, whether or not it has been rotated',
  }),
};

const unsafe = (description: string) => z.boolean().prefault(false).meta({ description });

/** The whole schema. Its input is what a YAML file gives. */
export function createConfigSchema(lookups: Lookups) {
  const files = lookups.files ?? NO_FILES;
  // Zod would compile each object with `new Function`, which takes longer than to interpret them once.
  z.config({ jitless: true });
  const groupOf = numbered('group', (name) => lookups.groupId(name));
  const socketFields = {
    socketMode: field.socketMode
      .optional()
      .meta({ description: 'permission bits of a Unix socket, in quotes; `"0600"` if left out', pattern: '^0?[0-7]{3}$' }),
    socketGroup: groupOf.optional().meta({ description: 'group of a Unix socket, name or number; that of the process if left out' }),
  };

  const policyFile = (replaced: string) =>
    field
      .fileBeside(files)
      .transform((file, context): PolicyFrom => {
        const policy = files.policyOf(file);
        if (policy !== undefined) return { file, policy };
        context.addIssue({ code: 'custom', message: `${file} cannot be used`, input: file });
        return z.NEVER;
      })
      .optional()
      .meta({
        description: `a file that has the policy instead of ${replaced}, which listeners and sidecars may share; read again when it changes. \`docs/operations.md\` has its form. A path from the folder of this file`,
      });

  const inbound = z
    .strictObject({
      name: name('inbound'),
      listen: field.listenAddress.meta({ description: 'where peers connect with TLS: `IP:PORT`, `[IPV6]:PORT` or `unix:///path`' }),
      ...socketFields,
      to: field.targetAddress.meta({ description: 'the application, in plain text: a loopback address or `unix:///path`' }),
      allow: field.ruleList('allow', files).optional().meta({
        description:
          'who may connect: SPIFFE IDs; `*` is one path segment, `**` at the end one or more, `spiffe://DOMAIN/**` a whole trust domain; or rules that say more. Required, unless there is `policyFile`; an empty list admits nobody',
      }),
      deny: field.ruleList('deny', files).optional().meta({
        description: 'who may not, whatever `allow` says: SPIFFE IDs, patterns, and rules as there; nobody if left out',
      }),
      policyMode: z.enum(['enforce', 'audit']).optional().meta({
        description:
          '`audit`: whom `allow` and `deny` would refuse is let in all the same, counted and logged. Who has no valid SVID is always refused. `enforce` if left out',
      }),
      policyFile: policyFile('`allow`, `deny` and `policyMode`'),
      protocol: z.enum(['tcp', 'http']).prefault('tcp').meta({
        description:
          "how to forward: `tcp` as bytes; `http` request by request, over HTTP/2 or HTTP/1.1 from the peer and as `http.application` says to the application, with the peer's SPIFFE ID in a field",
      }),
      http: http.optional().meta({ description: 'for `protocol: http`' }),
      jwt: inboundJwt.optional().meta({
        description: 'for `protocol: http`: look at the JWT-SVIDs of requests, besides the TLS peer; nobody does if left out',
      }),
      alpn: alpnProtocols.optional().meta({
        description:
          'ALPN protocols, best first, such as `[h2]`. If left out: none for `tcp`; `[h2, http/1.1]` for `http`, which has no others, and where a client that names none speaks HTTP/1.1; `[h2]` alone before an application that speaks `h2c`',
      }),
      identity,
      proxyProtocol,
      limits: ownLimits,
      ...liveFields,
      unsafeTarget: unsafe('let `to` be an address outside this machine, where anybody on the way reads and changes the plain text'),
    })
    .superRefine(checkInbound, evenIfIncomplete);

  const outbound = z
    .strictObject({
      name: name('outbound'),
      listen: field.listenAddress.meta({
        description:
          'where the application connects in plain text: `unix:///path` (better) or a loopback address, which lends the identity to every local user',
      }),
      ...socketFields,
      to: field.serverAddress.meta({
        description: 'the server, reached with TLS: `HOST:PORT` or `unix:///path`; with `webPki`, `https://HOST` or `https://HOST:PORT`',
      }),
      webPki: webPki.optional().meta({
        description:
          'the server is one of the public web: its certificate must be for the host of `to`, and `Host` names that, whatever the application asks for. Our SVID is not presented, and no SPIFFE ID is looked at. For `protocol: http`',
      }),
      jwt: attachedJwt,
      credential: attachedCredential,
      expect: field.ruleList('allow', files).optional().meta({
        description:
          'who the server must be: SPIFFE IDs, patterns and rules as in `allow`, but not a whole trust domain; with `protocol: http`, rules say what it may be asked. Required, unless there is `policyFile` or `webPki`',
      }),
      deny: field.ruleList('deny', files).optional().meta({
        description: 'who it must not be, or must not be asked, whatever `expect` says; nobody if left out',
      }),
      policyFile: policyFile('`expect` and `deny`; its `allow` says who the server must be'),
      protocol: z.enum(['tcp', 'http']).prefault('tcp').meta({
        description:
          'how to forward: `tcp` as bytes; `http` request by request, over HTTP/1.1 or HTTP/2 as `http.application` says, over a connection to the server that is opened when it is needed',
      }),
      http: outboundHttp.optional().meta({ description: 'for `protocol: http`' }),
      identityWait: field.identityWait.prefault('10s').meta({
        description:
          'how long what comes before the first SVID waits for it, `10m` at most: with `protocol: http` the request, which is then a 503, else the connection, which is then reset. Never after an SVID was there; `0s`: not at all',
        pattern: field.durationPattern,
      }),
      serverName: field.serverName
        .optional()
        .meta({ description: 'name to send in SNI; the host of `to`, if that is a name, if left out' }),
      alpn: outboundAlpn,
      identity,
      limits: ownLimits,
      ...liveFields,
      unsafeAllowAnyInTrustDomain: field.trustDomain
        .optional()
        .meta({ description: 'instead of `expect`: accept any server of this trust domain' }),
      unsafeListen: unsafe('let `listen` be an address that other machines reach, which lends the identity to all of them'),
    })
    .superRefine(checkOutbound, evenIfIncomplete);

  const metrics = z
    .strictObject({
      listen: field.listenAddress.meta({ description: 'where to serve `/metrics`, `/livez` and `/readyz`: any address' }),
      ...socketFields,
      allowedHosts,
      probes,
    })
    .superRefine(checkSocket, evenIfIncomplete)
    .optional()
    .meta({ description: 'metrics and probes; not served if left out' });

  const admin = z
    .strictObject({
      listen: field.localListenAddress.meta({ description: 'where to serve the admin API: `unix:///path` or a loopback address' }),
      ...socketFields,
      allowedHosts,
    })
    .superRefine(checkSocket, evenIfIncomplete)
    .optional()
    .meta({ description: 'the admin API; not served if left out' });

  const sds = z
    .strictObject({
      listen: field.localListenAddress.meta({
        description: 'where to serve it: `unix:///path`. Who may open the socket holds the identity, private key and all',
      }),
      ...socketFields,
      identity: identity.meta({
        description: 'which of several SVIDs the default one is; the first that the Workload API gives if left out',
      }),
      defaultSvidName: secretName('default', 'another name of the default SVID'),
      defaultBundleName: secretName('ROOTCA', 'another name of the trust bundle of our own trust domain'),
      defaultAllBundlesName: secretName(
        'ALL',
        'name of all trust bundles together, for the SPIFFE validator alone; where `defaultBundleName` is the same name, that one is meant',
      ),
      disableSpiffeCertValidation: z.boolean().prefault(false).meta({
        description:
          'trust bundles as plain `trusted_ca`, not for the SPIFFE validator of Envoy, unless `disable_spiffe_cert_validation` in the metadata of its node says otherwise; the SPIRE agent has the same option',
      }),
      strictUnknownNames: z
        .boolean()
        .prefault(false)
        .meta({ description: 'end a stream that asks for a name that is not there, as the SPIRE agent does, instead of waiting for it' }),
      crls: z.boolean().prefault(false).meta({
        description: 'put the revocation lists of the Workload API into trust bundles of which every authority has one',
      }),
      matchers: z.array(sdsMatchers).prefault([]).meta({
        description:
          'allow lists that go into validation contexts as `match_typed_subject_alt_names`; an empty one withholds the secret, since Envoy would admit everybody',
      }),
      limits: sdsLimits,
      authorization: authorization.optional().meta({
        description:
          'answer checks of Envoy (`ext_authz`) by the policies of the inbound listeners, on the same socket and with these limits; `{}` will do. Not served if left out',
      }),
      unsafeTcp: unsafe('let `listen` be a loopback address, which hands the private keys to every local user'),
    })
    .superRefine(checkSocket, evenIfIncomplete)
    .superRefine(checkSds, evenIfIncomplete)
    .optional()
    .meta({ description: 'the Secret Discovery Service of Envoy; not served if left out' });

  const fileSet = fileSetSchema({
    identity,
    group: groupOf,
    user: numbered('user', (name) => lookups.user?.(name)?.uid),
    directoryProblem: (path, unsafeDisk) => lookups.directoryProblem?.(path, unsafeDisk),
    runsApplication: lookups.runsApplication,
  });

  return z
    .strictObject({
      workloadApi: z
        .strictObject({
          endpoint: field.endpoint
            .optional()
            .meta({ description: '`unix:///path` or `tcp://IP:PORT`; that of `SPIFFE_ENDPOINT_SOCKET` if left out' }),
        })
        .prefault({})
        .meta({ description: 'where identity comes from: a SPIFFE Workload API, such as that of a SPIRE agent' }),
      inbound: z.array(inbound).prefault([]).meta({ description: 'listeners towards the application' }),
      outbound: z.array(outbound).prefault([]).meta({ description: 'listeners away from the application' }),
      credentials,
      limits: defaultLimits,
      metrics,
      admin,
      sds,
      federation: z.array(federation).prefault([]).meta({
        description: 'bundle endpoints of other trust domains, for those that the Workload API says nothing of',
      }),
      bundleEndpoint: bundleEndpoint.optional().meta({
        description: 'a bundle endpoint for our own trust domain, with what the Workload API says of it; not served if left out',
      }),
      files: z.array(fileSet).max(100).prefault([]).meta({
        description:
          'sets of files with SVID, private key and trust bundles, or JWT-SVIDs, for programs that read such; none are written if left out',
      }),
      revocations: z
        .strictObject({
          file: field.absolutePath.meta({
            description:
              'the deny list: SPIFFE IDs, certificates and serial numbers that are refused, and whose open connections are closed, within a second of a change; `docs/operations.md` has its form. It must be there at the start',
          }),
        })
        .optional()
        .meta({ description: 'who is refused whatever else speaks for them, in both directions; nobody if left out' }),
      exec: createExecSection(lookups),
      log: z
        .strictObject({
          level: z
            .enum(LOG_LEVELS)
            .prefault('info')
            .meta({ description: 'the least severe level that is written; that of `SCUTE_LOG_LEVEL` if left out' }),
          format: z
            .enum(LOG_FORMATS)
            .prefault('auto')
            .meta({ description: '`json`, `pretty`, or `auto`: pretty on a terminal, else JSON' }),
        })
        .prefault({})
        .meta({ description: 'the log, on standard output' }),
      drainTimeout: field.duration.prefault('30s').meta({
        description:
          'after the first signal, how long open connections may go on, and how long each that drains may take; `0s` closes them at once',
        pattern: field.durationPattern,
      }),
    })
    .superRefine(checkListeners, evenIfIncomplete)
    .transform((raw): Config => {
      const limitsOf = (own: z.output<typeof ownLimits>): Limits => ({
        connectTimeoutMs: own.connectTimeout ?? raw.limits.connectTimeout,
        handshakeTimeoutMs: own.handshakeTimeout ?? raw.limits.handshakeTimeout,
        idleTimeoutMs: unlessOff(own.idleTimeout ?? raw.limits.idleTimeout),
        maxLifetimeMs: unlessOff(own.maxLifetime ?? raw.limits.maxLifetime),
        maxConnections: own.maxConnections ?? raw.limits.maxConnections,
        maxHandshakes: own.maxHandshakes ?? raw.limits.maxHandshakes,
        maxWaiting: own.maxWaiting ?? raw.limits.maxWaiting,
        tcpKeepAliveMs: unlessOff(own.tcpKeepAlive ?? raw.limits.tcpKeepAlive),
      });
      return {
        workloadApi: { endpoint: raw.workloadApi.endpoint ?? '' },
        inbound: raw.inbound.map((entry, index): InboundConfig => ({
          name: entry.name ?? `inbound-${index}`,
          ...socketOf(entry),
          to: entry.to,
          ...policyFrom(entry.policyFile, { allow: entry.allow ?? [], deny: entry.deny, mode: entry.policyMode }, files),
          protocol: entry.protocol,
          http: entry.protocol === 'http' ? (entry.http ?? http.parse({})) : undefined,
          alpn: entry.alpn ?? (entry.protocol === 'http' ? PEER_PROTOCOLS[entry.http?.application ?? 'http/1.1'] : []),
          jwt: entry.jwt,
          identity: entry.identity ?? { by: 'default' },
          proxyProtocol: entry.proxyProtocol,
          limits: limitsOf(entry.limits),
          ...liveRulesOf(entry),
        })),
        outbound: raw.outbound.map((entry, index): OutboundConfig => ({
          name: entry.name ?? `outbound-${index}`,
          ...socketOf(entry),
          to: entry.to,
          ...policyFrom(entry.policyFile, { allow: entry.expect ?? anyIn(entry.unsafeAllowAnyInTrustDomain), deny: entry.deny }, files),
          unsafeAllowAnyInTrustDomain: entry.unsafeAllowAnyInTrustDomain,
          protocol: entry.protocol,
          http: entry.protocol === 'http' ? (entry.http ?? outboundHttp.parse({})) : undefined,
          identityWaitMs: entry.identityWait,
          serverName: entry.serverName,
          webPki: entry.webPki,
          attach: attachOf(entry.jwt, entry.credential),
          alpn: entry.alpn ?? (entry.protocol === 'http' && entry.http?.application === 'h2c' ? PEER_PROTOCOLS.h2c : []),
          identity: entry.identity ?? { by: 'default' },
          limits: limitsOf(entry.limits),
          ...liveRulesOf(entry),
        })),
        metrics: raw.metrics && { ...socketOf(raw.metrics), allowedHosts: raw.metrics.allowedHosts, probes: raw.metrics.probes },
        admin: raw.admin && { ...socketOf(raw.admin), allowedHosts: raw.admin.allowedHosts },
        revocations: raw.revocations,
        sds: raw.sds && sdsOf(raw.sds),
        federation: raw.federation,
        bundleEndpoint: raw.bundleEndpoint,
        exec: raw.exec,
        files: raw.files.map((set, index) => set(index)),
        credentials: raw.credentials,
        log: raw.log,
        drainTimeoutMs: raw.drainTimeout,
      };
    });
}

/** A user or a group, by name or number. */
function numbered(kind: 'user' | 'group', numberOf: (name: string) => number | undefined) {
  return z.union([z.int().min(0).max(4_294_967_294), z.string().min(1)]).transform((named, context) => {
    const id = typeof named === 'number' ? named : numberOf(named);
    if (id !== undefined) return id;
    context.addIssue({ code: 'custom', message: `there is no ${kind} ${JSON.stringify(named)}`, input: named });
    return z.NEVER;
  });
}

export type ConfigSchema = ReturnType<typeof createConfigSchema>;

interface LimitField<S extends z.ZodType<unknown, string>> {
  readonly schema: S;
  readonly default: string;
  readonly pattern: string;
  readonly description: string;
}

function withDefault<S extends z.ZodType<unknown, string>>({ schema, default: text, pattern, description }: LimitField<S>) {
  return z.prefault(schema, text as z.input<S>).meta({ description, pattern });
}

function withoutDefault<S extends z.ZodType<unknown, string>>({ schema, pattern, description }: LimitField<S>) {
  return z.optional(schema).meta({ description, pattern });
}

function unlessOff(limit: number | 'off'): number | undefined {
  return limit === 'off' ? undefined : limit;
}

function socketOf(raw: Pick<SocketConfig, 'listen'> & { socketMode?: number | undefined; socketGroup?: number | undefined }): SocketConfig {
  return { listen: raw.listen, socketMode: raw.socketMode ?? DEFAULT_SOCKET_MODE, socketGid: raw.socketGroup };
}

/** A protocol that has moments between requests ends in one; who speaks another would be cut. */
function liveRulesOf({
  protocol,
  onPolicyChange,
  onAuthorityRemoved,
  onPeerExpiry,
  onOwnExpiry,
}: { readonly protocol: Protocol } & Pick<LiveRules, 'onPolicyChange' | 'onAuthorityRemoved'> & {
    readonly [K in 'onPeerExpiry' | 'onOwnExpiry']?: LiveRules[K] | undefined;
  }): LiveRules {
  const onExpiry = protocol === 'http' ? 'drain' : 'keep';
  return { onPolicyChange, onAuthorityRemoved, onPeerExpiry: onPeerExpiry ?? onExpiry, onOwnExpiry: onOwnExpiry ?? onExpiry };
}

/** What is left of the section once it was judged. */
function sdsOf(
  raw: Omit<SdsConfig, 'socketMode' | 'socketGid' | 'identity' | 'authorization'> & {
    authorization?: CheckLimits | undefined;
    socketMode?: number | undefined;
    socketGroup?: number | undefined;
    identity?: SvidChoice | undefined;
  },
): SdsConfig {
  const { defaultSvidName, defaultBundleName, defaultAllBundlesName, disableSpiffeCertValidation, strictUnknownNames } = raw;
  const { identity = { by: 'default' }, crls, matchers, limits, authorization: checks } = raw;
  const names = { defaultSvidName, defaultBundleName, defaultAllBundlesName };
  return {
    ...socketOf(raw),
    ...names,
    identity,
    disableSpiffeCertValidation,
    strictUnknownNames,
    crls,
    matchers,
    limits,
    authorization: checks,
  };
}

interface PolicyFrom {
  readonly file: string;
  readonly policy: Policy;
}

/** Each rule has been found good by itself, and there is nothing else that may be wrong. */
function policyFrom(
  from: PolicyFrom | undefined,
  spec: PolicySpec,
  { idsOf }: FileLookups,
): { readonly policy: Policy; readonly policyFile: string | undefined } {
  if (from !== undefined) return { policy: from.policy, policyFile: from.file };
  const compiled = compilePolicy(spec, { idsOf });
  if (!compiled.ok) throw new Error(`rules that were good are not: ${JSON.stringify(compiled.error)}`);
  return { policy: compiled.value, policyFile: undefined };
}

/** The list for `unsafeAllowAnyInTrustDomain`. The checks have seen to it that one of the two is there: no list admits nobody. */
function anyIn(domain: string | undefined): readonly string[] {
  return domain === undefined ? [] : [`spiffe://${domain}/**`];
}
