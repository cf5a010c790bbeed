import { TOKEN_PROBLEMS } from '../../jwt/token.ts';

/** Why a message of JWT bundles was refused as a whole. One closed set: the metric label, the log field and the documentation share it. */
export const JWT_BUNDLE_PROBLEMS = ['undecodable', 'bad_trust_domain', 'conflicting_bundles', 'bad_jwt_bundle', 'too_many_keys'] as const;
export type JwtBundleProblemCode = (typeof JWT_BUNDLE_PROBLEMS)[number];

/** What became of the token of a request. One closed set: the metric label, the log field and the documentation share it. */
export const TOKEN_RESULTS = [
  'known', // it was verified before, and still holds
  'verified',
  'none', // the request had none, and needed none
  'token_missing',
  'token_repeated', // more than one
  'token_unverifiable', // no JWT bundles have come yet
  'token_revoked', // the deny list names its subject
  ...TOKEN_PROBLEMS,
] as const;
export type TokenResult = (typeof TOKEN_RESULTS)[number];
/** Why a request was refused for its token, or for want of one. */
export type TokenRefusal = Exclude<TokenResult, 'known' | 'verified' | 'none'>;

/** What became of the tokens of one listener since the start. Time is wall time, milliseconds since 1970. */
export interface TokenCounts {
  accepted: number;
  /** Only of what there was. */
  readonly refused: Map<TokenRefusal, number>;
  lastRefusedAtMs: number | undefined;
}
