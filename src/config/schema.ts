/** The one description of a configuration: checks, defaults, JSON Schema and the reference table all come from it. Pure. */
import * as z from 'zod';
import { LOG_FORMATS, LOG_LEVELS, type Config } from './config.ts';
import { checkListeners, evenIfIncomplete } from './consistency.ts';
import * as field from './fields.ts';
import { fileSetSchema } from './file-sets.ts';
import { credentials } from './sections/credentials.ts';
import { createExecSection, type UserLookups } from './sections/exec.ts';
import { bundleEndpoint, federation } from './sections/federation.ts';
import { identity } from './sections/identity.ts';
import { createInbound, inboundOf } from './sections/inbound.ts';
import { defaultLimits } from './sections/limits.ts';
import { createAdmin, createMetrics } from './sections/metrics-and-admin.ts';
import { createOutbound, outboundOf } from './sections/outbound.ts';
import { NO_FILES, type FileLookups } from './sections/policy.ts';
import { createSds, sdsOf } from './sections/sds.ts';
import { createSocketFields, socketOf } from './sections/socket.ts';

/** What the schema must ask the system about. */
export interface Lookups extends UserLookups {
  /** What the files hold that the configuration names; none are known if left out. */
  readonly files?: FileLookups | undefined;
  /** What is wrong with a directory for a set of files; undefined if nothing is. Not asked if left out. */
  readonly directoryProblem?: ((path: string, unsafeDisk: boolean) => string | undefined) | undefined;
  /** Whether there is an application beside us; nobody knows if left out. */
  readonly runsApplication?: boolean | undefined;
}

/** The whole schema. Its input is what a YAML file gives. */
export function createConfigSchema(lookups: Lookups) {
  const files = lookups.files ?? NO_FILES;
  // Zod would compile each object with `new Function`, which takes longer than to interpret them once.
  z.config({ jitless: true });
  const groupOf = field.numbered('group', (name) => lookups.groupId(name));
  const socketFields = createSocketFields(groupOf);
  const fileSet = fileSetSchema({
    identity,
    group: groupOf,
    user: field.numbered('user', (name) => lookups.user?.(name)?.uid),
    directoryProblem: (path, unsafeDisk) => lookups.directoryProblem?.(path, unsafeDisk),
    runsApplication: lookups.runsApplication,
  });

  return z
    .strictObject({
      workloadApi: z
        .strictObject({
          endpoint: field.endpoint
            .optional()
            .meta({ description: '`unix:///path` or `tcp://IP:PORT`; that of `SPIFFE_ENDPOINT_SOCKET` if left out' }),
        })
        .prefault({})
        .meta({ description: 'where identity comes from: a SPIFFE Workload API, such as that of a SPIRE agent' }),
      inbound: z.array(createInbound(socketFields, files)).prefault([]).meta({ description: 'listeners towards the application' }),
      outbound: z.array(createOutbound(socketFields, files)).prefault([]).meta({ description: 'listeners away from the application' }),
      credentials,
      limits: defaultLimits,
      metrics: createMetrics(socketFields),
      admin: createAdmin(socketFields),
      sds: createSds(socketFields),
      federation: z.array(federation).prefault([]).meta({
        description: 'bundle endpoints of other trust domains, for those that the Workload API says nothing of',
      }),
      bundleEndpoint: bundleEndpoint.optional().meta({
        description: 'a bundle endpoint for our own trust domain, with what the Workload API says of it; not served if left out',
      }),
      files: z.array(fileSet).max(100).prefault([]).meta({
        description:
          'sets of files with SVID, private key and trust bundles, or JWT-SVIDs, for programs that read such; none are written if left out',
      }),
      revocations: z
        .strictObject({
          file: field.absolutePath.meta({
            description:
              'the deny list: SPIFFE IDs, certificates and serial numbers that are refused, and whose open connections are closed, within a second of a change; `docs/reference/revocation.md` has its form. It must be there at the start',
          }),
        })
        .optional()
        .meta({ description: 'who is refused whatever else speaks for them, in both directions; nobody if left out' }),
      exec: createExecSection(lookups),
      log: z
        .strictObject({
          level: z
            .enum(LOG_LEVELS)
            .prefault('info')
            .meta({ description: 'the least severe level that is written; that of `SCUTE_LOG_LEVEL` if left out' }),
          format: z
            .enum(LOG_FORMATS)
            .prefault('auto')
            .meta({ description: '`json`, `pretty`, or `auto`: pretty on a terminal, else JSON' }),
        })
        .prefault({})
        .meta({ description: 'the log, on standard output' }),
      drainTimeout: field.duration.prefault('30s').meta({
        description:
          'after the first signal, how long open connections may go on, and how long each that drains may take; `0s` closes them at once',
        pattern: field.durationPattern,
      }),
    })
    .superRefine(checkListeners, evenIfIncomplete)
    .transform((raw): Config => ({
      workloadApi: { endpoint: raw.workloadApi.endpoint ?? '' },
      inbound: raw.inbound.map((entry, index) => inboundOf(entry, index, raw.limits, files)),
      outbound: raw.outbound.map((entry, index) => outboundOf(entry, index, raw.limits, files)),
      metrics: raw.metrics && { ...socketOf(raw.metrics), allowedHosts: raw.metrics.allowedHosts, probes: raw.metrics.probes },
      admin: raw.admin && { ...socketOf(raw.admin), allowedHosts: raw.admin.allowedHosts },
      revocations: raw.revocations,
      sds: raw.sds && sdsOf(raw.sds),
      federation: raw.federation,
      bundleEndpoint: raw.bundleEndpoint,
      exec: raw.exec,
      files: raw.files.map((set, index) => set(index)),
      credentials: raw.credentials,
      log: raw.log,
      drainTimeoutMs: raw.drainTimeout,
    }));
}

export type ConfigSchema = ReturnType<typeof createConfigSchema>;
