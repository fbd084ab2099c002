package csv

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf8"
)

// Window is the longest record, in bytes of the file, that a Reader holds. Row.More
// says what becomes of longer ones.
const Window = 1 << 20

// Column is what the fields of one position are.
type Column struct {
	Name string `json:"name,omitempty"` // of the table; empty to leave the field out
	Type string `json:"type,omitempty"` // as format_type() spells it
}

// Row is a record as a row of COPY text.
type Row struct {
	// Text is the row with its line end.
	Text []byte
	// More is set if Text is only a piece, and the row goes on in the next one. Only
	// the last piece has what stands below. Records up to Window are in one piece.
	More bool
	// Time is the internal value of the time column.
	Time int64
	// Line is that in which the record begins, from 1. Offset and Length are the
	// record's place in the file, its line end included.
	Line, Offset, Length int64
	// Cut is set if the file ends without the record's line end.
	Cut bool
	// Long is set for a record that is longer than Window. Sum is its CRC-32C.
	Long bool
	Sum  uint32
}

// Reader turns the records of a file into rows.
type Reader struct {
	// File stands in errors.
	File string

	f      *Format
	fields []field // nil: any number, as they are

	row    Row
	window      // with the record in hand
	quoted bool // within quotes
	saw    bool // the field has quotes: it is not NULL
	mute   bool // the record is bad, or has too many fields: only its end is wanted
	n      int  // field
	bad    *Error
	time   int64
	line   int64 // in which it begins
	lines  int64 // line ends in it
	where  int64 // its place in the file
	cut    bool  // it has no line end

	out     []byte // the row as far as it is not handed out
	sent    int    // handed out by the last call
	fieldAt int    // of the field in hand in out; -1 when its beginning was handed out
}

type field struct {
	Column
	clock *Clock
	key   bool // the time column
}

var nullText = []byte(`\N`)

// NewReader reads a file from its beginning. A byte order mark is dropped.
func NewReader(src io.Reader, f *Format) *Reader { return newReader(src, f, Window) }

func newReader(src io.Reader, f *Format, size int) *Reader {
	r := &Reader{f: f}
	r.buf = make([]byte, size)
	r.Start("", src)
	return r
}

// Start goes on with another file, from its beginning, whose columns are not known yet. A Reader
// for each of thousands of files would leave as many windows to the garbage collector.
func (r *Reader) Start(file string, src io.Reader) {
	r.File, r.fields = file, nil
	r.Reset(src, 1, 0)
	if r.avail(3) && string(r.buf[:3]) == "\xef\xbb\xbf" {
		r.pos, r.start = 3, 3
	}
}

// Reset goes on reading at another place: src begins with the record at that line
// and offset of the file.
func (r *Reader) Reset(src io.Reader, line, offset int64) {
	r.src, r.line, r.base, r.err = src, line, offset, nil
	r.start, r.pos, r.end = 0, 0, 0
	r.open, r.sum, r.sumAt, r.lines = false, 0, 0, 0
	r.out, r.sent = r.out[:0], 0
}

// Columns says what the fields of a record are, from the next one on. key names the
// column that tells the time of a row; it must be among them.
func (r *Reader) Columns(columns []Column, key string) error {
	r.fields = make([]field, len(columns))
	found := false
	for i, c := range columns {
		fd := field{Column: c, key: c.Name == key && c.Name != ""}
		zoned := r.f.zone != nil && withoutModifier(c.Type) == "timestamp with time zone"
		if fd.key || zoned && c.Name != "" {
			var err error
			if fd.clock, err = r.f.Clock(c.Type); err != nil {
				return fmt.Errorf("column %s: %w", c.Name, err)
			}
		}
		if !fd.key && fd.clock != nil {
			fd.clock.unit = "" // it is the time column's alone
		}
		found = found || fd.key
		r.fields[i] = fd
	}
	if !found {
		return fmt.Errorf("no column %s", key)
	}
	return nil
}

