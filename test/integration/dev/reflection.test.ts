import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import {
  type ServerReflectionResponse,
  ServerReflectionRequestSchema,
  ServerReflectionResponseSchema,
} from '../../../src/gen/reflection_pb.ts';
import { startDevDomain } from '../../support/dev-domain.ts';

type Question = NonNullable<MessageInitShape<typeof ServerReflectionRequestSchema>['messageRequest']>;

for (const version of ['v1', 'v1alpha']) {
  const ask = async (t: TestContext, endpoint: string, messageRequest: Question): Promise<ServerReflectionResponse['messageResponse']> => {
    const client = new Client(endpoint, credentials.createInsecure());
    t.after(() => client.close());
    const call = client.makeBidiStreamRequest(
      `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
      (request: MessageInitShape<typeof ServerReflectionRequestSchema>) =>
        Buffer.from(toBinary(ServerReflectionRequestSchema, create(ServerReflectionRequestSchema, request))),
      (bytes): ServerReflectionResponse => fromBinary(ServerReflectionResponseSchema, bytes),
      new Metadata(),
    );
    call.write({ messageRequest });
    const [response] = (await once(call, 'data')) as [ServerReflectionResponse];
    call.end();
    await once(call, 'end');
    return response.messageResponse;
  };

  test(`gRPC reflection ${version} lists the Workload API and describes it`, async (t) => {
    const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: ['spiffe://example.org/web'] } });
    const endpoint = spiffe.endpoint('web');

    const services = await ask(t, endpoint, { case: 'listServices', value: '' });
    const described = await ask(t, endpoint, { case: 'fileContainingSymbol', value: 'SpiffeWorkloadAPI' });
    const byMethod = await ask(t, endpoint, { case: 'fileContainingSymbol', value: 'SpiffeWorkloadAPI.FetchX509SVID' });
    const dependency = await ask(t, endpoint, { case: 'fileByFilename', value: 'google/protobuf/struct.proto' });
    const missing = await ask(t, endpoint, { case: 'fileContainingSymbol', value: 'Nothing' });

    assert.ok(services.case === 'listServicesResponse');
    assert.deepEqual(services.value.service.map(({ name }) => name).toSorted(), [
      'SpiffeWorkloadAPI',
      'grpc.reflection.v1.ServerReflection',
    ]);
    assert.ok(described.case === 'fileDescriptorResponse');
    const files = described.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
    assert.deepEqual(
      files.map(({ name }) => name),
      ['workload.proto', 'google/protobuf/struct.proto'],
    );
    assert.deepEqual(byMethod, described);
    assert.equal(dependency.case, 'fileDescriptorResponse');
    assert.equal(missing.case, 'errorResponse');
  });
}
