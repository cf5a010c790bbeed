/** Connections of `protocol: http` that are to be judged again and have not had their turn yet. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { systemClock, type Clock } from '../../../src/lib/clock.ts';
import { API, presented, startInbound, WEB } from '../../support/data-path.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication } from '../../support/http/http-stage.ts';
import {
  DATA,
  END_HEADERS,
  frame,
  GET,
  headers,
  HEADERS,
  PREFACE,
  settings,
  uint32,
  WINDOW_UPDATE,
  type Field,
} from '../../support/http/http2-frames.ts';
import { HTTP2_KINDS } from '../../support/http/http2-kinds.ts';
import { startFrames } from '../../support/http/http2-stage.ts';
import type { LogLine } from '../../support/sidecar.ts';
import { startTcpServer } from '../../support/tcp.ts';
import { tlsClient } from '../../support/tls-peer.ts';

const CONNECTIONS = 100;

/** Once it is `slow`, each look at it takes so long that one connection has a turn. */
function turnClock(): { readonly clock: Clock; slow: boolean } {
  let aheadMs = 0;
  const it = {
    slow: false,
    clock: {
      ...systemClock,
      monotonic: () => systemClock.monotonic() + (it.slow ? (aheadMs += 10) : aheadMs),
    },
  };
  return it;
}

const SNAPSHOTS = [
  ['its peer lost its authority', (spiffe: DevDomain) => spiffe.retireRoots('example.org'), 'authority_removed'],
  ['our identity was withdrawn', (spiffe: DevDomain) => spiffe.withdraw('api'), 'identity_withdrawn'],
] as const;

for (const [what, change, reason] of SNAPSHOTS)
  test(`a request that comes after ${what} is not forwarded, though many others are judged first`, async (t) => {
    const time = turnClock();
    const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB], api: [API] } });
    let forwarded = 0;
    const application = await startHttpApplication(t, (_, response) => {
      forwarded += 1;
      response.end('!');
    });
    const { sidecar, address } = await startInbound(t, application.address, {
      spiffe,
      listener: { protocol: 'http' },
      sidecar: { clock: time.clock },
    });
    const web = presented(await spiffe.issue(WEB));
    const sockets: TLSSocket[] = [];
    for (let made = 0; made < CONNECTIONS; made++) {
      const socket = tlsClient(t, address, web);
      socket.on('error', () => undefined);
      socket.write('GET / HTTP/1.1\r\nHost: api\r\n\r\n');
      await once(socket, 'data');
      sockets.push(socket);
    }
    const identities = (): readonly LogLine[] => sidecar.log().filter(({ message }) => message.startsWith('identity '));
    const svids = (): string => JSON.stringify(identities().at(-1)?.['svids']);
    const before = svids();
    await spiffe.rotateRoot('example.org');
    // The new authority comes first, and an SVID of it with another update.
    await eventually(() => assert.notEqual(svids(), before));
    const updates = identities().length;
    forwarded = 0;
    time.slow = true;

    const changed = change(spiffe);
    // What waits for its turn is found in it.
    while (identities().length === updates) await nextTurn();
    for (const socket of sockets) socket.write('GET /after HTTP/1.1\r\nHost: api\r\n\r\n');
    await changed;

    await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_close_total', { listener: 'in', reason }), CONNECTIONS));
    assert.equal(forwarded, 0);
  });

for (const kind of HTTP2_KINDS)
  test(`of a response that waits for the window of a peer, nothing is sent once that is denied, before ${kind.application}`, async (t) => {
    const application = await kind.startHttpApplication(t, (_, response) => void response.end('secret'));
    const stage = await kind.startInbound(t, application.address);
    // SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, section 6.5.2).
    const line = await startFrames(stage, settings([4, 0]), headers(1, GET));
    await line.until(({ type, stream }) => type === HEADERS && stream === 1);
    // The body came from the application with the fields. To h2c, the window is the application's to heed.

    await stage.sidecar.reload(stage.with({ protocol: 'http', allow: [API] }));
    line.send(frame(WINDOW_UPDATE, 0, 1, uint32(100)));
    await line.over();

    assert.equal(line.stream(1).body, '');
    assert.equal((await stage.sidecar.connection())['close_reason'], 'policy');
  });

