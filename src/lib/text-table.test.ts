import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TextTableBuilder, type TextTable } from './text-table.ts';

function built(builder: TextTableBuilder): TextTable {
  const steps = builder.build();
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

test('texts are found by their keys, with their lines', () => {
  const builder = new TextTableBuilder();
  for (let line = 1; line <= 100_000; line++) builder.add(`text-${line}`, line);

  const table = built(builder);

  assert.equal(table.size, 100_000);
  for (let line = 1; line <= 100_000; line += 7) {
    const entry = table.find(`text-${line}`);
    assert.ok(entry !== undefined);
    assert.deepEqual([table.text(entry), table.line(entry), table.next(entry)], [`text-${line}`, line, undefined]);
    assert.equal(table.find(`text-${line}0000000`), undefined);
  }
});

test('texts of one key are found one after the other, however many there are', () => {
  const builder = new TextTableBuilder();
  for (let line = 1; line <= 50_000; line++) builder.add(`key@${line}`, line, 3);
  builder.add('ke@1', 50_001, 2);
  const table = built(builder);

  const lines: number[] = [];
  for (let entry = table.find('key'); entry !== undefined; entry = table.next(entry)) lines.push(table.line(entry));

  assert.deepEqual(
    lines,
    Array.from({ length: 50_000 }, (_, index) => 50_000 - index),
  );
  assert.equal(table.find('key@1'), undefined);
});

test('a table without texts has nothing', () => {
  assert.equal(built(new TextTableBuilder()).find(''), undefined);
});

test('a text that begins as another, or has a letter that is no byte, is not that one', () => {
  const builder = new TextTableBuilder();
  builder.add('abc', 1);
  builder.add('', 2);
  const table = built(builder);

  for (const text of ['ab', 'abcd', 'ab\u0163', 'ABC']) assert.equal(table.find(text), undefined, text);
  assert.equal(table.line(table.find('') ?? NaN), 2);
});
