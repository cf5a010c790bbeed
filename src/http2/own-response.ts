/** Scute's own answers over HTTP/2: for people, and for gRPC (its protocol over HTTP/2, "Trailers-Only"). Pure. */
import { ownBody, type OwnStatus } from '../http1/own-answer.ts';
import type { HpackField } from './hpack/field.ts';

/** Of gRPC: INTERNAL, UNAUTHENTICATED, PERMISSION_DENIED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED and UNAVAILABLE. */
const GRPC_STATUS: Readonly<Record<OwnStatus, number>> = {
  400: 13,
  401: 16,
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

/**
 * `withBody` is false for HEAD. `challenge` is the value of `WWW-Authenticate` (RFC 9110, section 11.6.1). The detail is printable ASCII of
 * ours, never what a client or an application sent.
 */
export function ownResponse(
  status: OwnStatus,
  detail: string,
  { isGrpc, withBody, challenge }: { readonly isGrpc: boolean; readonly withBody: boolean; readonly challenge?: string | undefined },
): OwnResponse {
  if (isGrpc) {
    const fields: HpackField[] = [
      [':status', '200'],
      ['content-type', 'application/grpc'],
      ['grpc-status', String(GRPC_STATUS[status])],
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
  if (challenge !== undefined) fields.push(['www-authenticate', challenge]);
  return { status, fields, body: withBody ? body : undefined };
}
