import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FleetCounts, FleetOverview, FleetProblem } from '../../src/fleet/api-types.ts';
import { fleetAttention, fleetHeadline } from '../../src/dashboard/fleet/health.ts';

const NOW = Date.UTC(2026, 10, 30);
const WELL: FleetCounts = {
  sidecars: 3,
  unreachable: 0,
  notReady: 0,
  disconnected: 0,
  certificates: 4,
  expired: 0,
  stuck: 0,
  lagging: 0,
};

function overview(counts: Partial<FleetCounts>, problem: FleetProblem | null = null): FleetOverview {
  return {
    now: new Date(NOW).toISOString(),
    prometheus: 'http://localhost/',
    counts: problem === null ? { value: { ...WELL, ...counts }, problem } : { value: null, problem },
    firstExpiry: { value: new Date(NOW + 600_000).toISOString(), problem: null },
    remainingLife: { value: [], problem: null },
    versions: { value: [], problem: null },
  };
}

function told(counts: Partial<FleetCounts>, problem?: FleetProblem): readonly unknown[] {
  const answer = overview(counts, problem);
  const found = fleetAttention(answer);
  return [fleetHeadline(answer, found, NOW).level, ...found.map(({ key, level }) => `${key} ${level}`)];
}

test('a fleet in which nothing is wrong is said to be well, with when the first certificate expires', () => {
  assert.deepEqual(told({}), ['well']);
  const { sentence, next } = fleetHeadline(overview({}), [], NOW);
  assert.equal(sentence, 'All is well with 4 certificates of 3 sidecars.');
  assert.equal(next, 'The first expires in 10 min, unless it is rotated.');
  assert.deepEqual(told({ sidecars: 0, certificates: 0 }), ['waiting']);
});

test('only what has expired, and a Prometheus that tells nothing, is red; the rest is amber', () => {
  assert.deepEqual(told({ expired: 1, stuck: 1 }), ['red', 'expired red']);
  assert.deepEqual(told({ expired: 1, stuck: 2 }), ['red', 'expired red', 'stuck amber']);
  assert.deepEqual(told({}, { reason: 'timeout', detail: 'slow' }), ['red', 'Prometheus red']);
  for (const [count, key] of [
    ['stuck', 'stuck'],
    ['lagging', 'lagging'],
    ['notReady', 'not ready'],
    ['disconnected', 'disconnected'],
    ['unreachable', 'unreachable'],
  ] as const)
    assert.deepEqual(told({ [count]: 1 }), ['amber', `${key} amber`]);
});
