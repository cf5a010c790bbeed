package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	xhpack "golang.org/x/net/http2/hpack"
)

// hpack reads records from standard input, and writes what golang.org/x/net makes of each block. A record is a byte of
// kind, 32 bits and, for a block, as many bytes as they say: 0, a connection, with the size that its table may have;
// 1, another such limit; 2, a block. An answer is 32 bits of length, a byte, 1 if the block was taken, and the fields:
// 1 for one never to be indexed, else 0, and name and value, each with 32 bits of its length before it; or the error.
func hpack() error {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	var decoder *xhpack.Decoder
	for {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err == io.EOF {
			return out.Flush()
		} else if err != nil {
			return err
		}
		number := binary.BigEndian.Uint32(head[1:])
		switch head[0] {
		case 0:
			decoder = xhpack.NewDecoder(min(number, 4096), nil)
			decoder.SetAllowedMaxDynamicTableSize(number)
		case 1:
			decoder.SetAllowedMaxDynamicTableSize(number)
		case 2:
			block := make([]byte, number)
			if _, err := io.ReadFull(in, block); err != nil {
				return err
			}
			if err := writeBlock(out, decoder, block); err != nil {
				return err
			}
		default:
			return fmt.Errorf("a record of kind %d", head[0])
		}
	}
}

func writeBlock(out io.Writer, decoder *xhpack.Decoder, block []byte) error {
	fields, problem := decoder.DecodeFull(block)
	said := make([]byte, 5, 256)
	if problem != nil {
		said = append(said, problem.Error()...)
	} else {
		said[4] = 1
		for _, field := range fields {
			sensitive := byte(0)
			if field.Sensitive {
				sensitive = 1
			}
			said = append(said, sensitive)
			for _, text := range []string{field.Name, field.Value} {
				said = binary.BigEndian.AppendUint32(said, uint32(len(text)))
				said = append(said, text...)
			}
		}
	}
	binary.BigEndian.PutUint32(said, uint32(len(said)-4))
	_, err := out.Write(said)
	return err
}
