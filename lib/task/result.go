package task

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
	V          int    `json:"v"`
	Task       int64  `json:"task"`
	Hypertable Name   `json:"hypertable"`
	Chunk      Name   `json:"chunk"`
	Status     Status `json:"status"`
	// Way is how the rows were written (package target); WhyNotRaw says for a
	// compressed chunk why its compressed relation could not travel as it is.
	Way       string  `json:"way,omitempty"`
	WhyNotRaw string  `json:"why_not_raw,omitempty"`
	Rows      int64   `json:"rows"`
	Bytes     int64   `json:"bytes"`
	Seconds   float64 `json:"seconds"`
	Message   string  `json:"message,omitempty"`
}
