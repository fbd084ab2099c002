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

// MaxLine is the longest record, in bytes, that Reader accepts.
const MaxLine = 1 << 20

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
	if v != Version {
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

// Reader reads task records, one per line. Blank lines are ignored.
type Reader struct {
	s    *bufio.Scanner
	line int
}

// NewReader returns a Reader on r.
func NewReader(r io.Reader) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 8192), MaxLine)
	return &Reader{s: s}
}

// Next returns the next record, io.EOF after the last. An error on one line
// names the line; reading may go on after it unless it is an I/O error.
func (r *Reader) Next() (*Task, error) {
	for r.s.Scan() {
		r.line++
		b := r.s.Bytes()
		if len(bytes.TrimSpace(b)) == 0 {
			continue
		}
		t, err := Parse(b)
		if err != nil {
			return nil, &BadRecord{Line: r.line, Err: err}
		}
		return t, nil
	}
	if err := r.s.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, fmt.Errorf("line %d: longer than %d bytes", r.line+1, MaxLine)
		}
		return nil, err
	}
	return nil, io.EOF
}

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
