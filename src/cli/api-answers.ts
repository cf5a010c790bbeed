/**
 * What commands read of `/api/v1/`: whoever listens there may be another version of Scute, or something else. Properties that are not known
 * are kept.
 */
import * as z from 'zod';
import type * as api from '../admin/api-types.ts';

const text = z.string();
const texts = z.array(text);
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
  files: z.array(text),
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

export const overviewSchema: z.ZodType<api.Overview> = object({
  version: text,
  node: text,
  openssl: text,
  startedAt: maybe,
  now: maybe,
  ready: z.boolean(),
  failing: texts,
  warnings: texts,
  identity: object({
    state: z.enum(['waiting', 'held', 'none']),
    reason: maybe,
    spiffeId: maybe,
    certificate: maybe,
    generation: count,
    receivedAt: maybe,
    firstExpiry: maybe,
  }),
  certificates: object({
    svid: count,
    intermediate: count,
    authority: count,
    peer: count,
    peer_intermediate: count,
    refused: count,
  }),
  trustDomains: count,
  connections: count,
  listeners: count,
  sdsStreams: count,
  refusals: count,
  application: object({
    program: text,
    state: z.enum(['waiting', 'running', 'ended']),
    since: maybe,
    pid: z.number().nullable(),
    result: maybe,
    exitCode: z.number().nullable(),
  }).nullable(),
  lastReload: object({ at: maybe, ok: z.boolean(), differences: texts, needRestart: texts, problems: texts }).nullable(),
});

export const readinessSchema: z.ZodType<api.Readiness> = object({
  ready: z.boolean(),
  checks: z.array(object({ name: text, ok: z.boolean(), detail: maybe, blocks: z.boolean() })),
});

export const listenersSchema: z.ZodType<api.ListenerList> = object({
  items: z.array(
    object({
      ...listenerName.shape,
      address: maybe,
      to: text,
      presents: maybe,
      certificate: maybe,
      exposedAt: texts,
      connections: object({ opened: count, open: count, waiting: count, handshaking: count }),
      bytes: object({ downstreamRead: count, downstreamWritten: count, upstreamRead: count, upstreamWritten: count }),
      tokens: object({ accepted: count, refused: z.array(object({ reason: text, count })), lastRefusedAt: maybe }).nullable(),
    }),
  ),
});

export const trustDomainSchema: z.ZodType<api.TrustDomain> = object({
  trustDomain: text,
  isOwn: z.boolean(),
  source: z.enum(['workload_api', 'bundle_endpoint']).nullable(),
  authorities: count,
  firstExpiry: maybe,
  lastBegin: maybe,
  lastExpiry: maybe,
  revocationLists: count,
  jwtAuthorities: count.nullable(),
  jwtKeyIds: texts,
  notes: texts,
  endpoint: object({
    url: text,
    sequence: maybe,
    lastSuccessAt: maybe,
    nextRefreshAt: maybe,
    problem: object({ reason: text, detail: text }).nullable(),
  }).nullable(),
});

export const connectionSchema: z.ZodType<api.Connection> = object({
  id: count,
  listener: listenerName,
  downstreamAddress: text,
  via: maybe,
  upstreamAddress: text,
  peer: maybe,
  certificate: maybe,
  presented: maybe,
  tls: object({ version: text, alpn: maybe }).nullable(),
  rule: maybe,
  audited: maybe,
  denied: maybe,
  since: maybe,
  bytesFromDownstream: count,
  bytesToDownstream: count,
});

export const refusalSchema: z.ZodType<api.Refusal> = object({
  connection: count,
  at: maybe,
  listener: listenerName,
  downstreamAddress: text,
  peer: maybe,
  certificate: maybe,
  reason: text,
  rule: maybe,
  detail: text,
});

export const sdsStreamSchema: z.ZodType<api.SdsStream> = object({
  stream: count,
  connection: count,
  protocol: z.enum(['sotw', 'delta']),
  aggregated: z.boolean(),
  node: text,
  userAgent: text,
  validation: maybe,
  openedAt: maybe,
  responses: count,
  everything: z.boolean(),
  subscriptions: z.array(
    object({
      name: text,
      version: maybe,
      status: z.enum(['none', 'sent', 'accepted', 'rejected']),
      detail: maybe,
      missing: maybe,
      current: z.boolean().nullable(),
    }),
  ),
  subscriptionsOmitted: count,
});

export const rotationsSchema: z.ZodType<api.Rotations> = object({
  past: z.array(
    object({
      at: maybe,
      generation: count,
      change: z.enum(['svid_added', 'svid_rotated', 'svid_removed', 'authority_added', 'authority_removed', 'identity_withdrawn']),
      spiffeId: maybe,
      trustDomain: maybe,
      certificate: maybe,
      replaced: maybe,
      notAfter: maybe,
    }),
  ),
  due: z.array(
    object({
      at: maybe,
      what: z.enum(['svid_renewal', 'svid_overdue', 'svid_expiry', 'authority_expiry', 'bundle_refresh']),
      spiffeId: maybe,
      trustDomain: maybe,
      certificate: maybe,
    }),
  ),
});
