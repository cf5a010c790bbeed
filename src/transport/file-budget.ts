/** Who uses file descriptors. A stranger is a peer of an inbound listener that has not been admitted yet. */
export const FILE_USES = ['strangers', 'inbound', 'outbound', 'sds', 'metrics', 'admin', 'bundle_endpoint'] as const;
export type FileUse = (typeof FILE_USES)[number];

/** What one use of descriptors may come to. */
export interface FileShare {
  /** Nobody else takes these. */
  readonly kept: number;
  /** It never has more. */
  readonly most: number;
}

export interface FilePlan extends Readonly<Record<FileUse, FileShare>> {
  /** For the connections of all listeners together. */
  readonly traffic: number;
}

/** What there is that needs descriptors. */
export interface FileNeeds {
  /** Addresses that are listened on, bundle endpoints that are asked, and what sets of files need. */
  readonly listeners: number;
  readonly inbound: boolean;
  readonly outbound: boolean;
  /** Connections that each may have at most; 0 if it is not served. */
  readonly sds: number;
  readonly metrics: number;
  readonly admin: number;
  readonly bundleEndpoint: number;
}

/** What the process itself needs, besides its listeners: runtime, log, Workload API, name resolution, files that are read. */
const RESERVED = 40;
/** Of metrics, of admin and of the bundle endpoint. A probe, somebody who scrapes, and some more. */
const LEAST_STATUS = 8;

/**
 * Divides the descriptors of a process whose soft limit of open files (RLIMIT_NOFILE) is `processLimit`. SDS gets a quarter,
 * metrics, admin and the bundle endpoint a 32nd each, if they need so many; the rest is for traffic. Of that each direction keeps a quarter that
 * the other does not take, and strangers have half at most.
 */
export function planFiles(processLimit: number, needs: FileNeeds): FilePlan {
  const alone = (needed: number, share: number): FileShare => {
    const most = Math.min(needed, share);
    return { kept: most, most };
  };
  const ofStatus = Math.max(Math.floor(processLimit / 32), LEAST_STATUS);
  const sds = alone(needs.sds, Math.floor(processLimit / 4));
  const metrics = alone(needs.metrics, ofStatus);
  const admin = alone(needs.admin, ofStatus);
  const bundleEndpoint = alone(needs.bundleEndpoint, ofStatus);
  const others = sds.most + metrics.most + admin.most + bundleEndpoint.most;
  const traffic = Math.max(processLimit - RESERVED - needs.listeners - others, 4);
  const quarter = Math.floor(traffic / 4);
  const kept = { inbound: needs.inbound ? quarter : 0, outbound: needs.outbound ? quarter : 0 };
  return {
    traffic,
    strangers: { kept: 0, most: needs.inbound ? Math.floor(traffic / 2) : 0 },
    inbound: { kept: kept.inbound, most: needs.inbound ? traffic - kept.outbound : 0 },
    outbound: { kept: kept.outbound, most: needs.outbound ? traffic - kept.inbound : 0 },
    sds,
    metrics,
    admin,
    bundle_endpoint: bundleEndpoint,
  };
}

/** Descriptors for the connections of one use. */
export interface FileAccount {
  /** True, and `count` are taken; or false, and none. */
  take(count: number): boolean;
  give(count: number): void;
  readonly held: number;
}

/**
 * File descriptors that traffic may use, over all listeners. When they run out, the kernel's accept would fail, and libuv
 * then drops connections without telling anybody; so we stop short of it, and count what we refuse.
 */
export interface FileBudget {
  readonly strangers: FileAccount;
  /** Of peers that were admitted. */
  readonly inbound: FileAccount;
  readonly outbound: FileAccount;
  /** A stranger was admitted: what it holds counts as inbound. */
  admitted(count: number): void;
}

export function createFileBudget({ traffic, strangers, inbound, outbound }: FilePlan): FileBudget {
  const held = { strangers: 0, inbound: 0, outbound: 0 };
  const account = (use: keyof typeof held, mayTake: (count: number) => boolean): FileAccount => ({
    take(count) {
      if (held.strangers + held.inbound + held.outbound + count > traffic || !mayTake(count)) return false;
      held[use] += count;
      return true;
    },
    give(count) {
      held[use] -= count;
    },
    get held() {
      return held[use];
    },
  });
  const fitsInbound = (count: number): boolean => held.strangers + held.inbound + count <= inbound.most;
  return {
    strangers: account('strangers', (count) => held.strangers + count <= strangers.most && fitsInbound(count)),
    inbound: account('inbound', fitsInbound),
    outbound: account('outbound', (count) => held.outbound + count <= outbound.most),
    admitted(count) {
      held.strangers -= count;
      held.inbound += count;
    },
  };
}
