/** `metrics` and `admin`: what is served about Scute itself. Pure. */
import * as z from 'zod';
import { checkSocket, evenIfIncomplete } from '../consistency.ts';
import * as field from '../fields.ts';
import { probes } from './probes.ts';
import type { SocketFields } from './socket.ts';

const allowedHosts = z
  .array(field.hostName)
  .prefault([])
  .meta({ description: 'host names that a request may be addressed to, besides `localhost` and IP addresses' });

export function createMetrics(socketFields: SocketFields) {
  return z
    .strictObject({
      listen: field.listenAddress.meta({ description: 'where to serve `/metrics`, `/livez` and `/readyz`: any address' }),
      ...socketFields,
      allowedHosts,
      probes,
    })
    .superRefine(checkSocket, evenIfIncomplete)
    .optional()
    .meta({ description: 'metrics and probes; not served if left out' });
}

export function createAdmin(socketFields: SocketFields) {
  return z
    .strictObject({
      listen: field.localListenAddress.meta({ description: 'where to serve the admin API: `unix:///path` or a loopback address' }),
      ...socketFields,
      allowedHosts,
    })
    .superRefine(checkSocket, evenIfIncomplete)
    .optional()
    .meta({ description: 'the admin API; not served if left out' });
}
