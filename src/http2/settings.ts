/** SETTINGS of HTTP/2 (RFC 9113, section 6.5). Pure. */
import {
  DEFAULT_FRAME_BYTES,
  DEFAULT_WINDOW,
  ENHANCE_YOUR_CALM,
  fault,
  FLOW_CONTROL_ERROR,
  MAX_FRAME_BYTES,
  MAX_WINDOW,
  PROTOCOL_ERROR,
  type Fault,
} from './frame.ts';

export const HEADER_TABLE_SIZE = 1;
export const ENABLE_PUSH = 2;
export const MAX_CONCURRENT_STREAMS = 3;
export const INITIAL_WINDOW_SIZE = 4;
export const MAX_FRAME_SIZE = 5;
export const MAX_HEADER_LIST_SIZE = 6;
/** RFC 8441. */
export const ENABLE_CONNECT_PROTOCOL = 8;

/** Of one frame: there are seven that are known. */
const MAX_SETTINGS = 32;

/** What a side says of itself; until it does, what the standard says. */
export class Settings {
  headerTableSize = 4096;
  maxConcurrentStreams = Infinity;
  initialWindow = DEFAULT_WINDOW;
  maxFrameBytes = DEFAULT_FRAME_BYTES;
  /** It takes extended CONNECT (RFC 8441, section 3). */
  enablesConnect = false;

  /** Takes a frame of it. `isClient`: a client said it. */
  take(bytes: Buffer, start: number, length: number, isClient: boolean): Fault | undefined {
    if (length > MAX_SETTINGS * 6) return fault(ENHANCE_YOUR_CALM, 'control_flood', `more than ${MAX_SETTINGS} settings in one frame`);
    for (let at = start; at < start + length; at += 6) {
      const value = bytes.readUInt32BE(at + 2);
      switch (bytes.readUInt16BE(at)) {
        case HEADER_TABLE_SIZE:
          this.headerTableSize = value;
          break;
        case ENABLE_PUSH:
          // No server may say 1 (section 6.5.2).
          if (value > (isClient ? 1 : 0)) return fault(PROTOCOL_ERROR, 'frame', 'SETTINGS_ENABLE_PUSH that may not be');
          break;
        case MAX_CONCURRENT_STREAMS:
          this.maxConcurrentStreams = value;
          break;
        case INITIAL_WINDOW_SIZE:
          if (value > MAX_WINDOW) return fault(FLOW_CONTROL_ERROR, 'flow_control', 'SETTINGS_INITIAL_WINDOW_SIZE that is too large');
          this.initialWindow = value;
          break;
        case MAX_FRAME_SIZE:
          if (value < DEFAULT_FRAME_BYTES || value > MAX_FRAME_BYTES) {
            return fault(PROTOCOL_ERROR, 'frame', 'SETTINGS_MAX_FRAME_SIZE that may not be');
          }
          this.maxFrameBytes = value;
          break;
        case ENABLE_CONNECT_PROTOCOL:
          // A server may not take it back; what a client says of it means nothing.
          if (value > 1 || (!isClient && this.enablesConnect && value === 0)) {
            return fault(PROTOCOL_ERROR, 'frame', 'SETTINGS_ENABLE_CONNECT_PROTOCOL that may not be');
          }
          this.enablesConnect = value === 1;
      }
    }
    return undefined;
  }
}

/** The payload of a frame that says these, as pairs of number and value. */
export function settingsPayload(pairs: readonly (readonly [number, number])[]): Buffer {
  const payload = Buffer.alloc(pairs.length * 6);
  for (const [index, [id, value]] of pairs.entries()) {
    payload.writeUInt16BE(id, index * 6);
    payload.writeUInt32BE(value, index * 6 + 2);
  }
  return payload;
}
