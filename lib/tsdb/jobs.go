package tsdb

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

//go:embed jobs.sql
var jobsSQL string

// Job is a policy of a hypertable or a continuous aggregate.
type Job struct {
	ID        int32
	Kind      string    // "refresh", "retention", "compression" or "reorder"
	Of        task.Name // the hypertable or the view
	Scheduled bool
	Running   bool   // at the moment
	Zone      string // time zone of its schedule that alter_job has to be given; mostly none
}

// The kinds of jobs that drop chunks or rewrite them.
const (
	Retention   = "retention"
	Compression = "compression"
)

// Jobs lists the policies of hypertables.
func (db *DB) Jobs(ctx context.Context, hs []*Hypertable) ([]*Job, error) {
	if !db.Full {
		return nil, nil // no policies in the Apache edition
	}
	of := map[int32]*Hypertable{}
	ids := make([]int32, len(hs))
	for i, h := range hs {
		of[h.ID], ids[i] = h, h.ID
	}
	rows, err := db.Query(ctx, strings.ReplaceAll(jobsSQL, "{jobs}", JobsTable(db)), ids)
	if err != nil {
		return nil, db.Wrap(err, "list jobs")
	}
	jobs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*Job, error) {
		var j Job
		var id int32
		err := r.Scan(&j.ID, &j.Kind, &id, &j.Scheduled, &j.Running, &j.Zone)
		j.Kind, _, _ = strings.Cut(strings.TrimPrefix(j.Kind, "policy_"), "_")
		if h := of[id]; h != nil {
			j.Of = h.Label()
		}
		return &j, err
	})
	return jobs, db.Wrap(err, "list jobs")
}

func (j *Job) String() string { return fmt.Sprintf("job %d (%s of %s)", j.ID, j.Kind, j.Of) }
