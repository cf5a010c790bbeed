import assert from 'node:assert/strict';
import { test } from 'node:test';
import { catalogueOf } from '../../test/support/secrets.ts';
import type { Catalogue } from './secrets.ts';
import { fetchSecrets } from './fetch.ts';

const there = catalogueOf({ a: '1', b: '1', alias: '1' });
/** Everything is a, b, and what is there no longer; `alias` is another name of a. */
const catalogue: Catalogue = { ...there, names: () => ['a', 'b', 'expired'] };

for (const [what, names, gives, lacks] of [
  ['names, in their order', ['b', 'a'], 'b a', ''],
  ['a name twice', ['b', 'a', 'b'], 'b a', ''],
  ['nothing', [], 'a b', ''],
  ['empty names alone', ['', ''], 'a b', ''],
  ['an empty name besides others', ['', 'a'], 'a', ''],
  ['everything', ['*'], 'a b', ''],
  ['everything, and names that it does not have', ['alias', '*', 'z'], 'a b alias', 'z'],
  ['names that are not there', ['z', 'a', 'y'], 'a', 'z y'],
] as const) {
  test(`who asks once for ${what}`, () => {
    const { secrets, missing } = fetchSecrets(catalogue, names, 'spiffe');

    assert.equal(secrets.map(({ name }) => name).join(' '), gives);
    assert.deepEqual(
      missing,
      lacks === '' ? [] : lacks.split(' ').map((name) => ({ name, reason: 'unknown_name', detail: 'nothing has this name' })),
    );
  });
}
