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
		h.Parts = append(h.Parts, Part{Relation: r, Format: Binary, Columns: []Column{{"time", "timestamp with time zone"}, {"v", "double precision"}}})
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
			if rows, _ := r.Totals(); rows != total {
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
	sizes := []int{0, 1, 2, 1000, blockSize - 1, blockSize, blockSize + 1, readSize - 9, readSize, 2*blockSize - 9, 2*blockSize + 9,
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
						if err != io.EOF || len(got) != 1 || got[0].parts[0] != string(data) || got[0].rows[0] != int64(size) {
							t.Fatalf("%s, %d bytes in steps of %d, %s reader, reads of %d: %d segments, %v", comp, size, step, name, buf, len(got), err)
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

	stream := seal("H"+strings.Replace(headerJSON(header(1)), `{`, `{"later":[1,2],`, 1), `T{"rows":0,"bytes":0,"later":1}`, "", `Z{"tasks":1,"later":1}`)
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
		"H"+headerJSON(header(1, Compressed, Rows)), "Dsomething", `E{"rows":2,"bytes":9}`, `E{"rows":0,"bytes":0}`, `T{"rows":2,"bytes":9}`,
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
	for _, s := range []string{"", "gzip", "zstd:", "zstd:0", "zstd:23", "zstd:-1", "zstd:x", "s2:1", "none:1", "ZSTD", "zstd:1:2"} {
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

// TestDiscard leaves every segment at every stage: the next one must come
// whatever was left unread.
func TestDiscard(t *testing.T) {
	for _, comp := range []string{"none", "zstd", "s2"} {
		stream := mixed(t, comp)
		for leave := range 5 {
			r := NewReader(bytes.NewReader(stream))
			var tasks []int64
			var aborts []string
			for {
				h, err := r.Next()
				if err == io.EOF {
					break
				}
				var abort *AbortError
				if errors.As(err, &abort) {
					aborts = append(aborts, abort.Message)
					continue
				}
				must(t, err)
				tasks = append(tasks, h.Task.Task)
				for range leave { // part, byte, part, byte
					if _, err := r.NextPart(); err != nil {
						break
					}
					if leave%2 == 0 {
						r.Read(make([]byte, 1))
					}
				}
			}
			if fmt.Sprint(tasks) != "[1 2 3 4 5 6]" {
				t.Errorf("%s, left after %d steps: tasks %v", comp, leave, tasks)
			}
			// An abort is told once: by Next unless something else met it.
			if leave == 0 && fmt.Sprint(aborts) != "[third fails fifth fails]" || leave == 4 && len(aborts) != 0 {
				t.Errorf("%s, left after %d steps: aborts %v", comp, leave, aborts)
			}
		}
	}
}

func TestAbort(t *testing.T) {
	h := "H" + headerJSON(header(1, Compressed, Rows))
	x := `X{"message":"it broke","sqlstate":"57014"}`
	e := `E{"rows":1,"bytes":1}`
	next := []string{"", "H" + headerJSON(header(2, Rows)), "Dy", e, `T{"rows":1,"bytes":1}`, "", `Z{"tasks":2,"aborted":1}`}
	for _, frames := range [][]string{{h, x}, {h, "Dx", x}, {h, "Dx", e, x}, {h, "Dx", e, "Dx", x}, {h, "Dx", e, "Dx", e, x}} {
		stream := seal(append(frames, next...)...)
		whole, aborted, err := readAll(NewReader(bytes.NewReader(stream)), 10)
		if err != io.EOF || len(whole) != 1 || whole[0].parts[0] != "y" || fmt.Sprint(aborted) != "[it broke]" {
			t.Errorf("abort after %d frames: %v, %q, %v", len(frames)-1, whole, aborted, err)
		}
	}

	r := NewReader(bytes.NewReader(seal(append([]string{h, "Dx", x}, next...)...)))
	r.Next()
	r.NextPart()
	var want *AbortError
	if _, err := io.ReadAll(r); !errors.As(err, &want) || want.SQLState != "57014" {
		t.Fatalf("Read: %v", err)
	}
	if _, err := r.Read(make([]byte, 1)); err != want {
		t.Errorf("Read again: %v", err)
	}
	if _, err := r.NextPart(); err != want {
		t.Errorf("NextPart: %v", err)
	}
	if h, err := r.Next(); err != nil || h.Task.Task != 2 {
		t.Errorf("Next: %v, %v", h, err)
	}

	var wire bytes.Buffer
	w := NewWriter(&wire, Compression{})
	unknown := header(1)
	unknown.State = StateChunk // its parts were never known
	must(t, w.Begin(unknown))
	must(t, w.Abort(strings.Repeat("\x00é", maxMark), ""))
	must(t, w.Close(false))
	if _, aborted, err := readAll(NewReader(&wire), 1); err != io.EOF || len(aborted[0]) < 8000 {
		t.Errorf("a long message: %v", err)
	}
}

// TestOutOfTurn calls every method where it does not belong: NextPart and Read
// must not say io.EOF, which means that all is well.
func TestOutOfTurn(t *testing.T) {
	bad := func(what string, err error) {
		t.Helper()
		if err == nil || err == io.EOF {
			t.Errorf("%s: %v", what, err)
		}
	}
	r := NewReader(bytes.NewReader(mixed(t, "none")))
	p := make([]byte, 1)
	read := func() error { _, err := r.Read(p); return err }
	part := func() error { _, err := r.NextPart(); return err }
	bad("Read before Next", read())
	bad("NextPart before Next", part())
	_, err := r.Next()
	must(t, err)
	bad("Read before NextPart", read())
	must(t, part())
	must(t, part())
	if err := part(); err != io.EOF {
		t.Fatal(err)
	}
	bad("Read after the trailer", read())
	for err == nil || errors.As(err, new(*AbortError)) {
		_, err = r.Next()
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	bad("Read at the end", read())
	bad("NextPart at the end", part())

	r = NewReader(bytes.NewReader(seal("H"+headerJSON(header(1)), `T{}`, "", "garbage")))
	r.Next()
	r.NextPart()
	r.Next()
	bad("NextPart after Next failed", part())

	for what, f := range map[string]func(*Writer) error{
		"Write before Begin":           func(w *Writer) error { _, err := w.Write(p); return err },
		"EndPart before Begin":         func(w *Writer) error { return w.EndPart(0) },
		"End before Begin":             (*Writer).End,
		"Abort before Begin":           func(w *Writer) error { return w.Abort("", "") },
		"Begin twice":                  func(w *Writer) error { w.Begin(header(1)); return w.Begin(header(2)) },
		"Close inside":                 func(w *Writer) error { w.Begin(header(1)); return w.Close(false) },
		"End of a chunk without parts": func(w *Writer) error { h := header(1); h.State = StateChunk; w.Begin(h); return w.End() },
		"End with a part to go":        func(w *Writer) error { w.Begin(header(1, Rows)); return w.End() },
		"Write after the last part":    func(w *Writer) error { w.Begin(header(1)); _, err := w.Write(p); return err },
		"EndPart after the last part":  func(w *Writer) error { w.Begin(header(1)); return w.EndPart(0) },
		"Begin after Close":            func(w *Writer) error { w.Close(false); return w.Begin(header(1)) },
		"Close twice":                  func(w *Writer) error { w.Close(false); return w.Close(false) },
		"Begin without a task":         func(w *Writer) error { return w.Begin(&Header{State: StateGone}) },
		"Begin with an unknown format": func(w *Writer) error { h := header(1, Rows); h.Parts[0].Format = "csv"; return w.Begin(h) },
		"Begin with too much": func(w *Writer) error {
			h := header(1)
			h.Chunk, _ = json.Marshal(strings.Repeat("x", maxHeader))
			return w.Begin(h)
		},
	} {
		var wire bytes.Buffer
		w := NewWriter(&wire, Compression{})
		err := f(w)
		bad(what, err)
		if what != "Close twice" && what != "Begin after Close" {
			if again := w.Close(false); again != err {
				t.Errorf("%s: Close says %v", what, again)
			}
			if _, _, err := readAll(NewReader(&wire), 1); err == io.EOF {
				t.Errorf("%s: left a stream with a proper end", what)
			}
		}
	}
}

// TestRefused reads streams whose checksums are right and whose content is
// not.
func TestRefused(t *testing.T) {
	with := func(f func(h *Header)) string {
		h := header(1, Rows)
		h.V, h.Compression = Version, "none"
		f(h)
		b, err := json.Marshal(h)
		must(t, err)
		return "H" + string(b)
	}
	plain := with(func(*Header) {})
	zstd := with(func(h *Header) { h.Compression = "zstd" })
	s2 := with(func(h *Header) { h.Compression = "s2" })
	bomb := func(comp string) string {
		c := compression(t, comp)
		return "d" + string(c.packer()(nil, make([]byte, MaxFrame+1)))
	}
	pack := func(comp, s string) string { return "d" + string(compression(t, comp).packer()(nil, []byte(s))) }
	e, tr := `E{"rows":1,"bytes":1}`, `T{"rows":1,"bytes":1}`
	for _, c := range []struct {
		what   string
		is     error
		text   string
		frames []string
	}{
		{"version", ErrVersion, "header version 2", []string{with(func(h *Header) { h.V = 2 })}},
		{"compression", ErrVersion, `does not read compression "lz4"`, []string{with(func(h *Header) { h.Compression = "lz4" })}},
		{"state", ErrVersion, `does not read state "half"`, []string{with(func(h *Header) { h.State = "half" })}},
		{"relation", ErrVersion, `does not read relation "toast"`, []string{with(func(h *Header) { h.Parts[0].Relation = "toast" })}},
		{"format", ErrVersion, `does not read format "csv"`, []string{with(func(h *Header) { h.Parts[0].Format = "csv" })}},
		{"no parts", ErrCorrupt, "the header lists no parts", []string{with(func(h *Header) { h.Parts = nil }), "T{}"}},
		{"no parts, but data", ErrCorrupt, "frame D where the trailer belongs", []string{with(func(h *Header) { h.Parts = nil }), "Dx"}},
		{"gone with parts", ErrCorrupt, "1 parts of a chunk that is gone", []string{with(func(h *Header) { h.State = StateGone })}},
		{"no columns", ErrCorrupt, "no columns", []string{with(func(h *Header) { h.Parts[0].Columns = nil })}},
		{"no column name", ErrCorrupt, "column without name", []string{with(func(h *Header) { h.Parts[0].Columns[1].Name = "" })}},
		{"no column type", ErrCorrupt, "column without name or type", []string{with(func(h *Header) { h.Parts[0].Columns[1].Type = "" })}},
		{"task", ErrCorrupt, "no dimension slices", []string{with(func(h *Header) { h.Task.Slices = nil })}},
		{"task version", ErrCorrupt, "record version 2", []string{with(func(h *Header) { h.Task.V = 2 })}},
		{"no JSON", ErrCorrupt, "header", []string{"H{"}},
		{"empty header", ErrVersion, "header version 0", []string{"H{}"}},
		{"no frame", ErrCorrupt, "'Q'", []string{plain, "Q"}},
		{"data first", ErrCorrupt, "frame D where a segment begins", []string{"Dx"}},
		{"two headers", ErrCorrupt, "frame H inside a part", []string{plain, plain}},
		{"trailer inside", ErrCorrupt, "frame T inside a part", []string{plain, "Dx", tr}},
		{"end mark inside", ErrCorrupt, "frame Z inside a part", []string{plain, "Dx", `Z{"tasks":1}`}},
		{"data after the part", ErrCorrupt, "frame D where the trailer belongs", []string{plain, "Dx", e, "Dx"}},
		{"part too many", ErrCorrupt, "frame E where the trailer belongs", []string{plain, "Dx", e, e}},
		{"new segment without trailer", ErrCorrupt, "unknown frame type", []string{plain, "Dx", e, "", plain}},
		{"frame after the trailer", ErrCorrupt, "expected a segment", []string{plain, "Dx", e, tr, "Dx12345678"}},
		{"bytes of the part", ErrCorrupt, "2 bytes, but 1 bytes came", []string{plain, "Dx", `E{"rows":1,"bytes":2}`}},
		{"rows of the part", ErrCorrupt, "-1 rows", []string{plain, "Dx", `E{"rows":-1,"bytes":1}`}},
		{"bytes of the task", ErrCorrupt, "but 1 rows, 1 bytes came", []string{plain, "Dx", e, `T{"rows":1,"bytes":0}`}},
		{"rows of the task", ErrCorrupt, "but 1 rows, 1 bytes came", []string{plain, "Dx", e, `T{"rows":0,"bytes":1}`}},
		{"trailer no JSON", ErrCorrupt, "trailer", []string{plain, "Dx", e, "Tx"}},
		{"part end no JSON", ErrCorrupt, "end of part", []string{plain, "Dx", "E[]"}},
		{"abort no JSON", ErrCorrupt, "abort", []string{plain, "Xx"}},
		{"end mark no JSON", ErrCorrupt, "end mark", []string{"Z"}},
		{"tasks of the stream", ErrCorrupt, "counts 2 tasks", []string{plain, "Dx", e, tr, "", `Z{"tasks":2}`}},
		{"aborts of the stream", ErrCorrupt, "1 of them aborted", []string{plain, "Dx", e, tr, "", `Z{"tasks":1,"aborted":1}`}},
		{"empty data", ErrCorrupt, "empty data frame", []string{plain, "D"}},
		{"packed data in none", ErrCorrupt, "the header says compression none", []string{plain, pack("zstd", "x")}},
		{"garbage in zstd", ErrCorrupt, "zstd", []string{zstd, "dgarbage"}},
		{"garbage in s2", ErrCorrupt, "s2", []string{s2, "d\x05garbage"}},
		{"s2 in zstd", ErrCorrupt, "zstd", []string{zstd, pack("s2", "xxxxxxx")}},
		{"zstd in s2", ErrCorrupt, "s2", []string{s2, pack("zstd", "xxxxxxx")}},
		{"nothing in zstd", ErrCorrupt, "empty data frame", []string{zstd, "d"}},
		{"nothing in s2", ErrCorrupt, "s2", []string{s2, "d"}},
		{"zstd bomb", ErrCorrupt, "zstd", []string{zstd, bomb("zstd")}},
		{"zstd bomb in two", ErrCorrupt, "zstd", []string{zstd, bomb("zstd") + bomb("zstd")[1:]}},
		{"s2 bomb", ErrCorrupt, "1048577 bytes decompressed", []string{s2, bomb("s2")}},
		{"no end", ErrNoEnd, "after 1 whole task", []string{plain, "Dx", e, tr}},
		{"no trailer", ErrNoEnd, "in the middle of a task", []string{plain, "Dx", e}},
	} {
		stream := seal(c.frames...)
		whole, _, err := readAll(NewReader(bytes.NewReader(stream)), 4096)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.what, err)
		}
		sealed := 0
		for _, f := range c.frames {
			if f == tr {
				sealed = 1
			}
		}
		if len(whole) > sealed {
			t.Errorf("%s: %d segments accepted", c.what, len(whole))
		}
	}
	for text, is := range map[string]error{
		"":                                   ErrNoEnd,
		theMagic[:3]:                         ErrNoEnd,
		theMagic:                             ErrNoEnd,
		"ERROR":                              ErrCorrupt,
		"PGCOPY\n\xff\r\n\x00":               ErrCorrupt,
		"\x89bf\n\x1a\n\x01H":                ErrCorrupt, // CR LF became LF on the way
		theMagic[:7] + "\x02":                ErrVersion,
		theMagic[:7] + "\x00":                ErrVersion,
		string(seal(`Z{"tasks":0}`)) + "\n":  ErrCorrupt,
		string(seal(`Z{"tasks":0}`))[1:]:     ErrCorrupt,
		"\n" + string(seal(`Z{"tasks":0}`)):  ErrCorrupt,
		string(seal(`Z{"tasks":0}`, "Dx")):   ErrCorrupt,
		string(seal(`Z{"tasks":0}`, "")):     ErrNoEnd,
		string(seal("", `Z{"tasks":0}`)):     ErrCorrupt, // two magics
		string(seal("", "", `Z{"tasks":0}`)): ErrCorrupt,
	} {
		if _, _, err := readAll(NewReader(strings.NewReader(text)), 10); !errors.Is(err, is) || errors.Is(err, io.ErrUnexpectedEOF) != (is == ErrNoEnd) {
			t.Errorf("%q: %v", text, err)
		}
	}
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

// TestReadError: an error of the input is no end, and stays what it is.
func TestReadError(t *testing.T) {
	stream := mixed(t, "none")
	broken := errors.New("connection reset")
	for _, n := range []int{0, 3, 100, 1000, 300_000, len(stream) - 1, len(stream)} {
		in := io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(broken))
		if _, _, err := readAll(NewReader(in), 4096); !errors.Is(err, broken) || errors.Is(err, ErrNoEnd) || !strings.Contains(err.Error(), fmt.Sprintf("at byte %d", n)) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	if _, _, err := readAll(NewReader(stuck{}), 10); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that returns nothing: %v", err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// failing is a writer that breaks after n bytes.
type failing struct {
	bytes.Buffer
	n int
}

var errPipe = errors.New("broken pipe")

func (f *failing) Write(p []byte) (int, error) {
	k := min(len(p), f.n-f.Len())
	f.Buffer.Write(p[:k])
	if k < len(p) {
		return k, errPipe
	}
	return k, nil
}

// TestWriteError: whatever byte a write breaks at, the Writer says so until
// the end and nothing more is written.
func TestWriteError(t *testing.T) {
	var size int
	for n := 0; n == 0 || n < size; n++ {
		f := &failing{n: n}
		if n == 0 {
			f.n = 1 << 20
		}
		w := NewWriter(f, Compression{})
		w.Begin(header(1, Rows))
		w.Write([]byte("rows"))
		w.EndPart(1)
		w.End()
		w.Begin(header(2))
		w.Abort("x", "")
		err := w.Close(false)
		if n == 0 {
			must(t, err)
			size = f.Len()
			continue
		}
		if err != errPipe || f.Len() != n || w.Bytes() != int64(n) {
			t.Fatalf("broken at byte %d: %v, %d bytes written, Bytes() = %d", n, err, f.Len(), w.Bytes())
		}
	}
}
