package stream

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"sync/atomic"
)

// Reader reads streams that follow each other up to the end of its input:
//
//	for {
//		h, err := r.Next() // io.EOF: the last stream came to its end mark
//		for {
//			p, err := r.NextPart() // io.EOF: the trailer is verified, commit
//			io.Copy(…, r)          // the data of the part
//		}
//	}
//
// No byte is handed out before its frame was verified. An AbortError concerns
// the current segment only and Next goes on with the following one. Any other
// error sticks: nothing says where in a damaged stream the next segment begins.
//
// The Reader allocates for what arrived, never for what a frame claims: 512 KiB
// for the frames a Writer makes, 2 MiB for the largest data frames, twice its
// size for a larger header, and as much as the data of a compressed frame.
type Reader struct {
	moved atomic.Int64 // bytes of data, see Moved
	r     io.Reader
	rerr  error  // what r said last
	buf   []byte // buf[pos:end] was read from r and not used yet
	pos   int
	end   int
	off   int64 // offset of buf[pos] in the input
	crc   uint32
	err   error // sticks

	open    bool // a stream has begun and its end mark was not read
	tasks   int  // segments of this stream so far
	aborted int  // of those
	mark    *End // the last end mark

	header *Header
	segErr error // nil inside a segment, then io.EOF (whole) or an AbortError
	parts  int   // begun
	total  sum   // of the segment

	partErr error  // nil inside a part, then io.EOF or an AbortError
	part    sum    // of the current part
	lines   *Lines // of the last part that was read to its end
	data    []byte // verified, not handed out yet; good until the next frame

	unpack   func(dst, src []byte) ([]byte, error)
	unpacked []byte // data of a d frame
}

var (
	errNoSegment = errors.New("stream: not inside a segment")
	errNoPart    = errors.New("stream: not inside a part")
)

// readSize is the Reader's buffer to begin with. It doubles whenever it is full
// of a frame that is not complete.
const readSize = 64 << 10

// NewReader returns a Reader on r, which needs no buffer of its own.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: r, buf: make([]byte, readSize), open: true, segErr: errNoSegment, partErr: errNoPart}
}

// Next returns the header of the next segment. What was left unread of the
// current one is verified and discarded first; when that meets an abort Next
// returns the AbortError, and the next segment when called again. It returns
// io.EOF only if the input ends at an end mark.
func (r *Reader) Next() (*Header, error) {
	for r.segErr == nil {
		if _, err := r.NextPart(); err != nil && err != io.EOF {
			return nil, err
		}
	}
	r.segErr, r.partErr = errNoSegment, errNoPart
	for r.readMagic() {
		t, payload, err := r.frame()
		switch {
		case err != nil:
			return nil, err
		case t == frameHeader:
			return r.begin(payload)
		case t == frameEnd:
			r.close(payload)
		default:
			r.corrupt("frame %c where a segment begins", t)
		}
	}
	return nil, r.err
}

// begin opens a segment.
func (r *Reader) begin(payload []byte) (*Header, error) {
	h := new(Header)
	err := json.Unmarshal(payload, h)
	if err == nil {
		err = h.check()
	}
	if errors.Is(err, ErrVersion) {
		r.err = err
		return nil, err
	}
	if err != nil {
		return nil, r.corrupt("header: %v", err)
	}
	if r.header == nil || r.header.Compression != h.Compression {
		r.unpack = unpacker(h.Compression)
	}
	r.tasks++
	r.header, r.segErr, r.parts, r.total = h, nil, 0, sum{}
	return h, nil
}

// close takes an end mark.
func (r *Reader) close(payload []byte) {
	e := new(End)
	if err := json.Unmarshal(payload, e); err != nil {
		r.corrupt("end mark: %v", err)
	} else if e.Tasks != r.tasks || e.Aborted != r.aborted {
		r.corrupt("the end mark counts %d tasks, %d of them aborted, but %d came, %d of them aborted", e.Tasks,
			e.Aborted, r.tasks, r.aborted)
	} else {
		r.mark, r.open = e, false
	}
}

