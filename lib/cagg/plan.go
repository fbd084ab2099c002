package cagg

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Window is a range of whole buckets that one refresh covers.
type Window struct {
	Span tsdb.Span
	// Keep is set where the aggregate's rows must not change. The refresh only
	// empties the invalidation log there, or moves the watermark.
	Keep bool
}

// Refresher refreshes aggregates of the target. Where a backfill is staged, it
// keeps the buckets that were copied. Without one (Planless) it creates nothing
// on the target: it computes what has changed since the last refresh, and leaves
// out buckets whose raw rows were deleted.
type Refresher struct {
	db       *tsdb.DB
	marks    map[task.Name]int64 // of the source
	byID     map[int32]*tsdb.Hypertable
	staged   map[task.Name]queue.StagedRange
	planless bool
}

// NewRefresher returns a Refresher for a target with a staged backfill, whose
// hypertables are all. marks are the source's watermarks by view.
func NewRefresher(ctx context.Context, db *tsdb.DB, all []*tsdb.Hypertable,
	marks map[task.Name]int64) (*Refresher, error) {
	r, err := Planless(ctx, db, all, marks)
	if err != nil {
		return nil, err
	}
	r.planless = false
	r.staged, err = queue.StagedRanges(ctx, db.Conn)
	return r, err
}

// Planless is NewRefresher for a target without schema __backfill.
func Planless(ctx context.Context, db *tsdb.DB, all []*tsdb.Hypertable, marks map[task.Name]int64) (*Refresher, error) {
	r := &Refresher{db: db, marks: marks, byID: map[int32]*tsdb.Hypertable{}, planless: true}
	for _, h := range all {
		r.byID[h.ID] = h
	}
	// A refresh deletes buckets in compressed chunks as well. It cannot run in a transaction.
	return r, db.UnlimitDecompression(ctx, true)
}

// Pending counts the pending tasks of the aggregate and of what it depends on.
func (r *Refresher) Pending(a *tsdb.Aggregate) (n int64) {
	for h := a.Hypertable; h != nil; h = r.byID[h.Raw] {
		n += r.staged[h.Label()].Pending
	}
	return n
}

// facts are what a plan is made from: one aggregate of the target, and the raw
// rows that it is computed from.
type facts struct {
	*grid
	raw    *tsdb.Hypertable
	until  int64  // nothing after this is planned: the higher one of the two watermarks
	logged []span // invalidated, that is, what a refresh would compute; in whole buckets
	filled []span // extents of the chunks with raw rows

	first, last int64 // first and last bucket of the aggregate, if ok
	ok          bool
}

// Plan returns the windows to refresh. The oldest comes first, so that a
// real-time view misses no bucket while its watermark moves up. more are ranges
// that will be invalidated by the time of the refresh (for a dry run).
func (r *Refresher) Plan(ctx context.Context, a *tsdb.Aggregate, more []tsdb.Span) ([]Window, error) {
	mark := r.marks[*a.View]
	if !a.Finalized {
		return nil, &pg.Error{Side: r.db.Side, Object: a.Label().String(), Err: errLegacy,
			Hint: "migrate it first: call cagg_migrate(" + pg.Literal(a.Label().String()) + ")"}
	}
	s, err := r.gather(ctx, a, max(mark, a.Watermark), more)
	if err != nil || s == nil {
		return nil, err
	}
	var windows []Window
	if st, ok := r.staged[*a.View]; ok && st.Cut != nil {
		windows, err = r.copied(ctx, s, min(st.Until, mark), *st.Cut)
	} else {
		windows, err = r.computed(ctx, s)
	}
	if a.Whole && r.planless {
		return r.whole(s, windows)
	}
	if a.Whole && len(s.logged) > 0 {
		_, copied := r.staged[*a.View]
		return []Window{{Span: span{From: s.logged[0].From, Until: s.logged[len(s.logged)-1].Until}, Keep: copied}}, err
	}
	slices.SortFunc(windows, func(a, b Window) int { return cmp.Compare(a.Span.From, b.Span.From) })
	return windows, err
}

