package queue

import (
	"context"

	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

// Job is a job of the target that bf has paused.
type Job struct {
	ID   int32
	Kind string
	Of   task.Name // the hypertable or the view
}

// AddJob stores a paused job, in the transaction that pauses it.
func AddJob(ctx context.Context, tx pgx.Tx, j Job) error {
	_, err := tx.Exec(ctx, `insert into __backfill.job (job_id, kind, hypertable_schema, hypertable_name)
        values ($1, $2, $3, $4)
        on conflict (job_id) do update set paused = excluded.paused`, j.ID, j.Kind, j.Of.Schema, j.Of.Name)
	return err
}

// TakeJobs returns the paused jobs and deletes them, in the transaction that
// resumes them.
func TakeJobs(ctx context.Context, tx pgx.Tx) ([]Job, error) {
	rows, err := tx.Query(ctx, "select job_id, kind, hypertable_schema, hypertable_name from __backfill.job "+
		"order by 1 for update")
	if err != nil {
		return nil, err
	}
	js, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (j Job, err error) {
		err = r.Scan(&j.ID, &j.Kind, &j.Of.Schema, &j.Of.Name)
		return j, err
	})
	if err != nil {
		return nil, err
	}
	_, err = tx.Exec(ctx, "delete from __backfill.job")
	return js, err
}
