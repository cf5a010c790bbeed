/** The files that a configuration names and that are needed to judge it: found before it is, so they may be anything. */
export interface NamedFiles {
  readonly policyFiles: readonly string[];
  readonly idsFiles: readonly string[];
  /** Those of `files`. */
  readonly directories: readonly string[];
}

/** `raw` is what a configuration file gives. As written, each once. */
export function namedFiles(raw: unknown): NamedFiles {
  const listeners = [...listAt(raw, 'inbound'), ...listAt(raw, 'outbound')];
  const rules = listeners.flatMap((listener) => ['allow', 'expect', 'deny'].flatMap((key) => listAt(listener, key)));
  return {
    policyFiles: textsAt(listeners, 'policyFile'),
    idsFiles: textsAt(rules, 'idsFile'),
    directories: textsAt(listAt(raw, 'files'), 'directory'),
  };
}

function textsAt(values: readonly unknown[], key: string): readonly string[] {
  return [...new Set(values.map((value) => at(value, key)).filter((text) => typeof text === 'string'))];
}

function listAt(value: unknown, key: string): readonly unknown[] {
  const list = at(value, key);
  return Array.isArray(list) ? (list as readonly unknown[]) : [];
}

function at(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined;
}
