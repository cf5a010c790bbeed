/** The sets of files of a configuration. */
import type { FileSetConfig, NotifyConfig } from '../config/file-sets.ts';
import type { IdentityView } from '../identity/store.ts';
import type { Clock } from '../lib/clock.ts';
import type { Service } from '../lib/service.ts';
import type { FilesEvents } from '../telemetry/events/files-events.ts';
import type { FileSetStatus } from '../telemetry/log/files-records.ts';
import { Notifier } from './notifier.ts';
import { applicationTarget, type ToldApplication } from './notify-application.ts';
import { commandTarget } from './notify-command.ts';
import { httpTarget } from './notify-http.ts';
import { signalTarget } from './notify-signal.ts';
import type { NotifyTarget } from './notify-target.ts';
import { FileSet } from './set.ts';
import { createSetWriter } from './writer.ts';

export interface FilesServiceOptions {
  readonly sets: readonly FileSetConfig[];
  readonly identity: IdentityView;
  readonly events: FilesEvents;
  readonly clock: Clock;
  readonly random: () => number;
  /** Told of each replacement of every set, besides those of the configuration: a program that we run. */
  readonly alsoTell?: readonly NotifyTarget[] | undefined;
  /** Required if one of the sets tells it. */
  readonly application?: ToldApplication | undefined;
}

export interface FilesService extends Service {
  status(): readonly FileSetStatus[];
}

export function createFilesService({ sets, alsoTell = [], ...parts }: FilesServiceOptions): FilesService {
  const { events, clock, random } = parts;
  const made = sets.map((config) => {
    const targets = [...config.notify.map((notify) => targetOf(notify, config.name, parts)), ...alsoTell];
    const notifiers = targets.map(
      (target) => new Notifier({ set: config.name, target, delayMs: config.notifyDelayMs, events, clock, random }),
    );
    return new FileSet({ config, writer: createSetWriter({ config }), notifiers, ...parts });
  });
  const stopping = new AbortController();
  let running: readonly Promise<void>[] = [];
  return {
    name: 'files',
    status: () => made.map((set) => set.status),
    start() {
      running = made.map((set) => set.run(stopping.signal));
      return Promise.resolve();
    },
    async stop() {
      stopping.abort();
      await Promise.all(running);
      const results = await Promise.allSettled(running.length === 0 ? [] : made.map((set) => set.cleanUp()));
      running = [];
      const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
      if (failures.length > 0) throw new AggregateError(failures, 'not every set of files could be taken away');
    },
  };
}

function targetOf(
  notify: NotifyConfig,
  set: string,
  { clock, events, application }: Pick<FilesServiceOptions, 'clock' | 'events' | 'application'>,
): NotifyTarget {
  switch (notify.kind) {
    case 'signal':
      return signalTarget(notify);
    case 'command':
      return commandTarget({ ...notify, clock, onOutput: (output) => events.commandOutput(set, notify.command[0], output) });
    case 'http':
      return httpTarget({ ...notify, clock });
    case 'child':
      if (application === undefined) throw new Error(`${set}: there is no application to tell`);
      return applicationTarget(application, notify.signal);
  }
}
