import { Client, connectivityState, Metadata, type ChannelOptions, type ClientReadableStream } from '@grpc/grpc-js';
import type { Address } from '../config/units.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { formatEndpoint, grpcTarget } from './endpoint.ts';
import { WorkloadApiError } from './errors.ts';
import { PlaintextChannel } from './plaintext.ts';
import { SocketWatch } from './socket-watch.ts';

/** Opens streams to the Workload API. It knows gRPC and nothing of what the messages mean. */
export interface WorkloadApiClient {
  /** For logs: `unix:///run/agent.sock`. */
  readonly endpoint: string;
  x509Svids(): Subscription;
  x509Bundles(): Subscription;
  jwtBundles(): Subscription;
  /** One call of FetchJWTSVID with a message as it is, on a connection of its own. Throws WorkloadApiError, also when `signal` aborts. */
  fetchJwtSvid(request: Uint8Array, signal: AbortSignal): Promise<Uint8Array>;
}

/** The streams of one method, such as `FetchX509SVID`, of which at most one is open at a time. */
export interface Subscription {
  /**
   * One stream, on a connection of its own: yields each message as it came, undecoded. Ends when the agent ends it, throws
   * WorkloadApiError when it breaks, and ends when `signal` aborts. Connecting, too, happens at once or fails.
   */
  open(signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** True if the agent's socket has appeared, or is another or was touched, since the last `open`. Never over TCP. */
  isSocketChanged(): Promise<boolean>;
}

export interface ClientOptions {
  readonly endpoint: Address;
  readonly clock: Clock;
}

/** Far above what an agent sends (a bundle of 50 authorities is under 100 KB), far below what decoding could not bear on one thread. */
export const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;

/** A healthy agent on the same machine accepts within milliseconds; a dead address over TCP never answers. */
const CONNECT_TIMEOUT_MS = 5000;
/** Of one call from its beginning: an agent may have to ask its server, which signs. */
const CALL_TIMEOUT_MS = 15_000;
const SOCKET_POLL_MS = 1000;

const CHANNEL_OPTIONS: ChannelOptions = {
  // A pooled subchannel would keep the back-off, and the socket, of an attempt that failed.
  'grpc.use_local_subchannel_pool': 1,
  // The source retries; gRPC's own retries would multiply calls and hide failures.
  'grpc.enable_retries': 0,
  'grpc.service_config_disable_resolution': 1,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  // HTTP_PROXY is meant for the application. The Workload API is local.
  'grpc.enable_http_proxy': 0,
  // To notice a TCP peer that died silently. gRPC servers in Go end connections that ping more often than every five minutes.
  'grpc.keepalive_time_ms': 310_000,
  'grpc.keepalive_timeout_ms': 20_000,
  'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
};

export function createWorkloadApiClient({ endpoint, clock }: ClientOptions): WorkloadApiClient {
  const subscription = (method: string): Subscription => {
    const socket = new SocketWatch(endpoint.kind === 'unix' ? endpoint.path : undefined);
    return {
      open: (signal) => stream(endpoint, socket, method, clock, signal),
      isSocketChanged: () => socket.isChanged(),
    };
  };
  return {
    endpoint: formatEndpoint(endpoint),
    x509Svids: () => subscription('FetchX509SVID'),
    x509Bundles: () => subscription('FetchX509Bundles'),
    jwtBundles: () => subscription('FetchJWTBundles'),
    fetchJwtSvid: (request, signal) => unary(endpoint, 'FetchJWTSVID', request, clock, signal),
  };
}

async function* stream(
  endpoint: Address,
  socket: SocketWatch,
  method: string,
  clock: Clock,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  await socket.remember();
  if (signal.aborted) return;
  // A channel for each attempt: what an earlier one learned about a socket (refused, absent, another inode) is of no use.
  const plaintext = new PlaintextChannel();
  const client = new Client(grpcTarget(endpoint), plaintext, CHANNEL_OPTIONS);
  const call = client.makeServerStreamRequest<undefined, Uint8Array>(
    `/SpiffeWorkloadAPI/${method}`,
    () => Buffer.alloc(0), // all requests are empty messages
    (bytes) => bytes,
    undefined,
    securityHeader(),
  );
  const guards = new Guards(call, socket, clock);
  const cancel = (): void => call.cancel();
  signal.addEventListener('abort', cancel, { once: true });
  guards.limitConnecting(client);
  if (endpoint.kind === 'unix') guards.watchSocket();
  try {
    for await (const bytes of call) yield bytes as Uint8Array;
  } catch (thrown) {
    if (signal.aborted) return;
    throw guards.problem ?? WorkloadApiError.from(thrown, method);
  } finally {
    signal.removeEventListener('abort', cancel);
    guards.stop();
    // gRPC may report the cancelled status after the iteration has ended.
    call.on('error', () => {});
    call.cancel();
    client.close();
    plaintext.release(clock);
  }
}

/** SPIFFE Workload Endpoint, section 6.2: it must be there, or the agent refuses the call. */
function securityHeader(): Metadata {
  const metadata = new Metadata();
  metadata.set('workload.spiffe.io', 'true');
  return metadata;
}

function unary(endpoint: Address, method: string, request: Uint8Array, clock: Clock, signal: AbortSignal): Promise<Uint8Array> {
  const aborted = (): WorkloadApiError => new WorkloadApiError(`${method}: the call was given up`, { endCode: 'CANCELLED' });
  if (signal.aborted) return Promise.reject(aborted());
  const plaintext = new PlaintextChannel();
  const client = new Client(grpcTarget(endpoint), plaintext, CHANNEL_OPTIONS);
  return new Promise((resolve, reject) => {
    const call = client.makeUnaryRequest<Uint8Array, Uint8Array>(
      `/SpiffeWorkloadAPI/${method}`,
      (bytes) => Buffer.from(bytes),
      (bytes) => bytes,
      request,
      securityHeader(),
      (failure, response) => {
        signal.removeEventListener('abort', cancel);
        timer.cancel();
        client.close();
        plaintext.release(clock);
        if (signal.aborted) reject(aborted());
        else if (isLate)
          reject(new WorkloadApiError(`${method}: no answer within ${CALL_TIMEOUT_MS} ms`, { endCode: 'DEADLINE_EXCEEDED' }));
        else if (failure !== null || response === undefined) reject(WorkloadApiError.from(failure, method));
        else resolve(response);
      },
    );
    const cancel = (): void => call.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    let isLate = false;
    const timer = clock.after(CALL_TIMEOUT_MS, () => {
      isLate = true;
      call.cancel();
    });
  });
}

/** Ends a call for reasons that gRPC does not see. */
class Guards {
  /** Why the call was ended, if it was ended here. */
  problem: WorkloadApiError | undefined;
  readonly #call: ClientReadableStream<Uint8Array>;
  readonly #socket: SocketWatch;
  readonly #clock: Clock;
  #connecting: Timer | undefined;
  #polling: Timer | undefined;
  #stopped = false;

