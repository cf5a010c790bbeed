import type { ListenOptions, Server } from 'node:net';

/** Binds `server`. What happens to it later, as that a connection cannot be accepted (no file descriptor left), is no reason to stop: the next may work. */
export function listening(server: Server, where: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      server.on('error', () => undefined);
      resolve();
    });
  });
}
