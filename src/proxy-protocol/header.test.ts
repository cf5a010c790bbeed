import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  crc32c,
  encodeProxyHeader,
  endpointOf,
  formatEndpoint,
  MAX_V1_BYTES,
  MAX_V2_BYTES,
  parseProxyHeader,
  type ParsedProxyHeader,
  type TlsFacts,
} from './header.ts';

const SIGNATURE = '0d0a0d0a000d0a515549540a';
const V4 = { source: endpointOf('192.0.2.7:40112'), destination: endpointOf('198.51.100.1:443') };
const V6 = { source: endpointOf('[2001:db8::7]:40112'), destination: endpointOf('[2001:db8::1]:443') };
const TLS: TlsFacts = {
  version: 'TLSv1.3',
  alpn: undefined,
  serverName: undefined,
  spiffeId: 'spiffe://example.org/web',
  spiffeIdType: 0xd0,
  certificate: undefined,
};

function fromHex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

function v2(command: string, family: string, rest: Uint8Array, length = rest.length): Buffer {
  const lengthBytes = Buffer.alloc(2);
  lengthBytes.writeUInt16BE(length);
  return Buffer.concat([fromHex(`${SIGNATURE} ${command} ${family}`), lengthBytes, rest]);
}

function tlv(type: number, value: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([type, value.length >> 8, value.length & 0xff]), value]);
}

const V4_BLOCK = fromHex('c0000207 c6336401 9cb0 01bb');
const V6_BLOCK = fromHex(`20010db8 ${'00'.repeat(11)}07 20010db8 ${'00'.repeat(11)}01 9cb0 01bb`);

/** What a header says, as text. */
function described(parsed: ParsedProxyHeader): string {
  if (parsed.kind !== 'header') return parsed.kind === 'bad' ? parsed.detail : 'more';
  if (parsed.connection === undefined) return parsed.isLocal ? 'local' : 'unknown';
  return `${formatEndpoint(parsed.connection.source)} to ${formatEndpoint(parsed.connection.destination)}`;
}

const line = (text: string): Buffer => Buffer.from(`${text}\r\n`, 'latin1');

test('a header for IPv4 without TLVs is as the specification writes it', () => {
  assert.equal(Buffer.from(encodeProxyHeader(V4, undefined)).toString('hex'), `${SIGNATURE}2111000c${V4_BLOCK.toString('hex')}`);
});

test('a header for IPv6 without TLVs is as the specification writes it', () => {
  assert.equal(Buffer.from(encodeProxyHeader(V6, undefined)).toString('hex'), `${SIGNATURE}21210024${V6_BLOCK.toString('hex')}`);
});

test('an IPv4 client of a listener on [::] is told as IPv4', () => {
  const mapped = { source: endpointOf('[::ffff:192.0.2.7]:40112'), destination: endpointOf('[::ffff:198.51.100.1]:443') };
  assert.deepEqual(encodeProxyHeader(mapped, undefined), encodeProxyHeader(V4, undefined));
});

test('addresses of two families are told as IPv6', () => {
  const header = encodeProxyHeader({ source: V4.source, destination: V6.destination }, undefined);
  assert.equal(header[13], 0x21);
  assert.equal(described(parseProxyHeader(header)), '192.0.2.7:40112 to [2001:db8::1]:443');
});

test('a Unix socket is told in a block of 216 bytes, the path last', () => {
  const header = Buffer.from(
    encodeProxyHeader({ source: endpointOf('unix'), destination: { kind: 'unix', path: '/run/a.sock' } }, undefined),
  );
  assert.equal(header.length, 16 + 216);
  assert.equal(header[13], 0x31);
  assert.equal(header.readUInt16BE(14), 216);
  assert.ok(header.subarray(16, 16 + 108).every((byte) => byte === 0));
  assert.equal(
    header
      .subarray(16 + 108)
      .toString('latin1')
      .replaceAll('\0', ''),
    '/run/a.sock',
  );
});