// NextPart returns the next part of the segment. What was left unread of the
// current one is verified and discarded first. It returns io.EOF after the
// last part, and only when the trailer was verified: now the task is whole.
func (r *Reader) NextPart() (*Part, error) {
	for r.segErr == nil && r.partErr == nil {
		if err := r.fill(); err != nil && err != io.EOF {
			return nil, err
		}
	}
	if r.segErr != nil {
		return nil, r.segErr
	}
	if r.err != nil {
		return nil, r.err
	}
	if r.parts < len(r.header.Parts) {
		r.parts++
		r.partErr, r.part, r.lines = nil, sum{}, nil
		return &r.header.Parts[r.parts-1], nil
	}
	r.partErr = errNoPart
	t, payload, err := r.frame()
	switch {
	case err != nil:
		return nil, err
	case t == frameTrailer:
		return nil, r.trailer(payload)
	case t == frameAbort:
		return nil, r.abort(payload)
	}
	return nil, r.corrupt("frame %c where the trailer belongs", t)
}

// trailer ends the segment; io.EOF is the good end.
func (r *Reader) trailer(payload []byte) error {
	var s sum
	if err := json.Unmarshal(payload, &s); err != nil {
		return r.corrupt("trailer: %v", err)
	}
	if s != r.total {
		return r.corrupt("the trailer counts %d rows, %d bytes, but %d rows, %d bytes came", s.Rows, s.Bytes,
			r.total.Rows, r.total.Bytes)
	}
	if !r.header.whole() {
		return r.corrupt("a trailer, but the header lists no parts")
	}
	r.segErr = io.EOF
	return io.EOF
}

// abort ends the segment because the source failed.
func (r *Reader) abort(payload []byte) error {
	e := new(AbortError)
	if err := json.Unmarshal(payload, e); err != nil {
		return r.corrupt("abort: %v", err)
	}
	r.aborted++
	r.segErr, r.partErr = e, e
	return e
}

// Read reads the data of the current part. It returns io.EOF only when the end
// of the part was verified.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.data) == 0 {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// fill reads the next frame of the current part; what is left of the one
// before is gone.
func (r *Reader) fill() error {
	r.data = nil
	if r.partErr != nil {
		return r.partErr
	}
	t, payload, err := r.frame()
	if err != nil {
		return err
	}
	switch t {
	case frameData:
		r.data = payload
	case framePacked:
		if r.unpack == nil {
			return r.corrupt("a compressed frame, but the header says compression %s", codecNone)
		}
		if r.unpacked, err = r.unpack(r.unpacked, payload); err != nil {
			return r.corrupt("compression %s: %v", r.header.Compression, err)
		}
		r.data = r.unpacked
	case framePartEnd:
		return r.endPart(payload)
	case frameAbort:
		return r.abort(payload)
	default:
		return r.corrupt("frame %c inside a part", t)
	}
	if len(r.data) == 0 {
		return r.corrupt("an empty data frame")
	}
	r.part.Bytes += int64(len(r.data))
	r.moved.Add(int64(len(r.data)))
	return nil
}

// endPart ends the current part; io.EOF is the good end.
func (r *Reader) endPart(payload []byte) error {
	var end partEnd
	if err := json.Unmarshal(payload, &end); err != nil {
		return r.corrupt("end of part: %v", err)
	}
	s := end.sum
	if s.Bytes != r.part.Bytes || s.Rows < 0 {
		return r.corrupt("the end of the part counts %d rows, %d bytes, but %d bytes came", s.Rows, s.Bytes,
			r.part.Bytes)
	}
	r.part, r.lines = s, end.Lines
	r.total.Rows += s.Rows
	r.total.Bytes += s.Bytes
	r.partErr = io.EOF
	return io.EOF
}

// Lines tells where the rows of the part stand that was just read to its end; nil where the
// source is no file.
func (r *Reader) Lines() *Lines { return r.lines }

// Part returns the rows and bytes of the part that was just read to its end.
func (r *Reader) Part() (rows, bytes int64) { return r.part.Rows, r.part.Bytes }

// Moved returns how many bytes of data have been read so far, of all segments.
// It may be called at any time, by any goroutine: it is for progress.
func (r *Reader) Moved() int64 { return r.moved.Load() }

// End returns the end mark read last, nil before the first.
func (r *Reader) End() *End { return r.mark }

