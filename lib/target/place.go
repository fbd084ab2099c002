package target

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"

	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// place is where the data of a task goes.
type place struct {
	chunk *tsdb.Chunk // nil: there is none of that extent
	why   string      // why rows go through the hypertable's root; "" if into the chunk
	loose task.Loose  // why there is none
}

// place finds the chunk with the task's extent, or makes it. Where the target
// cannot have such a chunk, rows go through the root, and the chunks that they
// need there are made beforehand all the same: making a chunk locks the
// hypertable, and the tables it references, against the application until
// commit, so it never shares a transaction with a COPY.
func (l *Loader) place(ctx context.Context, ht *tsdb.Hypertable, t *task.Task, part *stream.Part, data *partReader) (*place, error) {
	c, err := l.db.ChunkOf(ctx, ht, t.Slices)
	if err != nil {
		return nil, err
	}
	if c != nil {
		return l.into(ctx, ht, c)
	}
	why := ht.Unaligned(t.Slices)
	made, no := false, ""
	if d := ht.Dimensions[0]; why == "" && l.db.Full && d.Natural(t.Slices[0].From, t.Slices[0].Until) {
		// As ever: nothing is in the way, and there is no need to look.
		made, err = l.createChunk(ctx, ht, t.Slices)
	}
	if !made && err == nil {
		no, err = l.makeChunks(ctx, ht, t, part, data)
	}
	if err != nil {
		return nil, err
	}
	if why != "" {
		return &place{why: why, loose: task.LooseDimensions}, nil
	}
	if c, err = l.db.ChunkOf(ctx, ht, t.Slices); err != nil {
		return nil, err
	}
	if c != nil {
		return l.into(ctx, ht, c)
	}
	if no == "" {
		no = whyOther
	}
	return &place{why: no, loose: task.LooseExtents}, nil
}

// whyOther says why there is no chunk of the source's extent.
const whyOther = "the target cuts chunks differently"

// into is a chunk of the target as the place.
func (l *Loader) into(ctx context.Context, ht *tsdb.Hypertable, c *tsdb.Chunk) (*place, error) {
	skewed, err := l.db.Skewed(ctx, ht, c)
	if err != nil {
		return nil, err
	}
	p := &place{chunk: c}
	if skewed {
		p.why = "the chunk's columns have other numbers than the hypertable's"
	}
	return p, nil
}

// relation is where rows of the chunk are written to: it, or the hypertable.
func (l *Loader) relation(ctx context.Context, ht *tsdb.Hypertable, c *tsdb.Chunk) (string, error) {
	p, err := l.into(ctx, ht, c)
	if err == nil && p.why != "" {
		return pg.Ident(ht.Name.Schema, ht.Name.Name), nil
	}
	return pg.Ident(c.Name.Schema, c.Name.Name), err
}

// partReader is the data of one part, with a look at its first row.
type partReader struct {
	r    io.Reader
	seen []byte // looked at, not read yet
}

// peekRow bounds the first row that is looked at.
const peekRow = 256 << 10

func newPart(r *stream.Reader) *partReader { return &partReader{r: r} }

func (p *partReader) Read(b []byte) (int, error) {
	if len(p.seen) > 0 {
		n := copy(b, p.seen)
		p.seen = p.seen[n:]
		return n, nil
	}
	return p.r.Read(b)
}

// peek returns the beginning of what is still to be read.
func (p *partReader) peek() ([]byte, error) {
	if len(p.seen) == 0 {
		b := make([]byte, peekRow)
		n, err := io.ReadFull(p.r, b)
		p.seen = b[:n]
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return nil, err
		}
	}
	return p.seen, nil
}

// firstRow returns a COPY of the first row alone, without consuming anything;
// nil when there is no row or it is too long.
func (p *partReader) firstRow(format string) ([]byte, error) {
	b, err := p.peek()
	if err != nil {
		return nil, err
	}
	if format == stream.Text {
		// A line end inside a value travels as \n: the first LF ends the row.
		if i := bytes.IndexByte(b, '\n'); i >= 0 && !bytes.HasPrefix(b, []byte("\\.")) {
			return bytes.Clone(b[:i+1]), nil
		}
		return nil, nil
	}
	// Binary: signature (11 bytes), flags, length of the extension, then the
	// tuples: a count of fields, each with its length (-1 for null).
	at := 11 + 4
	if len(b) < at+4 {
		return nil, nil
	}
	at += 4 + int(binary.BigEndian.Uint32(b[at:]))
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
