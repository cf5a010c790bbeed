/** Scute's own answers over HTTP/2: for people, and for gRPC (its protocol over HTTP/2, "Trailers-Only"). Pure. */
import { ownBody, type OwnStatus } from '../http1/own-answer.ts';
import type { HpackField } from './hpack/field.ts';

/** Of gRPC: INTERNAL, UNAUTHENTICATED, PERMISSION_DENIED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED and UNAVAILABLE. */
const GRPC_STATUS: Readonly<Record<OwnStatus, number>> = {
  400: 13,
  401: 16,
  403: 7,
  408: 4,
  413: 8,
  431: 8,
  501: 12,
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

/** Of an answer, what only some have. */
export interface OwnMore {
  /** The value of `WWW-Authenticate` (RFC 9110, section 11.6.1). */
  readonly challenge?: string | undefined;
  /** In how many seconds the same may be asked again (section 10.2.3). */
  readonly retryAfterS?: number | undefined;
  /** A rule refuses the request, whatever the status says: nobody should repeat it. */
  readonly isDenial?: boolean;
}

/** `withBody` is false for HEAD. The detail is printable ASCII of ours, never what a client or an application sent. */
export function ownResponse(
  status: OwnStatus,
  detail: string,
  { isGrpc, withBody, challenge, retryAfterS, isDenial = false }: OwnMore & { readonly isGrpc: boolean; readonly withBody: boolean },
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
  ];
  if (retryAfterS !== undefined) fields.push(['retry-after', String(retryAfterS)]);
  if (challenge !== undefined) fields.push(['www-authenticate', challenge]);
  return { status, fields, body: withBody ? body : undefined };
}
