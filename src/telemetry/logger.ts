import { pino } from 'pino';
import type { LogFormat, LogLevel } from '../config/config.ts';
import { codeOf } from '../lib/errors.ts';
import { createLogOutput, type LogOutput } from './log-output.ts';

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
  readonly format: LogFormat;
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
  const isPretty = options.format === 'pretty' || (options.format === 'auto' && options.destination === undefined && process.stdout.isTTY);
  const output = options.destination === undefined ? standardOutput(isPretty) : wrapped(options.destination);
  const format = isPretty ? await loadPretty(options.destination === undefined && process.stdout.isTTY) : undefined;
  const logger = pino(
    {
      level: options.level,
      base: null,
      messageKey: 'message',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line: string) => output.write(format === undefined ? scrub(line) : format(scrub(line))) },
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

function wrapped(destination: LogDestination): LogOutput {
  const flushSync = (): void => destination.flushSync?.();
  return { write: (line) => destination.write(line), dropped: () => 0, flushSync, flush: async () => flushSync() };
}

function standardOutput(isPretty: boolean): LogOutput {
  // Whoever reads the pretty form is watching.
  return createLogOutput({
    fd: 1,
    batchBytes: isPretty ? 0 : BATCH_BYTES,
    flushEveryMs: FLUSH_EVERY_MS,
    maxWaitingBytes: MAX_WAITING_BYTES,
  });
}

/** Loaded only when needed, and as a function: its streams use worker threads. Undefined where it is not installed: then JSON will do. */
async function loadPretty(colorize: boolean): Promise<((line: string) => string) | undefined> {
  try {
    const { prettyFactory } = await import('pino-pretty');
    return prettyFactory({
      colorize,
      messageKey: 'message',
      timestampKey: 'time',
      translateTime: 'HH:MM:ss.l',
      ignore: 'pid',
      singleLine: true,
    });
  } catch (cause) {
    if (codeOf(cause) !== 'ERR_MODULE_NOT_FOUND') throw cause;
    return undefined;
  }
}

/**
 * The second net. Keys and tokens never reach a log call by design; should a mistake put one there, it is replaced in the
 * finished line, however deep it lay. Every line pays for the first look, so that is made of plain searches only.
 */
function scrub(line: string): string {
  if (!TRACES.some((trace) => line.includes(trace))) return line;
  return line.replaceAll(SECRET_FIELDS, '$1"[redacted]"').replaceAll(SECRET_TEXT, '[redacted]');
}

/** What every match of the patterns below contains: PEM; the base64 of PKCS#8 for EC, RSA and Ed25519; JWTs; the ends of field names. */
const TRACES = ['PRIVATE KEY', 'AgEAMB', 'IBADANBgkqhkiG9w0B', 'CAQAwBQYDK2Vw', 'eyJ', 'ey":', 'ecret":', 'oken":', 'assword":'];
const SECRET_FIELDS =
  /("(?:[a-z0-9]*_)*(?:[a-z0-9]*key|[a-z0-9]*secret|[a-z0-9]*token|[a-z0-9]*password)":)(?:"(?:[^"\\]|\\.)*"|\[[^\]]*\]|\{[^}]*\})/gi;
const SECRET_TEXT = new RegExp(
  [
    '-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*',
    'M[A-Za-z0-9+/]{2,7}(?:AgEAMB|IBADANBgkqhkiG9w0B|CAQAwBQYDK2Vw)[A-Za-z0-9+/=_-]*',
    String.raw`eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*`,
  ].join('|'),
  'g',
);
