import { stat } from 'node:fs/promises';

/** What was at a path at one moment. */
interface Sight {
  /** Tells one socket from its successor at the same path. Inode numbers alone are used again. */
  readonly socket: string;
  /** Changes also when the same socket gets another owner, mode or name. */
  readonly state: string;
}

/**
 * Notices that another socket has come to a path. It looks, and does not wait to be notified: a look follows the whole path, so that folders
 * which are made later, taken away, or swapped by a link, as Kubernetes does, are seen wherever on the way they are; and there is no watch
 * that could be lost, run out of, or be left open.
 */
export class SocketWatch {
  readonly path: string | undefined;
  #seen: Sight | undefined;

  /** Without a path, as over TCP, nothing is ever seen. */
  constructor(path: string | undefined) {
    this.path = path;
  }

  /** What is there now is what later looks compare with. Before connecting: what comes in between is then found, at worst once for nothing. */
  async remember(): Promise<void> {
    this.#seen = await this.#look();
  }

  /** True if another socket is there than the one remembered. None is not another: it may be on its way, and connections outlive a name. */
  async isReplaced(): Promise<boolean> {
    const found = await this.#look();
    return found !== undefined && found.socket !== this.#seen?.socket;
  }

  /** True if that, or if the same socket was given another owner or mode: an attempt may end otherwise now. */
  async isChanged(): Promise<boolean> {
    const found = await this.#look();
    return found !== undefined && found.state !== this.#seen?.state;
  }

  async #look(): Promise<Sight | undefined> {
    if (this.path === undefined) return undefined;
    try {
      const { dev, ino, birthtimeNs, ctimeNs } = await stat(this.path, { bigint: true });
      // Not every file system knows when a file was made.
      const socket = `${dev}:${ino}:${birthtimeNs === 0n ? ctimeNs : birthtimeNs}`;
      return { socket, state: `${socket}:${ctimeNs}` };
    } catch {
      return undefined;
    }
  }
}
