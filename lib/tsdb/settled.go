package tsdb

import (
	"context"

	"bf/lib/task"
)

// Settled returns whether a chunk with this slice of the primary dimension is not
// going to change or to be compressed by itself: its range ended at least the width of
// a chunk ago, and the hypertable has no compression policy. Of an integer dimension
// the newest chunk of the hypertable tells what time it is.
func Settled(ctx context.Context, db *DB, h *Hypertable) (func(task.Slice) bool, error) {
	never := func(task.Slice) bool { return false }
	jobs, err := db.Jobs(ctx, []*Hypertable{h})
	if err != nil {
		return never, err
	}
	for _, j := range jobs {
		if j.Kind == Compression {
			return never, nil
		}
	}
	now := "extract(epoch from now())"
	switch h.Dimensions[0].RangeType {
	case "timestamp with time zone", "uuid":
	case "timestamp without time zone", "date":
		now = "extract(epoch from localtimestamp)"
	default:
		now = ""
	}
	var at *int64
	if now != "" {
		err = db.QueryRow(ctx, "select ("+now+" * 1000000)::bigint").Scan(&at)
	} else {
		err = db.QueryRow(ctx, `select max(range_start) from _timescaledb_catalog.dimension_slice
            where dimension_id = (select id from _timescaledb_catalog.dimension where hypertable_id = $1
            and column_name = $2)`,
			h.ID, h.Dimensions[0].Column).Scan(&at)
	}
	if err != nil || at == nil {
		return never, db.Wrap(err, "what time it is for %s", h.Name)
	}
	return func(s task.Slice) bool {
		from, until := s.Bounds()
		return until < task.MaxBound && until <= *at-(until-from)
	}, nil
}
