import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import { createLogger, type LoggerOptions } from './logger.ts';
import { strangersWords } from './scrub.ts';

function logInto(lines: string[], options: Partial<LoggerOptions> = {}) {
  return createLogger({ level: 'info', format: 'json', destination: { write: (line) => void lines.push(line) }, ...options });
}

test('a line is one JSON object with the level as a word, the time as ISO 8601 and the fields beside them', async () => {
  const lines: string[] = [];

  (await logInto(lines)).logger.info({ peer_id: 'spiffe://example.org/a', skipped: undefined }, 'peer denied');

  assert.equal(lines.length, 1);
  assert.ok(lines[0]?.endsWith('}\n'));
  const { time, ...rest } = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
  assert.match(String(time), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.deepEqual(rest, { level: 'info', peer_id: 'spiffe://example.org/a', message: 'peer denied' });
});

test('what comes from outside cannot break out of its field', async () => {
  const lines: string[] = [];

  (await logInto(lines)).logger.info({ detail: 'x"\n{"level":"error"}\u001B[31m' }, 'm');

  assert.equal(lines.join('').split('\n').length, 2);
  assert.equal((JSON.parse(lines[0] ?? '') as { detail: string }).detail, 'x"\n{"level":"error"}\u001B[31m');
  assert.ok(!lines.join('').includes('\u001B'));
});

test('the level can be changed while running', async () => {
  const lines: string[] = [];
  const log = await logInto(lines);

  log.logger.debug({}, 'before');
  log.setLevel('debug');
  log.logger.debug({}, 'after');

  assert.equal(log.level(), 'debug');
  assert.ok(log.logger.isLevelEnabled('debug'));
  assert.equal(lines.length, 1);
  assert.match(lines.join(''), /after/);
});

test('the pretty form is one line too, and has no control characters from outside', async () => {
  const lines: string[] = [];

  (await logInto(lines, { format: 'pretty' })).logger.warn(
    { peer_id: 'spiffe://example.org/a', name: 'x\nINFO: all is well\u001B[31m', detail: '\u001B[31mred\nnew line' },
    'peer denied',
  );

  const text = lines.join('');
  assert.match(text, /WARN \("x\\nINFO: all is well\\u001b\[31m"\): peer denied/);
  assert.match(text, /"peer_id":"spiffe:\/\/example\.org\/a"/);
  assert.equal(text.split('\n').length, 2);
  assert.ok(!text.includes('\u001B'));
});

const KEYS: Readonly<Record<string, () => KeyObject>> = {
  'P-256': () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
  'P-384': () => generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey,
  RSA: () => generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey,
  Ed25519: () => generateKeyPairSync('ed25519').privateKey,
};

for (const [name, make] of Object.entries(KEYS)) {
  test(`a ${name} private key given to the log by mistake does not come out`, async () => {
    const key = make();
    const der = key.export({ format: 'der', type: 'pkcs8' });
    const pem = key.export({ format: 'pem', type: 'pkcs8' });
    const lines: string[] = [];
    const { logger } = await logInto(lines);

    logger.error({ error: { cause: `cannot use ${pem}` } }, 'as PEM');
    logger.error({ text: der.toString('base64') }, 'as base64');
    logger.error({ x509_svid_key: [...der], nested: { svidKey: new Uint8Array(der) } }, 'as bytes');
    logger.error({ key }, 'as a key object');

    assert.equal(lines.length, 4);
    for (const line of lines) JSON.parse(line);
    const secret = der.subarray(-24);
    const said = lines.join('');
    assert.ok(!said.includes('PRIVATE KEY'));
    assert.ok(!said.includes(secret.toString('base64').slice(2, 20)), 'base64 of the key');
    assert.ok(!said.includes([...secret].join(',')), 'bytes of the key');
    assert.ok(!said.includes(pem.split('\n').at(-3) ?? 'none'), 'PEM of the key');
  });
}

test('a key in quotes within a field leaves the line whole', async () => {
  const lines: string[] = [];
  const pem = '-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\n';

  const { logger } = await logInto(lines);
  logger.info({ detail: `type ${JSON.stringify(pem)} is unknown`, text: `"${pem}"\\`, after: 'it' }, 'm');

  const { time: _time, ...fields } = JSON.parse(lines.join('')) as Record<string, unknown>;
  assert.deepEqual(fields, { level: 'info', detail: 'type "[redacted]', text: '"[redacted]', after: 'it', message: 'm' });
});

test('a list or an object in a field for keys is taken out whole, brackets in its texts and all', async () => {
  const lines: string[] = [];

  const { logger } = await logInto(lines);
  logger.info({ api_key: ['a]b', 'c"]'], session_key: { kty: 'EC}', d: 'xyz' }, after: 'it' }, 'm');

  const { time: _time, ...fields } = JSON.parse(lines.join('')) as Record<string, unknown>;
  assert.deepEqual(fields, { level: 'info', api_key: '[redacted]', session_key: '[redacted]', after: 'it', message: 'm' });
});

test('the words of a stranger are cut, hold no key, and cannot turn the text of others around', () => {
  for (const [text, shown] of [
    ['some words', 'some words'],
    ['x'.repeat(20), 'xxxxxxxxxx…'],
    [`${'x'.repeat(20)}-----BEGIN EC PRIVATE KEY-----`, '[redacted]'],
    ['MIGHAgEAMBMGByqGSM49AgEG', '[redacted]…'],
    ['eins\u2028zwei', 'eins\ufffdzwei'],
    ['\u202edrei\u009b', '\ufffddrei\ufffd'],
    ['a\nb', 'a\nb'],
  ] as const)
    assert.equal(strangersWords(text, 10), shown);
  assert.equal(strangersWords('it is MIGHAgEAMBMGByqGSM49AgEG', 20), 'it is [redacted]…');
});

test('tokens and passwords given to the log by mistake do not come out, whatever is in them', async () => {
  const lines: string[] = [];
  const jwt = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmU6Ly9leGFtcGxlLm9yZyJ9.c2lnbmF0dXJl';

  (await logInto(lines)).logger.info({ access_token: 'a"b\\c', deep: { password: 'hunter2' }, detail: `Bearer ${jwt}` }, 'm');

  const parsed = JSON.parse(lines.join('')) as Record<string, unknown>;
  assert.equal(parsed['access_token'], '[redacted]');
  assert.deepEqual(parsed['deep'], { password: '[redacted]' });
  assert.equal(parsed['detail'], 'Bearer [redacted]');
});

test('key ids are not keys', async () => {
  const lines: string[] = [];

  (await logInto(lines)).logger.info({ issuer_key_id: 'aa11', key_type: 'ec' }, 'm');

  assert.match(lines.join(''), /"issuer_key_id":"aa11","key_type":"ec"/);
});
