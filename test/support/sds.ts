/** An xDS client of ours, which says what a test tells it to, and a server to talk to. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { create, fromBinary, toBinary, type MessageInitShape, type MessageShape } from '@bufbuild/protobuf';
import { Client, credentials, Metadata, type ClientDuplexStream, type ServiceError, type StatusObject } from '@grpc/grpc-js';
import type { SdsConfig } from '../../src/config/config.ts';
import { parseConfig } from '../../src/config/load.ts';
import { formatIssues } from '../../src/config/issue.ts';
import {
  AggregatedDiscoveryService,
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponseSchema,
  DiscoveryRequestSchema,
  DiscoveryResponseSchema,
  type DeltaDiscoveryResponse,
  type DiscoveryResponse,
} from '../../src/gen/discovery_pb.ts';
import { SecretDiscoveryService } from '../../src/gen/sds_pb.ts';
import type { CheckedListener } from '../../src/ext-authz/check.ts';
import { createCheckService } from '../../src/ext-authz/service.ts';
import type { IdentitySnapshot } from '../../src/identity/snapshot.ts';
import { createIdentityStore } from '../../src/identity/store.ts';
import { systemClock, type Clock } from '../../src/lib/clock.ts';
import { EMPTY_DENY_LIST, type DenyList } from '../../src/policy/deny-list.ts';
import type { Policy } from '../../src/policy/policy.ts';
import { createSdsServer, type SdsServer } from '../../src/sds/server.ts';
import { SECRET_TYPE } from '../../src/sds/wire.ts';
import { createEvents } from '../../src/telemetry/events/events.ts';
import { createLogger } from '../../src/telemetry/log/logger.ts';
import { createMetrics, type Metrics } from '../../src/telemetry/metrics/metrics.ts';
import { createRefusals } from '../../src/telemetry/log/refusals.ts';
import { readSecret, type ReadSecret } from './secrets.ts';
import { temporaryFolder } from './temporary-folder.ts';

export { SECRET_TYPE };

export interface TestSdsServer {
  readonly server: SdsServer;
  readonly metrics: Metrics;
  /** For a gRPC client: `unix:///…`. */
  readonly target: string;
  readonly path: string;
  publish(snapshot: IdentitySnapshot): void;
  log(): readonly Readonly<Record<string, unknown>>[];
  /** All that was written to the log. */
  written(): string;
}

export interface TestSdsOptions {
  /** The `sds` section, without `listen`. */
  readonly sds?: object;
  readonly clock?: Clock;
  readonly policies?: () => ReadonlyMap<string, Policy>;
  readonly denyList?: () => DenyList;
  /** The inbound listeners that checks of Envoy may name; they are answered if there are any. */
  readonly listeners?: ReadonlyMap<string, CheckedListener>;
  readonly logLevel?: 'info' | 'debug';
  readonly logFormat?: 'json' | 'pretty';
}

/** An SDS server alone, with identities that the test publishes. It is stopped after the test. */
export async function startSds(t: TestContext, options: TestSdsOptions = {}): Promise<TestSdsServer> {
  const path = join(await temporaryFolder(t), 'sds.sock');
  const { listeners } = options;
  const config = await sdsConfig({ listen: `unix://${path}`, ...(listeners && { authorization: {} }), ...options.sds });
  const metrics = createMetrics({ version: 'test' });
  const written: string[] = [];
  const destination = { write: (text: string): void => void written.push(text) };
  const { logger } = await createLogger({ level: options.logLevel ?? 'debug', format: options.logFormat ?? 'json', destination });
  const clock = options.clock ?? systemClock;
  const { view, publisher } = createIdentityStore();
  const events = createEvents({ logger, metrics, clock });
  const denyList = options.denyList ?? ((): DenyList => EMPTY_DENY_LIST);
  const { authorization: limits } = config;
  const server = createSdsServer({
    config,
    identity: view,
    policies: options.policies ?? (() => new Map()),
    denyList,
    events: events.sds,
    checks:
      limits &&
      createCheckService({
        limits,
        listener: (name) => listeners?.get(name),
        identity: view,
        denyList,
        events: events.checks,
        refusals: createRefusals(clock),
        clock,
      }),
    clock,
    random: Math.random,
  });
  await server.start(AbortSignal.timeout(60_000));
  t.after(() => server.stop(AbortSignal.abort()));
  let generation = 0;
  return {
    server,
    metrics,
    path,
    target: `unix://${path}`,
    log: () => written.map((line) => JSON.parse(line) as Record<string, unknown>),
    written: () => written.join(''),
    publish: (snapshot) => publisher.publish({ ...snapshot, generation: (generation += 1) }),
  };
}

async function sdsConfig(sds: object): Promise<SdsConfig> {
  const inbound = [{ listen: '127.0.0.1:1', to: '127.0.0.1:2', allow: [] }];
  const text = JSON.stringify({ workloadApi: { endpoint: 'unix:///none' }, inbound, sds });
  const loaded = await parseConfig(text, { file: 'test.yaml', flags: {}, env: {} });
  if (!loaded.ok || loaded.value.sds === undefined) throw new Error(loaded.ok ? 'no sds' : formatIssues(loaded.error));
  return loaded.value.sds;
}

