package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bf/lib/source"
	"bf/lib/task"
)

// piece is a slice of a stretch: what a task would be of a chunk of the source, or
// a range for which the source has no chunk.
type piece struct {
	task   *task.Task
	beside bool // the source has no chunk there
	// except are the extents of the source's chunks in the range: those of other
	// partitions.
	except [][]task.Slice

	rows  int64          // on the source, at the first look
	seen  map[int64]pair // what differed then; nil before
	whole bool           // that is all that differed
}

// pair is what the two sides hold of a key.
type pair struct{ source, target sum }

// The most keys that are followed from one look to the next, rows that are
// fetched to find them, and rows that a result lists.
const (
	mostKeys   = 1000
	mostSums   = 100_000
	mostListed = 100
)

// look compares the two sides of a slice. What differs may be on its way: the
// application writes to one side first. So what differs is looked at again later;
// until then the result is nil.
func (p *Pair) look(ctx context.Context, s *piece) (*task.Result, error) {
	from, to, err := p.enter(ctx, s)
	defer from.leave(ctx)
	defer to.leave(ctx)
	res := &task.Result{V: task.Version, Hypertable: s.task.Target(), Chunk: s.task.Chunk}
	if errors.Is(err, source.ErrGone) {
		sourceGone(res)
		return res, nil
	}
	if err != nil {
		return nil, err
	}
	cols, types := agree(from, to)
	if p.method == ByValue {
		if cols, err = bothByEquality(ctx, from, to, cols); err != nil {
			return nil, err
		}
	}
	f, err := newFinder(ctx, from, to, cols)
	if err != nil {
		return nil, err
	}
	if s.seen != nil {
		done, err := f.lookAgain(ctx, s, res)
		if err == nil && done && res.Status == task.Differs && p.method == ByRows {
			err = p.excuseSlice(ctx, f, res)
		}
		if err != nil || done {
			note(res, from, to)
			return res, err
		}
	}
	return p.firstLook(ctx, f, s, res, types)
}

// enter opens the transactions on both sides.
func (p *Pair) enter(ctx context.Context, s *piece) (from, to *side, err error) {
	to = &side{db: p.Target}
	if s.beside {
		from, err = enterTarget(ctx, p.Source, s.task) // as on a target: by the hypertable
	} else {
		from, err = enterSource(ctx, p.Source, s.task)
	}
	if errors.Is(err, source.ErrGone) {
		return from, to, err
	}
	if err != nil {
		return from, to, p.Source.Wrap(err, "%s", s)
	}
	if to, err = enterTarget(ctx, p.Target, s.task); err != nil {
		return from, to, p.Target.Wrap(err, "%s", s)
	}
	return from, to, errors.Join(from.leaveOut(s), to.leaveOut(s))
}

// String names the slice in messages.
func (s *piece) String() string { return fmt.Sprintf("%s %s", s.task.Target(), &s.task.Range) }

// leaveOut leaves out the rows of other slices. The slice has a range of its own,
// so that there is a condition already.
func (s *side) leaveOut(of *piece) error {
	var others []string
	for _, extent := range of.except {
		all := task.NewRange(extent[0].Column, task.MinBound, task.MaxBound)
		cond, err := s.h.TaskCondition(s.db, &task.Task{Slices: extent, Range: all})
		if err != nil {
			return err
		}
		others = append(others, cond)
	}
	if len(others) > 0 {
		s.rows += " and not (" + strings.Join(others, " or ") + ")"
	}
	return nil
}

// newFinder returns what finds rows that differ: by the unique key, where there is
// one, else by all of a row.
func newFinder(ctx context.Context, from, to *side, cols []Column) (*finder, error) {
	key, err := uniqueKey(ctx, from, cols)
	f := &finder{from: from, to: to, cols: cols, key: key, bits: 12}
	for i := range cols {
		if len(key) == 0 {
			f.key = append(f.key, i)
		}
	}
	return f, err
}

// firstLook compares all rows, and remembers which differ.
func (p *Pair) firstLook(ctx context.Context, f *finder, s *piece, res *task.Result, types []task.Difference) (
	*task.Result, error) {
	a, b, proven, err := p.compareBatches(ctx, f.from, f.to)
	if err == nil && !proven {
		a, b, err = both(ctx, f.from, f.to, func(ctx context.Context, s *side) (*Summary, error) {
			return s.summarize(ctx, f.cols, want{hash: true})
		})
	}
	if err != nil {
		return nil, err
	}
	s.rows = a.Rows
	switch {
	case len(types) > 0: // no row can be right
		res.Rows, res.Status, res.Differences = a.Rows, task.Differs, types
		res.Message = "differs: " + types[0].String()
		return res, nil
	case a.Rows == b.Rows && a.Hash == b.Hash:
		res.Rows, res.Status, res.Hash = a.Rows, task.Verified, a.Hash
		res.Message = fmt.Sprintf("equal: %d rows", a.Rows)
		note(res, f.from, f.to)
		return res, nil
	}
	s.seen, s.whole, err = f.all(ctx)
	return nil, err
}

