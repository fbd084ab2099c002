package queue

import (
	"context"
	_ "embed"
	"time"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed report.sql
	reportSQL string
	//go:embed rates.sql
	ratesSQL string
)

// Report is what became of a backfill, by __backfill alone.
type Report struct {
	V    int         `json:"v"`
	Each []*Reported `json:"hypertables"`
	// Rates over the time between the first copy and the last, in equal parts.
	Rates    []Rate     `json:"rates,omitempty"`
	Failures []*Failure `json:"failures,omitempty"` // of pending tasks
	Jobs     int        `json:"jobs_paused"`
	// Interrupted are aggregates of which bf-caggs has set rows aside.
	Interrupted []string `json:"interrupted,omitempty"`
}

// Reported is what became of the tasks of one hypertable.
type Reported struct {
	Hypertable task.Name        `json:"hypertable"` // of an aggregate the view
	Total      int64            `json:"total"`      // chunks, as the following
	Done       int64            `json:"done"`
	Verified   int64            `json:"verified"`
	Unequal    int64            `json:"unequal"` // compared, and not found equal
	Failed     int64            `json:"failed"`  // pending, and the last attempt failed
	Attempts   int64            `json:"failed_attempts"`
	Rows       int64            `json:"rows"`
	Bytes      int64            `json:"bytes"` // that have travelled
	Began      *time.Time       `json:"began,omitempty"`
	Ended      *time.Time       `json:"ended,omitempty"`
	Seconds    float64          `json:"seconds"` // in which at least one was being copied
	Kinds      map[string]int64 `json:"kinds"`   // of tasks
	Ways       map[string]int64 `json:"ways,omitempty"`
	Methods    map[string]int64 `json:"verified_by,omitempty"`
	// Loose are chunks that are compressed on the source and not on the target.
	Loose map[task.Loose]int64 `json:"left_uncompressed,omitempty"`
}

// Rate is how fast it was from a time on.
type Rate struct {
	At    time.Time `json:"at"`
	Bytes float64   `json:"bytes_per_second"`
}

// NewReport reads the report, with the rates in at most that many parts.
func NewReport(ctx context.Context, c *pg.Conn, parts int) (*Report, error) {
	r := &Report{V: task.Version}
	rows, err := c.Query(ctx, withBusy(reportSQL))
	if err != nil {
		return nil, c.Wrap(err, "report")
	}
	r.Each, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Reported, error) {
		h := &Reported{}
		return h, row.Scan(&h.Hypertable.Schema, &h.Hypertable.Name, &h.Total, &h.Done, &h.Verified,
			&h.Unequal, &h.Failed,
			&h.Attempts, &h.Rows, &h.Bytes, &h.Began, &h.Ended, &h.Seconds, &h.Kinds, &h.Ways, &h.Methods, &h.Loose)
	})
	if err != nil {
		return nil, c.Wrap(err, "report")
	}
	if rows, err = c.Query(ctx, ratesSQL, parts); err != nil {
		return nil, c.Wrap(err, "report")
	}
	if r.Rates, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Rate]); err != nil {
		return nil, c.Wrap(err, "report")
	}
	if r.Failures, err = Failures(ctx, c, "", time.Time{}); err != nil {
		return nil, err
	}
	if err := c.QueryRow(ctx, "select count(*) from __backfill.job").Scan(&r.Jobs); err != nil {
		return nil, c.Wrap(err, "report")
	}
	kept, err := Interrupted(ctx, c)
	for _, k := range kept {
		r.Interrupted = append(r.Interrupted, k.String())
	}
	return r, err
}
