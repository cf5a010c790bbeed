import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createReadiness, formatReadiness, formatReadinessVerbose } from './readiness.ts';

test('with nothing registered nobody is ready', () => {
  const readiness = createReadiness();
  readiness.register('only_informs', () => ({ ok: true }), { blocks: false });

  assert.equal(readiness.evaluate().ready, false);
  assert.equal(formatReadiness(readiness.evaluate()), 'not ready: starting\n');
});

test('a check that throws has failed, without telling what it threw', () => {
  const readiness = createReadiness();
  readiness.register('identity', () => {
    throw new Error('secret');
  });

  const report = readiness.evaluate();

  assert.equal(report.ready, false);
  assert.ok(!formatReadinessVerbose(report).includes('secret'));
});

test('all failing checks are named, in the order of registration', () => {
  const readiness = createReadiness();
  for (const name of ['b', 'a', 'c']) readiness.register(name, () => (name === 'a' ? { ok: true } : { ok: false, detail: 'x' }));

  assert.equal(formatReadiness(readiness.evaluate()), 'not ready: b, c\n');
});

test('a detail cannot look like another line', () => {
  const readiness = createReadiness();
  readiness.register('identity', () => ({ ok: false, detail: 'no\r\n[+]identity ok\u2028x' }));

  assert.deepEqual(formatReadinessVerbose(readiness.evaluate()).split(/[\r\n\u2028]/), [
    '[-]identity failed: no [+]identity ok x',
    '[+]not_stopping ok',
    'readyz check failed',
    '',
  ]);
});

test('a name can be taken once, given back and taken again', () => {
  const readiness = createReadiness();
  const release = readiness.register('identity', () => ({ ok: true }));
  assert.throws(() => readiness.register('identity', () => ({ ok: true })), /"identity"/);
  assert.throws(() => readiness.register('not a label', () => ({ ok: true })), /"not a label"/);

  release();
  readiness.register('identity', () => ({ ok: false, detail: 'second' }));
  release();

  assert.equal(readiness.evaluate().checks[0]?.detail, 'second');
});
