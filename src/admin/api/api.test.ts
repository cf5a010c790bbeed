import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import { test } from 'node:test';
import { createAdminParts } from '../../../test/support/admin/admin.ts';
import { joinMany } from '../../../test/support/admin/many-peers.ts';
import { createTestAuthority, dnsName } from '../../../test/support/pki/pki.ts';
import { requireSpiffeId } from '../../spiffe/spiffe-id.ts';
import type { Certificate, CertificatePage, Connection, ConnectionPage, Page } from '../api-types.ts';
import { apiRoutes } from './api.ts';

const MANY = 10_000;
const IN = { name: 'in', direction: 'inbound' } as const;

async function startMany() {
  const { held, peers, clock, status, readiness } = await createAdminParts();
  // As after a sweep: those that were judged again stand at the end.
  const sessions = joinMany(peers, MANY);
  const rotated = [...sessions.slice(MANY / 3), ...sessions.slice(0, MANY / 3)];
  const monotonic = (): number => performance.now();
  const routes = apiRoutes(
    {
      held,
      peers,
      status,
      readiness,
      clock: { now: () => clock.now(), monotonic },
      connections: () => [{ listener: IN, sessions: rotated }],
      sds: () => undefined,
    },
    () => undefined,
  );
  return async <T>(resource: string, search: Record<string, string> = {}): Promise<T> => {
    const answer = await routes[`/api/v1/${resource}`]?.GET?.({ search: new URLSearchParams(search), body: undefined });
    assert.ok(answer?.status === 200);
    return JSON.parse(answer.body) as T;
  };
}

async function everyPage<T>(get: (search: Record<string, string>) => Promise<Page<T>>): Promise<readonly T[]> {
  const items: T[] = [];
  for (let cursor: string | null = ''; cursor !== null;) {
    const page: Page<T> = await get(cursor === '' ? {} : { cursor });
    items.push(...page.items);
    cursor = page.nextCursor;
  }
  return items;
}

test('10,000 connections are told once each, newest first, though they stand in another order', async () => {
  const get = await startMany();

  const all = await everyPage<Connection>((search) => get<ConnectionPage>('connections', { limit: '500', ...search }));

  assert.deepEqual(
    all.map(({ id }) => id),
    Array.from({ length: MANY }, (_, index) => MANY - index),
  );
});

test('the certificates of 10,000 connected peers are all there, each with its connection', async () => {
  const get = await startMany();

  const all = await everyPage<Certificate>((search) => get<CertificatePage>('certificates', { limit: '500', kind: 'peer', ...search }));

  assert.equal(new Set(all.map(({ id }) => id)).size, MANY);
  assert.ok(all.every(({ peer }) => peer?.connections === 1));
});

test('a page holds the event loop up for less than 10 ms, with 10,000 connections open', async () => {
  const get = await startMany();
  for (const [resource, search] of [
    ['connections', {}],
    ['connections', { limit: '500' }],
    ['connections', { cursor: 'connection.20' }],
    ['connections', { spiffeId: 'spiffe://example.org/peer-7' }],
    ['peers', { limit: '500' }],
    ['peers', { search: 'peer-77' }],
    ['certificates', { limit: '500' }],
    ['certificates', { kind: 'peer_intermediate' }],
    ['overview', {}],
  ] as const) {
    const times: number[] = [];
    for (let asked = 0; asked < 21; asked++) {
      const { user, system } = process.cpuUsage();
      await get(resource, search);
      const after = process.cpuUsage();
      times.push((after.user - user + after.system - system) / 1000);
    }
    const median = times.toSorted((one, other) => one - other)[10] ?? Infinity;
    // What it takes is CPU time: whatever else the machine does, it is not in it.
    console.log(`${resource} ${JSON.stringify(search)}: ${median.toFixed(1)} ms of CPU`);
    assert.ok(median < 10, `${resource} ${JSON.stringify(search)}: ${median} ms`);
  }
});

test('a page ends early when it took long, and the next one goes on', async () => {
  const { held, peers, clock, status, readiness } = await createAdminParts();
  joinMany(peers, MANY);
  let atMs = 0;
  const routes = apiRoutes(
    {
      held,
      peers,
      status,
      readiness,
      // Each look at the clock finds that a millisecond has passed.
      clock: { now: () => clock.now(), monotonic: () => (atMs += 1) },
      connections: () => [],
      sds: () => undefined,
    },
    () => undefined,
  );
  const get = async (search: Record<string, string>): Promise<CertificatePage> => {
    const answer = await routes['/api/v1/certificates']?.GET?.({ search: new URLSearchParams(search), body: undefined });
    return JSON.parse(answer?.body ?? '') as CertificatePage;
  };

  const first = await get({ limit: '100' });
  const second = await get({ limit: '100', cursor: first.nextCursor ?? '' });

  assert.ok(first.items.length > 0 && first.items.length < 10, String(first.items.length));
  assert.deepEqual(
    [...first.items, ...second.items].map(({ spiffeId }) => spiffeId),
    Array.from({ length: first.items.length + second.items.length }, (_, index) => `spiffe://example.org/peer-${MANY - 1 - index}`),
  );
});

test('whatever a peer has put into its certificate is text of bounded length, in valid JSON without a sign of markup', async () => {
  const { held, peers, clock, status, readiness } = await createAdminParts();
  const hostile = `</script><img src=x onerror=alert(1)>&amp;\u202e\u2028\u0000"'\\${'A'.repeat(5000)}`;
  const { der } = createTestAuthority({ subject: hostile }).issue({
    id: 'spiffe://example.org/x',
    subject: hostile,
    otherSans: [dnsName(hostile)],
  });
  peers.judged(
    IN,
    { id: 1, downstreamAddress: hostile },
    { proven: undefined, leafDer: der, claimedId: requireSpiffeId('spiffe://example.org/x') },
    { reason: 'untrusted_chain', detail: hostile, rule: undefined },
  );
  const routes = apiRoutes({ held, peers, status, readiness, clock, connections: () => [], sds: () => undefined }, () => undefined);

  for (const resource of ['certificates', 'refusals']) {
    const answer = await routes[`/api/v1/${resource}`]?.GET?.({ search: new URLSearchParams(), body: undefined });
    const body = answer?.body ?? '';
    assert.equal((JSON.parse(body) as Page<unknown>).items.length, 1);
    assert.ok(body.length < 6000, String(body.length));
    assert.ok(!/[<>&\u202e\u2028]/.test(body), body);
  }
});