// readMagic reads the magic of a segment. At the end of the input and on an
// error it returns false and sets r.err.
func (r *Reader) readMagic() bool {
	if r.err != nil {
		return false
	}
	err := r.need(len(magic))
	got := string(r.buf[r.pos:min(r.end, r.pos+len(magic))])
	last := len(magic) - 1
	switch {
	case got == "" && err == io.EOF && !r.open:
		r.err = io.EOF
	case strings.HasPrefix(magic, got) && err != nil:
		r.missing(err)
	case got == magic:
		if !r.open {
			r.open, r.crc, r.tasks, r.aborted = true, 0, 0, 0
		}
		r.crc = crc32.Update(r.crc, castagnoli, []byte(magic))
		r.advance(len(magic))
		return true
	case strings.HasPrefix(got, magic[:last]):
		r.err = fmt.Errorf("%w: version %d at byte %d, this bf-load reads version %d", ErrVersion, got[last],
			r.off, Version)
	case r.off == 0:
		r.err = fmt.Errorf("%w: the input does not come from bf-dump, it begins with %q", ErrCorrupt, got)
	default:
		r.corrupt("expected a segment or the end of the input, found %q", got)
	}
	return false
}

// frame reads and verifies the next frame. The payload is good until the next
// call.
func (r *Reader) frame() (t byte, payload []byte, err error) {
	if r.err != nil {
		return 0, nil, r.err
	}
	if err := r.need(frameHead); err != nil {
		return 0, nil, r.missing(err)
	}
	t = r.buf[r.pos]
	n := binary.BigEndian.Uint32(r.buf[r.pos+1:])
	most := limit(t)
	if most == 0 {
		return 0, nil, r.corrupt("unknown frame type %q", t)
	}
	if n > uint32(most) {
		return 0, nil, r.corrupt("frame %c claims %d bytes, at most %d are allowed", t, n, most)
	}
	body := frameHead + int(n)
	if err := r.need(body + frameSum); err != nil {
		return 0, nil, r.missing(err)
	}
	frame := r.buf[r.pos : r.pos+body+frameSum]
	crc := crc32.Update(r.crc, castagnoli, frame[:body])
	if crc != binary.BigEndian.Uint32(frame[body:]) {
		return 0, nil, r.corrupt("the checksum of frame %c does not match: bytes were changed or lost", t)
	}
	r.crc = crc
	r.advance(len(frame))
	return t, frame[frameHead:body], nil
}

// need sees to it that n bytes at least are in the buffer. It returns io.EOF
// when the input ends before.
func (r *Reader) need(n int) error {
	for idle := 0; r.end-r.pos < n; {
		if r.rerr != nil {
			return r.rerr
		}
		if r.pos > 0 && (r.pos+n > len(r.buf) || r.pos == r.end) {
			r.end = copy(r.buf, r.buf[r.pos:r.end])
			r.pos = 0
		}
		if r.end == len(r.buf) { // full of what arrived, so a claim alone never gets here
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
		k, err := r.r.Read(r.buf[r.end:])
		r.end += k
		r.rerr = err
		if idle++; k > 0 {
			idle = 0
		} else if idle == 100 {
			r.rerr = io.ErrNoProgress
		}
	}
	return nil
}

func (r *Reader) advance(n int) {
	r.pos += n
	r.off += int64(n)
}

// corrupt makes the stream a damaged one at the current offset.
func (r *Reader) corrupt(format string, args ...any) error {
	r.err = fmt.Errorf("%w at byte %d: %s", ErrCorrupt, r.off, fmt.Sprintf(format, args...))
	return r.err
}

// missing turns what need returned into an error that says what is missing.
func (r *Reader) missing(err error) error {
	at := r.off + int64(r.end-r.pos)
	switch {
	case err != io.EOF:
		r.err = fmt.Errorf("read the stream at byte %d: %w", at, err)
	case at == 0:
		r.err = &noEndError{"it is empty"}
	case r.segErr == nil:
		r.err = &noEndError{fmt.Sprintf("it stops at byte %d, in the middle of a task", at)}
	default:
		r.err = &noEndError{fmt.Sprintf("it stops at byte %d, after %d whole tasks", at, r.tasks-r.aborted)}
	}
	return r.err
}

// noEndError is an ErrNoEnd and, for those who know only package io, an
// io.ErrUnexpectedEOF.
type noEndError struct{ where string }

func (e *noEndError) Error() string {
	return ErrNoEnd.Error() + ": " + e.where + "; the dump failed or was cut off, see its messages and run it again"
}

func (e *noEndError) Is(target error) bool {
	return target == ErrNoEnd || target == io.ErrUnexpectedEOF
}
