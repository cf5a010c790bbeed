/** What several pages and the head of each stand on, asked for once. */
import type {
  CertificatePage,
  ListenerList,
  Overview,
  PeerPage,
  Readiness,
  RefusalPage,
  Rotations,
  Sds,
  TrustDomainPage,
} from '../admin/api-types.ts';
import { useResource, type Answer } from './live.ts';
import type { PolicyAnswer } from './policy-types.ts';
import { apiPath } from './routes.ts';

/** Of few-line lists. */
const LATEST = 5;

export const useOverview = (): Answer<Overview> =>
  useResource(apiPath('overview'), ['identity', 'trust', 'readiness', 'peers', 'refusals', 'sds', 'configuration']);
export const useReadiness = (): Answer<Readiness> => useResource(apiPath('readiness'), ['readiness']);
export const useSvids = (): Answer<CertificatePage> =>
  useResource(apiPath('certificates', { kind: 'svid' }), ['identity', 'sds', 'configuration']);
export const useAuthorities = (): Answer<CertificatePage> =>
  useResource(apiPath('certificates', { kind: 'authority', limit: 500 }), ['identity', 'trust']);
export const useDomains = (): Answer<TrustDomainPage> => useResource(apiPath('trust-domains', { limit: 500 }), ['identity', 'trust']);
export const useRotations = (): Answer<Rotations> => useResource(apiPath('rotations'), ['identity', 'trust']);
export const useListeners = (): Answer<ListenerList> => useResource(apiPath('listeners'), ['peers', 'traffic', 'identity', 'readiness']);
export const useSds = (): Answer<Sds> => useResource(apiPath('sds'), ['sds', 'identity']);
export const useLatestRefusals = (): Answer<RefusalPage> => useResource(apiPath('refusals'), ['refusals']);
export const useLatestPeers = (): Answer<PeerPage> => useResource(apiPath('peers', { limit: LATEST }), ['peers', 'traffic']);
/** Judging what was refused takes the process some milliseconds, so it is asked more seldom. */
export const usePolicy = (): Answer<PolicyAnswer> => useResource('policy', ['refusals', 'peers', 'traffic', 'configuration'], 5000);
