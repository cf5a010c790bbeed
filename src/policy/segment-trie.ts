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

  /**
   * Calls `found` for the value of each pattern that matches `path`, which begins with a slash. A path may have more segments
   * than there is stack for.
   */
  find(path: string, found: (value: T) => void): void {
    /** Where the path goes on through `*`, too. */
    const left: { readonly node: Node<T>; readonly from: number }[] = [];
    let node: Node<T> | undefined = this.#root;
    // Where the next segment begins, behind a slash; one beyond the end of the path if there is none.
    let from = 1;
    while (node !== undefined) {
      const { here, more, any, children }: Node<T> = node;
      let next: Node<T> | undefined;
      if (from > path.length) {
        if (here !== undefined) found(here);
      } else {
        if (more !== undefined) found(more);
        if (children !== undefined || any !== undefined) {
          const slash = path.indexOf('/', from);
          const end = slash === -1 ? path.length : slash;
          const wild = end > from ? any : undefined;
          next = children?.get(path.slice(from, end));
          from = end + 1;
          if (next === undefined) next = wild;
          else if (wild !== undefined) left.push({ node: wild, from });
        }
      }
      if (next === undefined) {
        const turn = left.pop();
        next = turn?.node;
        from = turn?.from ?? from;
      }
      node = next;
    }
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

function emptyNode<T>(): Node<T> {
  return { children: undefined, any: undefined, here: undefined, more: undefined };
}
