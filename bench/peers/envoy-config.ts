/** Envoy's configuration, from parts: https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api. */
import { join } from 'node:path';
import type { Task } from '../peer.ts';

const TYPE = 'type.googleapis.com/envoy.extensions';

/** A static bootstrap with one listener and one cluster, statistics and a JSON access log on. */
export function envoyConfig(task: Task, httpFilters: readonly object[] = []): object {
  return {
    admin: { address: { pipe: { path: join(task.directory, 'envoy-admin.sock') } } },
    static_resources: {
      listeners: [
        {
          name: task.direction,
          address: { socket_address: { address: '127.0.0.1', port_value: task.port } },
          filter_chains: [
            {
              ...(task.direction === 'inbound' && { transport_socket: serverTls(task) }),
              filters: [task.protocol === 'tcp' ? tcpProxy(task) : httpManager(task, httpFilters)],
            },
          ],
        },
      ],
      clusters: [cluster(task)],
    },
  };
}

function serverTls({ certificates, protocol }: Task): object {
  return {
    name: 'tls',
    typed_config: {
      '@type': `${TYPE}.transport_sockets.tls.v3.DownstreamTlsContext`,
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
          // Over HTTP each request is judged instead, as Scute does, so that a stranger is answered 403.
          ...(protocol === 'tcp' && { match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: certificates.clientId } }] }),
        },
        ...(protocol === 'http' && { alpn_protocols: ['h2', 'http/1.1'] }),
      },
    },
  };
}

function clientTls({ certificates, http2 }: Task): object {
  return {
    name: 'tls',
    typed_config: {
      '@type': `${TYPE}.transport_sockets.tls.v3.UpstreamTlsContext`,
      max_session_keys: 0,
      common_tls_context: {
        tls_params: {
          tls_minimum_protocol_version: 'TLSv1_3',
          tls_maximum_protocol_version: 'TLSv1_3',
          ecdh_curves: ['X25519', 'P-256'],
        },
        tls_certificates: [
          { certificate_chain: { filename: certificates.clientChain }, private_key: { filename: certificates.clientKey } },
        ],
        validation_context: {
          trusted_ca: { filename: certificates.authorities },
          match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: certificates.serverId } }],
        },
        ...(http2 && { alpn_protocols: ['h2'] }),
      },
    },
  };
}

function tcpProxy(task: Task): object {
  return {
    name: 'tcp',
    typed_config: {
      '@type': `${TYPE}.filters.network.tcp_proxy.v3.TcpProxy`,
      stat_prefix: task.direction,
      cluster: 'upstream',
      access_log: [
        accessLog(task, {
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
        }),
      ],
    },
  };
}

function httpManager(task: Task, filters: readonly object[]): object {
  const inbound = task.direction === 'inbound';
  return {
    name: 'http',
    typed_config: {
      '@type': `${TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: task.direction,
      codec_type: 'AUTO',
      ...(inbound && { forward_client_cert_details: 'SANITIZE_SET', set_current_client_cert_details: { uri: true } }),
      request_headers_timeout: '10s',
      // What Scute does not do costs Envoy nothing here.
      generate_request_id: false,
      server_header_transformation: 'PASS_THROUGH',
      access_log: [
        accessLog(task, {
          time: '%START_TIME%',
          listener: task.direction,
          connection: '%CONNECTION_ID%',
          peer_id: inbound ? '%DOWNSTREAM_PEER_URI_SAN%' : '%UPSTREAM_PEER_URI_SAN%',
          method: '%REQ(:METHOD)%',
          path: '%REQ(:PATH)%',
          host: '%REQ(:AUTHORITY)%',
          status: '%RESPONSE_CODE%',
          result: '%RESPONSE_CODE_DETAILS%',
          flags: '%RESPONSE_FLAGS%',
          received: '%BYTES_RECEIVED%',
          sent: '%BYTES_SENT%',
          duration: '%DURATION%',
        }),
      ],
      http_filters: [
        ...(inbound ? [onlyTheClient(task)] : []),
        ...filters,
        {
          name: 'router',
          typed_config: { '@type': `${TYPE}.filters.http.router.v3.Router`, suppress_envoy_headers: true },
        },
      ],
      route_config: {
        virtual_hosts: [
          { name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: 'upstream', timeout: '60s' } }] },
        ],
      },
    },
  };
}

/** Judges each request, as Scute does. */
function onlyTheClient(task: Task): object {
  return {
    name: 'rbac',
    typed_config: {
      '@type': `${TYPE}.filters.http.rbac.v3.RBAC`,
      rules: {
        action: 'ALLOW',
        policies: {
          client: {
            permissions: [{ any: true }],
            principals: [{ authenticated: { principal_name: { exact: task.certificates.clientId } } }],
          },
        },
      },
    },
  };
}

function accessLog(task: Task, fields: Readonly<Record<string, string>>): object {
  return {
    name: 'file',
    typed_config: {
      '@type': `${TYPE}.access_loggers.file.v3.FileAccessLog`,
      path: join(task.directory, 'envoy-access.log'),
      log_format: { json_format: fields },
    },
  };
}

function cluster(task: Task): object {
  const [host, port] = task.to.split(':');
  return {
    name: 'upstream',
    type: 'STATIC',
    connect_timeout: '5s',
    ...(task.direction === 'outbound' && { transport_socket: clientTls(task) }),
    ...(task.http2 && {
      typed_extension_protocol_options: {
        'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
          '@type': `${TYPE}.upstreams.http.v3.HttpProtocolOptions`,
          explicit_http_config: { http2_protocol_options: {} },
        },
      },
    }),
    // The defaults (1,024) are below the connections of the memory work.
    circuit_breakers: { thresholds: [{ max_connections: 100_000, max_pending_requests: 100_000, max_requests: 100_000 }] },
    load_assignment: {
      cluster_name: 'upstream',
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: host, port_value: Number(port) } } } }] }],
    },
  };
}
