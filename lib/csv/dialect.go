package csv

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // zones do not depend on the machine
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// Dialect says how a file is written. The zero value is PostgreSQL's default: comma,
// double quotes doubled, an empty field without quotes is NULL, UTF-8, times in UTC.
type Dialect struct {
	Delimiter string `json:"delimiter,omitempty"` // one byte
	Quote     string `json:"quote,omitempty"`     // one byte
	Escape    string `json:"escape,omitempty"`    // one byte; the quote if empty
	Null      string `json:"null,omitempty"`
	Encoding  string `json:"encoding,omitempty"` // one of Encodings
	// Zone is the time zone of values of type timestamptz that say none.
	Zone string `json:"zone,omitempty"`
	// Unit is set where times are numbers since 1970: s, ms, us or ns.
	Unit string `json:"time_unit,omitempty"`
}

// Format is a Dialect that was found good, ready to read with.
type Format struct {
	delimiter, quote, escape byte

	null      []byte         // what stands for NULL, as COPY text would write it
	plainNull string         // the same as the file has it
	charset   *[128][]byte   // UTF-8 of the bytes from 0x80 on, nil where undefined; nil for UTF-8
	zone      *time.Location // nil for UTC
	unit      string

	// Bytes that need a closer look, outside of quotes and inside.
	bare, within [256]bool
}

// charsets are the encodings beside UTF-8. All are of single bytes, and the lower
// half is ASCII: the structure of a file is found without decoding it.
var charsets = map[string]*charmap.Charmap{
	"latin1":       charmap.ISO8859_1,
	"latin2":       charmap.ISO8859_2,
	"latin9":       charmap.ISO8859_15,
	"windows-1250": charmap.Windows1250,
	"windows-1251": charmap.Windows1251,
	"windows-1252": charmap.Windows1252,
	"koi8-r":       charmap.KOI8R,
}

// Encodings names the encodings, for messages.
const Encodings = "utf8, latin1, latin2, latin9, windows-1250, windows-1251, windows-1252, koi8-r"

// maxNull is the longest string that may stand for NULL.
const maxNull = 200

// Format checks the dialect by COPY's rules.
func (d Dialect) Format() (*Format, error) {
	f := &Format{unit: d.Unit}
	for _, c := range []struct {
		what, text string
		to         *byte
		otherwise  byte
	}{
		{"delimiter", d.Delimiter, &f.delimiter, ','},
		{"quote", d.Quote, &f.quote, '"'},
		{"escape", d.Escape, &f.escape, 0},
	} {
		switch {
		case c.text == "":
			*c.to = c.otherwise
		case c.text == `\t`:
			*c.to = '\t'
		case len(c.text) > 1 || c.text[0] >= utf8.RuneSelf || strings.ContainsAny(c.text, "\x00\r\n"):
			return nil, fmt.Errorf("%s %q: must be one ASCII character, and no line end", c.what, c.text)
		default:
			*c.to = c.text[0]
		}
	}
	if f.escape == 0 {
		f.escape = f.quote
	}
	if f.delimiter == f.quote {
		return nil, errors.New("delimiter and quote must differ")
	}
	if strings.ContainsAny(d.Null, "\r\n\x00"+string(f.delimiter)+string(f.quote)) ||
		!utf8.ValidString(d.Null) || len(d.Null) > maxNull {
		return nil, fmt.Errorf("null %.20q: up to %d bytes of UTF-8 without delimiter, quote and line ends",
			d.Null, maxNull)
	}
	f.plainNull = d.Null
	for _, c := range []byte(d.Null) {
		f.null = escaped(f.null, c)
	}
	if err := f.setEncoding(d.Encoding); err != nil {
		return nil, err
	}
	if err := f.setZone(d.Zone); err != nil {
		return nil, err
	}
	if _, known := units[d.Unit]; !known && d.Unit != "" {
		return nil, fmt.Errorf("time unit %q: s, ms, us or ns", d.Unit)
	}
	f.classify()
	return f, nil
}

func (f *Format) setEncoding(name string) error {
	switch name = strings.ToLower(name); name {
	case "", "utf8", "utf-8":
		return nil
	}
	m := charsets[name]
	if m == nil {
		return fmt.Errorf("encoding %q: one of %s", name, Encodings)
	}
	f.charset = new([128][]byte)
	for b := range f.charset {
		// ISO 8859 has control characters from 0x80 to 0x9f. In a file they are the
		// quotation marks and the euro sign of windows-1252 under a wrong name.
		if r := m.DecodeByte(byte(0x80 + b)); r != utf8.RuneError && r >= 0xa0 {
			f.charset[b] = utf8.AppendRune(nil, r)
		}
	}
	return nil
}

func (f *Format) setZone(name string) error {
	if name == "" || strings.EqualFold(name, "UTC") {
		return nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return fmt.Errorf("zone %q: not the name of a time zone, like Europe/Berlin", name)
	}
	f.zone = zone
	return nil
}

// classify marks the bytes at which the Reader stops.
func (f *Format) classify() {
	for _, c := range []byte{'\\', '\t', '\n', '\r', 0, f.quote} {
		f.bare[c], f.within[c] = true, true
	}
	f.bare[f.delimiter], f.within[f.escape] = true, true
	if f.charset != nil {
		for c := utf8.RuneSelf; c < 256; c++ {
			f.bare[c], f.within[c] = true, true
		}
	}
}

// plain is the value of the field that begins at i, if its bytes stand for themselves, and where
// it ends. The line has a line end.
func (f *Format) plain(line []byte, i int) (v []byte, end int, ok bool) {
	from := i
	if line[i] != f.quote {
		for !f.bare[line[i]] {
			i++
		}
		return line[from:i], i, true
	}
	for i++; !f.within[line[i]]; i++ {
	}
	return line[from+1 : i], i + 1, line[i] == f.quote
}

// escaped appends a byte of a value to COPY text.
func escaped(dst []byte, c byte) []byte {
	switch c {
	case '\\':
		return append(dst, '\\', '\\')
	case '\t':
		return append(dst, '\\', 't')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	}
	return append(dst, c)
}
