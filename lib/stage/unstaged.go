package stage

import (
	"context"
	"slices"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// unstaged counts the chunks of a hypertable of the target that have rows, lie
// between staged chunks, and have no counterpart on the source: their rows stay.
func unstaged(ctx context.Context, dst *tsdb.DB, t *tsdb.Hypertable, tasks []*task.Task) (n int, err error) {
	type span struct{ from, until int64 }
	var staged []span
	for _, tk := range tasks {
		if tk.Target() != t.Label() {
			continue
		}
		from, until := tk.Slices[0].Bounds()
		staged = append(staged, span{from, until})
	}
	if len(staged) == 0 {
		return 0, nil
	}
	whole := staged[0]
	for _, s := range staged {
		whole = span{min(whole.from, s.from), max(whole.until, s.until)}
	}
	chunks, err := t.ChunksIn(ctx, dst, task.Range{Column: t.Dimensions[0].Column, From: task.FormatBound(whole.from),
		Until: task.FormatBound(whole.until)})
	if err != nil {
		return 0, err
	}
	for _, c := range chunks {
		from, until := c.Slices[0].Bounds()
		if slices.ContainsFunc(staged, func(s span) bool { return from < s.until && until > s.from }) {
			continue
		}
		var some bool
		if err := dst.QueryRow(ctx, "select exists (select from "+pg.Ident(c.Name.Schema, c.Name.Name)+")").
			Scan(&some); err != nil {
			return 0, dst.Wrap(err, "look into chunk %s", c.Name)
		}
		if some {
			n++
		}
	}
	return n, nil
}
