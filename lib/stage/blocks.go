package stage

import (
	"cmp"
	"context"
	"slices"
	"time"

	"bf/lib/task"
	"bf/lib/tsdb"
)

const (
	// A relation is counted part by part, with a statement for each: it holds a snapshot for
	// a short time only, and can be interrupted. There are at least leastParts and
	// partsPerSlice times the slices, of blocksPerPart blocks or more: a part in which one
	// slice ends and the next begins is read for both.
	leastParts    = 400
	partsPerSlice = 10
	blocksPerPart = 8
	// sampled is how many blocks at either end of a leaf are read to guess the range of its rows.
	sampled = 4
	// boundsPerCount is the most bounds of slices in one statement. The server finds a row's
	// slice by bisection: their number hardly matters to it.
	boundsPerCount = 5000
	// tellEach is how often a count says how far it is.
	tellEach = 10 * time.Second
	// runsPerLeaf is the most ranges of blocks that a record has of a leaf.
	runsPerLeaf = 32
)

// run is a range of blocks.
type run = task.Blocks

// hit says that a piece of a leaf has rows of a piece of the grid.
type hit struct {
	part tsdb.Part
	span
	rows int64
}

// count finds the slices with rows by counting all rows once, and where they are.
func (s *survey) count(ctx context.Context) error {
	all := span{From: max(s.lo, s.Lowest()), Until: s.hi}
	likely, err := counter{s}.guess(ctx, all)
	if err != nil {
		return err
	}
	pieces := s.grid.cut(likely, boundsPerCount)
	parts := s.parts(len(pieces))
	if all.From < likely.From {
		pieces = append([]span{{From: all.From, Until: likely.From}}, pieces...)
	}
	if likely.Until < all.Until {
		pieces = append(pieces, span{From: likely.Until, Until: all.Until})
	}
	hits, out, err := counter{s}.pass(ctx, parts, pieces, true)
	if err != nil {
		return err
	}
	s.out = out
	s.gather(hits)
	return nil
}

// parts are what is counted in one statement each, for about so many slices.
func (s *survey) parts(slices int) (parts []tsdb.Part) {
	blocks, n := s.mappable() == nil, max(leastParts, partsPerSlice*int64(slices))
	step := max(blocksPerPart, (blocksOf(s.leaves)+n-1)/n)
	for _, l := range s.leaves {
		if !blocks || l.Blocks == 0 {
			parts = append(parts, tsdb.Part{Leaf: l})
			continue
		}
		for at := int64(0); at < l.Blocks; at += step {
			parts = append(parts, tsdb.Part{Leaf: l, First: at, Until: min(at+step, l.Blocks)})
		}
	}
	return parts
}

// counter counts the rows of the relation, by parts and pieces of the grid.
type counter struct{ *survey }

// guess is the range in which the rows probably are. Bounds of slices beyond it would be
// passed to the server for nothing. Rows that are there all the same are counted as one
// piece, and then again, slice by slice.
func (c counter) guess(ctx context.Context, in span) (span, error) {
	likely := span{From: in.Until, Until: in.From}
	// The first and the last blocks of each leaf are read; of a leaf that cannot be read by
	// blocks, all rows.
	for _, l := range c.leaves {
		some := []tsdb.Part{{Leaf: l}}
		if l.Blocks > 2*sampled && c.mappable() == nil {
			some = []tsdb.Part{{Leaf: l, Until: sampled}, {Leaf: l, First: l.Blocks - sampled, Until: l.Blocks}}
		}
		for i, p := range some {
			within, ok, err := c.edges(ctx, p, in)
			switch {
			case err != nil:
				return in, err
			case ok:
				likely = span{From: min(likely.From, within.From), Until: max(likely.Until, within.Until)}
			case i == 1: // what is later than T, or nothing
				likely.Until = in.Until
			}
		}
	}
	if likely.From >= likely.Until {
		return in, nil
	}
	// Room for what came a little early or late; by halves, as a difference may overflow.
	room := (likely.Until/2 - likely.From/2) / 4
	from, until := in.From, in.Until
	if likely.From/2-in.From/2 > room {
		from = max(in.From, c.grid.at(likely.From-room).From)
	}
	if in.Until/2-likely.Until/2 > room {
		until = min(in.Until, c.grid.at(likely.Until+room).Until)
	}
	return span{From: from, Until: until}, nil
}

// edges are the least value of a part in a range, and the one after the greatest.
func (c counter) edges(ctx context.Context, p tsdb.Part, in span) (within span, ok bool, err error) {
	first, ok, err := p.Earliest(ctx, c.src, c.Hypertable, in.From, in.Until)
	if err != nil || !ok {
		return in, false, err
	}
	last, ok, err := p.Latest(ctx, c.src, c.Hypertable, in.From, in.Until)
	return span{From: first, Until: last + 1}, ok, err
}

// pass counts the rows of the pieces of the grid in each part. Where a piece with rows
// is more than one extent, it is counted again in smaller pieces, in the parts that
// have its rows.
func (c counter) pass(ctx context.Context, parts []tsdb.Part, pieces []span, first bool) (
	hits []hit, out int64, err error) {
	bounds := make([]int64, 0, len(pieces)+1)
	for _, p := range pieces {
		bounds = append(bounds, p.From)
	}
	bounds = append(bounds, pieces[len(pieces)-1].Until)
	again, told := map[int][]tsdb.Part{}, time.Now()
	var next expectation
	for i, part := range parts {
		if rows, err := next.holds(ctx, c, part); err != nil {
			return nil, 0, err
		} else if rows > 0 {
			hits = append(hits, hit{part, next.span, rows})
			continue
		}
		n, o, err := part.Count(ctx, c.src, c.Hypertable, bounds)
		if err != nil {
			return nil, 0, err
		}
		out += o
		next.learn(c.grid, pieces, n[:len(pieces)])
		for at, rows := range n[:len(pieces)] {
			switch {
			case rows == 0:
			case c.grid.whole(pieces[at]):
				hits = append(hits, hit{part, pieces[at], rows})
			default:
				again[at] = append(again[at], part)
			}
		}
		if first && c.o.Progress != nil && time.Since(told) > tellEach {
			c.o.Progress("%s: %d of %d ranges of blocks counted", c.Name, i+1, len(parts))
			told = time.Now()
		}
	}
	for at, parts := range again {
		more, err := c.refine(ctx, parts, pieces[at])
		if err != nil {
			return nil, 0, err
		}
		hits = append(hits, more...)
	}
	return hits, out, nil
}

