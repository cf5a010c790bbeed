/** `limits`, of the whole and of a listener. Pure. */
import * as z from 'zod';
import type { Limits } from '../config.ts';
import * as field from '../fields.ts';

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
export const defaultLimits = z
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
export const ownLimits = z
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

/** Of a listener: its own, and the top-level ones for the rest. */
export function limitsOf(own: z.output<typeof ownLimits>, standard: z.output<typeof defaultLimits>): Limits {
  return {
    connectTimeoutMs: own.connectTimeout ?? standard.connectTimeout,
    handshakeTimeoutMs: own.handshakeTimeout ?? standard.handshakeTimeout,
    idleTimeoutMs: field.unlessOff(own.idleTimeout ?? standard.idleTimeout),
    maxLifetimeMs: field.unlessOff(own.maxLifetime ?? standard.maxLifetime),
    maxConnections: own.maxConnections ?? standard.maxConnections,
    maxHandshakes: own.maxHandshakes ?? standard.maxHandshakes,
    maxWaiting: own.maxWaiting ?? standard.maxWaiting,
    tcpKeepAliveMs: field.unlessOff(own.tcpKeepAlive ?? standard.tcpKeepAlive),
  };
}

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
