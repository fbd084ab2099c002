package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
)

// states are those that were asked for.
func (f *flags) states() (states []queue.State) {
	for _, s := range []struct {
		set   bool
		state queue.State
	}{
		{f.Pending, queue.Pending}, {f.Done, queue.Done}, {f.Failed, queue.Failed}, {f.All, queue.All},
		{f.Claim, queue.Pending}, {len(f.Tasks) > 0, queue.All}, {f.Summary || f.Watch, queue.All},
		{f.Report, queue.All},
	} {
		if s.set {
			states = append(states, s.state)
		}
	}
	return states
}

// checkFilter says so when a filter matches nothing.
func checkFilter(e *cli.Env, c *pg.Conn, filter string) error {
	if filter == "" {
		return nil
	}
	some, err := queue.Any(e.Stop.Context, c, queue.Selection{State: queue.All, Filter: filter})
	if err != nil || some {
		return err
	}
	there, err := queue.Labels(e.Stop.Context, c)
	if err == nil {
		e.Log.Info("no task matches --filter %q; there are: %s", filter, task.Patterns(there))
	}
	return err
}

// list prints the records of the tasks that were asked for.
func list(e *cli.Env, c *pg.Conn, f *flags) error {
	s := queue.Selection{Tasks: f.Tasks, Filter: f.Filter, Order: orders[f.Order]}
	if states := f.states(); len(states) > 0 {
		s.State = states[0]
	}
	missing := slices.Clone(f.Tasks)
	err := queue.Each(e.Stop.Context, c, s, func(entry *queue.Entry) error {
		if e.Stop.Asked() {
			return cli.Exit(cli.Stopped)
		}
		missing = slices.DeleteFunc(missing, func(n int64) bool { return n == entry.Task.Task })
		return write(e.Stdout, entry, f.Null)
	})
	if err != nil || len(missing) == 0 {
		return err
	}
	what := "is not staged"
	if f.Filter != "" {
		what += ", or does not match --filter"
	}
	return &pg.Error{Side: pg.Target, Object: fmt.Sprintf("task %d", missing[0]), Err: errors.New(what),
		Hint: "bf-chunks --all lists what is staged"}
}

// write writes the record of a task in one piece.
func write(w io.Writer, e *queue.Entry, null bool) error {
	b, err := json.Marshal(e.Task)
	if err != nil {
		return err
	}
	end := byte('\n')
	if null {
		end = 0
	}
	_, err = w.Write(append(b, end))
	return err
}
