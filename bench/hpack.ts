/** `npx node bench/hpack.ts`: how many header blocks a CPU-second reads and writes, of nghttp2's and without any compression. */
import { HpackDecoder } from '../src/http2/hpack/decoder.ts';
import { HpackEncoder } from '../src/http2/hpack/encoder.ts';
import type { HpackField } from '../src/http2/hpack/field.ts';
import { hpack } from '../test/support/http/http2-frames.ts';
import { Nghttp2Encoder } from '../test/support/http/nghttp2.ts';

const ROUNDS = 5;
const TIMES = 200_000;
const FRAME_HEAD = Buffer.alloc(9);

const GRPC: readonly HpackField[] = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/grpc.testing.TestService/UnaryCall'],
  [':authority', 'api.example.org:8443'],
  ['content-type', 'application/grpc'],
  ['user-agent', 'grpc-go/1.79.3'],
  ['te', 'trailers'],
];
const BROWSER: readonly HpackField[] = [
  [':method', 'GET'],
  [':scheme', 'https'],
  [':path', '/api/v1/orders/1234?expand=lines'],
  [':authority', 'shop.example.org'],
  ['user-agent', 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36'],
  ['accept', 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'],
  ['accept-encoding', 'gzip, deflate, br'],
  ['accept-language', 'en-GB,en;q=0.9'],
  ['cookie', 'session=5b1f2c3d4e5f60718293a4b5c6d7e8f9; theme=dark'],
  ['traceparent', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'],
];

const table: Record<string, object> = {};
for (const [name, fields] of Object.entries({ gRPC: GRPC, browser: BROWSER })) {
  const [first, second] = await nghttp2Blocks(fields);
  const plain = hpack(fields.map(([name, value]) => [name, value]));
  table[`${name}: the first block, which fills the table`] = { ...readAnew(first, []), fields: fields.length };
  table[`${name}: a later block, remembered`] = { ...readAgain(second, first), fields: fields.length };
  table[`${name}: a later block, not remembered`] = { ...readAnew(second, [first]), fields: fields.length };
  table[`${name}: without compression, not remembered`] = { ...readAnew(plain, []), fields: fields.length };
  const encoder = new HpackEncoder();
  const bytes = encoder.encode(fields).length;
  table[`${name}: written`] = { bytes, ...measure(() => encoder.encode(fields)), fields: fields.length };
}
console.table(table);

/** Two blocks of one connection. */
async function nghttp2Blocks(fields: readonly HpackField[]): Promise<[Buffer, Buffer]> {
  const nghttp2 = new Nghttp2Encoder();
  const next = async (): Promise<Buffer> => {
    const written = await nghttp2.encode(
      fields.flatMap(([name, value]) => [name, value]),
      [],
    );
    const block = written.find((event) => event.kind === 'block');
    if (block === undefined) throw new Error('no block was written');
    return block.bytes;
  };
  const blocks: [Buffer, Buffer] = [await next(), await next()];
  nghttp2.close();
  return blocks;
}

function decoderAfter(before: readonly Buffer[]): HpackDecoder {
  const decoder = new HpackDecoder({ maxTableSize: 4096, maxFieldSectionSize: 65_536, maxFields: 200 });
  for (const block of before) decoder.decode(block);
  return decoder;
}

function readAgain(block: Buffer, before: Buffer): object {
  const decoder = decoderAfter([before]);
  const chunk = Buffer.concat([FRAME_HEAD, block, FRAME_HEAD]);
  return { bytes: block.length, ...measure(() => decoder.decode(chunk, FRAME_HEAD.length, FRAME_HEAD.length + block.length)) };
}

/** A limit that is none makes the decoder forget. */
function readAnew(block: Buffer, before: readonly Buffer[]): object {
  const decoder = decoderAfter(before);
  const chunk = Buffer.concat([FRAME_HEAD, block, FRAME_HEAD]);
  return {
    bytes: block.length,
    ...measure(() => {
      decoder.limitTableSize(4096);
      decoder.decode(chunk, FRAME_HEAD.length, FRAME_HEAD.length + block.length);
    }),
  };
}

/** The best of some rounds. */
function measure(work: () => unknown): { readonly ns: number; readonly 'per CPU-second': number } {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const begin = process.cpuUsage();
    for (let times = 0; times < TIMES; times++) work();
    const { user, system } = process.cpuUsage(begin);
    best = Math.min(best, ((user + system) * 1000) / TIMES);
  }
  return { ns: Math.round(best), 'per CPU-second': Math.round(1e9 / best) };
}
