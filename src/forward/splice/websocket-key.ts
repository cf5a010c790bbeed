import { hash, randomBytes } from 'node:crypto';
import { WEBSOCKET } from '../../http1/upgrades.ts';

/** Of RFC 6455, section 1.3. */
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const KEY_BYTES = 16;

/** What is sent with a request for a WebSocket, as a line, and what the application must answer to it (RFC 6455, sections 4.1 and 4.2.2). */
export interface WebSocketKey {
  readonly line: Buffer;
  readonly accept: string;
}

/** Undefined for another protocol, which has no such thing. */
export function keyFor(protocol: string): WebSocketKey | undefined {
  if (protocol !== WEBSOCKET) return undefined;
  const key = randomBytes(KEY_BYTES).toString('base64');
  return { line: Buffer.from(`Sec-WebSocket-Key: ${key}\r\n`, 'latin1'), accept: hash('sha1', key + GUID, 'base64') };
}
