import type { KeyObject } from 'node:crypto';
import { ScuteError } from '../lib/errors.ts';
import type { HeldIdentity } from '../identity/snapshot.ts';
import { buildTrustBundle, type TrustBundle } from '../spiffe/trust-bundle.ts';
import { parseTrustDomain } from '../spiffe/trust-domain.ts';
import { toPem } from '../spiffe/x509/pem.ts';
import { buildX509Svid } from '../spiffe/x509-svid.ts';
import type { SecureConnection, TlsContext } from '../transport/connection.ts';
import { connect, createTlsContext, listen } from '../transport/node.ts';
import { createPeerJudge, type PeerRole } from './peer.ts';
import { keyOf, LEAF_SENTENCE, SELF_TEST_DOMAIN, SELF_TEST_ID, selfTestCertificates } from './self-test-certificates.ts';

/** This build, on this Node, does not tell a forged SVID from a good one. It must not serve. */
export class SelfTestError extends ScuteError {
  override name = 'SelfTestError';
  readonly code = 'ERR_SELF_TEST';
}

const TIMEOUT_MS = 10_000;

interface Party {
  readonly context: TlsContext;
}

/**
 * Handshakes with itself over loopback, once with good SVIDs and once in each role with a forged one: the same in everything but who signed
 * it. Both checks, OpenSSL's and ours, must each tell them apart. Node has changed what a raw TLS socket reports before; this finds out on the
 * machine where it matters, whatever the clock says there. Throws a SelfTestError.
 */
export async function runSelfTest(nowMs: number): Promise<void> {
  const certificates = selfTestCertificates();
  const key = keyOf(LEAF_SENTENCE);
  const bundle = unwrap(buildTrustBundle(unwrap(parseTrustDomain(SELF_TEST_DOMAIN)), certificates.authority));
  const keyDer = key.export({ type: 'pkcs8', format: 'der' });
  const good = unwrap(buildX509Svid({ spiffeId: SELF_TEST_ID, chainDer: certificates.good, keyDer, hint: '' }, bundle, nowMs));
  const snapshot: HeldIdentity = {
    kind: 'held',
    endpointBundles: new Map(),
    generation: 1,
    receivedAtMs: nowMs,
    svids: [good],
    bundles: new Map([[bundle.trustDomain, bundle]]),
  };

  const honest = party(certificates.good, key, bundle);
  const forger = party(certificates.forged, key, bundle);
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

function party(certificate: Uint8Array, key: KeyObject, trusted: TrustBundle): Party {
  return {
    context: createTlsContext({
      own: { chainPem: toPem(certificate), keyPem: key.export({ type: 'pkcs8', format: 'pem' }) },
      authoritiesPem: trusted.authorities.map((authority) => authority.pem()),
    }),
  };
}

function unwrap<T>(result: { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: unknown }): T {
  if (!result.ok) throw new SelfTestError(`the self-test could not be set up: ${JSON.stringify(result.error)}`);
  return result.value;
}
