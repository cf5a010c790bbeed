/** What can be wrong with a peer's chain, whoever the peer is. The policy's own reasons are added in `policy/verdict.ts`. */
export const PEER_PROBLEMS = [
  'no_certificate',
  'bad_certificate',
  'not_an_svid',
  'unknown_trust_domain',
  'untrusted_chain',
  'expired',
  'not_yet_valid',
  'revoked',
  'chain_not_read',
] as const;
export type PeerProblem = (typeof PEER_PROBLEMS)[number];
