/** What becomes of open connections of `protocol: http` when what let them in changes: each key, each value, over HTTP/1.1 and HTTP/2. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2, constants, type ClientHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { eventually } from '../../support/eventually.ts';
import { startRawApplication, wire, type Wire } from '../../support/http/http-stage.ts';
import { HTTP2_KINDS, type Http2Kind } from '../../support/http/http2-kinds.ts';
import { answerOn } from '../../support/http/http2-stage.ts';
import { CHANGES, DRAIN_MS, startLive, type Direction, type LiveChange, type LiveStage } from '../../support/policy/live-changes.ts';
import { closed } from '../../support/tcp.ts';
import { tlsClient } from '../../support/tls-peer.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const LAST = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok';
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';
const SLOW = 'GET /slow HTTP/1.1\r\nHost: a\r\n\r\n';
const UPGRADE = 'GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
const SWITCHED = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';

/** A server that answers each request, one for `/slow` when it is told to, and then says back what comes after an upgrade. */
async function start(t: TestContext, direction: Direction, listener: object, change?: LiveChange) {
  const waiting: Socket[] = [];
  let asked = 0;
  let connections = 0;
  let isSwitched = false;
  const answer = (received: string, socket: Socket): string | undefined => {
    if (isSwitched) return 'echo';
    if (!received.endsWith('\r\n\r\n')) return undefined;
    asked++;
    if (received.includes('Upgrade: websocket')) {
      isSwitched = true;
      return SWITCHED;
    }
    if (!received.slice(received.lastIndexOf('GET ')).startsWith('GET /slow')) return OK;
    waiting.push(socket);
    return undefined;
  };
  const application = await startRawApplication(t, answer);
  const stage = await startLive(t, {
    direction,
    change,
    listener: { protocol: 'http', http: { responseTimeout: 'off', minBodyRate: 'off', upstreamIdleTimeout: 'off' }, ...listener },
    application: application.address,
    server(socket) {
      let own = '';
      connections++;
      socket.on('data', (chunk: Buffer) => {
        own += chunk.toString('latin1');
        const said = answer(own, socket);
        if (said === undefined) return;
        own = '';
        socket.write(said);
      });
      socket.on('end', () => socket.end());
    },
  });
  return {
    stage,
    asked: () => asked,
    /** Outbound, to the server. */
    connections: () => connections,
    release: () => {
      for (const socket of waiting.splice(0)) socket.write(OK);
    },
    /** A connection on which `bytes` were said. */
    say: async (bytes: string): Promise<Wire> => {
      const line = wire(await stage.connect());
      line.socket.write(bytes);
      return line;
    },
  };
}

/** As `start`, inbound, before an application that speaks as `kind` says. */
async function startHttp2(t: TestContext, { speaks, startHttpApplication }: Http2Kind, listener: object, change: LiveChange) {
  const waiting: (() => void)[] = [];
  let asked = 0;
  const { address } = await startHttpApplication(t, ({ url }, response) => {
    asked++;
    if (url === '/slow') waiting.push(() => response.end('ok'));
    else response.end('ok');
  });
  const http = { application: speaks, responseTimeout: 'off', minBodyRate: 'off', upstreamIdleTimeout: 'off' };
  const stage = await startLive(t, {
    direction: 'inbound',
    change,
    listener: { protocol: 'http', http, ...listener },
    application: address,
    server: () => undefined,
  });
  return {
    stage,
    asked: () => asked,
    release: () => {
      for (const answer of waiting.splice(0)) answer();
    },
  };
}

async function reasonOf({ sidecar }: LiveStage): Promise<unknown> {
  return (await sidecar.connection())['close_reason'];
}

function drained({ sidecar }: LiveStage, reason: string): Promise<number> {
  return sidecar.metric('scute_connections_drained_total', { reason });
}

async function http2(t: TestContext, stage: LiveStage): Promise<{ client: ClientHttp2Session; goaway: () => number | undefined }> {
  const socket = tlsClient(t, stage.address, stage.peer, { ALPNProtocols: ['h2'] });
  await once(socket, 'secureConnect');
  const client = connectHttp2('https://api', { createConnection: () => socket });
  client.on('error', () => undefined);
  t.after(() => client.destroy());
  let goaway: number | undefined;
  client.on('goaway', (code) => (goaway = code));
  return { client, goaway: () => goaway };
}

