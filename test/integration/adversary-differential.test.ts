// Two judges of one chain: whatever our own walk accepts, OpenSSL must accept as well, in the handshake that really happens.
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { connect as tlsConnect, createSecureContext, TLSSocket } from 'node:tls';
import { test, type TestContext } from 'node:test';
import { verifyPeer } from '../../src/spiffe/verify.ts';
import type { SecureConnection, TlsContext } from '../../src/transport/connection.ts';
import { connect, createTlsContext, listen } from '../../src/transport/node.ts';
import { bundlesOf } from '../support/bundles.ts';
import {
  createTestAuthority,
  dnsName,
  pemOf,
  uriName,
  type CertificateOptions,
  type TestAuthority,
  type TestCertificate,
} from '../support/pki.ts';

const CHAINS = 400;
const HOUR_MS = 3_600_000;
const UNKNOWN = { oid: '1.3.6.1.4.1.55555.1', critical: true, value: Buffer.from([0x05, 0x00]) };

type Mutation = readonly [string, CertificateOptions];

/** What may be wrong with any certificate. */
const ANYWHERE: readonly Mutation[] = [
  ['bad signature', { badSignature: true }],
  ['expired', { notBefore: Date.now() - 2 * HOUR_MS, notAfter: Date.now() - HOUR_MS }],
  ['not yet valid', { notBefore: Date.now() + HOUR_MS, notAfter: Date.now() + 2 * HOUR_MS }],
  ['unknown critical extension', { extensions: [UNKNOWN] }],
  ['unknown extension', { extensions: [{ ...UNKNOWN, critical: false }] }],
  ['no key identifier', { subjectKeyId: null }],
  ['no authority key identifier', { authorityKeyId: null }],
  ['foreign authority key identifier', { authorityKeyId: Buffer.alloc(20, 7) }],
  ['foreign key identifier', { subjectKeyId: Buffer.alloc(20, 8) }],
  ['serverAuth only', { eku: ['serverAuth'] }],
  ['any usage only', { eku: ['any'] }],
  ['no extended key usage', { eku: null }],
  ['no key usage', { keyUsage: null }],
  ['key usage not critical', { keyUsageCritical: false }],
  ['P-384', { key: 'p384' }],
  ['P-521', { key: 'p521' }],
  ['secp256k1', { key: 'secp256k1' }],
  ['Ed25519', { key: 'ed25519' }],
  ['RSA 2048', { key: 'rsa2048' }],
  ['RSA 1024', { key: 'rsa1024' }],
  ['another issuer named', { issuerName: Buffer.from('3000', 'hex') }],
  ['empty subject', { subject: '' }],
];

/** What may be wrong with an intermediate alone. */
const AT_ISSUERS: readonly Mutation[] = [
  ['no CA', { isCa: false }],
  ['no basic constraints', { isCa: null }],
  ['no keyCertSign', { keyUsage: ['digitalSignature'] }],
  ['path length 0', { pathLength: 0 }],
  ['path length 1', { pathLength: 1 }],
  ['permits its domain', { nameConstraints: { permitted: [uriName('example.org')] } }],
  ['permits another domain', { nameConstraints: { permitted: [uriName('partner.test')] } }],
  ['excludes its domain', { nameConstraints: { excluded: [uriName('example.org')] } }],
  ['excludes below its domain', { nameConstraints: { excluded: [uriName('.example.org')] } }],
  ['permits a DNS name', { nameConstraints: { permitted: [dnsName('example.org')] } }],
  ['excludes a DNS name', { nameConstraints: { excluded: [dnsName('www.example.org')], critical: false } }],
  ['the ID of another domain', { id: 'spiffe://partner.test' }],
  ['no ID', { uriSans: [] }],
];

/** What may be wrong with a leaf alone. */
const AT_LEAVES: readonly Mutation[] = [
  ['no ID', { uriSans: [] }],
  ['two IDs', { uriSans: ['spiffe://example.org/a', 'spiffe://example.org/b'] }],
  ['the ID of another domain', { id: 'spiffe://partner.test/workload' }],
  ['a DNS name', { dnsSans: ['www.example.org'] }],
  ['keyCertSign', { keyUsage: ['digitalSignature', 'keyCertSign'] }],
  ['CA', { isCa: true }],
];

