/** The sets of files of a configuration. */
import type { FileSetConfig, JwtFileConfig, NotifyConfig } from '../config/file-sets.ts';
import type { IdentityView } from '../identity/store.ts';
import type { Clock } from '../lib/clock.ts';
import { oneAtATime, type InTurn } from '../lib/in-turn.ts';
import type { Service } from '../lib/service.ts';
import type { FilesEvents } from '../telemetry/events/files-events.ts';
import type { FileSetStatus } from '../telemetry/log/files-records.ts';
import { Notifier } from './notifier.ts';
import { applicationTarget, type ToldApplication } from './notify-application.ts';
import { commandTarget, type EndGroup } from './notify-command.ts';
import { httpTarget } from './notify-http.ts';
import { signalTarget } from './notify-signal.ts';
import type { NotifyTarget } from './notify-target.ts';
import { FileSet, type WatchedJwt } from './set.ts';
import { createSetWriter, type SetWriter } from './writer.ts';

export interface FilesServiceOptions {
  readonly sets: readonly FileSetConfig[];
  readonly identity: IdentityView;
  /** The token that is held for a file of one of the sets. */
  readonly tokenOf: (file: JwtFileConfig) => WatchedJwt;
  readonly events: FilesEvents;
  readonly clock: Clock;
  readonly random: () => number;
  /** Commands that run do not outlive the process if it ends at once. */
  readonly onOurEnd?: OnOurEnd | undefined;
  /** By name of a set, who is told of each replacement besides those of the configuration: a program that we run. */
  readonly alsoTell?: ReadonlyMap<string, readonly NotifyTarget[]> | undefined;
  /** Required if one of the sets tells it. */
  readonly application?: ToldApplication | undefined;
}

/** Calls `listener` when this process ends, whatever way it does but by SIGKILL. Returns the way to stop. */
export type OnOurEnd = (listener: () => void) => () => void;

export interface FilesService extends Service {
  status(): readonly FileSetStatus[];
}

export function createFilesService({ sets, alsoTell, onOurEnd, tokenOf, ...parts }: FilesServiceOptions): FilesService {
  const { events, clock, random } = parts;
  const groups = new Set<EndGroup>();
  const turns = new Map<string, InTurn>();
  const made = sets.map((config) => {
    const targets = [
      ...config.notify.map((notify) => targetOf(notify, config.name, { ...parts, groups })),
      ...(alsoTell?.get(config.name) ?? []),
    ];
    const notifiers = targets.map(
      (target) => new Notifier({ set: config.name, target, delayMs: config.notifyDelayMs, events, clock, random }),
    );
    const turn = turns.get(config.directory) ?? oneAtATime();
    turns.set(config.directory, turn);
    const writer = takingTurns(createSetWriter({ config }), turn);
    return new FileSet({ config, writer, tokens: config.jwtSvids.map(tokenOf), notifiers, ...parts });
  });
  const stopping = new AbortController();
  let running: readonly Promise<void>[] = [];
  let leave: (() => void) | undefined;
  return {
    name: 'files',
    status: () => made.map((set) => set.status),
    start() {
      leave = onOurEnd?.(() => {
        for (const endGroup of groups) endGroup('SIGKILL');
      });
      running = made.map((set) => set.run(stopping.signal));
      return Promise.resolve();
    },
    async stop() {
      stopping.abort();
      await Promise.all(running);
      leave?.();
      const results = await Promise.allSettled(running.length === 0 ? [] : made.map((set) => set.cleanUp()));
      running = [];
      const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
      if (failures.length > 0) throw new AggregateError(failures, 'not every set of files could be taken away');
    },
  };
}

/** Of sets in one directory, which only spiffe-helper's may be, one takes what another is writing for what a crash left. */
function takingTurns(writer: SetWriter, turn: InTurn): SetWriter {
  return {
    replace: (files) => turn(() => writer.replace(files)),
    isIntact: () => writer.isIntact(),
    tidy: () => turn(() => writer.tidy()),
    cleanUp: () => turn(() => writer.cleanUp()),
  };
}

function targetOf(
  notify: NotifyConfig,
  set: string,
  {
    clock,
    events,
    application,
    groups,
  }: Pick<FilesServiceOptions, 'clock' | 'events' | 'application'> & { readonly groups: Set<EndGroup> },
): NotifyTarget {
  switch (notify.kind) {
    case 'signal':
      return signalTarget(notify);
    case 'command':
      return commandTarget({ ...notify, clock, groups, onOutput: (output) => events.commandOutput(set, notify.command[0], output) });
    case 'http':
      return httpTarget({ ...notify, clock });
    case 'child':
      if (application === undefined) throw new Error(`${set}: there is no application to tell`);
      return applicationTarget(application, notify.signal);
  }
}
