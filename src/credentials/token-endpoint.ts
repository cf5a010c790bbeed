/** One request to a token endpoint: `oauth4webapi` writes it and reads the answer, over a connection of ours. */
import type { CredentialConfig } from '../config/sections/credentials.ts';
import { callHttps, type CallFailure, type HttpsAnswer } from '../https/call.ts';
import type { Clock } from '../lib/clock.ts';
import { err, type Result } from '../lib/result.ts';
import type { CredentialProblem } from '../telemetry/log/credential-records.ts';
import type { EndpointTrust } from '../tls/endpoint-trust.ts';
import type { Token } from './held-token.ts';
import { errorIn, headProblem, tokenIn, withoutIdToken } from './token-answer.ts';
import { tokenRequest } from './token-request.ts';

const MAX_TIME_MS = 10_000;
const MAX_BODY_BYTES = 65_536;

export interface EndpointCall {
  readonly config: CredentialConfig;
  /** The JWT-SVID, where the credential needs one. */
  readonly jwt: string | undefined;
  readonly trust: EndpointTrust;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Never rejects. The library is loaded with the first call. */
export async function askTokenEndpoint({ config, jwt, trust, clock, signal }: EndpointCall): Promise<Result<Token, CredentialProblem>> {
  const oauth = await import('oauth4webapi');
  const limit = new AbortController();
  const timer = clock.after(MAX_TIME_MS, () => limit.abort());
  const askedAtMs = clock.now();
  const { grantType, parameters, client } = tokenRequest(config, jwt);
  const server = { issuer: config.tokenEndpoint, token_endpoint: config.tokenEndpoint };
  // The library wants a name; what is sent of it, `tokenRequest` says.
  const named = { client_id: config.clientId ?? config.name };
  let failure: CredentialProblem | undefined;
  let answer: HttpsAnswer | undefined;
  try {
    await oauth.genericTokenEndpointRequest(
      server,
      named,
      (_server, _client, body) => {
        for (const [name, value] of client) body.append(name, value);
      },
      grantType,
      parameters.map((parameter) => [...parameter]),
      {
        [oauth.customFetch]: async (url, { body, headers }) => {
          const called = await callHttps(
            { url: new URL(url), method: 'POST', headers, body: body instanceof URLSearchParams ? body.toString() : undefined },
            { trust, clock, signal: AbortSignal.any([signal, limit.signal]), maxBodyBytes: MAX_BODY_BYTES, look: headProblem },
          );
          if (!called.ok) {
            failure = problemOf(called.error);
            throw new Error(failure.reason);
          }
          answer = called.value;
          return new Response(null, { status: answer.status });
        },
      },
    );
    if (answer === undefined) return err({ reason: 'broken', detail: 'the token endpoint was not asked' });
    if (answer.status !== 200) return err(errorIn(answer));
    const token = tokenIn(answer.body, askedAtMs);
    if (!token.ok) return token;
    if (token.value.value === jwt) return err({ reason: 'bad_answer', detail: 'its access_token is what it was asked with' });
    // What we let pass must be one for the library, too.
    const whole = new Response(withoutIdToken(answer.body), { headers: { 'content-type': 'application/json' } });
    await oauth.processGenericTokenEndpointResponse(server, named, whole);
    return token;
  } catch {
    // The library's errors hold the whole answer: nothing of them goes on.
    return err(failure ?? { reason: 'bad_answer', detail: 'the answer is not one of OAuth' });
  } finally {
    timer.cancel();
  }
}

/** Words of a server that has our assertion might be that assertion: of what it said in its head nothing is told. */
function problemOf({ reason, detail }: CallFailure | CredentialProblem): CredentialProblem {
  return reason === 'compressed' ? { reason, detail: 'the body is compressed, which was not asked for' } : { reason, detail };
}
