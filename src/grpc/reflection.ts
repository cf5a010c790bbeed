import { create, type DescFile, type DescMessage, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { type Server, type ServerDuplexStream, status } from '@grpc/grpc-js';
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from '../gen/reflection_pb.ts';
import { serviceDefinition } from './service-definition.ts';

/** Older tools know the protocol by this name alone; its messages are the same. */
const OLD_NAME = 'grpc.reflection.v1alpha.ServerReflection';

/** Asked for each question. A sentence if it is one too many, which ends the call. */
type Admit = () => string | undefined;
type Answer = MessageInitShape<typeof ServerReflectionResponseSchema>['messageResponse'];

/**
 * Lets tools such as grpcurl ask what `files` describe (SPIFFE Workload Endpoint, section 3: reflection should be there).
 * It tells nothing about any identity, so it is answered without the security header, which most tools cannot send.
 */
export function addReflection(server: Server, files: readonly DescFile[], admit: Admit = () => undefined): void {
  const known = withDependencies([...files, ServerReflection.file]);
  const handlers = {
    serverReflectionInfo(call: ServerDuplexStream<ServerReflectionRequest, ServerReflectionResponse>) {
      let isOver = false;
      call.on('data', (request: ServerReflectionRequest) => {
        const problem = admit();
        if (problem !== undefined) {
          isOver = true;
          call.pause();
          call.emit('error', { code: status.RESOURCE_EXHAUSTED, details: problem });
          return;
        }
        const messageResponse = answer(request, known);
        const isRead = call.write(
          create(ServerReflectionResponseSchema, { validHost: request.host, originalRequest: request, messageResponse }),
        );
        // Who does not read answers is asked no more questions.
        if (!isRead) call.pause();
      });
      call.on('drain', () => {
        if (!isOver) call.resume();
      });
      call.on('end', () => call.end());
    },
  };
  server.addService(serviceDefinition(ServerReflection), handlers);
  server.addService(serviceDefinition(ServerReflection, OLD_NAME), handlers);
}

function answer({ messageRequest }: ServerReflectionRequest, known: readonly DescFile[]): Exclude<Answer, undefined> {
  switch (messageRequest.case) {
    case 'listServices': {
      const service = known.flatMap(({ services }) => services.map(({ typeName }) => ({ name: typeName })));
      return { case: 'listServicesResponse', value: { service } };
    }
    case 'fileByFilename':
      return fileAnswer(known.find(({ proto }) => proto.name === messageRequest.value));
    case 'fileContainingSymbol':
      return fileAnswer(known.find((file) => symbolsOf(file).includes(messageRequest.value)));
    case undefined:
      return { case: 'errorResponse', value: { errorCode: status.UNIMPLEMENTED, errorMessage: 'this kind of request is not answered' } };
  }
}

/** The file, and after it those that it needs. */
function fileAnswer(file: DescFile | undefined): Exclude<Answer, undefined> {
  if (file === undefined) return { case: 'errorResponse', value: { errorCode: status.NOT_FOUND, errorMessage: 'not found' } };
  const fileDescriptorProto = withDependencies([file]).map(encoded);
  return { case: 'fileDescriptorResponse', value: { fileDescriptorProto } };
}

const bytesOf = new WeakMap<DescFile, Uint8Array>();

/** Once for all answers: else one that is not read would hold a copy. */
function encoded(file: DescFile): Uint8Array {
  const bytes = bytesOf.get(file) ?? toBinary(FileDescriptorProtoSchema, file.proto);
  bytesOf.set(file, bytes);
  return bytes;
}

function withDependencies(files: readonly DescFile[]): DescFile[] {
  const found = new Set<DescFile>();
  const visit = (file: DescFile): void => {
    if (found.has(file)) return;
    found.add(file);
    file.dependencies.forEach(visit);
  };
  files.forEach(visit);
  return [...found];
}

function symbolsOf(file: DescFile): string[] {
  const ofMessage = (message: DescMessage): string[] => [message.typeName, ...message.nestedMessages.flatMap(ofMessage)];
  return [
    ...file.services.flatMap(({ typeName, methods }) => [typeName, ...methods.map(({ name }) => `${typeName}.${name}`)]),
    ...file.messages.flatMap(ofMessage),
    ...file.enums.map(({ typeName }) => typeName),
  ];
}