interface Sample {
  /** For the message of a failure. */
  readonly story: string;
  readonly leaf: TestCertificate;
  readonly sent: readonly Buffer[];
  readonly anchors: readonly TestCertificate[];
  readonly foreign: readonly TestCertificate[];
}

test('what our own walk accepts OpenSSL accepts, but for paths that it does not find', { timeout: 120_000 }, async (t) => {
  let drawn = 0;
  // The same again in every run.
  const random = (): number => Number.parseInt(hash('sha256', `chain ${(drawn += 1)}`).slice(0, 12), 16) / 2 ** 48;
  const arena = await startArena(t);
  const seen = { both: 0, neither: 0, oursStricter: 0 };
  for (let index = 0; index < CHAINS; index++) {
    const sample = makeSample(random);
    const nowMs = Date.now();
    const evidence = await arena.judge(sample, index % 3 === 0 ? 'server' : 'client');
    if (evidence === undefined) continue;
    assert.deepEqual(
      evidence.chain.map((der) => Buffer.from(der).toString('hex')),
      sample.sent.map((der) => der.toString('hex')),
      `chain ${index}, ${sample.story}: what was sent is what is judged`,
    );
    const ours = verifyPeer(evidence.chain, bundlesOf({ 'example.org': sample.anchors, 'partner.test': sample.foreign }), nowMs);
    if (ours.ok && evidence.libraryProblem !== undefined) {
      // OpenSSL believes key identifiers, and never turns back from a twin: our walk tries every path. Nobody gets in on ours alone.
      assert.match(sample.story, /foreign authority key identifier|a twin of/, `chain ${index}: ${evidence.libraryProblem}`);
      assert.equal(evidence.libraryProblem, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', `chain ${index}, ${sample.story}`);
    }
    if (evidence.libraryProblem !== undefined) seen.neither += 1;
    else if (ours.ok) seen.both += 1;
    else seen.oursStricter += 1;
  }
  // So that the above says something.
  t.diagnostic(JSON.stringify(seen));
  assert.ok(seen.both > 50, `both accept ${seen.both}`);
  assert.ok(seen.neither > 50, `OpenSSL refuses ${seen.neither}`);
  assert.ok(seen.oursStricter > 30, `only ours refuses ${seen.oursStricter}`);
});

function makeSample(random: () => number): Sample {
  const pick = <T>(from: readonly T[]): T => {
    const chosen = from[Math.floor(random() * from.length)];
    assert.ok(chosen !== undefined);
    return chosen;
  };
  const chance = (probability: number): boolean => random() < probability;
  const told: string[] = [];
  const mutated = (place: string, own: readonly Mutation[]): CertificateOptions => {
    if (!chance(0.28)) return {};
    const [what, options] = pick([...ANYWHERE, ...own]);
    told.push(`${place}: ${what}`);
    return options;
  };

  const root = createTestAuthority();
  const foreignRoot = createTestAuthority({ trustDomain: 'partner.test' });
  const others: Buffer[] = [];
  let authority: TestAuthority = root;
  const anchors: TestCertificate[] = [root];
  const depth = Math.floor(random() * 4);
  for (let level = 1; level <= depth; level++) {
    const options = mutated(`intermediate ${level}`, AT_ISSUERS);
    const under: TestAuthority = authority.intermediate({ subject: `Intermediate ${level}`, ...options });
    if (chance(0.1)) {
      told.push(`a twin of ${level}`);
      others.push(createTestAuthority().intermediate({ subject: under.name, key: under.keys }).der);
    }
    if (chance(0.1)) {
      told.push(`${level} signed by the partner too`);
      others.push(foreignRoot.crossSign(under, { id: 'spiffe://example.org' }).der);
    }
    if (chance(0.1)) {
      told.push(`${level} is an anchor`);
      anchors[chance(0.5) ? 0 : anchors.length] = under;
    }
    authority = under;
  }
  if (chance(0.08)) {
    told.push('by the partner');
    authority = foreignRoot;
  }
  const leaf = authority.issue({ id: 'spiffe://example.org/workload', ...mutated('leaf', AT_LEAVES) });
  let rest = [...leaf.chain.slice(1), ...others];
  if (rest.length > 0 && chance(0.08)) {
    told.push('one left out');
    const left = Math.floor(random() * rest.length);
    rest = rest.filter((_, position) => position !== left);
  }
  if (chance(0.15)) {
    told.push('root sent too');
    rest.push(root.der);
  }
  if (chance(0.25)) {
    told.push('out of order');
    rest = rest
      .map((der) => ({ der, at: random() }))
      .toSorted((one, other) => one.at - other.at)
      .map(({ der }) => der);
  }
  return { story: told.join(', ') || 'nothing wrong', leaf, sent: [leaf.der, ...rest], anchors, foreign: [foreignRoot] };
}

interface Arena {
  /** What the peer's handshake, in that role, leaves as evidence; undefined if it came to none. */
  judge(sample: Sample, peerRole: 'client' | 'server'): Promise<Evidence | undefined>;
}

interface Evidence {
  readonly libraryProblem: string | undefined;
  readonly chain: readonly Uint8Array[];
}

function readAll(connection: SecureConnection): Evidence {
  const { libraryProblem, chainDer } = connection.readPeerEvidence();
  const chain = chainDer();
  assert.ok(chain, 'there is room');
  return { libraryProblem, chain };
}

async function startArena(t: TestContext): Promise<Arena> {
  const us = createTestAuthority().issue();
  let own: TlsContext | undefined;
  let told: ((evidence: Evidence | undefined) => void) | undefined;
  const bound = await listen({
    endpoint: { kind: 'tcp', host: '127.0.0.1', port: 0 },
    mode: 0o600,
    keepAliveMs: 0,
    acceptFailed: (error) => assert.fail(error),
    accept(accepted) {
      assert.ok(own);
      accepted.openTls({ context: own, alpn: [] }, (outcome) => {
        told?.(outcome.ok ? readAll(outcome.connection) : undefined);
        if (outcome.ok) outcome.connection.abort();
      });
    },
  });
  t.after(() => bound.close());
  assert.equal(bound.endpoint.kind, 'tcp');
  const { port } = bound.endpoint;

  let presented = createSecureContext();
  const server = createServer((socket) => {
    const tls = new TLSSocket(socket, { isServer: true, secureContext: presented });
    tls.on('error', () => tls.destroy());
    socket.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => void server.close());

  return {
    judge(sample, peerRole) {
      own = createTlsContext({
        chainPem: us.pem,
        keyPem: us.keyPem,
        authoritiesPem: [...sample.anchors, ...sample.foreign].map(({ pem }) => pem),
      });
      presented = createSecureContext({
        cert: sample.sent.map((der) => pemOf('CERTIFICATE', der)).join(''),
        key: sample.leaf.keyPem,
        // The peer does not mind what it presents.
        ciphers: 'DEFAULT@SECLEVEL=0',
      });
      return new Promise((resolve) => {
        told = resolve;
        if (peerRole === 'client') {
          const socket = tlsConnect({ port, host: '127.0.0.1', secureContext: presented, rejectUnauthorized: false });
          socket.on('error', () => undefined);
          return;
        }
        const endpoint = { kind: 'tcp', host: '127.0.0.1', port: (server.address() as AddressInfo).port } as const;
        connect({ endpoint, timeoutMs: 5000, keepAliveMs: 0, use: 'tls' }, (opened) => {
          assert.ok(opened.ok && own);
          opened.opened.openTls({ context: own, alpn: [], serverName: undefined }, (outcome) => {
            resolve(outcome.ok ? readAll(outcome.connection) : undefined);
            if (outcome.ok) outcome.connection.abort();
          });
        });
      });
    },
  };
}