// expectation is the slice that probably has all rows of the next part: where rows are
// nearly in the order of time, most parts have rows of one slice only. To count the rows of
// one slice takes half the time of finding the slice of each row.
type expectation struct {
	span
	known  bool
	misses int // in succession
}

// missesAtMost is after how many wrong expectations in succession no more are tried: where
// rows are in no order, they would all be wrong.
const missesAtMost = 2

// holds is how many rows the part has if all of them are where they are expected, else 0.
func (x *expectation) holds(ctx context.Context, c counter, p tsdb.Part) (int64, error) {
	if !x.known || x.misses >= missesAtMost {
		return 0, nil
	}
	all, within, err := p.Within(ctx, c.src, c.Hypertable, x.span)
	if err != nil || all != within || all == 0 {
		x.misses++
		return 0, err
	}
	x.misses = 0
	return all, nil
}

// learn expects the rows of the next part in the last extent in which the last one had some.
func (x *expectation) learn(grid *grid, pieces []span, rows []int64) {
	found := 0
	for i, n := range rows {
		if n > 0 {
			x.span, x.known = pieces[i], grid.whole(pieces[i]) && pieces[i].Until < task.MaxBound
			found++
		}
	}
	if found == 1 {
		x.misses = 0
	}
}

// refine counts a piece again, from its first row to its last.
func (c counter) refine(ctx context.Context, parts []tsdb.Part, piece span) ([]hit, error) {
	in := span{From: piece.Until, Until: piece.From}
	for _, p := range parts {
		within, ok, err := c.edges(ctx, p, piece)
		if err != nil {
			return nil, err
		}
		if ok {
			in = span{From: min(in.From, within.From), Until: max(in.Until, within.Until)}
		}
	}
	if in.From >= in.Until {
		return nil, nil // they have been deleted since
	}
	in = span{From: max(piece.From, c.grid.at(in.From).From), Until: min(piece.Until, c.grid.at(in.Until-1).Until)}
	hits, _, err := c.pass(ctx, parts, c.grid.cut(in, boundsPerCount), false)
	return hits, err
}

// gather makes slices of what was found.
func (s *survey) gather(hits []hit) {
	by := map[int64]*slice{}
	for _, h := range hits {
		sl := s.slice(h.From)
		if by[sl.From] == nil {
			by[sl.From] = sl
			sl.runs = map[task.Name][]run{}
			s.slices = append(s.slices, sl)
		}
		sl = by[sl.From]
		sl.rows += h.rows
		if h.part.Until > 0 {
			name := h.part.Leaf.Name
			sl.runs[name] = append(sl.runs[name], run{First: uint32(h.part.First), Until: uint32(h.part.Until)})
		}
	}
	slices.SortFunc(s.slices, func(a, b *slice) int { return cmp.Compare(a.From, b.From) })
	for _, sl := range s.slices {
		for name, runs := range sl.runs {
			sl.runs[name] = join(runs, runsPerLeaf)
		}
	}
}

// join sorts ranges of blocks and joins those that touch, and then those with the least
// between them, until there are no more than most (two at least).
func join(runs []run, most int) []run {
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.First, b.First) })
	out := runs[:0]
	for _, r := range runs {
		if n := len(out); n > 0 && r.First <= out[n-1].Until {
			out[n-1].Until = max(out[n-1].Until, r.Until)
		} else {
			out = append(out, r)
		}
	}
	if len(out) <= most {
		return out
	}
	gaps := make([]uint32, 0, len(out)-1)
	for i := 1; i < len(out); i++ {
		gaps = append(gaps, out[i].First-out[i-1].Until)
	}
	sorted := slices.Sorted(slices.Values(gaps))
	wide, left := sorted[len(sorted)-most+1], 0 // gaps of this width stay, as far as there is room
	for _, g := range gaps {
		if g > wide {
			left++
		}
	}
	kept := out[:1]
	for i, r := range out[1:] {
		stays := gaps[i] > wide
		if gaps[i] == wide && left < most-1 {
			stays, left = true, left+1
		}
		if stays {
			kept = append(kept, r)
		} else {
			kept[len(kept)-1].Until = r.Until
		}
	}
	return kept
}

// blocks are the leaves of a slice, with the blocks that hold its rows.
func (s *survey) blocks(sl *slice) (leaves []task.Leaf) {
	for _, l := range s.leaves {
		if runs := sl.runs[l.Name]; len(runs) > 0 {
			leaves = append(leaves, task.Leaf{Name: l.Name, Filenode: l.Filenode, Blocks: runs})
		}
	}
	return leaves
}

// byBlocks is how many times all tasks together read the relation, each its blocks.
func (s *survey) byBlocks() float64 {
	var read int64
	for _, sl := range s.slices {
		for _, runs := range sl.runs {
			for _, r := range runs {
				read += int64(r.Until - r.First)
			}
		}
	}
	return float64(read) / float64(max(blocksOf(s.leaves), 1))
}
