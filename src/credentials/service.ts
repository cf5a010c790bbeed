/** All tokens that are put on requests or written to files: who fetches them, when they are given up, and what is told of them. */
import type { AttachConfig, CredentialConfig, JwtChoice } from '../config/sections/credentials.ts';
import type { JwtFileConfig } from '../config/file-sets.ts';
import type { RequestCredential } from '../forward/request-credential.ts';
import { foldName, nameBytes } from '../http1/fields.ts';
import { chooseSvid, type IdentitySnapshot, type SvidChoice } from '../identity/snapshot.ts';
import type { IdentityView } from '../identity/store.ts';
import type { Clock } from '../lib/clock.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { Service } from '../lib/service.ts';
import { tellEach } from '../lib/watch.ts';
import { trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
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
  /** What sets of files have in them. */
  readonly written: readonly { readonly set: string; readonly file: JwtFileConfig }[];
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
  /** The JWT-SVID for `file`, one of `written`: the same one that listeners have, if they ask for the same. */
  tokenOf(file: JwtFileConfig): FileToken;
  status(): readonly TokenStatus[];
}

export interface FileToken {
  /** One that is valid now: the same object for as long as it is the same token. */
  current(): Token | undefined;
  /** Why the last fetch failed; undefined if it did not. */
  readonly problem: CredentialProblem | undefined;
  /** Calls `changed` when a fetch is over, or the token was withdrawn. Returns the way to stop. */
  subscribe(changed: () => void): () => void;
}

/** Whose JWT-SVID, and for whom. */
interface JwtAsked {
  readonly audience: readonly string[];
  readonly speaker: SvidChoice;
}

/** One token, with what is told of it. */
interface Source extends Pick<TokenStatus, 'source' | 'kind' | 'audience' | 'spiffeId'> {
  /** By name. */
  readonly listeners: string[];
  readonly sets: Set<string>;
  readonly speaker: SvidChoice;
  readonly held: HeldToken;
  readonly changed: Set<() => void>;
  /** It is one, or stands behind it. */
  readonly needsJwt: boolean;
}

