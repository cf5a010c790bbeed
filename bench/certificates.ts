import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { devConfigSchema } from '../src/devdomain/config.ts';
import { createDevDomain, type DevDomain } from '../src/devdomain/dev-domain.ts';
import { systemClock } from '../src/lib/clock.ts';
import type { CertificateFiles } from './peer.ts';

const SERVER_ID = 'spiffe://bench.test/server';
const CLIENT_ID = 'spiffe://bench.test/client';

export interface BenchIdentities {
  readonly domain: DevDomain;
  readonly certificates: CertificateFiles;
  stop(): Promise<void>;
}

/** Starts one trust domain for all: Workload API sockets for Scute, PEM files for the peers and the load. ECDSA P-256. */
export async function startIdentities(directory: string, options: { readonly svidLife?: string } = {}): Promise<BenchIdentities> {
  const config = devConfigSchema.parse({
    trustDomains: [
      {
        name: 'bench.test',
        svidLife: options.svidLife ?? '24h',
        workloads: [
          { name: 'server', socket: join(directory, 'server.sock'), ids: [SERVER_ID] },
          { name: 'client', socket: join(directory, 'client.sock'), ids: [CLIENT_ID] },
        ],
      },
    ],
  });
  const domain = createDevDomain(config, {
    clock: systemClock,
    onFailure: (failure) => {
      throw failure;
    },
  });
  await domain.start(AbortSignal.timeout(10_000));
  const write = (name: string, ...texts: readonly string[]): string => {
    const path = join(directory, name);
    writeFileSync(path, texts.join(''), { mode: 0o600 });
    return path;
  };
  const server = await domain.issue(SERVER_ID);
  const client = await domain.issue(CLIENT_ID);
  return {
    domain,
    certificates: {
      // With the authority after the leaf, as Scute sends it: OpenSSL would build the chain anew in every handshake without.
      serverChain: write('server.pem', server.chainPem, server.bundlePem),
      serverKey: write('server.key', server.keyPem),
      serverChainAndKey: write('server-both.pem', server.chainPem, server.bundlePem, server.keyPem),
      clientChain: write('client.pem', client.chainPem),
      clientKey: write('client.key', client.keyPem),
      authorities: write('authorities.pem', server.bundlePem),
      serverId: SERVER_ID,
      clientId: CLIENT_ID,
      serverWorkloadApi: domain.endpoint('server'),
      clientWorkloadApi: domain.endpoint('client'),
    },
    stop: () => domain.stop(AbortSignal.abort()),
  };
}
