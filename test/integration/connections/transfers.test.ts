// ghostunnel: client-/server-concurrent-connections, server-full-duplex-transfer, server-large-transfer, server-tiny-writes
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { startInbound, startOutboundToApi, startPair } from '../../support/data-path.ts';
import { dial, readAll, startEcho, startTcpServer } from '../../support/tcp.ts';

const MIB = 1024 * 1024;

test('fifty connections at once are not mixed up, through both sidecars', async (t) => {
  const application = await startTcpServer(t, (socket) => {
    socket.on('data', (chunk: Buffer) => socket.write(chunk.toString().toUpperCase()));
    socket.on('end', () => socket.end());
  });
  const { address } = await startPair(t, application.address);

  const answers = await Promise.all(
    Array.from({ length: 50 }, async (_, number) => {
      const caller = await dial(t, address);
      const answer = readAll(caller);
      for (let part = 0; part < 20; part++) {
        caller.write(`caller ${number} part ${part};`);
        if (part % 5 === 0) await new Promise(setImmediate);
      }
      caller.end();
      return (await answer).toString();
    }),
  );

  for (const [number, answer] of answers.entries()) {
    assert.equal(answer, Array.from({ length: 20 }, (_, part) => `CALLER ${number} PART ${part};`).join(''));
  }
});

test('both directions carry different bytes at once, unchanged, in eight connections through both sidecars', async (t) => {
  const down = randomBytes(3 * MIB);
  const received: string[] = [];
  const application = await startTcpServer(t, (socket) => {
    void hashOf(socket).then((hash) => received.push(hash));
    void send(socket, down, 7919);
  });
  const { address } = await startPair(t, application.address);

  const results = await Promise.all(
    Array.from({ length: 8 }, async (_, number) => {
      const up = randomBytes(2 * MIB + number);
      const caller = await dial(t, address);
      const heard = hashOf(caller);
      await send(caller, up, 65_536 - number);
      return { up: sha256(up), heard: await heard };
    }),
  );

  assert.deepEqual(
    results.map(({ heard }) => heard),
    results.map(() => sha256(down)),
  );
  assert.deepEqual(received.toSorted(), results.map(({ up }) => up).toSorted());
});

test('64 MiB that the application sends reach a slow peer whole, and are not held in between', async (t) => {
  const source = randomBytes(MIB);
  const application = await startTcpServer(t, (socket) => void sendTimes(socket, source, 64));
  const { sidecar, connect } = await startInbound(t, application.address);

  const peer = await connect();
  const held = await readSlowly(peer, async () => {
    const read = await sidecar.metric('scute_tcp_read_bytes_total', { peer: 'dst' });
    return read - peer.bytesRead;
  });

  assert.equal(held.hash, hashOfTimes(source, 64));
  assert.ok(held.mostAhead < 12 * MIB, `the sidecar took up to ${held.mostAhead} bytes that the peer had not read`);
});

