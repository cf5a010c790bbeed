/** Sockets that a service manager bound and passes on (sd_listen_fds(3)), by name. */
import { err, ok, type Result } from '../lib/result.ts';

/** The first descriptor that may be passed: SD_LISTEN_FDS_START. */
const FIRST = 3;
/** More than anybody passes, and far fewer than would keep us from anything else. */
const MOST = 1024;

/**
 * Descriptors by their names. None if they are for another process: the variables are inherited by whoever we were started by. The error is a
 * sentence.
 */
export function passedSockets(env: Readonly<Record<string, string | undefined>>, pid: number): Result<ReadonlyMap<string, number>, string> {
  const { LISTEN_PID: forPid, LISTEN_FDS: count, LISTEN_FDNAMES: named } = env;
  if (forPid !== String(pid) || count === undefined) return ok(new Map());
  if (!/^\d{1,4}$/.test(count) || Number(count) > MOST)
    return err(`LISTEN_FDS is ${JSON.stringify(count)}, and not a number up to ${MOST}`);
  if (Number(count) === 0) return ok(new Map());
  if (named === undefined) return err('LISTEN_FDNAMES is missing: name each socket after its listener (FileDescriptorName=)');
  const names = named.split(':');
  if (names.length !== Number(count)) return err(`LISTEN_FDNAMES names ${names.length} sockets, and LISTEN_FDS says ${count}`);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) return err(`LISTEN_FDNAMES has ${JSON.stringify(twice)} twice: a listener has one socket`);
  return ok(new Map(names.map((name, index) => [name, FIRST + index])));
}

/** Why sockets cannot be used: each must be that of a listener. */
export function activationProblem(passed: ReadonlyMap<string, number>, listeners: readonly string[]): string | undefined {
  const unknown = [...passed.keys()].find((name) => !listeners.includes(name));
  if (unknown === undefined) return undefined;
  return `the service manager passes a socket named ${JSON.stringify(unknown)} (FileDescriptorName=), and there is no such listener; there ${listeners.length === 0 ? 'is none' : `is ${listeners.join(', ')}`}`;
}
