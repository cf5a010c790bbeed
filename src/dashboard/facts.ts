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
  TokenList,
  TrustDomainPage,
} from '../admin/api-types.ts';
import { useResource, type Answer } from './live.ts';
import type { PolicyAnswer } from './policy-types.ts';
import { QUESTIONS, type Question } from './questions.ts';

export const useOverview = (): Answer<Overview> => useAnswer(QUESTIONS.overview);
export const useReadiness = (): Answer<Readiness> => useAnswer(QUESTIONS.readiness);
export const useSvids = (): Answer<CertificatePage> => useAnswer(QUESTIONS.svids);
export const useAuthorities = (): Answer<CertificatePage> => useAnswer(QUESTIONS.authorities);
export const useDomains = (): Answer<TrustDomainPage> => useAnswer(QUESTIONS.domains);
export const useRotations = (): Answer<Rotations> => useAnswer(QUESTIONS.rotations);
export const useListeners = (): Answer<ListenerList> => useAnswer(QUESTIONS.listeners);
export const useTokens = (): Answer<TokenList> => useAnswer(QUESTIONS.tokens);
export const useSds = (): Answer<Sds> => useAnswer(QUESTIONS.sds);
export const useLatestRefusals = (): Answer<RefusalPage> => useAnswer(QUESTIONS.latestRefusals);
export const useLatestPeers = (): Answer<PeerPage> => useAnswer(QUESTIONS.latestPeers);
export const usePolicy = (): Answer<PolicyAnswer> => useAnswer(QUESTIONS.policy);

function useAnswer<T>({ path, topics, everyMs, isWhole }: Question): Answer<T> {
  return useResource(path, topics, everyMs, isWhole);
}
