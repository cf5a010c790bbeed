/** A look at a TLS server: one handshake, nothing of an application is sent, and what it showed is judged as a listener judges. */
import { hash } from 'node:crypto';
import { aloneId, describeAlone, describeUnread, type Described } from '../admin/certificates.ts';
import type { Clock } from '../lib/clock.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { DenyList } from '../policy/deny-list.ts';
import { parseCertificate } from '../spiffe/x509/certificate.ts';
import { claimedIdOf } from '../spiffe/leaf-profile.ts';
import type { PeerProblem } from '../spiffe/peer-problems.ts';
import { trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import { strangersWords } from '../telemetry/log/scrub.ts';
import type { OwnIdentity } from '../tls/contexts.ts';
import { createPeerJudge, type ProvenPeer } from '../tls/peer.ts';
import { ClientFlight } from '../transport/client-flight.ts';
import type { Endpoint, SecureConnection } from '../transport/connection.ts';
import { connect, createTlsContext, firstLine } from '../transport/node.ts';

export interface PeerQuestion {
  readonly endpoint: Endpoint;
  readonly serverName: string | undefined;
  readonly alpn: readonly string[];
  /** What we present, and whom we trust; undefined for nobody. */
  readonly own: OwnIdentity | undefined;
  /** Who, and which certificates, are refused whoever signed them. */
  readonly denyList: DenyList;
  /** Who it must be. */
  readonly expect: SpiffeId | undefined;
  /** For connecting, and for the handshake. */
  readonly timeoutMs: number;
  /** How long the server may take, after the handshake, to say that it does not want us. */
  readonly waitMs: number;
}

/** As `--json` prints it. */
export interface PeerReport {
  /** Where it leads, after name resolution. */
  readonly address: string;
  /** Our SPIFFE ID; null if we had none to show. */
  readonly presented: string | null;
  readonly handshake:
    | { readonly ok: true; readonly tlsVersion: string; readonly alpn: string | null }
    | { readonly ok: false; readonly code: string; readonly detail: string };
  /** Null if the handshake ended before that was known. */
  readonly askedForCertificate: boolean | null;
  /** Null if there was nobody to judge, or nothing to judge by. */
  readonly verdict: PeerVerdict | null;
  /** What the server did after the handshake. */
  readonly afterwards: Afterwards | null;
  /** What it sent, leaf first, and the authority that it leads to. */
  readonly certificates: readonly Described[];
  /** How many more it sent. */
  readonly omitted: number;
}

export interface PeerVerdict {
  /** `authenticated`: it has proven who it is; `allow`: and is whom it must be. Else the reason for which it would be refused. */
  readonly result: 'authenticated' | 'allow' | 'not_allowed' | PeerProblem;
  /** Proven. */
  readonly spiffeId: string | null;
  readonly detail: string | null;
}

/** `open`: nothing, within the time that it had; `spoke`: it sent something, which is not looked at; `ended`: it ended the connection. */
export interface Afterwards {
  readonly what: 'open' | 'spoke' | 'ended';
  readonly detail: string | null;
}

/** The server was not reached, or said nothing in time. */
export type Unreachable = string;

/** Beyond it they are only counted. Honest chains have two or three. */
const MAX_SHOWN = 16;
/** What is longer takes long to read, if its issuer wants that. */
const MAX_READ_BYTES = 32_768;
const MAX_WORDS = 512;

/** One look. The error is a sentence. */
export async function inspectPeer(question: PeerQuestion, clock: Clock, stopped: AbortSignal): Promise<Result<PeerReport, Unreachable>> {
  const flight = new ClientFlight();
  const shaken = await shakeHands(question, flight, clock, stopped);
  if (!shaken.ok) return shaken;
  const { address, outcome } = shaken.value;
  const common = { address, presented: question.own?.svid.id ?? null };
  if (!outcome.ok) {
    return ok({
      ...common,
      handshake: { ok: false, code: outcome.code, detail: strangersWords(outcome.message, MAX_WORDS) },
      askedForCertificate: flight.askedForCertificate ?? null,
      verdict: null,
      afterwards: null,
      certificates: [],
      omitted: 0,
    });
  }
  const { connection } = outcome;
  const seen = lookAt(connection, question, clock.now());
  const afterwards = await watchAfterwards(connection, question.waitMs, clock, stopped);
  return ok({
    ...common,
    handshake: {
      ok: true,
      tlsVersion: connection.tlsVersion,
      alpn: connection.alpn === undefined ? null : strangersWords(connection.alpn, MAX_WORDS),
    },
    askedForCertificate: flight.askedForCertificate ?? null,
    ...seen,
    afterwards,
  });
}

interface Shaken {
  readonly address: string;
  readonly outcome:
    | { readonly ok: true; readonly connection: SecureConnection }
    | { readonly ok: false; readonly code: string; readonly message: string };
}

function shakeHands(
  { endpoint, serverName, alpn, own, timeoutMs }: PeerQuestion,
  flight: ClientFlight,
  clock: Clock,
  stopped: AbortSignal,
): Promise<Result<Shaken, Unreachable>> {
  const context = own?.context ?? createTlsContext({ own: undefined, authoritiesPem: [] });
  return new Promise((resolve) => {
    let step: { abort(): void } | undefined;
    const giveUp = (why: Unreachable): void => {
      step?.abort();
      finish(err(why));
    };
    const onStop = (): void => giveUp('stopped');
    // A step may still tell of itself after that; what is resolved stays so.
    const finish = (result: Result<Shaken, Unreachable>): void => {
      timer?.cancel();
      stopped.removeEventListener('abort', onStop);
      resolve(result);
    };
    let timer: { cancel(): void } | undefined;
    stopped.addEventListener('abort', onStop, { once: true });
    if (stopped.aborted) return onStop();
    step = connect({ endpoint, timeoutMs, keepAliveMs: 0, use: 'tls' }, (connected) => {
      if (!connected.ok) return finish(err(connected.error.message));
      const { opened } = connected;
      const { address } = opened;
      step = opened.openTls({ context, alpn, serverName, flight }, (outcome) => finish(ok({ address, outcome })));
      timer = clock.after(timeoutMs, () => giveUp(`${address} did not finish the TLS handshake within ${timeoutMs} ms`));
    });
  });
}

// ——— what it showed ———

function lookAt(
  connection: SecureConnection,
  { own, denyList, expect }: PeerQuestion,
  nowMs: number,
): Pick<PeerReport, 'verdict' | 'certificates' | 'omitted'> {
  const judged = own === undefined ? undefined : createPeerJudge(() => denyList).authenticate(connection, 'server', own.snapshot, nowMs);
  const proven = judged?.ok === true ? judged.value : undefined;
  const sent = connection.readPeerEvidence().chainDer() ?? [];
  const authority = proven === undefined || own === undefined ? undefined : authorityOf(proven, own);
  return {
    verdict: judged === undefined ? null : verdictOn(judged, expect),
    certificates: [
      ...sent.slice(0, MAX_SHOWN).map((der, index) => describeSent(der, index, proven, nowMs)),
      ...(authority === undefined ? [] : [authority(nowMs)]),
    ],
    omitted: Math.max(sent.length - MAX_SHOWN, 0),
  };
}

function verdictOn(judged: ReturnType<ReturnType<typeof createPeerJudge>['authenticate']>, expect: SpiffeId | undefined): PeerVerdict {
  if (!judged.ok) return { result: judged.error.problem, spiffeId: null, detail: strangersWords(judged.error.detail, MAX_WORDS) };
  const { id } = judged.value.authenticated;
  if (expect === undefined) return { result: 'authenticated', spiffeId: id, detail: null };
  return id === expect
    ? { result: 'allow', spiffeId: id, detail: null }
    : { result: 'not_allowed', spiffeId: id, detail: `it is ${id}, not ${expect}` };
}

/** What of the path a certificate is: each is called as the path has it. */
function idIn({ authenticated: { issuers } }: ProvenPeer, sha256: string | undefined): string | null {
  if (sha256 === undefined) return null;
  return aloneId(sha256 === issuers.at(-1) ? 'authority' : 'peer_intermediate', sha256);
}

function describeSent(der: Uint8Array, index: number, proven: ProvenPeer | undefined, nowMs: number): Described {
  const sha256 = hash('sha256', der);
  const parsed =
    der.length > MAX_READ_BYTES ? err(`it has ${der.length} bytes, more than ${MAX_READ_BYTES}, and was not read`) : parseCertificate(der);
  const issuers = proven?.authenticated.issuers ?? [];
  // A server may send its authority as well.
  const kind = index === 0 ? (proven === undefined ? 'refused' : 'peer') : sha256 === issuers.at(-1) ? 'authority' : 'peer_intermediate';
  const claimed = proven?.authenticated.id ?? (index === 0 && parsed.ok ? claimedIdOf(parsed.value) : undefined);
  const known = {
    kind,
    spiffeId: index === 0 ? (claimed ?? null) : null,
    trustDomain: claimed === undefined ? null : trustDomainOf(claimed),
    issuer: proven === undefined ? null : idIn(proven, issuers[index === 0 ? 0 : issuers.indexOf(sha256) + 1]),
  } as const;
  const needed = index === 0 || issuers.includes(sha256) || proven === undefined;
  // Of what is beside the path, nothing says what signed it.
  const link = needed ? known : { ...known, issuer: null };
  return parsed.ok ? describeAlone(parsed.value, link, nowMs) : describeUnread(sha256, parsed.error, link);
}

/** The end of the path, which comes from the bundle; undefined if the server sent it. */
function authorityOf({ authenticated, chainDer }: ProvenPeer, { snapshot }: OwnIdentity): ((nowMs: number) => Described) | undefined {
  const sha256 = authenticated.issuers.at(-1);
  if (chainDer.some((der) => hash('sha256', der) === sha256)) return undefined;
  const trustDomain = trustDomainOf(authenticated.id);
  const found = snapshot.bundles.get(trustDomain)?.authorities.find((authority) => authority.sha256 === sha256);
  return found && ((nowMs) => describeAlone(found, { kind: 'authority', spiffeId: null, trustDomain, issuer: null }, nowMs));
}

// ——— what it did then ———

/** In TLS 1.3 a server says only after the handshake that it does not want a client. What else it says is not looked at. */
function watchAfterwards(connection: SecureConnection, waitMs: number, clock: Clock, stopped: AbortSignal): Promise<Afterwards> {
  return new Promise((resolve) => {
    const finish = (afterwards: Afterwards): void => {
      timer.cancel();
      stopped.removeEventListener('abort', onTime);
      resolve(afterwards);
      connection.abort();
    };
    const onTime = (): void => finish({ what: 'open', detail: null });
    const timer = clock.after(waitMs, onTime);
    stopped.addEventListener('abort', onTime, { once: true });
    if (stopped.aborted) return onTime();
    connection.start({
      data: () => finish({ what: 'spoke', detail: null }),
      ended: () => finish({ what: 'ended', detail: null }),
      drained: () => undefined,
      closed: (error) =>
        finish({ what: 'ended', detail: error === undefined ? null : strangersWords(firstLine(error.message), MAX_WORDS) }),
    });
  });
}
