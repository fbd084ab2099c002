// Package jobs pauses the policies of the target during a backfill and resumes
// them afterwards. What was paused is kept in __backfill.
package jobs

import (
	"context"
	"fmt"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// Pause pauses a scheduled job and stores that. A run that is in progress is not
// stopped.
func Pause(ctx context.Context, db *tsdb.DB, j *tsdb.Job) error {
	err := pgx.BeginFunc(ctx, db.Conn.Conn, func(tx pgx.Tx) error {
		if err := queue.AddJob(ctx, tx, queue.Job{ID: j.ID, Kind: j.Kind, Of: j.Of}); err != nil {
			return err
		}
		return schedule(ctx, db, tx, j.ID, false)
	})
	return db.Wrap(err, "pause %s", j)
}

// Resume resumes the paused jobs. It returns those, and the ones that were dropped
// meanwhile.
func Resume(ctx context.Context, db *tsdb.DB) (resumed, gone []*tsdb.Job, err error) {
	err = pgx.BeginFunc(ctx, db.Conn.Conn, func(tx pgx.Tx) error {
		js, err := queue.TakeJobs(ctx, tx)
		if err != nil {
			return err
		}
		for _, kept := range js {
			j := &tsdb.Job{ID: kept.ID, Kind: kept.Kind, Of: kept.Of}
			var there bool
			if err := tx.QueryRow(ctx, "select exists (select from timescaledb_information.jobs where job_id = $1)", j.ID).Scan(&there); err != nil {
				return err
			}
			if !there {
				gone = append(gone, j)
				continue
			}
			if err := schedule(ctx, db, tx, j.ID, true); err != nil {
				return fmt.Errorf("%s: %w", j, err)
			}
			resumed = append(resumed, j)
		}
		return nil
	})
	return resumed, gone, db.Wrap(err, "resume jobs")
}

func schedule(ctx context.Context, db *tsdb.DB, tx pgx.Tx, id int32, scheduled bool) error {
	_, err := tx.Exec(ctx, "select "+pg.Ident(db.ExtensionSchema, "alter_job")+"($1::int, scheduled => $2::boolean)", id, scheduled)
	return err
}

// Statement is the SQL with which a user pauses the job.
func Statement(db *tsdb.DB, j *tsdb.Job) string {
	fn := "alter_job"
	if db.ExtensionSchema != "public" {
		fn = pg.Ident(db.ExtensionSchema) + "." + fn
	}
	return fmt.Sprintf("select %s(%d, scheduled => false);", fn, j.ID)
}
