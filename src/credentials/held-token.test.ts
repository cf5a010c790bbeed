import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { CredentialProblem } from '../telemetry/log/credential-records.ts';
import { HeldToken, MAX_WAIT_MS, type Token } from './held-token.ts';

const PROBLEM: CredentialProblem = { reason: 'unreachable', detail: 'nobody listens' };

/** One whose fetches the test answers, with the middle of all chances. */
function stage() {
  const clock = new FakeClock();
  const flights: { readonly answer: (outcome: Result<Token, CredentialProblem>) => Promise<void>; readonly signal: AbortSignal }[] = [];
  const told: { readonly ok: boolean; readonly nextInMs: number }[] = [];
  const held = new HeldToken({
    clock,
    random: () => 0.5,
    fetch: (signal) =>
      new Promise((resolve) => {
        flights.push({
          signal,
          async answer(outcome) {
            resolve(outcome);
            // Whoever waits for the promise comes first.
            for (let turn = 0; turn < 3; turn++) await Promise.resolve();
          },
        });
      }),
    fetched: ({ ok: isOk }, nextInMs) => told.push({ ok: isOk, nextInMs }),
  });
  const give = (lifeMs: number, value = `token-${flights.length}`): Promise<void> =>
    flights.at(-1)?.answer(ok({ value, expiresAtMs: clock.now() + lifeMs })) ?? Promise.resolve();
  const fail = (problem = PROBLEM): Promise<void> => flights.at(-1)?.answer(err(problem)) ?? Promise.resolve();
  return { clock, flights, told, held, give, fail, value: () => held.current()?.value };
}

/** One that holds a token which lives for ten minutes. */
async function startHeld() {
  const made = stage();
  made.held.start();
  made.held.retry();
  await made.give(600_000);
  return made;
}

test('a token is renewed at half of its life, and the one before serves until another has come', async () => {
  const { clock, flights, held, give, value, told } = await startHeld();
  assert.equal(told[0]?.nextInMs, 300_000);
  clock.advance(299_999);
  assert.equal(flights.length, 1);
  clock.advance(1);
  assert.equal(flights.length, 2);
  assert.equal(value(), 'token-1');
  await give(600_000);
  assert.equal(value(), 'token-2');
  held.stop();
});

test('many who find no token wait for one fetch', async () => {
  const { flights, held, give } = stage();
  held.start();
  held.retry();
  const answers: (CredentialProblem | undefined | 'none')[] = [];
  for (let count = 0; count < 100; count++) held.wait((problem) => answers.push(problem));
  held.retry();
  assert.equal(flights.length, 1);
  await give(1000);
  assert.deepEqual(answers, Array.from({ length: 100 }).fill(undefined));
  held.stop();
});

test('an expired token is never given out, whichever of the clocks says that it has expired', async () => {
  const { clock, flights, held, give, fail, value } = await startHeld();
  clock.advance(300_000);
  await fail();
  clock.advance(297_999);
  assert.equal(value(), 'token-1');
  clock.advance(1);
  assert.equal(value(), undefined);
  await give(600_000);
  assert.ok(value() !== undefined);
  // The machine slept, or its clock was set.
  const before = flights.length;
  clock.jump(3_600_000);
  assert.equal(value(), undefined);
  held.wait(() => undefined);
  assert.equal(flights.length, before + 1);
  held.stop();
});

test('a clock that was set back makes no token live longer', async () => {
  const { clock, held, fail, value } = await startHeld();
  clock.jump(-3_600_000);
  clock.advance(300_000);
  await fail();
  clock.advance(297_999);
  assert.equal(value(), 'token-1');
  clock.advance(1);
  assert.equal(value(), undefined);
  held.stop();
});

test('failures are tried again later each time, up to half a minute, and a success begins anew', async () => {
  const { clock, flights, told, held, give, fail } = stage();
  held.start();
  held.retry();
  for (let count = 1; count <= 8; count++) {
    await fail();
    clock.advance(told.at(-1)?.nextInMs ?? 0);
    assert.equal(flights.length, count + 1);
  }
  assert.deepEqual(
    told.map(({ nextInMs }) => nextInMs),
    [750, 1500, 3000, 6000, 12_000, 22_500, 22_500, 22_500],
  );
  await give(600_000);
  clock.advance(300_000);
  await fail();
  assert.equal(told.at(-1)?.nextInMs, 750);
  held.stop();
});

