// Command bf-clean ends a backfill: it resumes paused jobs and drops schema
// __backfill from the target.
package main

import (
	"context"
	"errors"
	"fmt"

	"bf/lib/cli"
	"bf/lib/jobs"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/tsdb"
)

type flags struct {
	Target string `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	Force  bool   `arg:"--force" help:"drop the schema although tasks are pending"`
	Jobs   bool   `arg:"--jobs" help:"resume the paused jobs only; the tasks stay"`
	cli.Common
}

func (*flags) Description() string {
	return "Ends a backfill: resumes the jobs that bf-stage --pause-jobs has paused, and drops schema __backfill " +
		"from the target. Refuses while tasks are pending."
}

func main() { cli.Main("bf-clean", &flags{}, clean) }

func (f *flags) Check(e *cli.Env) error {
	if f.Target == "" {
		return e.Usagef("--target is required (or BF_TARGET)")
	}
	return nil
}

func clean(e *cli.Env, f *flags) error {
	e.Stop.Immediately()
	ctx, log := e.Stop.Context, e.Log
	db, err := tsdb.Open(ctx, pg.Target, f.Target, e.Options())
	if err != nil {
		return err
	}
	defer db.Close()
	if err := queue.Check(ctx, db.Conn); err != nil && !errors.Is(err, queue.ErrOld) {
		return err
	}
	if f.Jobs {
		return resume(ctx, db, log)
	}
	all, pending, err := queue.Count(ctx, db.Conn)
	if err != nil {
		return err
	}
	if pending > 0 && !f.Force {
		return &pg.Error{Side: pg.Target, Err: fmt.Errorf("%d of %d tasks are pending", pending, all),
			Hint: "finish them (bf-chunks --pending lists them), or give --force"}
	}
	kept, err := queue.Interrupted(ctx, db.Conn)
	if err != nil {
		return err
	}
	if len(kept) > 0 {
		return &pg.Error{Side: pg.Target, Object: kept[0].String(),
			Err:  errors.New("bf-caggs was interrupted: rows of it are still in __backfill"),
			Hint: "run bf-caggs again: it puts them back"}
	}
	if err := resume(ctx, db, log); err != nil {
		return err
	}
	if err := queue.Drop(ctx, db.Conn); err != nil {
		return err
	}
	log.Info("dropped __backfill with %d tasks, %d of them pending", all, pending)
	return nil
}

// resume resumes the jobs that bf-stage has paused.
func resume(ctx context.Context, db *tsdb.DB, log *cli.Log) error {
	resumed, gone, err := jobs.Resume(ctx, db)
	if err != nil {
		return err
	}
	for _, j := range resumed {
		log.Info("target: %s is scheduled again", j)
	}
	for _, j := range gone {
		log.Info("target: %s was paused and is not there any more", j)
	}
	return nil
}
