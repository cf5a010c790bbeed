/** A Map that cannot change after it is made: `Object.freeze` does not reach a Map's entries. */
export function readOnlyMap<K, V>(entries: Iterable<readonly [K, V]>): ReadonlyMap<K, V> {
  return Object.freeze(new UnchangeableMap(entries));
}

class UnchangeableMap<K, V> extends Map<K, V> {
  constructor(entries: Iterable<readonly [K, V]>) {
    super();
    for (const [key, value] of entries) super.set(key, value);
  }

  override set(): never {
    throw new TypeError('this map is read-only');
  }

  override delete(): never {
    throw new TypeError('this map is read-only');
  }

  override clear(): never {
    throw new TypeError('this map is read-only');
  }
}
