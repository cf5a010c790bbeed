package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// serveH2C answers HTTP/2 with prior knowledge in plain TCP, as serveHTTP answers HTTP/1.1: without the caller's identity, or with
// another, a request gets 500.
func serveH2C(conn net.Conn) {
	defer conn.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	s := &http2Application{http2Wire: newHTTP2Wire(conn), open: map[uint32]*applicationStream{}}
	s.encoder = hpack.NewEncoder(&s.block)
	s.decoder = hpack.NewDecoder(4096, s.field)
	if err := s.sayWindows(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000}); err != nil {
		return
	}
	for {
		frame, err := s.read()
		if err != nil {
			return
		}
		if err := s.take(frame); err != nil {
			return
		}
	}
}

type http2Application struct {
	*http2Wire

	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	// Of the block that is being decoded.
	path       string
	identities int
	identity   string

	open map[uint32]*applicationStream
	free []*applicationStream
}

type applicationStream struct {
	outgoing
	down    int64
	problem string
}

func (s *http2Application) field(f hpack.HeaderField) {
	switch f.Name {
	case ":path":
		s.path = f.Value
	case identityField:
		s.identities++
		s.identity = f.Value
	}
}

func (s *http2Application) take(frame http2.Frame) error {
	id := frame.Header().StreamID
	switch frame := frame.(type) {
	case *http2.HeadersFrame:
		if !frame.HeadersEnded() {
			return fmt.Errorf("headers of stream %d go on in another frame", id)
		}
		s.path, s.identities, s.identity = "", 0, ""
		if _, err := s.decoder.Write(frame.HeaderBlockFragment()); err != nil {
			return err
		}
		if err := s.decoder.Close(); err != nil {
			return err
		}
		stream := s.open[id]
		if stream == nil {
			stream = s.begin(id)
		}
		if frame.StreamEnded() {
			return s.answer(id, stream)
		}
		return nil
	case *http2.DataFrame:
		if err := s.taken(frame); err != nil {
			return err
		}
		if stream := s.open[id]; stream != nil && frame.StreamEnded() {
			return s.answer(id, stream)
		}
		return nil
	case *http2.RSTStreamFrame:
		delete(s.open, id)
		s.forget(id)
		return nil
	default:
		return s.housekeeping(frame)
	}
}

func (s *http2Application) begin(id uint32) *applicationStream {
	stream := &applicationStream{}
	if last := len(s.free) - 1; last >= 0 {
		stream, s.free = s.free[last], s.free[:last]
		*stream = applicationStream{}
	}
	s.open[id] = stream
	stream.problem = identityProblem(s.identities, s.identity)
	if digits, found := strings.CutPrefix(s.path, bulkPath); found {
		var err error
		if stream.down, err = strconv.ParseInt(digits, 10, 64); err != nil {
			stream.problem = err.Error()
		}
	}
	return stream
}

func (s *http2Application) answer(id uint32, stream *applicationStream) error {
	delete(s.open, id)
	if stream.problem != "" {
		return s.whole(id, "500", "text/plain", []byte(stream.problem))
	}
	if stream.down == 0 {
		s.free = append(s.free, stream)
		return s.whole(id, "200", "application/json", smallBody)
	}
	if err := s.head(id, "200", "application/octet-stream", stream.down); err != nil {
		return err
	}
	return s.send(&stream.outgoing, id, stream.down)
}

// whole answers what the least of windows has room for.
func (s *http2Application) whole(id uint32, status, contentType string, body []byte) error {
	if err := s.head(id, status, contentType, int64(len(body))); err != nil {
		return err
	}
	if s.window < int64(len(body)) {
		return fmt.Errorf("no window for %d bytes", len(body))
	}
	s.window -= int64(len(body))
	return s.framer.WriteData(id, true, body)
}

func (s *http2Application) head(id uint32, status, contentType string, length int64) error {
	s.block.Reset()
	for _, f := range [...]field{{":status", status}, {"content-type", contentType}, {"content-length", strconv.FormatInt(length, 10)}} {
		if err := s.encoder.WriteField(hpack.HeaderField{Name: f.name, Value: f.value}); err != nil {
			return err
		}
	}
	return s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.block.Bytes(), EndHeaders: true})
}
