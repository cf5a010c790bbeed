/** `http` of a listener. Pure. */
import * as z from 'zod';
import { OUTBOUND_XFCC_MODES, XFCC_MODES } from '../../http1/identity-fields.ts';
import { WEBSOCKET } from '../../http1/upgrades.ts';
import { APPLICATION_PROTOCOLS, TRANSLATIONS, type HttpConfig, type HttpLimits, type OutboundHttpConfig } from '../config.ts';
import * as field from '../fields.ts';

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
    minBodyBytesPerSecond: field.unlessOff(minBodyRate),
    responseTimeoutMs: field.unlessOff(responseTimeout),
    upstreamIdleTimeoutMs: field.unlessOff(idle),
  };
}

export const http = z
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

export const outboundHttp = z
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
