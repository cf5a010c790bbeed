package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// http1Exchange returns what sends one HTTP/1.1 request on a connection and reads the response whole.
func http1Exchange(job Job, tokens []string, bufferBytes int) func(net.Conn) error {
	head, withToken := http1Head(job), []byte(nil)
	buffer := make([]byte, bufferBytes)
	expected := answerBytes(job)
	return func(conn net.Conn) error {
		request := head
		if len(tokens) > 0 && (withToken == nil || job.NewTokens) {
			token := tokens[(turnOf(job).Add(1)-1)%int64(len(tokens))]
			withToken = append(withToken[:0], head[:len(head)-len(crlf)]...)
			withToken = append(append(append(withToken, "authorization: Bearer "...), token...), headEnd...)
		}
		if withToken != nil {
			request = withToken
		}
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if err := send(conn, job.UpBytes); err != nil {
			return err
		}
		end, held := -1, 0
		for end < 0 {
			if held == len(buffer) {
				return errors.New("the head of the response is too long")
			}
			n, err := conn.Read(buffer[held:])
			held += n
			end = bytes.Index(buffer[:held], headEnd)
			if err != nil && end < 0 {
				return unexpected(err)
			}
		}
		end += len(headEnd)
		if !bytes.HasPrefix(buffer, []byte("HTTP/1.1 200 ")) {
			status, _, _ := bytes.Cut(buffer[:end], crlf)
			return notOK(string(bytes.TrimPrefix(status, []byte("HTTP/1.1 "))), buffer[end:held])
		}
		length, err := contentLength(buffer[:end])
		if err != nil {
			return err
		}
		remaining := length - int64(held-end)
		if length != expected || remaining < 0 {
			return fmt.Errorf("the response has a body of %d bytes, not %d", length, expected)
		}
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

func http1Head(job Job) []byte {
	method, target := methodAndTarget(job)
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: orders.bench.test\r\n", method, target)
	for _, field := range httpFields(job) {
		fmt.Fprintf(&text, "%s: %s\r\n", field.name, field.value)
	}
	text.WriteString("\r\n")
	return []byte(text.String())
}

// unexpected is why a response ended early.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
