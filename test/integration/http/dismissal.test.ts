/** Over HTTP, a connection of a peer that is no longer let in ends in order between requests, and is cut within one. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2, constants } from 'node:http2';
import { test, type TestContext } from 'node:test';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import { presented, startExampleDomain, startPair, WEB, type InboundStage } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { HTTP2_KINDS, type Http2Kind } from '../../support/http/http2-kinds.ts';
import { answerOn } from '../../support/http/http2-stage.ts';
import { send, startHttpApplication, startHttpInbound, startRawApplication, wire } from '../../support/http/http-stage.ts';
import type { Sidecar } from '../../support/sidecar.ts';
import { dial } from '../../support/tcp.ts';
import { tlsClient, type Presented } from '../../support/tls-peer.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';
/** Its type does not know it. */
const HALF_OPEN = { allowHalfOpen: true } as ConnectionOptions;

interface Dismissal {
  readonly reason: string;
  readonly who: Presented;
  readonly serial: Uint8Array;
  readonly stage: InboundStage;
}
/** Each way in which a peer that was let in is let in no longer. */
const WAYS: readonly (readonly [reason: string, cause: (dismissal: Dismissal) => Promise<void>])[] = [
  ['policy', ({ stage }) => stage.sidecar.reload(stage.with({ allow: ['spiffe://example.org/other'] }))],
  ['revoked', ({ stage, serial }) => stage.spiffe.revoke('example.org', serial)],
  [
    'authority_removed',
    async ({ stage }) => {
      await stage.spiffe.rotateRoot('example.org');
      await stage.spiffe.retireRoots('example.org');
    },
  ],
  ['identity_withdrawn', ({ stage }) => stage.spiffe.withdraw('api')],
];

async function start(t: TestContext, reason: string) {
  const application = await startRawApplication(t, (received) =>
    received.includes('/part') ? OK.slice(0, -1) : received.endsWith('\r\n\r\n') ? OK : undefined,
  );
  const stage = await startHttpInbound(t, application.address);
  const svid = await stage.spiffe.issue(WEB);
  return { application, stage, dismissal: { reason, who: presented(svid), serial: svid.serial, stage } };
}

/** As `start`, before an application that speaks as `kind` says. */
async function startHttp2(t: TestContext, kind: Http2Kind, reason: string) {
  let heard = 0;
  const application = await kind.startHttpApplication(t, ({ url }, response) => {
    heard++;
    if (url === '/part') response.write('o');
    else response.end('ok');
  });
  const stage = await kind.startInbound(t, application.address);
  const svid = await stage.spiffe.issue(WEB);
  return { heardOf: () => heard, stage, dismissal: { reason, who: presented(svid), serial: svid.serial, stage } };
}

async function connectedHttp2(t: TestContext, socket: TLSSocket) {
  await once(socket, 'secureConnect');
  const client = connectHttp2('https://api', { createConnection: () => socket });
  client.on('error', () => undefined);
  t.after(() => client.destroy());
  return client;
}

for (const [reason, cause] of WAYS) {
  test(`between requests a connection ends in order, and nothing that it still says is heard: ${reason}`, async (t) => {
    const { application, stage, dismissal } = await start(t, reason);
    const socket = tlsClient(t, stage.address, dismissal.who, HALF_OPEN);
    let text = '';
    let error: Error | undefined;
    socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
    socket.on('error', (cause_) => (error = cause_));
    socket.write(GET);
    await eventually(() => assert.equal(text, OK));
    const heard = application.received();
    const ended = once(socket, 'end');

    await cause(dismissal);
    await ended;
    socket.write(GET.repeat(100));
    const closed = once(socket, 'close');
    socket.end();
    await closed;

    assert.equal(error, undefined);
    assert.equal(text, OK);
    assert.equal(application.received(), heard);
    assert.equal((await stage.sidecar.connection())['close_reason'], reason);
    assert.equal(await stage.sidecar.metric('scute_connections_drained_total', { reason }), 1);
  });

  test(`a request that is under way is cut: ${reason}`, async (t) => {
    const { stage, dismissal } = await start(t, reason);
    const line = wire(tlsClient(t, stage.address, dismissal.who));
    line.socket.write('GET /part HTTP/1.1\r\nHost: a\r\n\r\n');
    await line.until(/o$/);

    await cause(dismissal);

    assert.equal((await line.over()).error, 'ECONNRESET');
    assert.equal((await stage.sidecar.connection())['close_reason'], reason);
  });

  for (const kind of HTTP2_KINDS) {
    test(`over HTTP/2 before ${kind.application}, a connection without requests ends with GOAWAY and in order: ${reason}`, async (t) => {
      const { heardOf, stage, dismissal } = await startHttp2(t, kind, reason);
      const socket = tlsClient(t, stage.address, dismissal.who, { ALPNProtocols: ['h2'] });
      let error: Error | undefined;
      const client = await connectedHttp2(t, socket);
      socket.on('error', (cause_) => (error = cause_));
      assert.equal((await answerOn(client.request({ ':path': '/' }))).status, 200);
      const heard = heardOf();
      let goaway: number | undefined;
      client.on('goaway', (code) => (goaway = code));
      const closed = once(client, 'close');

      await cause(dismissal);
      await closed;

      assert.deepEqual([goaway, error], [constants.NGHTTP2_NO_ERROR, undefined]);
      assert.equal(heardOf(), heard);
      assert.equal((await stage.sidecar.connection())['close_reason'], reason);
    });

    test(`over HTTP/2 before ${kind.application}, requests that are under way are cut: ${reason}`, async (t) => {
      const { stage, dismissal } = await startHttp2(t, kind, reason);
      const client = await connectedHttp2(t, tlsClient(t, stage.address, dismissal.who, { ALPNProtocols: ['h2'] }));
      const stream = client.request({ ':path': '/part' });
      const answer = answerOn(stream);
      await once(stream, 'response');

      await cause(dismissal);

      const { reset } = await answer;
      assert.notEqual(reset, undefined);
      assert.equal((await stage.sidecar.connection())['close_reason'], reason);
    });
  }
}

