/** An Envoy as far as its checks are seen: calls over one HTTP/2 connection, some at a time. Plain frames of gRPC, so that the client costs little. Driven over IPC by `ext-authz.ts`. */
import { connect as connectHttp2, constants, type ClientHttp2Session } from 'node:http2';
import { connect } from 'node:net';
import { fromBinary } from '@bufbuild/protobuf';
import { CheckResponseSchema } from '../src/gen/ext_authz_pb.ts';
import { checkOf, encodeCheck } from '../test/support/ext-authz.ts';

export interface CheckJob {
  readonly socket: string;
  /** DER of the peer's leaf, in base64. */
  readonly leaf: string;
  readonly checks: number;
  readonly atATime: number;
}

export type CheckReport =
  | { readonly kind: 'done'; readonly p50Ms: number; readonly p99Ms: number }
  | { readonly kind: 'failed'; readonly detail: string };

const HEADER_BYTES = 5;
/** What browsers and their like send, so that a check is as long as most are. */
const HEADERS = Object.fromEntries(Array.from({ length: 12 }, (_, index) => [`x-field-${index}`, 'v'.repeat(40)]));

let session: ClientHttp2Session | undefined;

async function run({ socket, leaf, checks, atATime }: CheckJob): Promise<CheckReport> {
  const over = (session ??= connectHttp2('http://localhost', { createConnection: () => connect(socket) }));
  const message = encodeCheck(
    checkOf({ leaf: Buffer.from(leaf, 'base64'), listener: 'app', http: { path: '/service7/42/items?page=1', headers: HEADERS } }),
  );
  const head = Buffer.alloc(HEADER_BYTES);
  head.writeUInt32BE(message.length, 1);
  const framed = Buffer.concat([head, message]);
  const times: number[] = [];
  let left = checks;
  const one = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const startedMs = performance.now();
      const answer = await call(over, framed);
      times.push(performance.now() - startedMs);
      const { status, httpResponse } = fromBinary(CheckResponseSchema, answer.subarray(HEADER_BYTES));
      if (status?.code !== 0) throw new Error(`a check was answered ${status?.code}: ${JSON.stringify(httpResponse.value)}`);
    }
  };
  await Promise.all(Array.from({ length: atATime }, one));
  times.sort((a, b) => a - b);
  return { kind: 'done', p50Ms: times[Math.floor(checks * 0.5)] ?? 0, p99Ms: times[Math.floor(checks * 0.99)] ?? 0 };
}

function call(over: ClientHttp2Session, framed: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const stream = over.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: '/envoy.service.auth.v3.Authorization/Check',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', reject);
    stream.on('end', () => resolve(Buffer.concat(chunks)));
    stream.end(framed);
  });
}

process.on('message', (job: CheckJob) => {
  run(job)
    .catch((cause: unknown): CheckReport => ({ kind: 'failed', detail: String(cause) }))
    .then((report) => process.send?.(report))
    .catch(() => process.exit(1));
});
