package csv

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// mapped maps a file of the test columns with slices of so many units of time.
func mapped(t testing.TB, f *File, width int64, bad func(*Error, []byte) error) (blocks []Block, outside int64) {
	t.Helper()
	r := NewReader(f, format(t, Dialect{}))
	r.File = "f"
	if err := r.Columns(columns, "t"); err != nil {
		t.Fatal(err)
	}
	m := Mapper{
		Slice: func(time int64) (from, until int64, ok bool) {
			from = time / width * width
			return from, from + width, time >= 0
		},
		Bad:   bad,
		Block: func(b Block) error { blocks = append(blocks, b); return nil },
	}
	if m.Bad == nil {
		m.Bad = func(e *Error, raw []byte) error { return e }
	}
	if err := m.Read(r); err != nil {
		t.Fatal(err)
	}
	return blocks, m.Outside
}

// rowsOf reads blocks again, as rows of COPY text.
func rowsOf(t testing.TB, f *File, blocks []Block) (rows string, lines []int64) {
	t.Helper()
	r := NewReader(strings.NewReader(""), format(t, Dialect{}))
	if err := r.Columns(columns, "t"); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, b := range blocks {
		src, err := f.Block(b)
		if err != nil {
			t.Fatal(err)
		}
		r.Reset(src, b.Line, b.Offset)
		for {
			row, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			all.Write(row.Text)
			if !row.More {
				lines = append(lines, row.Line)
			}
		}
	}
	return all.String(), lines
}

