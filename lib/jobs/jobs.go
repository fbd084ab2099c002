// Package jobs pauses the policies of the target during a backfill and gives
// them back afterwards. What was paused is remembered in __backfill.
package jobs

import (
	"context"
	"fmt"

	"bf/lib/pg"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// Pause pauses a job that is scheduled and remembers it. If it is running, it
// goes on to its end.
func Pause(ctx context.Context, db *tsdb.DB, j *tsdb.Job) error {
	err := pgx.BeginFunc(ctx, db.Conn.Conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `insert into __backfill.job (job_id, kind, hypertable_schema, hypertable_name) values ($1, $2, $3, $4)
            on conflict (job_id) do update set paused = excluded.paused`, j.ID, j.Kind, j.Of.Schema, j.Of.Name); err != nil {
			return err
		}
		return schedule(ctx, db, tx, j.ID, false)
	})
	return db.Wrap(err, "pause %s", j)
}

// Resume lets the remembered jobs run again and forgets them. It returns those
// that run again and those that are not there any more.
func Resume(ctx context.Context, db *tsdb.DB) (resumed, gone []*tsdb.Job, err error) {
	err = pgx.BeginFunc(ctx, db.Conn.Conn, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "select job_id, kind, hypertable_schema, hypertable_name from __backfill.job order by 1 for update")
		if err != nil {
			return err
		}
		js, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*tsdb.Job, error) {
			var j tsdb.Job
			return &j, r.Scan(&j.ID, &j.Kind, &j.Of.Schema, &j.Of.Name)
		})
		if err != nil {
			return err
		}
		for _, j := range js {
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
		_, err = tx.Exec(ctx, "delete from __backfill.job")
		return err
	})
	return resumed, gone, db.Wrap(err, "resume jobs")
}

func schedule(ctx context.Context, db *tsdb.DB, tx pgx.Tx, id int32, scheduled bool) error {
	_, err := tx.Exec(ctx, "select "+pg.Ident(db.ExtensionSchema, "alter_job")+"($1::int, scheduled => $2::boolean)", id, scheduled)
	return err
}

// Statement is what a user runs to pause the job.
func Statement(db *tsdb.DB, j *tsdb.Job) string {
	fn := "alter_job"
	if db.ExtensionSchema != "public" {
		fn = pg.Ident(db.ExtensionSchema) + "." + fn
	}
	return fmt.Sprintf("select %s(%d, scheduled => false);", fn, j.ID)
}
