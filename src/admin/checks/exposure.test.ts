import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../../test/support/fake-clock.ts';
import { parseAddress, type TcpAddress } from '../../config/units.ts';
import type { ListenerRef } from '../../telemetry/log/records.ts';
import { createExposureWatch, parseListening, waysAround, type ExposureOptions } from './exposure.ts';

const HEADER = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode';
const REST = '00000000:00000000 00:00000000 00000000     0        0 136177 1 00000000e103e54f 100 0 0 10 0';
/** As captured on a little-endian machine. */
const TCP = `${HEADER}
   0: 0100007F:1F90 00000000:0000 0A ${REST}
   1: 00000000:07E8 00000000:0000 0A ${REST}
   2: 020200C0:20FB 00000000:0000 0A ${REST}
   3: 0100007F:8831 0100007F:8C7C 06 00000000:00000000 03:00000000 00000000     0        0 0 3 00000000f9d2effd
   4: 020200C0:EA6C 507100CB:01BB 01 00000000:00000000 02:0000093E 00000000     0        0 138227 2 00000000eb32a7aa 20 4 22 21 -1
`;
const TCP6 = `${HEADER}
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A ${REST}
   1: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A ${REST}
   2: B80D0120000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A ${REST}
   3: 0000000000000000FFFF00000100007F:1F93 00000000000000000000000000000000:0000 0A ${REST}
   4: 000080FE00000000FF005450B6AD1DFE:1F94 00000000000000000000000000000000:0000 0A ${REST}
`;

const texts = (sockets: readonly TcpAddress[]): string[] => sockets.map(({ host, port }) => `${host} ${port}`);

test('listening IPv4 sockets are read, connections are not', () => {
  assert.deepEqual(texts(parseListening(TCP, 'LE')), ['127.0.0.1 8080', '0.0.0.0 2024', '192.0.2.2 8443']);
});

test('the words of an IPv6 address are turned, and IPv4 in it is shown as IPv4', () => {
  assert.deepEqual(texts(parseListening(TCP6, 'LE')), [
    ':: 8080',
    '::1 8081',
    '2001:db8::1 8082',
    '127.0.0.1 8083',
    'fe80::5054:ff:fe1d:adb6 8084',
  ]);
});

test('on a big-endian machine the bytes are in order', () => {
  const text = `   0: 7F000001:1F90 00000000:0000 0A ${REST}\n   1: 20010DB8000000000000000000000001:1F92 00000000000000000000000000000000:0000 0A ${REST}\n`;

  assert.deepEqual(texts(parseListening(text, 'BE')), ['127.0.0.1 8080', '2001:db8::1 8082']);
});

test('what is not such a table has no sockets in it', () => {
  for (const text of ['', HEADER, 'garbage\n', '   0: 0100007F 0A', `   0: 0100007:1F90 00000000:0000 0A ${REST}`, '\u0000'.repeat(100)]) {
    assert.deepEqual(parseListening(text, 'LE'), [], JSON.stringify(text));
  }
});

/** The look itself is asynchronous: lets it finish. */
const settle = () => new Promise((resolve) => setImmediate(resolve));
const address = (text: string) => {
  const parsed = parseAddress(text);
  assert.ok(parsed.ok);
  return parsed.value;
};
const tcp = (text: string): TcpAddress => {
  const parsed = address(text);
  assert.ok(parsed.kind === 'tcp');
  return parsed;
};

test('the way around an application on loopback is its port on any other address, but Scute itself is none', () => {
  const listening = [
    '127.0.0.1:8080',
    '0.0.0.0:8080',
    '[::]:8080',
    '192.0.2.2:8080',
    '127.0.0.2:8080',
    '[::1]:8080',
    '0.0.0.0:8443',
    '0.0.0.0:8080',
  ].map(tcp);

  assert.deepEqual(waysAround(address('127.0.0.1:8080'), listening, []), ['0.0.0.0:8080', '192.0.2.2:8080', '[::]:8080']);
  assert.deepEqual(waysAround(address('localhost:8080'), listening, [address('192.0.2.2:8080')]), ['0.0.0.0:8080', '[::]:8080']);
  assert.deepEqual(waysAround(address('127.0.0.1:9999'), listening, []), []);
});