test('64 MiB that a peer sends reach a slow application whole, and are not held in between', async (t) => {
  const source = randomBytes(MIB);
  const { promise: accepted, resolve } = Promise.withResolvers<Socket>();
  const application = await startTcpServer(t, resolve);
  const { sidecar, connect } = await startInbound(t, application.address);

  void sendTimes(await connect(), source, 64);
  const served = await accepted;
  const held = await readSlowly(
    served,
    async () => (await sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' })) - served.bytesRead,
  );

  assert.equal(held.hash, hashOfTimes(source, 64));
  assert.ok(held.mostAhead < 12 * MIB, `the sidecar took up to ${held.mostAhead} bytes that the application had not read`);
});

test('64 MiB from a server reach a caller that stands still in between, through an outbound listener', async (t) => {
  const source = randomBytes(MIB);
  const { sidecar, address } = await startOutboundToApi(t, (socket) => void sendTimes(socket, source, 64));

  const caller = await dial(t, address);
  const held = await readSlowly(
    caller,
    async () => (await sidecar.metric('scute_tcp_read_bytes_total', { peer: 'dst' })) - caller.bytesRead,
  );

  assert.equal(held.hash, hashOfTimes(source, 64));
  assert.ok(held.mostAhead < 12 * MIB, `the sidecar took up to ${held.mostAhead} bytes that the caller had not read`);
});

test('a writer is stopped while nobody reads', async (t) => {
  const application = await startTcpServer(t, (socket) => socket.pause());
  const { sidecar, address } = await startPair(t, application.address).then((pair) => ({ ...pair, sidecar: pair.outbound }));

  const caller = await dial(t, address);
  const block = Buffer.alloc(MIB);
  let given = 0;
  // Until the kernel, and so the sidecar, has taken nothing for a while.
  for (;;) {
    given += 1;
    const taken = await Promise.race([
      new Promise<boolean>((resolve) => caller.write(block, () => resolve(true))),
      new Promise<boolean>((resolve) => setTimeout(resolve, 400, false)),
    ]);
    if (!taken) break;
    assert.ok(given < 100, 'the writer was never stopped');
  }

  const read = await sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' });
  assert.ok(read < 30 * MIB, `the sidecar took ${read} bytes that nobody read`);
});

test('writes of one byte and of odd sizes arrive unchanged and in order', async (t) => {
  const application = await startEcho(t);
  const { address } = await startPair(t, application.address);
  const caller = await dial(t, address);
  caller.setNoDelay(true);
  const echoed = readAll(caller);

  const sent: Buffer[] = [];
  for (const size of [...Array.from({ length: 300 }, () => 1), 2, 3, 5, 1447, 1449, 4095, 16_383, 16_384, 16_385, 65_535, 65_537]) {
    const chunk = randomBytes(size);
    sent.push(chunk);
    caller.write(chunk);
    if (size === 1) await new Promise(setImmediate);
  }
  caller.end();

  assert.equal(sha256(await echoed), sha256(Buffer.concat(sent)));
});

test('a ping is answered at once: nothing waits for more bytes', async (t) => {
  const application = await startEcho(t);
  const { address } = await startPair(t, application.address);
  const caller = await dial(t, address);
  caller.setNoDelay(true);
  const times: number[] = [];

  for (let round = 0; round < 200; round++) {
    const startedAt = performance.now();
    caller.write('!');
    await once(caller, 'data');
    times.push(performance.now() - startedAt);
  }

  // Nagle's algorithm against delayed acknowledgements would make it 40 ms for nearly all. A quarter is enough: the machine may be busy.
  const quarter = times.toSorted((a, b) => a - b)[50] ?? Infinity;
  assert.ok(quarter < 20, `${quarter} ms`);
});

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function hashOfTimes(block: Uint8Array, times: number): string {
  const hash = createHash('sha256');
  for (let i = 0; i < times; i++) hash.update(block);
  return hash.digest('hex');
}

async function hashOf(socket: Socket): Promise<string> {
  const hash = createHash('sha256');
  socket.on('data', (chunk: Buffer) => hash.update(chunk));
  await once(socket, 'end');
  return hash.digest('hex');
}

async function send(socket: Socket, bytes: Buffer, size: number): Promise<void> {
  for (let at = 0; at < bytes.length; at += size) {
    if (!socket.write(bytes.subarray(at, at + size))) await once(socket, 'drain');
  }
  socket.end();
}

async function sendTimes(socket: Socket, block: Buffer, times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    if (!socket.write(block)) await once(socket, 'drain');
  }
  socket.end();
}

/** Reads to the end, with a pause after each 4 MiB, in which `ahead` says how many bytes the sidecar holds. */
async function readSlowly(socket: Socket, ahead: () => Promise<number>): Promise<{ hash: string; mostAhead: number }> {
  const hash = createHash('sha256');
  let sincePause = 0;
  let mostAhead = 0;
  let before = -1;
  let watching = Promise.resolve();
  socket.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    sincePause += chunk.length;
    if (sincePause < 4 * MIB) return;
    sincePause = 0;
    socket.pause();
    watching = (async () => {
      // Until the sidecar takes no more.
      for (let now = await ahead(); now !== before; now = await ahead()) {
        before = now;
        mostAhead = Math.max(mostAhead, now);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      socket.resume();
    })();
  });
  await once(socket, 'end');
  await watching;
  socket.end();
  return { hash: hash.digest('hex'), mostAhead };
}
