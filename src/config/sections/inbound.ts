/** `inbound`: listeners towards the application. Pure. */
import * as z from 'zod';
import { PEER_PROTOCOLS, PROXY_PROTOCOL_MODES, type InboundConfig } from '../config.ts';
import { checkInbound, evenIfIncomplete } from '../consistency.ts';
import * as field from '../fields.ts';
import { http } from './http.ts';
import { identity } from './identity.ts';
import { inboundJwt } from './jwt.ts';
import { limitsOf, ownLimits, type defaultLimits } from './limits.ts';
import { alpnProtocols, liveFields, liveRulesOf, name } from './listener.ts';
import { policyFile, policyFrom, type FileLookups } from './policy.ts';
import { socketOf, type SocketFields } from './socket.ts';

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

/** One of them; `files` has what its rules and its policy file name. */
export function createInbound(socketFields: SocketFields, files: FileLookups) {
  return z
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
      policyFile: policyFile('`allow`, `deny` and `policyMode`', files),
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
      unsafeTarget: field.unsafe('let `to` be an address outside this machine, where anybody on the way reads and changes the plain text'),
    })
    .superRefine(checkInbound, evenIfIncomplete);
}

/** What is left of an entry once it was judged; `standard` has the limits that it leaves out. */
export function inboundOf(
  entry: z.output<ReturnType<typeof createInbound>>,
  index: number,
  standard: z.output<typeof defaultLimits>,
  files: FileLookups,
): InboundConfig {
  return {
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
    limits: limitsOf(entry.limits, standard),
    ...liveRulesOf(entry),
  };
}
