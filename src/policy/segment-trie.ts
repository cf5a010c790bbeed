/** A pattern of paths: segments, of which `undefined` is any one that is not empty; `hasMore`: and whatever follows one more slash. */
export interface SegmentPattern {
  readonly segments: readonly (string | undefined)[];
  readonly hasMore: boolean;
}

interface Node<T> {
  children: Map<string, Node<T>> | undefined;
  any: Node<T> | undefined;
  /** Of the pattern that ends here. */
  here: T | undefined;
  /** Of the pattern that ends in `**` here. */
  more: T | undefined;
}

/** One value for each pattern of paths. A look-up walks along the path once, and visits no node twice. */
export class SegmentTrie<T> {
  readonly #root: Node<T> = emptyNode();

  /** The value of a pattern; made if there is none. */
  at({ segments, hasMore }: SegmentPattern, make: () => T): T {
    let node = this.#root;
    for (const segment of segments) {
      if (segment === undefined) {
        node = node.any ??= emptyNode();
        continue;
      }
      node.children ??= new Map();
      const next = node.children.get(segment) ?? emptyNode<T>();
      node.children.set(segment, next);
      node = next;
    }
    return hasMore ? (node.more ??= make()) : (node.here ??= make());
  }

  /** Calls `found` for the value of each pattern that matches `path`, which begins with a slash. */
  find(path: string, found: (value: T) => void): void {
    visit(this.#root, path, 1, found);
  }

  /** Whether one of the patterns matches every path that `pattern` matches. */
  covers({ segments, hasMore }: SegmentPattern): boolean {
    return covers(this.#root, segments, 0, hasMore);
  }
}

function covers<T>(node: Node<T>, segments: SegmentPattern['segments'], at: number, hasMore: boolean): boolean {
  if (node.more !== undefined && (at < segments.length || hasMore)) return true;
  if (at === segments.length) return node.here !== undefined && !hasMore;
  const segment = segments[at];
  const child = segment === undefined ? undefined : node.children?.get(segment);
  if (child !== undefined && covers(child, segments, at + 1, hasMore)) return true;
  return node.any !== undefined && covers(node.any, segments, at + 1, hasMore);
}

/** `from` is where the next segment begins, behind a slash; one beyond the end of the path if there is none. */
function visit<T>(node: Node<T>, path: string, from: number, found: (value: T) => void): void {
  if (from > path.length) {
    if (node.here !== undefined) found(node.here);
    return;
  }
  if (node.more !== undefined) found(node.more);
  if (node.children === undefined && node.any === undefined) return;
  const slash = path.indexOf('/', from);
  const end = slash === -1 ? path.length : slash;
  const child = node.children?.get(path.slice(from, end));
  if (child !== undefined) visit(child, path, end + 1, found);
  if (node.any !== undefined && end > from) visit(node.any, path, end + 1, found);
}

function emptyNode<T>(): Node<T> {
  return { children: undefined, any: undefined, here: undefined, more: undefined };
}
