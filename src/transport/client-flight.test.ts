import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TlsOptions } from 'node:tls';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { tlsServer } from '../../test/support/tls-peer.ts';
import { ClientFlight } from './client-flight.ts';
import { connect, createTlsContext } from './node.ts';

const root = createTestAuthority();
const [server, client] = [root.issue(), root.issue()];

for (const version of ['TLSv1.2', 'TLSv1.3'] as const)
  for (const asks of [true, false])
    for (const shows of [true, false])
      for (const [cipher, options] of [
        ['as it comes', {}],
        // The client has to say hello twice.
        ['after another hello', { ecdhCurve: 'P-256' }],
        ['with SHA-256', { ciphers: 'TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256' }],
        ['with SHA-384', { ciphers: 'TLS_AES_256_GCM_SHA384:ECDHE-ECDSA-AES256-GCM-SHA384' }],
        ['with ChaCha20', { ciphers: 'TLS_CHACHA20_POLY1305_SHA256:ECDHE-ECDSA-CHACHA20-POLY1305' }],
      ] as const satisfies readonly (readonly [string, TlsOptions])[])
        test(`a server of ${version} that ${asks ? 'asks' : 'does not ask'} for a certificate is told by a client that ${shows ? 'has one' : 'has none'}, ${cipher}`, async (t) => {
          const presented = { cert: server.chainPem, key: server.keyPem };
          const { address } = await tlsServer(t, presented, (socket) => void socket.resume(), {
            requestCert: asks,
            minVersion: version,
            maxVersion: version,
            honorCipherOrder: true,
            ...options,
          });
          const own = shows ? { chainPem: client.chainPem, keyPem: client.keyPem } : undefined;
          const flight = new ClientFlight();
          assert.equal(flight.askedForCertificate, undefined);
          const endpoint = { kind: 'tcp', host: '127.0.0.1', port: Number(address.split(':')[1]) } as const;

          const spoken = await new Promise<string>((resolve, reject) => {
            connect({ endpoint, timeoutMs: 60_000, keepAliveMs: 0, use: 'tls' }, (connected) => {
              if (!connected.ok) return reject(connected.error);
              const context = createTlsContext({ own, authoritiesPem: [root.pem] });
              connected.opened.openTls({ context, alpn: [], serverName: undefined, flight }, (outcome) => {
                if (!outcome.ok) return reject(new Error(outcome.message));
                // What is encrypted is on its way only after this turn.
                setImmediate(() => {
                  outcome.connection.abort();
                  resolve(outcome.connection.tlsVersion);
                });
              });
            });
          });

          assert.deepEqual([spoken, flight.askedForCertificate], [version, asks]);
        });

test('a flight is read alike however it is cut', () => {
  const record = (type: number, content: readonly number[]): number[] => [type, 3, 3, 0, content.length, ...content];
  const hello = record(22, [1, 0, 0, 0]);
  for (const [records, asked] of [
    [[...hello, ...record(22, [11, 0, 0, 0])], true],
    [[...hello, ...record(22, [16, 0, 0, 0])], false],
    [[...hello, ...record(20, [1]), ...hello, ...record(23, Array<number>(25).fill(0)), ...record(23, Array<number>(69).fill(0))], true],
    [[...hello, ...record(20, [1]), ...record(23, Array<number>(53).fill(0)), ...record(23, Array<number>(25).fill(0))], false],
    [hello, undefined],
  ] as const)
    for (const size of [1, 3, 1000]) {
      const flight = new ClientFlight();
      for (let at = 0; at < records.length; at += size) flight.sent(Uint8Array.from(records.slice(at, at + size)));
      assert.equal(flight.askedForCertificate, asked);
    }
});
