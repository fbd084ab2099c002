// Package csv reads CSV files for a backfill: records become rows of COPY text,
// and each row says its time, its line and its place in the file. It knows nothing
// of databases, tasks and streams.
//
//	Dialect, Format   how a file is written: delimiter, quotes, NULL, encoding, zone
//	Reader            records in, rows of COPY text out; columns by name
//	Clock             the time of a row, from a closed list of forms
//	Mapper, Block     which part of a file holds rows of which slice
//	File              a file, compressed or not, read by blocks that prove themselves
//	Error             what is wrong, with file, line, column and value
//
// It is no general CSV package. Its dialect is that of PostgreSQL's COPY ... (format
// csv), and a value is what COPY would make of it, with one exception: a line \. is
// data here; PostgreSQL ≤ 17 takes it for the end of the data and drops the rest of the
// file without a word. Whatever else is read otherwise than by COPY is a bug;
// lib/e2e/csv_copy_test.go compares the two on a server.
//
// Memory is bounded whatever the length of a record: one that is longer than Window
// comes in pieces (Row.More).
package csv

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error is what is wrong with a record.
type Error struct {
	File   string
	Line   int64  // in which the record begins, from 1
	Column string // empty when it is the record as a whole
	Value  string // of the column, shortened; empty when there is none to show
	Reason string
	// Fatal is set when the records after this one cannot be told either.
	Fatal bool
}

// Error is "metrics.csv:12001, column n: reason: "value"".
func (e *Error) Error() string {
	s := fmt.Sprintf("%s:%d", e.File, e.Line)
	if e.Column != "" {
		s += ", column " + e.Column
	}
	s += ": " + e.Reason
	if e.Value != "" {
		s += ": " + strconv.Quote(e.Value)
	}
	return s
}

// maxShown is how much of a value an error shows.
const maxShown = 60

// shown is the value of a field of COPY text as an error shows it.
func shown(text []byte) string {
	more := len(text) > 2*maxShown
	if more {
		text = text[:2*maxShown]
	}
	s := []rune(unescape(text))
	if more = more || len(s) > maxShown; more {
		return string(s[:min(len(s), maxShown)]) + "…"
	}
	return string(s)
}

// unescape is the value of a field of COPY text that is not NULL.
func unescape(text []byte) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\\' && i+1 < len(text) {
			i++
			switch c = text[i]; c {
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

// whole is the length of text without a rune that is cut off at its end.
func whole(text []byte) int {
	for i := len(text) - 1; i >= 0 && i >= len(text)-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRune(text[i:]) {
				return i
			}
			break
		}
	}
	return len(text)
}
