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
	// A leaf is counted in so many pieces, of no fewer blocks: each is a statement of
	// its own, which holds its snapshot for no longer and can be interrupted.
	piecesPerLeaf  = 1000
	blocksPerPiece = 8
	// So many bounds at a time. Their number hardly matters to the server.
	boundsPerCount = 5000
	// A count says how far it is, each time that so much has passed.
	tellEach = 10 * time.Second
	// So many ranges of blocks has a leaf in a record.
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
	parts := s.parts()
	lo, err := counter{s}.guess(ctx, parts)
	if err != nil {
		return err
	}
	pieces := s.grid.cut(span{From: lo, Until: s.hi}, boundsPerCount)
	if from := max(s.lo, s.Lowest()); from < lo {
		pieces = append([]span{{From: from, Until: lo}}, pieces...)
	}
	hits, out, err := counter{s}.pass(ctx, parts, pieces, true)
	if err != nil {
		return err
	}
	s.out = out
	s.gather(hits)
	return nil
}

// parts are what is counted in one statement each.
func (s *survey) parts() (parts []tsdb.Part) {
	blocks := s.mappable() == nil
	for _, l := range s.leaves {
		if !blocks || l.Blocks == 0 {
			parts = append(parts, tsdb.Part{Leaf: l})
			continue
		}
		step := max(blocksPerPiece, (l.Blocks+piecesPerLeaf-1)/piecesPerLeaf)
		for at := int64(0); at < l.Blocks; at += step {
			parts = append(parts, tsdb.Part{Leaf: l, First: at, Until: min(at+step, l.Blocks)})
		}
	}
	return parts
}

// counter counts the rows of the relation, by parts and pieces of the grid.
type counter struct{ *survey }

// guess is where the first rows probably are: bounds before that would be counted for
// nothing. What is before it is looked at again.
func (c counter) guess(ctx context.Context, parts []tsdb.Part) (int64, error) {
	lo, hi := max(c.lo, c.Lowest()), c.hi
	lowest := hi
	// A few blocks of each leaf tell; of what has no blocks, all of it.
	last := map[*tsdb.Leaf]int{}
	for i, p := range parts {
		last[p.Leaf] = i
	}
	for i, p := range parts {
		if p.Until != 0 && p.First != 0 && i != last[p.Leaf] {
			continue
		}
		if p.Until != 0 {
			p.Until = min(p.Until, p.First+4)
		}
		v, ok, err := p.Earliest(ctx, c.src, c.Hypertable, lo, hi)
		if err != nil {
			return 0, err
		}
		if ok {
			lowest = min(lowest, v)
		}
	}
	if lowest == hi {
		return lo, nil
	}
	return max(lo, c.grid.at(lowest).From), nil
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
	for i, part := range parts {
		n, o, err := part.Count(ctx, c.src, c.Hypertable, bounds)
		if err != nil {
			return nil, 0, err
		}
		out += o
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

// refine counts a piece again, from its first row to its last.
func (c counter) refine(ctx context.Context, parts []tsdb.Part, piece span) ([]hit, error) {
	in := span{From: piece.Until, Until: piece.From}
	for _, p := range parts {
		a, ok, err := p.Earliest(ctx, c.src, c.Hypertable, piece.From, piece.Until)
		if err != nil {
			return nil, err
		}
		b, ok2, err := p.Latest(ctx, c.src, c.Hypertable, piece.From, piece.Until)
		if err != nil {
			return nil, err
		}
		if ok && ok2 {
			in = span{From: min(in.From, a), Until: max(in.Until, b+1)}
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
	return float64(read) / float64(max(s.size(), 1))
}
