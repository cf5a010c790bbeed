package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

const (
	// callLimit only says "never".
	callLimit = 2 * time.Minute
	// messagesOfStream are how many go there and back in a stream of mix.
	messagesOfStream = 5
)

// outcomes are how calls ended, by a text; "ok", or the status.
type outcomes struct {
	mutex  sync.Mutex
	counts map[string]int
}

func (o *outcomes) add(err error) {
	text := "ok"
	if err != nil {
		text = fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message())
	}
	o.mutex.Lock()
	defer o.mutex.Unlock()
	if o.counts == nil {
		o.counts = map[string]int{}
	}
	o.counts[text]++
}

// mix keeps so many calls under way on each connection, of methods in turn: EmptyCall and FullDuplexCall, which the policy of the test
// allows, and UnaryCall and StreamingOutputCall, which it denies. It ends with standard input, and says how they ended.
func mix(ctx context.Context, o options) error {
	var stopped atomic.Bool
	var all sync.WaitGroup
	kinds := []struct {
		name string
		call func(context.Context, testgrpc.TestServiceClient) error
		outcomes
	}{
		{name: "EmptyCall", call: func(ctx context.Context, client testgrpc.TestServiceClient) error {
			_, err := client.EmptyCall(ctx, &testgrpc.Empty{})
			return err
		}},
		{name: "UnaryCall", call: func(ctx context.Context, client testgrpc.TestServiceClient) error {
			_, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: 10, Payload: &testgrpc.Payload{Body: make([]byte, 1000)}})
			return err
		}},
		{name: "FullDuplexCall", call: func(ctx context.Context, client testgrpc.TestServiceClient) error {
			return duplex(ctx, client, o.pause)
		}},
		{name: "StreamingOutputCall", call: func(ctx context.Context, client testgrpc.TestServiceClient) error {
			stream, err := client.StreamingOutputCall(ctx, &testgrpc.StreamingOutputCallRequest{
				ResponseParameters: []*testgrpc.ResponseParameters{{Size: 10}},
			})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		}},
	}
	for range o.connections {
		conn, err := dial(o)
		if err != nil {
			return err
		}
		defer conn.Close()
		client := testgrpc.NewTestServiceClient(conn)
		for worker := range o.streams {
			all.Go(func() {
				for n := worker; !stopped.Load(); n++ {
					kind := &kinds[n%len(kinds)]
					limited, cancel := context.WithTimeout(ctx, callLimit)
					kind.add(kind.call(limited, client))
					cancel()
					time.Sleep(o.pause)
				}
			})
		}
	}
	say(map[string]any{"started": true})
	commandsOf(func(line string) {
		if line == "stop" {
			stopped.Store(true)
			all.Wait()
			result := map[string]any{}
			for i := range kinds {
				result[kinds[i].name] = kinds[i].counts
			}
			say(map[string]any{"ended": result})
		}
	})
	return nil
}

// duplex sends messages in one stream, each after the answer to the one before.
func duplex(ctx context.Context, client testgrpc.TestServiceClient, pause time.Duration) error {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range messagesOfStream {
		if err := pingPong(stream, 100); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	_, err = stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		err = errors.New("the stream goes on after its end")
	}
	return err
}

// pingPong sends one message and takes the answer. What ended the stream is what Recv says, not Send.
func pingPong(stream testgrpc.TestService_FullDuplexCallClient, size int) error {
	_ = stream.Send(&testgrpc.StreamingOutputCallRequest{
		ResponseParameters: []*testgrpc.ResponseParameters{{Size: int32(size)}},
		Payload:            &testgrpc.Payload{Body: make([]byte, size)},
	})
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	if got := len(answer.GetPayload().GetBody()); got != size {
		return status.Errorf(codes.DataLoss, "an answer of %d bytes, not %d", got, size)
	}
	return nil
}
