import { createServer, type AddressInfo, type Server as NetServer } from 'node:net';
import {
  ServerCredentials,
  Server,
  status,
  type Metadata,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedHandleCall,
} from '@grpc/grpc-js';
import {
  file_workload,
  type JWTBundlesResponse,
  type JWTSVIDRequest,
  type JWTSVIDResponse,
  SpiffeWorkloadAPI,
  type ValidateJWTSVIDRequest,
  type ValidateJWTSVIDResponse,
  type X509BundlesResponse,
  type X509SVIDResponse,
} from '../gen/workload_pb.ts';
import type { Service } from '../lib/service.ts';
import { createWatch, tellEach, type Watch } from '../lib/watch.ts';
import { prepareUnixSocket, type PreparedUnixSocket } from '../transport/unix-socket.ts';
import { AnyAuthoritySocket } from '../grpc/any-authority.ts';
import { listening } from '../grpc/listening.ts';
import { addReflection } from '../grpc/reflection.ts';
import { serviceDefinition } from '../grpc/service-definition.ts';

/** What a call is answered: a message, or a gRPC status. */
export type Answer<T> =
  | { readonly kind: 'message'; readonly message: T }
  | { readonly kind: 'status'; readonly code: status; readonly details: string };

export function refusal(code: status, details: string): { readonly kind: 'status'; readonly code: status; readonly details: string } {
  return { kind: 'status', code, details };
}

/** Everything that the workload behind one socket is told. Whoever sets it decides: any message goes out as it is. */
export interface WorkloadApiAnswers {
  readonly x509Svids: Watch<Answer<X509SVIDResponse>>;
  readonly x509Bundles: Watch<Answer<X509BundlesResponse>>;
  readonly jwtBundles: Watch<Answer<JWTBundlesResponse>>;
  fetchJwtSvid(request: JWTSVIDRequest): Answer<JWTSVIDResponse>;
  validateJwtSvid(request: ValidateJWTSVIDRequest): Answer<ValidateJWTSVIDResponse>;
}

/** Where one workload reaches its Workload API. The socket is the workload's identity: Node cannot read a peer's credentials. */
export type WorkloadEndpoint =
  | { readonly kind: 'unix'; readonly path: string; readonly mode: number; readonly gid?: number | undefined }
  | { readonly kind: 'tcp'; readonly port: number };

export interface WorkloadApiServerOptions {
  readonly name: string;
  readonly endpoint: WorkloadEndpoint;
  readonly answers: WorkloadApiAnswers;
  /** Told of each call, also of those refused, by its method's name. */
  readonly onCall?: ((method: string, metadata: Metadata) => void) | undefined;
}

export interface WorkloadApiServer extends Service {
  /** The value for SPIFFE_ENDPOINT_SOCKET. Throws before `start`. */
  endpoint(): string;
  /** Ends all open streams with a status, as an agent that restarts does. Later calls are answered again. */
  endStreams(code: status, details: string): void;
}

/** Spec of the Workload Endpoint, section 6.2: it keeps a server-side request forgery, which cannot set headers, from getting an identity. */
const SECURITY_HEADER = 'workload.spiffe.io';

const LAST_MESSAGES_MS = 250;

type Call = Pick<ServerUnaryCall<unknown, unknown>, 'metadata'>;
type Refusal = Pick<ReturnType<typeof refusal>, 'code' | 'details'>;

