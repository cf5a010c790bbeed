package main

import (
	"bufio"
	"net"
	"slices"

	"golang.org/x/net/http2"
)

const (
	http2StreamWindow = 1 << 20
	http2Window       = 1 << 30
	// http2FrameBytes is what every receiver takes in one frame.
	http2FrameBytes = 16 << 10
	// http2DefaultWindow is what each side may send before it has read anything (RFC 9113, section 6.9.2).
	http2DefaultWindow = 65_535
)

// http2Wire has the frames of one end of a connection, and its windows in both directions. It is for one goroutine, and writes only
// when it would wait for what comes.
type http2Wire struct {
	in     *bufio.Reader
	out    *bufio.Writer
	framer *http2.Framer

	// window is what may be sent on the connection, firstWindow that of a new stream.
	window, firstWindow int64
	// waiting are streams with bytes to send, in turn.
	waiting []*outgoing
	// unacknowledged is what came since the last WINDOW_UPDATE of the connection.
	unacknowledged uint32
	// ofStream is the same by stream; those of short messages are forgotten when they end.
	ofStream map[uint32]uint32
}

// outgoing is what of a body is still to be sent.
type outgoing struct {
	id        uint32
	remaining int64
	window    int64
}

func newHTTP2Wire(conn net.Conn) *http2Wire {
	w := &http2Wire{
		in:          bufio.NewReaderSize(conn, 64<<10),
		out:         bufio.NewWriterSize(conn, 64<<10),
		window:      http2DefaultWindow,
		firstWindow: http2DefaultWindow,
		ofStream:    map[uint32]uint32{},
	}
	w.framer = http2.NewFramer(w.out, w.in)
	w.framer.SetReuseFrames()
	return w
}

// sayWindows says how much may be sent to this end, in its first SETTINGS.
func (w *http2Wire) sayWindows(more ...http2.Setting) error {
	settings := append(more, http2.Setting{ID: http2.SettingInitialWindowSize, Val: http2StreamWindow})
	if err := w.framer.WriteSettings(settings...); err != nil {
		return err
	}
	return w.framer.WriteWindowUpdate(0, http2Window)
}

// read sends what is to be sent, if nothing has come, and waits for a frame.
func (w *http2Wire) read() (http2.Frame, error) {
	if w.in.Buffered() == 0 {
		if err := w.out.Flush(); err != nil {
			return nil, err
		}
	}
	return w.framer.ReadFrame()
}

// send begins to send a body of so many bytes, the last of which ends the stream.
func (w *http2Wire) send(stream *outgoing, id uint32, count int64) error {
	*stream = outgoing{id: id, remaining: count, window: w.firstWindow}
	w.waiting = append(w.waiting, stream)
	return w.pump()
}

// pump sends what the windows allow, a frame of each stream in turn.
func (w *http2Wire) pump() error {
	for sent := true; sent && w.window > 0; {
		sent = false
		for i := 0; i < len(w.waiting) && w.window > 0; i++ {
			stream := w.waiting[i]
			n := min(stream.remaining, stream.window, w.window, http2FrameBytes)
			if n <= 0 {
				continue
			}
			sent = true
			stream.remaining -= n
			stream.window -= n
			w.window -= n
			if err := w.framer.WriteData(stream.id, stream.remaining == 0, zeros[:n]); err != nil {
				return err
			}
			if stream.remaining == 0 {
				w.waiting = slices.Delete(w.waiting, i, i+1)
				i--
			}
		}
	}
	return nil
}

// forget sends no more on a stream that was reset.
func (w *http2Wire) forget(id uint32) {
	w.waiting = slices.DeleteFunc(w.waiting, func(stream *outgoing) bool { return stream.id == id })
	delete(w.ofStream, id)
}

// taken gives back the window of what came.
func (w *http2Wire) taken(frame *http2.DataFrame) error {
	if w.unacknowledged += frame.Length; w.unacknowledged > http2Window/2 {
		if err := w.framer.WriteWindowUpdate(0, w.unacknowledged); err != nil {
			return err
		}
		w.unacknowledged = 0
	}
	if frame.StreamEnded() {
		if len(w.ofStream) > 0 {
			delete(w.ofStream, frame.StreamID)
		}
		return nil
	}
	w.ofStream[frame.StreamID] += frame.Length
	if count := w.ofStream[frame.StreamID]; count > http2StreamWindow/2 {
		delete(w.ofStream, frame.StreamID)
		return w.framer.WriteWindowUpdate(frame.StreamID, count)
	}
	return nil
}

// housekeeping does what frames of the connection itself ask for.
func (w *http2Wire) housekeeping(frame http2.Frame) error {
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if frame.IsAck() {
			return nil
		}
		if size, is := frame.Value(http2.SettingInitialWindowSize); is {
			for _, stream := range w.waiting {
				stream.window += int64(size) - w.firstWindow
			}
			w.firstWindow = int64(size)
		}
		if err := w.framer.WriteSettingsAck(); err != nil {
			return err
		}
		return w.pump()
	case *http2.WindowUpdateFrame:
		if frame.StreamID == 0 {
			w.window += int64(frame.Increment)
		} else {
			for _, stream := range w.waiting {
				if stream.id == frame.StreamID {
					stream.window += int64(frame.Increment)
				}
			}
		}
		return w.pump()
	case *http2.PingFrame:
		if !frame.IsAck() {
			return w.framer.WritePing(true, frame.Data)
		}
	}
	return nil
}
