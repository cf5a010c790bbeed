/**
 * The one file that knows Node's HTTP/2 server, Node's HTTP/1.1 client, and http-proxy, which leads from one to the other. It is
 * loaded when the first HTTP/2 connection comes.
 */
import { Agent, type AgentOptions, type ClientRequest, type IncomingMessage } from 'node:http';
import { constants, performServerHandshake, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { giveExtendBack } from './undeprecated-extend.ts';
import HttpProxy from 'http-proxy';
import passes from 'http-proxy/lib/http-proxy/passes/web-incoming.js';
import type { HttpLimits } from '../config/config.ts';
import type { NativeStream } from '../transport/connection.ts';
import { parseKeepAlive, usableMs } from '../http1/keep-alive.ts';
import type { Clock } from '../lib/clock.ts';
import type { FileAccount } from '../transport/file-budget.ts';
import { connectFailure, type UpstreamFailure } from './outcome.ts';

export type { ClientRequest, Duplex, IncomingMessage, ServerHttp2Session, ServerHttp2Stream };

export const { NGHTTP2_NO_ERROR, NGHTTP2_CANCEL } = constants;

giveExtendBack();

/** Frames that break the rules, empty ones, and streams that are refused in a row, before the connection is ended (CVE-2019-9518 and others). */
const MAX_INVALID = 100;
/** Streams that a client may reset: so many at once, and so many a second after that (CVE-2023-44487). */
const RESET_BURST = 1000;
const RESETS_A_SECOND = 33;
/** HPACK's state for what we send, at most. */
const MAX_ENCODER_TABLE_BYTES = 4096;
/** Bytes that may come ahead of their WINDOW_UPDATE over all streams; what waits in one stream is bounded by its own window. */
const CONNECTION_WINDOW_BYTES = 1024 * 1024;
const MIB = 1024 * 1024;
const STREAM_WINDOW_BYTES = 65_535;

/**
 * An HTTP/2 server on a connection. Somewhat more than the limits is let through, so that a head that is too large has an
 * answer with a reason; far more resets the stream.
 */
export function openSession(
  { stream }: NativeStream,
  { maxFields, maxHeadBytes }: HttpLimits,
  maxConcurrentStreams: number,
): ServerHttp2Session {
  const maxHeaderListPairs = maxFields * 2 + 16;
  // RFC 9113, section 6.5.2, counts 32 bytes for each field.
  const maxHeaderListSize = maxHeadBytes * 2 + maxHeaderListPairs * 32;
  const session = performServerHandshake(stream, {
    settings: { maxConcurrentStreams, maxHeaderListSize, initialWindowSize: STREAM_WINDOW_BYTES },
    maxHeaderListPairs,
    maxSendHeaderBlockLength: maxHeaderListSize + MIB,
    maxDeflateDynamicTableSize: MAX_ENCODER_TABLE_BYTES,
    maxSessionInvalidFrames: MAX_INVALID,
    // A client may be at its limit, cancel all of its streams and open as many in one moment: Node refuses these.
    maxSessionRejectedStreams: maxConcurrentStreams + MAX_INVALID,
    // In MiB, of both directions.
    maxSessionMemory: 10 + Math.ceil((maxConcurrentStreams * 2 * STREAM_WINDOW_BYTES) / MIB),
    streamResetBurst: RESET_BURST,
    streamResetRate: RESETS_A_SECOND,
    // What applications repeat is theirs to repeat.
    strictSingleValueFields: false,
  });
  session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
  return session;
}

/** There is no connection to send a request on. */
export class NoConnection extends Error {
  override name = 'NoConnection';
  readonly failure: UpstreamFailure;

  constructor(failure: UpstreamFailure) {
    super(failure.message);
    this.failure = failure;
  }
}

export type StreamOutcome =
  | { readonly ok: true; readonly native: NativeStream }
  | { readonly ok: false; readonly failure: UpstreamFailure };

export interface ApplicationOptions {
  /** At once; further requests wait for one of them. */
  readonly max: number;
  /** The first connection is in the budget already. */
  readonly files: FileAccount;
  readonly clock: Clock;
  /** How long one without a request may be used again, if the application says nothing of it. Undefined: any time. */
  readonly silentMs: number | undefined;
  /** Connects to the application; `done` is told once, unless the attempt is aborted. */
  open(done: (outcome: StreamOutcome) => void): { abort(): void };
  /** Bytes that one of the connections carried since this was called last. */
  carried(read: number, written: number): void;
  /** The last connection is closed, or was not opened. */
  emptied(): void;
}

/** Kept open for a next request, at most; a burst opens more. */
const MAX_IDLE_CONNECTIONS = 16;
/** Of a timer. */
const LONGEST_IDLE_MS = 2 ** 31 - 1;

interface Meter {
  readonly native: NativeStream;
  read: number;
  written: number;
  /** What the application said in Keep-Alive, and what was last acted upon. */
  hint: string;
  hintTaken: string | undefined;
  usableMs: number;
  /** Requests that the application still takes on it. */
  left: number;
  /** When it was last idle, and what had been read from it by then: undefined if it never was. */
  rested: { atMs: number; read: number } | undefined;
}

/** The connections to the application for one HTTP/2 connection: no request of another peer ever comes here. */
export class ApplicationConnections extends Agent {
  readonly #options: ApplicationOptions;
  readonly #attempts = new Set<{ abort(): void }>();
  readonly #open = new Set<Duplex>();
  /** What was counted of each. */
  readonly #meters = new WeakMap<Duplex, Meter>();
  #held = 0;
  #closed = false;

  constructor(options: ApplicationOptions) {
    // An empty server name keeps Node from looking for one at each request.
    super({ keepAlive: true, maxSockets: options.max, maxFreeSockets: MAX_IDLE_CONNECTIONS, servername: '' } as AgentOptions);
    this.#options = options;
  }

  /** Connections that are open or being opened. */
  get size(): number {
    return this.#held;
  }

  /** Every request goes to the same place. */
  override getName(): string {
    return '';
  }

  /** Called by Node when none is idle. `done` takes an error alone, too, which its type does not say. */
  override createConnection(options: unknown, done: (error: Error | null, stream: Duplex) => void): undefined {
    const { attempt: slot } = options as ReturnType<typeof exactly>;
    const fail = (failure: UpstreamFailure): void => (done as (error: Error) => void)(new NoConnection(failure));
    if (this.#closed) {
      fail(connectFailure('the application', 'ECANCELED', 'the HTTP/2 connection is closed'));
      return;
    }
    if (this.#held > 0 && !this.#options.files.take(1)) {
      fail(connectFailure('the application', 'EMFILE', 'no file descriptors are left for connections'));
      return;
    }
    this.#held++;
    let isOver = false;
    const attempt = this.#options.open((outcome) => {
      if (isOver) return;
      isOver = true;
      slot.giveUp = undefined;
      this.#attempts.delete(handle);
      if (outcome.ok) {
        this.#opened(outcome.native);
        done(null, outcome.native.stream);
      } else {
        this.#give();
        fail(outcome.failure);
      }
    });
    const handle = {
      abort: (): void => {
        isOver = true;
        slot.giveUp = undefined;
        attempt.abort();
        this.#give();
      },
    };
    this.#attempts.add(handle);
    // Node counts a connection from when it is open, and does not give up one that nobody waits for any more.
    slot.giveUp = () => {
      this.#attempts.delete(handle);
      handle.abort();
      fail(connectFailure('the application', 'ECANCELED', 'nobody waits for it any more'));
    };
  }

  /** The application says how long it keeps a connection without requests: `timeout=5`, in a field that is ours. */
  hint(stream: Duplex, value: string | undefined): void {
    const meter = this.#meters.get(stream);
    if (meter !== undefined) meter.hint = value ?? '';
  }

  /** Sets up what its idle time needs: once, if the application says the same each time. */
  override keepSocketAlive(socket: Duplex): boolean {
    this.account(socket);
    const meter = this.#meters.get(socket);
    if (meter === undefined) return false;
    meter.left--;
    if (meter.hint !== meter.hintTaken) {
      meter.hintTaken = meter.hint;
      // What it answers is its own reading of Keep-Alive.
      super.keepSocketAlive(socket);
      const keepAlive = parseKeepAlive(meter.hint);
      meter.usableMs = usableMs(keepAlive, this.#options.silentMs);
      meter.left = keepAlive.max ?? meter.left;
      // Node would do so only within a time of its own for idle connections, which would cost each request a listener. It
      // closes a connection whose time is over if that is idle, and only then.
      const idleMs = meter.usableMs === Infinity ? 0 : Math.min(Math.ceil(meter.usableMs), LONGEST_IDLE_MS);
      (socket as IncomingMessage['socket']).setTimeout(idleMs);
    }
    const atMs = this.#options.clock.monotonic();
    if (meter.rested === undefined) meter.rested = { atMs, read: meter.read };
    else {
      meter.rested.atMs = atMs;
      meter.rested.read = meter.read;
    }
    return meter.left > 0 && meter.usableMs > 0;
  }

  /** Lets go of idle ones that the application is about to close. Answers how long the one that is used next has rested; 0: none is idle. */
  wake(): number {
    const idle = this.#idle();
    const nowMs = this.#options.clock.monotonic();
    for (let next = idle.at(-1); next !== undefined; next = idle.at(-1)) {
      const meter = this.#meters.get(next);
      const restedMs = nowMs - (meter?.rested?.atMs ?? -Infinity);
      if (!next.destroyed && restedMs < (meter?.usableMs ?? 0)) return restedMs;
      idle.pop();
      next.destroy();
    }
    return 0;
  }

  /** The next request gets a new connection: one that was idle has been closed by the application, and the others are no younger. */
  dropIdle(): void {
    const idle = this.#idle();
    while (idle.length > 0) idle.pop()?.destroy();
  }

  /** Whether the application had answered on this connection before, and said nothing since: it may have closed it before it saw a request. */
  heardNothing(stream: Duplex | null): boolean {
    const meter = stream === null ? undefined : this.#meters.get(stream);
    return meter?.rested !== undefined && meter.rested.read === meter.native.bytesRead();
  }

  /** Node's own list; it takes the last one. Those that are being closed are in it until they are. */
  #idle(): Duplex[] {
    return (this.freeSockets as Record<string, Duplex[] | undefined>)[''] ?? [];
  }

  /** Tells what a connection carried. */
  account(stream: Duplex | undefined): void {
    const meter = stream && this.#meters.get(stream);
    if (meter === undefined) return;
    const read = meter.native.bytesRead();
    const written = meter.native.bytesWritten();
    this.#options.carried(read - meter.read, written - meter.written);
    meter.read = read;
    meter.written = written;
  }

  /** Drops all of them, and opens no more. */
  override destroy(): void {
    this.#closed = true;
    for (const attempt of this.#attempts) attempt.abort();
    this.#attempts.clear();
    for (const stream of this.#open) stream.destroy();
  }

  #opened(native: NativeStream): void {
    const { stream } = native;
    const fresh = { hint: '', hintTaken: undefined, usableMs: Infinity, left: Infinity, rested: undefined };
    this.#meters.set(stream, { native, read: 0, written: 0, ...fresh });
    this.#open.add(stream);
    stream.once('close', () => {
      this.account(stream);
      this.#open.delete(stream);
      this.#give();
    });
  }

  #give(): void {
    this.#held--;
    if (this.#held > 0) this.#options.files.give(1);
    else this.#options.emptied();
  }
}

