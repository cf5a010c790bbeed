import type { Socket } from 'node:net';

/** A PROXY header of version 2, taken apart without the help of what is tested. */
export interface ReceivedHeader {
  /** 0x21 for PROXY. */
  readonly command: number;
  readonly family: number;
  readonly block: Buffer;
  readonly source: string;
  readonly destination: string;
  /** In the order they came. */
  readonly tlvs: readonly (readonly [type: number, value: Buffer])[];
  readonly bytes: number;
}

const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const BLOCK_BYTES: Readonly<Record<number, number>> = { 0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216 };

export function takeApart(bytes: Buffer): ReceivedHeader {
  if (!bytes.subarray(0, 12).equals(SIGNATURE)) throw new Error(`no PROXY header: ${bytes.subarray(0, 64).toString('hex')}`);
  const family = bytes.readUInt8(13);
  const rest = bytes.subarray(16, 16 + bytes.readUInt16BE(14));
  const block = rest.subarray(0, BLOCK_BYTES[family]);
  const isIp = family === 0x11 || family === 0x21;
  const address = (at: number): string => {
    const width = (block.length - 4) / 2;
    const ip = block.subarray(at * width, (at + 1) * width);
    const text = width === 4 ? ip.join('.') : `[${ip.toString('hex')}]`;
    return `${text}:${block.readUInt16BE(2 * width + 2 * at)}`;
  };
  return {
    command: bytes.readUInt8(12),
    family,
    block,
    source: isIp ? address(0) : '',
    destination: isIp ? address(1) : '',
    tlvs: tlvsOf(rest.subarray(block.length)),
    bytes: 16 + rest.length,
  };
}

export function tlvsOf(bytes: Buffer): [type: number, value: Buffer][] {
  const tlvs: [number, Buffer][] = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + 3 + bytes.readUInt16BE(at + 1);
    if (end > bytes.length) throw new Error(`a TLV beyond the end: ${bytes.toString('hex')}`);
    tlvs.push([bytes.readUInt8(at), bytes.subarray(at + 3, end)]);
    at = end;
  }
  return tlvs;
}

/** The value of the one TLV of this type; undefined if there is none. */
export function tlv(tlvs: ReceivedHeader['tlvs'], type: number): Buffer | undefined {
  const found = tlvs.filter(([each]) => each === type);
  if (found.length > 1) throw new Error(`${found.length} TLVs of type ${type}`);
  return found[0]?.[1];
}

/** A header of version 2 as a load balancer sends it, for IPv4 addresses. */
export function v2Header(source: string, destination: string, tlvs: Uint8Array = Buffer.alloc(0)): Buffer {
  const part = (text: string): { ip: number[]; port: number } => {
    const [ip = '', port] = text.split(':');
    return { ip: ip.split('.').map(Number), port: Number(port) };
  };
  const [from, to] = [part(source), part(destination)];
  const block = Buffer.from([...from.ip, ...to.ip, from.port >> 8, from.port & 0xff, to.port >> 8, to.port & 0xff]);
  return v2Raw(0x21, 0x11, Buffer.concat([block, tlvs]));
}

export function v2Raw(command: number, family: number, rest: Uint8Array): Buffer {
  return Buffer.concat([SIGNATURE, Buffer.from([command, family, rest.length >> 8, rest.length & 0xff]), rest]);
}

/** Collects what an application receives: first a header of version 2, then the rest. */
export function receive(socket: Socket): { header(): ReceivedHeader; rest(): string } {
  let all = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => (all = Buffer.concat([all, chunk])));
  return {
    header: () => takeApart(all),
    rest: () => all.subarray(takeApart(all).bytes).toString(),
  };
}
