package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

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
	next := []string{"", "H" + headerJSON(header(2, Rows)), "Dy", e, `T{"rows":1,"bytes":1}`, "",
		`Z{"tasks":2,"aborted":1}`}
	for _, frames := range [][]string{{h, x}, {h, "Dx", x}, {h, "Dx", e, x}, {h, "Dx", e, "Dx", x},
		{h, "Dx", e, "Dx", e, x}} {
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
		"Write before Begin":   func(w *Writer) error { _, err := w.Write(p); return err },
		"EndPart before Begin": func(w *Writer) error { return w.EndPart(0) },
		"End before Begin":     (*Writer).End,
		"Abort before Begin":   func(w *Writer) error { return w.Abort("", "") },
		"Begin twice":          func(w *Writer) error { w.Begin(header(1)); return w.Begin(header(2)) },
		"Close inside":         func(w *Writer) error { w.Begin(header(1)); return w.Close(false) },
		"End of a chunk without parts": func(w *Writer) error {
			h := header(1)
			h.State = StateChunk
			w.Begin(h)
			return w.End()
		},
		"End with a part to go":       func(w *Writer) error { w.Begin(header(1, Rows)); return w.End() },
		"Write after the last part":   func(w *Writer) error { w.Begin(header(1)); _, err := w.Write(p); return err },
		"EndPart after the last part": func(w *Writer) error { w.Begin(header(1)); return w.EndPart(0) },
		"Begin after Close":           func(w *Writer) error { w.Close(false); return w.Begin(header(1)) },
		"Close twice":                 func(w *Writer) error { w.Close(false); return w.Close(false) },
		"Begin without a task":        func(w *Writer) error { return w.Begin(&Header{State: StateGone}) },
		"Begin with an unknown format": func(w *Writer) error {
			h := header(1, Rows)
			h.Parts[0].Format = "csv"
			return w.Begin(h)
		},
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

// The end of a part of one row and one byte, and the trailer of a segment of that part.
const (
	end1  = `E{"rows":1,"bytes":1}`
	seal1 = `T{"rows":1,"bytes":1}`
)

// headed is the frame of a header that f has changed.
func headed(f func(h *Header)) string {
	h := header(1, Rows)
	h.V, h.Compression = Version, "none"
	f(h)
	b, err := json.Marshal(h)
	if err != nil {
		panic(err)
	}
	return "H" + string(b)
}

// refusal is a stream that a Reader refuses, and how.
type refusal struct {
	what   string
	is     error
	text   string
	frames []string
}

func refuses(t *testing.T, cases []refusal) {
	t.Helper()
	for _, c := range cases {
		whole, _, err := readAll(NewReader(bytes.NewReader(seal(c.frames...))), 4096)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.what, err)
		}
		if sealed := slices.Contains(c.frames, seal1); len(whole) > 1 || len(whole) == 1 && !sealed {
			t.Errorf("%s: %d segments accepted", c.what, len(whole))
		}
	}
}

// TestRefusedHeaders: what a Reader does not know, or what cannot be.
func TestRefusedHeaders(t *testing.T) {
	refuses(t, []refusal{
		{"version", ErrVersion, "header version 2", []string{headed(func(h *Header) { h.V = 2 })}},
		{"compression", ErrVersion, `does not read compression "lz4"`, []string{headed(func(h *Header) {
			h.Compression = "lz4"
		})}},
		{"state", ErrVersion, `does not read state "half"`, []string{headed(func(h *Header) { h.State = "half" })}},
		{"relation", ErrVersion, `does not read relation "toast"`, []string{headed(func(h *Header) {
			h.Parts[0].Relation = "toast"
		})}},
		{"format", ErrVersion, `does not read format "csv"`, []string{headed(func(h *Header) {
			h.Parts[0].Format = "csv"
		})}},
		{"no parts", ErrCorrupt, "the header lists no parts", []string{
			headed(func(h *Header) { h.Parts = nil }), "T{}"}},
		{"no parts, but data", ErrCorrupt, "frame D where the trailer belongs", []string{headed(func(h *Header) {
			h.Parts = nil
		}), "Dx"}},
		{"gone with parts", ErrCorrupt, "1 parts of a chunk that is gone", []string{headed(func(h *Header) {
			h.State = StateGone
		})}},
		{"no columns", ErrCorrupt, "no columns", []string{headed(func(h *Header) { h.Parts[0].Columns = nil })}},
		{"no column name", ErrCorrupt, "column without name", []string{headed(func(h *Header) {
			h.Parts[0].Columns[1].Name = ""
		})}},
		{"no column type", ErrCorrupt, "column without name or type", []string{headed(func(h *Header) {
			h.Parts[0].Columns[1].Type = ""
		})}},
		{"task", ErrCorrupt, "no dimension slices", []string{headed(func(h *Header) { h.Task.Slices = nil })}},
		{"task version", ErrCorrupt, "record version 2", []string{headed(func(h *Header) { h.Task.V = 2 })}},
		{"no JSON", ErrCorrupt, "header", []string{"H{"}},
		{"empty header", ErrVersion, "header version 0", []string{"H{}"}},
	})
}