  constructor(call: ClientReadableStream<Uint8Array>, socket: SocketWatch, clock: Clock) {
    this.#call = call;
    this.#socket = socket;
    this.#clock = clock;
  }

  limitConnecting(client: Client): void {
    this.#connecting = this.#clock.after(CONNECT_TIMEOUT_MS, () => {
      if (client.getChannel().getConnectivityState(false) === connectivityState.READY) return;
      this.#end(new WorkloadApiError(`no connection within ${CONNECT_TIMEOUT_MS} ms`, { endCode: 'TRANSPORT' }));
    });
  }

  /** An agent may be replaced while the old one's connection stays open: then nothing more would ever come on it. */
  watchSocket(): void {
    this.#polling = this.#clock.after(SOCKET_POLL_MS, () => void this.#compareSocket());
  }

  async #compareSocket(): Promise<void> {
    const replaced = await this.#socket.isReplaced();
    if (this.#stopped) return;
    if (replaced) this.#end(new WorkloadApiError(`another socket took the place of ${this.#socket.path}`, { endCode: 'SOCKET_REPLACED' }));
    else this.watchSocket();
  }

  stop(): void {
    this.#stopped = true;
    this.#connecting?.cancel();
    this.#polling?.cancel();
  }

  #end(problem: WorkloadApiError): void {
    this.problem ??= problem;
    this.#call.cancel();
  }
}
