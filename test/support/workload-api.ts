/**
 * A SPIFFE Workload API whose answers a test changes at any time: a real gRPC server on a Unix socket or on 127.0.0.1. It demands nothing of
 * its callers and records what they sent. What it says is what the test told it: `setX509`, `setBundles`, `setJwtBundles`, `answerJwt`, `failWith`,
 * `sendRaw`.
 */
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { Server, ServerCredentials, status, type Metadata, type MethodDefinition, type ServerWritableStream } from '@grpc/grpc-js';
import {
  JWTBundlesResponseSchema,
  JWTSVIDRequestSchema,
  JWTSVIDResponseSchema,
  X509BundlesResponseSchema,
  X509SVIDResponseSchema,
  type JWTSVIDRequest,
  type JWTSVIDSchema,
  type X509SVIDSchema,
} from '../../src/gen/workload_pb.ts';
import type { TestAuthority, TestCertificate } from './pki/pki.ts';

export type Method = 'FetchX509SVID' | 'FetchX509Bundles' | 'FetchJWTBundles' | 'FetchJWTSVID';
export type SvidEntry = MessageInitShape<typeof X509SVIDSchema>;
export type JwtEntry = MessageInitShape<typeof JWTSVIDSchema>;
/** Trust domain ID (`spiffe://example.org`) to concatenated DER. */
export type BundleMap = Readonly<Record<string, Uint8Array>>;

export interface RecordedCall {
  readonly method: Method;
  /** `performance.now()` at its arrival. */
  readonly atMs: number;
  /** `workload.spiffe.io: true` was there, exactly once. */
  readonly hadHeader: boolean;
  readonly metadata: Metadata;
  /** The message of the call. */
  readonly request: Uint8Array;
}

export interface WorkloadApiOptions {
  /** A Unix socket at this path; by default one in a new temporary folder. */
  readonly path?: string;
  /** 127.0.0.1 and any port instead. */
  readonly tcp?: boolean;
}

/** What a test says that an SVID is: the entry of `leaf`, issued under `authority`. Fields given in `changes` replace what belongs there. */
export function svidEntry(authority: TestAuthority, leaf: TestCertificate, id: string, changes: Partial<SvidEntry> = {}): SvidEntry {
  return { spiffeId: id, x509Svid: leaf.chainDer, x509SvidKey: leaf.keyDer, bundle: authority.der, hint: '', ...changes };
}

