package csv

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// FuzzReader: whatever the bytes and the dialect, the reader finds the records and
// values that COPY's own algorithm finds (reference, below), in windows of any size; and
// reading block by block gives the same rows. lib/e2e compares with a server.
func FuzzReader(f *testing.F) {
	for _, s := range []string{
		"x,1,y\n", "\"x\ny\",1,\"\"\r\n,2,\n", "a\"b,c\"d,1,\"\"\"\"\n", "\\.,1,\\N\n", "\ufeffä,1,ß\r",
		"x,1,\"y", "x;1;'it''s'\n",
	} {
		for mode := range byte(16) {
			f.Add([]byte(s), mode, 5)
		}
	}
	cols := []Column{{"a", "text"}, {"t", "bigint"}, {"b", "text"}}
	f.Fuzz(func(t *testing.T, data []byte, mode byte, window int) {
		d := Dialect{}
		if mode&1 != 0 {
			d.Delimiter, d.Quote = ";", "'"
		}
		if mode&2 != 0 {
			d.Escape = `\`
		}
		if mode&4 != 0 {
			d.Null = `\N`
		}
		cols := slices.Clone(cols)
		if mode&8 != 0 {
			cols[window&2] = Column{} // the first or the last
		}
		fm := format(t, d)
		wide, badWide := read(t, NewReader(bytes.NewReader(data), fm), cols)
		if window = 3 + window&0xff; window > 3 {
			narrow, badNarrow := read(t, newReader(bytes.NewReader(data), fm, window), cols)
			if narrow != wide || len(badNarrow) != len(badWide) {
				t.Errorf("window %d: %q %q\nwithout: %q %q", window, narrow, badNarrow, wide, badWide)
			}
		}
		want, ok := reference(bytes.TrimPrefix(data, []byte("\ufeff")), d)
		if ok && mode&8 == 0 && len(badWide) == 0 && wide != want {
			t.Errorf("rows %q, want %q", wide, want)
		}
		if mode == 0 {
			again(t, data, wide)
		}
	})
}

// again maps the file, leaving out what is bad, and reads the blocks.
func again(t *testing.T, data []byte, want string) {
	src, err := NewFile(bytes.NewReader(data))
	if err != nil {
		return
	}
	r := NewReader(src, format(t, Dialect{}))
	if err := r.Columns(columns, "t"); err != nil {
		t.Fatal(err)
	}
	var blocks []Block
	m := Mapper{
		Slice: func(int64) (int64, int64, bool) { return MinusInfinity, Infinity, true },
		Bad:   func(*Error, []byte) error { return nil },
		Block: func(b Block) error { blocks = append(blocks, b); return nil },
	}
	var fatal *Error
	if err := m.Read(r); err != nil && !errors.As(err, &fatal) {
		return // compressed, and broken
	}
	if src.Codec() != Plain {
		return
	}
	if rows, _ := rowsOf(t, src, blocks); rows != want {
		t.Errorf("by blocks %q, want %q; %+v", rows, want, blocks)
	}
}

// reference is COPY's reading of CSV, after CopyReadLineText and CopyReadAttributesCSV, to
// COPY text; false where COPY refuses it or where line ends are mixed.
func reference(data []byte, d Dialect) (string, bool) {
	delim, quote, escape := byte(','), byte('"'), byte('"')
	if d.Delimiter != "" {
		delim = d.Delimiter[0]
	}
	if d.Quote != "" {
		quote, escape = d.Quote[0], d.Quote[0]
	}
	if d.Escape != "" {
		escape = d.Escape[0]
	}
	var all strings.Builder
	for len(data) > 0 {
		inQuote, lastEsc, end := false, false, len(data)
		for i, c := range data {
			if inQuote && c == escape && escape != quote {
				lastEsc = !lastEsc
			}
			if c == quote && !lastEsc {
				inQuote = !inQuote
			}
			if c != escape || escape == quote {
				lastEsc = false
			}
			if c == '\n' && !inQuote {
				end = i
				break
			}
		}
		if inQuote {
			return "", false
		}
		line := bytes.TrimSuffix(data[:end], []byte("\r"))
		data = data[min(end+1, len(data)):]
		row, ok := referenceLine(line, [3]byte{delim, quote, escape}, d.Null)
		if !ok {
			return "", false
		}
		all.WriteString(row)
	}
	return all.String(), true
}

func referenceLine(line []byte, c [3]byte, null string) (string, bool) {
	delim, quote, escape := c[0], c[1], c[2]
	var out []string
	for {
		var v []byte
		saw, start := false, line
		more := false
		for len(line) > 0 {
			c := line[0]
			line = line[1:]
			if c == delim {
				more = true
				break
			}
			if c != quote {
				v = append(v, c)
				continue
			}
			saw = true
			closed := false
			for len(line) > 0 && !closed {
				c := line[0]
				line = line[1:]
				switch {
				case c == escape && len(line) > 0 && (line[0] == escape || line[0] == quote):
					v = append(v, line[0])
					line = line[1:]
				case c == quote:
					closed = true
				default:
					v = append(v, c)
				}
			}
			if !closed {
				return "", false
			}
		}
		raw := start[:len(start)-len(line)]
		if more {
			raw = raw[:len(raw)-1]
		}
		if !saw && string(raw) == null {
			out = append(out, `\N`)
		} else {
			var s []byte
			for _, c := range v {
				s = escaped(s, c)
			}
			out = append(out, string(s))
		}
		if !more {
			return strings.Join(out, "\t") + "\n", true
		}
	}
}

// FuzzClock: no value makes it panic, and what is written is read as the same.
func FuzzClock(f *testing.F) {
	for _, s := range []string{"2024-01-02 03:04:05.678901+01:00", "2024-01-02", "-1.5", "1704067200123",
		"infinity", "24:00"} {
		f.Add([]byte(s), byte(0))
	}
	types := []string{tz, "timestamp without time zone", "date", "bigint", "uuid"}
	f.Fuzz(func(t *testing.T, v []byte, mode byte) {
		d := Dialect{Zone: []string{"", "Europe/Berlin"}[mode&1], Unit: []string{"", "s", "ms", "ns"}[mode>>1&3]}
		clock, err := format(t, d).Clock(types[int(mode>>3)%len(types)])
		if err != nil {
			return
		}
		got, err := clock.Parse(v)
		if err != nil || got.Internal > lastTime || got.Internal < firstTime {
			return
		}
		plain, err := format(t, Dialect{}).Clock(types[int(mode>>3)%len(types)])
		if err != nil {
			t.Fatal(err)
		}
		back, err := plain.Parse(plain.Append(nil, got.Internal))
		if err != nil && plain.kind == uuid7 && got.Internal < 0 {
			return
		}
		if err != nil || back.Internal != got.Internal {
			t.Errorf("%q is %d; %q is %d, %v", v, got.Internal, plain.Append(nil, got.Internal), back.Internal, err)
		}
	})
}
