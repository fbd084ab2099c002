package main

import (
	"context"
	"fmt"
	"io"

	"bf/lib/cagg"
	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stage"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// plan makes the plan from the source or reads it from stdin, and records it on
// the target or prints it.
func plan(ctx context.Context, f *flags, log *cli.Log, stdin io.Reader, stdout io.Writer) (err error) {
	var p *stage.Plan
	if f.Source == "" {
		p, err = stage.Read(stdin)
	} else {
		p, err = fromSource(ctx, f, log)
	}
	if err != nil {
		return err
	}
	if f.Target == "" {
		err = p.Write(stdout)
	} else {
		err = record(ctx, f, p, log, stdout)
	}
	if err == nil && len(p.Tasks) == 0 {
		log.Info("nothing to do: %s", nothing(p))
	}
	return err
}

// fromSource makes the plan, and says what on the source people should know of.
func fromSource(ctx context.Context, f *flags, log *cli.Log) (*stage.Plan, error) {
	src, err := tsdb.Open(ctx, pg.Source, f.Source, pg.Options{Application: name, Log: log.Info})
	if err != nil {
		return nil, err
	}
	defer src.Close()
	p, err := stage.Make(ctx, src, stage.Options{From: f.From, Until: f.Until, Snapshot: f.Snapshot,
		Choice: tsdb.Choice{Filter: f.Filter, Up: f.Up, Down: f.Down}})
	if err != nil {
		return nil, err
	}
	for _, n := range p.Notes {
		log.Warn("source: %s", n)
	}
	if err := sourceJobs(ctx, src, p, log); err != nil {
		return nil, err
	}
	beyond, err := cagg.Beyond(ctx, src, p)
	for _, view := range beyond {
		log.Warn("source: %s has buckets whose raw data is gone, and is not staged: "+
			"they will be missing on the target (--cascade-up stages it)", view)
	}
	return p, err
}

// record compares the plan with the target and records it there.
func record(ctx context.Context, f *flags, p *stage.Plan, log *cli.Log, stdout io.Writer) error {
	dst, err := tsdb.Open(ctx, pg.Target, f.Target, pg.Options{Application: name, Log: log.Info})
	if err != nil {
		return err
	}
	defer dst.Close()
	notes, err := stage.Fit(ctx, dst, p)
	for _, n := range notes {
		log.Info("note: %s", n)
	}
	if err != nil {
		return err
	}
	for _, l := range p.Loose {
		log.Warn("target: %s", loose(l))
	}
	if err := queue.Create(ctx, dst.Conn); err != nil {
		return err
	}
	if err := queue.Conflicts(ctx, dst.Conn, p.Source.Origin, p.Tasks); err != nil {
		return err
	}
	// Before there is a task that could be copied: jobs stop changing what is
	// copied to, and aggregates are primed while their range is still empty.
	if err := targetJobs(ctx, dst, p, f.Pause, log); err != nil {
		return err
	}
	if err := cagg.Prime(ctx, dst, p, log.Info); err != nil {
		return err
	}
	recorded, err := queue.Record(ctx, dst.Conn, p.Tasks)
	if err != nil {
		return err
	}
	return report(p, recorded, log, stdout)
}

// report prints the records of what is newly staged, and sums it up for people.
func report(p *stage.Plan, recorded *queue.Recorded, log *cli.Log, stdout io.Writer) error {
	if n := len(recorded.Retired); n > 0 {
		first := recorded.Retired[0].String()
		if n > 1 {
			first = fmt.Sprintf("%s and %d more", first, n-1)
		}
		log.Info("retired, as other chunks have taken over their rows (renamed, merged or split) and are staged instead: %s", first)
	}
	var bytes int64
	for _, t := range recorded.Staged {
		bytes += t.Bytes
		if err := task.Write(stdout, t); err != nil {
			return err
		}
	}
	if len(p.Tasks) > 0 {
		log.Info("%d of %d chunks newly staged, about %s, of %s", len(recorded.Staged), len(p.Tasks), cli.Bytes(bytes), hypertables(len(p.Hypertables)))
	}
	return nil
}

// nothing says why the plan has no tasks.
func nothing(p *stage.Plan) string {
	if len(p.Hypertables) == 0 {
		return "the source has no hypertables"
	}
	return fmt.Sprintf("the source has no chunk of %s in the range", hypertables(len(p.Hypertables)))
}

func hypertables(n int) string {
	if n == 1 {
		return "1 hypertable"
	}
	return fmt.Sprintf("%d hypertables", n)
}