test('an application named by another address of the machine is reachable there; a Unix socket or a name elsewhere is not judged', () => {
  const listening = ['192.0.2.2:8080', '192.0.2.3:8080'].map(tcp);

  assert.deepEqual(waysAround(address('192.0.2.2:8080'), listening, []), ['192.0.2.2:8080']);
  assert.deepEqual(waysAround(address('unix:///run/app.sock'), listening, []), []);
  assert.deepEqual(waysAround(address('backend.example:8080'), listening, []), []);
});

const WEB: ListenerRef = { name: 'web', direction: 'inbound' };

function watch(read: NonNullable<ExposureOptions['read']>) {
  const clock = new FakeClock();
  const told: (readonly string[])[] = [];
  const exposure = createExposureWatch({
    applications: [{ listener: WEB, to: address('127.0.0.1:8080') }],
    ownAddresses: () => [],
    events: { applicationExposed: (_, addresses) => void told.push(addresses) },
    clock,
    read,
  });
  return { clock, told, exposure };
}

test('exposure is told a second after the start and when it changes, looking each 30 seconds until the stop', async () => {
  let tcp6 = '';
  let reads = 0;
  const { clock, told, exposure } = watch(async (file) => {
    reads += 1;
    return file === 'tcp' ? TCP : tcp6;
  });
  await exposure.start(new AbortController().signal);
  assert.equal(reads, 0);
  assert.deepEqual(told, [[]]);
  assert.deepEqual(exposure.check(), { ok: true, detail: 'not known yet: listening sockets are read a second after the start' });
  clock.advance(1000);
  await settle();
  assert.equal(reads, 2);
  assert.deepEqual(exposure.check(), { ok: true });

  tcp6 = TCP6;
  clock.advance(30_000);
  await settle();
  assert.deepEqual(told, [[], ['[::]:8080']]);
  assert.deepEqual(exposure.check(), { ok: false, detail: 'can be reached around Scute: web at [::]:8080' });
  assert.deepEqual(exposure.exposed().get('web'), ['[::]:8080']);

  clock.advance(30_000);
  await settle();
  assert.equal(told.length, 2);
  assert.equal(reads, 6);

  await exposure.stop(AbortSignal.abort());
  assert.equal(clock.armed, 0);
});

test('what was found stays told while sockets cannot be read', async () => {
  let tcp6: string | undefined = TCP6;
  const { clock, told, exposure } = watch(async () => tcp6 ?? Promise.reject(new Error('EMFILE')));
  await exposure.start(new AbortController().signal);
  clock.advance(1000);
  await settle();
  tcp6 = undefined;
  clock.advance(30_000);
  await settle();
  assert.deepEqual(exposure.check(), { ok: false, detail: 'can be reached around Scute: web at [::]:8080' });
  tcp6 = '';
  clock.advance(30_000);
  await settle();
  assert.deepEqual(exposure.check(), { ok: true });
  assert.deepEqual(told, [[], ['[::]:8080'], []]);
  await exposure.stop(AbortSignal.abort());
});

test('where sockets cannot be read nothing is claimed, and it is not an error', async () => {
  const missing = watch(async () => undefined);
  const broken = watch(() => Promise.reject(new Error('EIO')));

  for (const { clock, exposure, told } of [missing, broken]) {
    await exposure.start(new AbortController().signal);
    clock.advance(1000);
    await settle();
    assert.match(exposure.check().detail ?? '', /^not known/);
    assert.ok(told.every((addresses) => addresses.length === 0));
    await exposure.stop(AbortSignal.abort());
  }
});
