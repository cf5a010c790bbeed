package main

import (
	"bytes"
	"fmt"
	"io"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// http2Session sends the same request again and again over one HTTP/2 connection. One goroutine does all: what many streams ask
// for goes out in one write.
type http2Session struct {
	*http2Wire

	fields  []field
	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	// status is that of the block that was decoded last, empty for trailers.
	status string

	expected int64
	upBytes  int64
	next     uint32
	open     map[uint32]*http2Stream
	free     []*http2Stream
}

type http2Stream struct {
	outgoing
	status string
	bytes  int64
	// text is the beginning of a body that comes with another status than 200.
	text []byte
}

// http2Exchange returns what sends one request on a fresh connection and reads the response whole.
func http2Exchange(job Job) func(net.Conn) error {
	return func(conn net.Conn) error {
		done := false
		return newHTTP2Session(job, conn).run(1, func() bool { return done }, func() { done = true })
	}
}

// http2Burst returns what has so many streams at once on a fresh connection, and then none.
func http2Burst(job Job) func(net.Conn) error {
	return func(conn net.Conn) error {
		return newHTTP2Session(job, conn).run(job.Streams, func() bool { return true }, func() {})
	}
}

func newHTTP2Session(job Job, conn net.Conn) *http2Session {
	s := &http2Session{http2Wire: newHTTP2Wire(conn), next: 1, open: map[uint32]*http2Stream{}}
	s.ask(job)
	s.encoder = hpack.NewEncoder(&s.block)
	s.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			s.status = f.Value
		}
	})
	return s
}

// ask sets what the requests from now on are.
func (s *http2Session) ask(job Job) {
	method, target := methodAndTarget(job)
	scheme := "https"
	if job.Plain {
		scheme = "http"
	}
	s.fields = append([]field{{":method", method}, {":scheme", scheme}, {":authority", "orders.bench.test"}, {":path", target}}, httpFields(job)...)
	s.expected, s.upBytes = answerBytes(job), job.UpBytes
}

// run keeps `streams` requests under way until `stopped`, then waits for the last of them; `done` is called for each that was answered.
func (s *http2Session) run(streams int, stopped func() bool, done func()) error {
	if s.next == 1 {
		if err := s.begin(); err != nil {
			return err
		}
	}
	for range streams {
		if err := s.request(); err != nil {
			return err
		}
	}
	for len(s.open) > 0 {
		frame, err := s.read()
		if err != nil {
			return unexpected(err)
		}
		id, ended, err := s.take(frame, streams)
		if err != nil {
			return err
		}
		if !ended {
			continue
		}
		if err := s.finish(id); err != nil {
			return err
		}
		done()
		if !stopped() {
			if err := s.request(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *http2Session) begin() error {
	if _, err := io.WriteString(s.out, http2.ClientPreface); err != nil {
		return err
	}
	return s.sayWindows(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
}

func (s *http2Session) request() error {
	s.block.Reset()
	for _, field := range s.fields {
		if err := s.encoder.WriteField(hpack.HeaderField{Name: field.name, Value: field.value}); err != nil {
			return err
		}
	}
	stream := &http2Stream{}
	if last := len(s.free) - 1; last >= 0 {
		stream, s.free = s.free[last], s.free[:last]
		*stream = http2Stream{}
	}
	id := s.next
	s.next += 2
	s.open[id] = stream
	hasBody := s.upBytes > 0
	err := s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.block.Bytes(), EndStream: !hasBody, EndHeaders: true})
	if err != nil || !hasBody {
		return err
	}
	return s.send(&stream.outgoing, id, s.upBytes)
}

// take reads one frame; `ended` when it is the last of the stream.
func (s *http2Session) take(frame http2.Frame, streams int) (id uint32, ended bool, err error) {
	id = frame.Header().StreamID
	stream := s.open[id]
	switch frame := frame.(type) {
	case *http2.DataFrame:
		if stream == nil {
			return id, false, fmt.Errorf("data of stream %d, which is not open", id)
		}
		stream.bytes += int64(len(frame.Data()))
		if stream.status != "200" && len(stream.text) < 256 {
			stream.text = append(stream.text, frame.Data()...)
		}
		return id, frame.StreamEnded(), s.taken(frame)
	case *http2.HeadersFrame:
		if stream == nil || !frame.HeadersEnded() {
			return id, false, fmt.Errorf("headers of stream %d, which is not open, or that go on in another frame", id)
		}
		s.status = ""
		if _, err := s.decoder.Write(frame.HeaderBlockFragment()); err != nil {
			return id, false, err
		}
		if err := s.decoder.Close(); err != nil {
			return id, false, err
		}
		if s.status != "" {
			stream.status = s.status
		}
		return id, frame.StreamEnded(), nil
	case *http2.SettingsFrame:
		return id, false, s.settings(frame, streams)
	case *http2.RSTStreamFrame:
		return id, false, fmt.Errorf("the proxy reset stream %d: %s", id, frame.ErrCode)
	case *http2.GoAwayFrame:
		return id, false, fmt.Errorf("the proxy ended the connection: GOAWAY, %s, %q", frame.ErrCode, frame.DebugData())
	default:
		return id, false, s.housekeeping(frame)
	}
}

func (s *http2Session) settings(frame *http2.SettingsFrame, streams int) error {
	if frame.IsAck() {
		return nil
	}
	if size, is := frame.Value(http2.SettingHeaderTableSize); is {
		s.encoder.SetMaxDynamicTableSizeLimit(size)
	}
	if most, is := frame.Value(http2.SettingMaxConcurrentStreams); is && most < uint32(streams) {
		return fmt.Errorf("the proxy allows %d streams at once, fewer than %d", most, streams)
	}
	return s.housekeeping(frame)
}

func (s *http2Session) finish(id uint32) error {
	stream := s.open[id]
	delete(s.open, id)
	if stream.remaining > 0 {
		return fmt.Errorf("the response of stream %d was whole before the request was", id)
	}
	s.free = append(s.free, stream)
	if stream.status != "200" {
		return notOK(stream.status, stream.text)
	}
	if stream.bytes != s.expected {
		return fmt.Errorf("the response has a body of %d bytes, not %d", stream.bytes, s.expected)
	}
	return nil
}
