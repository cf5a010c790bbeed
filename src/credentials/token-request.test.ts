import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as z from 'zod';
import { credentials, type CredentialConfig } from '../config/sections/credentials.ts';
import { tokenRequest } from './token-request.ts';

const JWT = 'header.claims.signature';
const ENDPOINT = 'https://login.partner.example/token';

function configured(raw: object): CredentialConfig {
  const [config] = credentials.parse([{ name: 'partner', ...raw }]);
  assert.ok(config !== undefined);
  return config;
}

/** All that is sent, as the form has it, sorted by name. */
function formOf(config: CredentialConfig): readonly (readonly [string, string])[] {
  const { grantType, parameters, client } = tokenRequest(config, config.jwt === undefined ? undefined : JWT);
  return [['grant_type', grantType] as const, ...parameters, ...client].toSorted(([one], [other]) => one.localeCompare(other));
}

test('client_credentials with a JWT-SVID as client assertion (RFC 7523, section 2.2)', () => {
  const config = configured({
    kind: 'client_credentials',
    tokenEndpoint: ENDPOINT,
    jwtAudience: 'https://login.partner.example',
    scope: ['read', 'write'],
  });
  assert.deepEqual(config.jwt, { audience: 'https://login.partner.example', spiffeId: undefined });
  assert.deepEqual(formOf(config), [
    ['client_assertion', JWT],
    ['client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'],
    ['grant_type', 'client_credentials'],
    ['scope', 'read write'],
  ]);
});

test('client_credentials as draft-ietf-oauth-spiffe-client-auth has it', () => {
  const config = configured({
    kind: 'client_credentials',
    tokenEndpoint: ENDPOINT,
    clientAuth: 'jwt-spiffe',
    clientId: 'scute',
    jwtAudience: 'https://login.partner.example',
    resource: ['https://api.partner.example/'],
  });
  assert.deepEqual(formOf(config), [
    ['client_assertion', JWT],
    ['client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe'],
    ['client_id', 'scute'],
    ['grant_type', 'client_credentials'],
    ['resource', 'https://api.partner.example/'],
  ]);
});

test('client_credentials over mTLS names the client and has no assertion (RFC 8705, section 2)', () => {
  const config = configured({ kind: 'client_credentials', tokenEndpoint: ENDPOINT, clientAuth: 'mtls', clientId: 'scute' });
  assert.deepEqual(formOf(config), [
    ['client_id', 'scute'],
    ['grant_type', 'client_credentials'],
  ]);
});

test('a token exchange has the JWT-SVID as subject, and several names of whom the token is for (RFC 8693, section 2.1)', () => {
  const config = configured({
    kind: 'token_exchange',
    tokenEndpoint: ENDPOINT,
    jwtAudience: 'https://login.partner.example',
    audience: ['one', 'two'],
  });
  assert.deepEqual(formOf(config), [
    ['audience', 'one'],
    ['audience', 'two'],
    ['grant_type', 'urn:ietf:params:oauth:grant-type:token-exchange'],
    ['requested_token_type', 'urn:ietf:params:oauth:token-type:access_token'],
    ['subject_token', JWT],
    ['subject_token_type', 'urn:ietf:params:oauth:token-type:jwt'],
  ]);
});

/**
 * https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token: POST https://sts.googleapis.com/v1/token without `Authorization`, with the
 * fields below under their names of RFC 8693, as Google's own libraries send them. The audience of the JWT, unless the provider lists others:
 * its full resource name, with or without `https:`.
 */
test('google asks what the documentation of its Security Token Service has', () => {
  const audience = '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/spire';
  const config = configured({ kind: 'google', audience: [audience] });
  assert.equal(config.tokenEndpoint, 'https://sts.googleapis.com/v1/token');
  assert.equal(config.jwt?.audience, `https:${audience}`);
  assert.deepEqual(formOf(config), [
    ['audience', audience],
    ['grant_type', 'urn:ietf:params:oauth:grant-type:token-exchange'],
    ['requested_token_type', 'urn:ietf:params:oauth:token-type:access_token'],
    ['scope', 'https://www.googleapis.com/auth/cloud-platform'],
    ['subject_token', JWT],
    ['subject_token_type', 'urn:ietf:params:oauth:token-type:jwt'],
  ]);
});

/**
 * https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow, "Third case: Access token request with a federated
 * credential"; the audience is that which federated identity credentials have if nobody says another.
 */
test('entra asks what the documentation of the Microsoft identity platform has', () => {
  const config = configured({
    kind: 'entra',
    tenant: 'contoso.onmicrosoft.com',
    clientId: '11111111-1111-1111-1111-111111111111',
    scope: ['https://graph.microsoft.com/.default'],
  });
  assert.equal(config.tokenEndpoint, 'https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token');
  assert.equal(config.jwt?.audience, 'api://AzureADTokenExchange');
  assert.deepEqual(formOf(config), [
    ['client_assertion', JWT],
    ['client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'],
    ['client_id', '11111111-1111-1111-1111-111111111111'],
    ['grant_type', 'client_credentials'],
    ['scope', 'https://graph.microsoft.com/.default'],
  ]);
});

test('what a kind needs or does not take is said', () => {
  const problems = (raw: object): readonly string[] => {
    const parsed = credentials.safeParse([{ name: 'partner', ...raw }]);
    return parsed.success ? [] : (z.treeifyError(parsed.error).items?.flatMap((item) => Object.keys(item?.properties ?? {})) ?? []);
  };
  const good = { kind: 'client_credentials', tokenEndpoint: ENDPOINT, jwtAudience: 'a' };
  assert.deepEqual(problems(good), []);
  for (const [raw, keys] of [
    [{ kind: 'client_credentials' }, ['tokenEndpoint', 'jwtAudience']],
    [{ ...good, tokenEndpoint: 'http://login.partner.example/token' }, ['tokenEndpoint']],
    [{ ...good, tokenEndpoint: 'https://user@login.partner.example/token' }, ['tokenEndpoint']],
    [{ ...good, jwtAudience: '' }, ['jwtAudience']],
    [{ ...good, clientAuth: 'none' }, ['clientAuth']],
    [{ ...good, clientAuth: 'mtls' }, ['jwtAudience', 'clientId']],
    [{ ...good, tenant: 'contoso.example' }, ['tenant']],
    [{ ...good, scope: ['two words'] }, ['scope']],
    [{ kind: 'token_exchange', tokenEndpoint: ENDPOINT }, ['jwtAudience']],
    [{ kind: 'google' }, ['audience']],
    [{ kind: 'google', audience: ['//iam.googleapis.com/a'], clientAuth: 'none' }, ['clientAuth']],
    [{ kind: 'google', audience: ['//iam.googleapis.com/a'], clientId: 'scute' }, ['clientId']],
    [{ kind: 'entra' }, ['tenant', 'clientId', 'scope']],
    [{ kind: 'entra', tenant: 'a/b', clientId: 'c', scope: ['d'] }, ['tenant']],
    [{ kind: 'entra', tenant: 'a', tokenEndpoint: ENDPOINT, clientId: 'c', scope: ['d'] }, ['tenant']],
  ] as const)
    assert.deepEqual(problems(raw), keys, JSON.stringify(raw));
});
