/** What a token endpoint is asked. Pure. */
import type { CredentialConfig } from '../config/sections/credentials.ts';

const GRANT_TYPES = {
  client_credentials: 'client_credentials',
  token_exchange: 'urn:ietf:params:oauth:grant-type:token-exchange',
} as const;
const JWT_TYPE = 'urn:ietf:params:oauth:token-type:jwt';
const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token';
/** RFC 7523, section 2.2; draft-ietf-oauth-spiffe-client-auth, section 3. */
const ASSERTION_TYPES = {
  'jwt-bearer': 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
  'jwt-spiffe': 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe',
} as const;

export type Parameter = readonly [name: string, value: string];

export interface TokenRequest {
  readonly grantType: string;
  readonly parameters: readonly Parameter[];
  /** How the client says who it is. */
  readonly client: readonly Parameter[];
}

/** `jwt` is the JWT-SVID, where the credential needs one. */
export function tokenRequest(config: CredentialConfig, jwt: string | undefined): TokenRequest {
  const { grant, clientAuth, clientId, scope, resource, audience } = config;
  if ((config.jwt === undefined) !== (jwt === undefined)) throw new Error('a credential has another JWT-SVID than it needs');
  const asked: Parameter[] = [
    ...resource.map((url): Parameter => ['resource', url]),
    ...audience.map((name): Parameter => ['audience', name]),
    ...(scope.length === 0 ? [] : [['scope', scope.join(' ')] as const]),
  ];
  const exchanged: Parameter[] =
    grant === 'token_exchange' && jwt !== undefined
      ? [
          ['requested_token_type', ACCESS_TOKEN_TYPE],
          ['subject_token', jwt],
          ['subject_token_type', JWT_TYPE],
        ]
      : [];
  const assertion: Parameter[] =
    (clientAuth === 'jwt-bearer' || clientAuth === 'jwt-spiffe') && jwt !== undefined
      ? [
          ['client_assertion_type', ASSERTION_TYPES[clientAuth]],
          ['client_assertion', jwt],
        ]
      : [];
  const client: Parameter[] = [...(clientId === undefined ? [] : [['client_id', clientId] as const]), ...assertion];
  return { grantType: GRANT_TYPES[grant], parameters: [...asked, ...exchanged], client };
}
