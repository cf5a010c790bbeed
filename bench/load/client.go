package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

type client struct {
	job    Job
	tokens []string
	config *tls.Config
	tls    atomic.Pointer[string]
}

// applicationProtocols are those that the client offers by ALPN.
var applicationProtocols = map[string][]string{"http1": {"http/1.1"}, "http2": {"h2"}, "grpc": {"h2"}}

// finalError is a failure that does not go away by trying again.
type finalError struct{ error }

func newClient(job Job) (*client, error) {
	pair, err := tls.LoadX509KeyPair(job.CertFile, job.KeyFile)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(job.CaFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	tokens, err := readTokens(job.TokenFile)
	if err != nil {
		return nil, err
	}
	c := &client{job: job, tokens: tokens}
	c.config = &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS13,
		// One group for every peer: which of them prefers the post-quantum hybrid is not what is measured.
		CurvePreferences: []tls.CurveID{tls.X25519},
		NextProtos:       applicationProtocols[job.Protocol],
		// SVIDs have no DNS name: the chain and the SPIFFE ID are verified here.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.DidResume {
				return errors.New("the proxy resumed a session")
			}
			if want := applicationProtocols[job.Protocol]; len(want) > 0 && want[0] == "h2" && state.NegotiatedProtocol != want[0] {
				return finalError{fmt.Errorf("the proxy does not speak HTTP/2: it chose %q by ALPN, not %q", state.NegotiatedProtocol, want[0])}
			}
			if c.tls.Load() != nil {
				return nil // Verified on this job's first connection: the load's CPU is scarce, the proxy's identity does not change.
			}
			leaf := state.PeerCertificates[0]
			pool := x509.NewCertPool()
			for _, cert := range state.PeerCertificates[1:] {
				pool.AddCert(cert)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool}); err != nil {
				return err
			}
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != job.ServerID {
				return fmt.Errorf("the proxy shows %v, not %s", leaf.URIs, job.ServerID)
			}
			text := fmt.Sprintf("%s %s %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite), state.CurveID)
			c.tls.Store(&text)
			return nil
		},
	}
	return c, nil
}

func (c *client) dial() (net.Conn, error) {
	raw, err := net.DialTimeout("tcp4", c.job.Target, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if c.job.Plain {
		_ = raw.SetDeadline(time.Now().Add(10 * time.Minute))
		return raw, nil
	}
	conn := tls.Client(raw, c.config)
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	if err := conn.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(10 * time.Minute))
	return conn, nil
}

// newExchange returns what sends one request on a connection and reads its answer whole; for one goroutine.
func (c *client) newExchange(bufferBytes int) func(net.Conn) error {
	switch c.job.Protocol {
	case "http1":
		return http1Exchange(c.job, c.tokens, bufferBytes)
	case "http2":
		return http2Exchange(c.job)
	case "grpc":
		return grpcExchange(c.job)
	default:
		return frameExchange(c.job, bufferBytes)
	}
}

func frameExchange(job Job, bufferBytes int) func(net.Conn) error {
	request, buffer := frame(job), make([]byte, bufferBytes)
	return func(conn net.Conn) error {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if err := send(conn, job.UpBytes); err != nil {
			return err
		}
		remaining := frameBytes + job.DownBytes
		for remaining > 0 {
			n, err := conn.Read(buffer[:min(int64(len(buffer)), remaining)])
			remaining -= int64(n)
			if err != nil && remaining > 0 {
				return unexpected(err)
			}
		}
		return nil
	}
}

func frame(job Job) []byte {
	frame := make([]byte, frameBytes)
	for i := range frame {
		frame[i] = byte(i)
	}
	binary.BigEndian.PutUint64(frame[0:8], uint64(job.UpBytes))
	binary.BigEndian.PutUint64(frame[8:16], uint64(job.DownBytes))
	return frame
}

func run(job Job) Result {
	c, err := newClient(job)
	if err != nil {
		return Result{Error: err.Error()}
	}
	expectedIdentity.Store(&job.Identity)
	expectedSubject.Store(&job.Subject)
	var result Result
	switch job.Work {
	case "exchange":
		result, err = c.measure(c.exchanges, func() {})
	case "connect":
		result, err = c.measure(c.connects, func() {})
	case "offer":
		result, err = c.offer()
	case "idle":
		result, err = c.idle()
	case "count":
		result, err = c.count()
	case "first":
		result, err = c.first()
	case "once":
		result, err = c.once()
	default:
		err = fmt.Errorf("unknown work %q", job.Work)
	}
	if err != nil {
		result.Error = err.Error()
	}
	if text := c.tls.Load(); text != nil {
		result.TLS = *text
	}
	return result
}

