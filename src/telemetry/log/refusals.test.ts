import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../../test/support/fake-clock.ts';
import { policyFrom, policyOf } from '../../../test/support/policy/policies.ts';
import { UNKNOWN_SUBJECT } from '../../policy/request.ts';
import { requireSpiffeId, type SpiffeId } from '../../spiffe/spiffe-id.ts';
import { collectAll } from '../../transport/garbage.ts';
import type { ListenerRef } from './records.ts';
import { createRefusals, MOST_REFUSALS, type RefusalEvent } from './refusals.ts';

const IN: ListenerRef = { name: 'in', direction: 'inbound' };
const WEB = requireSpiffeId('spiffe://example.org/web');
const API = requireSpiffeId('spiffe://example.org/api');
const RULES = policyFrom({ allow: [{ peer: 'spiffe://example.org/ops', methods: ['GET'], paths: ['/**'] }] });
const DAY = 86_400_000;

function stage(policy = RULES) {
  const clock = new FakeClock();
  const refusals = createRefusals(clock);
  return {
    clock,
    refusals,
    entries: () => refusals.list(IN).entries,
    connect: (peer: SpiffeId, more: Partial<RefusalEvent> = {}) =>
      refusals.record(IN, policy, { peer, reason: 'not_allowed', isEnforced: false, request: undefined, ...more }),
    ask: (peer: SpiffeId, target: string, more: Partial<RefusalEvent> = {}) =>
      refusals.record(IN, policy, {
        peer,
        reason: 'not_allowed',
        isEnforced: false,
        request: { method: 'GET', target, host: 'api' },
        ...more,
      }),
  };
}

function numbered(domain: string, count: number): readonly SpiffeId[] {
  return Array.from({ length: count }, (_, index) => requireSpiffeId(`spiffe://${domain}/job/${index}`));
}

test('the same of the same peer is one entry, with its first and last time and how often; the newest is the first', () => {
  const { clock, ask, entries } = stage();
  const firstMs = clock.now();
  ask(WEB, '/a?token=1');
  clock.advance(1000);
  ask(API, '/a');
  ask(WEB, '/b');
  ask(WEB, '/a?token=2', { isEnforced: true, reason: 'denied' });

  const request = { method: 'GET', path: '/a', host: 'api', subject: UNKNOWN_SUBJECT };
  assert.deepEqual(entries(), [
    {
      peer: WEB,
      request: { ...request, host: '' },
      isWhole: true,
      reason: 'denied',
      passed: 1,
      refused: 1,
      firstMs,
      lastMs: firstMs + 1000,
    },
    {
      peer: WEB,
      request: { ...request, path: '/b', host: '' },
      isWhole: true,
      reason: 'not_allowed',
      passed: 1,
      refused: 0,
      firstMs: firstMs + 1000,
      lastMs: firstMs + 1000,
    },
    {
      peer: API,
      request: { ...request, host: '' },
      isWhole: true,
      reason: 'not_allowed',
      passed: 1,
      refused: 0,
      firstMs: firstMs + 1000,
      lastMs: firstMs + 1000,
    },
  ]);
});

test('listeners have nothing in common, and one without refusals has an empty list', () => {
  const { refusals, ask } = stage();
  ask(WEB, '/a');

  assert.deepEqual(refusals.list({ name: 'in', direction: 'outbound' }), {
    entries: [],
    unlisted: { passed: 0, refused: 0 },
    unlistedOf: new Map(),
  });
});

test('what rules do not ask for is not kept', () => {
  const { ask, entries } = stage(policyOf('spiffe://example.org/ops'));
  ask(WEB, '/a;b');
  ask(WEB, '/c');

  assert.deepEqual(
    entries().map(({ request, isWhole, passed }) => [request, isWhole, passed]),
    [[undefined, true, 2]],
  );
});

test('of a long path the beginning is kept, of a token in a path nothing, and nothing of what no rule could compare', () => {
  const { ask, entries } = stage();
  const token = `eyJ${'a'.repeat(20)}.eyJ${'b'.repeat(20)}.sig`;
  ask(WEB, `/${'a'.repeat(512)}`);
  ask(WEB, `/${'a'.repeat(60_000)}`);
  ask(WEB, `/in/${token}/x`);
  ask(WEB, '/a;b');
  ask(WEB, `/${'a'.repeat(511)}`);

  assert.deepEqual(
    entries().map(({ request, isWhole, passed }) => [request?.path, isWhole, passed]),
    [
      [`/${'a'.repeat(511)}`, true, 1],
      ['/in/[redacted]/x', false, 1],
      [`/${'a'.repeat(511)}…`, false, 2],
    ],
  );
});

