package tsdb

import (
	"context"
	"strings"

	"bf/lib/pg"
)

// BatchFilter is the columns by which a statement finds the few batches of a chunk
// that may have a row: ≥ 2.28, DELETE and UPDATE go through batches, and a ctid does
// not keep them from that. The first is the primary dimension's.
type BatchFilter []string

// NewBatchFilter returns the filter for a chunk.
func NewBatchFilter(ctx context.Context, db *DB, h *Hypertable, c *Chunk) (BatchFilter, error) {
	b := BatchFilter{h.Dimensions[0].Column}
	settings, err := c.Settings(ctx, db)
	if err == nil && settings != nil {
		b = append(b, settings.SegmentBy...)
	}
	return b, err
}

// Values is the SQL expression whose result Where takes.
func (b BatchFilter) Values() string {
	var show []string
	for _, c := range b {
		show = append(show, pg.Ident(c)+"::text")
	}
	return "array[" + strings.Join(show, ", ") + "]"
}

// Where finds rows with these values. It is volatile: else batches all of whose
// rows have them would be deleted as a whole, whatever the ctid is.
func (b BatchFilter) Where(values []*string) string {
	where := "random() <= 1"
	for i, c := range b {
		if values[i] == nil {
			where += " and " + pg.Ident(c) + " is null"
		} else {
			where += " and " + pg.Ident(c) + " = " + pg.Literal(*values[i])
		}
	}
	return where
}
