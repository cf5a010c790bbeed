import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drawHpackConnection, type Vocabulary } from '../../../test/fuzz/hpack-connections.ts';
import { Draws } from '../../../test/fuzz/random.ts';
import { Nghttp2Decoder, Nghttp2Encoder, type Nghttp2Outcome } from '../../../test/support/http/nghttp2.ts';
import { HpackDecoder, HpackError } from './decoder.ts';
import { HpackEncoder } from './encoder.ts';
import { STATIC_TABLE, type HpackField } from './field.ts';

/** Some seconds. `npm run fuzz -- --subject hpack` goes on for longer, with another library. */
const CONNECTIONS = 600;
const SEED = 20_261_201;
const LIMITS = { maxTableSize: 4096, maxFieldSectionSize: 1_000_000, maxFields: 1000 };

/** Their values are more than bytes to nghttp2. */
const WITH_MEANING = new Set(['content-length', 'host', 'transfer-encoding']);
const LETTERS = 'abcdefghijklmnopqrstuvwxyz0123456789-_.';
const VISIBLE = Array.from({ length: 256 }, (_, byte) => byte)
  .filter((byte) => byte > 0x20 && byte !== 0x7f)
  .map((byte) => String.fromCharCode(byte))
  .join('');
const NAME = /^:?[a-z0-9!#$%&'*+.^_`|~-]+$/;
const VALUE = /^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/;
const HOST = /^[\w!$%&'()*+,.:;=@[\]~-]*$/;
/** What nghttp2 takes as a request. */
const REQUESTS: Vocabulary = {
  tableSizes: [4096],
  names: ['x', 'x-trace', 'grpc-timeout', 'cookie', 'a'.repeat(40), '__proto__'],
  values: ['', '/', 'v', 'application/grpc', '0123456789'.repeat(30), 'x'.repeat(1500), '\xff\xfe\xf9'],
  nameCharacters: LETTERS,
  valueCharacters: VISIBLE,
  statics: STATIC_TABLE.flatMap((field, index) =>
    field === undefined || field[0].startsWith(':') || WITH_MEANING.has(field[0]) ? [] : [index],
  ),
  wrongOnceIn: 10,
};
/** `GET`, `https`, `/`, and `api` as the authority. */
const BEGIN = Buffer.from('8287840103617069', 'hex');
/** Without `cookie`, of which nghttp2 itself says what is not to be indexed. */
const OWN_NAMES = REQUESTS.names.filter((name) => name !== 'cookie');

/** As nghttp2 would tell it, which leaves out a field with a bad byte. */
function outcomeOf(all: readonly HpackField[]): Nghttp2Outcome {
  const fields = all.filter(([name, value]) => NAME.test(name) && (name === 'host' ? HOST : VALUE).test(value));
  return {
    kind: 'message',
    fields: {
      names: fields.map(([name]) => name),
      values: fields.map(([, value]) => value),
      sensitive: fields.flatMap(([name, , neverIndexed]) => (neverIndexed === true ? [name] : [])),
    },
  };
}

function read(decoder: HpackDecoder, block: Buffer): readonly HpackField[] | 'lost' {
  try {
    const fields = decoder.decode(block);
    assert.ok(fields !== 'too_large');
    return fields;
  } catch (error) {
    if (error instanceof HpackError) return 'lost';
    throw error;
  }
}

test('whatever is sent, nghttp2 reads the same fields, and gives up the same connections', async () => {
  const seen = { message: 0, malformed: 0, lost: 0 };
  for (let number = SEED; number < SEED + CONNECTIONS; number++) {
    const decoder = new HpackDecoder(LIMITS);
    const nghttp2 = new Nghttp2Decoder();
    for (const event of drawHpackConnection(new Draws(number), REQUESTS, BEGIN).events) {
      if (event.kind === 'limit') {
        decoder.limitTableSize(event.bytes);
        await nghttp2.limitTableSize(event.bytes);
        continue;
      }
      const ours = read(decoder, event.bytes);
      const theirs = await nghttp2.decode(event.bytes);
      seen[theirs.kind]++;
      const where = `connection ${number}, block ${event.bytes.toString('hex')}`;
      assert.equal(ours === 'lost', theirs.kind === 'lost', where);
      if (ours === 'lost') break;
      if (theirs.kind === 'message') assert.deepEqual(outcomeOf(ours), theirs, where);
    }
    nghttp2.close();
  }
  assert.ok(seen.message > CONNECTIONS, JSON.stringify(seen));
  assert.ok(seen.lost > CONNECTIONS / 20, JSON.stringify(seen));
});

test('what nghttp2 writes is read as it was meant, with its table of any size', async () => {
  for (let number = SEED; number < SEED + CONNECTIONS / 10; number++) {
    const draws = new Draws(number);
    const nghttp2 = new Nghttp2Encoder();
    const decoder = new HpackDecoder({ ...LIMITS, maxTableSize: 65_536 });
    const limits = [65_536];
    nghttp2.limitTableSize(65_536);
    for (let left = 20; left > 0; left--) {
      if (draws.once(4)) {
        const bytes = draws.of([0, 50, 500, 4096, 65_536]);
        nghttp2.limitTableSize(bytes);
        limits.push(bytes);
      }
      const fields = drawRequest(draws);
      const sensitive = fields.flatMap(([name, , neverIndexed]) => (neverIndexed === true ? [name] : []));
      let decoded: readonly HpackField[] | 'too_large' | undefined;
      for (const event of await nghttp2.encode(
        fields.flatMap(([name, value]) => [name, value]),
        sensitive,
      )) {
        if (event.kind === 'block') decoded = decoder.decode(event.bytes);
        else {
          const bytes = limits.shift();
          if (bytes !== undefined) decoder.limitTableSize(bytes);
        }
      }
      assert.deepEqual(decoded, fields, `connection ${number}`);
    }
    nghttp2.close();
  }
});

test('what is written here nghttp2 reads as it was meant, with its table of any size', async () => {
  for (let number = SEED; number < SEED + CONNECTIONS / 10; number++) {
    const draws = new Draws(number);
    const encoder = new HpackEncoder();
    const nghttp2 = new Nghttp2Decoder();
    for (let left = 10; left > 0; left--) {
      if (draws.once(4)) {
        const bytes = draws.of([0, 50, 4096, 65_536]);
        encoder.limitTableSize(bytes);
        await nghttp2.limitTableSize(bytes);
      }
      const fields = drawRequest(draws);
      assert.deepEqual(await nghttp2.decode(encoder.encode(fields)), outcomeOf(fields), `connection ${number}`);
    }
    nghttp2.close();
  }
});

function drawRequest(draws: Draws): HpackField[] {
  const fields: HpackField[] = [
    [':method', draws.of(['GET', 'POST', 'PUT'])],
    [':scheme', draws.of(['http', 'https'])],
    [':authority', draws.of(['api', 'api.example.org:8443'])],
    [':path', draws.of(['/', '/index.html', '/grpc.testing.TestService/UnaryCall'])],
  ];
  const names = new Set<string>();
  for (let left = draws.below(10); left > 0; left--) {
    const name = draws.of(OWN_NAMES);
    // Node writes a name once, and says of names that they are sensitive.
    if (names.has(name)) continue;
    names.add(name);
    const value = draws.once(2)
      ? draws.of(REQUESTS.values)
      : Array.from({ length: draws.below(30) }, () => VISIBLE[draws.below(VISIBLE.length)]).join('');
    fields.push(draws.once(4) ? [name, value, true] : [name, value]);
  }
  return fields;
}
