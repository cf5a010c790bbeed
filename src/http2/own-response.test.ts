import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ownResponse } from './own-response.ts';
import { readResponseFields } from './response-fields.ts';

test('an answer of ours is one that we would take from an application, for gRPC without a body', () => {
  for (const status of [400, 401, 403, 408, 413, 431, 502, 503, 504] as const) {
    const plain = ownResponse(status, 'a reason', { isGrpc: false, withBody: true });
    assert.deepEqual([plain.status, plain.body?.toString()], [status, 'scute: a reason\n']);
    const read = readResponseFields(plain.fields, 100);
    assert.ok(typeof read !== 'string');
    assert.deepEqual([read.status, read.announced], [status, plain.body?.length]);
    assert.equal(ownResponse(status, 'a reason', { isGrpc: false, withBody: false }).body, undefined);

    const grpc = ownResponse(status, '100 % sure', { isGrpc: true, withBody: true });
    const fields = new Map(grpc.fields.map(([name, value]) => [name, value]));
    assert.deepEqual(
      [grpc.status, grpc.body, fields.get(':status'), fields.get('content-type')],
      [200, undefined, '200', 'application/grpc'],
    );
    // It is percent-encoded (gRPC over HTTP/2, "Responses").
    assert.equal(fields.get('grpc-message'), 'scute: 100 %25 sure');
    assert.match(fields.get('grpc-status') ?? '', /^(?:4|7|8|13|14|16)$/);
    assert.ok(typeof readResponseFields(grpc.fields, 100) !== 'string');
  }
});
