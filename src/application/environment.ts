import type { ExecUser } from '../config/config.ts';

/** What a service manager told Scute, and Scute alone: who has these speaks for it, or takes sockets of it for its own. */
const OF_SCUTE =
  /^(?:SCUTE_.*|NOTIFY_SOCKET|WATCHDOG_(?:PID|USEC)|LISTEN_(?:FDS|FDNAMES|PID|PIDFDID)|FDSTORE|CREDENTIALS_DIRECTORY|MAINPID)$/;

/** The environment of the application: that of Scute, but for what is Scute's own; of another user, with the home of that. */
export function applicationEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  user: ExecUser | undefined,
): Readonly<Record<string, string>> {
  const own = Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined && !OF_SCUTE.test(entry[0]));
  const login = user?.login;
  return { ...Object.fromEntries(own), ...(login && { HOME: login.home, USER: login.name, LOGNAME: login.name }) };
}
