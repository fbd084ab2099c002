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
			if err := tx.QueryRow(ctx, "select exists (select from timescaledb_information.jobs where job_id = $1)",
				j.ID).Scan(&there); err != nil {
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
	alter, err := alterJob(ctx, db)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "select "+alter+" from "+tsdb.JobsTable(db)+" j where j.id = $1::int", id, scheduled)
	if pg.Code(err) == pg.NotSupported { // 2.21, 2.22: see tsdb.PausesNested
		return &pg.Error{Side: db.Side, Err: err,
			Hint: "this version of TimescaleDB cannot pause or resume the refresh policy of " +
				"a continuous aggregate on top of another one: " +
				"remove it (remove_continuous_aggregate_policy) and add it again after the backfill"}
	}
	return err
}

// alterJob is the call that schedules job j.id or not, by the parameter $2. Where
// alter_job takes a time zone, it sets it to null unless it is given.
func alterJob(ctx context.Context, db *tsdb.DB) (string, error) {
	l, err := tsdb.LanguageOf(ctx, db)
	if err != nil {
		return "", err
	}
	call := pg.Ident(db.ExtensionSchema, "alter_job") + "(j.id, scheduled => $2::boolean"
	if l.Takes("alter_job", "timezone") {
		call += ", timezone => j.timezone"
	}
	return call + ")", nil
}

// Statement is the SQL with which a user pauses the job.
func Statement(db *tsdb.DB, j *tsdb.Job) string {
	fn := "alter_job"
	if db.ExtensionSchema != "public" {
		fn = pg.Ident(db.ExtensionSchema) + "." + fn
	}
	zone := ""
	if j.Zone != "" {
		zone = ", timezone => " + pg.Literal(j.Zone)
	}
	return fmt.Sprintf("select %s(%d, scheduled => false%s);", fn, j.ID, zone)
}