for (const kind of HTTP2_KINDS)
  test(`nor of one to a request that is denied, while its peer may ask for something else still, before ${kind.application}`, async (t) => {
    const application = await kind.startHttpApplication(t, (_, response) => void response.end('secret'));
    const stage = await kind.startInbound(t, application.address);
    const line = await startFrames(stage, settings([4, 0]), headers(1, GET));
    await line.until(({ type, stream }) => type === HEADERS && stream === 1);
    // The body came from the application with the fields. To h2c, the window is the application's to heed.

    await stage.sidecar.reload(stage.with({ protocol: 'http', allow: [{ peer: WEB, paths: ['/other'] }] }));
    line.send(frame(WINDOW_UPDATE, 0, 1, uint32(100)));
    const { body, reset } = await line.streamOver(1);

    assert.deepEqual([body, reset !== undefined], ['', true]);
    const other = GET.map(([name, value]): Field => [name, name === ':path' ? '/other' : value]);
    line.send(settings([4, 65_535]), headers(3, other));
    assert.equal((await line.streamOver(3)).body, 'secret');
  });

const UPGRADE = 'GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
const SWITCHED = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
const POST = 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n';
const POST_HEAD: readonly Field[] = [[':method', 'POST'], ...GET.slice(1)];
/** A body that is too slow is answered, and on a busy machine this one is: nothing but the policy is to end it. */
const HTTP = { protocol: 'http', http: { minBodyRate: 'off', responseTimeout: 'off' } };
/** How something gets under way, before which the peer says nothing more than that. */
const UNDER_WAY = [
  ['bytes of TCP', { protocol: 'tcp' }, undefined, '!', '?'],
  ['an upload', HTTP, undefined, POST, '?'],
  ['a WebSocket', HTTP, undefined, UPGRADE, '?'],
  [
    'an upload over HTTP/2',
    HTTP,
    'h2',
    Buffer.concat([PREFACE, settings(), headers(1, POST_HEAD, END_HEADERS)]),
    frame(DATA, 0, 1, Buffer.from('?')),
  ],
] as const;

for (const [what, listener, alpn, first, next] of UNDER_WAY) {
  test(`of ${what} nothing passes in either direction once the peer is denied, though many others are judged first`, async (t) => {
    const time = turnClock();
    const open: Socket[] = [];
    let passed = 0;
    let came = 0;
    const { address: to } = await startTcpServer(t, (socket) => {
      socket.once('data', () => {
        if (what === 'a WebSocket') socket.write(SWITCHED);
        open.push(socket);
        socket.on('data', (chunk: Buffer) => (passed += chunk.length));
      });
      socket.on('error', () => undefined);
    });
    const stage = await startInbound(t, to, { listener, sidecar: { clock: time.clock } });
    const sockets: TLSSocket[] = [];
    for (let made = 0; made < CONNECTIONS; made++) {
      const socket = await stage.connect(alpn && { ALPNProtocols: [alpn] });
      // Frames of HTTP/2 come without being asked for.
      if (alpn === undefined) socket.on('data', (chunk: Buffer) => (came += chunk.length));
      const switched = what === 'a WebSocket' ? once(socket, 'data') : undefined;
      socket.write(first);
      await eventually(() => assert.equal(open.length, made + 1));
      await switched;
      sockets.push(socket);
    }
    came = 0;
    passed = 0;
    time.slow = true;

    await stage.sidecar.reload(stage.with({ ...listener, allow: [API] }));
    for (const socket of sockets) socket.write(next);
    for (const socket of open) socket.write('answer');

    await eventually(async () =>
      assert.equal(await stage.sidecar.metric('scute_tcp_close_total', { listener: 'in', reason: 'policy' }), CONNECTIONS),
    );
    assert.deepEqual([passed, came], [0, 0]);
  });
}
