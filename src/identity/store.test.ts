import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import type { HeldIdentity } from './snapshot.ts';
import { createIdentityStore } from './store.ts';

const authority = createTestAuthority();
const svid = svidOf(authority, 'spiffe://example.org/a');
const numbered = (generation: number): HeldIdentity => heldSnapshot([svid], [authority], generation);

test('there is no snapshot before the first is published', () => {
  const { view } = createIdentityStore();

  assert.equal(view.current(), undefined);
});

test('a reader sees the very snapshot that was published last', () => {
  const { view, publisher } = createIdentityStore();
  const second = numbered(2);

  publisher.publish(numbered(1));
  publisher.publish(second);

  assert.equal(view.current(), second);
});

test('a snapshot that is not newer than the one held is dropped, and nobody is told of it', () => {
  const { view, publisher } = createIdentityStore();
  const seen: number[] = [];
  view.subscribe(({ generation }) => seen.push(generation));

  for (const generation of [2, 1, 2, 3]) publisher.publish(numbered(generation));

  assert.deepEqual(seen, [2, 3]);
  assert.equal(view.current()?.generation, 3);
});

test('a subscriber is told of the current snapshot at once, and of no more after it has left', () => {
  const { view, publisher } = createIdentityStore();
  publisher.publish(numbered(1));
  const seen: number[] = [];

  const leave = view.subscribe(({ generation }) => seen.push(generation));
  publisher.publish(numbered(2));
  leave();
  publisher.publish(numbered(3));

  assert.deepEqual(seen, [1, 2]);
});

test('a subscriber that throws keeps nobody from hearing, and is a mistake that ends the process, whoever catches what publishing throws', async () => {
  const program = `
    import { createIdentityStore } from ${JSON.stringify(import.meta.resolve('./store.ts'))};
    const { view, publisher } = createIdentityStore();
    for (const name of ['first', 'second', 'third']) {
      view.subscribe(({ generation }) => {
        console.log(name, generation);
        if (name !== 'second') throw new Error('the mistake of the ' + name);
      });
    }
    try {
      publisher.publish({ generation: 1 });
    } catch {}
    console.log('published', view.current().generation);
    setTimeout(() => console.log('still there'), 60_000);
  `;

  const { code, stdout, stderr } = await new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
    execFile(process.execPath, ['--input-type=module', '--eval', program], (failure, out, errors) =>
      resolve({ code: failure?.code, stdout: out, stderr: errors }),
    );
  });

  assert.deepEqual(stdout.trim().split('\n'), ['first 1', 'second 1', 'third 1', 'published 1']);
  assert.equal(code, 1, stderr);
  assert.match(stderr, /the mistake of the first/);
});