func (r *Refresher) gather(ctx context.Context, a *tsdb.Aggregate, until int64, more []span) (*facts, error) {
	g, err := newGrid(ctx, r.db, a)
	if err != nil {
		return nil, err
	}
	s := &facts{grid: g, raw: r.byID[a.Raw], until: until}
	if s.first, s.ok, err = tsdb.First(ctx, r.db, a.Hypertable, task.MinBound, until); err != nil {
		return nil, err
	}
	from := until
	if s.ok {
		from = s.first
		if s.last, _, err = tsdb.Last(ctx, r.db, a.Hypertable, task.MinBound, until); err != nil {
			return nil, err
		}
	}
	visible, err := r.visible(ctx, s.raw)
	if err != nil {
		return nil, err
	}
	if s.filled = clip(visible, task.MinBound, until); len(s.filled) > 0 {
		from = min(from, s.filled[0].From)
	}
	if from >= until {
		return nil, nil // nothing is there
	}
	logged, err := a.Invalid(ctx, r.db)
	if err != nil {
		return nil, err
	}
	if logged, err = s.grow(ctx, clip(merge(append(logged, more...)), from, until)); err != nil {
		return nil, err
	}
	s.logged = logged
	return s, nil
}

// visible returns where a refresh of an aggregate on h finds rows. If h is behind
// a real-time view, these are its own buckets before its watermark, and from
// there on what it is computed from.
func (r *Refresher) visible(ctx context.Context, h *tsdb.Hypertable) ([]span, error) {
	filled, err := h.Filled(ctx, r.db)
	if err != nil {
		return nil, err
	}
	if len(filled) > 0 {
		first, _, err := tsdb.First(ctx, r.db, h, task.MinBound, task.MaxBound)
		if err != nil {
			return nil, err
		}
		filled = clip(merge(filled), first, task.MaxBound)
	}
	a, err := r.db.Aggregates(ctx, []*tsdb.Hypertable{h})
	if err != nil || len(a) == 0 || a[0].MaterializedOnly {
		return filled, err
	}
	below, err := r.visible(ctx, r.byID[h.Raw])
	return merge(append(clip(filled, task.MinBound, a[0].Watermark), clip(below, a[0].Watermark, task.MaxBound)...)),
		err
}

// copied plans for an aggregate whose buckets before copiedUntil were copied.
// Those are kept; newer buckets are computed from raw rows.
func (r *Refresher) copied(ctx context.Context, s *facts, copiedUntil, rawUntil int64) ([]Window, error) {
	// Where the application writes to the target (dual writes), the last copied
	// bucket has rows on both sides of --until: it has to be computed.
	_, live, err := tsdb.First(ctx, r.db, s.raw, rawUntil, task.MaxBound)
	if err != nil {
		return nil, err
	}
	right := int64(task.MaxBound)
	if live {
		if right, err = s.floor1(ctx, rawUntil); err != nil {
			return nil, err
		}
	}
	whole, err := s.shrink(ctx, r.covered(s, rawUntil, live))
	if err != nil {
		return nil, err
	}
	ends, err := s.ceil(ctx, []int64{copiedUntil})
	if err != nil {
		return nil, err
	}
	end := ends[0]
	// Copied buckets that a later refresh would delete, or compute from only a
	// part of their raw rows. The others would come out the same: policies may
	// refresh them.
	lost := clip(without(clip(s.logged, task.MinBound, end), whole), task.MinBound, right)
	windows, err := r.keep(ctx, s, lost)
	if err != nil {
		return nil, err
	}
	if s.ok && s.last < end {
		top, err := r.top(ctx, s, whole, lost, s.last >= right)
		if err != nil {
			return nil, err
		}
		windows = append(windows, top...)
	}
	touched, err := s.grow(ctx, s.filled)
	if err != nil {
		return nil, err
	}
	fresh, err := r.cut(ctx, s, clip(within(s.logged, touched), end, s.until))
	return append(windows, fresh...), err
}

// covered returns where all raw rows are that an aggregate may be computed from. Once all
// is copied, there are none between the last of them and --until, on the source neither.
func (r *Refresher) covered(s *facts, rawUntil int64, live bool) []span {
	before := clip(s.filled, task.MinBound, rawUntil)
	if n := len(before); n > 0 && r.Pending(s.a) == 0 {
		before = append(before, span{From: before[n-1].Until, Until: rawUntil})
	}
	if live {
		before = append(before, s.filled...)
	}
	return merge(before)
}

