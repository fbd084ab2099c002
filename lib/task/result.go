package task

import "fmt"

// Status says what became of a task.
type Status string

// The states of a task that bf-load and bf-verify report.
const (
	Loaded   Status = "loaded"   // committed on the target
	Skipped  Status = "skipped"  // done before, or another lane is at it
	Gone     Status = "gone"     // the chunk no longer exists on the source; nothing to copy
	Failed   Status = "failed"   // rolled back; the task is still pending
	Verified Status = "verified" // both sides are equal in the staged range
	Differs  Status = "differs"  // they are not
)

// Result is the record that bf-load and bf-verify print per task.
type Result struct {
	V          int   `json:"v"`
	Task       int64 `json:"task"`
	Hypertable Name  `json:"hypertable"`
	Chunk      Name  `json:"chunk"`
	// Range is that of the task, where Chunk does not say which of many it is.
	Range  *Range `json:"range,omitempty"`
	Status Status `json:"status"`
	// Way is how the rows were written (package target). WhyNotRaw is why the
	// compressed relation of a compressed chunk was not copied as it is.
	Way       string `json:"way,omitempty"`
	WhyNotRaw string `json:"why_not_raw,omitempty"`
	// LeftUncompressed is why rows that are compressed on the source are not so on
	// the target.
	LeftUncompressed Loose `json:"left_uncompressed,omitempty"`

	Rows    int64   `json:"rows"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	// Hidden is how many rows of the source's chunk no query there shows. They
	// are not copied; Message says what helps.
	Hidden  int64  `json:"hidden_rows,omitempty"`
	Message string `json:"message,omitempty"`
	// Hash is the hash of all rows, set when both sides have the same.
	Hash string `json:"hash,omitempty"`
	// EqualByValue is set when the sides differ only in values that their
	// types' = calls equal.
	EqualByValue bool `json:"equal_by_value,omitempty"`
	// Differences are the first few things that bf-verify found to differ.
	Differences []Difference `json:"differences,omitempty"`
}

// Result returns a result of the task, still without a status.
func (t *Task) Result() *Result {
	r := &Result{V: Version, Task: t.Task, Hypertable: t.Target(), Chunk: t.Chunk}
	if t.Kind != KindChunk {
		r.Range = &t.Range
	}
	return r
}

// Place names the chunk or the range among those of the hypertable, in messages.
func (r *Result) Place() string {
	if r.Range != nil {
		return r.Range.String()
	}
	return r.Chunk.Name
}

// Difference is one thing that differs between the two sides of a task.
type Difference struct {
	// What differs: "rows" (their number), "count" (of values), "min", "max",
	// "sum" or "hash" of a column, the "type" of a column, the "value" of a
	// column in one row, "row" for a row that exists on one side only.
	What   string `json:"what"`
	Column string `json:"column,omitempty"`
	Key    string `json:"key,omitempty"` // of the row
	Source string `json:"source"`
	Target string `json:"target"`
}

// String is the difference in a message.
func (d Difference) String() string {
	var where string
	switch {
	case d.Key != "" && d.What == "row":
		where = "row " + d.Key
	case d.Key != "":
		where = fmt.Sprintf("row %s, column %q", d.Key, d.Column)
	case d.Column != "":
		where = fmt.Sprintf("column %q, %s", d.Column, d.What)
	default:
		where = d.What
	}
	return fmt.Sprintf("%s: %s on the source, %s on the target", where, d.Source, d.Target)
}
