import assert from 'node:assert/strict';
import { hash, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import { describePeer } from './certificates.ts';
import { PeerBook, type KnownPeer, type SeenPeer } from './peer-book.ts';

const IN = { name: 'in', direction: 'inbound' } as const;
const OUT = { name: 'out', direction: 'outbound' } as const;
const CONNECTION = { id: 1, downstreamAddress: '127.0.0.1:1' };
const NOT_ALLOWED = { reason: 'not_allowed', detail: 'by none of the rules', rule: undefined } as const;
const UNTRUSTED = { reason: 'untrusted_chain', detail: 'no path', rule: undefined } as const;

function peerOf(name: string): KnownPeer {
  const der = Buffer.from(name);
  return {
    authenticated: {
      id: requireSpiffeId(`spiffe://example.org/${name}`),
      leaf: { sha256: hash('sha256', der), notAfterMs: 0, der: () => der },
      issuers: ['00'],
    },
    chainDer: [der],
  };
}

function startBook() {
  let nowMs = 0;
  const book = new PeerBook(() => (nowMs += 1));
  return {
    book,
    allowed: (peer: KnownPeer, listener: typeof IN | typeof OUT = IN) => book.judged(listener, CONNECTION, { proven: peer }, undefined),
    denied: (peer: KnownPeer) => book.judged(IN, CONNECTION, { proven: peer }, NOT_ALLOWED),
    stranger: (leafDer: Uint8Array) => book.judged(IN, CONNECTION, { proven: undefined, leafDer, claimedId: undefined }, UNTRUSTED),
    proven: (peer: KnownPeer): SeenPeer | undefined => [...book.proven()].find(({ sha256 }) => sha256 === peer.authenticated.leaf.sha256),
  };
}

test('20,000 strangers flush out strangers alone, whatever they send', () => {
  const { book, allowed, denied, stranger, proven } = startBook();
  const [friend, foe, live] = [peerOf('friend'), peerOf('foe'), peerOf('live')];
  allowed(friend);
  denied(foe);
  allowed(live);
  book.joined(IN, live);

  // Each of another certificate; every tenth as large as any that is read.
  for (let count = 0; count < 20_000; count++) stranger(Buffer.concat([Buffer.alloc(count % 10 === 0 ? 32_000 : 800), randomBytes(16)]));

  for (const peer of [friend, foe, live]) assert.ok(proven(peer), peer.authenticated.id);
  const kept = [...book.strangers()];
  assert.ok(kept.length <= 1024);
  assert.ok(kept.reduce((bytes, { strange }) => bytes + (strange?.leafDer.length ?? 0), 0) <= 2 << 20);
  assert.ok([...book.refusals()].length <= 256);
  assert.equal(book.counts.refusals, 20_001);
});

test('10,000 peers of one trust domain that are not allowed flush out none that is', () => {
  const { book, allowed, denied, proven } = startBook();
  const friend = peerOf('friend');
  allowed(friend);

  for (let count = 0; count < 10_000; count++) denied(peerOf(`stranger-${count}`));

  assert.ok(proven(friend));
  assert.ok(book.counts.proven <= 1025);
});

test('a peer with open connections is there however many others come, and until the last of its connections has ended', () => {
  const { book, allowed, proven } = startBook();
  const peer = peerOf('peer');
  allowed(peer);
  book.joined(IN, peer);
  book.joined(OUT, peer);

  for (let count = 0; count < 3000; count++) allowed(peerOf(`other-${count}`));
  assert.equal(proven(peer)?.connections, 2);
  assert.deepEqual(proven(peer)?.listeners, [IN, OUT]);
  book.left(peer);
  for (let count = 0; count < 3000; count++) allowed(peerOf(`another-${count}`));
  assert.equal(proven(peer)?.connections, 1);
  book.left(peer);

  assert.equal(proven(peer)?.connections, 0);
  for (let count = 0; count < 3000; count++) allowed(peerOf(`last-${count}`));
  assert.equal(proven(peer), undefined);
});

test('the last handshake says what became of a peer, and it is in one list alone', () => {
  const { book, allowed, denied, proven } = startBook();
  const peer = peerOf('peer');

  allowed(peer);
  denied(peer);
  assert.deepEqual([proven(peer)?.refused?.reason, proven(peer)?.handshakes, book.counts.proven], ['not_allowed', 2, 1]);
  allowed(peer);

  assert.deepEqual([proven(peer)?.refused, proven(peer)?.handshakes, book.counts.proven], [undefined, 3, 1]);
});

test('a peer that leaves twice, or was never there, is no mistake that shows', () => {
  const { book, allowed, proven } = startBook();
  const peer = peerOf('peer');

  book.left(peer);
  allowed(peer);
  book.joined(IN, peer);
  book.left(peer);
  book.left(peer);

  assert.equal(proven(peer)?.connections, 0);
});

test('what the TLS library took for a certificate and nobody else can read is described as that', () => {
  const { book, stranger } = startBook();
  stranger(Buffer.from('<script>alert(1)</script>'));
  const [seen] = book.strangers();
  assert.ok(seen);

  const { kind, validity, subject, findings, peer } = describePeer(seen, 0);

  assert.deepEqual(
    [kind, validity, subject, peer?.verdict, findings[0]?.verdict],
    ['refused', 'unknown', '', 'untrusted_chain', 'refused'],
  );
});

test('a refusal without a certificate is told, and is no certificate', () => {
  const { book } = startBook();

  for (const leafDer of [undefined, 'too_large', 'unreadable'] as const)
    book.judged(IN, CONNECTION, { proven: undefined, leafDer, claimedId: undefined }, { ...UNTRUSTED, reason: 'no_certificate' });

  assert.deepEqual(
    [...book.refusals()].map(({ sha256 }) => sha256),
    [undefined, undefined, undefined],
  );
  assert.equal(book.counts.strangers, 0);
});

test('what a peer has put into its refusal is cut, and shows no key and no turned text', () => {
  const { book } = startBook();
  const detail = `\u202e${'x'.repeat(10_000)}`;

  book.judged(IN, CONNECTION, { proven: undefined, leafDer: Buffer.from('x'), claimedId: undefined }, { ...UNTRUSTED, detail });

  const [refusal] = book.refusals();
  assert.ok((refusal?.detail.length ?? Infinity) < 600 && !refusal?.detail.includes('\u202e'));
});

test('a certificate that takes long to read is not read to be shown', () => {
  const { book, stranger } = startBook();
  const uriSans = Array.from({ length: 300 }, (_, index) => `spiffe://example.org/${'x'.repeat(80)}${index}`);
  stranger(createTestAuthority().issue({ uriSans }).der);
  const [seen] = book.strangers();
  assert.ok(seen);

  const { validity, findings } = describePeer(seen, 0);

  assert.equal(validity, 'unknown');
  assert.match(findings[0]?.problem ?? '', /^it has \d{5} bytes, more than the 8192 that are read to be shown$/);
});
