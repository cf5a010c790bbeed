/** All tokens that are put on requests: who fetches them, when they are given up, and what is told of them. */
import type { AttachConfig, CredentialConfig, JwtChoice } from '../config/credentials.ts';
import type { RequestCredential } from '../forward/request-credential.ts';
import { foldName, nameBytes } from '../http1/fields.ts';
import { chooseSvid, type IdentitySnapshot, type SvidChoice } from '../identity/snapshot.ts';
import type { IdentityView } from '../identity/store.ts';
import type { Clock } from '../lib/clock.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { Service } from '../lib/service.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { CredentialEvents } from '../telemetry/events/credential-events.ts';
import type { CredentialProblem, CredentialProblemCode, TokenStatus } from '../telemetry/log/credential-records.ts';
import { presenting, type TlsContexts } from '../tls/contexts.ts';
import { webTrustIn, type EndpointTrust } from '../tls/endpoint-trust.ts';
import type { WebAuthorities } from '../tls/web-authorities.ts';
import { HeldToken, type Token, type TokenFetch } from './held-token.ts';
import { askTokenEndpoint } from './token-endpoint.ts';

/** Gives a JWT-SVID of ours. Never rejects. */
export type JwtFetch = (
  request: { readonly audience: readonly string[]; readonly spiffeId: JwtChoice['spiffeId'] },
  signal: AbortSignal,
) => Promise<Result<{ readonly token: string; readonly expiresMs: number }, { readonly code: string; readonly message: string }>>;

export interface CredentialsDeps {
  readonly credentials: readonly CredentialConfig[];
  /** What the listeners put on requests. */
  readonly attached: readonly { readonly listener: string; readonly attach: AttachConfig }[];
  readonly identity: IdentityView;
  readonly contexts: TlsContexts;
  /** Undefined where no token endpoint is asked. */
  readonly authorities: Pick<WebAuthorities, 'pemOf' | 'contextOf'> | undefined;
  readonly jwt: JwtFetch;
  readonly events: CredentialEvents;
  readonly clock: Clock;
  /** Uniform in [0, 1): jitter. */
  readonly random: () => number;
}

export interface Credentials extends Service {
  /** What `attach`, one of `attached`, asks for. Listeners that ask for the same token share it. */
  credentialOf(attach: AttachConfig): RequestCredential;
  status(): readonly TokenStatus[];
}

/** One token, with what is told of it. */
interface Source extends Omit<TokenStatus, 'listeners' | 'expiresAtMs' | 'nextFetchAtMs' | 'problem'> {
  /** By name. */
  readonly listeners: string[];
  readonly held: HeldToken;
  /** It is one, or stands behind it. */
  readonly needsJwt: boolean;
}

/** Only tokens that a listener asks for are fetched, as soon as there is an identity; `start` waits for none. */
export function createCredentials({ credentials, attached, identity, events, clock, random, ...deps }: CredentialsDeps): Credentials {
  const sources = new Map<string, Source>();
  const add = (source: string, described: Omit<Source, 'held' | 'source'>, fetch: TokenFetch): void => {
    events.tokenSource(source);
    const fetched = (outcome: Result<{ readonly expiresAtMs: number }, CredentialProblem>, nextInMs: number): void =>
      events.tokenFetched(source, outcome, nextInMs);
    sources.set(source, { source, ...described, held: new HeldToken({ fetch, clock, random, fetched }) });
  };
  const fetchJwt = async ({ audience, spiffeId }: JwtChoice, signal: AbortSignal): Promise<Result<Token, CredentialProblem>> => {
    const fetched = await deps.jwt({ audience: [audience], spiffeId }, signal);
    if (!fetched.ok) return err({ reason: JWT_PROBLEMS[fetched.error.code] ?? 'agent_unavailable', detail: fetched.error.message });
    return ok({ value: fetched.value.token, expiresAtMs: fetched.value.expiresMs });
  };
  for (const { listener, attach } of attached) {
    const key = keyOf(attach);
    const known = sources.get(key);
    if (known !== undefined) {
      known.listeners.push(listener);
      continue;
    }
    const listeners = [listener];
    const { token } = attach;
    if (token.kind === 'jwt') {
      add(key, { kind: 'jwt_svid', needsJwt: true, listeners, ...token.jwt }, (signal) => fetchJwt(token.jwt, signal));
      continue;
    }
    const config = credentials.find(({ name }) => name === token.name);
    if (config === undefined) throw new Error(`there is no credential ${token.name}`);
    const { jwt: choice, spiffeId } = config;
    add(key, { kind: 'access_token', needsJwt: choice !== undefined, listeners, audience: choice?.audience, spiffeId }, async (signal) => {
      const trust = trustOf(config, { clock, ...deps });
      if (!trust.ok) return trust;
      const jwt = choice && (await fetchJwt(choice, signal));
      if (jwt?.ok === false) return jwt;
      return askTokenEndpoint({ config, jwt: jwt?.value.value, trust: trust.value, clock, signal });
    });
  }
  let before: IdentitySnapshot | undefined;
  const identityChanged = (snapshot: IdentitySnapshot): void => {
    const lost = before !== undefined && lostKey(before, snapshot);
    for (const { kind, spiffeId, held, needsJwt } of sources.values()) {
      const [was, is] = [before, snapshot].map((each) => speakerIn(each, spiffeId));
      if (snapshot.kind === 'none') held.withdraw({ reason: 'identity_not_ready', detail: `we hold no identity: ${snapshot.reason}` });
      else if (was !== undefined && is !== was) {
        // It speaks for somebody that we are not, or not any more. The agent has the last word on whether there is another.
        held.withdraw({ reason: 'not_entitled', detail: `we do not hold ${was} any more` });
        held.retry();
      } else if (lost && kind === 'jwt_svid') held.renew();
      // Without our own bundle no JWT-SVID of ours could be verified.
      else if (!needsJwt || snapshot.jwtBundles !== undefined) held.retry();
    }
    before = snapshot;
  };
  let leave: (() => void) | undefined;
  return {
    name: 'credentials',
    async start(signal) {
      signal.throwIfAborted();
      for (const { held } of sources.values()) held.start();
      leave = identity.subscribe(identityChanged);
    },
    stop() {
      leave?.();
      for (const { held } of sources.values()) held.stop();
      return Promise.resolve();
    },
    credentialOf(attach) {
      const source = sources.get(keyOf(attach));
      if (source === undefined) throw new Error('a token is put on requests that nobody fetches');
      return attachedToken(source.held, attach);
    },
    status: () =>
      [...sources.values()].map(({ source, kind, audience, spiffeId, listeners, held }) => ({
        source,
        kind,
        audience,
        spiffeId,
        listeners,
        ...held.status,
      })),
  };
}

