/** `sds`: the Secret Discovery Service. Pure. */
import * as z from 'zod';
import type { SvidChoice } from '../../identity/snapshot.ts';
import type { CheckLimits, SdsConfig } from '../config.ts';
import { checkSds, checkSocket, evenIfIncomplete } from '../consistency.ts';
import * as field from '../fields.ts';
import { identity } from './identity.ts';
import { NO_FILES, policyFrom } from './policy.ts';
import { socketOf, type SocketFields } from './socket.ts';

const secretName = (name: string, description: string) =>
  z
    .string()
    .min(1)
    .max(2048)
    .prefault(name)
    .meta({ description: `${description}; the SPIRE agent has the same option` });

const sdsLimit = (most: number, standard: number, description: string) => z.int().min(1).max(most).prefault(standard).meta({ description });

const sdsLimits = z
  .strictObject({
    maxConnections: sdsLimit(
      10_000,
      256,
      'connections, and a quarter of the file descriptors at most; then one without a stream makes room, or the new one is closed',
    ),
    maxStreams: sdsLimit(1_000_000, 10_000, 'streams of all connections'),
    maxStreamsPerConnection: sdsLimit(100_000, 1000, 'streams of one connection; an Envoy has one a secret'),
    maxNames: sdsLimit(100_000, 1000, 'names that one stream may ask for'),
    maxRequestBytes: sdsLimit(4_194_304, 262_144, 'bytes of a request; what an Envoy says of itself takes some ten thousand'),
    maxSubscriptionBytes: sdsLimit(1_073_741_824, 1_048_576, 'bytes of the names that one connection asks for, and 64 more for each name'),
    maxRequestRate: sdsLimit(
      1_000_000,
      200,
      'requests a second of one connection that do more than answer a response, such as new streams and health checks, and ten times as many at once; acknowledgements are free',
    ),
  })
  .prefault({})
  .meta({ description: 'limits; beyond one a stream ends with RESOURCE_EXHAUSTED' });

const authorization = z
  .strictObject({
    maxConcurrentChecks: sdsLimit(1_000_000, 1024, 'checks at a time, of all connections'),
    maxConcurrentChecksPerConnection: sdsLimit(100_000, 512, 'checks at a time of one connection; a thread of Envoy has one'),
    maxRequestBytes: sdsLimit(
      4_194_304,
      262_144,
      'bytes of a check, which has all fields of the request; Envoy takes requests of 60 KiB of them',
    ),
    requestTimeout: field.positiveDuration.prefault('5s').meta({
      description: 'how long a check may take until it has come whole and its answer was taken',
      pattern: field.durationPattern,
    }),
  })
  .transform(({ requestTimeout, ...limits }): CheckLimits => ({ ...limits, requestTimeoutMs: requestTimeout }));

const sdsMatchers = z
  .strictObject({
    secret: z
      .string()
      .min(1)
      .max(2048)
      .meta({ description: 'the name of the secret, such as `ROOTCA`; other names of the same bundle stay as they are' }),
    listener: field.listenerName.optional().meta({
      description:
        'the inbound listener whose policy it is, as it changes; a rule that asks for more than a peer and times withholds the secret',
    }),
    allow: field.timedRuleList.optional().meta({ description: 'or a list of its own, with no more than peers and times' }),
  })
  .transform(({ secret, listener, allow }) => ({ secret, listener, policy: allow && policyFrom(undefined, { allow }, NO_FILES).policy }));

export function createSds(socketFields: SocketFields) {
  return z
    .strictObject({
      listen: field.localListenAddress.meta({
        description: 'where to serve it: `unix:///path`. Who may open the socket holds the identity, private key and all',
      }),
      ...socketFields,
      identity: identity.meta({
        description: 'which of several SVIDs the default one is; the first that the Workload API gives if left out',
      }),
      defaultSvidName: secretName('default', 'another name of the default SVID'),
      defaultBundleName: secretName('ROOTCA', 'another name of the trust bundle of our own trust domain'),
      defaultAllBundlesName: secretName(
        'ALL',
        'name of all trust bundles together, for the SPIFFE validator alone; where `defaultBundleName` is the same name, that one is meant',
      ),
      disableSpiffeCertValidation: z.boolean().prefault(false).meta({
        description:
          'trust bundles as plain `trusted_ca`, not for the SPIFFE validator of Envoy, unless `disable_spiffe_cert_validation` in the metadata of its node says otherwise; the SPIRE agent has the same option',
      }),
      strictUnknownNames: z
        .boolean()
        .prefault(false)
        .meta({ description: 'end a stream that asks for a name that is not there, as the SPIRE agent does, instead of waiting for it' }),
      crls: z.boolean().prefault(false).meta({
        description: 'put the revocation lists of the Workload API into trust bundles of which every authority has one',
      }),
      matchers: z.array(sdsMatchers).prefault([]).meta({
        description:
          'allow lists that go into validation contexts as `match_typed_subject_alt_names`; an empty one withholds the secret, since Envoy would admit everybody',
      }),
      limits: sdsLimits,
      authorization: authorization.optional().meta({
        description:
          'answer checks of Envoy (`ext_authz`) by the policies of the inbound listeners, on the same socket and with these limits; `{}` will do. Not served if left out',
      }),
      unsafeTcp: field.unsafe('let `listen` be a loopback address, which hands the private keys to every local user'),
    })
    .superRefine(checkSocket, evenIfIncomplete)
    .superRefine(checkSds, evenIfIncomplete)
    .optional()
    .meta({ description: 'the Secret Discovery Service of Envoy; not served if left out' });
}

/** What is left of the section once it was judged. */
export function sdsOf(
  raw: Omit<SdsConfig, 'socketMode' | 'socketGid' | 'identity' | 'authorization'> & {
    authorization?: CheckLimits | undefined;
    socketMode?: number | undefined;
    socketGroup?: number | undefined;
    identity?: SvidChoice | undefined;
  },
): SdsConfig {
  const { defaultSvidName, defaultBundleName, defaultAllBundlesName, disableSpiffeCertValidation, strictUnknownNames } = raw;
  const { identity = { by: 'default' }, crls, matchers, limits, authorization: checks } = raw;
  const names = { defaultSvidName, defaultBundleName, defaultAllBundlesName };
  return {
    ...socketOf(raw),
    ...names,
    identity,
    disableSpiffeCertValidation,
    strictUnknownNames,
    crls,
    matchers,
    limits,
    authorization: checks,
  };
}
