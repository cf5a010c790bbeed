import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  addressesOverlap,
  formatAddress,
  formatDuration,
  isLocal,
  parseAddress,
  parseDuration,
  parseEndpoint,
  parseListenAddress,
  type Address,
} from './units.ts';

function address(text: string): Address {
  const parsed = parseAddress(text);
  if (!parsed.ok) throw new Error(parsed.error);
  return parsed.value;
}

test('a duration is a number with a unit, or several', () => {
  const durations = { '100ms': 100, '5s': 5000, '2m': 120_000, '1h30m': 5_400_000, '24d': 2_073_600_000, '0s': 0 };
  for (const [text, ms] of Object.entries(durations)) assert.deepEqual(parseDuration(text), { ok: true, value: ms });
});

test('a duration without unit, with a sign, a fraction, spaces or beyond 24 days is refused, and the value is named', () => {
  for (const text of ['5', '', 's', '-5s', '1.5s', '5 s', ' 5s', '5S', '5s\n', '25d', '99999999999999999999h', '1e3s', '٥s']) {
    const parsed = parseDuration(text);
    assert.ok(!parsed.ok, text);
    assert.ok(parsed.error.includes(JSON.stringify(text)), parsed.error);
  }
});

test('a formatted duration is read back to the same time', () => {
  for (const ms of [0, 1, 999, 1000, 61_001, 5_400_000, 90_061_001])
    assert.deepEqual(parseDuration(formatDuration(ms)), { ok: true, value: ms });
});

test('an address is HOST:PORT, [IPV6]:PORT or a Unix socket', () => {
  assert.deepEqual(address('127.0.0.1:80'), { kind: 'tcp', host: '127.0.0.1', port: 80 });
  assert.deepEqual(address('[::1]:0'), { kind: 'tcp', host: '::1', port: 0 });
  assert.deepEqual(address('DB.internal.:5432'), { kind: 'tcp', host: 'db.internal', port: 5432 });
  assert.deepEqual(address('unix:///run/a.sock'), { kind: 'unix', path: '/run/a.sock' });
  assert.deepEqual(address('unix:/run/a.sock'), { kind: 'unix', path: '/run/a.sock' });
});

test('one IPv6 address has one form, however it is written', () => {
  assert.deepEqual(address('[0:0:0:0:0:0:0:1]:80'), address('[::1]:80'));
  assert.equal(formatAddress(address('[2001:DB8::0:7]:80')), '[2001:db8::7]:80');
});

test('a formatted address is read back to the same address', () => {
  for (const text of ['127.0.0.1:80', '[::1]:80', 'db.internal:5432', 'unix:///run/a.sock'])
    assert.equal(formatAddress(address(text)), text);
});

test('an address that is not one is refused, and named', () => {
  const bad = [
    '',
    '8080',
    ':8080',
    'host',
    'host:',
    'host:http',
    'host:65536',
    'host:-1',
    'a b:1',
    '-a:1',
    'a..b:1',
    '::1:80',
    '::1',
    '[::1]',
    '[127.0.0.1]:80',
    '[fe80::1%eth0]:80',
    '[]:80',
    'http://host:80',
    'tcp://127.0.0.1:80',
    'user@host:80',
    'host:80/path',
    'host:80\n',
    `${'a'.repeat(64)}:1`,
    `${'a.'.repeat(130)}a:1`,
  ];
  for (const text of bad) {
    const parsed = parseAddress(text);
    assert.ok(!parsed.ok, text);
    assert.ok(text.length > 200 || parsed.error.includes(JSON.stringify(text)), parsed.error);
  }
});

test('a host that resolvers read as another IPv4 address is refused', () => {
  for (const host of ['0177.0.0.1', '2130706433', '0x7f.1', '127.1', '127.0.0.0x1', '1.2.3.256'])
    assert.ok(!parseAddress(`${host}:80`).ok, host);
});

