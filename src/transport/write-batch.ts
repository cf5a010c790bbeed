import type { Socket } from 'node:net';

/**
 * Bulk data is handed to a plain socket in one system call a turn of the event loop rather than one for each TLS record:
 * the calls, and waking whoever reads, cost more than the encryption. Small writes go at once, so that nobody waits.
 */
const FROM_BYTES = 8 * 1024;
const LIMIT_BYTES = 512 * 1024;

let held: Socket[] = [];

/** Writes, now or with the next ones of this turn. False asks the caller to stop until the socket drains. */
export function writeInBatches(socket: Socket, chunk: Uint8Array): boolean {
  if (socket.writableCorked === 0) {
    if (chunk.byteLength < FROM_BYTES) return socket.write(chunk);
    socket.cork();
    // Immediates run when all that had arrived was read.
    if (held.push(socket) === 1) setImmediate(release);
  }
  socket.write(chunk);
  if (socket.writableLength < LIMIT_BYTES) return true;
  socket.uncork();
  return !socket.writableNeedDrain;
}

function release(): void {
  const sockets = held;
  held = [];
  // One that reached the limit or was ended meanwhile is not corked any more.
  for (const socket of sockets) if (socket.writableCorked > 0) socket.uncork();
}
