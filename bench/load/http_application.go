package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
)

// expectedIdentity is the value that a request's X-Forwarded-Client-Cert must have: that of the job that runs.
var expectedIdentity atomic.Pointer[string]

// serveHTTP answers HTTP/1.1 in plain TCP. It looks for the caller's identity in every request: a proxy that leaves it out, or lets a
// client's own through, gets 500 and fails the measurement instead of being fast.
func serveHTTP(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 8<<10)
	var bulk []byte
	held := 0
	for {
		end := bytes.Index(buffer[:held], headEnd)
		if end < 0 {
			if held == len(buffer) {
				return
			}
			n, err := conn.Read(buffer[held:])
			if err != nil {
				return
			}
			held += n
			continue
		}
		end += len(headEnd)
		down, up, problem := judge(buffer[:end])
		if problem != "" {
			fmt.Fprintf(conn, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(problem), problem)
			return
		}
		inBuffer := min(int64(held-end), up)
		held = copy(buffer, buffer[end+int(inBuffer):held])
		for up -= inBuffer; up > 0; {
			if bulk == nil {
				bulk = make([]byte, 256<<10)
			}
			n, err := conn.Read(bulk[:min(up, int64(len(bulk)))])
			if err != nil {
				return
			}
			up -= int64(n)
		}
		if err := answer(conn, down); err != nil {
			return
		}
	}
}

// judge reads a request's head: how many bytes to answer with (0: the small answer), and how many follow.
func judge(head []byte) (down, up int64, problem string) {
	identities, value := 0, ""
	var subjects []string
	hasToken := false
	eachLine(head, func(line []byte) {
		if text, is := valueOf(line, identityField); is {
			identities++
			value = text
		} else if text, is := valueOf(line, subjectField); is {
			subjects = append(subjects, text)
		} else if _, is := valueOf(line, tokenField); is {
			hasToken = true
		}
	})
	if problem := identityProblem(identities, value); problem != "" {
		return 0, 0, problem
	}
	if problem := subjectProblem(subjects, hasToken); problem != "" {
		return 0, 0, problem
	}
	up, err := contentLength(head)
	if err != nil {
		return 0, 0, err.Error()
	}
	line, _, _ := bytes.Cut(head, crlf)
	if _, rest, found := strings.Cut(string(line), " "+bulkPath); found {
		digits, _, _ := strings.Cut(rest, " ")
		if down, err = strconv.ParseInt(digits, 10, 64); err != nil {
			return 0, 0, err.Error()
		}
	}
	return down, up, ""
}

// identityProblem says what is wrong with the identity of a request that has so many, and this as its last.
func identityProblem(identities int, last string) string {
	if expected := expectedIdentity.Load(); identities != 1 || expected == nil || !isIdentity(last, *expected) {
		return fmt.Sprintf("the application wants one %s, got %d, the last %q", identityField, identities, last)
	}
	return ""
}

// isIdentity compares with an expected value, in which one * stands for a SHA-256 in hex.
func isIdentity(value, expected string) bool {
	before, after, any := strings.Cut(expected, "*")
	if !any {
		return value == expected
	}
	return len(value) == len(before)+64+len(after) && strings.HasPrefix(value, before) && strings.HasSuffix(value, after)
}

var (
	smallBody   = []byte(`{"id":48213,"state":"shipped","items":[` + strings.Repeat(" ", smallBodyBytes-41) + `]}`)
	smallAnswer = append([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "+strconv.Itoa(smallBodyBytes)+"\r\n\r\n"), smallBody...)
)

func answer(conn io.Writer, down int64) error {
	if down == 0 {
		_, err := conn.Write(smallAnswer)
		return err
	}
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", down); err != nil {
		return err
	}
	return send(conn, down)
}
