/** The part of the schema that is about tokens: where they come from, and which listeners put them on requests. Pure. */
import * as z from 'zod';
import type { SpiffeId } from '../../spiffe/spiffe-id.ts';
import * as field from '../fields.ts';

/** How we prove to a token endpoint who we are. */
export const CLIENT_AUTHENTICATIONS = ['jwt-bearer', 'jwt-spiffe', 'mtls', 'none'] as const;
export type ClientAuthentication = (typeof CLIENT_AUTHENTICATIONS)[number];

/** `google` and `entra` are the other two, as these services have them. */
export const CREDENTIAL_KINDS = ['client_credentials', 'token_exchange', 'google', 'entra'] as const;

/** Whose JWT-SVID, and for whom. */
export interface JwtChoice {
  readonly audience: string;
  /** Undefined: the agent's default. */
  readonly spiffeId: SpiffeId | undefined;
}

/** A source of access tokens: a token endpoint of OAuth 2.0 (RFC 6749), and what it is asked. */
export interface CredentialConfig {
  readonly name: string;
  readonly grant: 'client_credentials' | 'token_exchange';
  /** `https:`, without user info. */
  readonly tokenEndpoint: string;
  /** Undefined: the authorities of the public web. */
  readonly caFile: string | undefined;
  readonly clientAuth: ClientAuthentication;
  readonly clientId: string | undefined;
  /** The client assertion, or the subject of an exchange; undefined where the X.509-SVID alone speaks for us. */
  readonly jwt: JwtChoice | undefined;
  /** With `mtls`: whose X.509-SVID is presented; undefined for the default. */
  readonly spiffeId: SpiffeId | undefined;
  readonly scope: readonly string[];
  readonly resource: readonly string[];
  readonly audience: readonly string[];
}

/** What an outbound listener puts on requests. */
export interface AttachConfig {
  readonly header: string;
  /** What the application sent under that name is replaced; else a request that has it goes as it is. */
  readonly replace: boolean;
  readonly token: { readonly kind: 'jwt'; readonly jwt: JwtChoice } | { readonly kind: 'credential'; readonly name: string };
}

/** An audience, and what else token endpoints are told: without spaces. */
export const tokenText = z.string().regex(/^[\x21-\x7e]{1,2048}$/, 'must be 1 to 2048 visible ASCII characters');

/** As it was written: servers compare it so (RFC 8707, section 2). */
const resourceUrl = tokenText.refine(
  (url) => field.endpointUrl.safeParse(url).success,
  'must be an https URL without user info and without a fragment',
);

const spiffeId = field.spiffeId.optional();

const attachFields = {
  header: field.fieldName.prefault('Authorization').meta({ description: 'name of the field, which has `Bearer` and the token' }),
  replace: z.boolean().prefault(false).meta({
    description: 'put it in the place of what the application sends under that name; else a request that has such a field goes as it is',
  }),
};

export const attachedJwt = z
  .strictObject({
    audience: tokenText.meta({ description: 'whom the token is for, as the server calls itself' }),
    spiffeId: spiffeId.meta({ description: 'whose token, of several identities; the first that the Workload API gives if left out' }),
    ...attachFields,
  })
  .optional()
  .meta({
    description:
      'put a JWT-SVID on each request that has none; renewed at half of its life, in the background. Without a valid one, a request is answered with a 503. For `protocol: http`',
  });

export const attachedCredential = z
  .strictObject({
    name: field.listenerName.meta({ description: 'of one of `credentials`' }),
    ...attachFields,
  })
  .optional()
  .meta({ description: 'put an access token of `credentials` on each request that has none, as with `jwt`. For `protocol: http`' });

export function attachOf(jwt: z.output<typeof attachedJwt>, credential: z.output<typeof attachedCredential>): AttachConfig | undefined {
  if (jwt !== undefined) {
    const { audience, spiffeId, header, replace } = jwt;
    return { header, replace, token: { kind: 'jwt', jwt: { audience, spiffeId } } };
  }
  if (credential === undefined) return undefined;
  const { name, header, replace } = credential;
  return { header, replace, token: { kind: 'credential', name } };
}

const GOOGLE = {
  tokenEndpoint: 'https://sts.googleapis.com/v1/token',
  scope: ['https://www.googleapis.com/auth/cloud-platform'],
} as const;
const ENTRA_AUDIENCE = 'api://AzureADTokenExchange';