export class FakeWorkloadApi {
  readonly calls: RecordedCall[] = [];
  /** As `SPIFFE_ENDPOINT_SOCKET` has it. */
  readonly endpoint: string;
  readonly #at: string;
  readonly #folder: string | undefined;
  readonly #answers = new Map<Method, Answer>();
  readonly #streams: Record<Method, Set<Stream>> = {
    FetchX509SVID: new Set(),
    FetchX509Bundles: new Set(),
    FetchJWTBundles: new Set(),
    FetchJWTSVID: new Set(),
  };
  #jwt: ((request: JWTSVIDRequest) => readonly JwtEntry[]) | undefined;
  #server: Server | undefined;
  #binds = 0;

  private constructor(at: string, folder: string | undefined) {
    this.#at = at;
    this.#folder = folder;
    this.endpoint = at.startsWith('tcp:') ? `tcp://${at.slice(4)}` : `unix://${at}`;
  }

  /** Listens already. Until told otherwise it accepts calls and stays silent. */
  static async start(options: WorkloadApiOptions = {}): Promise<FakeWorkloadApi> {
    const api = await FakeWorkloadApi.prepare(options);
    await api.listen();
    return api;
  }

  /** Does not listen yet: `endpoint` is where it will be. Unix sockets only. */
  static async prepare({ path, tcp = false }: WorkloadApiOptions = {}): Promise<FakeWorkloadApi> {
    if (tcp) return new FakeWorkloadApi(`tcp:127.0.0.1:${await freePort()}`, undefined);
    if (path !== undefined) return new FakeWorkloadApi(path, undefined);
    const folder = await mkdtemp(join(tmpdir(), 'scute-agent-'));
    return new FakeWorkloadApi(join(folder, 'api.sock'), folder);
  }

  /** Tells open and later FetchX509SVID streams that this is what there is. */
  setX509(svids: readonly SvidEntry[], federatedBundles: BundleMap = {}, crl: readonly Uint8Array[] = []): void {
    this.sendRaw(
      'FetchX509SVID',
      toBinary(X509SVIDResponseSchema, create(X509SVIDResponseSchema, { svids: [...svids], federatedBundles, crl: [...crl] })),
    );
  }

  /** The same for FetchX509Bundles. */
  setBundles(bundles: BundleMap, crl: readonly Uint8Array[] = []): void {
    this.sendRaw('FetchX509Bundles', toBinary(X509BundlesResponseSchema, create(X509BundlesResponseSchema, { bundles, crl: [...crl] })));
  }

  /** Trust domain ID to JWKS: what open and later FetchJWTBundles streams are told. */
  setJwtBundles(bundles: Readonly<Record<string, string>>): void {
    const bytes = Object.fromEntries(Object.entries(bundles).map(([domain, jwks]) => [domain, Buffer.from(jwks)]));
    this.sendRaw('FetchJWTBundles', toBinary(JWTBundlesResponseSchema, create(JWTBundlesResponseSchema, { bundles: bytes })));
  }

  /** What FetchJWTSVID is answered, unless it was told to fail or to send bytes. */
  answerJwt(answer: (request: JWTSVIDRequest) => readonly JwtEntry[]): void {
    this.#jwt = answer;
  }

  /** Any bytes as the message that open and later streams of `method` get. */
  sendRaw(method: Method, message: Uint8Array): void {
    this.#answers.set(method, { kind: 'message', message });
    for (const stream of this.#streams[method]) stream.write(message);
  }

  /** Any bytes to the open streams of `method` alone: later ones get what they would have got. */
  sendRawOnce(method: Method, message: Uint8Array): void {
    for (const stream of this.#streams[method]) stream.write(message);
  }

  /** Ends the open streams of `method` with a gRPC status, and answers the next `times` calls with it (by default all); after that as before. */
  failWith(method: Method, code: status, { times = Number.POSITIVE_INFINITY }: { times?: number } = {}): void {
    const held = this.#answers.get(method);
    this.#answers.set(method, { kind: 'failure', code, times, before: held?.kind === 'failure' ? held.before : held });
    this.endStreams(method, code);
  }

  /** Ends the open streams of `method`; the next call is answered as usual. */
  endStreams(method: Method, code: status = status.OK): void {
    for (const stream of this.#streams[method]) finish(stream, code);
  }

  callsOf(method: Method): RecordedCall[] {
    return this.calls.filter((call) => call.method === method);
  }

  openStreams(method: Method): number {
    return this.#streams[method].size;
  }

  /** Binds, or binds anew: on a Unix socket always a new inode, which takes the path in one step, as a careful agent does. */
  async listen(): Promise<void> {
    const server = new Server();
    const handle = (method: Method) => (stream: Stream) => this.#serve(method, stream);
    server.addService(
      Object.fromEntries(METHODS.map((method) => [method, definition(method)])),
      Object.fromEntries(METHODS.map((method) => [method, handle(method)])),
    );
    if (this.#at.startsWith('tcp:')) await bind(server, this.#at.slice(4));
    else {
      // Bound under another name, so that closing this server later does not remove the socket of its successor.
      const bound = `${this.#at}.${++this.#binds}`;
      await bind(server, `unix:${bound}`);
      await rename(bound, this.#at);
    }
    this.#server = server;
  }

  /** A successor takes the path while this server and its streams live on, as when an agent is replaced but not stopped. */
  async replace(): Promise<FakeWorkloadApi> {
    const successor = new FakeWorkloadApi(this.#at, undefined);
    successor.#binds = this.#binds + 1000;
    await successor.listen();
    return successor;
  }

  /** The agent dies: connections are cut. On a Unix socket the dead socket stays at its path, unless `unlink`. */
  async stop({ unlink = false } = {}): Promise<void> {
    this.#server?.forceShutdown();
    this.#server = undefined;
    for (const streams of Object.values(this.#streams)) streams.clear();
    if (unlink && !this.#at.startsWith('tcp:')) await rm(this.#at, { force: true });
  }

  /** The name of the socket goes; open streams stay. */
  async removeSocket(): Promise<void> {
    await rm(this.#at, { force: true });
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.listen();
  }

  /** Stops and removes what it made. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true });
  }

  #serve(method: Method, stream: Stream): void {
    const header = stream.metadata.get('workload.spiffe.io');
    const hadHeader = header.length === 1 && header[0] === 'true';
    this.calls.push({ method, atMs: performance.now(), hadHeader, metadata: stream.metadata, request: stream.request });
    const answer = this.#answers.get(method);
    if (answer?.kind === 'failure') {
      const times = answer.times - 1;
      if (times > 0) this.#answers.set(method, { ...answer, times });
      else if (answer.before === undefined) this.#answers.delete(method);
      else this.#answers.set(method, answer.before);
      finish(stream, answer.code);
      return;
    }
    this.#streams[method].add(stream);
    const forget = (): void => void this.#streams[method].delete(stream);
    stream.on('cancelled', forget);
    stream.on('close', forget);
    stream.on('error', forget);
    if (answer !== undefined) stream.write(answer.message);
    else if (method === 'FetchJWTSVID' && this.#jwt !== undefined) {
      const svids = [...this.#jwt(fromBinary(JWTSVIDRequestSchema, stream.request))];
      stream.write(toBinary(JWTSVIDResponseSchema, create(JWTSVIDResponseSchema, { svids })));
    } else return;
    // A unary call is, on the wire, a stream of one message.
    if (method === 'FetchJWTSVID') stream.end();
  }
}

const METHODS: readonly Method[] = ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles', 'FetchJWTSVID'];

type Stream = ServerWritableStream<Buffer, Uint8Array>;
type Answer =
  | { readonly kind: 'message'; readonly message: Uint8Array }
  | { readonly kind: 'failure'; readonly code: status; readonly times: number; readonly before: Answer | undefined };

function definition(method: Method): MethodDefinition<Buffer, Uint8Array> {
  return {
    path: `/SpiffeWorkloadAPI/${method}`,
    requestStream: false,
    responseStream: true,
    requestSerialize: (bytes) => bytes,
    requestDeserialize: (bytes) => bytes,
    responseSerialize: (bytes) => Buffer.from(bytes),
    responseDeserialize: (bytes) => bytes,
  };
}

function finish(stream: Stream, code: status): void {
  if (code === status.OK) stream.end();
  else stream.emit('error', { code, details: `as the test has it: ${status[code]}` });
}

function bind(server: Server, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => (error === null ? resolve(port) : reject(error)));
  });
}

async function freePort(): Promise<number> {
  const probe = new Server();
  const port = await bind(probe, '127.0.0.1:0');
  probe.forceShutdown();
  return port;
}
