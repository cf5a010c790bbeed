import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRandom } from '../../../test/support/random.ts';
import { Half } from './half.ts';
import type { Wire } from './wire.ts';

/** A side that takes what its windows allow. */
function side(sendWindow: number) {
  const said = { text: '', ended: false, trailers: '' };
  const wire = {
    sendWindow,
    sendData(_: number, bytes: Buffer, start: number, end: number, ends: boolean) {
      assert.ok(!said.ended, 'nothing comes after the end');
      wire.sendWindow -= end - start;
      assert.ok(wire.sendWindow >= 0);
      said.text += bytes.toString('latin1', start, end);
      said.ended = ends;
    },
    sendBlock(_: number, block: Buffer, ends: boolean) {
      assert.ok(!said.ended);
      said.trailers = block.toString();
      said.ended = ends;
    },
  };
  return { said, wire, asWire: wire as unknown as Wire };
}

test('all that is pushed comes out in its order, however the windows open, and never more than they allow', () => {
  for (let seed = 1; seed <= 500; seed++) {
    const random = createRandom(seed);
    const { said, wire, asWire } = side(Math.floor(random() * 100));
    const half = new Half(Math.floor(random() * 100) - 20);
    let pushed = '';
    let passed = 0;
    const endsWith = random() < 0.5 ? 'trailers' : 'data';
    const steps = 3 + Math.floor(random() * 30);
    for (let step = 0; step < steps; step++) {
      if (random() < 0.5) {
        const piece = Buffer.from(String(step % 10).repeat(Math.floor(random() * (random() < 0.1 ? 40_000 : 60))));
        pushed += piece.toString();
        passed += half.push(random() < 0.1 ? undefined : asWire, 1, piece, 0, piece.length, endsWith === 'data' && step === steps - 1);
        piece.fill('#');
      } else {
        half.window += Math.floor(random() * 80) - 10;
        wire.sendWindow += Math.floor(random() * 80);
        passed += half.flush(asWire, 1);
      }
      assert.equal(passed, said.text.length, `seed ${seed}`);
      assert.equal(half.heldBytes, pushed.length - passed, `seed ${seed}`);
      assert.ok(half.window >= 0 || half.heldBytes >= 0);
    }
    if (!half.hasEnded) {
      if (endsWith === 'trailers') half.endWith(asWire, 1, Buffer.from('last'));
      else passed += half.push(asWire, 1, Buffer.alloc(0), 0, 0, true);
    }
    assert.equal(said.ended, half.isDone);
    half.window = 1e9;
    wire.sendWindow = 1e9;
    half.flush(asWire, 1);
    assert.deepEqual(
      [said.text, said.ended, said.trailers, half.heldBytes, half.isDone],
      [pushed, true, endsWith === 'trailers' ? 'last' : '', 0, true],
      `seed ${seed}`,
    );
  }
});

test('crumbs that are held share their memory', () => {
  const { asWire } = side(0);
  const half = new Half(0);
  const before = process.memoryUsage();
  for (let count = 0; count < 500_000; count++) half.push(asWire, 1, Buffer.from('x'), 0, 1, false);
  const after = process.memoryUsage();
  assert.equal(half.heldBytes, 500_000);
  assert.ok(after.arrayBuffers - before.arrayBuffers < 4_000_000, `${after.arrayBuffers - before.arrayBuffers} octets`);
  assert.equal(half.drop(), 500_000);
});
