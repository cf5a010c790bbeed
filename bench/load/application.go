package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
)

// frameBytes is the length of a request and of the head of an answer. The first 16 bytes of a request say how many bytes follow it
// and how many shall follow the answer.
const frameBytes = 128

var zeros = make([]byte, 256<<10)

// startApplication serves connections in plain TCP on a free port and returns its address.
func startApplication(serve func(net.Conn)) (string, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return listener.Addr().String(), nil
}

// serveFrames answers exchanges.
func serveFrames(conn net.Conn) {
	defer conn.Close()
	// A small buffer first: thousands of idle connections are held here, too.
	frame := make([]byte, frameBytes)
	for {
		if _, err := io.ReadFull(conn, frame); err != nil {
			return
		}
		up := int64(binary.BigEndian.Uint64(frame[0:8]))
		down := int64(binary.BigEndian.Uint64(frame[8:16]))
		if up > 0 {
			if _, err := io.CopyN(io.Discard, bufio.NewReaderSize(conn, 256<<10), up); err != nil {
				return
			}
		}
		if _, err := conn.Write(frame); err != nil {
			return
		}
		if err := send(conn, down); err != nil {
			return
		}
	}
}

func send(to io.Writer, count int64) error {
	for count > 0 {
		n := min(count, int64(len(zeros)))
		if _, err := to.Write(zeros[:n]); err != nil {
			return err
		}
		count -= n
	}
	return nil
}
