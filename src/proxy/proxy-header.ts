/** PROXY headers of connections: read from a load balancer before TLS begins, and made for the application. */
import type { ProxyProtocolConfig } from '../config/config.ts';
import type { Clock } from '../lib/clock.ts';
import { rangeHas } from '../lib/ip.ts';
import type { AcceptedConnection, AheadReader, SecureConnection } from '../transport/connection.ts';
import {
  encodeProxyHeader,
  endpointOf,
  MAX_V2_BYTES,
  parseProxyHeader,
  type ProxyConnection,
  type TlsFacts,
} from '../proxy-protocol/header.ts';
import type { Session } from '../forward/session.ts';

/**
 * Whether this address must send a header; nobody else may. `unknown`: it has none any more, because the connection was
 * reset before it was accepted, as health checks are.
 */
export function mustSendHeader({ acceptFrom }: ProxyProtocolConfig, remoteAddress: string): boolean | 'unknown' {
  if (acceptFrom.length === 0) return false;
  const remote = endpointOf(remoteAddress);
  return remote.kind === 'ip' ? acceptFrom.some((range) => rangeHas(range, remote.address)) : 'unknown';
}

export type HeaderOutcome =
  /** TLS follows. Undefined: the real addresses hold. */
  | { readonly kind: 'header'; readonly connection: ProxyConnection | undefined }
  /** A health check: the other side ended without a byte, or after a header without addresses. */
  | { readonly kind: 'left' }
  | { readonly kind: 'bad'; readonly detail: string }
  | { readonly kind: 'timeout'; readonly detail: string };

export interface ReadHeaderOptions {
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly done: (outcome: HeaderOutcome) => void;
}

/** Takes exactly the header off the front of a connection. After `abort`, `done` is not called. */
export function readProxyHeader(accepted: AcceptedConnection, { clock, timeoutMs, done }: ReadHeaderOptions): { abort(): void } {
  const reader = new HeaderReader((outcome) => {
    timer.cancel();
    done(outcome);
  });
  const reading = accepted.readAhead(reader);
  const timer = clock.after(timeoutMs, () => {
    reading.abort();
    done({
      kind: 'timeout',
      detail: reader.isComplete ? `nothing after the PROXY header within ${timeoutMs} ms` : `no PROXY header within ${timeoutMs} ms`,
    });
  });
  return {
    abort() {
      timer.cancel();
      reading.abort();
    },
  };
}

class HeaderReader implements AheadReader {
  isComplete = false;
  readonly #done: (outcome: HeaderOutcome) => void;
  #soFar: Uint8Array = new Uint8Array();
  #outcome: HeaderOutcome = { kind: 'left' };

  constructor(done: (outcome: HeaderOutcome) => void) {
    this.#done = done;
  }

  take(chunk: Uint8Array): number | 'more' {
    if (this.isComplete) return 0;
    const held = this.#soFar.length;
    // Never more than the longest header, however much comes at once.
    const bytes = Buffer.concat([this.#soFar, chunk.subarray(0, MAX_V2_BYTES - held)]);
    const parsed = parseProxyHeader(bytes);
    switch (parsed.kind) {
      case 'more':
        this.#soFar = bytes;
        return 'more';
      case 'bad':
        this.#outcome = { kind: 'bad', detail: parsed.detail };
        return 0;
      case 'header': {
        this.isComplete = true;
        this.#outcome = { kind: 'header', connection: parsed.connection };
        const taken = parsed.length - held;
        // Without addresses a health check may be all that this connection is for: it is no TLS client before it says something.
        return parsed.connection === undefined && taken === chunk.length ? 'more' : taken;
      }
    }
  }

  enough(): void {
    this.#done(this.#outcome);
  }

  ended(): void {
    const cutShort = this.#soFar.length > 0 && !this.isComplete;
    this.#done(cutShort ? { kind: 'bad', detail: `PROXY header cut short after ${this.#soFar.length} bytes` } : { kind: 'left' });
  }
}

/** What to write to the application before anything else, for a session that was admitted; undefined if nothing. */
export function proxyHeaderFor(config: ProxyProtocolConfig, session: Session, downstream: SecureConnection): Uint8Array | undefined {
  if (config.send === 'off') return undefined;
  const { told, proven } = session;
  if (told === undefined || proven === undefined) throw new Error('a PROXY header for a connection that was not admitted');
  if (config.send === 'conn') return encodeProxyHeader(told, undefined);
  const { id, leaf } = proven.authenticated;
  const facts: TlsFacts = {
    version: downstream.tlsVersion,
    alpn: downstream.alpn,
    serverName: isHostName(downstream.serverName) ? downstream.serverName : undefined,
    spiffeId: id,
    spiffeIdType: config.spiffeIdTlv,
    certificate: config.send === 'tls-full' ? { der: leaf.der(), commonName: leaf.subjectName.commonName } : undefined,
  };
  return encodeProxyHeader(told, facts);
}

/** What else a client says in SNI is no host name (RFC 6066, section 3), and nothing for an application to read. */
function isHostName(name: string | undefined): name is string {
  return name !== undefined && /^[\w.-]{1,255}$/.test(name);
}
