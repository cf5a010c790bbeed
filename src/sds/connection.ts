import type { Socket } from 'node:net';
import {
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  status,
  type ConnectionInjector,
  type sendUnaryData,
  type ServerInterceptingCallInterface,
  type ServerUnaryCall,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import type { SdsConfig } from '../config/config.ts';
import type { CheckService, RefusedCheck } from '../ext-authz/service.ts';
import { AggregatedDiscoveryService } from '../gen/discovery_pb.ts';
import { Authorization } from '../gen/ext_authz_pb.ts';
import { Health } from '../gen/health_pb.ts';
import { SecretDiscoveryService } from '../gen/sds_pb.ts';
import { file_secret } from '../gen/secret_pb.ts';
import { AnyAuthoritySocket } from '../grpc/any-authority.ts';
import { addHealth } from '../grpc/health.ts';
import { addReflection } from '../grpc/reflection.ts';
import { serviceDefinition } from '../grpc/service-definition.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import type { Watch } from '../lib/watch.ts';
import type { SdsEvents } from '../telemetry/events/sds-events.ts';
import type { CheckRefusal } from '../telemetry/log/ext-authz-records.ts';
import type { SdsRefusalReason } from '../telemetry/log/sds-records.ts';
import { fetchSecrets } from './fetch.ts';
import { TokenBucket } from './limits.ts';
import type { Catalogue } from './secrets.ts';
import { DELTA, SOTW, XdsServerStream, type Protocol, type XdsCall, type XdsStream } from './stream.ts';
import { listNames, shorten, type SotwRequest, type StreamOptions } from './stream-state.ts';
import { UnreadRequests } from './unread-requests.ts';
import { decodeSotwRequest, encodeSotwResponse, SECRET_TYPE } from './wire.ts';

export interface ConnectionDeps {
  readonly config: SdsConfig;
  readonly events: SdsEvents;
  readonly clock: Clock;
  readonly isServing: Watch<boolean>;
  readonly catalogue: () => Catalogue | undefined;
  /** Bundles of a new catalogue are going out; certificates wait. */
  readonly holdsCertificates: () => boolean;
  /** Resolves when they wait no longer. */
  readonly released: () => Promise<void>;
  /** The number of a new stream. */
  readonly nextStream: () => number;
  readonly noncePrefix: () => string;
  /** False when there are too many of all connections together. */
  readonly openStream: () => boolean;
  readonly closeStream: () => void;
  /** What answers the checks of Envoy, on the same connections, with places and limits of its own; undefined: nobody does. */
  readonly checks: CheckService | undefined;
}

/** Requests that do more than to answer, at once, as so many seconds of `maxRequestRate`. */
const BURST_SECONDS = 10;
/** Above `maxStreamsPerConnection`, so that one too many gets a status: HTTP/2 itself would only let it wait. */
const SPARE_STREAMS = 64;
/** Requests up to so many times the limit are read whole, to be refused by us. */
const GRPC_FACTOR = 8;
/** What a connection may have sent of requests that are not read yet, besides one. */
const UNREAD_BYTES = 1 << 20;
/** What each check that is not whole yet may have sent besides: most are a few kilobytes. */
const UNREAD_CHECK_BYTES = 16_384;
const KEEPALIVE_MS = 60_000;
const KEEPALIVE_TIMEOUT_MS = 20_000;
const IDLE_MS = 300_000;
const STOPPING = 'Scute is stopping';

interface Refusal {
  readonly code: status;
  readonly details: string;
}

/** Bytes go out as they are, and come in undecoded: what to say of bad ones is ours to decide. */
function rawDefinition(service: Parameters<typeof serviceDefinition>[0]): ServiceDefinition {
  const same = (bytes: Buffer): Buffer => bytes;
  return Object.fromEntries(
    Object.entries(serviceDefinition(service)).map(([name, method]) => [
      name,
      { ...method, requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same },
    ]),
  );
}

const SDS_DEFINITION = rawDefinition(SecretDiscoveryService);
const ADS_DEFINITION = rawDefinition(AggregatedDiscoveryService);
const CHECK_DEFINITION = rawDefinition(Authorization);
const CHECK_PATH = `/${Authorization.typeName}/${Authorization.method.check.name}`;
/** By which the network filter of Envoy, which cannot say it otherwise, names a listener. */
const LISTENER_METADATA = 'scute-listener';
const CHECK_STATUS: Readonly<Record<CheckRefusal, status>> = {
  check_limit: status.RESOURCE_EXHAUSTED,
  connection_check_limit: status.RESOURCE_EXHAUSTED,
  check_size: status.RESOURCE_EXHAUSTED,
  check_timeout: status.DEADLINE_EXCEEDED,
  bad_check: status.INVALID_ARGUMENT,
  compressed: status.UNIMPLEMENTED,
  internal_error: status.INTERNAL,
};
const COMPRESSED = 'compressed requests are not read';
/** What is ended stream by stream at a stop, and not call by call. */
const STREAM_PATHS = new Set(
  [SDS_DEFINITION, ADS_DEFINITION].flatMap((methods) =>
    Object.values(methods)
      .filter((method) => method.requestStream)
      .map(({ path }) => path),
  ),
);
const SERVICES = [SecretDiscoveryService.typeName, AggregatedDiscoveryService.typeName];

interface OpenCheck {
  readonly timer: Timer;
  hasMessage: boolean;
  /** And so answered. */
  isWhole: boolean;
}

/** How gRPC begins to say that a request is larger than it reads. */
const TOO_LARGE = 'Received message larger than ';

/**
 * One connection of a client. It has a gRPC server of its own, into which its socket is put: gRPC does not tell whose call a call is, and
 * limits are for each client.
 */
export class SdsConnection {
  readonly #socket: Socket;
  readonly #id: number;
  readonly #deps: ConnectionDeps;
  readonly #streams = new Set<XdsServerStream<never>>();
  readonly #bucket: TokenBucket;
  readonly #server: Server;
  readonly #injector: ConnectionInjector;
  /** Calls of every kind that are not over, with their paths. */
  readonly #calls = new Map<ServerInterceptingCallInterface, string>();
  /** Checks that are not over. */
  readonly #checks = new Map<ServerInterceptingCallInterface, OpenCheck>();
  readonly #unread = new UnreadRequests();
  #subscriptionBytes = 0;
  #isStopping = false;

  constructor(socket: Socket, id: number, deps: ConnectionDeps) {
    this.#socket = socket;
    this.#id = id;
    this.#deps = deps;
    const { limits } = deps.config;
    const { checks } = deps;
    this.#bucket = new TokenBucket(limits.maxRequestRate, BURST_SECONDS * limits.maxRequestRate, deps.clock);
    this.#server = new Server({
      'grpc.enable_channelz': 0,
      'grpc.max_concurrent_streams':
        limits.maxStreamsPerConnection + (checks?.limits.maxConcurrentChecksPerConnection ?? 0) + SPARE_STREAMS,
      // Ours is lower. What is never completed is seen by `look`.
      'grpc.max_receive_message_length': GRPC_FACTOR * this.#maxRequestBytes(),
      // A client that does not read does not answer either.
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc.max_connection_idle_ms': IDLE_MS,
      interceptors: [({ path }, call) => this.#admitted(call, path)],
    });
    this.#server.addService(SDS_DEFINITION, {
      streamSecrets: (call: XdsCall) => this.#open(call, SOTW, false),
      deltaSecrets: (call: XdsCall) => this.#open(call, DELTA, false),
      fetchSecrets: (call: ServerUnaryCall<Buffer, Buffer>, respond: sendUnaryData<Buffer>) => this.#fetch(call, respond),
    });
    this.#server.addService(ADS_DEFINITION, {
      streamAggregatedResources: (call: XdsCall) => this.#open(call, SOTW, true),
      deltaAggregatedResources: (call: XdsCall) => this.#open(call, DELTA, true),
    });
    if (checks !== undefined) {
      this.#server.addService(CHECK_DEFINITION, {
        check: (call: ServerUnaryCall<Buffer, Buffer>, respond: sendUnaryData<Buffer>) => this.#check(checks, call, respond),
      });
    }
    addHealth(this.#server, checks === undefined ? SERVICES : [...SERVICES, Authorization.typeName], deps.isServing);
    // With the secrets, which the services themselves know as any message.
    const files = [SecretDiscoveryService.file, AggregatedDiscoveryService.file, Health.file, file_secret];
    if (checks !== undefined) files.push(Authorization.file);
    addReflection(this.#server, files, () => {
      const problem = this.#admit();
      if (problem !== undefined) deps.events.refused('request_rate', problem);
      return problem;
    });
    socket.on('error', () => undefined);
    socket.once('close', () => this.#server.forceShutdown());
    this.#injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    this.#injector.injectConnection(new AnyAuthoritySocket(socket));
  }

  streams(): ReadonlySet<XdsStream> {
    return this.#streams;
  }

  /** Whether nobody would miss it. */
  get isIdle(): boolean {
    return this.#streams.size === 0 && this.#checks.size === 0;
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Cuts a client that sends without ever completing a request: gRPC would keep it all. */
  look(): void {
    const unread = this.#unread.bytes();
    if (unread <= GRPC_FACTOR * this.#maxRequestBytes() + UNREAD_BYTES + UNREAD_CHECK_BYTES * this.#checks.size) return;
    this.#deps.events.refused('request_size', `${unread} bytes of requests that were never completed`);
    this.destroy();
  }

  /** Of requests of any kind. */
  #maxRequestBytes(): number {
    return Math.max(this.#deps.config.limits.maxRequestBytes, this.#deps.checks?.limits.maxRequestBytes ?? 0);
  }

  /** Ends all streams with UNAVAILABLE, and the connection when that has gone out, after `withinMs` at the latest. */
  async stop(withinMs: number, deadline: AbortSignal): Promise<void> {
    this.#isStopping = true;
    for (const stream of this.#streams) stream.end(status.UNAVAILABLE, STOPPING);
    for (const [call, path] of this.#calls) if (!STREAM_PATHS.has(path)) call.sendStatus({ code: status.UNAVAILABLE, details: STOPPING });
    for (const call of this.#checks.keys()) call.sendStatus({ code: status.UNAVAILABLE, details: STOPPING });
    if (!deadline.aborted && !this.#socket.destroyed) {
      // A call is over for gRPC before its status has gone out, so the connection is closed as HTTP/2 does it: after its last stream.
      this.#injector.drain(withinMs);
      await new Promise<void>((resolve) => {
        const timer = this.#deps.clock.after(withinMs, resolve);
        this.#socket.once('close', () => {
          timer.cancel();
          resolve();
        });
      });
    }
    this.#server.forceShutdown();
    this.destroy();
  }

  #open<Request extends { readonly nonce: string }>(call: XdsCall, protocol: Protocol<Request>, aggregated: boolean): void {
    const { config, events, clock, catalogue } = this.#deps;
    const ref = { id: this.#deps.nextStream(), connection: this.#id, protocol: protocol.name, aggregated, node: '', userAgent: '' };
    const stream = new XdsServerStream(call, protocol, ref, clock.now(), {
      catalogue,
      options: this.#streamOptions(),
      holdsCertificates: this.#deps.holdsCertificates,
      maxRequestBytes: config.limits.maxRequestBytes,
      events,
      admitRequest: () => this.#admit(),
      growSubscription: (bytes) => this.#grow(bytes),
    });
    this.#streams.add(stream as XdsServerStream<never>);
    events.streamOpened(ref);
    call.once('close', () => {
      stream.closed();
      this.#streams.delete(stream as XdsServerStream<never>);
      events.streamEnded(ref, stream.endDetail);
    });
  }

  /**
   * Every call takes the place of a stream before any of it is read, and gives it back when it is over, its status having gone out: here, since
   * gRPC begins some handlers only after the end of their call.
   */
  #admitted(call: ServerInterceptingCallInterface, path: string): ServerInterceptingCall {
    const { checks } = this.#deps;
    this.#watchStatus(call);
    if (checks !== undefined && path === CHECK_PATH) return this.#admittedCheck(call, checks);
    const isOther = !STREAM_PATHS.has(path);
    const taken = this.#unread.watch(call);
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, begin) => {
            const refusal = this.#admitCall(call);
            if (refusal !== undefined) return call.sendStatus(refusal);
            this.#calls.set(call, path);
            if (isOther) this.#deps.events.callOpened();
            begin(metadata);
          },
          onReceiveMessage: (message: unknown, handOn) => {
            // Those of health and reflection are decoded already.
            taken(Buffer.isBuffer(message) ? message.length : undefined);
            handOn(message);
          },
          onCancel: () => {
            if (!this.#calls.delete(call)) return;
            this.#deps.closeStream();
            if (isOther) this.#deps.events.callEnded();
          },
        }),
    });
  }

  /** A check takes a place of its own kind: however many there are, they take nothing of what is for secrets. */
  #admittedCheck(call: ServerInterceptingCallInterface, checks: CheckService): ServerInterceptingCall {
    const taken = this.#unread.watch(call);
    const refuse = (refusal: RefusedCheck): void => {
      checks.refused(refusal);
      call.sendStatus({ code: CHECK_STATUS[refusal.reason], details: refusal.detail });
    };
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, begin) => {
            if (this.#isStopping) return call.sendStatus({ code: status.UNAVAILABLE, details: STOPPING });
            const refusal = isCompressed(call) ? { reason: 'compressed' as const, detail: COMPRESSED } : checks.begin(this.#checks.size);
            if (refusal !== undefined) return refuse(refusal);
            const timer = this.#deps.clock.after(checks.limits.requestTimeoutMs, () => this.#checkIsLate(call, checks));
            this.#checks.set(call, { timer, hasMessage: false, isWhole: false });
            begin(metadata);
          },
          onReceiveMessage: (message: Buffer, handOn) => {
            taken(message.length);
            const open = this.#checks.get(call);
            if (open?.hasMessage === true) return refuse({ reason: 'bad_check', detail: 'more than one check in a call' });
            if (open !== undefined) open.hasMessage = true;
            handOn(message);
          },
          onReceiveHalfClose: (handOn) => {
            const open = this.#checks.get(call);
            if (open?.hasMessage === false) return refuse({ reason: 'bad_check', detail: 'a call without a check' });
            if (open !== undefined) open.isWhole = true;
            handOn();
          },
          onCancel: () => {
            this.#checks.get(call)?.timer.cancel();
            if (this.#checks.delete(call)) checks.end();
          },
        }),
    });
  }

  #checkIsLate(call: ServerInterceptingCallInterface, checks: CheckService): void {
    const detail = `a check was not over within ${checks.limits.requestTimeoutMs} ms`;
    checks.refused({ reason: 'check_timeout', detail });
    // What is whole was answered at once: its client takes no answers.
    if (this.#checks.get(call)?.isWhole === true) this.destroy();
    else call.sendStatus({ code: CHECK_STATUS.check_timeout, details: detail });
  }

  #check(checks: CheckService, call: ServerUnaryCall<Buffer, Buffer>, respond: sendUnaryData<Buffer>): void {
    const [elsewhere] = call.metadata.get(LISTENER_METADATA);
    const answer = checks.answer(call.request, elsewhere?.toString());
    if (answer.ok) return respond(null, answer.value);
    checks.refused(answer.error);
    respond({ code: CHECK_STATUS[answer.error.reason], details: answer.error.detail });
  }

  /** gRPC refuses what is beyond its own limit by itself, past all interceptors. So the last step is watched that each status takes. */
  #watchStatus(call: ServerInterceptingCallInterface): void {
    const send = call.sendStatus.bind(call);
    let isSaid = false;
    call.sendStatus = (last) => {
      const details = last.details ?? '';
      // It may say so again for what follows.
      if (!isSaid && last.code === status.RESOURCE_EXHAUSTED && details.startsWith(TOO_LARGE)) {
        isSaid = true;
        this.#deps.events.refused('request_size', details);
      }
      send(last);
    };
  }

  /** Takes the place of a stream, or says why there is none. */
  #admitCall(call: ServerInterceptingCallInterface): Refusal | undefined {
    if (this.#isStopping) return { code: status.UNAVAILABLE, details: STOPPING };
    const refuse = (reason: SdsRefusalReason, details: string, code = status.RESOURCE_EXHAUSTED): Refusal => {
      this.#deps.events.refused(reason, details);
      return { code, details };
    };
    const rateProblem = this.#admit();
    if (rateProblem !== undefined) return refuse('request_rate', rateProblem);
    if (isCompressed(call)) return refuse('bad_request', COMPRESSED, status.UNIMPLEMENTED);
    const { maxStreams, maxStreamsPerConnection } = this.#deps.config.limits;
    if (this.#calls.size >= maxStreamsPerConnection)
      return refuse('connection_stream_limit', `more than ${maxStreamsPerConnection} streams on one connection`);
    if (!this.#deps.openStream()) return refuse('stream_limit', `more than ${maxStreams} streams`);
    return undefined;
  }

  #streamOptions(): StreamOptions & { readonly disableSpiffeCertValidation: boolean } {
    const { disableSpiffeCertValidation, strictUnknownNames, limits } = this.#deps.config;
    return {
      noncePrefix: this.#deps.noncePrefix(),
      defaultForm: disableSpiffeCertValidation ? 'root_ca' : 'spiffe',
      strictUnknownNames,
      maxNames: limits.maxNames,
      disableSpiffeCertValidation,
    };
  }

  /** A sentence if the client asks for too much too fast. One that goes on regardless is cut. */
  #admit(): string | undefined {
    const taken = this.#bucket.take();
    if (taken === 'taken') return undefined;
    if (taken === 'hopeless') this.destroy();
    return `more than ${this.#deps.config.limits.maxRequestRate} requests a second`;
  }

  #grow(bytes: number): string | undefined {
    this.#subscriptionBytes += bytes;
    const { maxSubscriptionBytes } = this.#deps.config.limits;
    return bytes > 0 && this.#subscriptionBytes > maxSubscriptionBytes
      ? `the names that one connection asks for have more than ${maxSubscriptionBytes} bytes`
      : undefined;
  }

  #fetch(call: ServerUnaryCall<Buffer, Buffer>, respond: sendUnaryData<Buffer>): void {
    const { config, events } = this.#deps;
    const refuse = (reason: SdsRefusalReason, code: status, detail: string): void => {
      events.refused(reason, detail);
      respond({ code, details: detail });
    };
    const { maxRequestBytes, maxNames } = config.limits;
    const bytes = call.request;
    if (bytes.length > maxRequestBytes) {
      return refuse('request_size', status.RESOURCE_EXHAUSTED, `a request of ${bytes.length} bytes: ${maxRequestBytes} are allowed`);
    }
    const decoded = decodeSotwRequest(bytes, config);
    if (!decoded.ok) return refuse('bad_request', status.INVALID_ARGUMENT, decoded.error);
    const { typeUrl, request } = decoded.value;
    if (typeUrl !== '' && typeUrl !== SECRET_TYPE)
      return refuse(
        'bad_request',
        status.INVALID_ARGUMENT,
        `type_url ${JSON.stringify(shorten(typeUrl))} is not served here: ${SECRET_TYPE} is`,
      );
    if (request.names.length > maxNames)
      return refuse('name_limit', status.RESOURCE_EXHAUSTED, `${request.names.length} names in one request: ${maxNames} are allowed`);
    if (this.#deps.holdsCertificates()) void this.#deps.released().then(() => this.#answerFetch(request, respond));
    else this.#answerFetch(request, respond);
  }

  #answerFetch(request: SotwRequest, respond: sendUnaryData<Buffer>): void {
    const { config, events } = this.#deps;
    const refuse = (reason: SdsRefusalReason, code: status, detail: string): void => {
      events.refused(reason, detail);
      respond({ code, details: detail });
    };
    const catalogue = this.#deps.catalogue();
    if (catalogue === undefined) return refuse('not_ready', status.UNAVAILABLE, 'the Workload API has not answered yet');

    const form = request.node?.form ?? this.#streamOptions().defaultForm;
    const { secrets, missing } = fetchSecrets(catalogue, request.names, form);
    const isStrict = config.strictUnknownNames;
    if (missing.length > 0 && (secrets.length === 0 || isStrict)) {
      const isPooled = missing.every(({ reason }) => reason === 'pooled_bundles');
      const code = !isStrict ? status.NOT_FOUND : isPooled ? status.INTERNAL : status.INVALID_ARGUMENT;
      return refuse('unknown_names', code, `not served: ${listNames(missing.map(({ name }) => name).toSorted())}`);
    }
    // As from the SPIRE agent: who asks once has no use for a version or a nonce.
    respond(null, encodeSotwResponse({ version: '', nonce: '', secrets, removed: [] }, SECRET_TYPE));
  }
}

/** gRPC inflates requests before it tells anybody, up to a thousand times, and at once all that have come. It shows this nowhere else. */
function isCompressed(call: ServerInterceptingCallInterface): boolean {
  return !('incomingEncoding' in call) || call.incomingEncoding !== 'identity';
}
