/** Requests from bytes, and responses to bytes. A response is put together of pieces that are encoded once and shared by all streams. */
import { fromBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import type { Node } from '../gen/core_pb.ts';
import { DeltaDiscoveryRequestSchema, DiscoveryRequestSchema } from '../gen/discovery_pb.ts';
import type { Status } from '../gen/status_pb.ts';
import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { Secret } from './secrets.ts';
import { shorten, type DeltaRequest, type NodeInfo, type SecretResponse, type SotwRequest } from './stream-state.ts';
import { validationForm } from './validation-form.ts';

export const SECRET_TYPE = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

export interface Received<Request> {
  readonly typeUrl: string;
  readonly request: Request;
}

export interface DecodeOptions {
  readonly disableSpiffeCertValidation: boolean;
}

/** A node of Envoy lists a thousand extensions, in fields that we have no use for. */
const READ = { readUnknownFields: false } as const;

/** Decodes a DiscoveryRequest; the error is a sentence. */
export function decodeSotwRequest(bytes: Uint8Array, options: DecodeOptions): Result<Received<SotwRequest>, string> {
  return guarded('a DiscoveryRequest', () => {
    const message = fromBinary(DiscoveryRequestSchema, bytes, READ);
    return {
      typeUrl: message.typeUrl,
      request: {
        node: nodeOf(message.node, options),
        names: message.resourceNames,
        nonce: message.responseNonce,
        error: errorOf(message.errorDetail),
      },
    };
  });
}

/** Decodes a DeltaDiscoveryRequest; the error is a sentence. */
export function decodeDeltaRequest(bytes: Uint8Array, options: DecodeOptions): Result<Received<DeltaRequest>, string> {
  return guarded('a DeltaDiscoveryRequest', () => {
    const message = fromBinary(DeltaDiscoveryRequestSchema, bytes, READ);
    return {
      typeUrl: message.typeUrl,
      request: {
        node: nodeOf(message.node, options),
        subscribe: message.resourceNamesSubscribe,
        unsubscribe: message.resourceNamesUnsubscribe,
        initialVersions: new Map(Object.entries(message.initialResourceVersions)),
        nonce: message.responseNonce,
        error: errorOf(message.errorDetail),
      },
    };
  });
}

function guarded<T>(what: string, decode: () => T): Result<T, string> {
  try {
    return ok(decode());
  } catch (thrown) {
    return err(`not ${what}: ${messageOf(thrown)}`);
  }
}

function nodeOf(node: Node | undefined, { disableSpiffeCertValidation }: DecodeOptions): NodeInfo | undefined {
  if (node === undefined) return undefined;
  return { id: shorten(node.id), userAgent: userAgentOf(node), form: validationForm(node, disableSpiffeCertValidation) };
}

function userAgentOf({ userAgentName, userAgentVersionType: agent }: Node): string {
  const build = agent.case === 'userAgentBuildVersion' ? agent.value.version : undefined;
  const version =
    build === undefined
      ? agent.case === 'userAgentVersion'
        ? agent.value
        : ''
      : `${build.majorNumber}.${build.minorNumber}.${build.patch}`;
  return shorten([userAgentName, version].filter((part) => part !== '').join('/'));
}

/** Of a client's words, as many as anybody would read. */
const MAX_ERROR_LENGTH = 1000;

function errorOf(status: Status | undefined): SotwRequest['error'] {
  return status === undefined ? undefined : { code: status.code, message: shorten(status.message, MAX_ERROR_LENGTH) };
}

const FIELD = { version: 1, resources: 2, typeUrl: 4, nonce: 5, removed: 6 } as const;

/** A DiscoveryResponse. */
export function encodeSotwResponse(response: SecretResponse, typeUrl: string): Buffer {
  return encodeResponse(response, typeUrl, sotwFields);
}

/** A DeltaDiscoveryResponse. */
export function encodeDeltaResponse(response: SecretResponse, typeUrl: string): Buffer {
  return encodeResponse(response, typeUrl, deltaFields);
}

/** Both messages number these fields alike. */
function encodeResponse({ secrets, removed, version, nonce }: SecretResponse, typeUrl: string, fields: FieldCache): Buffer {
  const writer = new BinaryWriter();
  writer.tag(FIELD.version, WireType.LengthDelimited).string(version);
  writer.tag(FIELD.typeUrl, WireType.LengthDelimited).string(typeUrl);
  if (nonce !== '') writer.tag(FIELD.nonce, WireType.LengthDelimited).string(nonce);
  for (const name of removed) writer.tag(FIELD.removed, WireType.LengthDelimited).string(name);
  return Buffer.concat([writer.finish(), ...secrets.map(fields)]);
}

type FieldCache = (secret: Secret) => Uint8Array;

/** The field `resources` of a response with this secret in it. */
const sotwFields = cached((secret) => {
  const any = anyOf(secret);
  return new BinaryWriter().tag(FIELD.resources, WireType.LengthDelimited).bytes(any).finish();
});

const deltaFields = cached((secret) => {
  const resource = new BinaryWriter();
  resource.tag(1, WireType.LengthDelimited).string(secret.version);
  resource.tag(2, WireType.LengthDelimited).bytes(anyOf(secret));
  resource.tag(3, WireType.LengthDelimited).string(secret.name);
  return new BinaryWriter().tag(FIELD.resources, WireType.LengthDelimited).bytes(resource.finish()).finish();
});

function anyOf(secret: Secret): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(1, WireType.LengthDelimited).string(SECRET_TYPE);
  writer.tag(2, WireType.LengthDelimited).bytes(secret.encode());
  return writer.finish();
}

/** Kept as long as the secret is, and no longer. */
function cached(encode: FieldCache): FieldCache {
  const known = new WeakMap<Secret, Uint8Array>();
  return (secret) => {
    const bytes = known.get(secret) ?? encode(secret);
    known.set(secret, bytes);
    return bytes;
  };
}
