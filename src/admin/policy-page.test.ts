import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAdminParts, LOOPBACK, startService } from '../../test/support/admin/admin.ts';
import { ask } from '../../test/support/http/http.ts';
import { policyFrom } from '../../test/support/policy/policies.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import type { ListenerPage } from '../config/policy/policy-page.ts';
import type { Policy } from '../policy/policy.ts';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import type { ListenerRef } from '../telemetry/log/records.ts';
import { createRefusals } from '../telemetry/log/refusals.ts';
import { buildPolicyPage } from './policy-page.ts';

const IN: ListenerRef = { name: 'in', direction: 'inbound' };

/** What is said of a listener that these peers have connected to, the last one last. */
async function pageOf(policy: Policy, peers: readonly string[]): Promise<ListenerPage> {
  const refusals = createRefusals(new FakeClock());
  for (const peer of peers)
    refusals.record(IN, policy, { peer: requireSpiffeId(peer), reason: 'not_allowed', isEnforced: false, request: undefined });
  const status = { listener: IN, policy, refusals: () => refusals.list(IN), connectionsBy: () => undefined };
  const { listeners } = await buildPolicyPage([status], 1000, 0);
  const [listener] = listeners;
  assert.ok(listener !== undefined);
  return listener;
}

test('of very long SPIFFE IDs an answer has those that it has room for, and says how many it has not', async () => {
  const peers = Array.from({ length: 400 }, (_, index) => `spiffe://example.org/${'x'.repeat(2020)}/${index}`);

  const { would_deny, omitted, rules_to_copy } = await pageOf(policyFrom({ allow: [], mode: 'audit' }), peers);

  assert.ok(would_deny.length > 200 && would_deny.length < 300, String(would_deny.length));
  assert.deepEqual([would_deny.length + omitted, rules_to_copy.length], [400, would_deny.length]);
});

for (const [rules, near] of [
  [100, 400],
  [500, 200],
  [1001, 0],
] as const)
  test(`among ${rules} rules, the nearest is sought for the newest ${near} of 400 refusals`, async () => {
    const peers = Array.from({ length: 400 }, (_, index) => `spiffe://example.org/job/${index}`);
    const allow = Array.from({ length: rules }, (_, index) => `spiffe://example.org/${index}/x`);

    const { would_deny } = await pageOf(policyFrom({ allow, deny: [], mode: 'audit' }), [...peers, 'spiffe://example.org/0/y']);

    const found = would_deny.map((line) => line.near !== null);
    assert.equal(would_deny.length, 401);
    // Most are near nothing; so it is looked at the one that is: the newest, and then the oldest.
    assert.equal(found[0], near > 0);
    const again = await pageOf(policyFrom({ allow, mode: 'audit' }), ['spiffe://example.org/0/y', ...peers]);
    assert.equal(again.would_deny.at(-1)?.near?.rule.index, near === 400 ? 0 : undefined);
  });

test('answers are made one after the other, whoever asks at the same moment', async (t) => {
  const policy = policyFrom({ allow: [] });
  const statuses = ['first', 'last'].map((name) => ({
    listener: { name, direction: 'inbound' as const },
    policy,
    refusals() {
      looked.push(name);
      return createRefusals(new FakeClock()).list(IN);
    },
    connectionsBy: () => undefined,
  }));
  const looked: string[] = [];
  const parts = await createAdminParts();
  const address = await startService(t, parts.adminServer(LOOPBACK, parts.status, statuses));

  const answers = await Promise.all(Array.from({ length: 4 }, () => ask(address, '/policy')));

  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
  assert.equal(looked.join(' '), Array(4).fill('first last').join(' '));
});
