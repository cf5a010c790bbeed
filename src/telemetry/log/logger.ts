import { isatty } from 'node:tty';
import { pino } from 'pino';
import type { LogFormat, LogLevel } from '../../config/config.ts';
import { codeOf } from '../../lib/errors.ts';
import { createLogOutput, sharedDescriptor, type LogOutput } from './log-output.ts';
import { scrub } from './scrub.ts';

export type LogFields = Readonly<Record<string, unknown>>;

/** Constant text and snake_case fields: `log.info({ peer_id }, 'peer denied')`. Never key material. */
export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  fatal(fields: LogFields, message: string): void;
  /** A line whose fields are JSON members already, and hold nothing that `scrub` would change: for what happens at each connection or request. */
  members(level: LogLevel, members: string, message: string): void;
  /** False lets a caller skip the work of a line that nobody would see. */
  isLevelEnabled(level: LogLevel): boolean;
}

/** Where finished lines go; each ends with a newline. */
export interface LogDestination {
  write(line: string): void;
  /** Somebody is watching: the same as standard output, when that is a terminal. */
  readonly isTerminal?: boolean;
  /** Everything that was written is on its way before this returns. */
  flushSync?(): void;
}

/** Standard output is ours alone; standard error is shared with an application. */
export type LogStream = 'stdout' | 'shared-stderr';

export interface LoggerOptions {
  readonly level: LogLevel;
  /** `auto` is pretty on a terminal, JSON elsewhere. */
  readonly format: LogFormat;
  /** Where standard output is another's, the log goes to standard error. `destination` goes before it. */
  readonly stream?: LogStream | undefined;
  /** Instead of a stream. */
  readonly destination?: LogDestination | undefined;
}

/** The log of one application, and what is needed to run it. */
export interface Log {
  readonly logger: Logger;
  level(): LogLevel;
  setLevel(level: LogLevel): void;
  /** Lines thrown away because standard output did not take them. */
  dropped(): number;
  /** Hands everything to the system before it returns: for the moment before the process dies. Tries for at most a second. */
  flushSync(): void;
  /** Resolves when everything has been handed over, or when `deadline` aborts. Lines may still be written after it. */
  flush(deadline: AbortSignal): Promise<void>;
}

const BATCH_BYTES = 16_384;
/** Short, because people and tests wait for lines; a busy log fills its batches sooner anyway. */
const FLUSH_EVERY_MS = 50;
const MAX_WAITING_BYTES = 4 << 20;

/** Standard output carries the log. JSON lines are batched and written asynchronously, so a reader that stalls never stalls the proxy. */
export async function createLogger(options: LoggerOptions): Promise<Log> {
  const { destination, stream = 'stdout' } = options;
  const isTerminal = destination === undefined ? isatty(stream === 'stdout' ? 1 : 2) : destination.isTerminal === true;
  const isPretty = options.format === 'pretty' || (options.format === 'auto' && isTerminal);
  const output = destination === undefined ? streamOutput(stream, isPretty) : wrapped(destination);
  const format = isPretty ? await loadPretty(isTerminal && hasColours(destination === undefined ? stream : 'stdout')) : undefined;
  const write = (line: string): void => output.write(format === undefined ? line : format(line));
  const time = createTimestamps();
  const logger = pino(
    {
      level: options.level,
      base: null,
      messageKey: 'message',
      timestamp: () => `,"time":"${time()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line: string) => write(scrub(line)) },
  );
  return {
    logger: {
      debug: (fields, message) => logger.debug(fields, message),
      info: (fields, message) => logger.info(fields, message),
      warn: (fields, message) => logger.warn(fields, message),
      error: (fields, message) => logger.error(fields, message),
      fatal(fields, message) {
        logger.fatal(fields, message);
        output.flushSync();
      },
      members(level, members, message) {
        if (logger.isLevelEnabled(level)) write(`{"level":"${level}","time":"${time()}",${members},"message":"${message}"}\n`);
      },
      isLevelEnabled: (level) => logger.isLevelEnabled(level),
    },
    level: () => logger.level as LogLevel,
    setLevel(level) {
      logger.level = level;
    },
    dropped: () => output.dropped(),
    flushSync: () => output.flushSync(),
    flush: (deadline) => output.flush(deadline),
  };
}

/** The present time as a text. Many lines of a busy proxy are of one millisecond. */
function createTimestamps(): () => string {
  let ofMs = 0;
  let text = '';
  return () => {
    const now = Date.now();
    if (now !== ofMs) {
      ofMs = now;
      text = new Date(now).toISOString();
    }
    return text;
  };
}

function wrapped(destination: LogDestination): LogOutput {
  const flushSync = (): void => destination.flushSync?.();
  return { write: (line) => destination.write(line), dropped: () => 0, flushSync, flush: async () => flushSync() };
}

function streamOutput(stream: LogStream, isPretty: boolean): LogOutput {
  // Whoever reads the pretty form is watching.
  return createLogOutput({
    fd: stream === 'stdout' ? 1 : sharedDescriptor(2),
    batchBytes: isPretty ? 0 : BATCH_BYTES,
    flushEveryMs: FLUSH_EVERY_MS,
    maxWaitingBytes: MAX_WAITING_BYTES,
  });
}

/** Node heeds NO_COLOR and TERM=dumb. A terminal is opened anew, so that what is asked here changes nothing of what others have. */
function hasColours(stream: LogStream): boolean {
  const terminal = stream === 'stdout' ? process.stdout : process.stderr;
  return terminal.isTTY && terminal.hasColors();
}

/** Loaded only when needed, and as a function: its streams use worker threads. Undefined where it is missing, as beside a bundle that was copied alone: then JSON will do. */
async function loadPretty(colorize: boolean): Promise<((line: string) => string) | undefined> {
  try {
    const { prettyFactory } = await import('./pretty.ts');
    return prettyFactory({
      colorize,
      messageKey: 'message',
      timestampKey: 'time',
      translateTime: 'HH:MM:ss.l',
      ignore: 'pid',
      singleLine: true,
      // A field of this name would stand before the message as it is.
      customPrettifiers: { name: (name) => JSON.stringify(name) },
    });
  } catch (cause) {
    if (codeOf(cause) !== 'MODULE_NOT_FOUND') throw cause;
    return undefined;
  }
}
