/** Where a section listens, as a socket. Pure. */
import type { SocketConfig } from '../config.ts';
import * as field from '../fields.ts';

const DEFAULT_SOCKET_MODE = 0o600;

/** What every section that may listen on a Unix socket has. */
export function createSocketFields(group: ReturnType<typeof field.numbered>) {
  return {
    socketMode: field.socketMode
      .optional()
      .meta({ description: 'permission bits of a Unix socket, in quotes; `"0600"` if left out', pattern: '^0?[0-7]{3}$' }),
    socketGroup: group.optional().meta({ description: 'group of a Unix socket, name or number; that of the process if left out' }),
  };
}

export type SocketFields = ReturnType<typeof createSocketFields>;

/** The socket of a section that was judged. */
export function socketOf(
  raw: Pick<SocketConfig, 'listen'> & { socketMode?: number | undefined; socketGroup?: number | undefined },
): SocketConfig {
  return { listen: raw.listen, socketMode: raw.socketMode ?? DEFAULT_SOCKET_MODE, socketGid: raw.socketGroup };
}
