"""A gRPC service with the standard health and reflection services, on gRPC's C core, and a client for it.

    grpc_peer.py serve                                         plain, on 127.0.0.1; prints where
    grpc_peer.py call ADDRESS                                  plain
    grpc_peer.py call ADDRESS CHAIN KEY AUTHORITIES NAME       mTLS with PEM files; NAME is the server's DNS name
    grpc_peer.py who TOKEN ADDRESS [CHAIN …]               whose token the server was told it is; no token if TOKEN is empty
    grpc_peer.py pings SECONDS ADDRESS [CHAIN …]               the same, with a PING ten times a second

`call` uses every kind of call once, and health, and prints one JSON object. `pings` has a stream that says nothing for so
long, and prints what was answered before and after.
"""

import json
import queue
import sys
import time
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

SERVICE = "scute.interop.Words"
MANY = 200
# Seconds. It only says "never": the machine may be busy.
LIMIT = 120


def say(**fields):
    print(json.dumps(fields), flush=True)


def declare():
    """The service, described here rather than generated: `Text` is one string, and each kind of call has a method."""
    file = descriptor_pb2.FileDescriptorProto(name="words.proto", package="scute.interop", syntax="proto3")
    text = file.message_type.add(name="Text")
    text.field.add(name="text", number=1, type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
                   label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    service = file.service.add(name="Words")
    for name, client_streams, server_streams in [
        ("Upper", False, False), ("Repeat", False, True), ("Join", True, False), ("UpperEach", True, True), ("Who", False, False)]:
        service.method.add(name=name, input_type=".scute.interop.Text", output_type=".scute.interop.Text",
                           client_streaming=client_streams, server_streaming=server_streams)
    descriptor_pool.Default().Add(file)
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("scute.interop.Text"))


Text = declare()
CODEC = {"request_deserializer": Text.FromString, "response_serializer": Text.SerializeToString}


def upper(request, context):
    # As an application that reports by trailers does.
    if request.text == "fail":
        context.set_trailing_metadata((("reason", "asked"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "asked to fail")
    return Text(text=request.text.upper())


def repeat(request, context):
    for _ in range(MANY):
        yield request


def join(requests, context):
    return Text(text=",".join(request.text for request in requests))


def upper_each(requests, context):
    for request in requests:
        yield Text(text=request.text.upper())


def who(request, context):
    # Nothing of it is ours: metadata is what any handler can ask for.
    told = dict(context.invocation_metadata())
    subject = told.get("x-spiffe-jwt-subject", "nobody")
    return Text(text=subject + (" and a token" if "authorization" in told else ""))


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {
        "Upper": grpc.unary_unary_rpc_method_handler(upper, **CODEC),
        "Repeat": grpc.unary_stream_rpc_method_handler(repeat, **CODEC),
        "Join": grpc.stream_unary_rpc_method_handler(join, **CODEC),
        "Who": grpc.unary_unary_rpc_method_handler(who, **CODEC),
        "UpperEach": grpc.stream_stream_rpc_method_handler(upper_each, **CODEC),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    checks = health.HealthServicer()
    checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(listening=f"127.0.0.1:{port}")
    server.wait_for_termination()


def connect(address, *files, options=()):
    if not files:
        return grpc.insecure_channel(address, options=options)
    chain, key, authorities, name = files
    read = lambda path: open(path, "rb").read()
    credentials = grpc.ssl_channel_credentials(read(authorities), read(key), read(chain))
    return grpc.secure_channel(address, credentials, options=(("grpc.ssl_target_name_override", name), *options))


def call(*arguments):
    codec = {"request_serializer": Text.SerializeToString, "response_deserializer": Text.FromString}
    with connect(*arguments) as channel:
        method = lambda kind, name: getattr(channel, kind)(f"/{SERVICE}/{name}", **codec)
        try:
            unary = method("unary_unary", "Upper")(Text(text="hello"), timeout=LIMIT).text
            large = method("unary_unary", "Upper")(Text(text="x" * 3_000_000), timeout=LIMIT).text
            repeated = [reply.text for reply in method("unary_stream", "Repeat")(Text(text="again"), timeout=LIMIT)]
            joined = method("stream_unary", "Join")(iter([Text(text=str(n)) for n in range(MANY)]), timeout=LIMIT).text
            # Each question only after the answer to the one before: nothing on the way may wait for more.
            questions, answers = queue.Queue(), []
            stream = method("stream_stream", "UpperEach")(iter(questions.get, None), timeout=LIMIT)
            for word in ["a", "b", "c"]:
                questions.put(Text(text=word))
                answers.append(next(stream).text)
            questions.put(None)
            answers.extend(reply.text for reply in stream)
            try:
                method("unary_unary", "Upper")(Text(text="fail"), timeout=LIMIT)
                failure = None
            except grpc.RpcError as error:
                failure = [error.code().name, error.details(), dict(error.trailing_metadata()).get("reason")]
            status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=LIMIT).status
            say(unary=unary, large=len(large), repeated=len(repeated), joined=joined == ",".join(map(str, range(MANY))),
                each=answers, failure=failure, health=health_pb2.HealthCheckResponse.ServingStatus.Name(status))
        except grpc.RpcError as error:
            say(error=error.code().name, details=error.details())


def ask_who(token, *arguments):
    codec = {"request_serializer": Text.SerializeToString, "response_deserializer": Text.FromString}
    metadata = [("x-spiffe-jwt-subject", "spiffe://example.org/forged")]
    if token:
        metadata.append(("authorization", f"Bearer {token}"))
    with connect(*arguments) as channel:
        try:
            answer = channel.unary_unary(f"/{SERVICE}/Who", **codec)(Text(text=""), metadata=metadata, timeout=LIMIT)
            say(who=answer.text)
        except grpc.RpcError as error:
            say(error=error.code().name, details=error.details())


def pings(seconds, *arguments):
    options = (("grpc.keepalive_time_ms", 100), ("grpc.keepalive_timeout_ms", 60_000), ("grpc.keepalive_permit_without_calls", 1),
               ("grpc.http2.max_pings_without_data", 0))
    codec = {"request_serializer": Text.SerializeToString, "response_deserializer": Text.FromString}
    with connect(*arguments, options=options) as channel:
        questions, answers = queue.Queue(), []
        stream = channel.stream_stream(f"/{SERVICE}/UpperEach", **codec)(iter(questions.get, None))
        try:
            for word, silence in [("before", float(seconds)), ("after", 0)]:
                questions.put(Text(text=word))
                answers.append(next(stream).text)
                time.sleep(silence)
            questions.put(None)
            answers.extend(reply.text for reply in stream)
            say(answers=answers)
        except grpc.RpcError as error:
            say(error=error.code().name, details=error.details(), answers=answers)


{"serve": serve, "call": call, "who": ask_who, "pings": pings}[sys.argv[1]](*sys.argv[2:])