test('who comes in the first moments waits although a fetch failed, and who comes later is told why at once', async () => {
  const { clock, held, fail } = stage();
  held.start();
  const told: (string | undefined)[] = [];
  const wait = (): unknown => held.wait((problem) => void told.push(problem?.reason));
  const unavailable = { reason: 'agent_unavailable', detail: 'no agent yet' } as const;
  wait();
  held.retry();
  await fail(unavailable);
  wait();
  assert.deepEqual(told, []);
  clock.advance(MAX_WAIT_MS);
  assert.deepEqual(told, ['agent_unavailable', 'agent_unavailable']);
  await fail(unavailable);
  wait();
  assert.deepEqual(told, ['agent_unavailable', 'agent_unavailable', 'agent_unavailable']);
  held.stop();
});

test('who comes in the first moments is told at once that a token endpoint fails', async () => {
  const { held, fail } = stage();
  held.start();
  held.retry();
  const told: (string | undefined)[] = [];
  held.wait((problem) => void told.push(problem?.reason));
  await fail();
  held.wait((problem) => void told.push(problem?.reason));
  assert.deepEqual(told, ['unreachable', 'unreachable']);
  held.stop();
});

test('nobody waits for a slow fetch for longer than the bound, and who leaves is not told', async () => {
  const { clock, held } = stage();
  held.start();
  clock.advance(60_000);
  const told: (string | undefined)[] = [];
  held.wait((problem) => void told.push(problem?.reason));
  held.wait((problem) => void told.push(`left ${problem?.reason}`)).abort();
  clock.advance(MAX_WAIT_MS - 1);
  assert.deepEqual(told, []);
  clock.advance(1);
  assert.deepEqual(told, ['identity_not_ready']);
  held.stop();
});

test('what was withdrawn is not used, what comes of the fetch that was under way neither, and it may come back', async () => {
  const { clock, flights, held, give, value } = await startHeld();
  clock.advance(300_000);
  const [, underWay] = flights;
  held.withdraw({ reason: 'identity_not_ready', detail: 'PermissionDenied' });
  assert.equal(value(), undefined);
  assert.equal(underWay?.signal.aborted, true);
  await underWay.answer(ok({ value: 'late', expiresAtMs: clock.now() + 600_000 }));
  assert.equal(value(), undefined);
  held.retry();
  assert.equal(flights.length, 3);
  await give(600_000);
  assert.equal(value(), 'token-3');
  held.stop();
});

test('a token that came expired is a failure', async () => {
  const { held, give, value } = stage();
  held.start();
  held.retry();
  await give(-1);
  assert.equal(value(), undefined);
  assert.equal(held.status.problem?.reason, 'expired');
  held.stop();
});

test('a token of an hour is renewed although no timer lasts that long, and one of a year does not fire at once', async () => {
  const { clock, flights, held, give, told } = stage();
  held.start();
  held.retry();
  await give(366 * 86_400_000);
  for (let hours = 0; hours < 24; hours++) clock.advance(3_600_000);
  assert.equal(flights.length, 1);
  for (let passed = 86_400_000; passed < (told[0]?.nextInMs ?? 0); passed += 3_600_000) clock.advance(3_600_000);
  assert.equal(flights.length, 2);
  held.stop();
});

test('nothing is left of it when it was stopped', async () => {
  const { clock, held, flights, value } = await startHeld();
  clock.advance(300_000);
  held.stop();
  assert.equal(flights[1]?.signal.aborted, true);
  assert.equal(value(), undefined);
  assert.equal(clock.armed, 0);
});

test('whoever is told of a token that has ended meanwhile waits for the next, and is not told of this one again', async () => {
  const { clock, held, give } = stage();
  held.start();
  held.retry();
  let told = 0;
  const ask = (): void => {
    if (++told > 100) throw new Error('told of one token again and again');
    if (held.current() === undefined) held.wait(ask);
  };
  held.wait(() => clock.advance(1000));
  for (let asking = 0; asking < 10; asking++) held.wait(ask);

  await give(400);

  assert.equal(told, 10);
  held.stop();
});

test('a token of which nothing is left to use is none', async () => {
  const { held, give, told, value } = stage();
  held.start();
  held.retry();

  await give(200);

  assert.deepEqual([value(), told.map(({ ok: isOk }) => isOk)], [undefined, [false]]);
  held.stop();
});

test('a fetch that fails by a mistake of ours is one that failed, and is tried again', async () => {
  const clock = new FakeClock();
  let fetches = 0;
  const held = new HeldToken({
    clock,
    random: () => 0.5,
    fetch: () => Promise.reject(new Error(`a mistake ${++fetches}`)),
    fetched: () => undefined,
  });
  held.start();
  held.retry();
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
  assert.equal(held.current(), undefined);

  clock.advance(2000);

  assert.equal(fetches, 2);
  held.stop();
});
