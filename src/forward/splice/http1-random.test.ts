import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { readWithLlhttp } from '../../../test/support/http/llhttp.ts';
import { pickFrom, responsesIn } from '../../../test/support/http/random-http2-side.ts';
import { fateOf, RandomSplice, RUNS, SEED } from '../../../test/support/http/random-splice.ts';
import { MemoryConnection } from '../../../test/support/memory-connection.ts';
import { Fields } from '../../http1/fields.ts';

const CONTINUE = 'HTTP/1.1 100 C\r\n\r\n';

const seen = { forwarded: 0, whole: 0, repaired: 0, reused: 0, switched: 0 };

/** A connection to the application, which speaks HTTP/1.1. */
interface Behind {
  readonly connection: MemoryConnection;
  /** It has still to say this. */
  toSay: Buffer;
  /** Requests that it has begun to answer. */
  answered: number;
  isBroken: boolean;
  /** It has agreed to another protocol. */
  isTunnel: boolean;
}

/** One connection to which anything happens in any order; then it is dropped, and must have left nothing behind. */
async function run(seed: number): Promise<void> {
  const fate = fateOf(seed);
  const { random, chance } = fate;
  const behind: Behind[] = [];
  /** What the application says to each request, if it does so as it should. */
  const expected = new Map<string, string[]>();
  /** What it says after a 101. */
  const switched = new Map<string, string>();
  const splice = new RandomSplice(fate, {
    methods: ['GET', 'HEAD', 'DELETE'],
    fewFiles: 0.05,
    opened() {
      const connection = new MemoryConnection({ slow: chance(0.3) });
      behind.push({ connection, toSay: Buffer.alloc(0), answered: 0, isBroken: false, isTunnel: false });
      if (chance(0.05)) connection.finish();
      return connection;
    },
    more: (limits) => ({
      limits: { ...limits, upstreamIdleTimeoutMs: chance(0.5) ? undefined : 5000 },
      http1: { scratch: new Fields(20) },
    }),
  });
  const { client, session, clock, records, isGood } = splice;

  /** To whoever asks for a WebSocket. */
  const agree = (target: string, fields: readonly string[]): string => {
    const key = fields[fields.indexOf('Sec-WebSocket-Key') + 1] ?? '';
    const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    switched.set(target, `${target}:${'t'.repeat(Math.floor(random() * 3000))}`);
    const proof = isGood || chance(0.9) ? accept : 'wrong';
    return `HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${proof}\r\n\r\n${switched.get(target)}`;
  };

  const answerTo = (method: string, target: string): string => {
    const body = `${target}:${'r'.repeat(Math.floor(random() * 3000))}`;
    const all = expected.get(target) ?? [];
    expected.set(target, all);
    const head = (...fields: string[]): string => `HTTP/1.1 200 OK\r\n${fields.map((each) => `${each}\r\n`).join('')}\r\n`;
    const interim = chance(0.1) ? 'HTTP/1.1 103 Early\r\nLink: a\r\n\r\n' : '';
    const again = chance(0.1) ? [pickFrom(random, ['Connection: close', 'Keep-Alive: timeout=3', 'Keep-Alive: max=1'])] : [];
    if (method === 'HEAD') {
      all.push('');
      return interim + head(`Content-Length: ${body.length}`, ...again);
    }
    if (!isGood && chance(0.1)) {
      return pickFrom(random, [
        'junk\r\n\r\n',
        'HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n',
        CONTINUE,
        `${head('Content-Length: 2', 'Transfer-Encoding: chunked')}0\r\n\r\n`,
        `${head('Transfer-Encoding: chunked')}x\r\n`,
        `${head('Transfer-Encoding: chunked')}0\r\nHost: a\r\n\r\n`,
      ]);
    }
    if (chance(0.1)) {
      all.push('');
      return `${interim}HTTP/1.1 204 x\r\n\r\n`;
    }
    all.push(body);
    if (chance(0.5)) return `${interim}${head(`Content-Length: ${body.length}`, ...again)}${body}`;
    const cut = Math.floor(random() * body.length);
    const chunks = [body.slice(0, cut), body.slice(cut)].filter((each) => each !== '');
    const trailers = chance(0.3) ? 'X-Sum: 1\r\n' : '';
    return `${interim}${head('Transfer-Encoding: chunked', ...again)}${chunks.map((each) => `${each.length.toString(16)}\r\n${each}\r\n`).join('')}0\r\n${trailers}\r\n`;
  };

  const readOf = (side: Behind): ReturnType<typeof readWithLlhttp> => {
    const read = readWithLlhttp(Buffer.concat(side.connection.written));
    assert.equal(read.problem, undefined, 'what goes to the application is HTTP/1.1');
    return read;
  };

  const applicationStep = (side: Behind): string => {
    if (side.toSay.length > 0) return 'nothing';
    const { messages, begun } = readOf(side);
    const asked = [...messages, ...(begun === undefined ? [] : [begun])];
    const next = asked[side.answered];
    if (next === undefined) {
      if (isGood || side.isBroken || side.isTunnel || !chance(0.1)) return 'nothing';
      side.connection.say(Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked'));
      return 'application unasked';
    }
    // Mostly when it is whole.
    if (side.answered === messages.length && chance(0.8)) return 'nothing';
    const asksSwitch = next.fields.includes('Upgrade') && chance(0.7);
    side.isTunnel = asksSwitch;
    side.toSay = Buffer.from(asksSwitch ? agree(next.target, next.fields) : answerTo(next.method, next.target));
    // An interim response is no answer.
    if (side.toSay.toString('latin1') !== CONTINUE) side.answered++;
    return `application answers ${next.target}`;
  };

  const step = (choice: number): string => {
    const side = behind.length === 0 ? undefined : pickFrom(random, behind);
    if (choice < 0.7) return side === undefined ? 'nothing' : applicationStep(side);
    if (choice < 0.9) {
      if (side === undefined || side.isBroken) return 'nothing';
      const said = chance(0.7) ? side.toSay : side.toSay.subarray(0, Math.ceil(random() * side.toSay.length));
      side.toSay = side.toSay.subarray(said.length);
      if (said.length > 0) side.connection.say(said);
      return 'application says';
    }
    if (choice < 0.93) {
      if (side === undefined) return 'nothing';
      side.isBroken = true;
      if (chance(0.7)) side.connection.finish();
      else side.connection.break();
      return 'application leaves';
    }
    if (choice < 0.937) client.leave();
    else if (choice < 0.94) session.dismiss('policy', 'not any more');
    else if (choice < 0.943) session.wind();
    else if (choice < 0.947) session.drain({ reason: 'policy', detail: 'drains', endsAtMs: Infinity, mayAsk: true });
    else if (choice < 0.95) session.drop();
    else if (choice < 0.96) {
      if (session.hasDenied()) session.endDenied('policy', 'not any more');
    } else if (choice < 0.963) splice.isAllowed = !splice.isAllowed;
    else clock.advance(pickFrom(random, [15, 100, 3000, 6000, 11_000]));
    return `event ${choice.toFixed(3)}`;
  };

  const check = (): void => {
    client.watch();
    for (const { connection, isBroken } of behind)
      assert.ok(connection.hasEnded || connection.isAborted || isBroken, 'no connection is left');

    const retried = new Map(records.map(({ target, retries }) => [target, retries]));
    const sent = new Map<string, number>();
    for (const side of behind) {
      const { messages, begun } = readOf(side);
      if (messages.length > 1) seen.reused++;
      for (const { method, target, fields, body } of [...messages, ...(begun === undefined ? [] : [begun])]) {
        const times = (sent.get(target) ?? 0) + 1;
        sent.set(target, times);
        assert.ok(times === 1 || (method !== 'POST' && times - 1 <= (retried.get(target) ?? 0)), `${target} is sent ${times} times`);
        assert.equal(fields.filter((each) => each === 'X-Peer').length, 1, 'its identity comes once');
        assert.ok(
          fields.includes('Upgrade') || !fields.some((each) => /expect|^te$|^connection$/i.test(each)),
          'what is for us stays here',
        );
        const own = client.bodies.get(Number(target.slice(1)));
        assert.ok(body.length <= (own?.bytes ?? -1) && /^b*$/.test(body), 'a body of its own');
      }
      const [head = '', ...rest] = Buffer.concat(side.connection.written).toString('latin1').split('\r\n\r\n');
      // Nothing goes ahead of the agreement.
      if (head.includes('\r\nUpgrade: ') && !switched.has(head.split(' ')[1] ?? '')) assert.ok(!rest.join('').startsWith('b'), 'too early');
      for (const { target, body, fields } of messages) {
        if (fields.includes('Upgrade')) continue;
        const own = client.bodies.get(Number(target.slice(1)));
        assert.ok(own?.hasEnded === true && own.bytes === body.length, `${target} is whole, and no sooner than the client’s`);
      }
    }
    assert.deepEqual(new Set(sent.keys()).difference(new Set(splice.targets)), new Set(), 'each request that was sent is told');

    for (const [stream, { body, hasEnded }] of responsesIn(Buffer.concat(client.connection.written))) {
      const answers = expected.get(`/${stream}`) ?? [];
      const tunnel = switched.get(`/${stream}`);
      if (tunnel?.startsWith(body) === true) {
        seen.switched++;
        continue;
      }
      if ('scute: '.startsWith(body.slice(0, 7)) && (body !== '' || hasEnded)) continue;
      if (hasEnded) {
        seen.whole++;
        assert.ok(answers.includes(body), `the response of stream ${stream} is its own, and whole`);
      } else
        assert.ok(
          [...answers, ''].some((each) => each.startsWith(body)),
          `a part of the response of stream ${stream} is its own`,
        );
    }
  };

  await splice.run(random, { step, watch: () => client.watch(), check });
  for (const { result, retries } of records) {
    if (result === 'forwarded') seen.forwarded++;
    if (result === 'forwarded' && retries > 0) seen.repaired++;
  }
}

test(`whatever happens between HTTP/2 and HTTP/1.1 in whatever order, it ends once and leaves nothing behind (${RUNS} runs from seed ${SEED})`, async () => {
  for (let seed = SEED; seed < SEED + RUNS; seed++) await run(seed);
  const least = RUNS / 20;
  assert.ok(
    seen.forwarded > least && seen.whole > least && seen.repaired > 0 && seen.reused > least && seen.switched > least,
    JSON.stringify(seen),
  );
});
