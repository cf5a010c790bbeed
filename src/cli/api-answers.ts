/**
 * What commands read of `/api/v1/`: whoever listens there may be another version of Scute, or something else. Properties that are not known
 * are kept.
 */
import * as z from 'zod';
import type * as api from '../admin/api-types.ts';

const text = z.string();
const maybe = text.nullable();
const count = z.number().min(0);
const object = z.looseObject;

export const pageSchema = object({ items: z.array(z.unknown()), nextCursor: maybe });

const listenerName = object({ name: text, direction: z.enum(['inbound', 'outbound']) });

export const certificateSchema: z.ZodType<api.Certificate> = object({
  id: text,
  kind: z.enum(['svid', 'intermediate', 'authority', 'peer', 'peer_intermediate', 'refused']),
  spiffeId: maybe,
  trustDomain: maybe,
  hint: maybe,
  subject: text,
  issuerName: text,
  issuer: maybe,
  serial: text,
  sha256: text,
  subjectKeyId: maybe,
  issuerKeyId: maybe,
  keyType: text,
  signatureAlgorithm: text,
  notBefore: maybe,
  notAfter: maybe,
  validity: z.enum(['valid', 'expired', 'not_yet_valid', 'unknown']),
  remainingShare: z.number().min(0).max(1),
  receivedAt: maybe,
  generation: count.nullable(),
  source: z.enum(['workload_api', 'bundle_endpoint', 'peer']),
  listeners: z.array(listenerName),
  sds: z.array(
    object({
      stream: count,
      node: text,
      name: text,
      version: text,
      current: z.boolean(),
      status: z.enum(['sent', 'accepted', 'rejected']),
    }),
  ),
  sdsSubscribers: count,
  rotations: count.nullable(),
  issued: count.nullable(),
  peer: object({
    verdict: text,
    detail: maybe,
    handshakes: count,
    firstSeenAt: maybe,
    lastSeenAt: maybe,
    connections: count,
  }).nullable(),
  findings: z.array(object({ verdict: z.enum(['refused', 'tolerated']), clause: maybe, problem: text })),
});
