import { type DescMessage, type DescService, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import type { ServiceDefinition } from '@grpc/grpc-js';

/** From a generated descriptor to what grpc-js wants. Handlers go by the descriptor's local names (`fetchX509SVID`). */
export function serviceDefinition(service: DescService, typeName: string = service.typeName): ServiceDefinition {
  const definition: Record<string, ServiceDefinition[string]> = {};
  for (const [name, method] of Object.entries(service.method)) {
    definition[name] = {
      path: `/${typeName}/${method.name}`,
      requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
      responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
      requestSerialize: serializer(method.input),
      requestDeserialize: deserializer(method.input),
      responseSerialize: serializer(method.output),
      responseDeserialize: deserializer(method.output),
    };
  }
  return definition;
}

function serializer(schema: DescMessage): (message: MessageShape<DescMessage>) => Buffer {
  return (message) => Buffer.from(toBinary(schema, message));
}

function deserializer(schema: DescMessage): (bytes: Buffer) => MessageShape<DescMessage> {
  return (bytes) => fromBinary(schema, bytes);
}
