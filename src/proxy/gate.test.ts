import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { emptyCounters } from '../telemetry/log/records.ts';
import type { AcceptedConnection, WaitingHandler } from '../transport/connection.ts';
import { Gate } from './gate.ts';
import { WaitingRoom } from './waiting-room.ts';

const STEPS = 3000;
/** Less than those that wait may say together. */
const MAX_KEPT = 8192;
const never = (): never => assert.fail('the gate reads nothing');

type State = 'waiting' | 'handshaking' | 'admitted' | 'open' | 'gone';

/** One connection as a listener has it, and what ends its waiting. */
interface Model {
  readonly accepted: AcceptedConnection;
  state: State;
  handler: WaitingHandler | undefined;
  /** If it waits, it has a turn only when it has said something. */
  mustSpeak: boolean;
  again: (() => void) | undefined;
}

for (const clientSpeaksFirst of [true, false]) {
  const who = clientSpeaksFirst ? 'clients that speak first' : 'clients that may be silent';
  test(`every place is given back once, and no place is free while somebody waits for it, with ${who}`, () => {
    let drawn = 0;
    const random = (): number => Number.parseInt(hash('sha256', `${clientSpeaksFirst} ${(drawn += 1)}`).slice(0, 12), 16) / 2 ** 48;
    const clock = new FakeClock();
    const counters = emptyCounters();
    let limits = { maxConnections: 5, maxHandshakes: 4, maxWaiting: 6, handshakeTimeoutMs: 1000 };
    const models = new Map<AcceptedConnection, Model>();
    const modelOf = (accepted: AcceptedConnection): Model => {
      const model = models.get(accepted);
      assert.ok(model);
      return model;
    };
    const gone = (accepted: AcceptedConnection): void => {
      const model = modelOf(accepted);
      assert.equal(model.state, 'waiting', 'let go twice, or after it had begun');
      model.state = 'gone';
    };
    const room = new WaitingRoom(MAX_KEPT);
    const gate = new Gate({
      clock,
      counters,
      clientSpeaksFirst,
      room,
      limits: () => limits,
      begin(accepted) {
        const model = modelOf(accepted);
        assert.equal(model.state, 'waiting');
        assert.ok(model.handler === undefined || !model.mustSpeak, 'one that waited, and was silent, has a place');
        model.state = 'handshaking';
        const fate = random();
        // Not ready, or an immediate failure: its place is given back within the call.
        if (fate < 0.2) end(model);
        else if (fate < 0.3) ask(model);
      },
      refuse: gone,
      left: gone,
    });
    const ask = (model: Model): void => {
      model.again = () => {
        assert.equal(model.state, 'admitted');
        // Judged anew: refused now and then.
        if (random() < 0.2) {
          model.state = 'handshaking';
          end(model);
        } else ask(model);
      };
      const { again } = model;
      if (!gate.takePlace(again)) {
        model.state = 'admitted';
        return;
      }
      model.state = 'open';
      gate.handshakeEnded();
    };
    const end = (model: Model): void => {
      const { state, again } = model;
      model.state = 'gone';
      if (state === 'open') gate.placeFree();
      else {
        if (state === 'admitted' && again !== undefined) gate.forget(again);
        gate.handshakeEnded();
      }
    };
    const arrive = (): void => {
      const accepted: AcceptedConnection = {
        remoteAddress: '127.0.0.1:1',
        localAddress: '127.0.0.1:2',
        readAhead: never,
        open: never,
        openTls: never,
        hasWaited: false,
        wait(handler) {
          modelOf(accepted).handler = handler;
        },
        abort: never,
      };
      models.set(accepted, { accepted, state: 'waiting', handler: undefined, mustSpeak: clientSpeaksFirst, again: undefined });
      gate.arrive(accepted);
    };
    const some = (...states: readonly State[]): Model | undefined => {
      const found = [...models.values()].filter(({ state }) => states.includes(state));
      return found[Math.floor(random() * found.length)];
    };
    const count = (...states: readonly State[]): number => [...models.values()].filter(({ state }) => states.includes(state)).length;
    const check = (): void => {
      assert.deepEqual(
        { handshaking: counters.handshaking, open: counters.open, waiting: counters.waiting },
        { handshaking: count('handshaking', 'admitted'), open: count('open'), waiting: count('waiting') },
      );
      const heard = [...models.values()].filter(({ state, mustSpeak }) => state === 'waiting' && !mustSpeak).length;
      const placesFree = counters.open < limits.maxConnections;
      assert.ok(!(placesFree && count('admitted') > 0), 'an admitted peer waits beside a free place');
      assert.ok(!(placesFree && counters.handshaking < limits.maxHandshakes && heard > 0), 'one waits beside a free place');
      assert.ok(room.bytes <= MAX_KEPT);
      for (const [accepted, { state }] of models) if (state === 'gone') models.delete(accepted);
    };

    for (let step = 0; step < STEPS; step++) {
      const what = random();
      if (what < 0.4) arrive();
      else if (what < 0.55) {
        const model = some('waiting');
        const fate = random();
        if (model !== undefined && fate < 0.8) {
          model.mustSpeak = false;
          model.handler?.kept(1 + Math.floor(random() * 4096));
        } else if (fate < 0.9) {
          model?.handler?.ended();
          if (!clientSpeaksFirst && model !== undefined) assert.equal(model.state, 'waiting', 'it may still read');
        } else model?.handler?.closed();
      } else if (what < 0.7) {
        const model = some('handshaking');
        if (model !== undefined) ask(model);
      } else if (what < 0.94) {
        const model = some('handshaking', 'admitted', 'open');
        if (model !== undefined) end(model);
      } else if (what < 0.97) {
        clock.advance(400);
        assert.ok(counters.waiting <= clock.armed, 'somebody waits without a timer');
      } else {
        const upTo = (limit: number): number => 1 + Math.floor(random() * limit);
        limits = { maxConnections: upTo(8), maxHandshakes: upTo(8), maxWaiting: upTo(10), handshakeTimeoutMs: 1000 };
        gate.limitsChanged();
      }
      check();
    }
    gate.close('draining', 'the test ends');
    for (let model = some('handshaking', 'admitted', 'open'); model !== undefined; model = some('handshaking', 'admitted', 'open'))
      end(model);
    check();
    assert.deepEqual([counters.handshaking, counters.open, counters.waiting, models.size, clock.armed, room.bytes], [0, 0, 0, 0, 0, 0]);
  });
}
