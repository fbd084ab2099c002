package pg

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
)

// tap sits between the connection and pgx's reader of messages. While a sink
// is set it takes the payload of CopyData messages out of the stream and hands
// it to the sink in blocks as they arrive; everything else passes. pgx itself
// reads each CopyData (one row) whole into memory and writes it on its own:
// a row of 100 MB would cost that much memory, and a million rows a million
// writes. Taking over the socket instead (Hijack) loses bytes to pgx's
// background reader; the tap sees the same bytes as pgx, in order.
type tap struct {
	r     io.Reader
	sink  io.Writer
	err   error // of the sink
	haste int   // bytes to read without pauses
	dry   bool  // the last read took all that was there

	in   []byte // read from r, not handled yet
	buf  []byte
	out  []byte // complete bytes for pgx, not taken yet
	data int    // bytes left of the CopyData message in hand
	body int    // bytes left of another message in hand, all for pgx
	head []byte // part of a message header that pgx has already
}

const tapBuffer = 256 << 10

// gatherFrom is how much of a COPY is read without pauses. PostgreSQL sends 8 KiB
// at a time. A reader that keeps pace sleeps and wakes up for each of them, which
// takes more CPU time than everything else it does. So after that much, it waits
// a moment whenever it has emptied the socket.
const gatherFrom = 1 << 20

func newTap(r io.Reader) *tap { return &tap{r: r} }

func (t *tap) Read(p []byte) (int, error) {
	if t.sink == nil && len(t.in) == 0 && len(t.out) == 0 {
		// Not copying: pgx reads for itself; we only keep count of where the
		// messages end, because a notice may be half read when a COPY starts.
		n, err := t.r.Read(p)
		t.follow(p[:n])
		return n, err
	}
	for {
		if len(t.out) > 0 {
			n := copy(p, t.out)
			t.out = t.out[n:]
			return n, nil
		}
		if t.err != nil {
			return 0, t.err
		}
		if err := t.step(); err != nil {
			return 0, err
		}
	}
}

// follow keeps the place in the message stream for bytes that go to pgx.
func (t *tap) follow(b []byte) {
	for len(b) > 0 {
		if t.body > 0 {
			n := min(t.body, len(b))
			t.body, b = t.body-n, b[n:]
			continue
		}
		n := min(5-len(t.head), len(b))
		t.head, b = append(t.head, b[:n]...), b[n:]
		if len(t.head) == 5 {
			t.body = max(int(binary.BigEndian.Uint32(t.head[1:]))-4, 0)
			t.head = t.head[:0]
		}
	}
}

// step handles what is buffered, or reads more.
func (t *tap) step() error {
	switch {
	case t.data > 0 && len(t.in) > 0:
		n := min(t.data, len(t.in))
		if _, err := t.sink.Write(t.in[:n]); err != nil {
			t.err = err
			return err
		}
		t.in, t.data = t.in[n:], t.data-n
		return nil
	case t.body > 0 && len(t.in) > 0:
		n := min(t.body, len(t.in))
		t.out, t.in, t.body = t.in[:n], t.in[n:], t.body-n
		return nil
	case len(t.head) > 0 && len(t.in) > 0: // begun before the COPY: not its data
		n := min(5-len(t.head), len(t.in))
		t.out, t.in = t.in[:n], t.in[n:]
		t.follow(t.out)
		return nil
	case t.data == 0 && t.body == 0 && len(t.in) >= 5:
		size := int(binary.BigEndian.Uint32(t.in[1:5])) - 4
		if size < 0 {
			return errors.New("protocol error: message shorter than its header")
		}
		if t.in[0] == 'd' && t.sink != nil {
			t.data, t.in = size, t.in[5:]
		} else {
			t.body = size + 5
		}
		return nil
	}
	if t.buf == nil {
		t.buf = make([]byte, tapBuffer)
	}
	k := copy(t.buf, t.in) // at most 4 bytes of a header
	if t.haste <= 0 && t.dry {
		gather()
	}
	n, err := t.r.Read(t.buf[k:])
	t.in, t.dry = t.buf[:k+n], k+n < len(t.buf)
	t.haste -= n
	if n > 0 {
		return nil
	}
	return err
}

// CopyOut runs sql, a COPY … TO STDOUT, writes its data to w in blocks of up to
// 256 KiB and returns the number of rows. It uses the same small memory
// whatever the size of a row. When w fails, the connection is lost: the server
// may still be sending.
func (c *Conn) CopyOut(ctx context.Context, w io.Writer, sql string) (rows int64, err error) {
	t := c.tap
	t.sink, t.err, t.haste = w, nil, math.MaxInt
	if gathers(c.PgConn().Conn()) {
		t.haste = gatherFrom
	}
	defer func() { t.sink = nil }()
	tag, err := c.PgConn().CopyTo(ctx, io.Discard, sql)
	if t.err != nil {
		return 0, t.err
	}
	return tag.RowsAffected(), err
}

// CopyIn runs sql, a COPY … FROM STDIN, with the data of r and returns the
// number of rows that the server stored. An error of r (anything but io.EOF)
// makes the COPY fail on the server and is returned as it is.
func (c *Conn) CopyIn(ctx context.Context, r io.Reader, sql string) (rows int64, err error) {
	cr := &errReader{r: r}
	tag, err := c.PgConn().CopyFrom(ctx, cr, sql)
	if cr.err != nil {
		return 0, cr.err
	}
	return tag.RowsAffected(), err
}

// errReader remembers why the reader failed: the server only echoes it.
type errReader struct {
	r   io.Reader
	err error
}

func (e *errReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}
