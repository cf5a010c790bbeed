import { createKeyPair, keyIdentifier, type KeyPair } from '../spiffe/key-pair.ts';
import { writeCertificate } from '../spiffe/x509-writer.ts';
import { ScuteError } from '../lib/errors.ts';
import type { HeldIdentity } from '../identity/snapshot.ts';
import { buildTrustBundle, type TrustBundle } from '../spiffe/trust-bundle.ts';
import { parseTrustDomain } from '../spiffe/trust-domain.ts';
import { buildX509Svid, type X509Svid } from '../spiffe/x509-svid.ts';
import type { SecureConnection, TlsContext } from '../transport/connection.ts';
import { connect, createTlsContext, listen } from '../transport/node.ts';
import { createPeerJudge, type PeerRole } from './peer.ts';

/** This build, on this Node, does not tell a forged SVID from a good one. It must not serve. */
export class SelfTestError extends ScuteError {
  override name = 'SelfTestError';
  readonly code = 'ERR_SELF_TEST';
}

const LIFE_MS = 600_000;
const TIMEOUT_MS = 10_000;

interface Party {
  readonly context: TlsContext;
}

/**
 * Handshakes with itself over loopback, once with good SVIDs and once in each role with a forged one: same issuer name,
 * same key id, same SPIFFE ID, another key. Both checks, OpenSSL's and ours, must each tell them apart. Node has changed
 * what a raw TLS socket reports before; this finds out on the machine where it matters. Throws a SelfTestError.
 */
export async function runSelfTest(nowMs: number): Promise<void> {
  const [authorityKey, forgerKey] = [await createKeyPair('ec-p256'), await createKeyPair('ec-p256')];
  const authority = writeAuthority(authorityKey, nowMs);
  const bundle = unwrap(buildTrustBundle(unwrap(parseTrustDomain('self-test.invalid')), authority));
  const forgedBundle = unwrap(buildTrustBundle(bundle.trustDomain, writeAuthority(forgerKey, nowMs, authorityKey)));
  const good = await issue(authorityKey, authorityKey, bundle, nowMs);
  const forged = await issue(forgerKey, authorityKey, forgedBundle, nowMs);
  const snapshot: HeldIdentity = {
    kind: 'held',
    generation: 1,
    receivedAtMs: nowMs,
    svids: [good],
    bundles: new Map([[bundle.trustDomain, bundle]]),
  };

  const honest = party(good, bundle);
  const forger = party(forged, bundle);
  await expectHandshake(honest, honest, snapshot, nowMs, { server: 'accepted', client: 'accepted' });
  await expectHandshake(honest, forger, snapshot, nowMs, { server: 'refused', client: 'accepted' });
  await expectHandshake(forger, honest, snapshot, nowMs, { server: 'accepted', client: 'refused' });
}

type Answer = 'accepted' | 'refused';

/** `expected` is what each of the two must think of the other. */
async function expectHandshake(
  server: Party,
  client: Party,
  snapshot: HeldIdentity,
  nowMs: number,
  expected: { readonly server: Answer; readonly client: Answer },
): Promise<void> {
  const found = await handshake(server, client, (connection, role) => judge(connection, role, snapshot, nowMs));
  for (const side of ['server', 'client'] as const) {
    if (found[side] !== expected[side]) throw new SelfTestError(`a self-test ${side} ${found[side]} a peer that must be ${expected[side]}`);
  }
}

function judge(connection: SecureConnection, role: PeerRole, snapshot: HeldIdentity, nowMs: number): Answer {
  const { libraryProblem } = connection.readPeerEvidence();
  const walked = createPeerJudge().authenticate(connection, role, snapshot, nowMs).ok;
  if (walked !== (libraryProblem === undefined)) {
    throw new SelfTestError(`OpenSSL says ${libraryProblem ?? 'trusted'} of a chain that our own check ${walked ? 'accepts' : 'refuses'}`);
  }
  return walked ? 'accepted' : 'refused';
}

