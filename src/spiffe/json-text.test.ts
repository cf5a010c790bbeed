import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readJsonText } from './json-text.ts';

test('a key that one object has twice is found, however it is written and wherever it is', () => {
  for (const [text, key] of [
    ['{"a":1,"a":2}', 'a'],
    ['{"a":1,"\\u0061":2}', 'a'],
    ['{"x":[{"y":{"b":{},"c":[1,"b"],"b":0}}]}', 'b'],
    ['{"":1,"":2}', ''],
    ['[{"a":1},{"c":[],"c":1}]', 'c'],
    ['{"__proto__":1,"__proto__":2}', '__proto__'],
    ['{"\\"":1,"\\"":2}', '"'],
  ] as const) {
    assert.doesNotThrow(() => JSON.parse(text));
    assert.equal(readJsonText(text).repeatedKey, key, text);
  }
});

test('what only looks like a repeated key is none', () => {
  for (const text of [
    '{"a":{"a":{"a":"a"}},"b":["a","a",{"a":1}]}',
    '["a","a"]',
    '"a"',
    '{"a":"b\\",\\"a\\":","c":"}{"}',
    '{"a":[1,2,{"b":1}],"b":[]}',
    '{}',
    ' 1 ',
  ]) {
    assert.doesNotThrow(() => JSON.parse(text));
    assert.equal(readJsonText(text).repeatedKey, undefined, text);
  }
});

test('numbers of the outermost object come as they are written', () => {
  const { numbers } = readJsonText('{ "a" : 18446744073709551615, "b": -1.5e+3, "c": "7", "d": [8], "e": {"a": 9}, "f":0}');

  assert.deepEqual(
    [...numbers],
    [
      ['a', '18446744073709551615'],
      ['b', '-1.5e+3'],
      ['f', '0'],
    ],
  );
  assert.equal(readJsonText('[1]').numbers.size, 0);
});