/** A request for the application: exactly what is sent. */
export interface ExactRequest {
  readonly method: string;
  readonly target: string;
  /** Names and values in turn; the framing is among them. */
  readonly fields: readonly string[];
  readonly maxHeadBytes: number;
  readonly attempt: Attempt;
}

/** A connection that is being opened for one request. */
export interface Attempt {
  /** The request is over: the connection is not wanted. Undefined while none is being opened. */
  giveUp: (() => void) | undefined;
}

/** Who asks the application, and hears of it. */
export interface Asker {
  /** The request is under way: write its body, if any, and end it. */
  asked(request: ClientRequest): void;
  answered(response: IncomingMessage): void;
  /** May come more than once, and after the response; `request` is the one that `asked` was called with. */
  failed(error: Error, request: ClientRequest | undefined): void;
}

/**
 * Has http-proxy send a request over one of the connections. Of its passes only `stream` is left: `deleteLength` would take
 * the framing off a DELETE or OPTIONS with a body and send the body all the same, to be read as another request
 * (node-http-proxy issue 1721); the others are for options that are not set. Throws if Node refuses a part of the request.
 */
export function ask(asker: Asker, request: ExactRequest, connections: ApplicationConnections): void {
  proxy.web(
    new Incoming(asker, request.method),
    OUTGOING,
    { target: TARGET, agent: connections, ssl: exactly(request), selfHandleResponse: true, toProxy: true },
    failed,
  );
}