test('TLS facts without a certificate have the version, the SPIFFE ID and the one flag', () => {
  const header = Buffer.from(encodeProxyHeader(V4, TLS));
  const ssl = Buffer.concat([fromHex('01 00000000'), tlv(0x21, Buffer.from('TLSv1.3'))]);
  assert.equal(
    header.subarray(16 + 12).toString('hex'),
    Buffer.concat([tlv(0x20, ssl), tlv(0xd0, Buffer.from('spiffe://example.org/web'))]).toString('hex'),
  );
});

test('all that can be told of TLS is told, in order', () => {
  const certificate = { der: Buffer.alloc(700, 0x30), commonName: 'wéb' };
  const header = Buffer.from(encodeProxyHeader(V6, { ...TLS, alpn: 'h2', serverName: 'api.example', spiffeIdType: 0xe5, certificate }));
  const ssl = Buffer.concat([
    fromHex('07 00000000'),
    tlv(0x21, Buffer.from('TLSv1.3')),
    tlv(0x22, Buffer.from('wéb')),
    tlv(0x28, certificate.der),
  ]);
  const tlvs = [
    tlv(0x01, Buffer.from('h2')),
    tlv(0x02, Buffer.from('api.example')),
    tlv(0x20, ssl),
    tlv(0xe5, Buffer.from('spiffe://example.org/web')),
  ];
  assert.equal(header.subarray(16 + 36).toString('hex'), Buffer.concat(tlvs).toString('hex'));
  assert.equal(header.readUInt16BE(14), header.length - 16);
});

test('the largest certificate and SPIFFE ID that a peer may have fit', () => {
  const certificate = { der: Buffer.alloc(32_768), commonName: 'x'.repeat(30_000) };
  const header = encodeProxyHeader(V6, { ...TLS, spiffeId: `spiffe://${'x'.repeat(2039)}`, alpn: 'y'.repeat(255), certificate });
  // A common name beyond what X.509 allows is left out.
  assert.ok(header.length < 36_000);
});

const GOOD: readonly (readonly [string, Buffer, string])[] = [
  ['v2 IPv4', v2('21', '11', V4_BLOCK), '192.0.2.7:40112 to 198.51.100.1:443'],
  ['v2 IPv6', v2('21', '21', V6_BLOCK), '[2001:db8::7]:40112 to [2001:db8::1]:443'],
  ['v2 Unix', v2('21', '31', Buffer.alloc(216, 0x61)), 'unix to unix'],
  ['v2 unspecified', v2('21', '00', Buffer.alloc(0)), 'unknown'],
  ['v2 unspecified with TLVs', v2('21', '00', tlv(0xea, Buffer.from('vpce'))), 'unknown'],
  ['v2 local', v2('20', '00', Buffer.alloc(0)), 'local'],
  ['v2 local with a block', v2('20', '11', V4_BLOCK), 'local'],
  ['v2 local of an unknown family', v2('20', 'f7', Buffer.from('anything')), 'local'],
  [
    'v2 TLVs',
    v2('21', '11', Buffer.concat([V4_BLOCK, tlv(0x04, Buffer.alloc(9)), tlv(0xd0, Buffer.alloc(0))])),
    '192.0.2.7:40112 to 198.51.100.1:443',
  ],
  [
    'v2 longest',
    v2('21', '11', Buffer.concat([V4_BLOCK, tlv(0x04, Buffer.alloc(MAX_V2_BYTES - 16 - 12 - 3))])),
    '192.0.2.7:40112 to 198.51.100.1:443',
  ],
  ['v1 TCP4', line('PROXY TCP4 192.0.2.7 198.51.100.1 40112 443'), '192.0.2.7:40112 to 198.51.100.1:443'],
  ['v1 TCP4 highest', line('PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535'), '255.255.255.255:65535 to 255.255.255.255:65535'],
  ['v1 TCP6', line('PROXY TCP6 2001:db8::7 2001:db8::1 40112 0'), '[2001:db8::7]:40112 to [2001:db8::1]:0'],
  [
    'v1 TCP6 longest',
    line(`PROXY TCP6 ${'ffff:'.repeat(7)}ffff ${'ffff:'.repeat(7)}ffff 65535 65535`),
    `[${'ffff:'.repeat(7)}ffff]:65535 to [${'ffff:'.repeat(7)}ffff]:65535`,
  ],
  ['v1 unknown', line('PROXY UNKNOWN'), 'unknown'],
  ['v1 unknown with addresses', line('PROXY UNKNOWN ffff::1 ffff::2 1 2'), 'unknown'],
  ['v1 longest', line(`PROXY UNKNOWN ${'x'.repeat(MAX_V1_BYTES - 16)}`), 'unknown'],
];

