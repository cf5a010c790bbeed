/** What a handshake that really happens leaves for the judge: over TLS on loopback, in both roles, with a pool of authorities in any order. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { connect as tlsConnect, createSecureContext, TLSSocket } from 'node:tls';
import type { TestContext } from 'node:test';
import type { SecureConnection, TlsContext } from '../../../src/transport/connection.ts';
import { connect, createTlsContext, listen } from '../../../src/transport/node.ts';
import type { PeerRole } from '../../../src/tls/peer.ts';
import { createTestAuthority, pemOf, type TestCertificate } from './pki.ts';

/** What OpenSSL is to believe, and what the peer shows it. */
export interface Flight {
  /** In the order in which the TLS context is given them. */
  readonly pool: readonly { readonly pem: string }[];
  /** The peer holds its key. */
  readonly leaf: TestCertificate;
  /** Leaf first. */
  readonly sent: readonly Uint8Array[];
}

export interface Arena {
  /**
   * Calls `judge` with our side of a handshake with a peer of that role, and resolves to what it says; undefined if it came
   * to no handshake. The connection is over then.
   */
  meet<T>(flight: Flight, peerRole: PeerRole, judge: (connection: SecureConnection) => T): Promise<T | undefined>;
}

export async function startArena(t: TestContext): Promise<Arena> {
  const us = createTestAuthority().issue();
  let own: TlsContext | undefined;
  let secured: (connection: SecureConnection | undefined) => void = () => undefined;
  const bound = await listen({
    endpoint: { kind: 'tcp', host: '127.0.0.1', port: 0 },
    mode: 0o600,
    keepAliveMs: 0,
    acceptFailed: (error) => assert.fail(error),
    accept(accepted) {
      assert.ok(own);
      accepted.openTls({ context: own, alpn: [] }, (outcome) => secured(outcome.ok ? outcome.connection : undefined));
    },
  });
  t.after(() => bound.close());
  assert.equal(bound.endpoint.kind, 'tcp');
  const { port } = bound.endpoint;

  let presented = createSecureContext();
  const server = createServer((socket) => {
    const tls = new TLSSocket(socket, { isServer: true, secureContext: presented });
    tls.on('error', () => tls.destroy());
    socket.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => void server.close());

  const handshake = ({ pool, leaf, sent }: Flight, peerRole: PeerRole): Promise<SecureConnection | undefined> => {
    own = createTlsContext({ own: { chainPem: us.pem, keyPem: us.keyPem }, authoritiesPem: pool.map(({ pem }) => pem) });
    presented = createSecureContext({
      cert: sent.map((der) => pemOf('CERTIFICATE', der)).join(''),
      key: leaf.keyPem,
      // The peer does not mind what it presents.
      ciphers: 'DEFAULT@SECLEVEL=0',
    });
    return new Promise((resolve) => {
      secured = resolve;
      if (peerRole === 'client') {
        const socket = tlsConnect({ port, host: '127.0.0.1', secureContext: presented, rejectUnauthorized: false });
        socket.on('error', () => undefined);
        return;
      }
      const endpoint = { kind: 'tcp', host: '127.0.0.1', port: (server.address() as AddressInfo).port } as const;
      connect({ endpoint, timeoutMs: 5000, keepAliveMs: 0, use: 'tls' }, (opened) => {
        assert.ok(opened.ok && own);
        opened.opened.openTls({ context: own, alpn: [], serverName: undefined }, (outcome) =>
          resolve(outcome.ok ? outcome.connection : undefined),
        );
      });
    });
  };

  return {
    async meet(flight, peerRole, judge) {
      const connection = await handshake(flight, peerRole);
      if (connection === undefined) return undefined;
      try {
        return judge(connection);
      } finally {
        connection.abort();
      }
    },
  };
}
