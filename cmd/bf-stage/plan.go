package main

import (
	"fmt"
	"io"
	"slices"

	"bf/lib/cagg"
	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/source"
	"bf/lib/stage"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// plan makes the plan from the source or reads it from stdin, and records it on
// the target or prints it.
func plan(e *cli.Env, f *flags) (err error) {
	var dst *tsdb.DB
	if f.Target != "" {
		if dst, err = tsdb.Open(e.Stop.Context, pg.Target, f.Target, e.Options()); err != nil {
			return err
		}
		defer dst.Close()
	}
	var p *stage.Plan
	switch {
	case f.Source == "":
		p, err = stage.Read(e.Stdin)
	case source.IsCSV(f.Source):
		p, err = fromCSV(e, f, dst)
	default:
		p, err = fromSource(e, f, dst)
	}
	if err != nil {
		return err
	}
	if p.Again && len(p.Tasks) == 0 {
		e.Log.Info("nothing to do: nothing that could be copied again differs")
		return nil
	}
	if f.Dry {
		err = dryRun(e, f, p)
	} else if f.Target == "" {
		err = p.Write(e.Stdout)
	} else {
		err = record(e, f, dst, p)
	}
	if err == nil && len(p.Tasks) == 0 {
		e.Log.Info("nothing to do: %s", nothing(p))
	}
	return err
}

// fromSource makes the plan and prints what people should know of the source.
func fromSource(e *cli.Env, f *flags, dst *tsdb.DB) (*stage.Plan, error) {
	ctx, log := e.Stop.Context, e.Log
	src, err := tsdb.Open(ctx, pg.Source, f.Source, e.Options())
	if err != nil {
		return nil, err
	}
	defer src.Close()
	p, err := stage.Make(ctx, src, stage.Options{From: f.From, Until: f.Until, Snapshot: f.Snapshot,
		Choice: tsdb.Choice{Filter: f.Filter, Up: f.Up, Down: f.Down},
		Target: dst, Maps: f.Maps, Any: f.Scan == "any", SkipNull: f.SkipNull, Columnstore: f.Columns,
		Progress: log.Info})
	if err != nil {
		return nil, err
	}
	for _, n := range p.Notes {
		log.Warn("source: %s", n)
	}
	if err := sourceJobs(ctx, src, p, log); err != nil {
		return nil, err
	}
	beyond, err := cagg.Beyond(ctx, src, p.Hypertables)
	for _, view := range beyond {
		log.Warn("source: %s has buckets whose raw data is gone, and is not staged: "+
			"they will be missing on the target (--cascade-up stages it)", view)
	}
	return p, err
}

// record compares the plan with the target and records it there.
func record(e *cli.Env, f *flags, dst *tsdb.DB, p *stage.Plan) error {
	ctx, log := e.Stop.Context, e.Log
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
	if err := checkExchanged(e, f, dst, p); err != nil {
		return err
	}
	if err := queue.Create(ctx, dst.Conn); err != nil {
		return err
	}
	if err := queue.Conflicts(ctx, dst.Conn, p.Source.Origin, p.Tasks); err != nil {
		return err
	}
	// Before there are tasks that a lane could copy: pause the jobs, and prime the
	// aggregates while their range is still empty.
	if err := targetJobs(ctx, dst, p, f.Pause, log); err != nil {
		return err
	}
	if err := cagg.Prime(ctx, dst, aggregates(p), log.Info); err != nil {
		return err
	}
	recorded, err := queue.Record(ctx, dst.Conn, p.Tasks, p.Again)
	if err != nil {
		return err
	}
	return report(p, recorded, log, e.Stdout)
}

// aggregates are those of the plan, for package cagg.
func aggregates(p *stage.Plan) (planned []cagg.Planned) {
	for _, a := range p.Aggregates {
		staged := slices.ContainsFunc(p.Hypertables, func(h *tsdb.Hypertable) bool {
			return h.View != nil && *h.View == a.View
		})
		planned = append(planned, cagg.Planned{View: a.View, Watermark: a.Watermark, Until: a.Until, Staged: staged})
	}
	return planned
}

// report prints the records of the new tasks, and a summary for people.
func report(p *stage.Plan, recorded *queue.Recorded, log *cli.Log, stdout io.Writer) error {
	if n := len(recorded.Retired); n > 0 {
		first := recorded.Retired[0].String()
		if n > 1 {
			first = fmt.Sprintf("%s and %d more", first, n-1)
		}
		log.Info("retired, as other chunks have taken over their rows (renamed, "+
			"merged or split) and are staged instead: %s", first)
	}
	var bytes int64
	for _, t := range recorded.Staged {
		bytes += t.Bytes
		if err := task.Write(stdout, t); err != nil {
			return err
		}
	}
	if len(p.Tasks) > 0 {
		about := ""
		if bytes > 0 { // of a command nothing is known
			about = ", about " + cli.Bytes(bytes)
		}
		log.Info("%d of %d chunks newly staged%s, of %s",
			len(recorded.Staged), len(p.Tasks), about, hypertables(len(p.Hypertables)))
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
