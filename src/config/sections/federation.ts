/** `federation` and `bundleEndpoint`: bundles of other trust domains, and ours for them. Pure. */
import * as z from 'zod';
import { ENDPOINT_PROFILES, type BundleEndpointConfig, type FederationConfig } from '../config.ts';
import { checkBundleEndpoint, checkFederation, evenIfIncomplete } from '../consistency.ts';
import * as field from '../fields.ts';
import { identity } from './identity.ts';

export const federation = z
  .strictObject({
    trustDomain: field.trustDomain.meta({ description: 'whose bundle it is, as agreed with them: not ours' }),
    url: field.endpointUrl.meta({ description: 'the bundle endpoint: `https://HOST[:PORT]/PATH`' }),
    profile: z.enum(ENDPOINT_PROFILES).meta({
      description:
        'how the endpoint proves who it is: `https_spiffe` by an X.509-SVID, `https_web` by a certificate for the host name of `url`',
    }),
    endpointSpiffeId: field.spiffeId
      .optional()
      .meta({ description: '`https_spiffe`: the SPIFFE ID that the endpoint must have. Required' }),
    bundleFile: field.filePath.optional().meta({
      description:
        '`https_spiffe`: a file with the bundle of the trust domain of `endpointSpiffeId`, as a SPIFFE bundle (JSON) or PEM, by which the endpoint is judged until a newer one is known. Required where `endpointSpiffeId` is of `trustDomain`',
    }),
    caFile: field.filePath.optional().meta({
      description: '`https_web`: a file with the authorities (PEM) that may vouch for the endpoint; those of the public web if left out',
    }),
  })
  .superRefine(checkFederation, evenIfIncomplete)
  .transform(({ trustDomain, url, profile, endpointSpiffeId, bundleFile, caFile }): FederationConfig => {
    if (profile === 'https_web' || endpointSpiffeId === undefined) return { trustDomain, url, profile: { kind: 'https_web', caFile } };
    return { trustDomain, url, profile: { kind: 'https_spiffe', endpointSpiffeId, bundleFile } };
  });

export const bundleEndpoint = z
  .strictObject({
    listen: field.tcpListenAddress.meta({ description: 'where to serve it: `IP:PORT`; anybody may ask' }),
    path: field.urlPath.prefault('/').meta({ description: 'the path that is answered; every other is not found' }),
    profile: z.enum(ENDPOINT_PROFILES).meta({
      description: 'how it proves who it is: `https_spiffe` by our X.509-SVID, `https_web` by the certificate of `certFile`',
    }),
    identity: identity.meta({
      description: 'which of several SVIDs says what our trust domain is; the first that the Workload API gives if left out',
    }),
    certFile: field.filePath.optional().meta({
      description: '`https_web`: a file with the certificate and its intermediates (PEM), read again when it changes',
    }),
    keyFile: field.filePath.optional().meta({ description: '`https_web`: a file with its private key (PEM), read again when it changes' }),
    refreshHint: field.positiveDuration.prefault('5m').meta({
      description: 'how often others should ask, in whole seconds',
      pattern: field.durationPattern,
    }),
  })
  .superRefine(checkBundleEndpoint, evenIfIncomplete)
  .transform(({ listen, path, profile, identity: choice, certFile, keyFile, refreshHint }): BundleEndpointConfig => {
    const files = profile === 'https_web' && certFile !== undefined && keyFile !== undefined ? { certFile, keyFile } : undefined;
    return {
      listen,
      path,
      identity: choice ?? { by: 'default' },
      profile: files === undefined ? { kind: 'https_spiffe' } : { kind: 'https_web', ...files },
      refreshHintMs: refreshHint,
    };
  });
