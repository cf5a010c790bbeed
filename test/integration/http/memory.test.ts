/** What passes does not stay: the process that forwards is watched from outside. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { ClientRequest, IncomingMessage, RequestListener, RequestOptions } from 'node:http';
import { Agent, request } from 'node:https';
import { pipeline } from 'node:stream/promises';
import { test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { presented, startExampleDomain, WEB } from '../../support/data-path.ts';
import { startHttpApplication } from '../../support/http/http-stage.ts';
import { useScute, type ScuteProcess } from '../../support/scute-process.ts';

const MIB = 1024 * 1024;
/** More than the buffers of all connections of a test, far less than what passes. */
const MAX_GROWTH = 64 * MIB;
/** No round number, so that nothing falls into place by chance. */
const BLOCK = randomBytes(MIB + 4099);
const TWICE = Buffer.concat([BLOCK, BLOCK]);

/** The endless repetition of `BLOCK`, up to a length. */
function* blocks(bytes: number): Generator<Buffer> {
  for (let left = bytes; left > 0; left -= BLOCK.length) yield left < BLOCK.length ? BLOCK.subarray(0, left) : BLOCK;
}

/** How many bytes of `blocks` a message has. Rejects at the first that is another. */
async function readBlocks(message: IncomingMessage): Promise<number> {
  let bytes = 0;
  await pipeline(message, async (chunks: AsyncIterable<Buffer>) => {
    for await (const chunk of chunks) {
      const from = bytes % BLOCK.length;
      if (TWICE.compare(chunk, 0, chunk.length, from, from + chunk.length) !== 0) throw new Error(`another byte after ${bytes}`);
      bytes += chunk.length;
    }
  });
  return bytes;
}

/** `GET /length/N` and `/chunked/N` are answered with N bytes, `POST` with the number of bytes that came, which to `/later` are read after `release`. */
const serve =
  (release: Promise<void>): RequestListener =>
  async (asked, response) => {
    if (asked.url === '/later') await release;
    if (asked.method === 'GET') {
      const [, framing, bytes] = asked.url?.split('/') ?? [];
      response.writeHead(200, framing === 'length' ? { 'Content-Length': Number(bytes) } : {});
      // Whoever leaves is no failure of ours.
      pipeline(blocks(Number(bytes)), response).catch(() => undefined);
    } else
      readBlocks(asked).then(
        (bytes) => response.end(String(bytes)),
        (error: Error) => response.writeHead(500).end(error.message),
      );
  };

interface Stage {
  readonly scute: ScuteProcess;
  readonly ask: (path: string, options?: RequestOptions) => ClientRequest;
  readonly download: (path: string) => Promise<number>;
  readonly upload: (bytes: number, headers?: Readonly<Record<string, number>>, path?: string) => Promise<number>;
}

async function startStage(t: TestContext, release = Promise.resolve()): Promise<Stage> {
  const spiffe = await startExampleDomain(t);
  const { address: to } = await startHttpApplication(t, serve(release));
  const inbound = [{ name: 'in', listen: '127.0.0.1:0', to, allow: [WEB], protocol: 'http' }];
  const scute = await useScute(t, { config: { workloadApi: { endpoint: spiffe.endpoint('api') }, inbound } });
  await scute.ready('in');
  const port = await scute.port('in');
  const agent = new Agent({ keepAlive: true, ...presented(await spiffe.issue(WEB)), rejectUnauthorized: false });
  t.after(() => agent.destroy());
  const ask: Stage['ask'] = (path, options) => request({ host: '127.0.0.1', port, path, agent, ...options });
  const answerTo = async (asked: ClientRequest): Promise<IncomingMessage> => ((await once(asked, 'response')) as [IncomingMessage])[0];
  return {
    scute,
    ask,
    async download(path) {
      const asked = ask(path);
      asked.end();
      return readBlocks(await answerTo(asked));
    },
    async upload(bytes, headers = {}, path = '/now') {
      const asked = ask(path, { method: 'POST', headers });
      const [response] = await Promise.all([answerTo(asked), pipeline(blocks(bytes), asked)]);
      let said = '';
      for await (const text of response.setEncoding('latin1')) said += String(text);
      return Number(said);
    },
  };
}

/** Resident bytes of a process. */
async function residentBytes({ child }: ScuteProcess): Promise<number> {
  const [, pages] = (await readFile(`/proc/${child.pid}/statm`, 'latin1')).split(' ');
  return Number(pages) * 4096;
}

/** Watches the memory of a process while something goes on, and gives the most that was seen. */
async function mostDuring(scute: ScuteProcess, goesOn: Promise<void>): Promise<number> {
  const end = new AbortController();
  const over = goesOn.finally(() => end.abort());
  let most = 0;
  while (!end.signal.aborted) {
    most = Math.max(most, await residentBytes(scute));
    await delay(50);
  }
  await over;
  return most;
}

test('1 GiB passes each way, byte for byte, and the memory of the process stays flat', async (t) => {
  const { scute, download, upload } = await startStage(t);
  const half = 512 * MIB;
  // Code is compiled, and buffers are pooled.
  await download(`/length/${64 * MIB}`);
  await upload(64 * MIB);

  const before = await residentBytes(scute);
  const most = await mostDuring(
    scute,
    (async () => {
      assert.equal(await download(`/length/${half}`), half);
      assert.equal(await upload(half, { 'content-length': half }), half);
      assert.equal(await download(`/chunked/${half}`), half);
      assert.equal(await upload(half), half);
    })(),
  );

  assert.ok(most < before + MAX_GROWTH, `it grew from ${before} to ${most} bytes`);
});

test('responses that are not read and requests that are not read hold little, and others are served meanwhile', async (t) => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const { scute, ask, download, upload } = await startStage(t, released);
  await download(`/length/${64 * MIB}`);
  await upload(64 * MIB);
  const each = 16 * MIB;

  const before = await residentBytes(scute);
  const responses: IncomingMessage[] = [];
  const uploads: Promise<number>[] = [];
  const most = await mostDuring(
    scute,
    (async () => {
      for (let count = 0; count < 16; count++) {
        const asked = ask(`/${count % 2 === 0 ? 'length' : 'chunked'}/${each}`);
        asked.end();
        const [response] = (await once(asked, 'response')) as [IncomingMessage];
        responses.push(response.pause());
        uploads.push(upload(each, count % 2 === 0 ? { 'content-length': each } : {}, '/later'));
      }
      for (let time = 0; time < 20; time++) {
        assert.equal(await download(`/chunked/${MIB}`), MIB);
        assert.equal(await upload(MIB), MIB);
      }
    })(),
  );

  assert.ok(most < before + MAX_GROWTH, `it grew from ${before} to ${most} bytes`);
  release();
  const whole = await Promise.all([...responses.map(readBlocks), ...uploads]);
  assert.deepEqual(new Set(whole), new Set([each]));
});
