import type { FileSetConfig } from '../config/file-sets.ts';
import type { FileSetStatus } from '../telemetry/log/files-records.ts';
import type { FilesService, FilesServiceOptions } from './service.ts';

/** Descriptors that may be open at once: of a set that is written directories and a file, of each program that is told its output. */
export function filesNeeded(sets: readonly FileSetConfig[]): number {
  return sets.reduce((sum, { notify }) => sum + 4 + 3 * notify.length, 0);
}

/** The sets of files, and with them what starts programs and speaks HTTP, which are loaded when the addresses are bound. */
export function filesService(options: FilesServiceOptions): FilesService {
  let service: FilesService | undefined;
  return {
    name: 'files',
    status: (): readonly FileSetStatus[] => service?.status() ?? [],
    async start(signal) {
      const { createFilesService } = await import('./service.ts');
      service = createFilesService(options);
      await service.start(signal);
    },
    async stop(deadline) {
      await service?.stop(deadline);
    },
  };
}
