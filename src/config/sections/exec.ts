/** The section for `scute exec`. Pure. */
import * as z from 'zod';
import type { ExecConfig, ExecUser } from '../config.ts';
import * as field from '../fields.ts';

/** A user of the system. */
export interface SystemUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

/** What the section must ask the system about. */
export interface UserLookups {
  /** The number of a group, or undefined if there is none such. */
  groupId(name: string): number | undefined;
  /** By name or number; undefined if there is none such. */
  user?(nameOrUid: string | number): SystemUser | undefined;
}

const MOST_ID = 4_294_967_294;
const id = z.union([z.int().min(0).max(MOST_ID), z.string().min(1)]);

/** Of a flag, a number is a text. */
function numberOf(text: string | number): number | undefined {
  if (typeof text === 'number') return text;
  return /^\d{1,10}$/.test(text) && Number(text) <= MOST_ID ? Number(text) : undefined;
}

export function createExecSection(lookups: UserLookups) {
  return z
    .strictObject({
      user: id.optional().meta({
        description:
          'the user that the application runs as, name or number, for which Scute must be root; that of Scute if left out, and then the application can read the memory of Scute, private keys and all',
      }),
      group: id.optional().meta({ description: 'its group, name or number; the one of `user` if left out. Other groups it has none' }),
      restartOnRotation: z.boolean().prefault(false).meta({
        description:
          'for an application that cannot take up another SVID while it runs: at each rotation it is asked to end (SIGTERM), awaited, and started anew, every 10 seconds at most',
      }),
      stopTimeout: field.timerDuration.prefault('10s').meta({
        description: 'how long the application has from a SIGTERM of Scute to its end; then it is killed',
        pattern: field.durationPattern,
      }),
      waitTimeout: field.durationOrOff.prefault('off').meta({
        description:
          'how long identity and listeners are waited for, before the application is started; then `scute exec` ends. `off`: for ever',
        pattern: field.durationOrOffPattern,
      }),
    })
    .prefault({})
    .transform((raw, context): ExecConfig => {
      const user = userOf(raw, lookups);
      if ('problem' in user) {
        context.addIssue({ code: 'custom', message: user.problem, path: [user.key], input: raw });
        return z.NEVER;
      }
      return {
        user: user.user,
        restartOnRotation: raw.restartOnRotation,
        stopTimeoutMs: raw.stopTimeout,
        waitTimeoutMs: raw.waitTimeout === 'off' ? undefined : raw.waitTimeout,
      };
    })
    .meta({ description: 'the application that `scute exec` runs; other commands do not heed it' });
}

interface RawUser {
  readonly user?: string | number | undefined;
  readonly group?: string | number | undefined;
}

type FoundUser = { readonly user: ExecUser | undefined } | { readonly key: 'user' | 'group'; readonly problem: string };

function userOf({ user, group }: RawUser, lookups: UserLookups): FoundUser {
  if (user === undefined)
    return group === undefined ? { user: undefined } : { key: 'group', problem: 'is for another user alone: set `user` as well' };
  const number = numberOf(user);
  const known = lookups.user?.(number ?? user);
  const uid = number ?? known?.uid;
  if (uid === undefined) return { key: 'user', problem: `there is no user ${JSON.stringify(user)}` };
  const gid = group === undefined ? known?.gid : (numberOf(group) ?? lookups.groupId(String(group)));
  if (gid !== undefined) return { user: { uid, gid, login: known && { name: known.name, home: known.home } } };
  if (group === undefined) return { key: 'group', problem: `is required: the system does not know the user ${uid}` };
  return { key: 'group', problem: `there is no group ${JSON.stringify(group)}` };
}
