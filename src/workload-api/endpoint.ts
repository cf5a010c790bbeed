import { isIPv6 } from 'node:net';
import { parseEndpoint, type Address } from '../config/units.ts';
import { err, ok, type Result } from '../lib/result.ts';

export const ENDPOINT_VARIABLE = 'SPIFFE_ENDPOINT_SOCKET';

/**
 * Where the Workload API is: what the configuration or a flag says, else the environment variable `SPIFFE_ENDPOINT_SOCKET`, whose value
 * the caller passes in (SPIFFE Workload Endpoint, section 4). The error is a sentence that names the value.
 */
export function chooseEndpoint(configured: string | Address | undefined, fromEnvironment: string | undefined): Result<Address, string> {
  if (typeof configured === 'object') return ok(configured);
  if (configured !== undefined) return parseEndpoint(configured);
  if (fromEnvironment === undefined || fromEnvironment === '') {
    return err(`no Workload API address: set workloadApi.endpoint or ${ENDPOINT_VARIABLE}, such as unix:///run/spire/agent.sock`);
  }
  const parsed = parseEndpoint(fromEnvironment);
  return parsed.ok ? parsed : err(`${ENDPOINT_VARIABLE}: ${parsed.error}`);
}

/** The text that `parseEndpoint` reads back, for logs. */
export function formatEndpoint(endpoint: Address): string {
  return endpoint.kind === 'unix' ? `unix://${endpoint.path}` : `tcp://${hostPort(endpoint.host, endpoint.port)}`;
}

/** The endpoint as gRPC's naming scheme writes it: these forms never reach DNS. */
export function grpcTarget(endpoint: Address): string {
  if (endpoint.kind === 'unix') return `unix:${endpoint.path}`;
  return `${isIPv6(endpoint.host) ? 'ipv6' : 'ipv4'}:${hostPort(endpoint.host, endpoint.port)}`;
}

function hostPort(host: string, port: number): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}
