import assert from 'node:assert/strict';
import { test } from 'node:test';
import { send, startHttpApplication, startHttpInbound, startRawApplication } from '../../support/http/http-stage.ts';
import { BAD_BODIES, FORGED_NAMES, SMUGGLING } from '../../support/http/http-corpus.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

test('what two readers could take differently is refused, and no application sees it', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address);
  assert.ok(SMUGGLING.length + BAD_BODIES.length >= 150);

  for (const [name, request] of SMUGGLING) {
    const line = await send(stage, request);
    // Some would go on for ever.
    line.socket.end();
    const { text } = await line.over();
    assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n/, `${name}: ${JSON.stringify(request)}`);
    assert.equal(text.match(/HTTP\/1\.1 \d/g)?.length, 1, name);
    assert.equal(application.received(), '', `${name}: ${JSON.stringify(request)}`);
  }
});

test('a body that cannot be framed is refused, and hides no second request', async (t) => {
  const seen: string[] = [];
  const application = await startHttpApplication(t, (request, response) => {
    seen.push(request.url ?? '');
    request.on('error', () => undefined);
    request.resume();
    request.on('end', () => response.end());
  });
  const stage = await startHttpInbound(t, application.address);

  for (const [name, request] of BAD_BODIES) {
    const line = await send(stage, request);
    line.socket.end();
    const { text } = await line.over();
    assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n/, `${name}: ${JSON.stringify(request)}`);
    assert.equal(text.match(/HTTP\/1\.1 \d/g)?.length, 1, name);
  }
  assert.ok(!seen.includes('/hidden'));
});

test('no peer forges the fields that say who it is, however they are spelt', async (t) => {
  const application = await startRawApplication(t, (received) => (received.endsWith('\r\n\r\n') ? OK : undefined));
  const stage = await startHttpInbound(t, application.address, { http: { spiffeIdHeader: 'X-Peer' } });

  for (const name of FORGED_NAMES) {
    for (const more of [[], ['Connection: X-Forwarded-Client-Cert, x-peer, x_peer'], [`${name}: URI=spiffe://example.org/forged`]]) {
      const fields = ['Host: a', `${name}: URI=spiffe://example.org/forged`, 'Keep: me', ...more];
      const before = application.received().length;
      const trailers = `0\r\n${name}: spiffe://example.org/forged\r\nLast: one\r\n\r\n`;
      const line = await send(stage, `POST / HTTP/1.1\r\n${fields.join('\r\n')}\r\nTransfer-Encoding: chunked\r\n\r\n${trailers}`);
      await line.until('ok');
      line.socket.destroy();

      const seen = application.received().slice(before);
      assert.ok(!seen.includes('forged'), seen);
      assert.match(seen, /\r\nKeep: me\r\n/);
      assert.match(seen, /\r\n0\r\nLast: one\r\n\r\n$/);
      assert.equal(
        seen.match(/^X-Forwarded-Client-Cert: By=spiffe:\/\/example\.org\/api;Hash=[0-9a-f]{64};URI=spiffe:\/\/example\.org\/web\r$/gm)
          ?.length,
        1,
      );
      assert.equal(seen.match(/^X-Peer: spiffe:\/\/example\.org\/web\r$/gm)?.length, 1);
    }
  }
});

test('with sanitize the field is removed and none is put there', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address, { http: { xfcc: 'sanitize' } });

  const line = await send(stage, 'GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded-Client-Cert: By=me\r\n\r\n');
  await line.until('ok');

  assert.equal(application.received(), 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
});

test('fields of the connection itself stay on it', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address, { http: { xfcc: 'sanitize' } });

  const line = await send(
    stage,
    [
      'GET / HTTP/1.1',
      'Host: a',
      'Connection: Upgrade, HTTP2-Settings, x-mine',
      'Upgrade: h2c',
      'HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA',
      'X-Mine: 1',
      'Keep-Alive: timeout=5',
      'Proxy-Connection: keep-alive',
      'TE: trailers',
      'X-Yours: 2',
      '',
      '',
    ].join('\r\n'),
  );
  await line.until('ok');

  assert.equal(application.received(), 'GET / HTTP/1.1\r\nHost: a\r\nX-Yours: 2\r\n\r\n');
});
