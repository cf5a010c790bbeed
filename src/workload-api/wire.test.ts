import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { JWTBundlesResponseSchema, X509BundlesResponseSchema, X509SVIDResponseSchema } from '../gen/workload_pb.ts';
import { createRandom } from '../../test/support/random.ts';
import { readJwtBundlesResponse, readX509BundlesResponse, readX509SvidResponse } from './wire.ts';

const bytes = (...of: readonly number[]): Uint8Array => Uint8Array.from(of);
const entries = (map: Readonly<Record<string, Uint8Array>>): readonly (readonly [string, number[]])[] =>
  Object.entries(map)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => [key, [...value]]);
const read = (map: ReadonlyMap<string, Uint8Array>): readonly (readonly [string, number[]])[] =>
  [...map].map(([key, value]) => [key, [...value]]);

/** What both readers say of the same bytes, in one form; undefined: not the message. */
const READERS = [
  {
    name: 'X509SVIDResponse',
    example: toBinary(
      X509SVIDResponseSchema,
      create(X509SVIDResponseSchema, {
        svids: [
          { spiffeId: 'spiffe://example.org/a', x509Svid: bytes(1), x509SvidKey: bytes(2), bundle: bytes(3, 3), hint: 'é' },
          { spiffeId: 'spiffe://example.org/b', bundle: new Uint8Array(200) },
        ],
        crl: [bytes(4), bytes()],
        federatedBundles: { 'spiffe://z.test': bytes(5), 'spiffe://a.test': bytes(), ['__proto__x']: bytes(6) },
      }),
    ),
    ours: (given: Uint8Array) => {
      const { svids, crl, federatedBundles } = readX509SvidResponse(given);
      const parts = svids.map((svid) => [svid.spiffeId, [...svid.x509Svid], [...svid.x509SvidKey], [...svid.bundle], svid.hint]);
      return [parts, crl.map((each) => [...each]), read(federatedBundles)];
    },
    generated: (given: Uint8Array) => {
      const { svids, crl, federatedBundles } = fromBinary(X509SVIDResponseSchema, given);
      const parts = svids.map((svid) => [svid.spiffeId, [...svid.x509Svid], [...svid.x509SvidKey], [...svid.bundle], svid.hint]);
      return [parts, crl.map((each) => [...each]), entries(federatedBundles)];
    },
  },
  {
    name: 'X509BundlesResponse',
    example: toBinary(
      X509BundlesResponseSchema,
      create(X509BundlesResponseSchema, { crl: [bytes(1)], bundles: { 'spiffe://b.test': bytes(2), 'spiffe://a.test': bytes(3) } }),
    ),
    ours: (given: Uint8Array) => {
      const { crl, bundles } = readX509BundlesResponse(given);
      return [crl.map((each) => [...each]), read(bundles)];
    },
    generated: (given: Uint8Array) => {
      const { crl, bundles } = fromBinary(X509BundlesResponseSchema, given);
      return [crl.map((each) => [...each]), entries(bundles)];
    },
  },
  {
    name: 'JWTBundlesResponse',
    example: toBinary(JWTBundlesResponseSchema, create(JWTBundlesResponseSchema, { bundles: { 'spiffe://b.test': bytes(2) } })),
    ours: (given: Uint8Array) => [read(readJwtBundlesResponse(given))],
    generated: (given: Uint8Array) => [entries(fromBinary(JWTBundlesResponseSchema, given).bundles)],
  },
] as const;

function outcome(reader: (given: Uint8Array) => unknown, given: Uint8Array): unknown {
  try {
    return reader(given);
  } catch {
    return undefined;
  }
}

for (const { name, example, ours, generated } of READERS) {
  test(`${name} is read as the generated code reads it, and never more than that of what was cut or changed`, () => {
    assert.deepEqual(ours(example), generated(example));
    const random = createRandom(1);
    const below = (limit: number): number => Math.floor(random() * limit);
    let meant = 0;
    for (let round = 0; round < 3000; round += 1) {
      const given = Uint8Array.from(example.subarray(0, round % 3 === 0 ? below(example.length + 1) : example.length));
      for (let change = below(3); change > 0 && given.length > 0; change -= 1) given[below(given.length)] = below(256);
      const found = outcome(ours, given);
      if (found === undefined) continue;
      meant += 1;
      assert.deepEqual(found, outcome(generated, given), Buffer.from(given).toString('hex'));
    }
    assert.ok(meant > 100, String(meant));
  });
}

test('a field that has not the form of its description refuses the message, one that nobody knows is passed over', () => {
  const svids = new BinaryWriter().tag(1, WireType.Varint).uint32(1).finish();
  assert.throws(() => readX509SvidResponse(svids), /field 1 has wire type 0/);
  const unknown = new BinaryWriter().tag(9, WireType.Varint).uint32(1).tag(2, WireType.LengthDelimited).bytes(bytes(7)).finish();
  assert.deepEqual(readX509SvidResponse(unknown).crl, [bytes(7)]);
});

test('text that is not UTF-8 refuses the message', () => {
  const svid = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(bytes(0xff)).finish();
  assert.throws(() => readX509SvidResponse(new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(svid).finish()));
});
