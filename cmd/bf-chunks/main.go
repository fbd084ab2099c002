// Command bf-chunks lists the tasks of a backfill as records, one per line.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
)

const name = "bf-chunks"

type flags struct {
	Target  string  `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	Pending bool    `arg:"--pending" help:"tasks still to do (the default)"`
	Done    bool    `arg:"--done" help:"tasks that are done"`
	Failed  bool    `arg:"--failed" help:"pending tasks whose last attempt failed"`
	All     bool    `arg:"--all" help:"every task"`
	Claim   bool    `arg:"--claim" help:"hand out pending tasks one by one that no other lane holds, until nothing is pending"`
	Tasks   []int64 `arg:"--task,separate" help:"the task of that number, whatever its state (repeatable)" placeholder:"N"`
	Filter  string  `arg:"-f,--filter" help:"only tasks whose hypertable (schema.table) or continuous aggregate (schema.view) matches" placeholder:"REGEX"`
	Order   string  `arg:"--order" default:"newest" help:"newest, oldest or largest first" placeholder:"ORDER"`
	Null    bool    `arg:"-0,--null" help:"end records with a NUL byte, for xargs -0"`
	Summary bool    `arg:"--summary" help:"instead of the tasks, a table: how far each hypertable is, and how long the rest will take"`
	Watch   bool    `arg:"--watch" help:"the summary again and again until all is done: redrawn on a terminal, else a line each time"`
	Every   float64 `arg:"--every" default:"2" help:"seconds between two summaries of --watch" placeholder:"SECONDS"`
	JSON    bool    `arg:"--json" help:"the summary as records: one per hypertable, then one of the whole"`
	cli.Common
}

func (flags) Description() string {
	return "Lists the tasks of a backfill as records, one JSON object per line, or sums them up."
}

func (flags) Epilogue() string {
	return "  bf-chunks --target \"$TARGET\" --claim | bf-dump --source \"$SOURCE\" | bf-load --target \"$TARGET\""
}

var orders = map[string]string{"newest": queue.Newest, "oldest": queue.Oldest, "largest": queue.Largest}

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, _ io.Reader, stdout, stderr io.Writer) int {
	var f flags
	if done, status := cli.Parse(name, &f, args, stdout, stderr); done {
		return status
	}
	state, n := queue.Pending, 0
	for _, s := range []struct {
		set   bool
		state string
	}{{f.Pending, queue.Pending}, {f.Done, queue.Done}, {f.Failed, queue.Failed}, {f.All, queue.All}, {f.Claim, queue.Pending}, {len(f.Tasks) > 0, queue.All}, {f.Summary || f.Watch, queue.All}} {
		if s.set {
			state, n = s.state, n+1
		}
	}
	order, ok := orders[f.Order]
	switch {
	case f.Target == "":
		return cli.BadUsage(name, stderr, "--target is required (or BF_TARGET)")
	case n > 1:
		return cli.BadUsage(name, stderr, "give one of --pending, --done, --failed, --all, --claim, --task, --summary (or --watch)")
	case f.JSON && !f.Summary && !f.Watch:
		return cli.BadUsage(name, stderr, "--json is for --summary and --watch: tasks are listed as records anyway")
	case !(f.Every > 0 && f.Every <= 86400):
		return cli.BadUsage(name, stderr, "--every is a number of seconds, not %v", f.Every)
	case !ok:
		return cli.BadUsage(name, stderr, "--order is newest, oldest or largest, not %q", f.Order)
	}
	log := cli.NewLog(name, stderr, f.Common)
	stop := cli.Signals(log)
	out := &output{w: stdout, end: '\n'}
	if f.Null {
		out.end = 0
	}
	c, err := pg.Connect(stop.Context, pg.Target, f.Target, pg.Options{Application: name, Log: log.Info, Locks: f.Claim})
	if err == nil {
		defer c.Close()
		err = queue.Check(stop.Context, c)
	}
	if err != nil {
		if stop.Context.Err() != nil {
			return cli.Stopped
		}
		log.Error(err)
		return cli.Failed
	}
	if f.Filter != "" {
		some, err := queue.Any(stop.Context, c, queue.Selection{State: queue.All, Filter: f.Filter})
		if err != nil {
			return failed(log, err)
		}
		if !some {
			there, err := queue.Labels(stop.Context, c)
			if err != nil {
				return failed(log, err)
			}
			log.Info("no task matches --filter %q; there are: %s", f.Filter, task.Patterns(there))
		}
	}
	if f.Claim {
		return claim(c, f.Filter, order, out, log, stop)
	}
	if f.Watch {
		return watch(c, &f, stdout, log, stop)
	}
	if f.Summary {
		return summarize(c, &f, stdout, log, stop)
	}
	missing := slices.Clone(f.Tasks)
	err = queue.Each(stop.Context, c, queue.Selection{State: state, Tasks: f.Tasks, Filter: f.Filter, Order: order}, func(e *queue.Entry) error {
		if stop.Asked() {
			return errStopped
		}
		missing = slices.DeleteFunc(missing, func(n int64) bool { return n == e.Task.Task })
		return out.record(e)
	})
	if err == nil && len(missing) > 0 {
		what := "is not staged"
		if f.Filter != "" {
			what += ", or does not match --filter"
		}
		err = &pg.Error{Side: pg.Target, Object: fmt.Sprintf("task %d", missing[0]), Err: errors.New(what), Hint: "bf-chunks --all lists what is staged"}
	}
	switch {
	case err == errStopped:
		return cli.Stopped
	case err != nil:
		return failed(log, err)
	}
	return cli.OK
}

// failed prints why and returns the exit status.
func failed(log *cli.Log, err error) int {
	log.Error(err)
	if pg.Code(err) == pg.InvalidRegexp { // --filter
		return cli.Usage
	}
	return cli.Failed
}

// output writes records, each in one piece.
type output struct {
	w   io.Writer
	end byte
}

func (o *output) record(e *queue.Entry) error {
	b, err := json.Marshal(e.Task)
	if err != nil {
		return err
	}
	_, err = o.w.Write(append(b, o.end))
	return err
}
