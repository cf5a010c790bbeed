import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { buildConfigDump } from './inventory.ts';

function dumpOf(config: unknown): unknown {
  const dump = buildConfigDump({
    version: 'test',
    startedAtMs: 0,
    now: () => 0,
    config: () => config,
    identity: () => undefined,
    listeners: () => [],
    exposed: () => new Map(),
    lastReload: () => undefined,
  });
  return (dump as { readonly config: unknown }).config;
}

test('what is named like a secret is not shown, but for the names of secrets that matchers are for', () => {
  const matchers = [{ secret: 'ROOTCA', listener: 'in', token: 'x' }];

  assert.deepEqual(dumpOf({ secret: 'x', sds: { secret: 'x', matchers } }), {
    secret: '[redacted]',
    sds: { secret: '[redacted]', matchers: [{ secret: 'ROOTCA', listener: 'in', token: '[redacted]' }] },
  });
});

test('no key is shown, wherever it is', () => {
  const { privateKey } = generateKeyPairSync('ed25519');

  assert.deepEqual(dumpOf({ matchers: [{ secret: privateKey, other: [Buffer.from('x')] }] }), {
    matchers: [{ secret: '[redacted]', other: ['[redacted]'] }],
  });
});
