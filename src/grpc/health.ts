import { create } from '@bufbuild/protobuf';
import { status, type sendUnaryData, type Server, type ServerUnaryCall, type ServerWritableStream } from '@grpc/grpc-js';
import {
  Health,
  HealthCheckResponse_ServingStatus as ServingStatus,
  HealthCheckResponseSchema,
  type HealthCheckRequest,
  type HealthCheckResponse,
} from '../gen/health_pb.ts';
import type { Watch } from '../lib/watch.ts';
import { serviceDefinition } from './service-definition.ts';

/** The gRPC health protocol for `services`, and for the server as a whole, which is the empty name. */
export function addHealth(server: Server, services: readonly string[], isServing: Watch<boolean>): void {
  const known = new Set(['', ...services]);
  const answer = (serving: boolean | undefined): HealthCheckResponse =>
    create(HealthCheckResponseSchema, { status: serving === true ? ServingStatus.SERVING : ServingStatus.NOT_SERVING });

  server.addService(serviceDefinition(Health), {
    check(call: ServerUnaryCall<HealthCheckRequest, HealthCheckResponse>, respond: sendUnaryData<HealthCheckResponse>) {
      if (known.has(call.request.service)) respond(null, answer(isServing.get()));
      else respond({ code: status.NOT_FOUND, details: 'this service is not here' });
    },
    watch(call: ServerWritableStream<HealthCheckRequest, HealthCheckResponse>) {
      if (!known.has(call.request.service)) {
        // It might come: the protocol has the stream go on.
        call.write(create(HealthCheckResponseSchema, { status: ServingStatus.SERVICE_UNKNOWN }));
        return;
      }
      let said: boolean | undefined;
      let isBlocked = false;
      // A slow reader is told how it is, and not all that it was.
      const tell = (): void => {
        const serving = isServing.get() ?? false;
        if (isBlocked || serving === said) return;
        said = serving;
        isBlocked = !call.write(answer(serving));
      };
      call.on('drain', () => {
        isBlocked = false;
        tell();
      });
      const stop = isServing.subscribe(tell);
      if (said === undefined) tell();
      call.on('close', stop);
      call.on('cancelled', stop);
    },
  });
}
