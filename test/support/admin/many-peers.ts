import { hash } from 'node:crypto';
import type { LiveConnection } from '../../../src/admin/api/source.ts';
import type { KnownPeer, PeerBook } from '../../../src/admin/peer-book.ts';
import { requireSpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import { createTestAuthority } from '../pki/pki.ts';

const IN = { name: 'in', direction: 'inbound' } as const;

/** Connections of `count` peers, each with a certificate of its own as far as anybody can see. */
export function joinMany(peers: PeerBook, count: number): readonly LiveConnection[] {
  const { der } = createTestAuthority().issue();
  return Array.from({ length: count }, (_, index): LiveConnection => {
    const proven: KnownPeer = {
      authenticated: {
        id: requireSpiffeId(`spiffe://example.org/peer-${index}`),
        leaf: { sha256: hash('sha256', String(index)), notAfterMs: 0, der: () => der },
        issuers: ['00'],
      },
      chainDer: [der],
    };
    peers.judged(IN, { id: index, downstreamAddress: '' }, { proven }, undefined);
    peers.joined(IN, proven);
    return {
      id: index + 1,
      downstreamAddress: '127.0.0.1:40000',
      via: undefined,
      upstreamAddress: '127.0.0.1:8080',
      startedAtMs: index,
      tlsVersion: 'TLSv1.3',
      alpn: undefined,
      proven,
      ownId: requireSpiffeId('spiffe://example.org/api'),
      rule: 'spiffe://example.org/**',
      audited: undefined,
      denied: undefined,
      bytesFromDownstream: index,
      bytesToDownstream: index,
    };
  });
}
