// Package task defines the record that the tools of bf exchange: one JSON
// object per line that says everything a dump and a load need to copy one
// chunk. It knows nothing of databases.
//
// A record names a source relation (the chunk), the row range to copy and the
// hypertable it belongs to. Records of other sources than chunks have a Kind.
// Everything in it is a structured value: no field is ever used as SQL text.
package task

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Version is the major version of the record format: of records of chunks, which
// have been the same since the first release, and of all records that are no tasks.
// A reader refuses a record of another major version and keeps the fields it does
// not know.
const Version = 1

// Name is a schema-qualified name of a relation, unquoted as the catalogs
// spell it.
type Name struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

// String returns schema.name as people write it. It is for messages: SQL is
// built with quoted identifiers (package pg).
func (n Name) String() string { return n.Schema + "." + n.Name }

// IsZero reports whether the name is absent.
func (n Name) IsZero() bool { return n == Name{} }

// Pattern is a regular expression that matches the name, quoted for a shell
// where it has to be: what --filter takes on a command line.
func (n Name) Pattern() string {
	s := metacharacters.ReplaceAllString(n.String(), `\$0`)
	if bareword.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

var (
	// The dot is left alone: it matches itself, and people know how to read it.
	metacharacters = regexp.MustCompile(`[\\^$|?*+()\[\]{}]`)
	bareword       = regexp.MustCompile(`^[A-Za-z0-9_.]+$`)
)

// Patterns lists the patterns of names for a message.
func Patterns(names []Name) string {
	const most = 20
	var ps []string
	for _, n := range names[:min(len(names), most)] {
		ps = append(ps, n.Pattern())
	}
	if more := len(names) - most; more > 0 {
		ps = append(ps, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(ps, ", ")
}

// Slice is the extent of a chunk in one dimension of its hypertable: From is
// inclusive, Until exclusive. Both are TimescaleDB's internal 64-bit integers
// (microseconds since 1970 in UTC for times, the value itself for integers,
// the partitioning hash for hash dimensions), kept as strings because they do
// not survive a float64.
type Slice struct {
	Column string `json:"column"`
	From   string `json:"from"`
	Until  string `json:"until"`
	// Hash is set for a closed (hash-partitioned) dimension.
	Hash bool `json:"hash,omitempty"`
}

// Bounds are the two ends of a slice of the catalog or of a validated record.
func (s Slice) Bounds() (from, until int64) {
	from, _ = Bound(s.From)
	until, _ = Bound(s.Until)
	return from, until
}

// Range is the row range to copy, on the hypertable's primary dimension: From
// is inclusive, Until exclusive, in the same internal integers as Slice.
type Range struct {
	Column string `json:"column"`
	From   string `json:"from"`
	Until  string `json:"until"`
	// Partial is set when the range does not cover the whole chunk.
	Partial bool `json:"partial,omitempty"`
	// FromText and UntilText are the same bounds as people read them, for
	// example "2016-01-02 00:00:00+00"; nothing is computed from them.
	FromText  string `json:"from_text,omitempty"`
	UntilText string `json:"until_text,omitempty"`
}

// NewRange is a range of internal values.
func NewRange(column string, from, until int64) Range {
	return Range{Column: column, From: FormatBound(from), Until: FormatBound(until)}
}

// Bounds are the two ends of the range of a validated record.
func (r *Range) Bounds() (from, until int64) { return Slice{From: r.From, Until: r.Until}.Bounds() }

// String is the range in messages, as people read it where that is known.
func (r *Range) String() string {
	return fmt.Sprintf("[%s, %s)", cmp.Or(r.FromText, r.From), cmp.Or(r.UntilText, r.Until))
}

// Brief is String for where there is little room: days without a time of day, times
// without seconds, where both ends allow that.
func (r *Range) Brief() string {
	from, until := cmp.Or(r.FromText, r.From), cmp.Or(r.UntilText, r.Until)
	for _, end := range []string{" 00:00:00+00", " 00:00:00", ":00+00"} {
		if strings.HasSuffix(from, end) && strings.HasSuffix(until, end) {
			from, until = strings.TrimSuffix(from, end), strings.TrimSuffix(until, end)
			break
		}
	}
	return fmt.Sprintf("[%s, %s)", from, until)
}

// Task is one task record: a chunk of the source, the rows of it to copy and
// the hypertable they go to.
type Task struct {
	V int `json:"v"`
	// Task is the task's number in __backfill.task on the target; zero in a
	// plan that is not recorded yet.
	Task int64 `json:"task,omitempty"`
	// Kind is what the source is: KindChunk or one of the others.
	Kind string `json:"kind,omitempty"`
	// Hypertable is the hypertable on the source (of a slice the relation that is
	// read). The target's has the same name unless View or Into is set.
	Hypertable Name `json:"hypertable"`
	// Into is the hypertable on the target where it has another name; never of a chunk.
	Into *Name `json:"into,omitempty"`
	// View is the user view of the continuous aggregate whose materialization
	// hypertable this is. The two sides may use other names and ids for the
	// hypertable behind it: it is mapped by the view.
	View *Name `json:"view,omitempty"`
	// Chunk is the chunk on the source; of a slice the same as Hypertable.
	Chunk Name `json:"chunk"`
	// Slices has one entry per dimension, the primary dimension first. Of a record
	// that is of no chunk it is the extent of a chunk of the target, in the primary
	// dimension alone.
	Slices []Slice `json:"slices"`
	Range  Range   `json:"range"`
	// Scan says how a source that is no chunk is read.
	Scan *Scan `json:"scan,omitempty"`
	// Origin is the database that the task was staged from (system identifier and
	// OID). A dump from another one would not find the chunk and call it dropped.
	Origin string `json:"origin,omitempty"`
	// LSN is that database's WAL position when the task was staged. A standby that
	// has not replayed it may lack the chunk, which is not dropped for that.
	LSN string `json:"lsn,omitempty"`
	// Snapshot is an exported snapshot of the source to read in; empty for a
	// new one per chunk.
	Snapshot string `json:"snapshot,omitempty"`
	// RowsOnly is why a compressed chunk has to travel by its rows, as far as that was
	// known of the target when it was staged; empty if it may travel as it is.
	RowsOnly string `json:"rows_only,omitempty"`
	// Bytes and Rows are estimates of what is copied (of a compressed chunk the
	// compressed relation), for ordering and progress only.
	Bytes int64 `json:"bytes,omitempty"`
	Rows  int64 `json:"rows,omitempty"`

	// Extra keeps the fields that this version does not know, so that a
	// filter passes them on.
	Extra map[string]json.RawMessage `json:"-"`
}

// RecordVersion is the version that a record of its kind has.
func (t *Task) RecordVersion() int {
	if t.Kind == KindChunk {
		return Version
	}
	return VersionOther
}

// Target says which relation of the target the task writes to, as its users
// name it: the view for a continuous aggregate, else the hypertable.
func (t *Task) Target() Name {
	switch {
	case t.View != nil:
		return *t.View
	case t.Into != nil:
		return *t.Into
	}
	return t.Hypertable
}

// What names what the task copies, in messages: a chunk, or a range of something else.
func (t *Task) What() string {
	if t.Kind == KindChunk {
		return "chunk " + t.Chunk.String()
	}
	return t.Hypertable.String() + " " + t.Range.String()
}

// String names the task in messages.
func (t *Task) String() string {
	if t.Task == 0 {
		return t.What()
	}
	return fmt.Sprintf("task %d (%s)", t.Task, t.What())
}

// SameWork reports whether two records ask for the same rows of the same chunk
// to go to the same place. If not, it returns the first difference in words.
func (t *Task) SameWork(o *Task) (string, bool) {
	switch {
	case t.Kind != o.Kind:
		return fmt.Sprintf("kind is %q, staged as %q", t.Kind, o.Kind), false
	case t.Chunk != o.Chunk:
		return fmt.Sprintf("chunk is %s, staged as %s", t.Chunk, o.Chunk), false
	case t.Hypertable != o.Hypertable:
		return fmt.Sprintf("hypertable is %s, staged as %s", t.Hypertable, o.Hypertable), false
	case (t.View == nil) != (o.View == nil), (t.Into == nil) != (o.Into == nil),
		t.Into != nil && *t.Into != *o.Into:
		return fmt.Sprintf("writes to %s, staged to write to %s", t.Target(), o.Target()), false
	case t.View != nil && *t.View != *o.View:
		return fmt.Sprintf("continuous aggregate is %s, staged as %s", t.View, o.View), false
	case t.Range.Column != o.Range.Column || t.Range.From != o.Range.From || t.Range.Until != o.Range.Until:
		return fmt.Sprintf("row range is [%s, %s), staged as [%s, %s)",
			t.Range.From, t.Range.Until, o.Range.From, o.Range.Until), false
	case t.Range.Partial != o.Range.Partial:
		return fmt.Sprintf("row range is partial: %t, staged as %t", t.Range.Partial, o.Range.Partial), false
	case len(t.Slices) != len(o.Slices):
		return fmt.Sprintf("%d dimension slices, staged with %d", len(t.Slices), len(o.Slices)), false
	}
	for i, s := range t.Slices {
		if s != o.Slices[i] {
			return fmt.Sprintf("slice of dimension %q is [%s, %s), staged as [%s, %s)",
				s.Column, s.From, s.Until, o.Slices[i].From, o.Slices[i].Until), false
		}
	}
	if d := sameScan(t.Scan, o.Scan); d != "" {
		return d, false
	}
	return "", true
}

// Validate checks that a record read from outside is complete: version, names,
// integer bounds in order. It does not look at any database.
func (t *Task) Validate() error {
	if t.V == 0 {
		return errors.New(`no version: not a bf task record (field "v" is missing)`)
	}
	if t.V != Version && t.V != VersionOther {
		return fmt.Errorf("record version %d: this bf reads versions %d and %d", t.V, Version, VersionOther)
	}
	if err := t.validateKind(); err != nil {
		return err
	}
	if err := t.validateNames(); err != nil {
		return err
	}
	if t.Task < 0 {
		return fmt.Errorf("task number %d is negative", t.Task)
	}
	if err := t.validateRanges(); err != nil {
		return err
	}
	return t.Scan.validate(t.Kind)
}

// validateKind checks that the record has the version of its kind, and what goes
// with chunks alone or with the other kinds alone.
func (t *Task) validateKind() error {
	switch t.Kind {
	case KindChunk, KindSlice, KindCSV, KindExec:
	default:
		return fmt.Errorf("kind %q: this bf does not know it", t.Kind)
	}
	switch chunk := t.Kind == KindChunk; {
	case t.V != t.RecordVersion() && chunk:
		return fmt.Errorf("record version %d without a kind", t.V)
	case t.V != t.RecordVersion():
		return fmt.Errorf("kind %q in a record of version %d", t.Kind, t.V)
	case chunk && (t.Into != nil || t.Scan != nil):
		return errors.New("fields into and scan do not go with a chunk")
	case !chunk && t.View != nil:
		return fmt.Errorf("field view does not go with kind %q", t.Kind)
	case !chunk && len(t.Slices) > 1:
		return fmt.Errorf("%d dimension slices do not go with kind %q", len(t.Slices), t.Kind)
	}
	return nil
}

func (t *Task) validateNames() error {
	// Files and commands have no schema.
	inDatabase := t.Kind == KindChunk || t.Kind == KindSlice
	if t.Chunk.Name == "" || inDatabase && t.Chunk.Schema == "" {
		return errors.New("no chunk: schema and name are required")
	}
	if t.Hypertable.Name == "" || inDatabase && t.Hypertable.Schema == "" {
		return errors.New("no hypertable: schema and name are required")
	}
	if t.View != nil && (t.View.Schema == "" || t.View.Name == "") {
		return errors.New("view without schema and name")
	}
	if t.Into != nil && (t.Into.Schema == "" || t.Into.Name == "") {
		return errors.New("into without schema and name")
	}
	if !inDatabase && t.Into == nil {
		return fmt.Errorf("no into: kind %q needs it", t.Kind)
	}
	to := t.Target()
	names := []string{t.Chunk.Schema, t.Chunk.Name, t.Hypertable.Schema, t.Hypertable.Name, to.Schema, to.Name}
	for _, s := range t.Slices {
		names = append(names, s.Column)
	}
	for _, s := range names {
		if strings.ContainsRune(s, 0) {
			return errors.New("name with a NUL byte")
		}
	}
	return nil
}

func (t *Task) validateRanges() error {
	if len(t.Slices) == 0 {
		return errors.New("no dimension slices")
	}
	for _, s := range t.Slices {
		if s.Column == "" {
			return errors.New("dimension slice without a column")
		}
		if err := checkBounds(s.From, s.Until); err != nil {
			return fmt.Errorf("slice of dimension %q: %w", s.Column, err)
		}
	}
	if t.Range.Column != t.Slices[0].Column {
		return fmt.Errorf("row range is on %q, the primary dimension is %q", t.Range.Column, t.Slices[0].Column)
	}
	if err := checkBounds(t.Range.From, t.Range.Until); err != nil {
		return fmt.Errorf("row range: %w", err)
	}
	return nil
}

func checkBounds(from, until string) error {
	lo, err := Bound(from)
	if err != nil {
		return err
	}
	hi, err := Bound(until)
	if err != nil {
		return err
	}
	if lo > hi {
		return fmt.Errorf("from %s is after until %s", from, until)
	}
	return nil
}