// all returns the keys whose rows differ; whole is false if there are more.
func (f *finder) all(ctx context.Context) (seen map[int64]pair, whole bool, err error) {
	if err := f.prepare(ctx); err != nil {
		return nil, false, err
	}
	bucket := fmt.Sprintf("k & %d", int64(1)<<f.bits-1)
	a, b, err := f.sums(ctx, bucket, "true")
	if err != nil {
		return nil, false, err
	}
	other := differing(a, b)
	var rows int64
	few := other
	for i, n := range other {
		if rows += max(a[n].rows, b[n].rows); rows > mostSums && i > 0 {
			few = other[:i]
			break
		}
	}
	if a, b, err = f.sums(ctx, "k", bucket+" = any($1)", few); err != nil {
		return nil, false, err
	}
	keys := differing(a, b)
	whole = len(few) == len(other) && len(keys) <= mostKeys
	seen = map[int64]pair{}
	for _, k := range keys[:min(len(keys), mostKeys)] {
		seen[k] = pair{a[k], b[k]}
	}
	return seen, whole, nil
}

// lookAgain judges what differed before. It counts if it still does and one of the
// sides has not moved since: what the application writes again and again may be
// on its way each time. It reports false if that settles nothing: nothing lasts of
// what was seen, and that was not all.
func (f *finder) lookAgain(ctx context.Context, s *piece, res *task.Result) (done bool, err error) {
	if err := f.prepare(ctx); err != nil {
		return false, err
	}
	a, b, err := f.sums(ctx, "k", "k = any($1)", slices.Sorted(maps.Keys(s.seen)))
	if err != nil {
		return false, err
	}
	lasting := map[int64]pair{}
	for k, was := range s.seen {
		now := pair{a[k], b[k]}
		if now.source != now.target && (now.source == was.source || now.target == was.target) {
			lasting[k] = now
		}
	}
	res.Rows = s.rows
	switch {
	case len(lasting) > 0:
		return true, f.list(ctx, lasting, s.whole, res)
	case s.whole:
		res.Status = task.Verified
		res.Message = fmt.Sprintf("equal: %d rows, of which %d were on their way at the first look",
			s.rows, len(s.seen))
		return true, nil
	}
	s.seen = nil
	return false, nil
}

// list says which rows differ.
func (f *finder) list(ctx context.Context, lasting map[int64]pair, whole bool, res *task.Result) error {
	var onSource, onTarget, other int
	for _, d := range lasting {
		switch {
		case d.target.rows == 0:
			onSource++
		case d.source.rows == 0:
			onTarget++
		default:
			other++
		}
	}
	var parts []string
	for _, n := range []struct {
		rows int
		what string
	}{{onSource, "only on the source"}, {onTarget, "only on the target"}, {other, "not the same on both"}} {
		if n.rows > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n.rows, n.what))
		}
	}
	res.Status, res.Message = task.Differs, "differs: rows: "+strings.Join(parts, ", ")
	if !whole {
		res.Message = "differs: rows: at least " + strings.Join(parts, ", ")
	}
	keys := slices.Sorted(maps.Keys(lasting))
	keys = keys[:min(len(keys), mostListed)]
	var err error
	if len(f.key) < len(f.cols) {
		res.Differences, err = f.compare(ctx, keys)
	} else {
		res.Differences, err = f.counted(ctx, keys, lasting)
	}
	slices.SortStableFunc(res.Differences, func(a, b task.Difference) int { return cmp.Compare(a.Key, b.Key) })
	return err
}

// counted lists rows that are all key: how often each side has them.
func (f *finder) counted(ctx context.Context, keys []int64, of map[int64]pair) (diffs []task.Difference, err error) {
	a, b, err := both(ctx, f.from, f.to, func(ctx context.Context, s *side) (map[int64][]row, error) {
		return f.rows(ctx, s, keys)
	})
	for _, k := range keys {
		if rows := append(a[k], b[k]...); len(rows) > 0 {
			diffs = append(diffs, task.Difference{What: "row", Key: f.name(rows[0]),
				Source: times(int(of[k].source.rows)), Target: times(int(of[k].target.rows))})
		}
	}
	return diffs, err
}

// excuseSlice adds to a result that the rows are equal by value, if they are.
func (p *Pair) excuseSlice(ctx context.Context, f *finder, res *task.Result) error {
	equal, err := equalByValue(ctx, f.from, f.to, f.cols)
	if err == nil && equal {
		excuse(res, f.to)
	}
	return err
}

// note adds what the reader of a result should know of the sides.
func note(res *task.Result, sides ...*side) {
	for _, s := range sides {
		if s.note != "" {
			res.Message += "; " + s.note
		}
	}
}
