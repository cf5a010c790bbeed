/** Bootstraps with as many listeners as a test wants, where those of `configs/envoy/` have one. */
import { stringify } from 'yaml';

export interface BootstrapOptions {
  /** Where Scute serves secrets. */
  readonly socket: string;
  readonly protocol?: 'GRPC' | 'DELTA_GRPC';
  /** One stream of the aggregated service, over which Envoy then asks for listeners and clusters as well. */
  readonly aggregated?: boolean;
  /** Of the node. */
  readonly metadata?: object;
  readonly inbound?: readonly Side[];
  readonly outbound?: readonly Side[];
}

/** A TCP proxy with mTLS on one side. */
export interface Side {
  /** On 127.0.0.1. */
  readonly port: number;
  /** Where it connects to: `127.0.0.1:8080`. */
  readonly to: string;
  /** The names of the secrets. */
  readonly certificate: string;
  readonly trust: string;
  /** URIs that a peer has one of, said in a combined validation context. Left out: the secret is the whole validation context. */
  readonly peers?: readonly string[];
  readonly protocol?: 'GRPC' | 'DELTA_GRPC';
}

const TLS = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3';
const OPTIONS = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';

export function bootstrap({ inbound = [], outbound = [], ...options }: BootstrapOptions): string {
  const ads = { ads: {}, resource_api_version: 'V3' };
  const sides = [
    ...inbound.map((side) => ({ side, name: `inbound_${side.port}`, isInbound: true })),
    ...outbound.map((side) => ({ side, name: `outbound_${side.port}`, isInbound: false })),
  ];
  return stringify({
    node: { id: 'test', cluster: 'test', metadata: options.metadata ?? {} },
    ...(options.aggregated === true && {
      dynamic_resources: { ads_config: apiOf(options.protocol), cds_config: ads, lds_config: ads },
    }),
    static_resources: {
      listeners: sides.map(({ side, name, isInbound }) => ({
        name,
        address: socketAddress(`127.0.0.1:${side.port}`),
        filter_chains: [{ filters: [tcpProxy(name)], ...(isInbound && { transport_socket: tls('Downstream', side, options) }) }],
      })),
      clusters: [
        {
          ...cluster('scute', { pipe: { path: options.socket } }),
          typed_extension_protocol_options: {
            [OPTIONS]: { '@type': `type.googleapis.com/${OPTIONS}`, explicit_http_config: { http2_protocol_options: {} } },
          },
        },
        ...sides.map(({ side, name, isInbound }) => ({
          ...cluster(name, socketAddress(side.to)),
          ...(!isInbound && { transport_socket: tls('Upstream', side, options) }),
        })),
      ],
    },
  });
}

function tls(direction: 'Upstream' | 'Downstream', side: Side, options: BootstrapOptions): object {
  const { certificate, trust, peers } = side;
  const sds_config = {
    resource_api_version: 'V3',
    ...(options.aggregated === true ? { ads: {} } : { api_config_source: apiOf(side.protocol ?? options.protocol) }),
  };
  const validation_context_sds_secret_config = { name: trust, sds_config };
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': `${TLS}.${direction}TlsContext`,
      ...(direction === 'Downstream' && { require_client_certificate: true }),
      common_tls_context: {
        tls_certificate_sds_secret_configs: [{ name: certificate, sds_config }],
        ...(peers === undefined
          ? { validation_context_sds_secret_config }
          : {
              combined_validation_context: {
                default_validation_context: {
                  match_typed_subject_alt_names: peers.map((exact) => ({ san_type: 'URI', matcher: { exact } })),
                },
                validation_context_sds_secret_config,
              },
            }),
      },
    },
  };
}

function apiOf(protocol: 'GRPC' | 'DELTA_GRPC' = 'GRPC'): object {
  return { api_type: protocol, transport_api_version: 'V3', grpc_services: [{ envoy_grpc: { cluster_name: 'scute' } }] };
}

function tcpProxy(name: string): object {
  const type = 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy';
  return { name: 'envoy.filters.network.tcp_proxy', typed_config: { '@type': type, stat_prefix: name, cluster: name } };
}

function cluster(name: string, address: object): object {
  return { name, type: 'STATIC', load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }] } };
}

function socketAddress(address: string): object {
  const [host, port] = address.split(':');
  return { socket_address: { address: host, port_value: Number(port) } };
}
