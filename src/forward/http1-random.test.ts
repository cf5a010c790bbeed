import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { MemoryConnection } from '../../test/support/memory-connection.ts';
import { verdict } from '../../test/support/memory-forwarder.ts';
import { createRandom } from '../../test/support/random.ts';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import type { ListenerCounters, RequestRecord } from '../telemetry/log/records.ts';
import { buildIdentityFields } from '../http1/identity-fields.ts';
import { Fields } from '../http1/fields.ts';
import { forwardHttp } from './http1-forwarder.ts';
import { connectFailure } from './outcome.ts';
import { Session } from './session.ts';

/** `HTTP_RANDOM_RUNS` and `HTTP_RANDOM_SEED` make it longer, or another one. */
const RUNS = Number(process.env['HTTP_RANDOM_RUNS'] ?? 1500);
const SEED = Number(process.env['HTTP_RANDOM_SEED'] ?? 1);
const PEER = requireSpiffeId('spiffe://example.org/web');
const identity = buildIdentityFields(
  { xfcc: 'sanitize-set', spiffeIdHeader: 'X-Peer' },
  { peerId: PEER, ownId: 'spiffe://example.org/api', leafSha256: 'ab'.repeat(32) },
  () => false,
);
/** N is a number that no other request of the run has. */
const REQUESTS = [
  'GET /N HTTP/1.1\r\nHost: a\r\n\r\n',
  'POST /N HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello',
  'POST /N HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n',
  'HEAD /N HTTP/1.1\r\nHost: a\r\n\r\n',
  'PUT /N HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello',
  'DELETE /N HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n',
  'GET /N HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
  'GET /N HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes',
  'POST /N HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nbytes',
  '\r\nGET http://a/N HTTP/1.1\r\nHost: a\r\n\r\n',
  'GET /N HTTP/1.1\r\nHost: a\r\nBad\r\n\r\n',
];
const RESPONSES = [
  'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.1 103 E\r\n\r\n',
  'HTTP/1.1 100 C\r\n\r\n',
  'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
  'HTTP/1.1 204 x\r\n\r\n',
  'HTTP/1.1 200 OK\r\n\r\nclose',
  'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\nws',
  'HTTP/1.1 101 x\r\nUpgrade: TCP\r\n\r\nbytes',
  'HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  'HTTP/1.1 200 OK\r\nConnection: keep-alive, x-a\r\nKeep-Alive: timeout=5\r\nX-A: 1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok',
  'junk\r\n\r\n',
];
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

let repaired = 0;

