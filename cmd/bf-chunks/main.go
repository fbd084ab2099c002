// Command bf-chunks lists the tasks of a backfill as records, one per line.
package main

import (
	"time"

	"bf/lib/cli"
	"bf/lib/lane"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/view"
)

type flags struct {
	Target   string  `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	Pending  bool    `arg:"--pending" help:"tasks still to do (the default)"`
	Done     bool    `arg:"--done" help:"tasks that are done"`
	Failed   bool    `arg:"--failed" help:"pending tasks whose last attempt failed"`
	All      bool    `arg:"--all" help:"every task"`
	Claim    bool    `arg:"--claim" help:"hand out pending tasks one by one that no other lane holds, until nothing is pending"`
	Tasks    []int64 `arg:"--task,separate" help:"the task of that number, whatever its state (repeatable)" placeholder:"N"`
	Filter   string  `arg:"-f,--filter" help:"only tasks whose hypertable (schema.table) or continuous aggregate (schema.view) matches" placeholder:"REGEX"`
	Order    string  `arg:"--order" default:"newest" help:"newest, oldest or largest first" placeholder:"ORDER"`
	Null     bool    `arg:"-0,--null" help:"end records with a NUL byte, for xargs -0"`
	Summary  bool    `arg:"--summary" help:"instead of the tasks, a table: how far each hypertable is, and how long the rest will take"`
	Watch    bool    `arg:"--watch" help:"a view of the whole backfill, redrawn until all is done; a line each time if stdout is not a terminal"`
	Report   bool    `arg:"--report" help:"what became of the backfill: copied how, when, how fast, compared how, what failed, what is left to do"`
	Every    float64 `arg:"--every" default:"2" help:"seconds between two looks of --watch, at least" placeholder:"SECONDS"`
	Messages bool    `arg:"--messages" help:"with --watch: pass on what is appended to the file that is stdin, above the view, until TERM (for bf-backfill)"`
	JSON     bool    `arg:"--json" help:"the summary as records: one per hypertable, then one of the whole; the report as one record"`
	cli.Common
}

func (*flags) Description() string {
	return "Lists the tasks of a backfill as records, one JSON object per line, or sums them up."
}

func (*flags) Epilogue() string {
	return "  bf-chunks --target \"$TARGET\" --claim | bf-dump --source \"$SOURCE\" | bf-load --target \"$TARGET\""
}

var orders = map[string]queue.Order{"newest": queue.Newest, "oldest": queue.Oldest, "largest": queue.Largest}

func main() { cli.Main("bf-chunks", &flags{}, run) }

func (f *flags) Check(e *cli.Env) error {
	_, ok := orders[f.Order]
	switch {
	case f.Target == "":
		return e.Usagef("--target is required (or BF_TARGET)")
	case len(f.states()) > 1:
		return e.Usagef("give one of --pending, --done, --failed, --all, --claim, --task, " +
			"--summary (or --watch), --report")
	case f.JSON && !f.Summary && !f.Watch && !f.Report:
		return e.Usagef("--json is for --summary, --watch and --report: tasks are listed as records anyway")
	case f.Messages && (!f.Watch || f.JSON):
		return e.Usagef("--messages is for --watch")
	case !(f.Every > 0 && f.Every <= 86400):
		return e.Usagef("--every is a number of seconds, not %v", f.Every)
	case !ok:
		return e.Usagef("--order is newest, oldest or largest, not %q", f.Order)
	}
	return nil
}

func run(e *cli.Env, f *flags) error {
	o := view.Options{Target: f.Target, Filter: f.Filter, Records: f.JSON,
		Every: time.Duration(f.Every * float64(time.Second))}
	if f.Messages {
		o.Messages = e.Stdin
		return view.Run(e, o) // connects by itself, as often as it takes
	}
	ctx, options := e.Stop.Context, e.Options()
	options.Locks = f.Claim
	c, err := pg.Connect(ctx, pg.Target, f.Target, options)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := queue.Check(ctx, c); err != nil {
		return err
	}
	if err := checkFilter(e, c, f.Filter); err != nil {
		return err
	}
	switch {
	case f.Claim:
		tasks, err := queue.NewLane(ctx, c, f.Filter, orders[f.Order])
		if err != nil {
			return err
		}
		return lane.Claim(e, tasks, func(entry *queue.Entry) error { return write(e.Stdout, entry, f.Null) })
	case f.Watch:
		return view.Watch(e, c, o)
	case f.Report:
		return view.Report(e, c, f.JSON)
	case f.Summary:
		return view.Summarize(e, c, o)
	}
	return list(e, c, f)
}
