/** Scute's own answers over HTTP/2: for people, and for gRPC (its protocol over HTTP/2, "Trailers-Only"). Pure. */
import { ownBody, type OwnStatus } from '../http1/own-answer.ts';
import type { HpackField } from './hpack/field.ts';

/** Of gRPC: PERMISSION_DENIED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL and UNAVAILABLE. */
const GRPC_STATUS: Readonly<Record<OwnStatus, number>> = {
  400: 13,
  403: 7,
  408: 4,
  413: 8,
  431: 8,
  502: 14,
  503: 14,
  504: 4,
};

export interface OwnResponse {
  /** What is sent as `:status`. */
  readonly status: number;
  readonly fields: readonly HpackField[];
  /** Undefined: the fields are all of it. */
  readonly body: Buffer | undefined;
}

export interface OwnMore {
  /** In how many seconds the same may be asked again (RFC 9110, section 10.2.3). */
  readonly retryAfterS?: number | undefined;
  /** A rule refuses the request, whatever the status says: nobody should repeat it. */
  readonly isDenial?: boolean;
}

/** `withBody` is false for HEAD. The detail is printable ASCII of ours, never what a client or an application sent. */
export function ownResponse(
  status: OwnStatus,
  detail: string,
  isGrpc: boolean,
  withBody: boolean,
  { retryAfterS, isDenial = false }: OwnMore = {},
): OwnResponse {
  if (isGrpc) {
    const fields: HpackField[] = [
      [':status', '200'],
      ['content-type', 'application/grpc'],
      ['grpc-status', String(GRPC_STATUS[isDenial ? 403 : status])],
      ['grpc-message', `scute: ${detail.replaceAll('%', '%25')}`],
    ];
    return { status: 200, fields, body: undefined };
  }
  const body = Buffer.from(ownBody(detail), 'latin1');
  const fields: HpackField[] = [
    [':status', String(status)],
    ['content-type', 'text/plain; charset=utf-8'],
    ['cache-control', 'no-store'],
    ['content-length', String(body.length)],
    ...(retryAfterS === undefined ? [] : [['retry-after', String(retryAfterS)] as const]),
  ];
  return { status, fields, body: withBody ? body : undefined };
}
