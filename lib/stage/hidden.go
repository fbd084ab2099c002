package stage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bf/lib/task"
	"bf/lib/tsdb"
)

// hidden says in which of the staged chunks of h the source has rows that no query
// shows, and what helps; "" for none.
func hidden(ctx context.Context, src *tsdb.DB, h *tsdb.Hypertable, chunks []*tsdb.Chunk,
	tasks []*task.Task) (string, error) {
	staged := map[task.Name]bool{}
	for _, t := range tasks {
		staged[t.Chunk] = true
	}
	chunks, err := tsdb.Hiding(ctx, src, slices.DeleteFunc(slices.Clone(chunks), func(c *tsdb.Chunk) bool {
		return !staged[c.Name]
	}))
	if err != nil {
		return "", err
	}
	var named []string
	var first *tsdb.Chunk
	more := 0
	for _, c := range chunks {
		n, err := c.HiddenRows(ctx, src, "")
		switch {
		case err != nil:
			return "", err
		case n == 0:
		case len(named) == 3:
			more++
		default:
			if first == nil {
				first = c
			}
			named = append(named, fmt.Sprintf("%d in %s", n, c.Name.Name))
		}
	}
	if first == nil {
		return "", nil
	}
	if more > 0 {
		named = append(named, fmt.Sprintf("some in %d more chunks", more))
	}
	return fmt.Sprintf("%s has rows beside the batches of compressed chunks that no query shows and that are not "+
		"copied: %s; %s",
		h.Label(), strings.Join(named, ", "),
		tsdb.Unhide(src.TimescaleDB, h.Name, first.Name, first.Status&tsdb.StatusFrozen != 0)), nil
}
