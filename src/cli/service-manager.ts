/** How systemd is told how we are. Loaded only where it wants to hear it. */
import type { App } from '../app.ts';
import { systemClock } from '../lib/clock.ts';
import { Manager } from '../systemd/manager.ts';
import { createTell, watchdogMs } from '../systemd/notify.ts';

/** `socket` is NOTIFY_SOCKET. */
export function managerOf(app: App, socket: string, env: Readonly<Record<string, string | undefined>>): Manager {
  return new Manager({
    tell: createTell(socket, env),
    clock: systemClock,
    events: app.events.manager,
    watched: app,
    watchdogMs: watchdogMs(env, process.pid),
  });
}
