package stream

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"bf/lib/task"
)

// header returns the header of task n with a part per relation; without
// relations the chunk is gone.
func header(n int64, relations ...string) *Header {
	h := &Header{
		Task: task.Task{
			V: task.Version, Task: n,
			Hypertable: task.Name{Schema: "public", Name: "metrics"},
			Chunk:      task.Name{Schema: "_timescaledb_internal", Name: fmt.Sprintf("_hyper_1_%d_chunk", n)},
			Slices:     []task.Slice{{Column: "time", From: "0", Until: "1000"}},
			Range:      task.Range{Column: "time", From: "0", Until: "1000"},
		},
		State:  StateGone,
		Source: Source{Postgres: 150020, TimescaleDB: "2.19.3", BF: "test"},
	}
	for _, r := range relations {
		h.State = StateChunk
		h.Parts = append(h.Parts, Part{Relation: r, Format: Binary,
			Columns: []Column{{"time", "timestamp with time zone"}, {"v", "double precision"}}})
	}
	return h
}

func compression(tb testing.TB, s string) Compression {
	c, err := ParseCompression(s)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// segment is a task as a reader accepted it.
type segment struct {
	header string // as JSON
	parts  []string
	rows   []int64
}

// readAll reads a stream to its end as a loader does and returns the segments
// whose trailers were accepted, the messages of those that were aborted, and
// the error that ended it; step is the size of its reads.
func readAll(r *Reader, step int) (whole []segment, aborted []string, err error) {
	buf := make([]byte, step)
	for {
		h, err := r.Next()
		if err != nil {
			return whole, aborted, err
		}
		b, err := json.Marshal(h)
		if err != nil {
			return whole, aborted, err
		}
		s := segment{header: string(b)}
		var total int64
		for {
			if _, err = r.NextPart(); err != nil {
				break
			}
			var data []byte
			for err == nil {
				var n int
				n, err = r.Read(buf)
				data = append(data, buf[:n]...)
			}
			if err != io.EOF {
				break
			}
			rows, size := r.Part()
			if size != int64(len(data)) {
				return whole, aborted, fmt.Errorf("part of %d bytes says %d", len(data), size)
			}
			total += rows
			s.parts = append(s.parts, string(data))
			s.rows = append(s.rows, rows)
		}
		var abort *AbortError
		switch {
		case err == io.EOF && len(s.parts) != len(h.Parts):
			return whole, aborted, fmt.Errorf("accepted with %d parts of %d", len(s.parts), len(h.Parts))
		case err == io.EOF:
			if rows := r.total.Rows; rows != total {
				return whole, aborted, fmt.Errorf("%d rows, the total says %d", total, rows)
			}
			whole = append(whole, s)
		case errors.As(err, &abort):
			aborted = append(aborted, abort.Message)
		default:
			if _, again := r.Next(); again != err {
				return whole, aborted, fmt.Errorf("the error does not stick: %v, then %v", err, again)
			}
			return whole, aborted, err
		}
	}
}

// content returns n bytes that compress somewhat and repeat nowhere.
func content(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := uint32(0); len(b) < n; i++ {
		b = binary.BigEndian.AppendUint32(b, i)
		b = append(b, "abcd"...)
	}
	return b[:n]
}

func TestRoundTrip(t *testing.T) {
	sizes := []int{0, 1, 2, 1000, blockSize - 1, blockSize, blockSize + 1, readSize - 9, readSize, 2*blockSize - 9,
		2*blockSize + 9,
		MaxFrame - 1, MaxFrame, MaxFrame + 1, 3*MaxFrame + 7}
	readers := map[string]func(io.Reader) io.Reader{
		"plain": func(r io.Reader) io.Reader { return r },
		"half":  iotest.HalfReader,
		"eof":   iotest.DataErrReader, // the last bytes come with io.EOF
		"one":   iotest.OneByteReader,
	}
	for _, comp := range []string{"none", "zstd", "zstd:6", "s2"} {
		for _, size := range sizes {
			data := content(size)
			for _, step := range []int{1, 19, 8192, blockSize, MaxFrame, MaxFrame + 1, 1 << 30} {
				if size > 2000 && step == 1 || size > step*10_000 {
					continue
				}
				var wire bytes.Buffer
				w := NewWriter(&wire, compression(t, comp))
				must(t, w.Begin(header(1, Rows)))
				for rest := data; len(rest) > 0; {
					k := min(step, len(rest))
					n, err := w.Write(rest[:k])
					if n != k || err != nil {
						t.Fatal(n, err)
					}
					rest = rest[k:]
				}
				must(t, w.EndPart(int64(size)))
				must(t, w.End())
				must(t, w.Close(false))
				if w.Bytes() != int64(wire.Len()) {
					t.Errorf("Bytes() = %d, %d were written", w.Bytes(), wire.Len())
				}
				if comp != "none" && size > 10_000 && wire.Len() > size*9/10 {
					t.Errorf("%s: %d bytes for %d bytes", comp, wire.Len(), size)
				}
				for name, f := range readers {
					if size > 2000 && name != "plain" && step != blockSize {
						continue // how it was written is not seen any more
					}
					for _, buf := range []int{1, 4096, 2 * MaxFrame} {
						if size > 2000 && buf == 1 {
							continue
						}
						got, _, err := readAll(NewReader(f(bytes.NewReader(wire.Bytes()))), buf)
						if err != io.EOF || len(got) != 1 || got[0].parts[0] != string(data) ||
							got[0].rows[0] != int64(size) {
							t.Fatalf("%s, %d bytes in steps of %d, %s reader, reads of %d: %d segments, %v", comp, size,
								step, name, buf, len(got), err)
						}
					}
				}
			}
		}
	}
}

// TestHeader checks that a header arrives as it was sent, with what later
// versions may add.
func TestHeader(t *testing.T) {
	h := header(7, Compressed, Rows)
	h.Task.View = &task.Name{Schema: "public", Name: `odd "name"`}
	h.Task.Extra = map[string]json.RawMessage{"later": json.RawMessage(`{"x":1}`)}
	h.Chunk = json.RawMessage(`{"status":1,"compressed":{"deep":[9223372036854775807]}}`)
	h.Parts[1].Format, h.Parts[1].Bytes = Text, 1<<40
	var wire bytes.Buffer
	w := NewWriter(&wire, compression(t, "zstd:7"))
	must(t, w.Begin(h))
	if h.V != 0 || h.Compression != "" {
		t.Error("Begin changed its caller's header")
	}
	got, err := NewReader(&wire).Next()
	must(t, err)
	h.V, h.Compression = 1, "zstd"
	want, _ := json.Marshal(h)
	if b, _ := json.Marshal(got); !bytes.Equal(b, want) {
		t.Errorf("got  %s\nwant %s", b, want)
	}

	stream := seal("H"+strings.Replace(headerJSON(header(1)), `{`, `{"later":[1,2],`, 1),
		`T{"rows":0,"bytes":0,"later":1}`, "", `Z{"tasks":1,"later":1}`)
	if got, _, err := readAll(NewReader(bytes.NewReader(stream)), 10); err != io.EOF || len(got) != 1 {
		t.Errorf("unknown fields: %v, %v", got, err)
	}
}

// The format once more, independent of Writer and Reader: as the package
// documentation has it.

const theMagic = "\x89\x62\x66\x0d\x0a\x1a\x0a\x01"

// seal makes a stream of frames, each a type and a payload. An empty string
// stands for the magic, which is put before the first frame by itself.
func seal(frames ...string) []byte {
	out, sums := []byte(theMagic), []byte(theMagic)
	for _, f := range frames {
		if f == "" {
			out, sums = append(out, theMagic...), append(sums, theMagic...)
			continue
		}
		frame := append([]byte{f[0]}, binary.BigEndian.AppendUint32(nil, uint32(len(f)-1))...)
		frame = append(frame, f[1:]...)
		sums = append(sums, frame...)
		out = append(out, frame...)
		out = binary.BigEndian.AppendUint32(out, crc32.Checksum(sums, crc32.MakeTable(crc32.Castagnoli)))
		if f[0] == 'Z' {
			sums = nil
		}
	}
	return out
}

// split is the inverse of seal. It keeps going through anything that has the
// shape of frames and returns the rest as it is.
func split(stream []byte) (frames []string, rest []byte) {
	b := bytes.TrimPrefix(stream, []byte(theMagic))
	if len(b) == len(stream) {
		return nil, stream
	}
	for {
		if next, ok := bytes.CutPrefix(b, []byte(theMagic)); ok {
			frames, b = append(frames, ""), next
			continue
		}
		if len(b) < 9 || uint64(len(b)-9) < uint64(binary.BigEndian.Uint32(b[1:])) {
			return frames, b
		}
		n := binary.BigEndian.Uint32(b[1:])
		frames = append(frames, string(b[:1])+string(b[5:5+n]))
		b = b[9+n:]
	}
}

func headerJSON(h *Header) string {
	h.V = Version
	if h.Compression == "" {
		h.Compression = "none"
	}
	b, err := json.Marshal(h)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestFormat pins the bytes of a stream.
func TestFormat(t *testing.T) {
	var wire bytes.Buffer
	w := NewWriter(&wire, Compression{})
	must(t, w.Begin(header(1, Compressed, Rows)))
	w.Write([]byte("some"))
	w.Write([]byte("thing"))
	must(t, w.EndPart(2))
	must(t, w.EndPart(0))
	must(t, w.End())
	must(t, w.Begin(header(2)))
	must(t, w.End())
	must(t, w.Begin(header(3, Rows)))
	w.Write([]byte("unsent"))
	must(t, w.Abort("no such chunk", "42P01"))
	must(t, w.Close(true))
	want := seal(
		"H"+headerJSON(header(1, Compressed, Rows)), "Dsomething", `E{"rows":2,"bytes":9}`, `E{"rows":0,"bytes":0}`,
		`T{"rows":2,"bytes":9}`,
		"", "H"+headerJSON(header(2)), `T{"rows":0,"bytes":0}`,
		"", "H"+headerJSON(header(3, Rows)), `X{"message":"no such chunk","sqlstate":"42P01"}`,
		"", `Z{"tasks":3,"aborted":1,"stopped":true}`)
	if !bytes.Equal(wire.Bytes(), want) {
		t.Errorf("got  %q\nwant %q", wire.Bytes(), want)
	}
	r := NewReader(&wire)
	whole, aborted, err := readAll(r, 100)
	if err != io.EOF || len(whole) != 2 || len(aborted) != 1 || *r.End() != (End{3, 1, true}) {
		t.Errorf("%d whole, %q, %v, %+v", len(whole), aborted, err, r.End())
	}
}

func TestParseCompression(t *testing.T) {
	for _, s := range []string{"none", "s2", "zstd", "zstd:1", "zstd:22"} {
		if c, err := ParseCompression(s); err != nil || c.String() != s {
			t.Errorf("%s: %v, %v", s, c, err)
		}
	}
	for _, s := range []string{"", "gzip", "zstd:", "zstd:0", "zstd:23", "zstd:-1", "zstd:x", "s2:1", "none:1", "ZSTD",
		"zstd:1:2"} {
		if c, err := ParseCompression(s); err == nil {
			t.Errorf("%s: read as %v", s, c)
		}
	}
	if (Compression{}).String() != "none" {
		t.Error("the zero Compression is not none")
	}
}

// TestIncompressible: a frame that does not shrink travels as it is, so no
// content can blow the stream up.
func TestIncompressible(t *testing.T) {
	noise := make([]byte, 3*blockSize)
	x := uint64(88172645463325252)
	for i := range noise {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		noise[i] = byte(x >> 32)
	}
	for _, comp := range []string{"zstd", "s2"} {
		var wire bytes.Buffer
		w := begin(t, &wire, compression(t, comp))
		w.Write(noise)
		finish(t, w)
		frames, _ := split(wire.Bytes())
		for _, f := range frames {
			if f != "" && f[0] == 'd' {
				t.Errorf("%s: a compressed frame of %d bytes", comp, len(f))
			}
		}
		if got, _, err := readAll(NewReader(&wire), 8192); err != io.EOF || got[0].parts[0] != string(noise) {
			t.Errorf("%s: %v", comp, err)
		}
	}
}

// mixed writes a stream of six tasks: two whole, one gone, one empty, two
// aborted.
func mixed(t *testing.T, comp string) []byte {
	var wire bytes.Buffer
	w := NewWriter(&wire, compression(t, comp))
	must(t, w.Begin(header(1, Compressed, Rows)))
	w.Write(content(300_000))
	must(t, w.EndPart(3))
	w.Write(content(100))
	must(t, w.EndPart(1))
	must(t, w.End())
	must(t, w.Begin(header(2)))
	must(t, w.End())
	must(t, w.Begin(header(3, Rows)))
	w.Write(content(blockSize + 1))
	must(t, w.Abort("third fails", ""))
	must(t, w.Begin(header(4, Rows)))
	must(t, w.EndPart(0))
	must(t, w.End())
	must(t, w.Begin(header(5, Compressed, Rows)))
	w.Write(content(10))
	must(t, w.EndPart(1))
	must(t, w.Abort("fifth fails", "XX000"))
	must(t, w.Begin(header(6, Rows)))
	w.Write(content(2 * MaxFrame))
	must(t, w.EndPart(6))
	must(t, w.End())
	must(t, w.Close(false))
	return wire.Bytes()
}

func TestConcatenated(t *testing.T) {
	a, b, c := mixed(t, "none"), mixed(t, "s2"), mixed(t, "zstd")
	empty := seal(`Z{"tasks":0,"aborted":0,"stopped":true}`)
	var all []byte
	for _, s := range [][]byte{a, empty, b, c, a, empty} {
		all = append(all, s...)
	}
	r := NewReader(bytes.NewReader(all))
	whole, aborted, err := readAll(r, 9999)
	if err != io.EOF || len(whole) != 16 || len(aborted) != 8 || !r.End().Stopped {
		t.Errorf("%d whole, %q, %v, %+v", len(whole), aborted, err, r.End())
	}
	for _, cut := range []int{len(a) - 1, len(a) + len(empty) - 1, len(all) - 1} {
		if _, _, err := readAll(NewReader(bytes.NewReader(all[:cut])), 9999); !errors.Is(err, ErrNoEnd) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	// The first stream lacks its end mark: whatever follows is not taken.
	frames, _ := split(a)
	headless := seal(frames[:len(frames)-2]...)
	whole, _, err = readAll(NewReader(bytes.NewReader(append(headless, b...))), 9999)
	if len(whole) != 4 || !errors.Is(err, ErrCorrupt) {
		t.Errorf("stream without an end before another: %d segments, %v", len(whole), err)
	}
}
