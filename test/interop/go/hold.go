package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// held is what became of a connection; times are milliseconds since 1970.
type held struct {
	// `reset`, or `ended` in order.
	Closed string `json:"closed"`
	AtMs   int64  `json:"atMs"`
	// Whole answers, over HTTP those with status 200.
	Replies int `json:"replies"`
	// Over HTTP, of an answer that was another.
	Status int `json:"status"`
}

// hold keeps one connection to a server that must be `peer` until the other side ends it, and prints when it is open, after the first
// answer, and when it is over. Every `interval` something is asked on it; without, nothing more.
func hold(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	config, end, err := clientConfig(ctx, o)
	if err != nil {
		return err
	}
	defer end()
	watched := &watchedDialer{over: make(chan struct{})}
	ask := holdHTTP
	if o.protocol == "tcp" {
		ask = holdBytes
	}
	next, err := ask(ctx, watched, config, o)
	if err != nil {
		return err
	}
	var result held
	for {
		status, err := next()
		if status != http.StatusOK {
			if result.Replies == 0 {
				return fmt.Errorf("status %d: %w", status, err)
			}
			result.Status = status
			break
		}
		result.Replies++
		if result.Replies == 1 {
			printLine(map[string]any{"opened": o.peer})
		}
		if o.interval == 0 {
			break
		}
		select {
		case <-time.After(o.interval):
		case <-ctx.Done():
			return fmt.Errorf("still open: %w", ctx.Err())
		}
	}
	select {
	case <-watched.over:
	case <-ctx.Done():
		return fmt.Errorf("still open: %w", ctx.Err())
	}
	result.Closed, result.AtMs = watched.how, watched.at.UnixMilli()
	printLine(result)
	return nil
}

// holdBytes gives a function that sends a message and reads as much, with status 200 if that came.
func holdBytes(ctx context.Context, watched *watchedDialer, config *tls.Config, o options) (func() (int, error), error) {
	raw, err := watched.dial(ctx, "tcp", o.address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { raw.Close() })
	connection := tls.Client(raw, config)
	if err := connection.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return func() (int, error) {
		if _, err := io.WriteString(connection, o.message); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(connection, make([]byte, len(o.message))); err != nil {
			return 0, err
		}
		if o.interval == 0 {
			// Whoever does not read does not learn of the end.
			go connection.Read(make([]byte, 1))
		}
		return http.StatusOK, nil
	}, nil
}

// holdHTTP gives a function that makes a request, on the same connection as long as there is one, and gives the status.
func holdHTTP(ctx context.Context, watched *watchedDialer, config *tls.Config, o options) (func() (int, error), error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(o.protocol == "http1")
	protocols.SetHTTP2(o.protocol == "h2")
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: config, Protocols: protocols, DialContext: watched.dial}}
	return func() (int, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+o.address+"/echo", nil)
		if err != nil {
			return 0, err
		}
		response, err := web.Do(request)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return 0, err
		}
		return response.StatusCode, nil
	}, nil
}

// watchedDialer notes when, and how, the first of its connections is over.
type watchedDialer struct {
	opened sync.Once
	ended  sync.Once
	over   chan struct{}
	how    string
	at     time.Time
}

func (w *watchedDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.opened.Do(func() { connection = &watchedConnection{connection, w} })
	return connection, nil
}

func (w *watchedDialer) end(how string) {
	w.ended.Do(func() {
		w.how, w.at = how, time.Now()
		close(w.over)
	})
}

type watchedConnection struct {
	net.Conn
	watch *watchedDialer
}

func (c *watchedConnection) Read(into []byte) (int, error) {
	return c.note(c.Conn.Read(into))
}

func (c *watchedConnection) Write(from []byte) (int, error) {
	return c.note(c.Conn.Write(from))
}

func (c *watchedConnection) note(count int, err error) (int, error) {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		c.watch.end("reset")
	} else if err != nil {
		c.watch.end("ended")
	}
	return count, err
}

// Close is what net/http does when TLS has said that nothing more comes.
func (c *watchedConnection) Close() error {
	c.watch.end("ended")
	return c.Conn.Close()
}