export const credentials = z
  .array(
    z
      .strictObject({
        name: field.listenerName.meta({ description: 'name in the listeners that use it, in logs and metrics' }),
        kind: z.enum(CREDENTIAL_KINDS).meta({
          description:
            'what the token endpoint is asked for: `client_credentials` (RFC 6749, section 4.4), `token_exchange` of a JWT-SVID (RFC 8693), or either as `google` (workload identity federation) and `entra` (federated identity credentials) have it',
        }),
        tokenEndpoint: field.endpointUrl.optional().meta({
          description: 'the URL of the token endpoint. Required, but for `google` and `entra`, which have their own',
        }),
        caFile: field.filePath.optional().meta({
          description:
            'a file with the authorities (PEM) that may vouch for the token endpoint, read again when it changes; those of the public web if left out',
        }),
        tenant: z
          .string()
          .regex(/^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$/, 'must be the id or a domain name of a tenant')
          .optional()
          .meta({ description: '`entra`: the id of the tenant, or a domain name of it. Required, unless there is `tokenEndpoint`' }),
        clientAuth: z.enum(CLIENT_AUTHENTICATIONS).optional().meta({
          description:
            'how we prove who we are: a JWT-SVID as client assertion, of type `jwt-bearer` (RFC 7523) or `jwt-spiffe` (draft-ietf-oauth-spiffe-client-auth); `mtls`, our X.509-SVID (RFC 8705); `none`, where the token that is exchanged is enough. `jwt-bearer` if left out, for `token_exchange` `none`',
        }),
        clientId: tokenText.optional().meta({
          description:
            'the name under which the token endpoint knows us. Required for `mtls` and `entra`; else it may follow from the assertion',
        }),
        jwtAudience: tokenText.optional().meta({
          description:
            'the audience of our JWT-SVID: the issuer identifier of the authorization server, as a rule. Required where there is one, but for `google` and `entra`, which have their own',
        }),
        spiffeId: spiffeId.meta({
          description: 'which of our identities speaks, by JWT-SVID or X.509-SVID; the first that the Workload API gives if left out',
        }),
        scope: z.array(tokenText).max(64).prefault([]).meta({ description: 'what the access token is to be good for' }),
        resource: z.array(resourceUrl).max(16).prefault([]).meta({ description: 'URLs of the servers that it is for (RFC 8707)' }),
        audience: z.array(tokenText).max(16).prefault([]).meta({
          description: 'names of whom it is for; for `google` the one resource name of the provider, `//iam.googleapis.com/projects/…`',
        }),
      })
      .superRefine(checkCredential)
      .transform((raw): CredentialConfig => {
        const { name, caFile, clientId, spiffeId, resource, audience } = raw;
        const common = { name, caFile, clientId, spiffeId, resource, audience };
        const jwtFor = (jwtAudience: string | undefined): JwtChoice | undefined =>
          jwtAudience === undefined ? undefined : { audience: jwtAudience, spiffeId };
        switch (raw.kind) {
          case 'google':
            return {
              ...common,
              grant: 'token_exchange',
              tokenEndpoint: raw.tokenEndpoint ?? GOOGLE.tokenEndpoint,
              clientAuth: 'none',
              jwt: jwtFor(raw.jwtAudience ?? `https:${audience[0]}`),
              scope: raw.scope.length === 0 ? GOOGLE.scope : raw.scope,
            };
          case 'entra':
            return {
              ...common,
              grant: 'client_credentials',
              tokenEndpoint: raw.tokenEndpoint ?? `https://login.microsoftonline.com/${raw.tenant}/oauth2/v2.0/token`,
              clientAuth: 'jwt-bearer',
              jwt: jwtFor(raw.jwtAudience ?? ENTRA_AUDIENCE),
              scope: raw.scope,
            };
          default:
            return {
              ...common,
              grant: raw.kind,
              tokenEndpoint: raw.tokenEndpoint ?? '',
              clientAuth: raw.clientAuth ?? (raw.kind === 'token_exchange' ? 'none' : 'jwt-bearer'),
              jwt: jwtFor(raw.jwtAudience),
              scope: raw.scope,
            };
        }
      }),
  )
  .prefault([])
  .meta({ description: 'sources of access tokens for `outbound` listeners: token endpoints, which take our SVIDs for a client secret' });

interface RawCredential {
  readonly kind: (typeof CREDENTIAL_KINDS)[number];
  readonly tokenEndpoint?: string | undefined;
  readonly tenant?: string | undefined;
  readonly clientAuth?: ClientAuthentication | undefined;
  readonly clientId?: string | undefined;
  readonly jwtAudience?: string | undefined;
  readonly scope: readonly string[];
  readonly audience: readonly string[];
}

function checkCredential(raw: RawCredential, report: Pick<z.RefinementCtx, 'addIssue'>): void {
  const { kind, clientAuth } = raw;
  const problem = (key: string, message: string): void => report.addIssue({ code: 'custom', path: [key], message });
  const needs = (key: keyof RawCredential, why: string): void => {
    if (raw[key] === undefined) problem(key, `is required: ${why}`);
  };
  const isPreset = kind === 'google' || kind === 'entra';
  if (isPreset && clientAuth !== undefined) problem('clientAuth', `is chosen by kind: ${kind}`);
  if (kind !== 'entra' && raw.tenant !== undefined) problem('tenant', 'is for kind: entra');
  if (kind === 'entra') {
    if (raw.tokenEndpoint === undefined) needs('tenant', 'the token endpoint is that of a tenant');
    else if (raw.tenant !== undefined) problem('tenant', 'is replaced by tokenEndpoint: set one of the two');
    needs('clientId', 'the application that the identity is federated with');
    if (raw.scope.length === 0) problem('scope', 'is required, such as [https://graph.microsoft.com/.default]');
  } else if (kind === 'google') {
    if (raw.audience.length !== 1 || raw.audience[0]?.startsWith('//iam.googleapis.com/') !== true)
      problem('audience', 'must be the one resource name of the provider, //iam.googleapis.com/projects/…');
    if (raw.clientId !== undefined) problem('clientId', 'is not asked for by kind: google');
  } else {
    needs('tokenEndpoint', 'where to ask');
    const hasJwt = kind === 'token_exchange' || clientAuth !== 'mtls';
    if (hasJwt) needs('jwtAudience', 'whom the JWT-SVID is for');
    else if (raw.jwtAudience !== undefined) problem('jwtAudience', 'is for a JWT-SVID, and with mtls there is none');
    if (clientAuth === 'mtls') needs('clientId', 'a certificate does not say which client it is for');
    if (kind === 'client_credentials' && clientAuth === 'none') problem('clientAuth', 'would prove to nobody who we are');
  }
}
