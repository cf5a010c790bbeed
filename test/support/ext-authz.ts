/** A client of ours that asks as Envoy does. */
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { Metadata, type Client, type ServiceError } from '@grpc/grpc-js';
import { Authorization, CheckRequestSchema, CheckResponseSchema, type CheckResponse } from '../../src/gen/ext_authz_pb.ts';
import { pemOf } from './pki/pki.ts';

const PATH = `/${Authorization.typeName}/Check`;

/** As Envoy writes a certificate into a check, or a chain into X-Forwarded-Client-Cert. */
export function asEnvoySays(...ders: readonly Uint8Array[]): string {
  const escapes: Readonly<Record<string, string>> = { '\n': '%0A', ' ': '%20', '+': '%2B', '/': '%2F', '=': '%3D' };
  return ders
    .map((der) => pemOf('CERTIFICATE', der))
    .join('')
    .replaceAll(/[\n +/=]/g, (found) => escapes[found] ?? '');
}

export interface Asked {
  /** Leaf alone; undefined: none. */
  readonly leaf?: Uint8Array | undefined;
  readonly listener?: string | undefined;
  /** Undefined: of a connection. */
  readonly http?: {
    readonly method?: string;
    readonly path?: string;
    readonly host?: string;
    readonly headers?: Record<string, string>;
    /** As with `encode_raw_headers`: names and values in bytes, one character each. */
    readonly raw?: Readonly<Record<string, string>>;
  };
}

export function checkOf({ leaf, listener, http }: Asked): MessageInitShape<typeof CheckRequestSchema> {
  const { raw, ...said } = http ?? {};
  const headerMap = raw && { headers: Object.entries(raw).map(([key, value]) => ({ key, rawValue: Buffer.from(value, 'latin1') })) };
  return {
    attributes: {
      source: { certificate: leaf === undefined ? '' : asEnvoySays(leaf) },
      request: { ...(http && { http: { method: 'GET', path: '/', host: 'app', ...said, ...(headerMap && { headerMap }) } }) },
      contextExtensions: listener === undefined ? {} : { listener },
    },
  };
}

export function encodeCheck(check: MessageInitShape<typeof CheckRequestSchema>): Buffer {
  return Buffer.from(toBinary(CheckRequestSchema, create(CheckRequestSchema, check)));
}

export interface Checked {
  readonly response?: CheckResponse;
  readonly error?: ServiceError;
}

/** One call: the response, or the status of gRPC. */
export function callCheck(client: Client, bytes: Buffer, metadata: Readonly<Record<string, string>> = {}): Promise<Checked> {
  const sent = new Metadata();
  for (const [key, value] of Object.entries(metadata)) sent.set(key, value);
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      PATH,
      (message: Buffer) => message,
      (answer: Buffer) => fromBinary(CheckResponseSchema, answer),
      bytes,
      sent,
      (error, response) => resolve({ ...(error !== null && { error }), ...(response !== undefined && { response }) }),
    );
  });
}

/** What a check comes to in one line: `OK`, or the codes of gRPC and HTTP and the words for the caller. */
export function sayChecked({ response, error }: Checked): string {
  if (error !== undefined) return `gRPC ${error.code}`;
  const { status, httpResponse } = response ?? {};
  if (httpResponse?.case === 'okResponse') return status?.code === 0 ? 'OK' : `OK with ${status?.code}`;
  if (httpResponse?.case !== 'deniedResponse') return 'nothing';
  return `${status?.code} ${httpResponse.value.status?.code} ${httpResponse.value.body.trim()}`;
}

export async function ask(client: Client, asked: Asked, metadata?: Readonly<Record<string, string>>): Promise<string> {
  return sayChecked(await callCheck(client, encodeCheck(checkOf(asked)), metadata));
}
