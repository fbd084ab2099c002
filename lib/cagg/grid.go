package cagg

import (
	"context"

	"bf/lib/tsdb"
)

// grid answers where the buckets of an aggregate begin and end. The server
// computes them, with the aggregate's own bucket function: it knows months, time
// zones and origins.
type grid struct {
	db    *tsdb.DB
	a     *tsdb.Aggregate
	width int64 // of a bucket, in internal units; a month counts as 30 days
}

func newGrid(ctx context.Context, db *tsdb.DB, a *tsdb.Aggregate) (*grid, error) {
	w, err := a.Width(ctx, db)
	return &grid{db, a, w}, err
}

// floor returns the starts of the buckets that hold the values.
func (g *grid) floor(ctx context.Context, values []int64) ([]int64, error) {
	if len(values) == 0 {
		return nil, nil
	}
	return g.a.Buckets(ctx, g.db, values...)
}

// floor1 is floor for one value.
func (g *grid) floor1(ctx context.Context, v int64) (int64, error) {
	f, err := g.floor(ctx, []int64{v})
	if err != nil {
		return 0, err
	}
	return f[0], nil
}

// ends returns the ends of buckets, given their starts.
func (g *grid) ends(ctx context.Context, starts []int64) ([]int64, error) {
	return g.a.Ends(ctx, g.db, g.width, starts)
}

// end is ends for one bucket.
func (g *grid) end(ctx context.Context, start int64) (int64, error) {
	e, err := g.ends(ctx, []int64{start})
	if err != nil {
		return 0, err
	}
	return e[0], nil
}

// ceil returns a value that begins a bucket as it is, and the end of the bucket
// for any other value.
func (g *grid) ceil(ctx context.Context, values []int64) ([]int64, error) {
	floors, err := g.floor(ctx, values)
	if err != nil {
		return nil, err
	}
	ends, err := g.ends(ctx, floors)
	if err != nil {
		return nil, err
	}
	for i, v := range values {
		if floors[i] == v {
			ends[i] = v
		}
	}
	return ends, nil
}

// grow widens spans to whole buckets; shrink narrows them to the whole buckets
// in them.
func (g *grid) grow(ctx context.Context, spans []span) ([]span, error) {
	from, until := split(spans)
	from, err := g.floor(ctx, from)
	if err == nil {
		until, err = g.ceil(ctx, until)
	}
	return join(from, until), err
}

func (g *grid) shrink(ctx context.Context, spans []span) ([]span, error) {
	from, until := split(spans)
	from, err := g.ceil(ctx, from)
	if err == nil {
		until, err = g.floor(ctx, until)
	}
	return join(from, until), err
}

func split(spans []span) (from, until []int64) {
	for _, s := range spans {
		from, until = append(from, s.From), append(until, s.Until)
	}
	return from, until
}

func join(from, until []int64) (spans []span) {
	for i := range min(len(from), len(until)) {
		spans = append(spans, span{From: from[i], Until: until[i]})
	}
	return merge(spans)
}
