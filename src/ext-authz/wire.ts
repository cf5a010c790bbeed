/** Checks from bytes, and answers to bytes. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type AttributeContext_HttpRequest, CheckRequestSchema, CheckResponseSchema } from '../gen/ext_authz_pb.ts';
import { StatusCode } from '../gen/http_status_pb.ts';
import { ownBody } from '../http1/own-answer.ts';
import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { CheckAnswer } from '../telemetry/log/ext-authz-records.ts';
import { chainIn } from './certificates.ts';
import type { Check } from './check.ts';

/** Codes of gRPC. 0, which an empty status would be, is OK: Envoy lets it pass. */
const OK = 0;
const INVALID_ARGUMENT = 3;
const PERMISSION_DENIED = 7;

/** The key that names the listener in `context_extensions`. */
const LISTENER = 'listener';
const XFCC = 'x-forwarded-client-cert';
const PATH = ':path';
const READ = { readUnknownFields: false } as const;

export interface DecodedCheck {
  readonly check: Check;
  /** Of the fields that Envoy shows. */
  readonly fieldNames: readonly string[];
}

/**
 * Decodes a CheckRequest; the error is a sentence. `elsewhere` names the listener if the check does not: the network filter has
 * no `context_extensions`.
 */
export function decodeCheck(bytes: Uint8Array, elsewhere: string | undefined): Result<DecodedCheck, string> {
  try {
    const { attributes } = fromBinary(CheckRequestSchema, bytes, READ);
    const http = attributes?.request?.http;
    const extensions = attributes?.contextExtensions ?? {};
    const named = Object.hasOwn(extensions, LISTENER) ? extensions[LISTENER] : elsewhere;
    const fields = http === undefined ? [] : fieldsOf(http);
    const xfcc = fields.findLast(([name]) => name === XFCC)?.[1] ?? '';
    const bytesOfPath = http?.headerMap?.headers.find(({ key }) => key === PATH)?.rawValue;
    return ok({
      check: {
        certificates: { leaf: attributes?.source?.certificate ?? '', chain: chainIn(xfcc) },
        listener: named === '' ? undefined : named,
        request: http && { method: http.method, target: bytesOfPath === undefined ? http.path : latin1(bytesOfPath), host: http.host },
        hasBytesOfPath: bytesOfPath !== undefined,
      },
      fieldNames: fields.map(([name]) => name),
    });
  } catch (thrown) {
    return err(`not a CheckRequest: ${messageOf(thrown)}`);
  }
}

function fieldsOf({ headers, headerMap }: AttributeContext_HttpRequest): readonly (readonly [string, string])[] {
  const raw = headerMap?.headers ?? [];
  return [...Object.entries(headers), ...raw.map(({ key, rawValue }) => [key.toLowerCase(), latin1(rawValue)] as const)];
}

/** A character a byte. */
function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}

/** A CheckResponse, which always has a status. `removes` are fields that the application must not see. */
export function encodeAnswer(answer: CheckAnswer, removes: readonly string[]): Buffer {
  const response = answer.allowed
    ? create(CheckResponseSchema, {
        status: { code: OK },
        httpResponse: { case: 'okResponse', value: { headersToRemove: [...removes] } },
      })
    : create(CheckResponseSchema, {
        status: { code: answer.reason === 'bad_request' ? INVALID_ARGUMENT : PERMISSION_DENIED, message: answer.reason },
        httpResponse: {
          case: 'deniedResponse',
          value: {
            status: { code: answer.reason === 'bad_request' ? StatusCode.BadRequest : StatusCode.Forbidden },
            body: ownBody(wordsOf(answer)),
          },
        },
      });
  return Buffer.from(toBinary(CheckResponseSchema, response));
}

/** As a listener of ours says it: nothing of it is the caller's words. */
function wordsOf({ reason, peer, detail }: CheckAnswer & { readonly allowed: false }): string {
  return reason === 'bad_request' ? detail : `${reason}: ${peer ?? 'the peer'} may not do this`;
}
