import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMetrics } from '../telemetry/metrics/metrics.ts';
import { literally, patternOfDomain, SERIES } from './series.ts';

test('every series that the fleet asks for is one that Scute serves', async () => {
  const { body } = await createMetrics({ version: '1' }).render();
  const served = new Set([...body.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name));
  for (const name of Object.values(SERIES)) assert.ok(served.has(name), name);
});

test('a pattern made of a text matches that text alone', () => {
  for (const text of ['a.b', 'a|b', '(a)*[b]{2}^$\\+?', 'spiffe://a/b', 'a\nb', '-_:', 'ä𝄞'])
    for (const other of [text, `${text}x`, `x${text}`, text.replace('.', 'x'), 'a', 'b', ''])
      assert.equal(new RegExp(`^(?:${literally(text)})$`, 'u').test(other), other === text, `${text} ${other}`);
  const domain = new RegExp(`^(?:${patternOfDomain('a.b')})$`);
  assert.deepEqual(
    ['spiffe://a.b', 'spiffe://a.b/c', 'spiffe://axb/c', 'spiffe://a.b.c/d'].map((id) => domain.test(id)),
    [true, true, false, false],
  );
});
