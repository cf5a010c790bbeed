package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// cases runs the interoperability cases that need no accounts and no several servers, one after the other on one connection. One that fails ends the program.
func cases(ctx context.Context, o options) error {
	conn, err := dial(o)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := testgrpc.NewTestServiceClient(conn)
	simple := func(do func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context) {
		return func(ctx context.Context) { do(ctx, client) }
	}
	all := []struct {
		name string
		run  func(context.Context)
	}{
		{"empty_unary", simple(interop.DoEmptyUnaryCall)},
		{"large_unary", simple(interop.DoLargeUnaryCall)},
		{"client_streaming", simple(interop.DoClientStreaming)},
		{"server_streaming", simple(interop.DoServerStreaming)},
		{"ping_pong", simple(interop.DoPingPong)},
		{"empty_stream", simple(interop.DoEmptyStream)},
		{"timeout_on_sleeping_server", simple(interop.DoTimeoutOnSleepingServer)},
		{"cancel_after_begin", simple(interop.DoCancelAfterBegin)},
		{"cancel_after_first_response", simple(interop.DoCancelAfterFirstResponse)},
		{"custom_metadata", simple(interop.DoCustomMetadata)},
		{"status_code_and_message", simple(interop.DoStatusCodeAndMessage)},
		{"special_status_message", simple(interop.DoSpecialStatusMessage)},
		{"unimplemented_method", func(context.Context) { interop.DoUnimplementedMethod(ctx, conn) }},
		{"unimplemented_service", func(ctx context.Context) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
		}},
	}
	var passed []string
	for _, each := range all {
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		each.run(limited)
		cancel()
		passed = append(passed, each.name)
	}
	say(map[string]any{"passed": passed})
	return nil
}

// large sends one message and takes one of the same length, and compares every byte.
func large(ctx context.Context, o options) error {
	conn, err := dial(o)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := testgrpc.NewTestServiceClient(conn).FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	payload := &testgrpc.Payload{Body: make([]byte, o.bytes)}
	request := &testgrpc.StreamingOutputCallRequest{Payload: payload, ResponseParameters: []*testgrpc.ResponseParameters{{Size: int32(o.bytes)}}}
	if err := stream.Send(request); err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	// The server's are zeros as well.
	if !bytes.Equal(answer.GetPayload().GetBody(), payload.Body) {
		return errors.New("the answer has other bytes")
	}
	if _, err := stream.Recv(); err == nil {
		return fmt.Errorf("there is more than one answer")
	}
	say(map[string]any{"answered": len(answer.GetPayload().GetBody())})
	return nil
}
