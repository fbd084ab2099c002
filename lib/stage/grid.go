package stage

import (
	"cmp"
	"context"
	"math"
	"slices"

	"bf/lib/task"
	"bf/lib/tsdb"
)

// span is a range of internal values: from inclusive, until exclusive.
type span = tsdb.Span

// grid is how the target cuts the primary dimension of a hypertable into chunks: by
// the chunks that are there, and in the gaps between them as it would cut a new one,
// at multiples of the interval and at its neighbours. Where it cuts otherwise after
// all, a task is copied through the hypertable; that costs speed and nothing else.
type grid struct {
	chunks   []span // disjoint, in order
	interval int64
	ends     span // of the type
}

// newGrid asks the target.
func newGrid(ctx context.Context, dst *tsdb.DB, t *tsdb.Hypertable) (*grid, error) {
	chunks, err := dst.Chunks(ctx, t.ID)
	if err != nil {
		return nil, err
	}
	g := &grid{interval: max(t.Dimensions[0].Interval, 1), ends: endsOf(t.Dimensions[0].RangeType)}
	for _, c := range chunks {
		from, until := c.Slices[0].Bounds()
		g.chunks = append(g.chunks, span{From: from, Until: until})
	}
	// The chunks of hash partitions share their extents, unless the interval was
	// changed between them.
	slices.SortFunc(g.chunks, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Until, b.Until))
	})
	n := 0
	for _, c := range g.chunks {
		if n == 0 || c.From >= g.chunks[n-1].Until {
			g.chunks[n] = c
			n++
		}
	}
	g.chunks = g.chunks[:n]
	return g, nil
}

// at is the extent of the chunk that holds a value.
func (g *grid) at(v int64) span {
	// the first chunk that ends after it
	i, _ := slices.BinarySearchFunc(g.chunks, v, func(c span, v int64) int {
		if c.Until <= v {
			return -1
		}
		return 1
	})
	natural := g.natural(v)
	if i > 0 {
		natural.From = max(natural.From, g.chunks[i-1].Until)
	}
	if i == len(g.chunks) {
		return natural
	}
	if g.chunks[i].From <= v {
		return g.chunks[i]
	}
	natural.Until = min(natural.Until, g.chunks[i].From)
	return natural
}

// natural is the multiple of the interval that holds a value, open where it would pass
// the ends of the type, as TimescaleDB has it.
func (g *grid) natural(v int64) span {
	n := v / g.interval
	if v%g.interval < 0 {
		n--
	}
	s := span{From: task.MinBound, Until: task.MaxBound}
	if n >= g.ends.From/g.interval {
		s.From = n * g.interval
	}
	if n < g.ends.Until/g.interval {
		s.Until = (n + 1) * g.interval
	}
	return s
}

// endsOf are the least and the greatest internal value of a type.
func endsOf(typ string) span {
	switch typ {
	case "smallint":
		return span{From: math.MinInt16, Until: math.MaxInt16}
	case "integer":
		return span{From: math.MinInt32, Until: math.MaxInt32}
	case "bigint":
		return span{From: math.MinInt64, Until: math.MaxInt64}
	}
	return span{From: -210866803200000000, Until: 9223371331200000000} // 4714-11-24 BC, 294247-01-01
}

// cut cuts a range at the grid into pieces, of which there are no more than most:
// where there would be, several extents stay together.
func (g *grid) cut(in span, most int64) (pieces []span) {
	// Neither an overflow nor a length in float64 does harm: it is a width.
	each := max(int64((float64(in.Until)-float64(in.From))/float64(most)), 1)
	for from := in.From; from < in.Until; {
		until := g.at(from).Until
		if far := from + each; far > until && far > from {
			until = max(until, g.at(far).From)
		}
		until = min(until, in.Until)
		pieces = append(pieces, span{From: from, Until: until})
		from = until
	}
	return pieces
}

// whole reports whether a piece of cut is within one extent.
func (g *grid) whole(piece span) bool { return g.at(piece.From).Until >= piece.Until }