/** As whom a token is asked for; undefined if we hold no such identity. */
function speakerIn(snapshot: IdentitySnapshot | undefined, spiffeId: string | undefined): string | undefined {
  if (snapshot?.kind !== 'held') return undefined;
  return snapshot.svids.find(({ id }) => spiffeId === undefined || id === spiffeId)?.id;
}

function keyOf({ token }: AttachConfig): string {
  if (token.kind === 'credential') return token.name;
  const { audience, spiffeId } = token.jwt;
  return spiffeId === undefined ? `jwt ${audience}` : `jwt ${audience} as ${spiffeId}`;
}

/** `header: Bearer …`, written once a token. */
function attachedToken(held: HeldToken, { header, replace }: AttachConfig): RequestCredential {
  let written: { readonly token: Token; readonly line: Buffer } | undefined;
  return {
    name: nameBytes(foldName(header)),
    replaces: replace,
    line() {
      const token = held.current();
      if (token === undefined) return undefined;
      if (written?.token !== token) written = { token, line: Buffer.from(`${header}: Bearer ${token.value}\r\n`, 'latin1') };
      return written.line;
    },
    wait: (done) => held.wait((problem) => done(problem && `there is no token to attach: ${problem.reason}`)),
  };
}

const JWT_PROBLEMS: Readonly<Record<string, CredentialProblemCode>> = {
  aborted: 'timeout',
  not_entitled: 'not_entitled',
  refused: 'agent_refused',
  not_supported: 'not_supported',
  bad_answer: 'bad_svid',
  not_verified: 'bad_svid',
};

/** By what the token endpoint is judged, and with `mtls` what we present to it. */
function trustOf(
  { clientAuth, spiffeId, caFile }: CredentialConfig,
  { contexts, authorities, clock }: Pick<CredentialsDeps, 'contexts' | 'authorities' | 'clock'>,
): Result<EndpointTrust, CredentialProblem> {
  if (authorities === undefined) throw new Error('nobody vouches for a token endpoint');
  if (clientAuth !== 'mtls') return ok(webTrustIn(authorities.contextOf(caFile)));
  const choice: SvidChoice = spiffeId === undefined ? { by: 'default' } : { by: 'id', id: spiffeId };
  const own = contexts.own(choice, clock.now());
  if ('detail' in own) return err({ reason: 'identity_not_ready', detail: own.detail });
  return ok(webTrustIn(presenting(own.svid, authorities.pemOf(caFile))));
}

/** Whether a key went that JWT-SVIDs of our own trust domain are signed with: who verifies them may not know it any more. */
function lostKey(before: IdentitySnapshot, now: IdentitySnapshot): boolean {
  const own = chooseSvid(now, { by: 'default' });
  if (own === undefined || before.jwtBundles === now.jwtBundles) return false;
  const domain = trustDomainOf(own.id);
  const kept = new Set(now.jwtBundles?.get(domain)?.authorities.map(({ keyId }) => keyId));
  return (before.jwtBundles?.get(domain)?.authorities ?? []).some(({ keyId }) => !kept.has(keyId));
}