// Header reads the next record as the names of the columns; io.EOF if there is none.
func (r *Reader) Header() ([]string, error) {
	r.fields = nil
	row, err := r.Next()
	switch {
	case err != nil:
		return nil, err
	case row.More:
		return nil, &Error{File: r.File, Line: r.line, Fatal: true,
			Reason: fmt.Sprintf("a header of more than %d bytes", Window)}
	}
	var names []string
	for _, name := range bytes.Split(row.Text[:len(row.Text)-1], []byte{'\t'}) {
		names = append(names, unescape(name))
	}
	return names, nil
}

// Match says what the fields of a file are whose header has these names: of the
// columns, which may come in any order and need not all be there.
func Match(file string, names []string, columns []Column) (fields []Column, err error) {
	for i, name := range names {
		at := slices.IndexFunc(columns, func(c Column) bool { return c.Name == name })
		switch {
		case at < 0:
			return nil, &Error{File: file, Line: 1, Column: fmt.Sprint(i + 1), Value: name,
				Reason: "the table has no column of this name"}
		case slices.Contains(names[:i], name):
			return nil, &Error{File: file, Line: 1, Column: fmt.Sprint(i + 1), Value: name,
				Reason: "a second column of this name"}
		}
		fields = append(fields, columns[at])
	}
	return fields, nil
}

// TimeText is the text of an internal value of the time column, for people.
func (r *Reader) TimeText(t int64) string {
	for _, fd := range r.fields {
		if fd.key {
			return string(fd.clock.Append(nil, t))
		}
	}
	return fmt.Sprint(t)
}

// Next returns the next row, or a piece of it, and io.EOF after the last. After an
// *Error that is not Fatal the next record can be read; the Row says where the bad one stands.
// It is valid until the next call.
func (r *Reader) Next() (*Row, error) {
	r.row = Row{}
	return &r.row, r.next()
}

func (r *Reader) next() error {
	if !r.open {
		if !r.avail(1) {
			r.start = r.pos
			return r.err
		}
		r.begin()
	} else {
		// What was held back of the last piece.
		r.out = r.out[:copy(r.out, r.out[r.sent:])]
		r.fieldAt = max(r.fieldAt-r.sent, -1)
	}
	whole, err := r.scan()
	if err != nil {
		return err
	}
	if !whole {
		r.piece()
		return nil
	}
	return r.finish()
}

// Line is the line in which the next record begins.
func (r *Reader) Line() int64 { return r.line + r.lines }

func (r *Reader) begin() {
	r.line, r.lines = r.line+r.lines, 0
	r.start, r.where = r.pos, r.Offset()
	r.open, r.long, r.quoted, r.saw, r.mute = true, false, false, false, false
	r.n, r.bad, r.time, r.cut = 0, nil, 0, false
	r.out, r.sent, r.fieldAt = r.out[:0], 0, 0
}

// scan reads on to the end of the record, which makes it whole, or until there is
// a piece of it.
func (r *Reader) scan() (whole bool, err error) {
	if r.plain() {
		return true, nil
	}
	for {
		stop := &r.f.bare
		if r.quoted {
			stop = &r.f.within
		}
		i, buf := r.pos, r.buf[:r.end]
		for i < len(buf) && !stop[buf[i]] {
			i++
		}
		if i > r.pos && !r.mute {
			r.out = append(r.out, buf[r.pos:i]...)
		}
		if r.pos = i; i == len(buf) {
			if r.avail(1) {
				if r.long && len(r.out) >= len(r.buf) {
					return false, nil
				}
				continue
			}
			return true, r.endOfFile()
		}
		if r.quoted {
			r.inQuotes(buf[i])
		} else if r.outside(buf[i]) {
			return true, nil
		}
	}
}