/** What http-proxy takes for the client's request. */
class Incoming {
  readonly asker: Asker;
  readonly method: string;
  request: ClientRequest | undefined;
  readonly url = '/';
  readonly headers = NO_FIELDS;
  readonly socket = OPEN;

  constructor(asker: Asker, method: string) {
    this.asker = asker;
    this.method = method;
  }

  /** Who asks sees to the end of the client's side. */
  on(): void {
    // Nothing is told this way.
  }

  pipe(request: ClientRequest): void {
    this.request = request;
    this.asker.asked(request);
  }
}

const NO_FIELDS = Object.freeze({});
const OPEN = Object.freeze({ destroyed: false });
/** The response is written by who asks. */
const OUTGOING = Object.freeze({ headersSent: false, finished: true });
/** Only to look like an address: the connections lead to the application. */
const TARGET = Object.freeze({ protocol: 'http:', host: 'localhost', port: 80 });

/** Where what http-proxy sets and nobody needs is lost. */
const UNUSED_OPTIONS = Object.create(
  null,
  Object.fromEntries(
    'port host hostname socketPath pfx key passphrase cert ca ciphers secureProtocol localAddress'
      .split(' ')
      .map((name) => [name, { set: () => undefined }]),
  ),
) as object;

const proxy = new HttpProxy<Incoming, typeof OUTGOING>();
proxy.webPasses = [passes.stream];
proxy.on('proxyRes', (response, incoming) => incoming.asker.answered(response));

function failed(error: Error, incoming: Incoming): void {
  incoming.asker.failed(error, incoming.request);
}

/**
 * The options of Node's request. http-proxy copies the fields of a message that has them merged, and joins slashes of the
 * path, which would not be the one that was judged any more; so these two are what they are. The rest of what it sets is of
 * no use here: each option that is there is copied four times on the way.
 */
function exactly({ target, fields, maxHeadBytes, attempt }: ExactRequest) {
  return {
    attempt,
    __proto__: UNUSED_OPTIONS,
    setDefaultHeaders: false,
    maxHeaderSize: maxHeadBytes,
    get path() {
      return target;
    },
    set path(_) {
      // As above.
    },
    get headers() {
      return fields;
    },
    set headers(_) {
      // As above.
    },
  };
}
