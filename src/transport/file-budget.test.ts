import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { test } from 'node:test';
import { createFileBudget, planFiles, type FileNeeds } from './file-budget.ts';

const EVERYTHING: FileNeeds = { listeners: 5, inbound: true, outbound: true, sds: 256, metrics: 128, admin: 128, bundleEndpoint: 128 };
const LIMITS = [128, 256, 512, 1024, 4096, 20_000, 1_048_576];

test('what all uses keep and may have fits the limit of the process, whatever is served', () => {
  for (const limit of LIMITS) {
    for (let which = 0; which < 64; which++) {
      const on = (bit: number): boolean => (which & (1 << bit)) !== 0;
      const needs = {
        listeners: 5,
        inbound: on(0),
        outbound: on(1),
        sds: on(2) ? 256 : 0,
        metrics: on(3) ? 128 : 0,
        admin: on(4) ? 128 : 0,
        bundleEndpoint: on(5) ? 128 : 0,
      };
      const plan = planFiles(limit, needs);
      const what = `${limit} ${JSON.stringify(needs)} ${JSON.stringify(plan)}`;
      assert.ok(plan.traffic + plan.sds.most + plan.metrics.most + plan.admin.most + plan.bundle_endpoint.most + 45 <= limit, what);
      assert.ok(plan.strangers.most <= limit / 2 && plan.strangers.most <= plan.traffic / 2, what);
      for (const use of ['sds', 'metrics', 'admin', 'bundle_endpoint'] as const) assert.equal(plan[use].kept, plan[use].most, what);
      for (const use of ['inbound', 'outbound'] as const) {
        assert.equal(plan[use].most > 0, needs[use], what);
        assert.ok(!needs[use] || plan[use].kept >= Math.floor(plan.traffic / 4), what);
        assert.ok(plan[use].most <= plan.traffic, what);
      }
    }
  }
});

test('a direction that is served alone may have all that is for traffic', () => {
  const inbound = planFiles(1024, { ...EVERYTHING, outbound: false });
  assert.equal(inbound.inbound.most, inbound.traffic);
  const outbound = planFiles(1024, { ...EVERYTHING, inbound: false });
  assert.deepEqual([outbound.outbound.most, outbound.strangers.most], [outbound.traffic, 0]);
});

test('however descriptors are taken and given back, nobody has more than may be, and what is kept can always be had', () => {
  let drawn = 0;
  const random = (): number => Number.parseInt(hash('sha256', `files ${(drawn += 1)}`).slice(0, 12), 16) / 2 ** 48;
  const plan = planFiles(200, { ...EVERYTHING, sds: 20 });
  const budget = createFileBudget(plan);
  const held = { strangers: 0, inbound: 0, outbound: 0 };
  const uses = ['strangers', 'inbound', 'outbound'] as const;
  let refused = 0;
  for (let step = 0; step < 20_000; step++) {
    const use = uses[Math.floor(random() * 3)] ?? 'inbound';
    const what = random();
    // Now more is taken than given back, and now the other way.
    if (what < (step % 4000 < 2500 ? 0.6 : 0.3)) {
      if (budget[use].take(2)) held[use] += 2;
      else refused += 1;
    } else if (what < 0.8 && held[use] > 0) {
      budget[use].give(2);
      held[use] -= 2;
    } else if (held.strangers > 0) {
      budget.admitted(2);
      held.strangers -= 2;
      held.inbound += 2;
    }
    assert.deepEqual([budget.strangers.held, budget.inbound.held, budget.outbound.held], Object.values(held));
    assert.ok(held.strangers <= plan.strangers.most);
    assert.ok(held.strangers + held.inbound <= plan.inbound.most);
    assert.ok(held.outbound <= plan.outbound.most);
    assert.ok(held.strangers + held.inbound + held.outbound <= plan.traffic);
    for (const [own, others] of [
      ['inbound', held.outbound],
      ['outbound', held.strangers + held.inbound],
    ] as const) {
      assert.ok(plan.traffic - others >= plan[own].kept, own);
    }
  }
  assert.ok(refused > 100);
});