test('a socket path is absolute, plain and at most 107 bytes', () => {
  assert.ok(parseAddress(`unix:///${'a'.repeat(106)}`).ok);
  for (const path of [
    'relative',
    './a',
    '',
    '//',
    '/a/',
    '/a/../b',
    '/./a',
    '/a\0b',
    '/a\nb',
    `/${'a'.repeat(107)}`,
    `/${'é'.repeat(54)}`,
  ]) {
    assert.ok(!parseAddress(`unix://${path}`).ok, JSON.stringify(path));
  }
});

test('a listener takes an IP address, and localhost as 127.0.0.1, but no other name', () => {
  assert.deepEqual(parseListenAddress('localhost:80'), { ok: true, value: { kind: 'tcp', host: '127.0.0.1', port: 80 } });
  assert.ok(parseListenAddress('0.0.0.0:80').ok);
  assert.ok(!parseListenAddress('example.org:80').ok);
});

test('WA: a Workload API address follows the standard', () => {
  for (const text of ['unix:///run/a.sock', 'unix:/run/a.sock', 'tcp://127.0.0.1:8000', 'tcp://[::1]:8000'])
    assert.ok(parseEndpoint(text).ok, text);
  const bad = [
    '',
    '/run/a.sock',
    'unix:run/a.sock',
    'unix://host/run/a.sock',
    'unix:///a?b',
    'unix:///a#b',
    'unix:',
    'unix:///',
    'http://127.0.0.1:8000',
    'tcp://localhost:8000',
    'tcp://127.0.0.1',
    'tcp://127.0.0.1:0',
    'tcp://127.0.0.1:8000/',
    'tcp://u@127.0.0.1:8000',
    'tcp://127.0.0.1:8000?a',
    'tcp:127.0.0.1:8000',
    'tcp://unix:///a',
    'UNIX:///a',
  ];
  for (const text of bad) assert.ok(!parseEndpoint(text).ok, text);
});

test('loopback addresses, localhost and Unix sockets are local, and nothing else is', () => {
  for (const text of ['127.0.0.1:1', '127.255.0.1:1', '[::1]:1', '[::ffff:127.0.0.1]:1', 'localhost:1', 'unix:///a'])
    assert.ok(isLocal(address(text)), text);
  for (const text of [
    '0.0.0.0:1',
    '[::]:1',
    '128.0.0.1:1',
    '10.0.0.1:1',
    '[::ffff:10.0.0.1]:1',
    'localhost.example.org:1',
    '127.0.0.1.example:1',
  ]) {
    assert.ok(!isLocal(address(text)), text);
  }
});

test('addresses overlap if they are the same, or one is the wildcard of the other', () => {
  const overlapping = [
    ['127.0.0.1:1', '127.0.0.1:1'],
    ['0.0.0.0:1', '127.0.0.1:1'],
    ['[::]:1', '10.0.0.1:1'],
    ['[::]:1', '[::1]:1'],
    ['localhost:1', '[::1]:1'],
    ['unix:///a', 'unix:///a'],
    ['[::ffff:127.0.0.1]:1', '127.0.0.1:1'],
    ['[::ffff:7f00:1]:1', 'localhost:1'],
    ['[::ffff:0.0.0.0]:1', '127.0.0.2:1'],
  ] as const;
  for (const [a, b] of overlapping) {
    assert.ok(addressesOverlap(address(a), address(b)), `${a} ${b}`);
    assert.ok(addressesOverlap(address(b), address(a)), `${b} ${a}`);
  }
  const apart = [
    ['127.0.0.1:1', '127.0.0.1:2'],
    ['127.0.0.1:0', '127.0.0.1:0'],
    ['127.0.0.1:1', '127.0.0.2:1'],
    ['0.0.0.0:1', '[::1]:1'],
    ['[::ffff:0.0.0.0]:1', '[::1]:1'],
    ['[::ffff:127.0.0.1]:1', '127.0.0.2:1'],
    ['unix:///a', 'unix:///b'],
    ['unix:///a', '127.0.0.1:1'],
    ['0.0.0.0:1', 'db.internal:1'],
  ] as const;
  for (const [a, b] of apart) {
    assert.ok(!addressesOverlap(address(a), address(b)), `${a} ${b}`);
    assert.ok(!addressesOverlap(address(b), address(a)), `${b} ${a}`);
  }
});