test('the query of a request, and the end of a long path, stay nowhere in memory', () => {
  const { ask, entries } = stage();
  const long = 'x'.repeat(60_000);
  collectAll();
  const before = process.memoryUsage().heapUsed;
  for (const [index, peer] of numbered('example.org', 400).entries())
    ask(peer, Buffer.from(index % 2 === 0 ? `/orders/of/somebody?${long}` : `/${long}`).toString());
  collectAll();

  assert.equal(entries().length, 400);
  assert.ok(process.memoryUsage().heapUsed - before < 6_000_000, String(process.memoryUsage().heapUsed - before));
});

test('10,000 paths of one peer leave room for the others, and what has no entry is counted', () => {
  const { ask, connect, refusals } = stage();
  for (let index = 0; index < 10_000; index++) ask(WEB, `/orders/${index}`, { isEnforced: index % 2 === 1 });
  const { entries, unlisted, unlistedOf } = refusals.list(IN);

  assert.equal(entries.length, 59);
  assert.deepEqual(unlisted, { passed: 4970, refused: 4971 });
  assert.deepEqual([...unlistedOf], [[WEB, unlisted]]);
  ask(API, '/orders/1');
  connect(API);
  ask(WEB, '/orders/0');
  assert.deepEqual(
    refusals
      .list(IN)
      .entries.slice(0, 3)
      .map(({ peer, passed }) => [peer, passed]),
    [
      [WEB, 2],
      [API, 1],
      [API, 1],
    ],
    'an old one goes on to be counted',
  );
});

test('10,000 peers of one trust domain leave half of the room for others, and each of these the half of that', () => {
  const { connect, refusals } = stage();
  const lengths = ['one.test', 'two.test', 'three.test'].map((domain) => {
    for (const peer of numbered(domain, 10_000)) connect(peer);
    return refusals.list(IN).entries.length;
  });

  assert.deepEqual(lengths, [500, 750, 875]);
  assert.equal(refusals.list(IN).unlisted.passed, 30_000 - 875);
});

test('whatever many peers of many trust domains ask for, the list keeps its bound, and a new peer of a new domain has its place', () => {
  const { ask, connect, refusals } = stage();
  for (let round = 0; round < 20; round++) for (const peer of numbered(`${'abcd'[round % 4]}.test`, 500)) ask(peer, `/${round}`);
  connect(WEB);

  const { entries } = refusals.list(IN);
  assert.ok(entries.length < MOST_REFUSALS, String(entries.length));
  assert.equal(entries[0]?.peer, WEB);
});

test('an entry that was not seen for a day makes room for another, and no other does', () => {
  const { clock, connect, refusals } = stage();
  const [kept, first, ...others] = numbered('one.test', 501);
  const newcomer = requireSpiffeId('spiffe://one.test/new');
  assert.ok(kept !== undefined && first !== undefined);
  for (const peer of [kept, first, ...others.slice(0, 498)]) connect(peer);
  clock.advance(DAY - 1);
  connect(kept);
  connect(newcomer);
  assert.equal(refusals.list(IN).unlisted.passed, 1);
  clock.advance(1);
  connect(newcomer);

  const peers = refusals.list(IN).entries.map(({ peer }) => peer);
  assert.equal(peers.length, 500);
  assert.deepEqual([peers.includes(newcomer), peers.includes(kept), peers.includes(first)], [true, true, false]);
});

test('a new policy forgets what it allows or cannot judge, and counts what has no entry anew', () => {
  const { ask, connect, refusals, entries } = stage();
  for (let index = 0; index < 100; index++) ask(WEB, `/orders/${index}`);
  ask(API, '/a');
  ask(API, `/${'b'.repeat(600)}`);
  connect(API);

  refusals.policyChanged(
    IN,
    policyFrom({ allow: [{ peer: WEB, methods: ['GET'], paths: ['/orders/*'] }, API], deny: [{ peer: API, paths: ['/a'] }] }),
  );

  assert.deepEqual(
    entries().map(({ peer, request }) => [peer, request?.path]),
    [[API, '/a']],
  );
  assert.deepEqual(refusals.list(IN).unlisted, { passed: 0, refused: 0 });
  for (let index = 0; index < 59; index++) ask(WEB, `/x/${index}`);
  assert.equal(entries().length, 60, 'their room is free again');

  refusals.policyChanged(IN, policyFrom({ allow: [{ peer: WEB, hosts: ['api'] }] }));
  assert.deepEqual(entries(), [], 'no host was known');
});

test('a peer that is in audit still is not forgotten', () => {
  const { connect, refusals, entries } = stage();
  connect(WEB);

  refusals.policyChanged(IN, policyFrom({ allow: [], mode: 'audit' }));

  assert.equal(entries().length, 1);
});
