// A bare gRPC client of the Workload API, which sends what a test tells it to.
import { type DescMethod, fromBinary, type MessageInitShape, type MessageShape, toBinary, create } from '@bufbuild/protobuf';
import { Client, credentials, Metadata, type ServiceError, type status } from '@grpc/grpc-js';
import type { TestContext } from 'node:test';
import { SpiffeWorkloadAPI } from '../../src/gen/workload_pb.ts';

type Methods = typeof SpiffeWorkloadAPI.method;
type Input<M extends DescMethod> = MessageInitShape<M['input']>;
type Output<M extends DescMethod> = MessageShape<M['output']>;

export interface OpenStream<T> {
  /** The next message. Rejects with the stream's error, or after five seconds. */
  next(): Promise<T>;
  cancel(): void;
}

export interface WorkloadApiTestClient {
  stream<Name extends 'fetchX509SVID' | 'fetchX509Bundles' | 'fetchJWTBundles'>(name: Name): OpenStream<Output<Methods[Name]>>;
  call<Name extends 'fetchJWTSVID' | 'validateJWTSVID'>(name: Name, request: Input<Methods[Name]>): Promise<Output<Methods[Name]>>;
}

/** `headers` are the values of `workload.spiffe.io`. */
export function workloadApiClient(t: TestContext, endpoint: string, headers: readonly string[] = ['true']): WorkloadApiTestClient {
  const client = new Client(endpoint.replace(/^tcp:\/\//, ''), credentials.createInsecure());
  t.after(() => client.close());
  const metadata = (): Metadata => {
    const sent = new Metadata();
    for (const value of headers) sent.add('workload.spiffe.io', value);
    return sent;
  };
  return {
    stream(name) {
      const method = SpiffeWorkloadAPI.method[name];
      const call = client.makeServerStreamRequest(
        pathOf(method),
        (request: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, request)),
        (bytes) => fromBinary(method.output, bytes) as Output<Methods[typeof name]>,
        create(method.input),
        metadata(),
      );
      t.after(() => call.cancel());
      const messages = call[Symbol.asyncIterator]() as AsyncIterator<Output<Methods[typeof name]>>;
      return {
        async next() {
          const timeout = setTimeout(() => call.destroy(new Error(`no message on ${name} in a minute`)), 60_000);
          try {
            const result = await messages.next();
            if (result.done === true) throw new Error(`${name} ended without an error`);
            return result.value;
          } finally {
            clearTimeout(timeout);
          }
        },
        cancel: () => call.cancel(),
      };
    },
    call(name, request) {
      const method = SpiffeWorkloadAPI.method[name];
      return new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          pathOf(method),
          (message: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input as never, message)),
          (bytes) => fromBinary(method.output, bytes) as Output<Methods[typeof name]>,
          create(method.input as never, request as never),
          metadata(),
          { deadline: Date.now() + 5000 },
          (failure: ServiceError | null, response) => {
            if (failure !== null) reject(failure);
            else if (response === undefined) reject(new Error(`${name} answered nothing`));
            else resolve(response);
          },
        );
      });
    },
  };
}

function pathOf(method: DescMethod): string {
  return `/${SpiffeWorkloadAPI.typeName}/${method.name}`;
}

/** For `assert.rejects`: an error with this gRPC status. */
export function hasStatus(code: status): (thrown: unknown) => boolean {
  return (thrown) => typeof thrown === 'object' && thrown !== null && 'code' in thrown && thrown.code === code;
}
