import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { VERSION } from '../../src/cli/commands/version.ts';
import { envoyIdentity, type Peer, type Task } from '../peer.ts';

/** The bundle that is measured, made by `main.ts` before. */
export const SCUTE_BUNDLE = join(import.meta.dirname, '../../.cache/bench/scute.js');

const OPENSSL_CONFIG = join(import.meta.dirname, '../../deploy/openssl.cnf');

/** Scute as the image starts it: one bundle, identity from the Workload API, metrics served, every connection and request logged. */
export const scute = scuteWith('scute', (directory) => ({ metrics: { listen: `unix://${metricsSocket(directory)}` } }));

/** Where `scute` serves its metrics, by the folder of its task. */
export function metricsSocket(directory: string): string {
  return join(directory, 'metrics.sock');
}

/**
 * The same with other listeners for those who look at it, what the peer is allowed by `rulesFor` its SPIFFE ID (everything, if left out), and
 * `more` of the inbound listener.
 */
export function scuteWith(
  name: string,
  lookedAtBy: (directory: string) => object,
  rulesFor: (peer: string) => readonly unknown[] = (peer) => [peer],
  more: object = {},
): Peer {
  return {
    name,
    install: 'npm ci',
    notes: {},
    identity: envoyIdentity,
    version: () => (existsSync(SCUTE_BUNDLE) ? `${VERSION} (Node ${process.versions.node})` : undefined),
    prepare: (task) => {
      const file = join(task.directory, 'scute.yaml');
      const config = { ...side(task, rulesFor, more), ...lookedAtBy(task.directory), log: { level: 'info', format: 'json' } };
      // JSON is YAML.
      writeFileSync(file, JSON.stringify(config));
      return {
        argv: [process.execPath, '--disable-sigusr1', `--openssl-config=${OPENSSL_CONFIG}`, SCUTE_BUNDLE, 'run', '-c', file],
        outputFile: join(task.directory, 'scute.log'),
      };
    },
  };
}

function side(
  { direction, port, protocol, http2, to, certificates }: Task,
  rulesFor: (peer: string) => readonly unknown[],
  more: object,
): object {
  const listen = `127.0.0.1:${port}`;
  if (direction === 'inbound') {
    return {
      workloadApi: { endpoint: certificates.serverWorkloadApi },
      inbound: [
        {
          name: 'inbound',
          listen,
          to,
          allow: rulesFor(certificates.clientId),
          protocol,
          ...(http2 && { http: { application: 'h2c' } }),
          ...more,
        },
      ],
    };
  }
  return {
    workloadApi: { endpoint: certificates.clientWorkloadApi },
    outbound: [
      { name: 'outbound', listen, to, expect: rulesFor(certificates.serverId), protocol, ...(http2 && { http: { application: 'h2c' } }) },
    ],
  };
}
