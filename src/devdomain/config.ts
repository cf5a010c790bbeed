import * as z from 'zod';
import { positiveDuration, socketMode, spiffeId, trustDomain } from '../config/fields.ts';
import { pathOf, trustDomainOf } from '../spiffe/spiffe-id.ts';
import { KEY_TYPES } from './key-pair.ts';

const workloadId = spiffeId.refine((id) => pathOf(id) !== '', "a workload's SPIFFE ID needs a path");

/** A label of letters, digits and hyphens, dots between: what a certificate may hold as a DNS name. */
const dnsName = z
  .string()
  .regex(/^(?=.{1,253}$)(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i, 'not a DNS name');

const identitySchema = z.preprocess(
  (value) => (typeof value === 'string' ? { id: value } : value),
  z.strictObject({
    id: workloadId,
    /** At most 1024 bytes (Workload API standard). */
    hint: z.string().max(1024).default(''),
    dnsNames: z.array(dnsName).default([]),
  }),
);

const workloadSchema = z.strictObject({
  /** How the programmatic API calls it; by default the socket's file name without `.sock`. */
  name: z.string().min(1).optional(),
  /** Absolute path of the Unix socket. Whoever may open it holds the identities. */
  socket: z.string().startsWith('/', 'not an absolute path').optional(),
  /** Permission bits of the socket, octal. */
  socketMode: socketMode.prefault('0600'),
  /** Instead of `socket`: a port on 127.0.0.1, 0 for any. Every local user holds the identities. */
  unsafeTcpPort: z.int().min(0).max(65535).optional(),
  /** In this order; the first is the default identity. Empty: PermissionDenied. */
  ids: z.array(identitySchema),
});

const trustDomainSchema = z.strictObject({
  name: trustDomain,
  svidLife: positiveDuration.prefault('1h'),
  rotateEvery: positiveDuration.optional(),
  keyType: z.enum(KEY_TYPES).default('ec-p256'),
  /** Of the roots and intermediates; that of the leaves by default. */
  authorityKeyType: z.enum(KEY_TYPES).optional(),
  /** A new authority takes over after half of it. */
  authorityLife: positiveDuration.prefault('14d'),
  intermediates: z.int().min(0).max(5).default(0),
  jwtSvidLife: positiveDuration.prefault('5m'),
  federatesWith: z.array(trustDomain).default([]),
  /** A workload without an identity may still ask for bundles. */
  bundlesWithoutIdentity: z.boolean().default(false),
  /** Where the X.509 authorities are written as PEM, at every change. Certificates only. */
  bundleFile: z.string().startsWith('/', 'not an absolute path').optional(),
  workloads: z.array(workloadSchema).default([]),
});

export const devConfigSchema = z.strictObject({ trustDomains: z.array(trustDomainSchema).min(1) }).superRefine(checkReferences);

/** Durations in milliseconds, defaults filled in. */
export type DevConfig = z.output<typeof devConfigSchema>;
export type DevConfigInput = z.input<typeof devConfigSchema>;
export type DevTrustDomain = DevConfig['trustDomains'][number];
export type DevWorkload = DevTrustDomain['workloads'][number];

/** Certificates live to the second, so that nothing shorter makes sense. */
const SHORTEST_SVID_LIFE_MS = 1000;

/** How often SVIDs are replaced: half of their life unless the configuration says. */
export function rotationPeriodMs(domain: DevTrustDomain): number {
  return domain.rotateEvery ?? domain.svidLife / 2;
}

/** How the programmatic API and log lines call a workload. */
export function workloadName(workload: DevWorkload): string {
  return workload.name ?? workload.socket?.replace(/^.*\//, '').replace(/\.sock$/, '') ?? `port-${workload.unsafeTcpPort}`;
}

function checkReferences(config: { readonly trustDomains: readonly DevTrustDomain[] }, context: z.RefinementCtx): void {
  const problem = (path: (string | number)[], message: string): void => {
    context.addIssue({ code: 'custom', path: ['trustDomains', ...path], message });
  };
  const names = config.trustDomains.map(({ name }) => name);
  const sockets = new Set<string>();
  const workloads = new Set<string>();
  for (const [index, domain] of config.trustDomains.entries()) {
    if (names.indexOf(domain.name) !== index) problem([index, 'name'], `trust domain ${JSON.stringify(domain.name)} is there twice`);
    if (domain.svidLife < SHORTEST_SVID_LIFE_MS) problem([index, 'svidLife'], 'shorter than one second');
    if (domain.authorityLife / 2 < domain.svidLife) problem([index, 'authorityLife'], 'shorter than twice svidLife');
    if (rotationPeriodMs(domain) >= domain.svidLife) problem([index, 'rotateEvery'], 'not shorter than svidLife');
    for (const [at, other] of domain.federatesWith.entries()) {
      if (other === domain.name) problem([index, 'federatesWith', at], 'a trust domain does not federate with itself');
      if (!names.includes(other)) problem([index, 'federatesWith', at], `there is no trust domain ${JSON.stringify(other)} in this file`);
    }
    for (const [at, workload] of domain.workloads.entries()) {
      const path = [index, 'workloads', at];
      if ((workload.socket === undefined) === (workload.unsafeTcpPort === undefined)) problem(path, 'needs either socket or unsafeTcpPort');
      if (workload.socket !== undefined && sockets.has(workload.socket)) problem([...path, 'socket'], `${workload.socket} is there twice`);
      if (workload.socket !== undefined) sockets.add(workload.socket);
      const name = workloadName(workload);
      if (workloads.has(name)) problem(path, `two workloads are called ${JSON.stringify(name)}: give one a name`);
      workloads.add(name);
      for (const [number, { id, hint }] of workload.ids.entries()) {
        const idPath = [...path, 'ids', number];
        if (trustDomainOf(id) !== domain.name) problem([...idPath, 'id'], `${id} is not in trust domain ${JSON.stringify(domain.name)}`);
        // Hints are unique in a response (Workload API standard).
        const first = workload.ids.findIndex((other) => other.hint === hint);
        if (hint !== '' && first !== number) problem([...idPath, 'hint'], `hint ${JSON.stringify(hint)} is there twice`);
      }
    }
  }
}
