package task

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
)

// MaxLine is the longest record, in bytes, that Reader accepts: a summary or a
// hypertable of 1600 columns takes some megabytes.
const MaxLine = 8 << 20

// MinBound and MaxBound are the internal values of an unbounded slice:
// -infinity and infinity.
const (
	MinBound = math.MinInt64
	MaxBound = math.MaxInt64
)

// Bound parses an internal bound of a slice or a range.
func Bound(s string) (int64, error) {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("bound %q is not a 64-bit integer", s)
	}
	return v, nil
}

// FormatBound is the inverse of Bound.
func FormatBound(v int64) string { return strconv.FormatInt(v, 10) }

type plain Task // without methods, so that the JSON package does not recurse

// known are the names of the record's own fields.
var known = func() map[string]bool {
	m := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[plain]()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "-" {
			m[name] = true
		}
	}
	return m
}()

// UnmarshalJSON reads a record and keeps the fields it does not know in Extra.
// It does not validate: see Validate.
func (t *Task) UnmarshalJSON(b []byte) error {
	var f map[string]json.RawMessage
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	// The version comes first: a record of another major version may give
	// the other fields another shape.
	var v int
	if raw, ok := f["v"]; ok {
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf(`field "v" is no number`)
		}
	}
	if v != Version && v != VersionOther {
		*t = Task{V: v}
		return t.Validate()
	}
	var p plain
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	*t = Task(p)
	for k, raw := range f {
		if !known[k] {
			if t.Extra == nil {
				t.Extra = map[string]json.RawMessage{}
			}
			t.Extra[k] = raw
		}
	}
	return nil
}

// MarshalJSON writes the record with its unknown fields at the end.
func (t Task) MarshalJSON() ([]byte, error) {
	return appendExtra(plain(t), t.Extra)
}

func appendExtra(v any, extra map[string]json.RawMessage) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil || len(extra) == 0 {
		return b, err
	}
	x, err := json.Marshal(extra) // sorted keys: the output is stable
	if err != nil {
		return nil, err
	}
	return append(append(b[:len(b)-1], ','), x[1:]...), nil
}

// Parse reads one record and validates it. An error names what is wrong with
// it, never a stack of decoder internals.
func Parse(line []byte) (*Task, error) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] != '{' {
		return nil, errors.New("not a task record: expected one JSON object per line")
	}
	var t Task
	if err := json.Unmarshal(line, &t); err != nil {
		var syn *json.SyntaxError
		if errors.As(err, &syn) {
			return nil, fmt.Errorf("not a task record: %v", syn)
		}
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) {
			return nil, fmt.Errorf("field %q: a %s does not belong there", typ.Field, typ.Value)
		}
		return nil, err
	}
	if err := t.Validate(); err != nil {
		return nil, err
	}
	return &t, nil
}

// Reader reads records, one per line, or given as arguments. Blank ones are
// ignored.
type Reader struct {
	next func() ([]byte, error)
	line int // of the last record, from 1; 0 for an argument
}

// NewReader returns a Reader of the lines of r.
func NewReader(r io.Reader) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 8192), MaxLine)
	rd := &Reader{}
	rd.next = func() ([]byte, error) {
		if s.Scan() {
			rd.line++
			return s.Bytes(), nil
		}
		switch err := s.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			return nil, fmt.Errorf("line %d: longer than %d bytes", rd.line+1, MaxLine)
		case err != nil:
			return nil, err
		}
		return nil, io.EOF
	}
	return rd
}

// Arguments returns a Reader of the records of a command line.
func Arguments(records []string) *Reader {
	return &Reader{next: func() ([]byte, error) {
		if len(records) == 0 {
			return nil, io.EOF
		}
		b := []byte(records[0])
		records = records[1:]
		return b, nil
	}}
}

// Record returns the next record as it is, valid until the next call, and
// io.EOF after the last.
func (r *Reader) Record() ([]byte, error) {
	for {
		b, err := r.next()
		if b = bytes.TrimSpace(b); err != nil || len(b) > 0 {
			return b, err
		}
	}
}

// Next returns the next record, a task, and io.EOF after the last. Reading may
// go on after a BadRecord, and after no other error.
func (r *Reader) Next() (*Task, error) {
	b, err := r.Record()
	if err != nil {
		return nil, err
	}
	t, err := Parse(b)
	if err != nil {
		return nil, r.Bad(err)
	}
	return t, nil
}

// Bad says what is wrong with the last record, and where it stood.
func (r *Reader) Bad(err error) error { return &BadRecord{Line: r.line, Err: err} }

// BadRecord is a record that could not be read. Line counts from 1, 0 for one
// that was given as an argument.
type BadRecord struct {
	Line int
	Err  error
}

func (e *BadRecord) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("task record: %v", e.Err)
	}
	return fmt.Sprintf("task record on line %d: %v", e.Line, e.Err)
}

func (e *BadRecord) Unwrap() error { return e.Err }

// Write writes one record as a line.
func Write(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n')) // one write per line: lines of processes that share a pipe stay whole
	return err
}