// exchanges makes one after the other on one connection.
func (c *client) exchanges(w *window, ready func()) error {
	conn, err := c.dial()
	if err != nil {
		ready()
		return err
	}
	defer conn.Close()
	if c.job.Protocol == "http2" {
		ready()
		return newHTTP2Session(c.job, conn).run(c.job.Streams, w.stop.Load, w.done)
	}
	if c.job.Protocol == "grpc" {
		ready()
		return grpcCalls(c.job, conn, w)
	}
	exchange := c.newExchange(64 << 10)
	// The first sets up what is behind the proxy, too: a handshake in a pair.
	err = exchange(conn)
	ready()
	if err != nil {
		return err
	}
	var times []time.Duration
	for !w.stop.Load() {
		begin := time.Now()
		if err := exchange(conn); err != nil {
			return err
		}
		w.done()
		if w.open.Load() {
			times = append(times, time.Since(begin))
		}
	}
	w.add(times)
	return nil
}

// connects makes one exchange on each of many connections.
func (c *client) connects(w *window, ready func()) error {
	ready()
	exchange := c.newExchange(4 << 10)
	for !w.stop.Load() {
		conn, err := c.dial()
		if err != nil {
			return err
		}
		if err := exchange(conn); err != nil {
			conn.Close()
			return err
		}
		conn.Close()
		w.done()
	}
	return nil
}

// idle opens the connections, lets each make one exchange, waits until the proxy has settled and reads its memory.
func (c *client) idle() (Result, error) {
	var mutex sync.Mutex
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	next := make(chan struct{}, c.job.Connections)
	for range c.job.Connections {
		next <- struct{}{}
	}
	close(next)
	var all sync.WaitGroup
	failures := make(chan error, 16)
	for range 16 {
		all.Go(func() {
			exchange := c.newExchange(4 << 10)
			if c.job.Streams > 0 {
				exchange = http2Burst(c.job)
			}
			for range next {
				conn, err := c.dial()
				if err == nil {
					mutex.Lock()
					conns = append(conns, conn)
					mutex.Unlock()
					err = exchange(conn)
				}
				if err != nil {
					failures <- err
					return
				}
			}
		})
	}
	all.Wait()
	if err := firstOf(failures); err != nil {
		return Result{}, err
	}
	time.Sleep(time.Duration(c.job.WindowMs) * time.Millisecond)
	return Result{Count: int64(len(conns)), RSSBytes: residentBytes(c.job.Pids)}, nil
}

// first tries until one exchange has worked: a proxy may listen before it has its certificate.
func (c *client) first() (Result, error) {
	exchange := c.newExchange(4 << 10)
	end := time.Now().Add(time.Duration(c.job.WindowMs) * time.Millisecond)
	for {
		conn, err := c.dial()
		if err == nil {
			err = exchange(conn)
			conn.Close()
		}
		if err == nil {
			return Result{Count: 1}, nil
		}
		if final := (finalError{}); time.Now().After(end) || errors.As(err, &final) {
			return Result{}, err
		}
		time.Sleep(time.Millisecond)
	}
}

// once makes one exchange, from whose beginning to whose end is measured, on a connection that has had a small one before.
func (c *client) once() (Result, error) {
	conn, err := c.dial()
	if err != nil {
		return Result{}, err
	}
	defer conn.Close()
	small := c.job
	small.UpBytes, small.DownBytes = 0, 0
	session := newHTTP2Session(small, conn)
	one := func() error { return session.run(1, func() bool { return true }, func() {}) }
	if err := one(); err != nil {
		return Result{}, err
	}
	session.ask(c.job)
	before, begin := threadTimes(c.job.Pids), time.Now()
	if err := one(); err != nil {
		return Result{}, err
	}
	after, end := threadTimes(c.job.Pids), time.Now()
	return Result{Count: 1, CPUSeconds: ranSeconds(before, after), WallSeconds: end.Sub(begin).Seconds()}, nil
}

// count makes a number of connections, each with one exchange; all must work.
func (c *client) count() (Result, error) {
	var begun, done atomic.Int64
	var all sync.WaitGroup
	failures := make(chan error, c.job.Connections)
	end := time.Now().Add(time.Duration(c.job.WindowMs) * time.Millisecond)
	for range c.job.Connections {
		all.Go(func() {
			exchange := c.newExchange(4 << 10)
			for begun.Add(1) <= c.job.Total {
				conn, err := c.dial()
				if err == nil {
					err = exchange(conn)
					conn.Close()
				}
				if err == nil && time.Now().After(end) {
					err = errOutOfTime
				}
				if err != nil {
					failures <- err
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	return Result{Count: done.Load()}, firstOf(failures)
}