function handshake(
  server: Party,
  client: Party,
  ask: (connection: SecureConnection, role: PeerRole) => Answer,
): Promise<{ readonly server: Answer; readonly client: Answer }> {
  return new Promise((fulfil, reject) => {
    const answers: Partial<Record<'server' | 'client', Answer>> = {};
    const open: SecureConnection[] = [];
    let close: () => void = () => undefined;
    const settle = (act: () => void): void => {
      clearTimeout(timer);
      for (const connection of open) connection.abort();
      close();
      act();
    };
    const fail = (cause: unknown): void =>
      settle(() => reject(cause instanceof SelfTestError ? cause : new SelfTestError('the self-test could not be run', { cause })));
    const timer = setTimeout(() => fail(new Error(`no answer within ${TIMEOUT_MS} ms`)), TIMEOUT_MS);
    const secured = (side: 'server' | 'client', connection: SecureConnection): void => {
      open.push(connection);
      // Nobody reads or writes: the handshake is all there is.
      connection.start({ data: () => undefined, ended: () => undefined, drained: () => undefined, closed: () => undefined });
      try {
        answers[side] = ask(connection, side === 'server' ? 'client' : 'server');
      } catch (cause) {
        fail(cause);
        return;
      }
      const { server: ofServer, client: ofClient } = answers;
      if (ofServer !== undefined && ofClient !== undefined) settle(() => fulfil({ server: ofServer, client: ofClient }));
    };
    const run = async (): Promise<void> => {
      const bound = await listen({
        endpoint: { kind: 'tcp', host: '127.0.0.1', port: 0 },
        mode: 0o600,
        keepAliveMs: 0,
        acceptFailed: fail,
        accept: (accepted) =>
          accepted.openTls({ context: server.context, alpn: [] }, (outcome) => {
            if (outcome.ok) secured('server', outcome.connection);
            else fail(new Error(`server: ${outcome.code}: ${outcome.message}`));
          }),
      });
      close = () => void bound.close();
      connect({ endpoint: bound.endpoint, timeoutMs: TIMEOUT_MS, keepAliveMs: 0, use: 'tls' }, (opened) => {
        if (!opened.ok) {
          fail(opened.error);
          return;
        }
        opened.opened.openTls({ context: client.context, alpn: [], serverName: undefined }, (outcome) => {
          if (outcome.ok) secured('client', outcome.connection);
          else fail(new Error(`client: ${outcome.code}: ${outcome.message}`));
        });
      });
    };
    run().catch(fail);
  });
}

function party(svid: X509Svid, trusted: TrustBundle): Party {
  return {
    context: createTlsContext({
      chainPem: svid.chain.map((certificate) => certificate.pem()).join(''),
      keyPem: svid.key.export({ type: 'pkcs8', format: 'pem' }),
      authoritiesPem: trusted.authorities.map((authority) => authority.pem()),
    }),
  };
}

const AUTHORITY_NAME = [{ type: 'CN', value: 'self-test authority' }] as const;

function writeAuthority(key: KeyPair, nowMs: number, namedAs: KeyPair = key): Uint8Array {
  const keyId = keyIdentifier(namedAs.publicKey);
  return writeCertificate({
    subject: AUTHORITY_NAME,
    publicKey: key.publicKey,
    issuer: AUTHORITY_NAME,
    issuerKey: key,
    notBeforeMs: nowMs - LIFE_MS,
    notAfterMs: nowMs + LIFE_MS,
    uris: ['spiffe://self-test.invalid'],
    basicConstraints: { ca: true },
    keyUsage: ['keyCertSign', 'cRLSign'],
    subjectKeyId: keyId,
    authorityKeyId: keyId,
  });
}

async function issue(signer: KeyPair, namedAs: KeyPair, bundle: TrustBundle, nowMs: number): Promise<X509Svid> {
  const key = await createKeyPair('ec-p256');
  const spiffeId = 'spiffe://self-test.invalid/self';
  const chainDer = writeCertificate({
    subject: [],
    publicKey: key.publicKey,
    issuer: AUTHORITY_NAME,
    issuerKey: signer,
    notBeforeMs: nowMs - LIFE_MS,
    notAfterMs: nowMs + LIFE_MS,
    uris: [spiffeId],
    basicConstraints: { ca: false },
    keyUsage: ['digitalSignature'],
    extendedKeyUsage: ['serverAuth', 'clientAuth'],
    authorityKeyId: keyIdentifier(namedAs.publicKey),
  });
  const keyDer = key.privateKey.export({ type: 'pkcs8', format: 'der' });
  return unwrap(buildX509Svid({ spiffeId, chainDer, keyDer, hint: '' }, bundle, nowMs));
}

function unwrap<T>(result: { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: unknown }): T {
  if (!result.ok) throw new SelfTestError(`the self-test could not be set up: ${JSON.stringify(result.error)}`);
  return result.value;
}
