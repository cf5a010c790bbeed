/** `outbound`: listeners away from the application. Pure. */
import * as z from 'zod';
import { PEER_PROTOCOLS, type OutboundConfig, type WebPkiConfig } from '../config.ts';
import { checkOutbound, evenIfIncomplete } from '../consistency.ts';
import * as field from '../fields.ts';
import { attachedCredential, attachedJwt, attachOf } from './credentials.ts';
import { outboundHttp } from './http.ts';
import { identity } from './identity.ts';
import { limitsOf, ownLimits, type defaultLimits } from './limits.ts';
import { alpnProtocols, liveFields, liveRulesOf, name } from './listener.ts';
import { policyFile, policyFrom, type FileLookups } from './policy.ts';
import { socketOf, type SocketFields } from './socket.ts';

const outboundAlpn = alpnProtocols.optional().meta({
  description:
    'ALPN protocols, best first, such as `[h2]`. If left out: none, but `[h2]` for an application that speaks `h2c`, where the server must agree to it',
});

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

/** One of them; `files` has what its rules and its policy file name. */
export function createOutbound(socketFields: SocketFields, files: FileLookups) {
  return z
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
      policyFile: policyFile('`expect` and `deny`; its `allow` says who the server must be', files),
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
      unsafeListen: field.unsafe('let `listen` be an address that other machines reach, which lends the identity to all of them'),
    })
    .superRefine(checkOutbound, evenIfIncomplete);
}

/** What is left of an entry once it was judged; `standard` has the limits that it leaves out. */
export function outboundOf(
  entry: z.output<ReturnType<typeof createOutbound>>,
  index: number,
  standard: z.output<typeof defaultLimits>,
  files: FileLookups,
): OutboundConfig {
  return {
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
    limits: limitsOf(entry.limits, standard),
    ...liveRulesOf(entry),
  };
}

/** The list for `unsafeAllowAnyInTrustDomain`. The checks have seen to it that one of the two is there: no list admits nobody. */
function anyIn(domain: string | undefined): readonly string[] {
  return domain === undefined ? [] : [`spiffe://${domain}/**`];
}
