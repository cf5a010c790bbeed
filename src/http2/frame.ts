/** The frames of HTTP/2 (RFC 9113, sections 4 and 6): their numbers, and the octets of those that are small. Pure. */

export const DATA = 0;
export const HEADERS = 1;
export const PRIORITY = 2;
export const RST_STREAM = 3;
export const SETTINGS = 4;
export const PUSH_PROMISE = 5;
export const PING = 6;
export const GOAWAY = 7;
export const WINDOW_UPDATE = 8;
export const CONTINUATION = 9;

export const END_STREAM = 0x1;
export const ACK = 0x1;
export const END_HEADERS = 0x4;
export const PADDED = 0x8;
export const HAS_PRIORITY = 0x20;

/** RFC 9113, section 7. */
export const NO_ERROR = 0;
export const PROTOCOL_ERROR = 1;
export const INTERNAL_ERROR = 2;
export const FLOW_CONTROL_ERROR = 3;
export const SETTINGS_TIMEOUT = 4;
export const STREAM_CLOSED = 5;
export const FRAME_SIZE_ERROR = 6;
export const REFUSED_STREAM = 7;
export const CANCEL = 8;
export const COMPRESSION_ERROR = 9;
export const ENHANCE_YOUR_CALM = 11;
/** The last that is defined. */
export const HTTP_1_1_REQUIRED = 13;

export const FRAME_HEAD_BYTES = 9;
/** Of SETTINGS_INITIAL_WINDOW_SIZE, and of each connection until it is raised (section 6.9.2). */
export const DEFAULT_WINDOW = 65_535;
export const MAX_WINDOW = 2 ** 31 - 1;
/** Of SETTINGS_MAX_FRAME_SIZE: we take no larger ones. */
export const DEFAULT_FRAME_BYTES = 16_384;
export const MAX_FRAME_BYTES = 2 ** 24 - 1;
export const MAX_STREAM_ID = 2 ** 31 - 1;

/** What a client says first (section 3.4). */
export const PREFACE: Buffer = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/**
 * Why a side broke the rules, or took too much of us. One closed set: the `reason` label of `scute_http2_faults_total` and, with a
 * sentence, in the log.
 */
export const FAULT_REASONS = [
  'preface', // no preface, or no SETTINGS after it
  'frame', // a frame that may not be, or not there, or not of that size
  'compression', // HPACK
  'flow_control', // more than the window, or a window that overflows
  'stream', // an id that may not be, or a stream that is over
  'header_flood', // a field section that is far too large, or in too many frames
  'control_flood', // PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, frames of no known type
  'reset_flood', // streams that are opened and reset, by the one who opened them or by us for a fault of theirs
  'too_slow', // a field section, the preface or SETTINGS that is never whole
] as const;
export type FaultReason = (typeof FAULT_REASONS)[number];

/** What ends a connection (section 5.4.1). */
export interface Fault {
  readonly code: number;
  readonly reason: FaultReason;
  /** Words of ours. */
  readonly detail: string;
}

export function fault(code: number, reason: FaultReason, detail: string): Fault {
  return { code, reason, detail };
}

/** Writes the head of a frame; answers where its payload begins. */
export function putFrameHead(out: Buffer, at: number, length: number, type: number, flags: number, stream: number): number {
  out[at] = length >>> 16;
  out[at + 1] = length >>> 8;
  out[at + 2] = length;
  out[at + 3] = type;
  out[at + 4] = flags;
  return putUint32(out, at + 5, stream);
}

export function putUint32(out: Buffer, at: number, value: number): number {
  out[at] = value >>> 24;
  out[at + 1] = value >>> 16;
  out[at + 2] = value >>> 8;
  out[at + 3] = value;
  return at + 4;
}

/** Without the highest bit, which is reserved wherever such a number stands. */
export function uint31(bytes: Buffer, at: number): number {
  return (((bytes[at] ?? 0) & 0x7f) << 24) | ((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0);
}