/** Only tokens that somebody asks for are fetched, as soon as there is an identity; `start` waits for none. */
export function createCredentials({
  credentials,
  attached,
  written,
  identity,
  events,
  clock,
  random,
  ...deps
}: CredentialsDeps): Credentials {
  const sources = new Map<string, Source>();
  const add = (
    key: string,
    source: string,
    described: Pick<Source, 'kind' | 'audience' | 'speaker' | 'needsJwt'>,
    fetch: TokenFetch,
  ): Source => {
    events.tokenSource(source);
    const changed = new Set<() => void>();
    const fetched = (outcome: Result<{ readonly expiresAtMs: number }, CredentialProblem>, nextInMs: number): void => {
      events.tokenFetched(source, outcome, nextInMs);
      tellEach(changed, undefined);
    };
    const held = new HeldToken({ fetch, clock, random, fetched });
    const { speaker } = described;
    const spiffeId = speaker.by === 'id' ? speaker.id : undefined;
    const made = { source, ...described, spiffeId, listeners: [], sets: new Set<string>(), held, changed };
    sources.set(key, made);
    return made;
  };
  const fetchJwt = async ({ audience, speaker }: JwtAsked, signal: AbortSignal): Promise<Result<Token, CredentialProblem>> => {
    // Hints are those of X.509-SVIDs here: a token speaks for the identity that has the key.
    const spiffeId = speaker.by === 'default' ? undefined : speakerIn(identity.current(), speaker);
    if (speaker.by === 'hint' && spiffeId === undefined)
      return err({ reason: 'not_entitled', detail: `there is no SVID with the hint ${JSON.stringify(speaker.hint)}` });
    const fetched = await deps.jwt({ audience, spiffeId: speaker.by === 'id' ? speaker.id : spiffeId }, signal);
    if (!fetched.ok) return err({ reason: JWT_PROBLEMS[fetched.error.code] ?? 'agent_unavailable', detail: fetched.error.message });
    return ok({ value: fetched.value.token, expiresAtMs: fetched.value.expiresMs });
  };
  const jwtSource = (asked: JwtAsked): Source => {
    const key = jwtKey(asked);
    const { audience, speaker } = asked;
    const described = { kind: 'jwt_svid', needsJwt: true, audience: audience.join(' '), speaker } as const;
    return sources.get(key) ?? add(key, nameOf(asked), described, (signal) => fetchJwt(asked, signal));
  };
  const credentialSource = (name: string): Source => {
    const known = sources.get(name);
    if (known !== undefined) return known;
    const config = credentials.find((each) => each.name === name);
    if (config === undefined) throw new Error(`there is no credential ${name}`);
    const { jwt: choice, spiffeId } = config;
    const described = {
      kind: 'access_token',
      needsJwt: choice !== undefined,
      audience: choice?.audience,
      speaker: speakerOf(spiffeId),
    } as const;
    return add(name, name, described, async (signal) => {
      const trust = trustOf(config, { clock, ...deps });
      if (!trust.ok) return trust;
      const jwt = choice && (await fetchJwt(askedBy(choice), signal));
      if (jwt?.ok === false) return jwt;
      return askTokenEndpoint({ config, jwt: jwt?.value.value, trust: trust.value, clock, signal });
    });
  };
  const sourceOf = ({ token }: AttachConfig): Source =>
    token.kind === 'jwt' ? jwtSource(askedBy(token.jwt)) : credentialSource(token.name);
  for (const { listener, attach } of attached) sourceOf(attach).listeners.push(listener);
  for (const { set, file } of written) jwtSource(askedFor(file)).sets.add(set);
  let before: IdentitySnapshot | undefined;
  const identityChanged = (snapshot: IdentitySnapshot): void => {
    const lost = before !== undefined && lostKey(before, snapshot);
    for (const { kind, speaker, held, needsJwt } of sources.values()) {
      const [was, is] = [before, snapshot].map((each) => speakerIn(each, speaker));
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
      const source = sources.get(attach.token.kind === 'jwt' ? jwtKey(askedBy(attach.token.jwt)) : attach.token.name);
      if (source === undefined) throw new Error('a token is put on requests that nobody fetches');
      return attachedToken(source.held, attach);
    },
    tokenOf(file) {
      const source = sources.get(jwtKey(askedFor(file)));
      if (source === undefined) throw new Error('a token is written to a file that nobody fetches');
      const { held, changed } = source;
      return {
        current: () => held.current(),
        get problem() {
          return held.status.problem;
        },
        subscribe(listener) {
          // A set may have the same token in two files.
          const own = (): void => listener();
          changed.add(own);
          return () => changed.delete(own);
        },
      };
    },
    status: () =>
      [...sources.values()].map(({ source, kind, audience, spiffeId, listeners, sets, held }) => ({
        source,
        kind,
        audience,
        spiffeId,
        listeners,
        sets: [...sets],
        ...held.status,
      })),
  };
}

/** As whom a token is asked for; undefined if we hold no such identity. */
function speakerIn(snapshot: IdentitySnapshot | undefined, speaker: SvidChoice): SpiffeId | undefined {
  return chooseSvid(snapshot, speaker)?.id;
}

function speakerOf(spiffeId: SpiffeId | undefined): SvidChoice {
  return spiffeId === undefined ? { by: 'default' } : { by: 'id', id: spiffeId };
}

function askedBy({ audience, spiffeId }: JwtChoice): JwtAsked {
  return { audience: [audience], speaker: speakerOf(spiffeId) };
}

function askedFor({ audience, identity }: JwtFileConfig): JwtAsked {
  return { audience, speaker: identity };
}

/** The same for the same token alone: what a source is called need not be. No credential has such a name. */
function jwtKey({ audience, speaker }: JwtAsked): string {
  return JSON.stringify([audience, speaker]);
}

function nameOf({ audience, speaker }: JwtAsked): string {
  const whose = speaker.by === 'default' ? '' : speaker.by === 'id' ? ` as ${speaker.id}` : ` as hint ${JSON.stringify(speaker.hint)}`;
  return `jwt ${audience.join(' ')}${whose}`;
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
  const own = contexts.own(speakerOf(spiffeId), clock.now());
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
