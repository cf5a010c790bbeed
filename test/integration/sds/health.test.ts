import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test, type TestContext } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Metadata, status, type Client, type ClientReadableStream, type ServiceError } from '@grpc/grpc-js';
import { HealthCheckRequestSchema, HealthCheckResponseSchema, type HealthCheckResponse } from '../../../src/gen/health_pb.ts';
import {
  ServerReflectionRequestSchema,
  ServerReflectionResponseSchema,
  type ServerReflectionResponse,
} from '../../../src/gen/reflection_pb.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { openRaw, sdsClient, startSds } from '../../support/sds.ts';
import { heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';

const own = createTestAuthority({ trustDomain: 'example.org' });
const SDS = 'envoy.service.secret.v3.SecretDiscoveryService';
const ADS = 'envoy.service.discovery.v3.AggregatedDiscoveryService';
const [SERVING, NOT_SERVING, SERVICE_UNKNOWN] = [1, 2, 3];

const encode = (service: string): Buffer => Buffer.from(toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, { service })));
const decode = (bytes: Buffer): HealthCheckResponse => fromBinary(HealthCheckResponseSchema, bytes);

function check(client: Client, service: string, trace = ''): Promise<number | ServiceError> {
  const metadata = new Metadata();
  if (trace !== '') metadata.set('x-trace', trace);
  return new Promise((resolve) => {
    client.makeUnaryRequest('/grpc.health.v1.Health/Check', encode, decode, service, metadata, (error, response) =>
      resolve(error ?? response?.status ?? 0),
    );
  });
}

function watch(t: TestContext, client: Client, service: string): { next(): Promise<number> } {
  const call: ClientReadableStream<HealthCheckResponse> = client.makeServerStreamRequest(
    '/grpc.health.v1.Health/Watch',
    encode,
    decode,
    service,
    new Metadata(),
  );
  call.on('error', () => undefined);
  t.after(() => call.cancel());
  const answers = call[Symbol.asyncIterator]() as AsyncIterator<HealthCheckResponse>;
  return {
    async next() {
      const { value, done } = await answers.next();
      assert.ok(done !== true);
      return value.status;
    },
  };
}

test('health: serving once the Workload API has answered, for the server and for each of its services', async (t) => {
  const sds = await startSds(t);
  const client = sdsClient(t, sds.target);
  const watched = watch(t, client, SDS);

  for (const service of ['', SDS, ADS]) assert.equal(await check(client, service), NOT_SERVING);
  assert.equal(await watched.next(), NOT_SERVING);
  sds.publish(heldSnapshot([svidOf(own, 'spiffe://example.org/web')], [own]));
  assert.equal(await watched.next(), SERVING);
  for (const service of ['', SDS, ADS]) assert.equal(await check(client, service), SERVING);

  const unknown = await check(client, 'nothing');
  assert.ok(unknown instanceof Error);
  assert.equal(unknown.code, status.NOT_FOUND);
  assert.equal(await watch(t, client, 'nothing').next(), SERVICE_UNKNOWN);
});

test('health: a watch ends with UNAVAILABLE at a stop', async (t) => {
  const sds = await startSds(t);
  const call = openRaw(sdsClient(t, sds.target), '/grpc.health.v1.Health/Watch');
  call.on('error', () => undefined);
  const answered = new Promise((resolve) => call.once('data', resolve));
  const ended = new Promise<{ code: number; details: string }>((resolve) => call.on('status', resolve));
  call.end(encode(''));
  await answered;

  await sds.server.stop(AbortSignal.timeout(60_000));

  const { code, details } = await ended;
  assert.deepEqual([code, details], [status.UNAVAILABLE, 'Scute is stopping']);
});

test('health: a client may check without end on one connection, and what it sends is never taken for requests without end', async (t) => {
  const clock = new FakeClock();
  const sds = await startSds(t, { clock, sds: { limits: { maxRequestBytes: 16_384, maxRequestRate: 1000 } } });
  const client = sdsClient(t, sds.target);
  // A trace of this size goes along with each; it is another one each time, so that HTTP/2 cannot shorten it.
  for (let round = 0; round < 40; round += 1) {
    const answers = await Promise.all(Array.from({ length: 50 }, () => check(client, '', randomBytes(700).toString('hex'))));
    assert.deepEqual(new Set(answers), new Set([NOT_SERVING]));
    clock.advance(1000);
  }
  assert.equal(sds.metrics.sds.refused.request_size, 0);
});

test('reflection lists the services and describes a secret', async (t) => {
  const sds = await startSds(t);
  const call = openRaw(sdsClient(t, sds.target), '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo');
  call.on('error', () => undefined);
  t.after(() => call.cancel());
  const ask = async (messageRequest: object): Promise<ServerReflectionResponse['messageResponse']> => {
    const answered = new Promise<Buffer>((resolve) => call.once('data', resolve));
    call.write(
      Buffer.from(
        toBinary(ServerReflectionRequestSchema, create(ServerReflectionRequestSchema, { messageRequest: messageRequest as never })),
      ),
    );
    return fromBinary(ServerReflectionResponseSchema, await answered).messageResponse;
  };

  const listed = await ask({ case: 'listServices', value: '' });
  assert.ok(listed.case === 'listServicesResponse');
  const names = listed.value.service.map(({ name }) => name);
  for (const name of [SDS, ADS, 'grpc.health.v1.Health']) assert.ok(names.includes(name), name);
  const secret = await ask({ case: 'fileContainingSymbol', value: 'envoy.extensions.transport_sockets.tls.v3.Secret' });
  assert.equal(secret.case, 'fileDescriptorResponse');
  assert.equal((await ask({ case: 'fileContainingSymbol', value: SDS })).case, 'fileDescriptorResponse');
  assert.equal((await ask({ case: 'fileContainingSymbol', value: `${ADS}.DeltaAggregatedResources` })).case, 'fileDescriptorResponse');
});
