import assert from 'node:assert/strict';
import { test } from 'node:test';
import { devConfigSchema, rotationPeriodMs, workloadName } from './config.ts';

function problems(trustDomain: object, ...more: readonly object[]): string[] {
  const parsed = devConfigSchema.safeParse({ trustDomains: [{ name: 'example.org', ...trustDomain }, ...more] });
  return parsed.success ? [] : parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
}

function assertProblem(found: readonly string[], expected: RegExp): void {
  assert.ok(found.length === 1 && expected.test(found[0] ?? ''), `${JSON.stringify(found)} does not match ${expected}`);
}

test('defaults are filled in, durations are milliseconds, and an ID may be text alone', () => {
  const { trustDomains } = devConfigSchema.parse({
    trustDomains: [{ name: 'example.org', svidLife: '90s', workloads: [{ socket: '/run/web.sock', ids: ['spiffe://example.org/web'] }] }],
  });

  const [domain] = trustDomains;
  assert.ok(domain !== undefined);
  assert.equal(domain.svidLife, 90_000);
  assert.equal(rotationPeriodMs(domain), 45_000);
  assert.equal(domain.keyType, 'ec-p256');
  const [workload] = domain.workloads;
  assert.ok(workload !== undefined);
  assert.equal(workloadName(workload), 'web');
  assert.equal(workload.socketMode, 0o600);
  assert.deepEqual(workload.ids, [{ id: 'spiffe://example.org/web', hint: '', dnsNames: [] }]);
});

test('what cannot work is refused, with the place', () => {
  const web = { socket: '/run/web.sock', ids: ['spiffe://example.org/web'] };

  assert.deepEqual(problems({ workloads: [web] }), []);
  assertProblem(problems({ svidLife: '1h', rotateEvery: '1h' }), /^trustDomains\.0\.rotateEvery: not shorter than svidLife/);
  assertProblem(problems({ svidLife: '500ms' }), /svidLife: shorter than one second/);
  assertProblem(problems({ svidLife: '1h', authorityLife: '1h' }), /authorityLife: shorter than twice svidLife/);
  assertProblem(problems({ federatesWith: ['partner.org'] }), /federatesWith\.0: there is no trust domain "partner\.org"/);
  assertProblem(problems({ federatesWith: ['example.org'] }), /does not federate with itself/);
  assertProblem(problems({}, { name: 'example.org' }), /trustDomains\.1\.name: .* is there twice/);
  assertProblem(problems({ workloads: [{ ids: [] }] }), /needs either socket or unsafeTcpPort/);
  assertProblem(problems({ workloads: [web, { ...web, name: 'other' }] }), /web\.sock is there twice/);
  assertProblem(problems({ workloads: [web, { ...web, socket: '/tmp/web.sock' }] }), /two workloads are called "web"/);
  assertProblem(problems({ workloads: [{ ...web, ids: ['spiffe://example.org'] }] }), /needs a path/);
  assertProblem(problems({ workloads: [{ ...web, ids: ['spiffe://partner.org/web'] }] }), /is not in trust domain "example\.org"/);
  assertProblem(problems({ workloads: [{ ...web, ids: [{ id: 'spiffe://example.org/web', dnsNames: ['a_b'] }] }] }), /not a DNS name/);
  const twice = [
    { id: 'spiffe://example.org/a', hint: 'x' },
    { id: 'spiffe://example.org/b', hint: 'x' },
  ];
  assertProblem(problems({ workloads: [{ ...web, ids: twice }] }), /hint "x" is there twice/);
});
