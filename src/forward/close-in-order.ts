import type { Clock } from '../lib/clock.ts';
import type { Connection } from '../transport/connection.ts';
import { PART_GRACE_MS } from './grace.ts';
import type { Session } from './session.ts';

/** Ends a connection that has nowhere to lead: the other side sees a clean end, and what it still sends is thrown away. */
export function closeInOrder(session: Session, connection: Connection, clock: Clock, done: () => void): void {
  const timer = clock.after(PART_GRACE_MS, () => connection.abort());
  session.drop = () => connection.abort();
  connection.start({
    data: () => undefined,
    ended: () => undefined,
    drained: () => undefined,
    closed() {
      timer.cancel();
      done();
    },
  });
  connection.endWrite();
}
