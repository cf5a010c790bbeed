import type { FileSetStatus } from '../telemetry/files-records.ts';
import type { FilesService, FilesServiceOptions } from './service.ts';

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
