import { open } from 'node:fs/promises';
import { SocketAddress } from 'node:net';
import { endianness } from 'node:os';
import { formatAddress, isIpAddress, isLocal, type Address, type TcpAddress } from '../../config/units.ts';
import type { Clock, Timer } from '../../lib/clock.ts';
import { codeOf } from '../../lib/errors.ts';
import type { Service } from '../../lib/service.ts';
import type { Events } from '../../telemetry/events/events.ts';
import type { ListenerRef } from '../../telemetry/log/records.ts';
import type { CheckResult } from './readiness.ts';

/** An inbound listener and the application that it stands before. */
export interface GuardedApplication {
  readonly listener: ListenerRef;
  readonly to: Address;
}

export interface ExposureOptions {
  readonly applications: readonly GuardedApplication[];
  /** Where Scute itself listens: not ways around it. */
  readonly ownAddresses: () => readonly Address[];
  readonly events: Pick<Events, 'applicationExposed'>;
  readonly clock: Clock;
  /** The text of `/proc/net/tcp` or `tcp6` as far as its listening sockets go; undefined where there is none. */
  readonly read?: ((file: 'tcp' | 'tcp6') => Promise<string | undefined>) | undefined;
}

/** Watches whether applications listen where others can reach them without passing Scute. */
export interface ExposureWatch extends Service {
  /** By the name of the listener: addresses at which its application can be reached around Scute. */
  readonly exposed: () => ReadonlyMap<string, readonly string[]>;
  /** For a readiness check that does not block. */
  readonly check: () => CheckResult;
}

/** After the start, of which it is no part: the kernel walks all its connections for it, for milliseconds. Many an application listens no sooner. */
const FIRST_CHECK_MS = 1000;
const RECHECK_MS = 30_000;
const NOT_YET = 'not known yet: listening sockets are read a second after the start';
const UNREADABLE = 'not known: listening sockets cannot be read here';

export function createExposureWatch(options: ExposureOptions): ExposureWatch {
  const read = options.read ?? readListening;
  const found = new Map<string, readonly string[]>();
  /** Why nothing can be said of what was not found. */
  let unknown: string | undefined = NOT_YET;
  let timer: Timer | undefined;
  let isStopped = false;

  const tell = (listener: ListenerRef, addresses: readonly string[]): void => {
    const before = found.get(listener.name);
    if (before !== undefined && before.join() === addresses.join()) return;
    found.set(listener.name, addresses);
    options.events.applicationExposed(listener, addresses);
  };
  const look = async (): Promise<void> => {
    const texts = await Promise.all([read('tcp'), read('tcp6')]);
    unknown = texts.some((text) => text !== undefined) ? undefined : UNREADABLE;
    const listening = texts.flatMap((text) => parseListening(text ?? ''));
    for (const { listener, to } of options.applications) {
      tell(listener, waysAround(to, listening, options.ownAddresses()));
    }
  };
  const lookIn = (waitMs: number): void => {
    if (isStopped) return;
    timer = options.clock.after(waitMs, () => {
      // What cannot be read now may be readable later; it is advice, so nothing else depends on it.
      void look()
        .catch(() => {
          unknown = UNREADABLE;
        })
        .finally(() => lookIn(RECHECK_MS));
    });
  };

  return {
    name: 'exposure',
    async start() {
      // So that the series is there from the first scrape on.
      for (const { listener } of options.applications) tell(listener, []);
      lookIn(FIRST_CHECK_MS);
    },
    async stop() {
      isStopped = true;
      timer?.cancel();
    },
    exposed: () => found,
    check() {
      const lines = [...found]
        .filter(([, addresses]) => addresses.length > 0)
        .map(([name, addresses]) => `${name} at ${addresses.join(', ')}`);
      if (lines.length > 0) return { ok: false, detail: `can be reached around Scute: ${lines.join('; ')}` };
      return unknown === undefined ? { ok: true } : { ok: true, detail: unknown };
    },
  };
}

/** The addresses, off the loopback interface, at which something listens that answers for `to`. Pure. */
export function waysAround(to: Address, listening: readonly TcpAddress[], own: readonly Address[]): readonly string[] {
  if (to.kind === 'unix' || !(isLocal(to) || isIpAddress(to.host))) return [];
  const ours = new Set(own.map(formatAddress));
  const around = listening.filter((socket) => {
    if (socket.port !== to.port || isLocal(socket)) return false;
    // An application named by another address of this machine listens on that one, or on all.
    return isLocal(to) || socket.host === to.host || socket.host === '0.0.0.0' || socket.host === '::';
  });
  return [...new Set(around.map(formatAddress))].filter((address) => !ours.has(address)).toSorted();
}

const LISTEN = '0A';
/** `sl local_address rem_address st`, each address as hex, each port as four hex digits. */
const ROW = /^\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) /;

/** The listening sockets in the text of `/proc/net/tcp` or `/proc/net/tcp6` (proc(5)). What is not such a row is passed over. */
export function parseListening(text: string, byteOrder: 'LE' | 'BE' = endianness()): readonly TcpAddress[] {
  const found: TcpAddress[] = [];
  for (const line of text.split('\n')) {
    const [, address, port, state] = ROW.exec(line) ?? [];
    if (address === undefined || port === undefined || state !== LISTEN) continue;
    found.push({ kind: 'tcp', host: parseHexAddress(address, byteOrder), port: Number.parseInt(port, 16) });
  }
  return found;
}

/** The kernel prints each 32-bit word as a number of the machine, so on most machines its bytes come in reverse. */
function parseHexAddress(hex: string, byteOrder: 'LE' | 'BE'): string {
  const bytes = Buffer.from(hex, 'hex');
  if (byteOrder === 'LE') bytes.swap32();
  if (bytes.length === 4) return bytes.join('.');
  const isMapped = bytes.subarray(0, 10).every((byte) => byte === 0) && bytes.readUInt16BE(10) === 0xff_ff;
  if (isMapped) return bytes.subarray(12).join('.');
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16));
  return new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address;
}

const CHUNK_BYTES = 65_536;
const MAX_READ_BYTES = 4 << 20;
const OTHER_STATE = /\d+: [0-9A-F]+:[0-9A-F]{4} [0-9A-F]+:[0-9A-F]{4} (?!0A)[0-9A-F]{2} /;

/** The kernel lists listening sockets first. Reading ends with them, because the rest may be tens of thousands of connections. */
async function readListening(file: 'tcp' | 'tcp6'): Promise<string | undefined> {
  try {
    const handle = await open(`/proc/net/${file}`);
    try {
      const chunk = Buffer.alloc(CHUNK_BYTES);
      let text = '';
      while (text.length < MAX_READ_BYTES) {
        const { bytesRead } = await handle.read(chunk, 0, chunk.length, null);
        if (bytesRead === 0) break;
        const part = chunk.toString('latin1', 0, bytesRead);
        text += part;
        if (OTHER_STATE.test(part)) break;
      }
      return text;
    } finally {
      await handle.close();
    }
  } catch (cause) {
    // No such file: no such protocol, or not Linux. Forbidden: a hardened /proc.
    if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'EACCES') return undefined;
    throw cause;
  }
}