/** A connection of its own. */
export function sdsClient(t: TestContext, target: string): Client {
  const client = new Client(target, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  t.after(() => client.close());
  return client;
}

export interface OpenStream<Request, Response> {
  readonly call: ClientDuplexStream<Buffer, Buffer>;
  send(request: Request): void;
  /** The next response, after those that were taken before. */
  next(): Promise<Response>;
  /** Responses that came and were not taken. */
  waiting(): readonly Response[];
  /** The status that the server ends it with. */
  readonly ended: Promise<StatusObject>;
}

export type Sotw = OpenStream<MessageInitShape<typeof DiscoveryRequestSchema>, DiscoveryResponse>;
export type Delta = OpenStream<MessageInitShape<typeof DeltaDiscoveryRequestSchema>, DeltaDiscoveryResponse>;

const [SDS, ADS] = [SecretDiscoveryService.typeName, AggregatedDiscoveryService.typeName];

export function openSotw(client: Client, aggregated = false): Sotw {
  return open(client, aggregated ? `/${ADS}/StreamAggregatedResources` : `/${SDS}/StreamSecrets`, encodeSotw, (bytes) =>
    fromBinary(DiscoveryResponseSchema, bytes),
  );
}

export function openDelta(client: Client, aggregated = false): Delta {
  return open(client, aggregated ? `/${ADS}/DeltaAggregatedResources` : `/${SDS}/DeltaSecrets`, encodeDelta, (bytes) =>
    fromBinary(DeltaDiscoveryResponseSchema, bytes),
  );
}

export function encodeSotw(request: MessageInitShape<typeof DiscoveryRequestSchema>): Buffer {
  return Buffer.from(toBinary(DiscoveryRequestSchema, create(DiscoveryRequestSchema, { typeUrl: SECRET_TYPE, ...request })));
}

export function encodeDelta(request: MessageInitShape<typeof DeltaDiscoveryRequestSchema>): Buffer {
  return Buffer.from(toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, { typeUrl: SECRET_TYPE, ...request })));
}

const same = (bytes: Buffer): Buffer => bytes;
const NEXT_WITHIN_MS = 60_000;

export function openRaw(client: Client, path: string): ClientDuplexStream<Buffer, Buffer> {
  return client.makeBidiStreamRequest(path, same, same, new Metadata());
}

function open<Request, Response>(
  client: Client,
  path: string,
  encode: (request: Request) => Buffer,
  decode: (bytes: Buffer) => Response,
): OpenStream<Request, Response> {
  const call = openRaw(client, path);
  const arrived: Response[] = [];
  let taken = 0;
  let news = Promise.withResolvers<void>();
  const tell = (): void => {
    news.resolve();
    news = Promise.withResolvers();
  };
  call.on('data', (bytes: Buffer) => {
    arrived.push(decode(bytes));
    tell();
  });
  call.on('error', () => undefined);
  let status: StatusObject | undefined;
  const ended = new Promise<StatusObject>((resolve) => {
    call.on('status', (last: StatusObject) => {
      status = last;
      resolve(last);
      tell();
    });
  });
  return {
    call,
    ended,
    send: (request) => void call.write(encode(request)),
    waiting: () => arrived.slice(taken),
    async next() {
      const timer = setTimeout(() => call.destroy(new Error('no response in time')), NEXT_WITHIN_MS);
      try {
        while (arrived.length <= taken) {
          if (status !== undefined) throw new Error(`the stream ended with ${status.code}: ${status.details}`);
          await news.promise;
        }
      } finally {
        clearTimeout(timer);
      }
      const response = arrived[taken];
      taken += 1;
      if (response === undefined) throw new Error('no response');
      return response;
    },
  };
}

/** FetchSecrets: the response, or the status. */
export function fetchSecrets(
  client: Client,
  request: MessageInitShape<typeof DiscoveryRequestSchema>,
): Promise<{ readonly response?: DiscoveryResponse; readonly error?: ServiceError }> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      `/${SDS}/FetchSecrets`,
      same,
      (bytes: Buffer) => fromBinary(DiscoveryResponseSchema, bytes),
      encodeSotw(request),
      new Metadata(),
      (error, response) => resolve({ ...(error !== null && { error }), ...(response !== undefined && { response }) }),
    );
  });
}

/** What is in a state-of-the-world response. */
export function secretsOf({ resources, typeUrl }: DiscoveryResponse): readonly ReadSecret[] {
  if (typeUrl !== SECRET_TYPE) throw new Error(typeUrl);
  return resources.map((any) => {
    if (any.typeUrl !== SECRET_TYPE) throw new Error(any.typeUrl);
    return readSecret(any.value);
  });
}

export function deltaSecretsOf({ resources }: Pick<MessageShape<typeof DeltaDiscoveryResponseSchema>, 'resources'>): readonly ReadSecret[] {
  return resources.map(({ name, resource }) => {
    const secret = readSecret(resource?.value ?? new Uint8Array());
    if (secret.name !== name || resource?.typeUrl !== SECRET_TYPE) throw new Error(name);
    return secret;
  });
}
