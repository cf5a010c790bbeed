/** An agent that signs JWT-SVIDs for whoever asks, as a test has it. */
import type { TestContext } from 'node:test';
import { createTestAuthority } from '../pki/pki.ts';
import { jwk, jwks, SUBJECT, testKey, token, type TestKey } from './tokens.ts';
import { FakeWorkloadApi, svidEntry } from '../workload-api.ts';

export interface JwtAgent {
  readonly api: FakeWorkloadApi;
  /** How long tokens live, in seconds; may be changed. */
  lifeSeconds: number;
  /** What was signed so far, oldest first. */
  readonly signed: readonly string[];
  /** What it signs with from here on; its bundle has that key alone. */
  become(key: TestKey): void;
  /** The audiences that were asked for, and the SPIFFE IDs (empty: the default). */
  readonly asked: readonly { readonly audience: readonly string[]; readonly spiffeId: string }[];
}

/** Its one identity is `SUBJECT`, which it gives for an hour. */
export async function startJwtAgent(t: TestContext): Promise<JwtAgent> {
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  const authority = createTestAuthority();
  let key = testKey('one');
  const signed: string[] = [];
  const asked: JwtAgent['asked'][number][] = [];
  const agent: JwtAgent = {
    api,
    lifeSeconds: 300,
    signed,
    asked,
    become(next) {
      key = next;
      api.setJwtBundles({ 'spiffe://example.org': jwks(jwk(key)) });
    },
  };
  agent.become(key);
  api.setX509([svidEntry(authority, authority.issue({ id: SUBJECT }), SUBJECT)]);
  api.answerJwt(({ audience, spiffeId }) => {
    asked.push({ audience, spiffeId });
    const now = Math.floor(Date.now() / 1000);
    const svid = token({ key, claims: { aud: audience, iat: now, exp: now + agent.lifeSeconds, jti: String(signed.length) } });
    signed.push(svid);
    return [{ spiffeId: SUBJECT, svid, hint: '' }];
  });
  return agent;
}