for (const [name, header, expected] of GOOD) {
  test(`${name}: read at every split, byte by byte, and never beyond its end`, () => {
    for (let length = 0; length < header.length; length += 1) assert.equal(described(parseProxyHeader(header.subarray(0, length))), 'more');
    for (const rest of ['', '\x16', '\x16\x03\x01\x02\x00', '\r\n', 'PROXY ', 'x'.repeat(70_000)]) {
      const parsed = parseProxyHeader(Buffer.concat([header, Buffer.from(rest, 'latin1')]));
      assert.equal(described(parsed), expected);
      assert.equal(parsed.kind === 'header' && parsed.length, header.length);
    }
  });
}

const BAD: readonly (readonly [string, Buffer, RegExp])[] = [
  ['a TLS ClientHello', fromHex('16 03 01 02 00 01 00 01 fc 03 03'), /does not begin/],
  ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\n\r\n'), /does not begin/],
  ['lower case', Buffer.from('proxy TCP4'), /does not begin/],
  ['PROXY and no space', Buffer.from('PROXYTCP4'), /does not begin/],
  ['half a signature', fromHex('0d0a0d0a000d0a5155495400'), /does not begin/],
  ['version 1 in binary', v2('11', '11', V4_BLOCK), /version and command 0x11/],
  ['an unknown command', v2('22', '11', V4_BLOCK), /version and command 0x22/],
  ['UDP', v2('21', '12', V4_BLOCK), /family and protocol 0x12/],
  ['an unknown family', v2('21', '41', V4_BLOCK), /family and protocol 0x41/],
  ['IPv4 cut short', v2('21', '11', V4_BLOCK.subarray(1)), /too short/],
  ['IPv6 with the length of IPv4', v2('21', '21', V4_BLOCK), /too short/],
  ['one byte too long', v2('21', '11', Buffer.alloc(0), MAX_V2_BYTES - 15), /537 bytes, more than 536/],
  ['the longest length', v2('20', '00', Buffer.alloc(0), 0xffff), /65551 bytes/],
  ['a TLV beyond the end', v2('21', '11', Buffer.concat([V4_BLOCK, fromHex('04 0002 00')])), /beyond its end/],
  ['half a TLV', v2('21', '11', Buffer.concat([V4_BLOCK, fromHex('04 00')])), /beyond its end/],
  ['a wrong checksum', v2('21', '11', Buffer.concat([V4_BLOCK, fromHex('03 0004 00000000')])), /wrong checksum/],
  ['a short checksum', v2('21', '11', Buffer.concat([V4_BLOCK, fromHex('03 0003 000000')])), /malformed checksum/],
  ['two families', line('PROXY TCP4 192.0.2.7 ::1 1 2'), /malformed/],
  ['IPv4 called TCP6', line('PROXY TCP6 192.0.2.7 192.0.2.8 1 2'), /malformed/],
  ['IPv6 called TCP4', line('PROXY TCP4 ::1 ::2 1 2'), /malformed/],
  ['no addresses', line('PROXY TCP4'), /malformed/],
  ['a missing port', line('PROXY TCP4 192.0.2.7 192.0.2.8 1'), /malformed/],
  ['one field more', line('PROXY TCP4 192.0.2.7 192.0.2.8 1 2 3'), /malformed/],
  ['two spaces', line('PROXY TCP4  192.0.2.7 192.0.2.8 1 2'), /malformed/],
  ['a space at the end', line('PROXY TCP4 192.0.2.7 192.0.2.8 1 2 '), /malformed/],
  ['a tab', line('PROXY TCP4 192.0.2.7\t192.0.2.8 1 2'), /malformed/],
  ['a port of 65536', line('PROXY TCP4 192.0.2.7 192.0.2.8 65536 2'), /malformed/],
  ['a port with a zero in front', line('PROXY TCP4 192.0.2.7 192.0.2.8 01 2'), /malformed/],
  ['a negative port', line('PROXY TCP4 192.0.2.7 192.0.2.8 -1 2'), /malformed/],
  ['a host name', line('PROXY TCP4 localhost 192.0.2.8 1 2'), /malformed/],
  ['an octal address', line('PROXY TCP4 0300.0.2.7 192.0.2.8 1 2'), /malformed/],
  ['a zone', line('PROXY TCP6 fe80::1%eth0 ::1 1 2'), /malformed/],
  ['a family of UDP', line('PROXY UDP4 192.0.2.7 192.0.2.8 1 2'), /malformed/],
  ['UNKNOWN with something attached', line('PROXY UNKNOWN2'), /malformed/],
  ['no carriage return', Buffer.from(`PROXY TCP4 192.0.2.7 192.0.2.8 1 2\n${'x'.repeat(107)}`), /without an end in 107/],
  ['no line feed', Buffer.from('PROXY TCP4 192.0.2.7 192.0.2.8 1 2\rx'), /carriage return in it/],
  ['a line of 108 bytes', line(`PROXY UNKNOWN ${'x'.repeat(MAX_V1_BYTES - 15)}`), /without an end in 107/],
];

