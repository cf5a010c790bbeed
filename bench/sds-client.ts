/**
 * Many Envoys in one process, as far as SDS sees them: streams over a few HTTP/2 connections, each acknowledging what it is sent. Plain HTTP/2 frames
 * of gRPC, so that the client costs little. Driven over IPC by `sds.ts`.
 */
import { connect as connectHttp2, constants, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import { connect } from 'node:net';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { DiscoveryRequestSchema, DiscoveryResponseSchema } from '../src/gen/discovery_pb.ts';
import { SECRET_TYPE } from '../src/sds/wire.ts';

export interface SdsClientJob {
  readonly socket: string;
  readonly streams: number;
  readonly connections: number;
}

/** Nanoseconds of the clock that all processes of the machine share. */
export type Report =
  | { readonly kind: 'round'; readonly received: number; readonly atNs: readonly string[] }
  | { readonly kind: 'failed'; readonly detail: string };

const HEADER_BYTES = 5;
/** A stream that waits for the others of its round. */
const QUIET_MS = 30_000;

function framed(message: Uint8Array): Buffer {
  const head = Buffer.alloc(HEADER_BYTES);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function requestOf(fields: { readonly nonce?: string; readonly version?: string; readonly isFirst?: boolean }): Buffer {
  return framed(
    toBinary(
      DiscoveryRequestSchema,
      create(DiscoveryRequestSchema, {
        typeUrl: SECRET_TYPE,
        resourceNames: ['default'],
        responseNonce: fields.nonce ?? '',
        versionInfo: fields.version ?? '',
        ...(fields.isFirst === true && { node: { id: 'bench', userAgentName: 'envoy' } }),
      }),
    ),
  );
}

const tell = (report: Report): void => void process.send?.(report);

/** Opens all streams; reports each round in which every stream has had a response. */
async function run({ socket, streams, connections }: SdsClientJob): Promise<void> {
  const sessions: ClientHttp2Session[] = [];
  for (let index = 0; index < connections; index += 1) {
    const session = connectHttp2('http://localhost', { createConnection: () => connect(socket) });
    session.on('error', (error) => tell({ kind: 'failed', detail: error.message }));
    await new Promise((resolve) => session.once('connect', resolve));
    sessions.push(session);
  }
  let atNs: string[] = [];
  let timer: NodeJS.Timeout | undefined;
  const arrived = (): void => {
    atNs.push(String(process.hrtime.bigint()));
    clearTimeout(timer);
    timer = undefined;
    if (atNs.length === streams) {
      tell({ kind: 'round', received: atNs.length, atNs });
      atNs = [];
    } else timer = setTimeout(() => tell({ kind: 'failed', detail: `${atNs.length} of ${streams} streams were told` }), QUIET_MS);
  };
  for (let index = 0; index < streams; index += 1) openStream(sessions[index % connections], arrived);
}

function openStream(session: ClientHttp2Session | undefined, arrived: () => void): void {
  const stream: ClientHttp2Stream | undefined = session?.request(
    {
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets',
      'content-type': 'application/grpc',
      te: 'trailers',
    },
    { endStream: false },
  );
  if (stream === undefined) throw new Error('no session');
  let held: Buffer = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    while (held.length >= HEADER_BYTES) {
      const end = HEADER_BYTES + held.readUInt32BE(1);
      if (held.length < end) break;
      const { nonce, versionInfo } = fromBinary(DiscoveryResponseSchema, held.subarray(HEADER_BYTES, end));
      held = held.subarray(end);
      stream.write(requestOf({ nonce, version: versionInfo }));
      arrived();
    }
  });
  stream.on('error', (error) => tell({ kind: 'failed', detail: error.message }));
  stream.on('end', () => tell({ kind: 'failed', detail: 'a stream was ended' }));
  stream.write(requestOf({ isFirst: true }));
}

process.on('message', (job: SdsClientJob) => {
  run(job).catch((cause: unknown) => tell({ kind: 'failed', detail: String(cause) }));
});
