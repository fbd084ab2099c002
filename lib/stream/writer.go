package stream

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// blockSize is how much data goes into one frame. COPY sends a message per
// row: unless they are batched, each costs a system call on either side of the
// pipe.
const blockSize = 256 << 10

// Writer writes a stream. Its methods are called in this order:
//
//	( Begin ( Write* EndPart )* End )* Close
//
// with one EndPart per part of the header. Abort may come in place of anything
// between Begin and End, End included. The first error sticks. A Writer that
// failed, or was just left, leaves a stream that no Reader takes for complete.
type Writer struct {
	w    io.Writer
	comp Compression
	pack func(dst, src []byte) []byte

	block  []byte // room for a frame's head, then the data gathered so far
	packed []byte // the same, compressed
	crc    uint32
	n      int64
	err    error

	begun bool // between Begin and End
	whole bool // this segment may end in a trailer
	parts int  // still to be ended in this segment
	part  sum  // of the current part
	total sum  // of the segment
	end   End  // of the stream
}

// NewWriter returns a Writer on w whose data frames are compressed by c.
func NewWriter(w io.Writer, c Compression) *Writer {
	return &Writer{
		w: w, comp: c, pack: c.packer(),
		block:  make([]byte, frameHead, frameHead+blockSize+frameSum),
		packed: make([]byte, frameHead),
	}
}

// Begin opens the segment of one task. It sets version and compression of the
// header that is written, not of h. The header goes out at once: the loader
// can get ready while the source starts its COPY. A header of StateChunk
// without parts is for a source that failed before it knew them: only Abort can
// follow.
func (w *Writer) Begin(h *Header) error {
	if err := w.expect(!w.begun, "Begin inside a segment"); err != nil {
		return err
	}
	head := *h
	head.V, head.Compression = Version, w.comp.name()
	if err := head.check(); err != nil {
		return w.fail(fmt.Errorf("stream: header: %w", err))
	}
	w.begun, w.whole, w.parts, w.part, w.total = true, h.whole(), len(h.Parts), sum{}, sum{}
	w.end.Tasks++
	return w.mark(magic, frameHeader, &head)
}

// Write adds to the data of the current part.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.expect(w.begun && w.parts > 0, "Write outside of a part"); err != nil {
		return 0, err
	}
	for rest := p; len(rest) > 0; {
		k := min(frameHead+blockSize-len(w.block), len(rest))
		w.block = append(w.block, rest[:k]...)
		rest = rest[k:]
		if len(w.block) == frameHead+blockSize {
			if err := w.flush(); err != nil {
				return len(p) - len(rest), err
			}
		}
	}
	w.part.Bytes += int64(len(p))
	return len(p), nil
}

// EndPart ends the current part, which has so many rows.
func (w *Writer) EndPart(rows int64) error { return w.EndLines(rows, nil) }

// EndLines is EndPart for rows of files.
func (w *Writer) EndLines(rows int64, lines *Lines) error {
	if err := w.expect(w.begun && w.parts > 0, "EndPart outside of a part"); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.part.Rows = rows
	w.total.Rows += w.part.Rows
	w.total.Bytes += w.part.Bytes
	err := w.mark("", framePartEnd, partEnd{w.part, lines})
	w.parts, w.part = w.parts-1, sum{}
	return err
}

// End writes the trailer of the segment: the task is whole.
func (w *Writer) End() error {
	if err := w.expect(w.begun && w.whole && w.parts == 0, "End before the end of the last part"); err != nil {
		return err
	}
	w.begun = false
	return w.mark("", frameTrailer, w.total)
}

// Abort ends the segment because the source failed. The message is complete,
// for the people who read the loader's log; the SQLSTATE is for programs and
// may be empty.
func (w *Writer) Abort(message, sqlstate string) error {
	if err := w.expect(w.begun, "Abort outside of a segment"); err != nil {
		return err
	}
	w.begun = false
	w.end.Aborted++
	w.block = w.block[:frameHead] // what was not sent yet is of no use to anybody
	if most := maxMark / 8; len(message) > most {
		message = strings.ToValidUTF8(message[:most], "") // fits, however JSON escapes it
	}
	return w.mark("", frameAbort, &AbortError{Message: message, SQLState: sqlstate})
}

// Close writes the end mark. stopped says that the dump ended before its last
// task, because of a failure or on request. The underlying writer stays open.
func (w *Writer) Close(stopped bool) error {
	if err := w.expect(!w.begun, "Close inside a segment"); err != nil {
		return err
	}
	w.end.Stopped = stopped
	if err := w.mark(magic, frameEnd, w.end); err != nil {
		return err
	}
	w.err = errors.New("stream: use of a closed Writer")
	return nil
}

// Bytes returns how many bytes were written on the wire so far.
func (w *Writer) Bytes() int64 { return w.n }

func (w *Writer) fail(err error) error {
	w.err = err
	return err
}

// expect returns the Writer's error: the one that sticks, or that the caller
// is out of turn.
func (w *Writer) expect(ok bool, what string) error {
	if w.err == nil && !ok {
		w.err = errors.New("stream: " + what)
	}
	return w.err
}

// flush sends the data gathered so far as a frame.
func (w *Writer) flush() error {
	if len(w.block) == frameHead {
		return nil
	}
	t, frame := byte(frameData), w.block
	if w.pack != nil {
		w.packed = w.pack(w.packed[:frameHead], w.block[frameHead:])
		if len(w.packed) < len(w.block) {
			t, frame = framePacked, w.packed
		}
	}
	w.block = w.block[:frameHead]
	return w.send(t, frame, 0)
}

// mark sends a frame of JSON, with prefix before it.
func (w *Writer) mark(prefix string, t byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return w.fail(fmt.Errorf("stream: frame %c: %w", t, err))
	}
	if len(b) > limit(t) {
		return w.fail(fmt.Errorf("stream: frame %c: %d bytes, at most %d are allowed", t, len(b), limit(t)))
	}
	buf := make([]byte, len(prefix)+frameHead, len(prefix)+frameHead+len(b)+frameSum)
	copy(buf, prefix)
	return w.send(t, append(buf, b...), len(prefix))
}

// send completes the frame at buf[at:] by its head and checksum and writes all
// of buf in one piece.
func (w *Writer) send(t byte, buf []byte, at int) error {
	buf[at] = t
	binary.BigEndian.PutUint32(buf[at+1:], uint32(len(buf)-at-frameHead))
	w.crc = crc32.Update(w.crc, castagnoli, buf)
	n, err := w.w.Write(binary.BigEndian.AppendUint32(buf, w.crc))
	w.n += int64(n)
	if err != nil {
		return w.fail(err)
	}
	return nil
}
