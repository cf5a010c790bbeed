import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge } from '../issue.ts';
import { createConfigSchema } from '../schema.ts';

const schema = createConfigSchema({ groupId: () => undefined });
const INBOUND = { listen: '127.0.0.1:8443', to: '127.0.0.1:8080', allow: ['spiffe://example.org/web'] };
const OUTBOUND = { listen: '127.0.0.1:5432', to: 'db.internal:5432', expect: ['spiffe://example.org/db'] };
const PROBE = { path: '/app/ready', to: '127.0.0.1:8080', target: '/healthz' };

/** What is wrong with these probes, as `path: message`; none if nothing is. */
function problems(probes: readonly unknown[], others: object = {}): string[] {
  const value = {
    workloadApi: { endpoint: 'unix:///agent.sock' },
    inbound: [INBOUND],
    outbound: [OUTBOUND],
    metrics: { listen: '[::]:9090', probes },
    ...others,
  };
  const judged = judge(schema, { value, locate: () => ({ source: 'test', line: undefined, column: undefined }) });
  return judged.ok ? [] : judged.error.map(({ path, message }) => `${path}: ${message}`);
}

test('probes are for an application on this machine', () => {
  for (const to of ['127.0.0.1:8080', '[::1]:8080', 'localhost:8080', 'unix:///run/app.sock'])
    assert.deepEqual(problems([{ ...PROBE, to }]), []);
  for (const to of [
    '10.0.0.1:8080',
    'app:8080',
    '0.0.0.0:8080',
    '[::]:8080',
    '127.0.0.1:0',
    '[::ffff:127.0.0.1]:8080',
    'http://127.0.0.1:80',
    '169.254.169.254:80',
  ])
    assert.match(problems([{ ...PROBE, to }])[0] ?? '', /^metrics\.probes\[0\]\.to: /, to);
});

test('a probe cannot be sent to a listener of Scute: whoever asks would speak with its identity, or have it ask itself', () => {
  const others = { admin: { listen: '127.0.0.1:9000' }, sds: { listen: 'unix:///run/sds.sock' } };
  for (const to of [
    '127.0.0.1:8443',
    'localhost:5432',
    '127.0.0.1:9090',
    '[::1]:9090',
    '127.0.0.2:9090',
    'localhost:9000',
    'unix:///run/sds.sock',
  ])
    assert.match(
      problems([{ ...PROBE, to }], others)[0] ?? '',
      /^metrics\.probes\[0\]\.to: .* of this configuration, and must be the application$/,
      to,
    );
});

test('a listener of Scute that is bound to IPv4 written as IPv6 is the same listener', () => {
  for (const [to, others] of [
    ['127.0.0.1:5432', { outbound: [{ ...OUTBOUND, listen: '[::ffff:127.0.0.1]:5432' }] }],
    ['127.0.0.2:8443', { inbound: [{ ...INBOUND, listen: '[::ffff:0.0.0.0]:8443' }] }],
  ] as const)
    assert.match(
      problems([{ ...PROBE, to }], others)[0] ?? '',
      /^metrics\.probes\[0\]\.to: .* of this configuration, and must be the application$/,
      to,
    );
});

test('what a probe asks for is fixed: a path that cannot become another request', () => {
  for (const target of ['/', '/healthz', '/a?b=c&d=%20', '/*']) assert.deepEqual(problems([{ ...PROBE, target }]), []);
  for (const target of ['', 'healthz', 'http://evil/', '/a b', '/a\r\nX: y', '/a#b', '/ä', '*', '\t/', '/\u007f', `/${'a'.repeat(1024)}`])
    assert.match(problems([{ ...PROBE, target }])[0] ?? '', /^metrics\.probes\[0\]\.target: /, target);
});

test('the path of a probe is no other page, and none of them is there twice', () => {
  for (const path of ['/metrics', '/livez', '/readyz', '', 'app', '/a?b', '/a b'])
    assert.match(problems([{ ...PROBE, path }])[0] ?? '', /^metrics\.probes\[0\]\.path: /, path);
  assert.deepEqual(problems([PROBE, PROBE]), ['metrics.probes: has a path twice']);
  assert.deepEqual(problems(Array.from({ length: 17 }, (_, index) => ({ ...PROBE, path: `/${index}` }))), [
    'metrics.probes: must be at most 16',
  ]);
  assert.match(problems([{ ...PROBE, method: 'POST' }])[0] ?? '', /^metrics\.probes\[0\]\.method: is not known here/);
});