// plain reads fields whose bytes stand for themselves, as most do, in quotes or not, from
// the beginning of a record that is in the window. It does what scan does, in a third of
// the time, and says whether that was the whole record; else scan goes on at the next
// field.
func (r *Reader) plain() (whole bool) {
	line := r.buf[r.pos:r.end]
	end := bytes.IndexByte(line, '\n')
	if end < 0 || r.pos != r.start || r.long {
		return false
	}
	line = line[:end+1]
	out := slices.Grow(r.out[:0], 3*len(line)) // an empty field becomes three bytes
	from, n := 0, 0
	for ; n < len(r.fields); n++ {
		v, i, ok := r.f.plain(line, from)
		if !ok {
			break
		}
		next := i + 1
		if n < len(r.fields)-1 {
			if line[i] != r.f.delimiter {
				break
			}
		} else if line[i] == '\r' && line[i+1] == '\n' {
			next++
		} else if line[i] != '\n' {
			break
		}
		fd := &r.fields[n]
		if fd.clock != nil {
			t, ok := fd.plainTime(v, r.f.plainNull)
			if !ok {
				break
			}
			if fd.key {
				r.time = t
			}
		}
		if fd.Name != "" {
			if i == from+len(v) && string(v) == r.f.plainNull { // in quotes it is a value
				v = nullText
			}
			out = append(append(out, v...), '\t')
		}
		from = next
	}
	r.out, r.fieldAt, r.n, r.pos = out, len(out), n, r.pos+from
	if whole = from == len(line); whole {
		r.lines++
	}
	return whole
}

// plainTime reads a time whose text can stay as it is. The others are left to scan.
func (fd *field) plainTime(v []byte, null string) (t int64, ok bool) {
	at, err := fd.clock.Parse(v)
	return at.Internal, err == nil && at.AsIs && string(v) != null
}

// endOfFile ends the last record, which has no line end.
func (r *Reader) endOfFile() error {
	if r.err != io.EOF {
		return r.err
	}
	if r.quoted {
		r.open = false
		r.err = &Error{File: r.File, Line: r.line, Column: column(r.fields, r.n), Fatal: true,
			Reason: "a quote is opened and never closed"}
		return r.err
	}
	r.endField()
	r.cut = true
	return nil
}

// outside reads a byte outside of quotes and says whether it ends the record.
func (r *Reader) outside(c byte) bool {
	switch {
	case c == r.f.delimiter:
		r.endField()
	case c == '\n':
		r.lines++
		r.pos++
		r.endField()
		return true
	case c == '\r':
		if r.avail(2) && r.buf[r.pos+1] == '\n' {
			r.pos++
			return r.outside('\n')
		}
		r.fail("a carriage return alone, outside of quotes")
	case c == r.f.quote:
		r.quoted, r.saw = true, true
	default:
		r.value(c)
	}
	r.pos++
	return false
}

// inQuotes reads a byte within quotes.
func (r *Reader) inQuotes(c byte) {
	if c == r.f.escape && r.avail(2) {
		if next := r.buf[r.pos+1]; next == r.f.escape || next == r.f.quote {
			r.pos += 2
			r.value(next)
			return
		}
	}
	if r.pos++; c == r.f.quote {
		r.quoted = false
		return
	}
	if c == '\n' {
		r.lines++
	}
	r.value(c)
}

// value adds a byte to the field.
func (r *Reader) value(c byte) {
	switch {
	case c == 0:
		r.fail("a NUL byte, which no text in PostgreSQL may have")
	case r.mute:
	case c >= utf8.RuneSelf && r.f.charset != nil:
		u := r.f.charset[c-utf8.RuneSelf]
		if u == nil {
			r.fail(fmt.Sprintf("byte 0x%02x is no character of this encoding", c))
			return
		}
		r.out = append(r.out, u...)
	default:
		r.out = escaped(r.out, c)
	}
}

// endField ends a field: NULL, the time, or a value as it is.
func (r *Reader) endField() {
	switch {
	case r.mute:
	case r.fields == nil:
		r.out = append(r.out, '\t')
	case r.n >= len(r.fields):
		r.mute = true // finish says so
	default:
		r.endValue(&r.fields[r.n])
	}
	r.n++
	r.saw, r.fieldAt = false, len(r.out)
}

