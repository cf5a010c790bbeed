import assert from 'node:assert/strict';
import type { ServerHttp2Stream } from 'node:http2';
import { test } from 'node:test';
import { WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { answerOk, startFrameApplication, startH2cApplication, startSpliced } from '../../support/http/h2c-application.ts';
import { HEADERS, INTERNAL_ERROR, settings } from '../../support/http/http2-frames.ts';
import { answerOn, request, startClient } from '../../support/http/http2-stage.ts';

const allow = (...paths: string[]): object => ({ allow: [{ peer: WEB, paths }] });

test('a rule that is taken away cuts the streams that it had let begin, at the application too, and the others go on', async (t) => {
  const streams = new Map<string, ServerHttp2Stream>();
  const application = await startH2cApplication(t, (stream, headers) => {
    streams.set(String(headers[':path']), stream);
    stream.respond({ ':status': 200 });
    stream.write('a part');
  });
  const stage = await startSpliced(t, application.address, { listener: allow('/kept', '/lost') });
  const client = await startClient(t, stage);
  const kept = answerOn(client.request({ ':path': '/kept' }));
  const lost = answerOn(client.request({ ':path': '/lost' }));
  await eventually(() => assert.equal(streams.size, 2));

  await stage.sidecar.reload(stage.with(allow('/kept')));
  const cut = await lost;
  await eventually(() => assert.equal(streams.get('/lost')?.closed, true));
  streams.get('/kept')?.end(', and the rest');

  assert.deepEqual([cut.status, cut.reset], [200, INTERNAL_ERROR]);
  assert.deepEqual([(await kept).body.toString(), (await kept).reset], ['a part, and the rest', undefined]);
  assert.equal((await request(client, { ':path': '/lost' })).status, 403);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'dropped' }), 1);
});

test('a request that waits for the application is judged again before it is sent', async (t) => {
  const application = await startFrameApplication(t, () => undefined, Buffer.alloc(0));
  const stage = await startSpliced(t, application.address, { listener: allow('/one', '/two') });
  const client = await startClient(t, stage);
  const one = request(client, { ':path': '/one' });
  const two = answerOn(client.request({ ':path': '/two' }));
  await eventually(() => assert.ok((application.connections[0]?.frames().length ?? 0) > 0));

  await stage.sidecar.reload(stage.with({ ...allow('/two'), onPolicyChange: 'unsafeKeep' }));
  application.connections[0]?.send(settings());

  assert.equal((await one).status, 403);
  await eventually(() => assert.equal(application.connections[0]?.frames().filter(({ type }) => type === HEADERS).length, 1));
  client.destroy();
  await two;
});

test('rotations and reloads under many streams fail no stream that is allowed, and let none through that is not', async (t) => {
  const application = await startH2cApplication(t, (stream) => void stream.resume().on('end', () => answerOk(stream)));
  const stage = await startSpliced(t, application.address, { listener: allow('/public/**') });
  const over = new AbortController();
  const counts = { allowed: 0, denied: 0 };
  const work = async (): Promise<void> => {
    const client = await startClient(t, stage);
    const one = async (index: number): Promise<void> => {
      while (!over.signal.aborted) {
        const isDenied = index % 4 === 0;
        const path = isDenied ? `/private/${index}` : `/public/${index}`;
        const { status, reset } = await request(client, { ':method': 'POST', ':path': path }, 'body');
        assert.deepEqual([status, reset], [isDenied ? 403 : 200, undefined], path);
        counts[isDenied ? 'denied' : 'allowed']++;
      }
    };
    await Promise.all(Array.from({ length: 8 }, (_, index) => one(index)));
    client.close();
  };
  const working = Promise.all(Array.from({ length: 4 }, work));

  for (let round = 1; round <= 6; round++) {
    const before = { ...counts, generation: await stage.sidecar.metric('scute_identity_generation') };
    await stage.spiffe.rotate();
    await stage.sidecar.reload(stage.with({ allow: [{ peer: WEB, paths: ['/public/**', `/other/${round}`] }] }));
    await eventually(async () => assert.ok((await stage.sidecar.metric('scute_identity_generation')) > before.generation));
    await eventually(() => assert.ok(counts.allowed > before.allowed + 20 && counts.denied > before.denied + 5));
  }
  over.abort();
  await working;

  assert.equal(application.heads.length, counts.allowed);
  assert.ok(application.heads.every((head) => !head.some((each) => each.startsWith('/private'))));
  assert.equal(application.sessions.length, 4);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'denied' }), counts.denied);
});
