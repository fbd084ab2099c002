package pg

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
)

// CopyReader is the data of a COPY, with a look at its first row.
type CopyReader struct {
	r    io.Reader
	seen []byte // looked at, not read yet
}

// NewCopyReader reads a COPY from r.
func NewCopyReader(r io.Reader) *CopyReader { return &CopyReader{r: r} }

// peekRow bounds the first row that is looked at.
const peekRow = 256 << 10

// Read reads the data.
func (p *CopyReader) Read(b []byte) (int, error) {
	if len(p.seen) > 0 {
		n := copy(b, p.seen)
		p.seen = p.seen[n:]
		return n, nil
	}
	return p.r.Read(b)
}

// peek returns the beginning of what is still to be read, up to n bytes.
func (p *CopyReader) peek(n int) ([]byte, error) {
	if have := len(p.seen); have < n {
		b := make([]byte, n)
		copy(b, p.seen)
		more, err := io.ReadFull(p.r, b[have:])
		p.seen = b[:have+more]
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return nil, err
		}
	}
	return p.seen[:min(n, len(p.seen))], nil
}

// binaryHead is the signature of a binary COPY (11 bytes), its flags and the length of
// the extension.
const binaryHead = 11 + 4 + 4

// Empty reports whether a COPY has no rows, without consuming anything.
func (p *CopyReader) Empty(format string) (bool, error) {
	b, err := p.peek(binaryHead + 2)
	if format == "text" || err != nil {
		return len(b) == 0, err
	}
	return len(b) == binaryHead+2 && bytes.Equal(b[binaryHead-4:], []byte{0, 0, 0, 0, 0xff, 0xff}), nil
}

// FirstRow returns a COPY of the first row alone, without consuming anything;
// nil when there is no row or it is too long.
func (p *CopyReader) FirstRow(format string) ([]byte, error) {
	b, err := p.peek(peekRow)
	if err != nil {
		return nil, err
	}
	if format == "text" {
		// A line end inside a value travels as \n: the first LF ends the row.
		if i := bytes.IndexByte(b, '\n'); i >= 0 && !bytes.HasPrefix(b, []byte("\\.")) {
			return bytes.Clone(b[:i+1]), nil
		}
		return nil, nil
	}
	// Binary: the head and its extension, then the tuples: a count of fields, each with
	// its length (-1 for null).
	if len(b) < binaryHead {
		return nil, nil
	}
	at := binaryHead + int(binary.BigEndian.Uint32(b[binaryHead-4:]))
	if at < 0 || len(b) < at+2 {
		return nil, nil
	}
	fields := int(int16(binary.BigEndian.Uint16(b[at:])))
	if fields < 0 {
		return nil, nil // the end: no rows
	}
	at += 2
	for range fields {
		if len(b) < at+4 {
			return nil, nil
		}
		n := int(int32(binary.BigEndian.Uint32(b[at:])))
		at += 4
		if n > 0 {
			at += n
		}
	}
	if len(b) < at {
		return nil, nil
	}
	return append(bytes.Clone(b[:at]), 0xff, 0xff), nil
}

// DropFields takes columns out of a COPY in text format: those at whose place drop
// is true.
func DropFields(r io.Reader, drop []bool) io.Reader {
	return &fieldFilter{r: bufio.NewReaderSize(r, peekRow), drop: drop}
}

// fieldFilter does that. Tabs and line ends inside of values travel escaped: as bytes they
// only separate.
type fieldFilter struct {
	r     *bufio.Reader
	drop  []bool
	field int // of the line
	kept  int // fields of the line handed out
	buf   []byte
	out   []byte // of buf, not handed out yet
}

func (f *fieldFilter) Read(p []byte) (int, error) {
	for len(f.out) == 0 {
		if _, err := f.r.Peek(1); err != nil {
			return 0, err
		}
		in, _ := f.r.Peek(f.r.Buffered())
		f.buf = f.buf[:0]
		for rest := in; len(rest) > 0; {
			end := bytes.IndexAny(rest, "\t\n")
			piece := rest
			if end >= 0 {
				piece = rest[:end]
			}
			keep := f.field < len(f.drop) && !f.drop[f.field]
			if keep {
				f.buf = append(f.buf, piece...)
			}
			if end < 0 {
				break
			}
			if rest[end] == '\n' {
				f.buf = append(f.buf, '\n')
				f.field, f.kept = 0, 0
			} else {
				if keep {
					f.kept++
				}
				f.field++
				if f.kept > 0 && f.field < len(f.drop) && !f.drop[f.field] {
					f.buf = append(f.buf, '\t')
				}
			}
			rest = rest[end+1:]
		}
		f.r.Discard(len(in))
		f.out = f.buf
	}
	n := copy(p, f.out)
	f.out = f.out[n:]
	return n, nil
}