/** Serves the SPIFFE Workload API, X.509 and JWT profiles, to one workload. Methods of the WIT profile are answered UNIMPLEMENTED. */
export function createWorkloadApiServer(options: WorkloadApiServerOptions): WorkloadApiServer {
  const { answers } = options;
  const openStreams = new Set<(refusal: Refusal) => void>();
  let server: Server | undefined;
  let listener: NetServer | undefined;
  let prepared: PreparedUnixSocket | undefined;
  let address: string | undefined;

  const admit = (method: string, call: Call): Refusal | undefined => {
    options.onCall?.(method, call.metadata);
    const values = call.metadata.get(SECURITY_HEADER);
    // Node joins repeated headers, so that "true" twice is one value, "true, true".
    if (values.length === 1 && values[0] === 'true') return undefined;
    return {
      code: status.INVALID_ARGUMENT,
      details: `security header missing from request: metadata ${SECURITY_HEADER} must be "true", once`,
    };
  };

  const handlers: Record<keyof typeof SpiffeWorkloadAPI.method, UntypedHandleCall> = {
    fetchX509SVID: streaming('FetchX509SVID', answers.x509Svids),
    fetchX509Bundles: streaming('FetchX509Bundles', answers.x509Bundles),
    fetchJWTBundles: streaming('FetchJWTBundles', answers.jwtBundles),
    fetchJWTSVID: unary('FetchJWTSVID', (request: JWTSVIDRequest) => answers.fetchJwtSvid(request)),
    validateJWTSVID: unary('ValidateJWTSVID', (request: ValidateJWTSVIDRequest) => answers.validateJwtSvid(request)),
  };

  function streaming<T>(method: string, watch: Watch<Answer<T>>) {
    return (call: ServerWritableStream<unknown, T>): void => {
      const refused = admit(method, call);
      if (refused === undefined) streamAnswers(call, watch, openStreams);
      else call.emit('error', refused);
    };
  }

  function unary<Request, Response>(method: string, answer: (request: Request) => Answer<Response>) {
    return (call: ServerUnaryCall<Request, Response>, respond: sendUnaryData<Response>): void => {
      const refused = admit(method, call);
      if (refused !== undefined) return respond(refused);
      const answered = answer(call.request);
      if (answered.kind === 'message') respond(null, answered.message);
      else respond(answered);
    };
  }

  return {
    name: `workload API of ${options.name}`,
    endpoint() {
      if (address === undefined) throw new Error(`workload API of ${options.name} has not started`);
      return address;
    },
    endStreams(code, details) {
      tellEach(openStreams, { code, details });
    },
    async start() {
      const { endpoint } = options;
      server = new Server({ 'grpc.enable_channelz': 0 });
      server.addService(serviceDefinition(SpiffeWorkloadAPI), handlers);
      addReflection(server, [file_workload]);
      const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
      listener = createServer({ noDelay: true }, (socket) => injector.injectConnection(new AnyAuthoritySocket(socket)));
      if (endpoint.kind === 'tcp') {
        await listening(listener, { host: '127.0.0.1', port: endpoint.port });
        address = `tcp://127.0.0.1:${(listener.address() as AddressInfo).port}`;
      } else {
        prepared = await prepareUnixSocket(endpoint.path, { mode: endpoint.mode, gid: endpoint.gid });
        await listening(listener, { path: prepared.bindPath });
        await prepared.publish();
        address = `unix://${endpoint.path}`;
      }
    },
    async stop() {
      await prepared?.release();
      listener?.close();
      this.endStreams(status.UNAVAILABLE, 'the workload API is stopping');
      const running = server;
      server = undefined;
      if (running !== undefined) await shutDown(running);
    },
  };
}

/** Sends the current answer, then each later one. A slow reader gets the newest of those that it missed: each is the whole state. */
function streamAnswers<T>(call: ServerWritableStream<unknown, T>, watch: Watch<Answer<T>>, open: Set<(refusal: Refusal) => void>): void {
  let blocked = false;
  let waiting: T | undefined;
  const send = (message: T): void => {
    if (blocked) waiting = message;
    else blocked = !call.write(message);
  };
  const end = (refusal: Refusal): void => {
    stop();
    call.emit('error', refusal);
  };
  const stop = (): void => {
    unsubscribe?.();
    open.delete(end);
  };
  call.on('drain', () => {
    blocked = false;
    const message = waiting;
    waiting = undefined;
    if (message !== undefined) send(message);
  });
  call.on('cancelled', stop);
  call.on('close', stop);
  open.add(end);
  // The first answer comes while subscribing, when there is no way to unsubscribe yet.
  let unsubscribe: (() => void) | undefined;
  const first = watch.get();
  if (first?.kind === 'status') {
    end(first);
    return;
  }
  unsubscribe = watch.subscribe((answer) => (answer.kind === 'message' ? send(answer.message) : end(answer)));
}

/** Lets the last messages out; whoever does not take them in time is dropped. */
async function shutDown(server: Server): Promise<void> {
  const timer = setTimeout(() => server.forceShutdown(), LAST_MESSAGES_MS);
  await new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  clearTimeout(timer);
}

/** Answers for a workload without an identity, until they are set. */
export function createAnswers(jwt: Pick<WorkloadApiAnswers, 'fetchJwtSvid' | 'validateJwtSvid'>): WorkloadApiAnswers {
  return { x509Svids: createWatch(), x509Bundles: createWatch(), jwtBundles: createWatch(), ...jwt };
}
