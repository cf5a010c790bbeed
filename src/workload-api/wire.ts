/**
 * The messages of SPIFFE's X.509 profile and its JWT bundles, from bytes (`proto/workload.proto`), field by field: their generated descriptions are made
 * when they are loaded, with those of Protocol Buffers itself, which would be a tenth of the time from the listeners to the first answer.
 */
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';

export interface X509SvidEntry {
  readonly spiffeId: string;
  readonly x509Svid: Uint8Array;
  readonly x509SvidKey: Uint8Array;
  readonly bundle: Uint8Array;
  readonly hint: string;
}

/** By trust domain, as the agent writes it; in the order of their names, for agents written in Go send maps in random order. */
export type BundleEntries = ReadonlyMap<string, Uint8Array>;

export interface X509SvidResponse {
  readonly svids: readonly X509SvidEntry[];
  readonly crl: readonly Uint8Array[];
  readonly federatedBundles: BundleEntries;
}

export interface X509BundlesResponse {
  readonly crl: readonly Uint8Array[];
  readonly bundles: BundleEntries;
}

const NONE: Uint8Array = new Uint8Array();
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Throws if `bytes` are not the message. */
export function readX509SvidResponse(bytes: Uint8Array): X509SvidResponse {
  const svids: X509SvidEntry[] = [];
  const crl: Uint8Array[] = [];
  const bundles = new Map<string, Uint8Array>();
  readFields(bytes, {
    1: (value) => svids.push(readX509Svid(value)),
    2: (value) => crl.push(value),
    3: (value) => addEntry(bundles, value),
  });
  return { svids, crl, federatedBundles: inOrder(bundles) };
}

/** Throws if `bytes` are not the message. */
export function readX509BundlesResponse(bytes: Uint8Array): X509BundlesResponse {
  const crl: Uint8Array[] = [];
  const bundles = new Map<string, Uint8Array>();
  readFields(bytes, { 1: (value) => crl.push(value), 2: (value) => addEntry(bundles, value) });
  return { crl, bundles: inOrder(bundles) };
}

/** Of a JWTBundlesResponse, which has nothing else. Throws if `bytes` are not the message. */
export function readJwtBundlesResponse(bytes: Uint8Array): BundleEntries {
  const bundles = new Map<string, Uint8Array>();
  readFields(bytes, { 1: (value) => addEntry(bundles, value) });
  return inOrder(bundles);
}

function readX509Svid(bytes: Uint8Array): X509SvidEntry {
  const entry = { spiffeId: '', x509Svid: NONE, x509SvidKey: NONE, bundle: NONE, hint: '' };
  readFields(bytes, {
    1: (value) => (entry.spiffeId = UTF8.decode(value)),
    2: (value) => (entry.x509Svid = value),
    3: (value) => (entry.x509SvidKey = value),
    4: (value) => (entry.bundle = value),
    5: (value) => (entry.hint = UTF8.decode(value)),
  });
  return entry;
}

/** An entry of a map is a message of its own; a later one of the same key counts. */
function addEntry(map: Map<string, Uint8Array>, bytes: Uint8Array): void {
  let key = '';
  let value: Uint8Array = NONE;
  readFields(bytes, { 1: (given) => (key = UTF8.decode(given)), 2: (given) => (value = given) });
  map.set(key, value);
}

/** All fields that we know have a length before their bytes; those that we do not know are passed over. */
function readFields(bytes: Uint8Array, known: Readonly<Record<number, (value: Uint8Array) => void>>): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    const read = known[number];
    if (read === undefined) {
      reader.skip(wireType, number);
      continue;
    }
    if (wireType !== WireType.LengthDelimited) throw new Error(`field ${number} has wire type ${wireType}`);
    read(reader.bytes());
  }
}

function inOrder(map: ReadonlyMap<string, Uint8Array>): BundleEntries {
  return new Map([...map].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