func (r *Reader) endValue(fd *field) {
	at := max(r.fieldAt, 0)
	v := r.out[at:]
	null := r.fieldAt >= 0 && !r.saw && bytes.Equal(v, r.f.null)
	switch {
	case fd.Name == "":
		r.out = r.out[:at]
		return
	case null && fd.key:
		r.fail("no time")
		return
	case null:
		r.out = append(r.out[:at], nullText...)
	case fd.clock != nil:
		t, err := fd.clock.Parse(v)
		if r.fieldAt < 0 {
			err = errNoTime
		}
		if err != nil {
			r.fail(err.Error())
			return
		}
		if fd.key {
			r.time = t.Internal
		}
		if !t.AsIs {
			r.out = fd.clock.Append(r.out[:at], t.Internal)
		}
	}
	r.out = append(r.out, '\t')
}

// fail notes the first thing that is wrong with the record.
func (r *Reader) fail(reason string) {
	if r.bad != nil {
		return
	}
	r.bad = &Error{File: r.File, Line: r.line, Column: column(r.fields, r.n), Reason: reason}
	if !r.mute && r.fieldAt >= 0 {
		r.bad.Value = shown(r.out[r.fieldAt:])
	}
	r.mute = true
}

// column is the name of a field in errors: that of its column, else its number.
func column(fields []field, n int) string {
	if n < len(fields) && fields[n].Name != "" {
		return fields[n].Name
	}
	return fmt.Sprint(n + 1)
}

// piece hands out what there is of a long record, but for a field that may still turn
// out to be NULL or a time, and a character of which bytes are missing.
func (r *Reader) piece() {
	const short = 4096
	switch {
	case r.n < len(r.fields) && r.fields[r.n].Name == "":
		r.out = r.out[:max(r.fieldAt, 0)] // its end is not wanted either
		r.sent = max(len(r.out)-1, 0)     // the tab becomes the line end if no field follows
	case r.fieldAt >= 0 && len(r.out)-r.fieldAt < short:
		r.sent = r.fieldAt
	default:
		r.sent = whole(r.out)
		r.fieldAt = -1
	}
	checkText(r, r.out[:r.sent])
	if r.bad != nil {
		r.out, r.sent, r.fieldAt = r.out[:0], 0, -1
	}
	r.row.Text, r.row.More = r.out[:r.sent], true
}

// finish hands out a row that is whole.
func (r *Reader) finish() error {
	r.open = false
	row := &r.row
	row.Time, row.Line, row.Cut, row.Long = r.time, r.line, r.cut, r.long
	row.Offset, row.Length = r.where, r.Offset()-r.where
	if r.long {
		row.Sum = crc32.Update(r.own, castagnoli, r.buf[r.sumAt:r.pos])
		r.start, r.sumAt = r.pos, r.pos
	}
	if r.bad == nil && r.fields != nil && r.n != len(r.fields) {
		r.bad = &Error{File: r.File, Line: r.line,
			Reason: fmt.Sprintf("%d fields, and there are %d columns", r.n, len(r.fields))}
	}
	if r.bad == nil {
		checkText(r, r.out)
	}
	if r.bad != nil {
		return r.bad
	}
	r.out[len(r.out)-1] = '\n' // in the place of the last tab
	row.Text = r.out
	return nil
}

// checkText refuses what is not UTF-8.
func checkText(r *Reader, text []byte) {
	if r.bad != nil || r.f.charset != nil || utf8.Valid(text) {
		return
	}
	at := 0
	for at < len(text) {
		c, size := utf8.DecodeRune(text[at:])
		if c == utf8.RuneError && size == 1 {
			break
		}
		at += size
	}
	r.bad = &Error{File: r.File, Line: r.line,
		Reason: fmt.Sprintf("byte 0x%02x does not belong there: not UTF-8", text[at])}
	if !r.long {
		n := bytes.Count(text[:at], []byte{'\t'})
		for i, fd := range r.fields {
			if fd.Name == "" {
				continue
			}
			if n--; n < 0 {
				r.bad.Column = column(r.fields, i)
				break
			}
		}
		begin := bytes.LastIndexByte(text[:at], '\t') + 1
		r.bad.Value = shown(text[begin:at])
	}
	r.mute = true
}
