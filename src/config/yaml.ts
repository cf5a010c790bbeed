import {
  isAlias,
  isCollection,
  isMap,
  isNode,
  isScalar,
  LineCounter,
  parseDocument,
  visit,
  type Alias,
  type Document,
  type Node,
} from 'yaml';
import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { ConfigIssue, IssuePath, RawConfig } from './issue.ts';

/** How often aliases may stand for something, counted with what they contain: "billion laughs" stops here. */
const MAX_ALIAS_COUNT = 100;

/** Problems that are told: whoever has more of them made one mistake many times. */
const MAX_PROBLEMS = 20;

/** Parses YAML 1.2 (or JSON) text, keeping where each value is written. `source` is the name for messages. */
export function parseYaml(text: string, source: string): Result<RawConfig, readonly ConfigIssue[]> {
  const lines = new LineCounter();
  const at = (offset: number): Pick<ConfigIssue, 'source' | 'line' | 'column'> => {
    const { line, col } = lines.linePos(offset);
    return { source, line, column: col };
  };
  let document: Document;
  let value: unknown;
  try {
    // Its own look for keys that are there twice takes the square of the time.
    document = parseDocument(text, { lineCounter: lines, prettyErrors: false, strict: true, uniqueKeys: false, stringKeys: true });
    const problems = [...document.errors, ...document.warnings]
      .slice(0, MAX_PROBLEMS)
      .map(({ pos, message }) => ({ pos: pos[0], message }));
    if (problems.length === 0) problems.push(...repeatedKeys(document));
    if (problems.length > 0)
      return err(problems.map(({ pos, message }) => ({ ...at(pos), path: '', message: `not valid YAML: ${explained(message)}` })));
    value = document.toJS({ maxAliasCount: MAX_ALIAS_COUNT });
  } catch (cause) {
    // Too many aliases, or nested so deep that the parser runs out of stack.
    return err([{ ...at(0), path: '', message: `not valid YAML: ${explained(messageOf(cause))}` }]);
  }
  if (value === null || value === undefined) return err([{ ...at(0), path: '', message: 'is empty' }]);
  // To find what one stands for takes a walk through the whole document.
  const meant = new Map<Alias, unknown>();
  const resolved = (node: unknown): unknown => {
    if (!isAlias(node)) return node;
    if (!meant.has(node)) meant.set(node, node.resolve(document));
    return meant.get(node);
  };
  return ok({
    value,
    locate: (path, target) => at(offsetOf(document, resolved, path, target)),
  });
}

interface YamlProblem {
  readonly pos: number;
  readonly message: string;
}

function repeatedKeys(document: Document): readonly YamlProblem[] {
  const problems: YamlProblem[] = [];
  visit(document, {
    Map(_, { items }) {
      const seen = new Set<unknown>();
      for (const { key } of items) {
        const name = isScalar(key) ? key.value : key;
        if (seen.has(name)) problems.push({ pos: startOf(key) ?? 0, message: 'Map keys must be unique' });
        seen.add(name);
        if (problems.length === MAX_PROBLEMS) return visit.BREAK;
      }
      return undefined;
    },
  });
  return problems;
}

/** The parser says of what is nested too deep that it ran out of stack. */
function explained(message: string): string {
  return message.startsWith('Maximum call stack') ? 'nested too deep' : message;
}

/** Where `path` is written; as much of it as there is. */
function offsetOf(document: Document, resolvedOf: (node: unknown) => unknown, path: IssuePath, target: 'key' | 'value'): number {
  let offset = document.contents?.range?.[0] ?? 0;
  let node: unknown = document.contents;
  for (const [depth, part] of path.entries()) {
    const resolved = resolvedOf(node);
    if (!isCollection(resolved)) return offset;
    if (isMap(resolved)) {
      const pair = resolved.items.find(({ key }) => (isScalar(key) ? String(key.value) : String(key)) === String(part));
      if (pair === undefined) return offset;
      const wanted = (target === 'key' && depth === path.length - 1) || !isNode(pair.value) ? pair.key : pair.value;
      offset = startOf(wanted) ?? offset;
      node = pair.value;
    } else {
      node = resolved.get(Number(part), true);
      offset = startOf(node) ?? offset;
    }
  }
  return offset;
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? (node as Node).range?.[0] : undefined;
}
