package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// subjectField tells the application whose token a request had.
	subjectField = "x-spiffe-jwt-subject"
	tokenField   = "authorization"
)

// expectedSubject is the value that a request's X-Spiffe-Jwt-Subject must have: that of the job that runs; empty if it does not matter.
var expectedSubject atomic.Pointer[string]

// turns are those of the tokens, by the address of the proxy: what it has seen last, it sees last again, from one job to the next.
var turns sync.Map

func turnOf(job Job) *atomic.Int64 {
	turn, _ := turns.LoadOrStore(job.Target+" "+job.TokenFile, &atomic.Int64{})
	return turn.(*atomic.Int64)
}

func readTokens(file string) ([]string, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	tokens := strings.Fields(string(text))
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%s has no tokens", file)
	}
	return tokens, nil
}

// subjectProblem says what is wrong with a request that names these subjects; a token that was validated goes no further.
func subjectProblem(subjects []string, hasToken bool) string {
	expected := expectedSubject.Load()
	if expected == nil || *expected == "" {
		return ""
	}
	if len(subjects) != 1 || subjects[0] != *expected || hasToken {
		return fmt.Sprintf("the application wants one %s %q and no token, got %q, token: %t", subjectField, *expected, subjects, hasToken)
	}
	return ""
}
