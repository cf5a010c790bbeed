import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { WorkloadApiError } from './errors.ts';

const withStatus = (code: number, message = 'refused'): Error => Object.assign(new Error(message), { code });

test('a gRPC status becomes its name, and the cause is kept', () => {
  const cause = withStatus(status.UNAVAILABLE, '14 UNAVAILABLE: gone');

  const error = WorkloadApiError.from(cause, 'FetchX509SVID');

  assert.equal(error.endCode, 'UNAVAILABLE');
  assert.equal(error.code, 'ERR_WORKLOAD_API');
  assert.equal(error.message, 'FetchX509SVID: 14 UNAVAILABLE: gone');
  assert.equal(error.cause, cause);
});

test('whatever has no gRPC status is a failure of the transport', () => {
  for (const thrown of [new Error('reset'), withStatus(99), Object.assign(new Error('x'), { code: 'ECONNRESET' }), 'text', undefined]) {
    assert.equal(WorkloadApiError.from(thrown, 'FetchX509SVID').endCode, 'TRANSPORT');
  }
});

test('a WorkloadApiError stays what it is', () => {
  const error = new WorkloadApiError('replaced', { endCode: 'SOCKET_REPLACED' });

  assert.equal(WorkloadApiError.from(error, 'FetchX509SVID'), error);
});

test('only PermissionDenied says that there is no identity', () => {
  const meaning = Object.values(status).filter((code): code is status => typeof code === 'number');

  assert.deepEqual(
    meaning.filter((code) => WorkloadApiError.from(withStatus(code), 'm').meansNoIdentity()),
    [status.PERMISSION_DENIED],
  );
});

test('asking again soon is pointless after InvalidArgument and Unimplemented alone', () => {
  const meaning = Object.values(status).filter((code): code is status => typeof code === 'number');

  assert.deepEqual(
    meaning.filter((code) => !WorkloadApiError.from(withStatus(code), 'm').shouldRetry()),
    [status.INVALID_ARGUMENT, status.UNIMPLEMENTED],
  );
});

test('what the agent writes into a status is kept short and on one line', () => {
  const { message } = WorkloadApiError.from(withStatus(status.UNKNOWN, `a\n{"level":"forged"}\u001b[2J${'x'.repeat(10_000)}`), 'm');

  assert.match(message, /^m: a \{"level":"forged"\} \[2Jx+…$/);
  assert.ok(message.length < 600);
});
