import { createRequire } from 'node:module';
import { pino } from 'pino';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export type LogFields = Readonly<Record<string, unknown>>;

/** Constant text and snake_case fields: `log.info({ peer_id }, 'peer denied')`. Never key material. */
export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  fatal(fields: LogFields, message: string): void;
  /** False lets a caller skip the work of a line that nobody would see. */
  isLevelEnabled(level: LogLevel): boolean;
}

/** Where finished lines go; each ends with a newline. */
export interface LogDestination {
  write(line: string): void;
  /** Everything that was written is on its way before this returns. */
  flushSync?(): void;
}

export interface LoggerOptions {
  readonly level: LogLevel;
  /** `auto` is pretty on a terminal, JSON elsewhere. */
  readonly format: 'auto' | 'json' | 'pretty';
  /** Standard output if absent. */
  readonly destination?: LogDestination | undefined;
}

/** The log of one application, and what is needed to run it. */
export interface Log {
  readonly logger: Logger;
  level(): LogLevel;
  setLevel(level: LogLevel): void;
  /** Lines thrown away because standard output did not take them. */
  dropped(): number;
  /** Hands everything to the system before it returns: for the moment before the process dies. May block on a full pipe. */
  flushSync(): void;
  /** Resolves when everything has been handed over, or when `deadline` aborts. Lines may still be written after it. */
  flush(deadline: AbortSignal): Promise<void>;
}

/** Lines wait in memory until this much has gathered or a second is over; a busy proxy would otherwise pay a system call a line. */
const BATCH_BYTES = 4096;
const FLUSH_EVERY_MS = 500;
/** When standard output is blocked (a full pipe), more than this is not kept. */
const MAX_WAITING_BYTES = 4 << 20;
/** What a pipe takes at once on Linux. */
const MAX_WRITE_BYTES = 64 << 10;

/** Standard output carries the log. JSON lines are batched and written asynchronously, so a reader that stalls never stalls the proxy. */
export function createLogger(options: LoggerOptions): Log {
  const output = options.destination === undefined ? standardOutput(usePretty(options.format)) : wrapped(options);
  const logger = pino(
    {
      level: options.level,
      base: null,
      messageKey: 'message',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line: string) => output.write(scrub(line)) },
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

interface Output {
  write(line: string): void;
  dropped(): number;
  flushSync(): void;
  flush(deadline: AbortSignal): Promise<void>;
}

function usePretty(format: LoggerOptions['format']): boolean {
  return format === 'pretty' || (format === 'auto' && process.stdout.isTTY);
}

function wrapped({ destination, format }: LoggerOptions): Output {
  const target = format === 'pretty' && destination !== undefined ? prettyStream(destination) : destination;
  return {
    write: (line) => target?.write(line),
    dropped: () => 0,
    flushSync: () => destination?.flushSync?.(),
    async flush() {
      destination?.flushSync?.();
    },
  };
}

function standardOutput(pretty: boolean): Output {
  let dropped = 0;
  // A terminal wants each line at once, and is read by somebody.
  const stream = pino.destination({
    dest: 1,
    sync: false,
    minLength: pretty ? 0 : BATCH_BYTES,
    maxWrite: MAX_WRITE_BYTES,
    maxLength: MAX_WAITING_BYTES,
    periodicFlush: pretty ? 0 : FLUSH_EVERY_MS,
  });
  stream.on('drop', () => {
    dropped += 1;
  });
  // A log that cannot be written (disk full, terminal gone) must not end the proxy.
  stream.on('error', () => {
    dropped += 1;
  });
  const target = pretty ? prettyStream(stream) : stream;
  return {
    write: (line) => void target.write(line),
    dropped: () => dropped,
    flushSync() {
      try {
        stream.flushSync();
      } catch {
        dropped += 1;
      }
    },
    flush: (deadline) =>
      new Promise((resolve) => {
        if (deadline.aborted) {
          resolve();
          return;
        }
        const finish = (): void => {
          deadline.removeEventListener('abort', finish);
          resolve();
        };
        deadline.addEventListener('abort', finish, { once: true });
        stream.flush(finish);
      }),
  };
}

interface PrettyFactory {
  (options: object): { write(line: string): unknown };
}

/** Loaded only when needed, and as a plain stream: a worker thread could not be started from the one-file bundle. */
function prettyStream(destination: { write(line: string): unknown }): { write(line: string): unknown } {
  const load = createRequire(import.meta.url);
  const pretty = load('pino-pretty') as PrettyFactory;
  return pretty({ colorize: false, messageKey: 'message', timestampKey: 'time', translateTime: 'HH:MM:ss.l', sync: true, destination });
}

/**
 * The second net. Keys never reach a log call by design (they are KeyObjects); should a mistake put one there, the value is
 * replaced in the finished line, whatever the field was called and however deep it lay.
 */
function scrub(line: string): string {
  return SUSPICIOUS.test(line) ? line.replaceAll(KEY_VALUES, '$1"[redacted]"').replaceAll(KEY_TEXT, '[redacted]') : line;
}

const KEY_NAMES = '(?:[a-z0-9_]*_)?(?:private_?key|key_?pem|svid_?key|secret|password|passphrase|token|jwt|authorization|cookie)';
const KEY_VALUES = new RegExp(`("${KEY_NAMES}":)(?:"(?:[^"\\\\]|\\\\.)*"|\\[[^\\]]*\\]|\\{[^}]*\\})`, 'gi');
/** PEM of any private key; and the base64 of a PKCS#8 or SEC1 key without its frame, by the version and algorithm at its head. */
const KEY_TEXT =
  /-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*|M[A-Za-z0-9+/]{2,7}AgEA(?:MBMGByqGSM49|MA0GCSqGSIb3DQ|MBAGByqGSM49|MAUGAytl)[A-Za-z0-9+/=_-]*/g;
const SUSPICIOUS =
  /PRIVATE KEY|AgEAM(?:BMG|A0G|BAG|AUG)|(?:private_?key|key_?pem|svid_?key|secret|password|passphrase|token|jwt|authorization|cookie)":/i;
