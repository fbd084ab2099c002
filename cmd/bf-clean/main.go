// Command bf-clean ends a backfill: it lets paused jobs run again and drops
// schema __backfill from the target.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"bf/lib/cagg"
	"bf/lib/cli"
	"bf/lib/jobs"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/tsdb"
)

const name = "bf-clean"

type flags struct {
	Target string `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	Force  bool   `arg:"--force" help:"also when tasks are pending"`
	Jobs   bool   `arg:"--jobs" help:"resume the paused jobs only; the tasks stay"`
	cli.Common
}

func (flags) Description() string {
	return "Resumes the jobs that bf-stage --pause-jobs has paused, and drops schema __backfill from the target when the backfill is done and verified."
}

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, _ io.Reader, stdout, stderr io.Writer) int {
	var f flags
	if done, status := cli.Parse(name, &f, args, stdout, stderr); done {
		return status
	}
	if f.Target == "" {
		return cli.BadUsage(name, stderr, "--target is required (or BF_TARGET)")
	}
	log := cli.NewLog(name, stderr, f.Common)
	if err := clean(context.Background(), &f, log); err != nil {
		log.Error(err)
		return cli.Failed
	}
	return cli.OK
}

func clean(ctx context.Context, f *flags, log *cli.Log) error {
	db, err := tsdb.Open(ctx, pg.Target, f.Target, pg.Options{Application: name, Log: log.Info})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := queue.Check(ctx, db.Conn); err != nil {
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
	kept, err := cagg.Interrupted(ctx, db.Conn)
	if err != nil {
		return err
	}
	if len(kept) > 0 {
		return &pg.Error{Side: pg.Target, Object: kept[0].String(), Err: errors.New("bf-caggs was interrupted: rows of it are still in __backfill"),
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

// resume lets the jobs run again that bf-stage has paused.
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