for (const change of CHANGES) {
  const { key, reason, keep, shutsOut, happens } = change;

  test(`inbound, ${key}: close cuts a request that is under way, and ends a connection without one in order`, async (t) => {
    const { stage, asked, say } = await start(t, 'inbound', { [key]: 'close' }, change);
    const idle = await say(GET);
    await idle.until('ok');
    const line = await say(SLOW);
    await eventually(() => assert.equal(asked(), 2));

    await happens(stage);

    assert.deepEqual(await line.over(), { text: '', error: 'ECONNRESET' });
    assert.deepEqual(await idle.over(), { text: OK, error: undefined });
    await eventually(async () => assert.equal(await drained(stage, reason), 2));
  });

  test(`inbound, ${key}: drain answers the request that is under way, and that is the last of its connection`, async (t) => {
    const { stage, asked, release, say } = await start(t, 'inbound', { [key]: 'drain' }, change);
    // What is asked for behind it is not.
    const line = await say(SLOW + GET);
    await eventually(() => assert.equal(asked(), 1));

    await happens(stage);
    release();

    assert.deepEqual(await line.over(), { text: LAST, error: undefined });
    assert.equal(asked(), 1);
    assert.equal(await reasonOf(stage), reason);
    assert.equal(await drained(stage, reason), 1);
  });

  const lasts = shutsOut ? 'is cut when drainTimeout is over' : 'may take as long as it likes';

  test(`inbound, ${key}: with drain, a request that is under way ${lasts}`, async (t) => {
    const { stage, asked, release, say } = await start(t, 'inbound', { [key]: 'drain' }, change);
    const line = await say(SLOW);
    await eventually(() => assert.equal(asked(), 1));

    await happens(stage);
    stage.clock.advance(DRAIN_MS - 5000);
    await nextTurn();
    assert.equal(await stage.sidecar.metric('scute_tcp_open_connections'), 1);
    stage.clock.advance(6000);

    if (!shutsOut) {
      stage.clock.advance(3 * DRAIN_MS);
      release();
      assert.deepEqual(await line.over(), { text: LAST, error: undefined });
      assert.equal(await reasonOf(stage), reason);
      return;
    }
    assert.deepEqual(await line.over(), { text: '', error: 'ECONNRESET' });
    assert.match(String((await stage.sidecar.connection())['detail']), /; still open when drainTimeout was over$/);
    assert.equal(await reasonOf(stage), reason);
  });

  test(`inbound, ${key}: drain ends a connection without a request ${shutsOut ? 'at once' : 'with the next one, or soon'}`, async (t) => {
    const { stage, asked, say } = await start(t, 'inbound', { [key]: 'drain' }, change);
    const [asks, rests, begins] = [await say(GET), await say(GET), await say(GET)];
    for (const line of [asks, rests, begins]) await line.until('ok');
    // A head has no hour to come in.
    if (shutsOut) begins.socket.write(GET.slice(0, 10));
    const said = 3 * GET.length + (shutsOut ? 10 : 0);
    await eventually(async () => assert.equal(await stage.sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' }), said));

    await happens(stage);

    if (shutsOut) {
      for (const line of [asks, rests, begins]) assert.deepEqual(await line.over(), { text: OK, error: undefined });
      assert.equal(asked(), 3);
    } else {
      asks.socket.write(GET);
      begins.socket.write(GET.slice(0, 10));
      await nextTurn();
      begins.socket.write(GET.slice(10));
      for (const line of [asks, begins]) assert.deepEqual(await line.over(), { text: OK + LAST, error: undefined });
      stage.clock.advance(6000);
      assert.deepEqual(await rests.over(), { text: OK, error: undefined });
    }
    await eventually(async () => assert.equal(await drained(stage, reason), 3));
  });

  test(`inbound, ${key}: ${keep} lets a request go on${key === 'onPolicyChange' ? ', and the policy judges the next one' : ', and the next one'}`, async (t) => {
    const { stage, asked, release, say } = await start(t, 'inbound', { [key]: keep }, change);
    const line = await say(SLOW);
    await eventually(() => assert.equal(asked(), 1));

    await happens(stage);
    stage.clock.advance(3 * DRAIN_MS);
    release();
    await line.until('ok');
    line.socket.write(GET);

    if (key === 'onPolicyChange') await line.until(/ok.* 403 [\s\S]*Connection: close/s);
    else await eventually(() => assert.equal(line.text(), OK + OK));
  });

  test(`inbound, ${key}: with drain, what was upgraded goes on, and ${lasts}`, async (t) => {
    const { stage, say } = await start(t, 'inbound', { [key]: 'drain' }, change);
    const line = await say(UPGRADE);
    await line.until('101');

    await happens(stage);
    stage.clock.advance(DRAIN_MS - 5000);
    line.socket.write('hello');
    await line.until('echo');
    stage.clock.advance(6000);

    if (!shutsOut) {
      stage.clock.advance(3 * DRAIN_MS);
      line.socket.write('hello');
      await line.until('echoecho');
      return;
    }
    assert.equal((await line.over()).error, 'ECONNRESET');
    assert.equal(await reasonOf(stage), reason);
  });

  for (const kind of HTTP2_KINDS) {
    test(`inbound over HTTP/2 before ${kind.application}, ${key}: close cuts what is under way, and ends a connection without a request in order`, async (t) => {
      const { stage, asked } = await startHttp2(t, kind, { [key]: 'close' }, change);
      const [busy, idle] = [await http2(t, stage), await http2(t, stage)];
      assert.equal((await answerOn(idle.client.request({ ':path': '/' }))).status, 200);
      const cut = answerOn(busy.client.request({ ':path': '/slow' }));
      await eventually(() => assert.equal(asked(), 2));
      const ended = once(idle.client, 'close');

      await happens(stage);

      assert.notEqual((await cut).reset, undefined);
      await ended;
      assert.equal(idle.goaway(), constants.NGHTTP2_NO_ERROR);
      await eventually(async () => assert.equal(await drained(stage, reason), 2));
    });

    test(`inbound over HTTP/2 before ${kind.application}, ${key}: drain says so, answers what is under way, takes nothing new, and ends`, async (t) => {
      const { stage, asked, release } = await startHttp2(t, kind, { [key]: 'drain' }, change);
      const { client, goaway } = await http2(t, stage);
      const answers = [1, 2].map(() => answerOn(client.request({ ':path': '/slow' })));
      await eventually(() => assert.equal(asked(), 2));
      const ended = once(client, 'close');

      await happens(stage);
      await eventually(() => assert.equal(goaway(), constants.NGHTTP2_NO_ERROR));
      release();

      for (const { status, reset } of await Promise.all(answers)) assert.deepEqual([status, reset], [200, undefined]);
      await ended;
      assert.equal(await reasonOf(stage), reason);
      assert.equal(await drained(stage, reason), 1);
    });

    test(`inbound over HTTP/2 before ${kind.application}, ${key}: with drain, a request that is under way ${lasts}`, async (t) => {
      const { stage, asked, release } = await startHttp2(t, kind, { [key]: 'drain' }, change);
      const { client } = await http2(t, stage);
      const answer = answerOn(client.request({ ':path': '/slow' }));
      await eventually(() => assert.equal(asked(), 1));

      await happens(stage);
      stage.clock.advance(DRAIN_MS + 1000);

      if (!shutsOut) {
        stage.clock.advance(3 * DRAIN_MS);
        release();
        assert.equal((await answer).status, 200);
        assert.equal(await reasonOf(stage), reason);
        return;
      }
      assert.notEqual((await answer).reset, undefined);
      stage.clock.advance(2000);
      assert.equal(await reasonOf(stage), reason);
    });

    test(`inbound over HTTP/2 before ${kind.application}, ${key}: ${keep} lets a request go on`, async (t) => {
      const { stage, asked, release } = await startHttp2(t, kind, { [key]: keep }, change);
      const { client, goaway } = await http2(t, stage);
      const answer = answerOn(client.request({ ':path': '/slow' }));
      await eventually(() => assert.equal(asked(), 1));

      await happens(stage);
      stage.clock.advance(3 * DRAIN_MS);
      release();

      assert.equal((await answer).status, 200);
      assert.equal(goaway(), undefined);
      const next = await answerOn(client.request({ ':path': '/' }));
      assert.equal(next.status, key === 'onPolicyChange' ? 403 : 200);
    });
  }

  test(`outbound, ${key}: close cuts a request that is under way, and between requests ends the server's connection alone`, async (t) => {
    const { stage, asked, say } = await start(t, 'outbound', { [key]: 'close' }, change);
    const idle = await say(GET);
    await idle.until('ok');
    const line = await say(SLOW);
    await eventually(() => assert.equal(asked(), 2));

    await happens(stage);

    assert.deepEqual(await line.over(), { text: '', error: 'ECONNRESET' });
    assert.equal(await drained(stage, reason), 2);
    assert.equal(await stage.sidecar.metric('scute_tcp_open_connections'), 1);
    assert.deepEqual(dismissals(stage), [reason]);
  });

  test(`outbound, ${key}: drain lets the server answer, and the next request goes over another connection, if to anybody`, async (t) => {
    const { stage, asked, connections, release, say } = await start(t, 'outbound', { [key]: 'drain' }, change);
    const [line, idle] = [await say(SLOW), await say(GET)];
    await idle.until('ok');
    await eventually(() => assert.equal(asked(), 2));
    assert.equal(connections(), 2);

    await happens(stage);
    release();
    await line.until('ok');

    assert.equal(line.text(), OK);
    assert.deepEqual(dismissals(stage), [reason, reason]);
    assert.equal(await drained(stage, reason), 2);
    line.socket.write(GET);
    // By our clock nobody has anything valid to show any more.
    await line.until(/ok.* 50[23] /s);
    assert.equal(asked(), 2);
  });

  test(`outbound, ${key}: with drain, a request that is under way ${lasts}${shutsOut ? ", and its application's connection" : ''}`, async (t) => {
    const { stage, asked, release, say } = await start(t, 'outbound', { [key]: 'drain' }, change);
    const line = await say(SLOW);
    await eventually(() => assert.equal(asked(), 1));

    await happens(stage);
    stage.clock.advance(DRAIN_MS + 1000);

    if (!shutsOut) {
      stage.clock.advance(3 * DRAIN_MS);
      release();
      await line.until('ok');
      assert.equal(line.text(), OK);
      return;
    }
    assert.deepEqual(await line.over(), { text: '', error: 'ECONNRESET' });
    assert.equal(await reasonOf(stage), reason);
    assert.equal(await drained(stage, reason), 1);
  });

  test(`outbound, ${key}: ${keep} lets the server answer${key === 'onPolicyChange' ? '' : ', and the next request too'}`, async (t) => {
    const { stage, asked, connections, release, say } = await start(t, 'outbound', { [key]: keep }, change);
    const line = await say(SLOW);
    await eventually(() => assert.equal(asked(), 1));

    await happens(stage);
    stage.clock.advance(3 * DRAIN_MS);
    release();
    await line.until('ok');
    line.socket.write(GET);

    if (key === 'onPolicyChange') await line.until(/ok.* 502 /s);
    else await eventually(() => assert.equal(line.text(), OK + OK));
    assert.equal(connections(), 1);
    assert.deepEqual(dismissals(stage), []);
  });
}

/** Why connections to servers ended while the applications' went on. */
function dismissals({ sidecar }: LiveStage): unknown[] {
  return sidecar
    .log()
    .filter(({ message }) => message === 'connection to the server ended')
    .map((line) => line['reason']);
}

const WEB = 'spiffe://example.org/web';
const LIMITED = { allow: [{ peer: WEB, paths: ['/', '/slow'] }] };
const LESS = { allow: [{ peer: WEB, paths: ['/'] }] };

test('a request that is denied now, of a peer that may still make others, ends by itself while its connection drains', async (t) => {
  const { stage, asked, release, say } = await start(t, 'inbound', { ...LIMITED, onPolicyChange: 'drain' });
  const line = await say(SLOW);
  const { client, goaway } = await http2(t, stage);
  const answer = answerOn(client.request({ ':path': '/slow' }));
  const other = await say(GET);
  await other.until('ok');
  await eventually(() => assert.equal(asked(), 3));

  await stage.reload(LESS);
  release();

  assert.deepEqual(await line.over(), { text: LAST, error: undefined });
  assert.equal((await answer).status, 200);
  await eventually(() => assert.equal(goaway(), constants.NGHTTP2_NO_ERROR));
  other.socket.write(GET);
  await eventually(() => assert.equal(other.text(), OK + OK));
});

test('a request that is denied now, of a peer that may still make others, is cut with close, and over HTTP/2 no other', async (t) => {
  const { stage, asked, release } = await start(t, 'inbound', { ...LIMITED, allow: [{ peer: WEB, paths: ['/', '/slow', '/slow/more'] }] });
  const { client, goaway } = await http2(t, stage);
  const [cut, goesOn] = ['/slow/more', '/slow'].map((path) => answerOn(client.request({ ':path': path })));
  await eventually(() => assert.equal(asked(), 2));

  await stage.reload(LIMITED);
  release();

  assert.notEqual((await cut)?.reset, undefined);
  assert.equal((await goesOn)?.status, 200);
  assert.equal(goaway(), undefined);
});

test('who drained because its SVID expired, and may ask once more, is not answered when its authority is gone too', async (t) => {
  const change = CHANGES[2];
  assert.ok(change !== undefined);
  const { stage, asked, say } = await start(t, 'inbound', { onAuthorityRemoved: 'drain' }, change);
  const line = await say(GET);
  await line.until('ok');
  await change.happens(stage);

  await CHANGES[1]?.happens(stage);
  line.socket.write(GET);

  assert.equal((await line.over()).text, OK);
  assert.equal(asked(), 1);
  assert.equal(await reasonOf(stage), 'peer_svid_expired');
});

test('something that closes still closes a connection that drains, and is told', async (t) => {
  const { stage, asked, say } = await start(t, 'inbound', { onPolicyChange: 'drain' });
  const line = await say(SLOW);
  await eventually(() => assert.equal(asked(), 1));
  await CHANGES[0]?.happens(stage);

  const ended = closed(line.socket);
  await stage.spiffe.revoke('example.org', stage.serial);

  assert.equal(await ended, 'ECONNRESET');
  assert.equal(await reasonOf(stage), 'revoked');
});
