import type { Clock } from '../lib/clock.ts';
import type { Connection } from '../transport/connection.ts';
import type { Session } from './session.ts';

/** How long the other side may take to agree to the end. */
const GRACE_MS = 1000;

/** Ends a connection that has nowhere to lead: the other side sees a clean end, and what it still sends is thrown away. */
export function closeInOrder(session: Session, connection: Connection, clock: Clock, done: () => void): void {
  const timer = clock.after(GRACE_MS, () => connection.abort());
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