/** One connection to which anything happens in any order; then it is dropped, and must have left nothing behind. */
async function run(seed: number): Promise<void> {
  const random = createRandom(seed);
  const pick = <T>(list: readonly [T, ...T[]] | readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const clock = new FakeClock();
  const session = new Session('random', 0);
  const downstream = new MemoryConnection({ slow: random() < 0.3, remoteAddress: random() < 0.2 ? 'unix' : 'memory' });
  const isOutbound = random() < 0.5;
  const upstreams: MemoryConnection[] = [];
  const broken = new Set<MemoryConnection>();
  const attempts: (() => void)[] = [];
  const records: RequestRecord[] = [];
  const steps: string[] = [];
  let done = 0;
  let isAllowed = random() < 0.95;
  let isProven = false;
  // Among much that is odd, hardly any connection would be kept for a second request.
  const isPlain = random() < 0.5;
  const requestsOf = isPlain ? REQUESTS.slice(0, 6) : REQUESTS;
  const responsesOf = isPlain ? RESPONSES.slice(0, 1) : RESPONSES;
  if (!isOutbound && random() < 0.1) session.denied = 'not_allowed';

  forwardHttp({
    downstream,
    session,
    counters: {} as ListenerCounters,
    ticker: { tick: 0, lets: () => true },
    clock,
    limits: {
      maxHeadBytes: 4096,
      maxFields: 20,
      maxBodyBytes: undefined,
      headTimeoutMs: 10_000,
      minBodyBytesPerSecond: 240,
      responseTimeoutMs: 10_000,
      upstreamIdleTimeoutMs: random() < 0.5 ? undefined : 5000,
    },
    upgrades: ['tcp'],
    identity,
    scratch: new Fields(20),
    judged: isOutbound ? 'upstream' : 'downstream',
    judge() {
      assert.ok(!isOutbound || isProven, 'judged before its server');
      return verdict(PEER, isAllowed);
    },
    open(tell) {
      isProven = false;
      const fail = (): void => tell({ ok: false, failure: connectFailure('the application', 'ECONNREFUSED', 'refused') });
      if (random() < 0.05) {
        fail();
        return { abort: () => assert.fail('given up after it was told') };
      }
      let isOver = false;
      attempts.push(() => {
        if (isOver) return;
        isOver = true;
        if (random() < 0.1) {
          fail();
          return;
        }
        isProven = true;
        const connection = new MemoryConnection({ slow: random() < 0.3 });
        upstreams.push(connection);
        if (random() < 0.1) connection.finish();
        if (random() < 0.05) {
          broken.add(connection);
          connection.break();
        }
        tell({ ok: true, connection });
      });
      return {
        abort() {
          assert.ok(!isOver, 'given up after it was told');
          isOver = true;
        },
      };
    },
    released: () => (isProven = false),
    dismissed: () => undefined,
    requestFinished: (record) => records.push(record),
    broken: () => undefined,
    done: () => done++,
  });

  let requests = 0;
  let toAsk = Buffer.alloc(0);
  let isClientGone = false;
  const toAnswer = new Map<MemoryConnection, Buffer>();
  const part = (bytes: Buffer): number => (isPlain || random() < 0.5 ? bytes.length : Math.ceil(random() * bytes.length));
  const step = (): string => {
    const choice = random();
    if (choice < 0.35) {
      if (isClientGone) return 'nothing';
      if (toAsk.length === 0 || random() < 0.3)
        toAsk = Buffer.concat([toAsk, Buffer.from(pick(requestsOf).replace('N', String(++requests)))]);
      const said = toAsk.subarray(0, part(toAsk));
      toAsk = toAsk.subarray(said.length);
      downstream.say(said);
      return `client ${JSON.stringify(said.toString())}`;
    }
    const upstream = random() < 0.9 ? upstreams.at(-1) : pick(upstreams);
    if (choice < 0.6) {
      if (upstream === undefined) return 'nothing';
      const left = toAnswer.get(upstream) ?? Buffer.alloc(0);
      const answer = left.length > 0 ? left : Buffer.from(pick(responsesOf));
      const said = answer.subarray(0, part(answer));
      toAnswer.set(upstream, answer.subarray(said.length));
      upstream.say(said);
      return `application ${JSON.stringify(said.toString())}`;
    }
    if (choice < 0.66) {
      upstream?.finish();
      return 'application ends';
    }
    if (choice < 0.69) {
      if (upstream !== undefined) broken.add(upstream);
      upstream?.break();
      return 'application breaks';
    }
    if (choice < 0.735) {
      isClientGone = true;
      if (choice < 0.72) downstream.finish();
      else downstream.break();
      return 'client leaves';
    }
    if (choice < 0.74) session.dismiss('policy', 'not any more');
    else if (choice < 0.75) session.wind();
    else if (choice < 0.77) session.drain({ reason: 'policy', detail: 'drains', endsAtMs: Infinity, mayAsk: choice < 0.76 });
    else if (choice < 0.775) session.drop();
    else if (choice < 0.8) isAllowed = !isAllowed;
    else if (choice < 0.9) attempts.shift()?.();
    else clock.advance(pick([100, 3000, 6000, 11_000]));
    return `event ${choice.toFixed(3)}`;
  };
  for (let left = 5 + Math.floor(random() * 40); left > 0; left--) {
    steps.push(step());
    if (random() < 0.7) await settle();
  }
  for (const attempt of attempts) attempt();
  await settle();
  if (done === 0) session.drop();
  for (let turn = 0; turn < 5; turn++) await settle();
  clock.advance(20_000);
  await settle();

  const story = (): string => `seed ${seed}\n${steps.join('\n')}\n${JSON.stringify(records)}\n${JSON.stringify(downstream.text())}`;
  assert.equal(done, 1, `it is over once: ${story()}`);
  assert.equal(clock.armed, 0, `no timer is left: ${story()}`);
  for (const upstream of upstreams) {
    assert.ok(upstream.hasEnded || upstream.isAborted || broken.has(upstream), `no connection is left: ${story()}`);
  }
  // What follows the head of an upgrade may be anything.
  const texts = upstreams.map((upstream) => upstream.text().replace(/(Upgrade: (?:websocket|tcp)\r\n[^]*?\r\n\r\n)[^]*/, '$1'));
  const heads = texts.flatMap((text) => text.match(/(?<=(?:GET|POST|HEAD|PUT|DELETE) )\/\d+(?= HTTP)/g) ?? []);
  assert.equal(texts.join('').split('X-Peer: spiffe').length - 1, heads.length, `each request has its identity once: ${story()}`);
  const retried = new Set(records.filter(({ retries }) => retries > 0).map(({ target }) => target));
  const sent = texts.flatMap((text) => text.match(/^[A-Z]+ \/\d+(?= HTTP)/gm) ?? []);
  for (const target of new Set(heads)) {
    const times = heads.filter((head) => head === target).length;
    const isPost = sent.includes(`POST ${target}`);
    assert.ok(times === 1 || (times === 2 && retried.has(target) && !isPost), `${target} is sent ${times} times: ${story()}`);
  }
  repaired += records.filter(({ retries, result }) => retries > 0 && result === 'forwarded').length;
  const told = records.map(({ target }) => target).filter((target) => target !== '');
  assert.equal(new Set(told).size, told.length, `no request is told twice: ${story()}`);
  assert.deepEqual(new Set(heads).difference(new Set(told)), new Set(), `each request that was sent is told: ${story()}`);
}

test(`whatever happens to a connection in whatever order, it ends once and leaves nothing behind (${RUNS} runs from seed ${SEED})`, async () => {
  for (let seed = SEED; seed < SEED + RUNS; seed++) await run(seed);
  assert.ok(repaired > 0, 'some requests were sent once more, and answered');
});
