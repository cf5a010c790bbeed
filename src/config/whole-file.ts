import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { codeOf, messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { ConfigIssue } from './issue.ts';

/** Some 500 lines, which take a millisecond. */
const CHUNK_BYTES = 32_768;

/**
 * Gives all bytes of a regular file to `push`, a part at a time, until that says false. What is wrong: it cannot be read, or was changed
 * meanwhile; undefined if nothing is.
 */
export async function readWhole(file: string, push: (bytes: Buffer) => boolean): Promise<ConfigIssue | undefined> {
  try {
    // A pipe without a writer would otherwise hold up a thread for ever.
    await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const before = await handle.stat({ bigint: true });
    if (!before.isFile()) return unread(file, 'is not a regular file');
    const bytes = Buffer.allocUnsafe(CHUNK_BYTES);
    for (;;) {
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, null);
      if (bytesRead === 0) break;
      if (!push(bytes.subarray(0, bytesRead))) return undefined;
    }
    const after = await handle.stat({ bigint: true });
    return after.size === before.size && after.mtimeNs === before.mtimeNs ? undefined : unread(file, CHANGED);
  } catch (cause) {
    return unreadable(file, cause);
  }
}

/** Of descriptors, memory, or a disk or server behind the file. */
const PASSING: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EIO', 'EAGAIN', 'EBUSY', 'ESTALE', 'ETIMEDOUT']);

export function unreadable(file: string, cause: unknown): ConfigIssue {
  const problem = unread(file, `cannot be read: ${messageOf(cause)}`);
  return PASSING.has(codeOf(cause) ?? '') ? { ...problem, mayPass: true } : problem;
}

export const CHANGED = 'was changed while it was read';

export function unread(file: string, message: string): ConfigIssue {
  return { source: file, line: undefined, column: undefined, path: '', message };
}

/** The text of a regular file, bounded, and UTF-8 or refused. */
export async function readText(file: string, maxBytes: number): Promise<Result<string, ConfigIssue>> {
  const parts: Buffer[] = [];
  let length = 0;
  const problem = await readWhole(file, (bytes) => {
    length += bytes.length;
    parts.push(Buffer.from(bytes));
    return length <= maxBytes;
  });
  if (problem !== undefined) return err(problem);
  if (length > maxBytes) return err(unread(file, `is larger than ${maxBytes} bytes`));
  try {
    return ok(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts)));
  } catch {
    return err(unread(file, 'is not UTF-8 text'));
  }
}