// TestRefusedFrames: an order of frames that says something is missing or too much, and
// counts that are not those of what came.
func TestRefusedFrames(t *testing.T) {
	plain := headed(func(*Header) {})
	refuses(t, []refusal{
		{"no frame", ErrCorrupt, "'Q'", []string{plain, "Q"}},
		{"data first", ErrCorrupt, "frame D where a segment begins", []string{"Dx"}},
		{"two headers", ErrCorrupt, "frame H inside a part", []string{plain, plain}},
		{"trailer inside", ErrCorrupt, "frame T inside a part", []string{plain, "Dx", seal1}},
		{"end mark inside", ErrCorrupt, "frame Z inside a part", []string{plain, "Dx", `Z{"tasks":1}`}},
		{"data after the part", ErrCorrupt, "frame D where the trailer belongs", []string{plain, "Dx", end1, "Dx"}},
		{"part too many", ErrCorrupt, "frame E where the trailer belongs", []string{plain, "Dx", end1, end1}},
		{"new segment without trailer", ErrCorrupt, "unknown frame type", []string{plain, "Dx", end1, "", plain}},
		{"frame after the trailer", ErrCorrupt, "expected a segment", []string{plain, "Dx", end1, seal1, "Dx12345678"}},
		{"bytes of the part", ErrCorrupt, "2 bytes, but 1 bytes came", []string{plain, "Dx", `E{"rows":1,"bytes":2}`}},
		{"rows of the part", ErrCorrupt, "-1 rows", []string{plain, "Dx", `E{"rows":-1,"bytes":1}`}},
		{"bytes of the task", ErrCorrupt, "but 1 rows, 1 bytes came",
			[]string{plain, "Dx", end1, `T{"rows":1,"bytes":0}`}},
		{"rows of the task", ErrCorrupt, "but 1 rows, 1 bytes came",
			[]string{plain, "Dx", end1, `T{"rows":0,"bytes":1}`}},
		{"trailer no JSON", ErrCorrupt, "trailer", []string{plain, "Dx", end1, "Tx"}},
		{"part end no JSON", ErrCorrupt, "end of part", []string{plain, "Dx", "E[]"}},
		{"abort no JSON", ErrCorrupt, "abort", []string{plain, "Xx"}},
		{"end mark no JSON", ErrCorrupt, "end mark", []string{"Z"}},
		{"tasks of the stream", ErrCorrupt, "counts 2 tasks", []string{plain, "Dx", end1, seal1, "", `Z{"tasks":2}`}},
		{"aborts of the stream", ErrCorrupt, "1 of them aborted",
			[]string{plain, "Dx", end1, seal1, "", `Z{"tasks":1,"aborted":1}`}},
		{"no end", ErrNoEnd, "after 1 whole task", []string{plain, "Dx", end1, seal1}},
		{"no trailer", ErrNoEnd, "in the middle of a task", []string{plain, "Dx", end1}},
	})
}

// TestRefusedData: data that is not packed as the header says, and data that would not
// end.
func TestRefusedData(t *testing.T) {
	plain := headed(func(*Header) {})
	zstd := headed(func(h *Header) { h.Compression = "zstd" })
	s2 := headed(func(h *Header) { h.Compression = "s2" })
	pack := func(comp, s string) string { return "d" + string(compression(t, comp).packer()(nil, []byte(s))) }
	bomb := func(comp string) string { return pack(comp, string(make([]byte, MaxFrame+1))) }
	refuses(t, []refusal{
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
	})
}

// TestRefusedBytes: what is no stream, or more than one.
func TestRefusedBytes(t *testing.T) {
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
		if _, _, err := readAll(NewReader(strings.NewReader(text)), 10); !errors.Is(err, is) ||
			errors.Is(err, io.ErrUnexpectedEOF) != (is == ErrNoEnd) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestReadError: an error of the input is no end, and stays what it is.
func TestReadError(t *testing.T) {
	stream := mixed(t, "none")
	broken := errors.New("connection reset")
	for _, n := range []int{0, 3, 100, 1000, 300_000, len(stream) - 1, len(stream)} {
		in := io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(broken))
		if _, _, err := readAll(NewReader(in), 4096); !errors.Is(err, broken) || errors.Is(err, ErrNoEnd) ||
			!strings.Contains(err.Error(), fmt.Sprintf("at byte %d", n)) {
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
