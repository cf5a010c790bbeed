import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { svidOf } from '../../test/support/pki/snapshots.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import { Ageing } from './ageing.ts';

const authority = createTestAuthority();
const LIFE_MS = 300_000;

/** Certificates count whole seconds. */
function svidOfAge(clock: FakeClock, ageMs: number): X509Svid {
  const notBefore = Math.floor(clock.now() / 1000) * 1000 - ageMs;
  return svidOf(authority, 'spiffe://example.org/a', { notBefore, notAfter: notBefore + LIFE_MS });
}

function create(clock: FakeClock): Ageing {
  return new Ageing(clock, () => 0);
}

test('nothing is due while no SVID is held', () => {
  const clock = new FakeClock();
  const ageing = create(clock);

  clock.advance(LIFE_MS);

  assert.equal(ageing.isDue(), false);
});

test('an SVID is due at two thirds of its life, not before', () => {
  const clock = new FakeClock();
  const ageing = create(clock);
  ageing.renewed(svidOfAge(clock, 0));

  clock.advance(198_000);
  assert.equal(ageing.isDue(), false);
  clock.advance(2000);
  assert.equal(ageing.isDue(), true);
});

test('having been asked for, it is due again later and later, but at least once a minute', () => {
  const clock = new FakeClock();
  const ageing = create(clock);
  ageing.renewed(svidOfAge(clock, 0));
  const asked: number[] = [];

  for (let second = 0; second < LIFE_MS / 1000; second += 1) {
    clock.advance(1000);
    if (ageing.isDue()) asked.push(clock.monotonic() / 1000);
  }

  const gaps = asked.slice(1).map((at, index) => at - (asked[index] ?? 0));
  assert.deepEqual(gaps, [5, 10, 20, 30, 30]);
});

test('an SVID that is old when it arrives is not asked for at once: it was just given', () => {
  const clock = new FakeClock();
  const ageing = create(clock);

  ageing.renewed(svidOfAge(clock, 250_000));

  assert.equal(ageing.isDue(), false);
  clock.advance(2500);
  assert.equal(ageing.isDue(), true);
});

test('a renewed SVID starts again from the beginning', () => {
  const clock = new FakeClock();
  const ageing = create(clock);
  ageing.renewed(svidOfAge(clock, 250_000));

  ageing.renewed(svidOfAge(clock, 0));
  clock.advance(150_000);

  assert.equal(ageing.isDue(), false);
});
