/** The flags that describe listeners, in the order they are given: `--inbound A --to B --allow ID…`. They become what a file would hold, so that one schema judges both. */

interface RawListener {
  listen: string;
  to?: string;
  allow?: string[];
  expect?: string[];
}

/** A flag that has no place where it stands. */
export type FlagProblem = string;

export interface ListenerFlags {
  listener(direction: 'inbound' | 'outbound', address: string): void;
  to(address: string): FlagProblem | undefined;
  peer(flag: 'allow' | 'expect', id: string): FlagProblem | undefined;
  /** Undefined for a direction that has no listener. */
  collected(): { readonly inbound: readonly RawListener[] | undefined; readonly outbound: readonly RawListener[] | undefined };
}

export function createListenerFlags(): ListenerFlags {
  const inbound: RawListener[] = [];
  const outbound: RawListener[] = [];
  let latest: { readonly direction: 'inbound' | 'outbound'; readonly listener: RawListener } | undefined;
  return {
    listener(direction, address) {
      const listener: RawListener = { listen: address };
      (direction === 'inbound' ? inbound : outbound).push(listener);
      latest = { direction, listener };
    },
    to(address) {
      if (latest === undefined) return 'it belongs to the --inbound or --outbound before it, and there is none';
      if (latest.listener.to !== undefined) return `--${latest.direction} ${latest.listener.listen} has one already`;
      latest.listener.to = address;
      return undefined;
    },
    peer(flag, id) {
      const direction = flag === 'allow' ? 'inbound' : 'outbound';
      if (latest?.direction !== direction) return `it belongs to the --${direction} before it, and there is none`;
      (latest.listener[flag] ??= []).push(id);
      return undefined;
    },
    collected: () => ({ inbound: inbound.length > 0 ? inbound : undefined, outbound: outbound.length > 0 ? outbound : undefined }),
  };
}
