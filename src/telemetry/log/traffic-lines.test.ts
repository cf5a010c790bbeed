import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requireSpiffeId } from '../../spiffe/spiffe-id.ts';
import type { ConnectionRecord, RequestRecord } from './records.ts';
import { connectionMembers, requestMembers } from './traffic-lines.ts';

const PEER = requireSpiffeId('spiffe://example.org/web');
const RECORD: RequestRecord = {
  connection: 7,
  peerId: PEER,
  version: '1.1',
  method: 'GET',
  target: '/a/b?secret=1',
  host: 'api.example:8443',
  status: 200,
  result: 'forwarded',
  detail: undefined,
  subject: undefined,
  verdict: { allowed: true, peer: PEER, rule: 'spiffe://example.org/*', audited: undefined },
  bytesFromDownstream: 120,
  bytesToDownstream: 4_294_967_296,
  durationMs: 1.26,
  retries: 0,
};

function parsed(more: Partial<RequestRecord>): Record<string, unknown> {
  const members = requestMembers({ direction: 'inbound', name: 'web' }, { ...RECORD, ...more });
  return JSON.parse(`{${members}}`) as Record<string, unknown>;
}

test('a request is told with its fields in a fixed order, without its query', () => {
  assert.deepEqual(Object.entries(parsed({})), [
    ['direction', 'inbound'],
    ['listener', 'web'],
    ['connection', 7],
    ['peer_id', PEER],
    ['http_version', '1.1'],
    ['method', 'GET'],
    ['path', '/a/b'],
    ['host', 'api.example:8443'],
    ['status', 200],
    ['result', 'forwarded'],
    ['verdict', 'allow'],
    ['rule', 'spiffe://example.org/*'],
    ['bytes_from_downstream', 120],
    ['bytes_to_downstream', 4_294_967_296],
    ['duration_ms', 1.3],
  ]);
});

test('of a request that was sent once more, it is told, and of no other', () => {
  assert.equal(parsed({ retries: 1 })['retries'], 1);
  assert.ok(!('retries' in parsed({})));
});

test('a refused request is told with its reason, and one that could not be read without a verdict', () => {
  const refused = parsed({
    verdict: { allowed: false, peer: PEER, reason: 'not_allowed', rule: undefined, detail: '' },
    result: 'denied',
    detail: 'no',
  });
  assert.deepEqual([refused['verdict'], refused['reason'], refused['rule'], refused['detail']], ['deny', 'not_allowed', undefined, 'no']);
  const unread = parsed({ verdict: undefined, peerId: undefined });
  assert.deepEqual([unread['verdict'], unread['peer_id']], ['none', undefined]);
});

test('whatever a caller chooses stays one string of one line', () => {
  const nasty = [
    ...Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte)),
    '"}',
    '\\',
    '\\"',
    '\u2028',
    '\ud800',
    '","level":"error',
  ];
  for (const text of nasty) {
    const line = requestMembers(
      { direction: 'inbound', name: text },
      { ...RECORD, target: `/${text}`, host: text, method: text, detail: text },
    );
    assert.doesNotMatch(line, /[\n\r]/);
    const found = JSON.parse(`{${line}}`) as Record<string, unknown>;
    const path = text === '?' ? '/' : `/${text}`;
    assert.deepEqual([found['listener'], found['path'], found['host'], found['method'], found['detail']], [text, path, text, text, text]);
  }
});

test('long paths and hosts are cut, and secrets in them are not told', () => {
  const token = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl';
  const long = parsed({ target: `/${'p'.repeat(5000)}`, host: 'h'.repeat(5000) });
  assert.deepEqual([String(long['path']).length, String(long['host']).length], [1024, 255]);
  const secret = parsed({ target: `/login/${token}/x`, host: token, detail: `-----BEGIN PRIVATE KEY-----abc` });
  assert.deepEqual([secret['path'], secret['host'], secret['detail']], ['/login/[redacted]/x', '[redacted]', '[redacted]']);
});

test('whatever a stranger had a say in stays one string of a connection line, and secrets in it are not told', () => {
  const record: ConnectionRecord = {
    id: 1,
    downstreamAddress: '[::1]:4000',
    via: undefined,
    upstreamAddress: '',
    peerId: undefined,
    issuerKeyId: undefined,
    serial: undefined,
    tlsVersion: undefined,
    alpn: undefined,
    verdict: 'none',
    reason: 'protocol_error',
    closeReason: 'handshake_failed',
    detail: 'a "name"\nwith \\ and \u2028 and -----BEGIN PRIVATE KEY-----MIGH',
    rule: undefined,
    audited: undefined,
    bytesFromDownstream: 0,
    bytesToDownstream: 0,
    durationMs: 0.04,
    handshakeMs: undefined,
  };

  const line = connectionMembers({ direction: 'inbound', name: 'web' }, record);

  assert.doesNotMatch(line, /\n/);
  const found = JSON.parse(`{${line}}`) as Record<string, unknown>;
  assert.equal(found['detail'], 'a "name"\nwith \\ and \u2028 and [redacted]');
  assert.deepEqual([found['duration_ms'], 'handshake_ms' in found, 'peer_id' in found], [0, false, false]);
});