for (const [name, bytes, expected] of BAD) {
  test(`${name} is no header, whether it comes at once or byte by byte`, () => {
    assert.match(described(parseProxyHeader(bytes)), expected);
    const steps = Array.from({ length: bytes.length }, (_, index) => described(parseProxyHeader(bytes.subarray(0, index + 1))));
    const last = steps.find((step) => step !== 'more');
    assert.match(last ?? '', expected);
  });
}

test('a header with its checksum is read, and not with any bit of it changed', () => {
  const header = v2('21', '11', Buffer.concat([V4_BLOCK, tlv(0x04, Buffer.alloc(5)), fromHex('03 0004 00000000')]));
  header.writeUInt32BE(crc32c(header), header.length - 4);
  assert.equal(described(parseProxyHeader(header)), '192.0.2.7:40112 to 198.51.100.1:443');
  for (let bit = 16 * 8; bit < header.length * 8; bit += 1) {
    const changed = Buffer.from(header);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const parsed = parseProxyHeader(changed);
    // The type of the checksum itself may become that of another TLV.
    if (changed[header.length - 7] === 0x03) assert.equal(parsed.kind, 'bad', `bit ${bit}`);
  }
});

test('the checksum is CRC-32C', () => {
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
});

test('what is written is read, whatever the addresses', () => {
  let seed = 42;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  for (let round = 0; round < 2000; round += 1) {
    const width = random(2) === 0 ? 4 : 16;
    const endpoint = () =>
      ({ kind: 'ip', address: Array.from({ length: width }, () => (random(3) === 0 ? 0 : random(256))), port: random(65_536) }) as const;
    const connection = { source: endpoint(), destination: endpoint() };
    const header = encodeProxyHeader(connection, round % 2 === 0 ? undefined : { ...TLS, serverName: 'x'.repeat(random(200)) });
    assert.equal(described(parseProxyHeader(header)), `${formatEndpoint(connection.source)} to ${formatEndpoint(connection.destination)}`);
    assert.deepEqual(endpointOf(formatEndpoint(connection.source)), connection.source);
  }
});

test('mutations of headers end in one of three answers, and the same one however they are cut', () => {
  let seed = 7;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  for (let round = 0; round < 20_000; round += 1) {
    const [, good] = GOOD[random(GOOD.length)] ?? [];
    assert.ok(good !== undefined);
    const bytes = Buffer.concat([good, Buffer.from('\x16\x03\x01')]);
    for (let change = random(4); change >= 0; change -= 1) bytes[random(bytes.length)] = random(256);
    const whole = parseProxyHeader(bytes);
    if (whole.kind === 'header') assert.ok(whole.length <= bytes.length && whole.length <= MAX_V2_BYTES);
    const cut = random(bytes.length);
    const part = parseProxyHeader(bytes.subarray(0, cut));
    if (part.kind === 'bad') assert.equal(whole.kind, 'bad');
    if (part.kind === 'header') assert.deepEqual(part, whole);
  }
});
