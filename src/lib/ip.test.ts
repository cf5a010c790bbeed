import assert from 'node:assert/strict';
import { BlockList, isIPv4, isIPv6, SocketAddress } from 'node:net';
import { test } from 'node:test';
import { asIpv6, formatIp, ipOf, parseIp, parseIpRange, rangeHas } from './ip.ts';

const TEXTS = [
  '0.0.0.0',
  '127.0.0.1',
  '255.255.255.255',
  '192.0.2.7',
  '::',
  '::1',
  '1::',
  '2001:db8::7',
  'fe80::1',
  '1:2:3:4:5:6:7:8',
  '1:0:0:2:0:0:0:3',
  '0:0:1::',
  '64:ff9b::192.0.2.33',
  '::ffff:10.1.2.3',
  '::1.2.3.4',
  '1:2:3:4:5:6:1.2.3.4',
  'ABCD::EF',
  '',
  '.',
  ':',
  ':::',
  '1',
  '1.2.3',
  '1.2.3.4.5',
  '01.2.3.4',
  '1.2.3.04',
  '256.1.1.1',
  '1.2.3.4 ',
  ' 1.2.3.4',
  '0x7f.1.1.1',
  '1.2.3.-4',
  '1::2::3',
  '12345::',
  '::g',
  '1:2:3:4:5:6:7',
  '1:2:3:4:5:6:7:8:9',
  '1:2:3:4:5:6:7::8',
  '::1.2.3',
  '1.2.3.4::',
  '::1.2.3.4:5',
  ':1::2',
  '1:2:3:4:5:6:7:1.2.3.4',
  '[::1]',
  '1:',
  ':1',
  '1::2:',
  '::ffff:1.2.3.256',
  '::00001',
];

test('what Node takes for an IP address is taken here, and nothing else', () => {
  for (const text of TEXTS) {
    assert.equal(parseIp(text) !== undefined, isIPv4(text) || isIPv6(text), text);
  }
});

test('addresses are written in the shortest form, as Node writes them, and read back', () => {
  for (const text of TEXTS) {
    const bytes = parseIp(text);
    if (bytes === undefined) continue;
    const written = formatIp(bytes);
    assert.deepEqual(parseIp(written), bytes, text);
    if (bytes.length === 4) continue;
    // Node writes the last four bytes of a few old forms with dots.
    const { address } = new SocketAddress({ address: text, family: 'ipv6' });
    if (!address.includes('.')) assert.equal(written, address, text);
  }
});

test('an IPv4 address mapped into IPv6 is the IPv4 address, and goes back', () => {
  assert.deepEqual(parseIp('::ffff:10.1.2.3'), [10, 1, 2, 3]);
  assert.deepEqual(ipOf(Uint8Array.from(asIpv6([10, 1, 2, 3]))), [10, 1, 2, 3]);
  assert.equal(asIpv6([10, 1, 2, 3]).length, 16);
});

test('a zone is left off', () => {
  assert.deepEqual(parseIp('fe80::1%eth0'), parseIp('fe80::1'));
});

test('ranges hold what Node says they hold', () => {
  const ranges = ['10.0.0.0/8', '192.0.2.128/25', '192.0.2.7', '192.0.2.7/32', '128.0.0.0/1', '2001:db8::/33', '::1', 'fe80::/10', '::/1'];
  const addresses = [
    '10.255.0.1',
    '11.0.0.0',
    '192.0.2.7',
    '192.0.2.127',
    '192.0.2.128',
    '200.1.1.1',
    '2001:db8::1',
    '2001:db8:8000::',
    '::1',
    'fe80::5',
    'ffff::',
  ];
  for (const text of ranges) {
    const range = parseIpRange(text);
    assert.ok(range !== undefined, text);
    const family = text.includes(':') ? 'ipv6' : 'ipv4';
    const list = new BlockList();
    const [prefix = '', bits] = text.split('/');
    list.addSubnet(prefix, bits === undefined ? (family === 'ipv4' ? 32 : 128) : Number(bits), family);
    for (const address of addresses) {
      if (address.includes(':') !== text.includes(':')) continue;
      assert.equal(rangeHas(range, parseIp(address) ?? []), list.check(address, family), `${address} in ${text}`);
    }
  }
});

test('a range of IPv4 holds the mapped form of its addresses, and no IPv6 address', () => {
  const range = parseIpRange('127.0.0.0/8');
  const mapped = parseIpRange('::ffff:127.0.0.0/104');
  assert.ok(range !== undefined && mapped !== undefined);
  assert.equal(rangeHas(range, parseIp('::ffff:127.0.0.1') ?? []), true);
  assert.equal(rangeHas(mapped, parseIp('127.0.0.1') ?? []), true);
  assert.equal(rangeHas(range, parseIp('::1') ?? []), false);
});

test('what is no range is refused', () => {
  for (const text of [
    '',
    '/8',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/08',
    '10.0.0.1/8',
    '10.0.0.0/8/8',
    '::/129',
    '::1/64',
    '::ffff:1.2.3.4/95',
    'fe80::%1/10',
    'host/8',
    '10.0.0.0/-1',
    '10.0.0.0/+8',
  ])
    assert.equal(parseIpRange(text), undefined, text);
});
