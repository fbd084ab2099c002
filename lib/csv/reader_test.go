package csv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

// columns are those of most tests: the time is in the middle.
var columns = []Column{{"a", "text"}, {"t", "bigint"}, {"b", "text"}}

func format(t testing.TB, d Dialect) *Format {
	t.Helper()
	f, err := d.Format()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// read reads all records of a file without a header: rows and errors as text. Rows in
// pieces are put together.
func read(t testing.TB, r *Reader, cols []Column) (rows string, bad []string) {
	t.Helper()
	if err := r.Columns(cols, "t"); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for {
		whole := b.Len()
		row, err := r.Next()
		for ; err == nil && row.More; row, err = r.Next() {
			b.Write(row.Text)
		}
		var e *Error
		switch {
		case err == io.EOF:
			return b.String(), bad
		case errors.As(err, &e):
			bad = append(bad, e.Error())
			s := b.String()[:whole]
			b.Reset()
			b.WriteString(s)
			if e.Fatal {
				return b.String(), bad
			}
		case err != nil:
			t.Fatal(err)
		default:
			b.Write(row.Text)
		}
	}
}

func TestReader(t *testing.T) {
	for _, c := range []struct {
		name    string
		dialect Dialect
		file    string
		rows    string
		bad     string
	}{
		{"plain", Dialect{}, "x,1,y\nz,-2,w\n", "x\t1\ty\nz\t-2\tw\n", ""},
		{"no line end at the end", Dialect{}, "x,1,y\nz,2,w", "x\t1\ty\nz\t2\tw\n", ""},
		{"CR LF", Dialect{}, "x,1,y\r\nz,2,w\r\n", "x\t1\ty\nz\t2\tw\n", ""},
		{"byte order mark", Dialect{}, "\ufeffx,1,y\n", "x\t1\ty\n", ""},
		{"NULL and empty", Dialect{}, `,1,""` + "\n", "\\N\t1\t\n", ""},
		{"NULL by name", Dialect{Null: `\N`}, `\N,1,"\N"` + "\n,2,NULL\n", "\\N\t1\t\\\\N\n\t2\tNULL\n", ""},
		{"line end in quotes", Dialect{}, "\"x\ny\r\n\",1,z\nu,2,\"v\n",
			`x\ny\r\n` + "\t1\tz\n", `f:4, column b: a quote is opened and never closed`},
		{"quotes doubled", Dialect{}, `"x""y",1,""""` + "\n", `x"y` + "\t1\t\"\n", ""},
		{"quotes within a field", Dialect{}, `x"y,z"w,1,` + "\n", "xy,zw\t1\t\\N\n", ""},
		{"backslash is data", Dialect{}, `\.,1,C:\n` + "\n\\.\n",
			`\\.` + "\t1\t" + `C:\\n` + "\n", "f:2: 1 fields, and there are 3 columns"},
		{"tab is data", Dialect{}, "x\ty,1,\"\t\"\n", `x\ty` + "\t1\t" + `\t` + "\n", ""},
		{"escape", Dialect{Escape: `\`}, `"x\"y\\z\n",1,\"` + "\n",
			"", `f:1, column b: a quote is opened and never closed`},
		{"escape in quotes only", Dialect{Escape: `\`}, `"x\"y\\z\n",1,\` + "\n", `x"y\\z\\n` + "\t1\t\\\\\n", ""},
		{"delimiter", Dialect{Delimiter: ";", Quote: "'"}, `x,y;1;'it''s;"'` + "\n", "x,y\t1\tit's;\"\n", ""},
		{"tab as delimiter", Dialect{Delimiter: "\t"}, "x\t1\t\"a\tb\"\n", "x\t1\ta\\tb\n", ""},
		{"latin1", Dialect{Encoding: "latin1"}, "Z\xfcrich,1,\xa4\n", "Zürich\t1\t¤\n", ""},
		{"latin9", Dialect{Encoding: "latin9"}, "Z\xfcrich,1,\xa4\n", "Zürich\t1\t€\n", ""},
		{"windows-1252", Dialect{Encoding: "windows-1252"}, "\x80,1,\x93\n\x81,2,\n",
			"€\t1\t“\n", "f:2, column a: byte 0x81 is no character of this encoding"},
		{"latin1 has no euro", Dialect{Encoding: "latin1"}, "Z\xfc\x80,1,\n",
			"", `f:1, column a: byte 0x80 is no character of this encoding: "Zü"`},
		{"not UTF-8", Dialect{}, "x,1,y\nZ\xfcrich,2,\nz,3,Z\xfc\n", "x\t1\ty\n",
			"f:2, column a: byte 0xfc does not belong there: not UTF-8: \"Z\"\n" +
				"f:3, column b: byte 0xfc does not belong there: not UTF-8: \"Z\""},
		{"NUL", Dialect{}, "x\x00,1,y\n", "", `f:1, column a: a NUL byte, which no text in PostgreSQL may have: "x"`},
		{"number of fields", Dialect{}, "x,1\nx,1,y,z\n\nx,2,y\n", "x\t2\ty\n",
			"f:1: 2 fields, and there are 3 columns\nf:2: 4 fields, and there are 3 columns\n" +
				"f:3: 1 fields, and there are 3 columns"},
		{"CR alone", Dialect{}, "x,1,y\rz,2,w\r", "", `f:1, column b: a carriage return alone, outside of quotes: "y"`},
		{"no time", Dialect{}, "x,,y\nx,soon,y\n",
			"", "f:1, column t: no time\nf:2, column t: not an integer: \"soon\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, window := range []int{3, 7, 64, Window} {
				r := newReader(iotest.OneByteReader(strings.NewReader(c.file)), format(t, c.dialect), window)
				r.File = "f"
				rows, bad := read(t, r, columns)
				if rows != c.rows {
					t.Errorf("window %d: rows %q, want %q", window, rows, c.rows)
				}
				if got := strings.Join(bad, "\n"); got != c.bad && window > 7 {
					t.Errorf("window %d: errors\n%s, want\n%s", window, got, c.bad)
				}
				if (len(bad) > 0) != (c.bad != "") {
					t.Errorf("window %d: errors %q, want %q", window, bad, c.bad)
				}
			}
		})
	}
}

// TestHeader: names may be quoted and have line ends; fields may be left out; the
// rows keep the file's order.
func TestHeader(t *testing.T) {
	r := NewReader(strings.NewReader("b,\"a\"\"\n1\",t\nx,y,2024-01-02\n"), format(t, Dialect{}))
	names, err := r.Header()
	if err != nil || fmt.Sprintf("%q", names) != `["b" "a\"\n1" "t"]` {
		t.Fatalf("header %q, %v", names, err)
	}
	if at, line := r.Offset(), r.Line(); at != 12 || line != 3 {
		t.Errorf("the rows begin at %d in line %d", at, line)
	}
	rows, bad := read(t, r, []Column{{}, {"a", "text"}, {"t", "date"}})
	if rows != "y\t2024-01-02\n" || len(bad) > 0 {
		t.Errorf("rows %q, %q", rows, bad)
	}
	if _, err := NewReader(strings.NewReader(""), format(t, Dialect{})).Header(); err != io.EOF {
		t.Errorf("an empty file: %v", err)
	}
	err = r.Columns([]Column{{"a", "text"}}, "t")
	if err == nil || err.Error() != "no column t" {
		t.Errorf("without the time column: %v", err)
	}
}

// TestZoneAndUnit: what the server would read otherwise is written anew, in UTC; other
// columns of that type as well, but not with the unit.
func TestZoneAndUnit(t *testing.T) {
	const tz = "timestamp with time zone"
	r := NewReader(strings.NewReader("1704067200500,2024-07-01 12:00,2024-07-01 12:00\n"),
		format(t, Dialect{Zone: "Europe/Berlin", Unit: "ms"}))
	rows, bad := read(t, r, []Column{{"t", tz}, {"u", tz}, {"v", "text"}})
	if want := "2024-01-01 00:00:00.5+00\t2024-07-01 10:00:00+00\t2024-07-01 12:00\n"; rows != want || len(bad) > 0 {
		t.Errorf("rows %q, want %q, %q", rows, want, bad)
	}
}

func TestDialectRefused(t *testing.T) {
	for _, d := range []Dialect{
		{Delimiter: ";;"}, {Delimiter: "ü"}, {Delimiter: "\n"}, {Quote: ","}, {Escape: "ab"},
		{Null: "a,b"}, {Null: "\""}, {Null: "\n"}, {Null: strings.Repeat("n", 201)},
		{Encoding: "ebcdic"}, {Zone: "Mars/Olympus"}, {Zone: "../x"}, {Zone: "Local"}, {Unit: "h"},
	} {
		if f, err := d.Format(); err == nil {
			t.Errorf("%+v: accepted as %+v", d, f)
		} else {
			t.Log(err)
		}
	}
}

// TestLongRecord: a record of 100 MB passes through in a few.
func TestLongRecord(t *testing.T) {
	const length = 100 << 20
	long := func(c byte) io.Reader { return io.LimitReader(endless(c), length) }
	src := io.MultiReader(strings.NewReader("x,1,\""), long('q'), strings.NewReader("\"\n"), long('u'),
		strings.NewReader(",2,\nz,3,"), long('z'), strings.NewReader("\n"))
	r := NewReader(src, format(t, Dialect{}))
	if err := r.Columns(columns, "t"); err != nil {
		t.Fatal(err)
	}
	total, most := 0, 0
	for n := int64(1); ; n++ {
		row, err := r.Next()
		for ; err == nil && row.More; row, err = r.Next() {
			total += len(row.Text)
			most = max(most, cap(r.out))
		}
		if err == io.EOF {
			break
		}
		if err != nil || row.Time != n || !row.Long {
			t.Fatalf("row %d: %v, time %d, long %t", n, err, row.Time, row.Long)
		}
		total += len(row.Text)
	}
	if want := 3*length + len("x\t1\t\n\t2\t\\N\nz\t3\t\n"); total != want {
		t.Errorf("%d bytes, want %d", total, want)
	}
	if most > 4*Window {
		t.Errorf("%d bytes held", most)
	}
}

type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

func BenchmarkReader(b *testing.B) {
	lines := func(format string) []byte {
		var s bytes.Buffer
		for i := 0; s.Len() < 8<<20; i++ {
			fmt.Fprintf(&s, format, i/36000%24, i/600%60, i/10%60, i%10, i%1000, float64(i%7919)/8, i%100)
		}
		return s.Bytes()
	}
	cols := []Column{{"t", "timestamp with time zone"}, {"device", "integer"}, {"value", "double precision"},
		{"note", "text"}}
	for _, c := range []struct{ name, format string }{
		{"unquoted", "2024-01-02 %02d:%02d:%02d.%d+00,%d,%g,status %d of the device\n"},
		{"quoted", "\"2024-01-02 %02d:%02d:%02d.%d+00\",\"%d\",\"%g\",\"status %d of the device\"\r\n"},
		{"escaped", "2024-01-02 %02d:%02d:%02d.%d+00,%d,%g,\"status \"\"%d\"\"\nC:\\device\\new\"\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			data := lines(c.format)
			b.SetBytes(int64(len(data)))
			f := format(b, Dialect{})
			r := NewReader(strings.NewReader(""), f)
			if err := r.Columns(cols, "t"); err != nil {
				b.Fatal(err)
			}
			rows, before := 0, cpu(b)
			for b.Loop() {
				r.Reset(bytes.NewReader(data), 1, 0)
				for {
					_, err := r.Next()
					if err == io.EOF {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					rows++
				}
			}
			b.ReportMetric(float64(rows)/(cpu(b)-before), "rows/cpu-s")
			b.ReportMetric(float64(b.N)*float64(len(data))/1e6/(cpu(b)-before), "MB/cpu-s")
		})
	}
}

// cpu is the time that this process has had of processors: others use them as well.
func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