test('a connection that has said a part of a head, or has been told that it is the last, ends in order too', async (t) => {
  const { stage } = await start(t, 'policy');
  const begun = await send(stage, GET);
  await begun.until('ok');
  begun.socket.write('GET / HTTP/1.1\r\nHo');
  const last = await stage.connect(HALF_OPEN);
  last.on('error', () => undefined).resume();
  last.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  await once(last, 'end');

  await stage.sidecar.reload(stage.with({ allow: [] }));

  assert.deepEqual(await begun.over(), { text: OK, error: undefined });
  // Its time to agree to the end is not the idle time.
  await eventually(async () => assert.equal(await stage.sidecar.metric('scute_tcp_close_total', { reason: 'policy' }), 2));
});

/** Of the SVID that a sidecar presents. */
function heldSerial(sidecar: Sidecar): Buffer {
  const line = sidecar.log().findLast(({ message }) => message === 'identity updated');
  const [svid] = (line?.['svids'] ?? []) as readonly { readonly serial: string }[];
  assert.ok(svid !== undefined);
  return Buffer.from(svid.serial, 'hex');
}

/** What an honest client may be told: that its sidecar's own connection is of a certificate that was revoked just now, if the sweep has not ended that yet. */
const OF_LOAD = /HTTP\/1\.1 200 OK|HTTP\/1\.1 403 Forbidden[^]*?scute: revoked: spiffe:\/\/example\.org\/web may not do this\n/;
const REVOCATIONS = 5;

test('revocations under load fail no honest request, but for one that comes on a revoked connection before it is ended', async (t) => {
  const spiffe = await startExampleDomain(t);
  const application = await startHttpApplication(t, (_, response) => response.end('ok'));
  // On a busy machine nothing of this is to end by a time.
  const HTTP = { protocol: 'http', limits: { handshakeTimeout: '10m' } };
  const { address, inbound, outbound } = await startPair(t, application.address, { spiffe, inbound: HTTP, outbound: HTTP });
  // Another holder of the same ID, whose certificates are the ones that are revoked.
  const direct = inbound.address('in');
  const stop = new AbortController();
  let asked = 0;
  const failures: string[] = [];
  const honest = Array.from({ length: 10 }, async () => {
    const line = wire(await dial(t, address));
    // Each answer is counted as it comes: to read all of them again for each one would take the longer, the more have come.
    let answers = 0;
    let unread = '';
    line.socket.on('data', (chunk: Buffer) => {
      const parts = (unread + chunk.toString('latin1')).split(OF_LOAD);
      answers += parts.length - 1;
      unread = parts.at(-1) ?? '';
    });
    for (let sent = 1; !stop.signal.aborted; sent++) {
      line.socket.write(GET);
      const isAnswered = await eventually(() => {
        if (line.socket.closed || unread.includes('HTTP/1.1 5')) return Promise.resolve(false);
        if (answers < sent) throw new Error('no answer');
        return Promise.resolve(true);
      });
      asked++;
      if (!isAnswered) {
        failures.push(line.text().slice(-300));
        return;
      }
    }
    // Its next request goes over a new connection: it is told so once a revocation at most.
    const told = line.text().split('HTTP/1.1 403').length - 1;
    assert.ok(told <= REVOCATIONS, `${told} requests of one client were refused`);
  });
  for (let round = 0; round < REVOCATIONS; round++) {
    const svids = await Promise.all(Array.from({ length: 4 }, () => spiffe.issue(WEB)));
    const lines = svids.map((svid) => wire(tlsClient(t, direct, presented(svid))));
    for (const line of lines) line.socket.write(GET);
    for (const line of lines) await line.until('ok');
    // What the honest side holds is made anew, and what it held, with which its connections were made, is revoked with the others.
    const held = heldSerial(outbound);
    const before = await outbound.metric('scute_identity_generation');
    await spiffe.rotate();
    await eventually(async () => assert.ok((await outbound.metric('scute_identity_generation')) > before));
    for (const serial of [held, ...svids.map((svid) => svid.serial)]) await spiffe.revoke('example.org', serial);
    for (const line of lines) assert.equal((await line.over()).error, undefined);
    const now = asked;
    await eventually(() => assert.ok(asked > now + 20));
  }
  stop.abort();
  await Promise.all(honest);

  assert.deepEqual(failures, []);
  const revoked = await inbound.metric('scute_tcp_close_total', { reason: 'revoked' });
  assert.ok(revoked >= 40, `of both kinds, ${revoked} connections were ended`);
});
