import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../../test/support/fake-clock.ts';
import { createTestAuthority } from '../../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../../test/support/pki/snapshots.ts';
import type { LogLevel } from '../../config/config.ts';
import { createEvents } from './events.ts';
import { type ConnectionRecord, type ListenerRef } from '../log/records.ts';
import { createLogger } from '../log/logger.ts';
import { createMetrics } from '../metrics/metrics.ts';

const WEB: ListenerRef = { name: 'web', direction: 'inbound' };

async function setUp(level: LogLevel = 'info') {
  const lines: Record<string, unknown>[] = [];
  const clock = new FakeClock();
  const log = await createLogger({
    level,
    format: 'json',
    destination: { write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
  });
  const metrics = createMetrics({ version: '1.2.3' });
  const events = createEvents({ logger: log.logger, metrics, clock });
  const sample = async (series: string): Promise<string | undefined> => {
    const { body } = await metrics.render();
    return body
      .split('\n')
      .find((line) => line.startsWith(`${series} `))
      ?.slice(series.length + 1);
  };
  return { lines, clock, metrics, events, sample };
}

const RECORD: ConnectionRecord = {
  id: 7,
  downstreamAddress: '203.0.113.7:40112',
  via: undefined,
  upstreamAddress: '127.0.0.1:8080',
  peerId: 'spiffe://example.org/client',
  issuerKeyId: 'aa11',
  serial: '0123',
  tlsVersion: 'TLSv1.3',
  alpn: undefined,
  verdict: 'allow',
  reason: 'finished',
  closeReason: 'finished',
  detail: undefined,
  rule: 'spiffe://example.org/*',
  audited: undefined,
  bytesFromDownstream: 10,
  bytesToDownstream: 20,
  durationMs: 12.345,
  handshakeMs: 3.21,
};

test('an ended connection is one line with who, why and how much, and one count under its reason', async () => {
  const { events, lines, sample } = await setUp();

  events.connectionClosed(WEB, RECORD);

  assert.equal(lines.length, 1);
  const { time: _, ...line } = lines[0] ?? {};
  assert.deepEqual(line, {
    level: 'info',
    direction: 'inbound',
    listener: 'web',
    connection: 7,
    downstream_address: '203.0.113.7:40112',
    upstream_address: '127.0.0.1:8080',
    peer_id: 'spiffe://example.org/client',
    issuer_key_id: 'aa11',
    serial: '0123',
    tls_version: 'TLSv1.3',
    verdict: 'allow',
    reason: 'finished',
    close_reason: 'finished',
    rule: 'spiffe://example.org/*',
    bytes_from_downstream: 10,
    bytes_to_downstream: 20,
    duration_ms: 12.3,
    handshake_ms: 3.2,
    message: 'connection closed',
  });
  assert.equal(await sample('scute_tcp_close_total{direction="inbound",listener="web",peer="src",reason="finished"}'), '1');
});

test('the age of connections is that of those that were admitted', async () => {
  const { events, sample } = await setUp();

  events.connectionClosed(WEB, { ...RECORD, durationMs: 90_000 });
  events.connectionClosed(WEB, { ...RECORD, verdict: 'deny', reason: 'not_allowed', closeReason: 'denied', durationMs: 5 });
  events.connectionClosed(WEB, { ...RECORD, verdict: 'none', reason: 'downstream_reset', closeReason: 'downstream_reset', durationMs: 5 });

  const name = 'scute_tcp_connection_duration_seconds';
  assert.equal(await sample(`${name}_count{direction="inbound",listener="web"}`), '1');
  assert.equal(await sample(`${name}_bucket{direction="inbound",listener="web",le="60"}`), '0');
  assert.equal(await sample(`${name}_bucket{direction="inbound",listener="web",le="600"}`), '1');
});

test('a refused connection is told at info with the reason that the metric has', async () => {
  const { events, lines } = await setUp();

  events.connectionClosed(WEB, {
    ...RECORD,
    verdict: 'deny',
    reason: 'not_allowed',
    closeReason: 'denied',
    detail: 'no entry admits it',
    rule: undefined,
    audited: undefined,
  });

  assert.equal(lines[0]?.['level'], 'info');
  assert.equal(lines[0]?.['reason'], 'not_allowed');
  assert.equal(lines[0]?.['detail'], 'no entry admits it');
});

test('a probe that connects and hangs up is told only at debug, but counted', async () => {
  const quiet = await setUp('info');
  const loud = await setUp('debug');

  for (const { events } of [quiet, loud]) {
    events.connectionClosed(WEB, {
      ...RECORD,
      peerId: undefined,
      verdict: 'none',
      reason: 'downstream_reset',
      closeReason: 'downstream_reset',
    });
  }

  assert.equal(quiet.lines.length, 0);
  assert.equal(loud.lines.length, 1);
  assert.equal(await quiet.sample('scute_tcp_close_total{direction="inbound",listener="web",peer="src",reason="downstream_reset"}'), '1');
});

test('an upstream that is down is a warning', async () => {
  const { events, lines } = await setUp();

  events.connectionClosed(WEB, { ...RECORD, reason: 'upstream_refused', closeReason: 'upstream_refused', detail: 'ECONNREFUSED' });

  assert.equal(lines[0]?.['level'], 'warn');
});

test('refused accepts are all counted, and told once, then at most each 5 seconds with their number', async () => {
  const { events, lines, clock, sample } = await setUp();
  const refuse = (times: number): void => {
    for (let n = 0; n < times; n += 1) events.acceptRefused(WEB, 'connection_limit', '1000 connections are open');
  };

  refuse(100);
  assert.deepEqual(
    lines.map(({ count }) => count),
    [1],
  );

  clock.advance(5000);
  assert.deepEqual(
    lines.map(({ count }) => count),
    [1, 99],
  );

  refuse(3);
  clock.advance(5000);
  assert.deepEqual(
    lines.map(({ count }) => count),
    [1, 99, 3],
  );

  clock.advance(60_000);
  refuse(1);
  assert.deepEqual(
    lines.map(({ count }) => count),
    [1, 99, 3, 1],
  );
  assert.equal(await sample('scute_accept_refused_total{direction="inbound",listener="web",reason="connection_limit"}'), '104');
});

test('different reasons are told apart in the log, however often each comes', async () => {
  const { events, lines } = await setUp();

  events.acceptRefused(WEB, 'connection_limit', 'a');
  events.acceptRefused(WEB, 'file_limit', 'b');
  events.acceptRefused(WEB, 'file_limit', 'b');

  assert.deepEqual(
    lines.map(({ reason }) => reason),
    ['connection_limit', 'file_limit'],
  );
});

test('a Workload API that is away is counted each time and told rarely, and no timer is left when it is quiet', async () => {
  const { events, lines, clock, sample } = await setUp();

  events.workloadApiConnected('unix:///run/agent.sock');
  assert.equal(await sample('scute_workload_api_connected'), '1');
  for (let n = 0; n < 10; n += 1) events.workloadApiStreamFailed({ code: 'UNAVAILABLE', message: 'no such socket' }, 100);

  assert.equal(lines.filter(({ message }) => message === 'Workload API stream failed').length, 1);
  assert.equal(await sample('scute_workload_api_connected'), '0');
  assert.equal(await sample('scute_workload_api_errors_total{code="UNAVAILABLE"}'), '10');

  clock.advance(20_000);
  assert.equal(clock.armed, 0);
});

test('verdicts and handshakes are counted by reason and by allow-list entry', async () => {
  const { events, sample } = await setUp();

  events.handshakeFinished(WEB, 'ok', 4);
  events.handshakeFinished(WEB, 'untrusted_chain', 2);
  events.authorised(WEB, 'allow', 'spiffe://example.org/*', undefined);
  events.authorised(WEB, 'allow', 'spiffe://example.org/*', undefined);
  events.authorised(WEB, 'deny', '', undefined);

  assert.equal(await sample('scute_tls_handshakes_total{direction="inbound",listener="web",result="ok",reason="ok"}'), '1');
  assert.equal(await sample('scute_tls_handshakes_total{direction="inbound",listener="web",result="error",reason="untrusted_chain"}'), '1');
  assert.equal(await sample('scute_tls_handshakes_total{direction="inbound",listener="web",result="error",reason="expired"}'), '0');
  assert.equal(await sample('scute_tls_handshake_duration_seconds_count{direction="inbound",listener="web"}'), '2');
  assert.equal(
    await sample(
      'scute_authorization_total{direction="inbound",listener="web",decision="allow",mode="enforce",rule="spiffe://example.org/*"}',
    ),
    '2',
  );
  assert.equal(await sample('scute_authorization_total{direction="inbound",listener="web",decision="deny",mode="enforce",rule=""}'), '1');
});

test('the same listener has the same counters, and what the data path adds is seen at the next scrape', async () => {
  const { events, sample } = await setUp();
  const counters = events.registerListener(WEB);

  counters.opened += 3;
  counters.open += 1;
  counters.downstreamReadBytes += 100;
  counters.upstreamReadBytes += 50;

  assert.equal(events.registerListener({ ...WEB }), counters);
  assert.equal(await sample('scute_tcp_open_total{direction="inbound",listener="web",peer="src"}'), '3');
  assert.equal(await sample('scute_tcp_open_connections{direction="inbound",listener="web",peer="src"}'), '1');
  assert.equal(await sample('scute_tcp_read_bytes_total{direction="inbound",listener="web",peer="src"}'), '100');
  assert.equal(await sample('scute_tcp_read_bytes_total{direction="inbound",listener="web",peer="dst"}'), '50');
});

test('a rotation is a line with each SVID, and a withdrawal a warning with its reason', async () => {
  const { events, lines, sample } = await setUp();
  const authority = createTestAuthority();
  const snapshot = heldSnapshot([svidOf(authority, 'spiffe://example.org/web', { hint: 'internal' })], [authority], 4);

  events.identityUpdated(snapshot);
  events.identityUpdated({ kind: 'none', generation: 5, receivedAtMs: 0, bundles: new Map(), reason: 'no registration entry' });
  events.identityUpdateRejected({ code: 'bad_key', message: 'the key is not that of the certificate' });

  assert.deepEqual(
    lines.map(({ level, message }) => [level, message].join(': ')),
    ['info: identity updated', 'warn: identity withdrawn', 'warn: identity update rejected; the last good one stays in force'],
  );
  assert.deepEqual(lines[0]?.['trust_domains'], ['example.org']);
  assert.match(JSON.stringify(lines[0]?.['svids']), /"spiffe_id":"spiffe:\/\/example\.org\/web","hint":"internal","serial":"[0-9a-f]+"/);
  assert.equal(await sample('scute_identity_generation'), '5');
  assert.equal(await sample('scute_x509_svid_updates_total{result="ok",reason="ok"}'), '1');
  assert.equal(await sample('scute_x509_svid_updates_total{result="ok",reason="no_identity"}'), '1');
  assert.equal(await sample('scute_x509_svid_updates_total{result="rejected",reason="bad_key"}'), '1');
});

test('an identity that was never held is not withdrawn, and authorities that change without one are no withdrawal either', async () => {
  const { events, lines } = await setUp();
  const authority = createTestAuthority();
  const { bundles } = heldSnapshot([svidOf(authority, 'spiffe://example.org/web')], [authority], 9);
  const none = (generation: number) => ({ kind: 'none', generation, receivedAtMs: 0, bundles, reason: 'no registration entry' }) as const;

  for (const generation of [1, 2]) events.identityUpdated(none(generation));
  events.identityUpdated(heldSnapshot([svidOf(authority, 'spiffe://example.org/web')], [authority], 3));
  for (const generation of [4, 5]) events.identityUpdated(none(generation));

  assert.deepEqual(
    lines.map(({ level, message, generation }) => [level, message, generation].join(' ')),
    [
      'warn no identity 1',
      'info trust bundles updated 2',
      'info identity updated 3',
      'warn identity withdrawn 4',
      'info trust bundles updated 5',
    ],
  );
  assert.deepEqual([lines[0]?.['reason'], lines[1]?.['trust_domains']], ['no registration entry', ['example.org']]);
});

test('an application that can be reached around Scute is a warning and a 1, and both go away', async () => {
  const { events, lines, sample } = await setUp();

  events.applicationExposed(WEB, []);
  assert.equal(lines.length, 0);
  assert.equal(await sample('scute_application_exposed{listener="web"}'), '0');

  events.applicationExposed(WEB, ['0.0.0.0:8080']);
  assert.equal(lines[0]?.['level'], 'warn');
  assert.equal(await sample('scute_application_exposed{listener="web"}'), '1');

  events.applicationExposed(WEB, []);
  assert.equal(lines[1]?.['level'], 'info');
  assert.equal(await sample('scute_application_exposed{listener="web"}'), '0');
});
