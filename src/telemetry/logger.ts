import { createRequire } from 'node:module';
import { pino } from 'pino';
import type { LogFormat, LogLevel } from '../config/config.ts';
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
  /** Hands everything to the system before it returns: for the moment before the process dies. May block on a full pipe. */
  flushSync(): void;
  /** Resolves when everything has been handed over, or when `deadline` aborts. Lines may still be written after it. */
  flush(deadline: AbortSignal): Promise<void>;
}

const BATCH_BYTES = 16_384;
const FLUSH_EVERY_MS = 500;
const MAX_WAITING_BYTES = 4 << 20;

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

function usePretty(format: LoggerOptions['format']): boolean {
  return format === 'pretty' || (format === 'auto' && process.stdout.isTTY);
}

function wrapped({ destination, format }: LoggerOptions): LogOutput {
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

function standardOutput(pretty: boolean): LogOutput {
  // Whoever reads the pretty form is watching.
  const batchBytes = pretty ? 0 : BATCH_BYTES;
  const output = createLogOutput({ fd: 1, batchBytes, flushEveryMs: FLUSH_EVERY_MS, maxWaitingBytes: MAX_WAITING_BYTES });
  if (!pretty) return output;
  const stream = prettyStream(output);
  return { ...output, write: (line) => void stream.write(line) };
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
