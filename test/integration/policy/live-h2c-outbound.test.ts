/** What becomes of streams to a server over HTTP/2 when what let it be asked changes: each key, each value. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ServerHttp2Stream } from 'node:http2';
import { test, type TestContext } from 'node:test';
import { eventually } from '../../support/eventually.ts';
import { h2cOutbound, startCaller, startHttp2ServerAs } from '../../support/http/h2c-outbound.ts';
import { answerOk } from '../../support/http/h2c-application.ts';
import { answerOn, request } from '../../support/http/http2-stage.ts';
import { CHANGES, DRAIN_MS, startLive, type LiveChange, type LiveStage } from '../../support/policy/live-changes.ts';

/** A server that answers each stream, one for `/slow` when it is told to. */
async function start(t: TestContext, listener: object, change: LiveChange) {
  const waiting: ServerHttp2Stream[] = [];
  let asked = 0;
  let sessions = (): number => 0;
  const stage = await startLive(t, {
    direction: 'outbound',
    change,
    listener: h2cOutbound({ responseTimeout: 'off', minBodyRate: 'off' }, listener),
    application: '',
    server: () => undefined,
    async startServer(who) {
      const server = await startHttp2ServerAs(t, who, (stream, headers) => {
        asked++;
        if (headers[':path'] === '/slow') waiting.push(stream);
        else answerOk(stream);
      });
      sessions = () => server.sessions.length;
      return server.address;
    },
  });
  return {
    stage,
    asked: () => asked,
    sessions: () => sessions(),
    release: () => {
      for (const stream of waiting.splice(0)) answerOk(stream);
    },
    call: () => startCaller(t, stage.address),
  };
}

function dismissals({ sidecar }: LiveStage): unknown[] {
  return sidecar
    .log()
    .filter(({ message }) => message === 'connection to the server ended')
    .map((line) => line['reason']);
}

for (const change of CHANGES) {
  const { key, reason, keep, shutsOut, happens } = change;

  test(`${key}: close cuts streams that are under way, and without any ends the server's connection alone`, async (t) => {
    const { stage, asked, call } = await start(t, { [key]: 'close' }, change);
    const [idle, busy] = [await call(), await call()];
    assert.equal((await request(idle, { ':path': '/' })).status, 200);
    const cut = ['/slow', '/slow'].map((path) => answerOn(busy.request({ ':path': path })));
    await eventually(() => assert.equal(asked(), 3));

    await happens(stage);

    for (const answer of await Promise.all(cut)) assert.notEqual(answer.reset, undefined);
    await eventually(() => assert.deepEqual(dismissals(stage), [reason]));
    assert.equal(idle.closed, false);
    // By our clock, or by what is allowed, there is nobody to ask any more.
    assert.ok([502, 503].includes((await request(idle, { ':path': '/' })).status));
    assert.equal(asked(), 3);
  });

  test(`${key}: drain lets the server answer, tells the application, and takes no new stream`, async (t) => {
    const { stage, asked, release, call } = await start(t, { [key]: 'drain' }, change);
    const client = await call();
    const answers = [1, 2].map(() => answerOn(client.request({ ':path': '/slow' })));
    await eventually(() => assert.equal(asked(), 2));
    const [goaway, closed] = [once(client, 'goaway'), once(client, 'close')];

    await happens(stage);
    await goaway;
    release();

    for (const { status, reset } of await Promise.all(answers)) assert.deepEqual([status, reset], [200, undefined]);
    await closed;
    assert.equal((await stage.sidecar.connection())['close_reason'], reason);
  });

  test(`${key}: with drain, streams that are under way ${shutsOut ? 'are cut when drainTimeout is over' : 'may take as long as they like'}`, async (t) => {
    const { stage, asked, release, call } = await start(t, { [key]: 'drain' }, change);
    const client = await call();
    const answer = answerOn(client.request({ ':path': '/slow' }));
    await eventually(() => assert.equal(asked(), 1));

    await happens(stage);
    stage.clock.advance(DRAIN_MS + 1000);

    if (shutsOut) assert.notEqual((await answer).reset, undefined);
    else {
      stage.clock.advance(3 * DRAIN_MS);
      release();
      assert.equal((await answer).status, 200);
    }
  });

  test(`${key}: ${keep} lets the server answer${key === 'onPolicyChange' ? '' : ', and the next stream too'}`, async (t) => {
    const { stage, asked, sessions, release, call } = await start(t, { [key]: keep }, change);
    const client = await call();
    const answer = answerOn(client.request({ ':path': '/slow' }));
    await eventually(() => assert.equal(asked(), 1));

    await happens(stage);
    stage.clock.advance(3 * DRAIN_MS);
    release();

    assert.equal((await answer).status, 200);
    assert.equal((await request(client, { ':path': '/' })).status, key === 'onPolicyChange' ? 502 : 200);
    assert.deepEqual([sessions(), dismissals(stage)], [1, []]);
  });
}
