/** A failure of the world (a stream broke, a port was taken). Subclasses live beside what throws them. */
export abstract class ScuteError extends Error {
  /** Stable, for switches and logs: never match on message text. */
  abstract readonly code: string;

  /** True if the same attempt may succeed later without anything changing on our side. */
  shouldRetry(): boolean {
    return false;
  }
}

/** The text of anything thrown, for a log line or a sentence. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** The system or library code of anything thrown (`ECONNREFUSED`, `ERR_SSL_…`), if it has one. */
export function codeOf(thrown: unknown): string | undefined {
  if (typeof thrown === 'object' && thrown !== null && 'code' in thrown && typeof thrown.code === 'string') return thrown.code;
  return undefined;
}
