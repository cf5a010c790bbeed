import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { API, presented } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import {
  ACK,
  CANCEL,
  frame,
  GET,
  GOAWAY,
  headers,
  INTERNAL_ERROR,
  NO_ERROR,
  PING,
  PREFACE,
  settings,
  uint32,
  WINDOW_UPDATE,
  type Field,
} from '../../support/http/http2-frames.ts';
import { answerOn, request, startClient, startFrames } from '../../support/http/http2-stage.ts';
import { HTTP2_KINDS } from '../../support/http/http2-kinds.ts';
import { closed } from '../../support/tcp.ts';
import { tlsClient } from '../../support/tls-peer.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const LARGE = GET.map(([name, value]): Field => [name, name === ':path' ? '/large' : value]);
const ok = (received: string): string | undefined => (received.endsWith('\r\n\r\n') ? OK : undefined);

for (const { application, startInbound, startHttpApplication, startAnswering } of HTTP2_KINDS) {
  test(`to ${application}: a listener that drains says which requests it took, answers those, and then ends the connection`, async (t) => {
    const held: (() => void)[] = [];
    const behind = await startHttpApplication(t, (_, response) => held.push(() => response.end('late')));
    const stage = await startInbound(t, behind.address);
    const line = await startFrames(stage, headers(1, GET));
    await eventually(() => assert.equal(held.length, 1));

    const stopped = stage.sidecar.stop(AbortSignal.timeout(60_000));
    const goaway = await line.until(({ type }) => type === GOAWAY);
    // Not taken, and the client may send it to somebody else (RFC 9113, section 6.8).
    line.send(headers(3, GET), frame(PING, 0, 0, Buffer.alloc(8)));
    await line.until(({ type, flags }) => type === PING && flags === ACK);
    for (const answer of held) answer();

    assert.deepEqual([goaway.payload.readUInt32BE(0), goaway.payload.readUInt32BE(4)], [1, NO_ERROR]);
    assert.deepEqual([(await line.streamOver(1)).status, line.stream(1).body], [200, 'late']);
    assert.equal(await line.over(), NO_ERROR);
    assert.equal(await stopped, 0);
    assert.equal(held.length, 1);
  });

  test(`to ${application}: a listener that drains gives a client that does not close a moment, and not the whole drain`, async (t) => {
    const clock = new FakeClock();
    const behind = await startAnswering(t, ok);
    const stage = await startInbound(t, behind.address, { sidecar: { clock } });
    const line = await startFrames(stage, headers(1, GET));
    await line.streamOver(1);

    const stopped = stage.sidecar.stop(AbortSignal.timeout(60_000));
    await line.until(({ type }) => type === GOAWAY);
    clock.advance(5000);

    assert.equal(await stopped, 0);
  });

  test(`to ${application}: a listener that drains ends connections without requests at once`, async (t) => {
    const behind = await startAnswering(t, ok);
    const stage = await startInbound(t, behind.address);
    const client = await startClient(t, stage);
    assert.equal((await request(client, { ':path': '/' })).status, 200);

    const forced = await stage.sidecar.stop(AbortSignal.timeout(60_000));

    assert.equal(forced, 0);
    assert.equal((await stage.sidecar.connection())['close_reason'], 'finished');
  });

  test(`to ${application}: a response that is cut by the end of the drain does not look whole`, async (t) => {
    const behind = await startHttpApplication(t, (_, response) => {
      response.write('a part');
    });
    const stage = await startInbound(t, behind.address);
    const line = await startFrames(stage, headers(1, GET));
    await eventually(() => assert.equal(line.stream(1).body, 'a part'));

    assert.equal(await stage.sidecar.stop(AbortSignal.abort()), 1);
    await line.over();

    const outcome = line.stream(1);
    assert.equal(outcome.ended, false);
    assert.notEqual(outcome.reset ?? CANCEL, NO_ERROR);
    assert.equal(await closed(line.socket), undefined);
    const [finished] = stage.sidecar.log().filter(({ message }) => message === 'request finished');
    assert.equal(finished?.['result'], 'dropped');
  });

  test(`to ${application}: a peer that a reload no longer allows is cut off`, async (t) => {
    const behind = await startAnswering(t, ok);
    const stage = await startInbound(t, behind.address);
    const client = await startClient(t, stage);
    assert.equal((await request(client, { ':path': '/' })).status, 200);

    await stage.sidecar.reload(stage.with({ allow: [] }));
    await once(client, 'close');

    assert.equal((await stage.sidecar.connection())['reason'], 'policy');
  });

  test(`to ${application}: rotations close no connection and lose no request`, async (t) => {
    const behind = await startAnswering(t, ok);
    const stage = await startInbound(t, behind.address);
    const client = await startClient(t, stage);

    for (let rotation = 1; rotation <= 5; rotation++) {
      const before = await stage.sidecar.metric('scute_identity_generation');
      await stage.spiffe.rotate();
      await eventually(async () => assert.ok((await stage.sidecar.metric('scute_identity_generation')) > before));
      assert.equal((await request(client, { ':path': '/' })).status, 200);
    }
    assert.equal(client.closed, false);
  });

  test(`to ${application}: a connection without requests is closed after the idle time, pings or not`, async (t) => {
    const behind = await startAnswering(t, ok);
    const stage = await startInbound(t, behind.address, { listener: { limits: { idleTimeout: '300ms' } } });
    const line = await startFrames(stage, headers(1, GET));
    await line.streamOver(1);
    const ping = setInterval(() => line.socket.writable && line.send(frame(PING, 0, 0, Buffer.alloc(8))), 20);
    t.after(() => clearInterval(ping));

    assert.equal(await line.over(), NO_ERROR);

    assert.equal((await stage.sidecar.connection())['close_reason'], 'idle_timeout');
  });

  test(`to ${application}: a peer that agrees on HTTP/2 and does not begin it holds no place for long`, async (t) => {
    const behind = await startAnswering(t, ok);
    const stage = await startInbound(t, behind.address, { http: { headTimeout: '150ms' } });
    for (const bytes of [Buffer.alloc(0), PREFACE.subarray(0, 10), PREFACE, settings().subarray(0, 5)]) {
      const socket = await stage.connect({ ALPNProtocols: ['h2'] });
      socket.on('end', () => socket.end());
      socket.write(bytes);
      await closed(socket);
    }
    const lines = await eventually(() => {
      const all = stage.sidecar.log().filter(({ message }) => message === 'connection closed');
      assert.equal(all.length, 4);
      return all;
    });
    for (const line of lines) assert.equal(line['close_reason'], 'protocol_error', JSON.stringify(line));
  });

  test(`to ${application}: a peer that is not allowed and says nothing holds no place for long`, async (t) => {
    const behind = await startAnswering(t, ok);
    const stage = await startInbound(t, behind.address, { listener: { allow: [] }, http: { headTimeout: '100ms' } });

    const line = await startFrames(stage);

    assert.equal(await line.over(), NO_ERROR);
    assert.equal((await stage.sidecar.connection())['reason'], 'not_allowed');
  });

  test(`to ${application}: a client that does not read holds no more than the buffers of its streams`, async (t) => {
    const body = Buffer.alloc(1024 * 1024, 'x');
    let written = 0;
    const behind = await startHttpApplication(t, (_, response) => {
      response.writeHead(200, { 'Content-Length': body.length * 40 });
      const more = (): void => {
        for (;;) {
          if (response.destroyed || written >= body.length * 40) return;
          written += body.length;
          if (!response.write(body)) break;
        }
        response.once('drain', more);
      };
      more();
    });
    const stage = await startInbound(t, behind.address);
    const line = await startFrames(stage, headers(1, GET));

    let last = -1;
    await eventually(() => {
      const now = written;
      const isStill = now > 0 && now === last;
      last = now;
      if (!isStill) throw new Error(`${now} bytes, and more`);
    });
    assert.ok(written < body.length * 20, `${written} bytes were taken`);
    await eventually(() => assert.equal(line.stream(1).body.length, 65_535));

    // A window as large as the rest, for the stream and for the connection.
    line.send(frame(WINDOW_UPDATE, 0, 0, uint32(2 ** 30)), frame(WINDOW_UPDATE, 0, 1, uint32(2 ** 30)));
    await eventually(() => assert.equal(written, body.length * 40));
  });

  test(`to ${application}: a response that its client does not read ends after the idle time, and blames the client`, async (t) => {
    const behind = await startHttpApplication(t, (incoming, response) =>
      response.end(incoming.url === '/' ? 'ok' : Buffer.alloc(1024 * 1024)),
    );
    const stage = await startInbound(t, behind.address, { listener: { limits: { idleTimeout: '300ms' } } });
    const line = await startFrames(stage, headers(1, LARGE));
    await eventually(() => assert.equal(line.stream(1).body.length, 65_535));
    // The window of the connection, too, so that others go on.
    line.send(frame(WINDOW_UPDATE, 0, 0, uint32(2 ** 20)));

    let id = 1;
    await eventually(async () => {
      line.send(headers((id += 2), GET));
      assert.equal((await line.streamOver(id)).status, 200);
      assert.ok(line.stream(1).reset !== undefined);
    });

    assert.deepEqual([line.stream(1).ended, line.stream(1).reset], [false, INTERNAL_ERROR]);
    assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '200', result: 'timeout' }), 1);
  });

  test(`to ${application}: a client that ends its side keeps nobody waiting for long`, async (t) => {
    const behind = await startHttpApplication(t, (_, response) => response.end(Buffer.alloc(100_000)));
    const stage = await startInbound(t, behind.address);
    const line = await startFrames(stage, headers(1, GET));
    await eventually(() => assert.equal(line.stream(1).body.length, 65_535));

    // More of the response would need a window that cannot come any more.
    line.socket.end();

    await line.over();
    assert.equal(line.stream(1).ended, false);
    assert.ok(Number((await stage.sidecar.connection())['duration_ms']) < 4000);
  });

  test(`to ${application}: an application that does not read slows one stream down, and no other`, async (t) => {
    const behind = await startAnswering(t, (received, socket) => {
      if (!received.startsWith('POST')) return ok(received);
      socket.pause();
      return undefined;
    });
    const stage = await startInbound(t, behind.address);
    const client = await startClient(t, stage);
    const stream = client.request({ ':method': 'POST', ':path': '/' });
    stream.on('error', () => undefined);
    const chunk = Buffer.alloc(1024 * 1024);
    let accepted = 0;
    const more = (): void => {
      while (accepted < 100 && stream.write(chunk)) accepted++;
      if (accepted < 100) stream.once('drain', () => (accepted++, more()));
    };
    more();

    let last = -1;
    await eventually(() => {
      const isStill = accepted === last;
      last = accepted;
      if (!isStill) throw new Error(`${accepted} MiB, and more`);
    });
    assert.ok(accepted < 20, `${accepted} MiB were taken`);
    for (let time = 0; time < 20; time++) assert.equal((await request(client, { ':path': '/' })).status, 200);
    stream.close();
  });

  test(`to ${application}: 64 MiB each way through one stream leave the memory as it was`, async (t) => {
    const behind = await startHttpApplication(t, (incoming, response) => {
      incoming.pipe(response);
    });
    const stage = await startInbound(t, behind.address);
    const client = await startClient(t, stage);
    const stream = client.request({ ':method': 'POST', ':path': '/' });
    const chunk = Buffer.alloc(1024 * 1024, 'y');
    let sent = 0;
    let received = 0;
    let mostMiB = 0;
    const more = (): void => {
      while (sent < 64) {
        sent++;
        mostMiB = Math.max(mostMiB, process.memoryUsage.rss() / 1024 / 1024);
        if (!stream.write(chunk)) break;
      }
      if (sent < 64) stream.once('drain', more);
      else stream.end();
    };
    const beforeMiB = process.memoryUsage.rss() / 1024 / 1024;
    more();
    stream.on('data', (part: Buffer) => (received += part.length));
    await once(stream, 'close');

    assert.equal(received, 64 * chunk.length);
    // Client, application and proxy are all in this process.
    assert.ok(mostMiB < beforeMiB + 100, `${Math.round(beforeMiB)} MiB, then ${Math.round(mostMiB)} MiB`);
  });

  test(`to ${application}: another peer that leaves half-way does not disturb the others`, async (t) => {
    const behind = await startAnswering(t, ok);
    const stage = await startInbound(t, behind.address, { listener: { allow: ['spiffe://example.org/**'] } });
    const client = await startClient(t, stage);
    const other = presented(await stage.spiffe.issue(API));
    for (let round = 0; round < 10; round++) {
      const socket = tlsClient(t, stage.address, other, { ALPNProtocols: ['h2'] });
      await once(socket, 'secureConnect');
      socket.write(Buffer.concat([PREFACE, settings(), headers(1, GET)]).subarray(0, 30 + round * 5));
      socket.destroy();
      assert.equal((await request(client, { ':path': '/' })).status, 200);
    }
    const gone = await answerOn(client.request({ ':path': '/' }));
    assert.equal(gone.status, 200);
    await eventually(async () => assert.equal(await stage.sidecar.metric('scute_tcp_open_connections'), 1));
  });
}