// top plans for the last bucket that was copied, unless its rows are kept anyway (lost):
// the watermark moves to the end of the last bucket of a refresh. cut says that there are
// rows on both sides of --until in it.
func (r *Refresher) top(ctx context.Context, s *facts, whole, lost []span, cut bool) ([]Window, error) {
	next, err := s.end(ctx, s.last)
	if err != nil {
		return nil, err
	}
	top := []span{{From: s.last, Until: next}}
	switch {
	case s.a.Watermark >= next || len(within(top, s.logged)) == 0 || len(within(top, lost)) > 0:
		return nil, nil
	case cut:
		return []Window{{Span: top[0]}}, nil
	case len(without(top, whole)) > 0:
		return r.keep(ctx, s, top)
	case r.db.Superuser:
		return nil, nil // Finish moves the watermark
	}
	// Rows that came late are in the log: to keep the bucket would lose them.
	return []Window{{Span: top[0]}}, nil
}

// computed plans for an aggregate that was not copied: it is computed wherever
// there are raw rows.
func (r *Refresher) computed(ctx context.Context, s *facts) ([]Window, error) {
	touched, err := s.grow(ctx, s.filled)
	if err != nil {
		return nil, err
	}
	todo := within(s.logged, touched)
	var windows []Window
	if len(touched) > 0 && s.ok && s.first < touched[0].From {
		// The aggregate reaches further back than the raw rows: the bucket in
		// which those begin has lost some of them.
		whole, err := s.shrink(ctx, s.filled)
		if err != nil {
			return nil, err
		}
		edge, err := s.end(ctx, touched[0].From)
		if err != nil {
			return nil, err
		}
		part := without(clip(todo, task.MinBound, edge), whole)
		if !r.planless { // else it is left alone: there is nowhere to put its rows aside
			if windows, err = r.keep(ctx, s, part); err != nil {
				return nil, err
			}
		}
		todo = without(todo, part)
	}
	fresh, err := r.cut(ctx, s, todo)
	return append(windows, fresh...), err
}

var errWhole = errors.New("only a refresh of everything would be right, " +
	"and it would delete the buckets whose raw rows are gone")

// whole plans without a staged backfill where only a refresh of everything is
// right.
func (r *Refresher) whole(s *facts, windows []Window) ([]Window, error) {
	if len(windows) == 0 {
		return nil, nil
	}
	if s.ok && s.first < windows[0].Span.From {
		return nil, &pg.Error{Side: r.db.Side, Object: s.a.Label().String(), Err: errWhole,
			Hint: "stage a backfill with bf-stage: then bf-caggs keeps them; or update TimescaleDB to 2.12 or later"}
	}
	return []Window{{Span: span{From: s.logged[0].From, Until: s.logged[len(s.logged)-1].Until}}}, nil
}

// A window covers this many chunks of raw rows, or one bucket if that is longer.
// It is what has to be done again after an interruption.
const windowChunks = 4

func (s *facts) step() int64 { return max(windowChunks*s.raw.Dimensions[0].Interval, s.width) }

// cut cuts spans into windows.
func (r *Refresher) cut(ctx context.Context, s *facts, spans []span) ([]Window, error) {
	var ws []Window
	for _, todo := range spans {
		for from := todo.From; from < todo.Until; {
			until, err := s.cutAt(ctx, from, todo.Until)
			if err != nil {
				return nil, err
			}
			ws = append(ws, Window{Span: span{From: from, Until: until}})
			from = until
		}
	}
	return ws, nil
}

// cutAt returns where a window ends that begins at from.
func (s *facts) cutAt(ctx context.Context, from, until int64) (int64, error) {
	if until-from <= s.step() {
		return until, nil
	}
	at, err := s.floor1(ctx, from+s.step())
	if err == nil && at <= from {
		at, err = s.end(ctx, from)
	}
	return min(at, until), err
}

// keep cuts spans into windows that keep their rows. Where there are no rows,
// there is no window.
// ≤ 2.22: invalidations are logged as if buckets had no origin or offset, so the bucket
// before a shifted one is kept as well.
func (r *Refresher) keep(ctx context.Context, s *facts, spans []span) ([]Window, error) {
	var ws []Window
	for _, todo := range spans {
		if s.a.Shifted {
			before, err := s.floor1(ctx, todo.From-1)
			if err != nil {
				return nil, err
			}
			todo.From = before
		}
		for from := todo.From; from < todo.Until; {
			first, ok, err := tsdb.First(ctx, r.db, s.a.Hypertable, from, todo.Until)
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			if first, err = s.floor1(ctx, first); err != nil {
				return nil, err
			}
			until := todo.Until
			if !s.a.Shifted { // else the refresh would change rows of the next window
				if until, err = s.cutAt(ctx, first, until); err != nil {
					return nil, err
				}
			}
			ws = append(ws, Window{Span: span{From: first, Until: until}, Keep: true})
			from = until
		}
	}
	return ws, nil
}