func gzipped(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zstded(t testing.TB, s string) string {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(z.EncodeAll([]byte(s), nil))
}

func file(t testing.TB, data string) *File {
	t.Helper()
	f, err := NewFile(strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// TestBlocks: the blocks of a file hold its rows, each with the line in which it
// begins, whatever compresses it; a line end in quotes may be anywhere; a long record
// has a block of its own.
func TestBlocks(t *testing.T) {
	var s, want strings.Builder
	var lines []int64
	line := int64(1)
	for i := 0; s.Len() < 11<<20; i++ {
		pad := strings.Repeat("p", i%977)
		long := i == 2000
		if long {
			pad = strings.Repeat("l", 3*Window)
		}
		fmt.Fprintf(&s, "\"a\n%d\",%d,%s\n", i, i, pad)
		if pad == "" {
			pad = `\N`
		}
		fmt.Fprintf(&want, "a\\n%d\t%d\t%s\n", i, i, pad)
		lines = append(lines, line)
		line += 2
	}
	half := s.Len() / 2
	for name, data := range map[string]string{
		"plain":             s.String(),
		"gzip":              gzipped(t, s.String()),
		"gzip, two members": gzipped(t, s.String()[:half]) + gzipped(t, s.String()[half:]),
		"zstd":              zstded(t, s.String()),
		"zstd, three frames": zstded(t, s.String()[:9]) + "\x5a\x2a\x4d\x18\x03\x00\x00\x00abc" +
			zstded(t, s.String()[9:]),
	} {
		t.Run(name, func(t *testing.T) {
			blocks, outside := mapped(t, file(t, data), 1000, nil)
			rows, got := rowsOf(t, file(t, data), blocks)
			if rows != want.String() {
				t.Errorf("rows differ: %d bytes, want %d", len(rows), want.Len())
			}
			if fmt.Sprint(got) != fmt.Sprint(lines) {
				t.Error("lines differ")
			}
			at, sum := int64(0), int64(0)
			for _, b := range blocks {
				if b.Offset != at {
					t.Errorf("a block begins at %d, the one before ends at %d", b.Offset, at)
				}
				if at += b.Length; b.Length > BlockSize {
					t.Errorf("a block of %d bytes", b.Length)
				}
				for _, s := range b.Rows {
					sum += s.Rows
				}
			}
			if sum != int64(len(lines)) || outside != 0 || len(blocks) < 4 {
				t.Errorf("%d rows in %d blocks, want %d; %d outside", sum, len(blocks), len(lines), outside)
			}
		})
	}
}

// TestBlockChanged: no byte of a changed block is handed out.
func TestBlockChanged(t *testing.T) {
	data := strings.Repeat("x,1,y\n", 1000)
	blocks, _ := mapped(t, file(t, data), 10, nil)
	for name, changed := range map[string]string{
		"a byte":         data[:3000] + "z" + data[3001:],
		"truncated":      data[:len(data)-1],
		"empty":          "",
		"in front":       "\n" + data,
		"gzip":           gzipped(t, data[:3000]+"z"+data[3001:]),
		"gzip, shorter":  gzipped(t, data[:3000]),
		"zstd, shorter":  zstded(t, data[:3000]),
		"gzip truncated": gzipped(t, data)[:40],
	} {
		f := file(t, changed)
		r, err := f.Block(blocks[0])
		if err == nil || r != nil {
			t.Errorf("%s: accepted", name)
		} else if !errors.Is(err, ErrChanged) && name != "gzip truncated" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if rows, _ := rowsOf(t, file(t, data+"x,1,y\n"), blocks); len(rows) != len(data) {
		t.Errorf("what was appended changes the blocks before: %d bytes", len(rows))
	}
}

// TestLeftOut: bad records can be left out: their bytes are handed over, and the blocks
// are cut around them.
func TestLeftOut(t *testing.T) {
	data := "x,1,y\nx,oops,y\nx,2,y\nx,3\nx,-7,y\n\"a\n\xff\",4,\nx,5,y\n"
	var raw []string
	blocks, outside := mapped(t, file(t, data), 10, func(e *Error, b []byte) error {
		raw = append(raw, fmt.Sprintf("%v|%s", e, b))
		return nil
	})
	if len(raw) != 3 || outside != 1 || raw[0] != "f:2, column t: not an integer: \"oops\"|x,oops,y\n" {
		t.Errorf("%q, %d outside", raw, outside)
	}
	rows, lines := rowsOf(t, file(t, data), blocks)
	if want := "x\t1\ty\nx\t2\ty\nx\t5\ty\n"; rows != want || fmt.Sprint(lines) != "[1 3 8]" {
		t.Errorf("rows %q, want %q; lines %v; blocks %v", rows, want, lines, blocks)
	}
}

// TestFatal: what follows an open quote cannot be left out.
func TestFatal(t *testing.T) {
	r := NewReader(strings.NewReader("x,1,y\nx,2,\"y\nx,3,y\n"), format(t, Dialect{}))
	if err := r.Columns(columns, "t"); err != nil {
		t.Fatal(err)
	}
	m := Mapper{
		Slice: func(int64) (int64, int64, bool) { return 0, 10, true },
		Bad:   func(*Error, []byte) error { return nil },
		Block: func(Block) error { return nil },
	}
	var e *Error
	if err := m.Read(r); !errors.As(err, &e) || !e.Fatal || e.Line != 2 {
		t.Errorf("got %v", err)
	}
}

// TestForeign: what is no CSV is told by its first bytes, and a truncated file by its end.
func TestForeign(t *testing.T) {
	for _, head := range []string{"PK\x03\x04", "PAR1\x15", "\xff\xfea\x00", "\xfe\xff\x00a", "\xfd7zXZ\x00",
		"BZh91AY&SYxxxx", "\x04\x22\x4d\x18", "PGCOPY\n\xff\r\n"} {
		if _, err := NewFile(strings.NewReader(head)); err == nil {
			t.Errorf("%q: accepted", head)
		}
	}
	for _, head := range []string{"", "a", "PAR1,b\n", "BZh9,time,value,and,so\n"} {
		if f, err := NewFile(strings.NewReader(head)); err != nil || f.Codec() != Plain {
			t.Errorf("%q: %v", head, err)
		}
	}
	long := strings.Repeat("x,1,y\n", 10000)
	for _, z := range []string{gzipped(t, long), zstded(t, long)} {
		for _, n := range []int{len(z) - 1, len(z) - 5, len(z) / 2, 12} {
			f, err := NewFile(strings.NewReader(z[:n]))
			if err == nil {
				_, err = io.Copy(io.Discard, f)
			}
			if err == nil || !strings.Contains(err.Error(), "truncated") {
				t.Errorf("%d of %d bytes: %v", n, len(z), err)
			}
		}
	}
	f := file(t, gzipped(t, long)+"trailing garbage")
	if _, err := io.Copy(io.Discard, f); err == nil {
		t.Error("garbage after gzip: accepted")
	}
}
