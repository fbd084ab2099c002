package cagg

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Window is a range of whole buckets that one refresh covers.
type Window struct {
	Span tsdb.Span
	// Keep is set where the aggregate's rows are right as they are, and the
	// refresh is for TimescaleDB's books only: the log of changes, the
	// watermark.
	Keep bool
}

// Refresher refreshes aggregates of the target. Where a backfill is staged, it
// keeps the buckets that were copied. Where none is (Planless), nothing may be
// created on the target: there it computes what has changed since the target's
// last refresh, and leaves buckets alone whose raw rows are gone.
type Refresher struct {
	db       *tsdb.DB
	marks    map[task.Name]int64 // of the source
	byID     map[int32]*tsdb.Hypertable
	staged   map[task.Name]staged
	planless bool
}

// NewRefresher returns a Refresher for a target with a staged backfill, whose
// hypertables are all. marks are the source's watermarks by view.
func NewRefresher(ctx context.Context, db *tsdb.DB, all []*tsdb.Hypertable, marks map[task.Name]int64) (*Refresher, error) {
	r, err := Planless(ctx, db, all, marks)
	if err != nil {
		return nil, err
	}
	r.planless = false
	r.staged, err = stagedByName(ctx, db.Conn)
	return r, err
}

// Planless is NewRefresher for a target without schema __backfill.
func Planless(ctx context.Context, db *tsdb.DB, all []*tsdb.Hypertable, marks map[task.Name]int64) (*Refresher, error) {
	r := &Refresher{db: db, marks: marks, byID: map[int32]*tsdb.Hypertable{}, planless: true}
	for _, h := range all {
		r.byID[h.ID] = h
	}
	// A refresh deletes buckets of compressed chunks, too, however many rows
	// that decompresses.
	if _, err := db.Exec(ctx, "select set_config(name, '0', false) from pg_settings where name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'"); err != nil {
		return nil, db.Wrap(err, "session settings")
	}
	return r, nil
}

// Pending returns how many tasks are pending of the aggregate and of what it
// depends on.
func (r *Refresher) Pending(a *tsdb.Aggregate) (n int64) {
	for h := a.Hypertable; h != nil; h = r.byID[h.Raw] {
		n += r.staged[h.Label()].pending
	}
	return n
}

// scene is what a plan is made from: one aggregate and the raw data under it,
// on the target.
type scene struct {
	*grid
	raw    *tsdb.Hypertable
	until  int64  // end of what matters: the higher watermark
	logged []span // what TimescaleDB would refresh, in whole buckets
	filled []span // where raw data is

	first, last int64 // bucket of the aggregate, ok if there is one
	ok          bool
}

// Plan returns the windows to refresh, oldest first: a real-time view stays
// whole while its watermark climbs. more are ranges that will be logged by the
// time of the refresh, for a plan that is not carried out.
func (r *Refresher) Plan(ctx context.Context, a *tsdb.Aggregate, more []tsdb.Span) ([]Window, error) {
	mark := r.marks[*a.View]
	if !a.Finalized {
		return nil, &pg.Error{Side: r.db.Side, Object: a.Label().String(), Err: errLegacy,
			Hint: "migrate it first: call cagg_migrate(" + pg.Literal(a.Label().String()) + ")"}
	}
	s, err := r.look(ctx, a, max(mark, a.Watermark), more)
	if err != nil || s == nil {
		return nil, err
	}
	var windows []Window
	if st, ok := r.staged[*a.View]; ok && st.cut != nil {
		windows, err = r.copied(ctx, s, min(st.until, mark), *st.cut)
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

func (r *Refresher) look(ctx context.Context, a *tsdb.Aggregate, until int64, more []span) (*scene, error) {
	g, err := newGrid(ctx, r.db, a)
	if err != nil {
		return nil, err
	}
	s := &scene{grid: g, raw: r.byID[a.Raw], until: until}
	if s.first, s.ok, err = r.db.First(ctx, a.Hypertable, task.MinBound, until); err != nil {
		return nil, err
	}
	from := until
	if s.ok {
		from = s.first
		if s.last, _, err = r.db.Last(ctx, a.Hypertable, task.MinBound, until); err != nil {
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
	logged, err := r.db.Invalid(ctx, a)
	if err != nil {
		return nil, err
	}
	if logged, err = s.grow(ctx, clip(merge(append(logged, more...)), from, until)); err != nil {
		return nil, err
	}
	s.logged = logged
	return s, nil
}

// visible returns where a refresh finds rows of a hypertable, or of the view
// that stands for it: a real-time view takes its own buckets before its
// watermark, and what lies under it from there on.
func (r *Refresher) visible(ctx context.Context, h *tsdb.Hypertable) ([]span, error) {
	filled, err := r.db.Filled(ctx, h)
	if err != nil {
		return nil, err
	}
	if len(filled) > 0 {
		first, _, err := r.db.First(ctx, h, task.MinBound, task.MaxBound)
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
	return merge(append(clip(filled, task.MinBound, a[0].Watermark), clip(below, a[0].Watermark, task.MaxBound)...)), err
}

// copied plans for an aggregate whose buckets before copiedUntil were copied.
// They are right; what is newer is computed from raw data.
func (r *Refresher) copied(ctx context.Context, s *scene, copiedUntil, rawUntil int64) ([]Window, error) {
	// The bucket in which the copy ends goes on on the target if the
	// application writes there (dual writes): then it has to be computed.
	_, live, err := r.db.First(ctx, s.raw, rawUntil, task.MaxBound)
	if err != nil {
		return nil, err
	}
	covered := s.filled
	right := int64(task.MaxBound)
	if live {
		if right, err = s.floor1(ctx, rawUntil); err != nil {
			return nil, err
		}
	} else {
		covered = clip(covered, task.MinBound, rawUntil)
	}
	whole, err := s.shrink(ctx, covered)
	if err != nil {
		return nil, err
	}
	ends, err := s.ceil(ctx, []int64{copiedUntil})
	if err != nil {
		return nil, err
	}
	end := ends[0]
	// Copied buckets that a later refresh would delete, or compute from a part
	// of their raw data. The others would come out the same: they are left to
	// the policies.
	lost := clip(without(clip(s.logged, task.MinBound, end), whole), task.MinBound, right)
	windows, err := r.keep(ctx, s, lost)
	if err != nil {
		return nil, err
	}
	// The watermark moves to the end of the last bucket of a refresh.
	if s.ok && s.last < end {
		next, err := s.end(ctx, s.last)
		if err != nil {
			return nil, err
		}
		top := []span{{From: s.last, Until: next}}
		switch {
		case s.a.Watermark >= next || len(within(top, s.logged)) == 0 || len(within(top, lost)) > 0:
		case s.last >= right:
			windows = append(windows, Window{Span: top[0]})
		default:
			kept, err := r.keep(ctx, s, top)
			if err != nil {
				return nil, err
			}
			windows = append(windows, kept...)
		}
	}
	touched, err := s.grow(ctx, s.filled)
	if err != nil {
		return nil, err
	}
	fresh, err := r.cut(ctx, s, clip(within(s.logged, touched), end, s.until))
	return append(windows, fresh...), err
}

// computed plans for an aggregate that was not copied: it is computed from the
// raw data, wherever there is any.
func (r *Refresher) computed(ctx context.Context, s *scene) ([]Window, error) {
	touched, err := s.grow(ctx, s.filled)
	if err != nil {
		return nil, err
	}
	todo := within(s.logged, touched)
	var windows []Window
	if len(touched) > 0 && s.ok && s.first < touched[0].From {
		// The aggregate reaches further back than the raw data: of the bucket
		// in which that begins a part is gone.
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

var errWhole = errors.New("only a refresh of everything would be right, and it would delete the buckets whose raw rows are gone")

// whole plans without a staged backfill where only a refresh of everything is
// right.
func (r *Refresher) whole(s *scene, windows []Window) ([]Window, error) {
	if len(windows) == 0 {
		return nil, nil
	}
	if s.ok && s.first < windows[0].Span.From {
		return nil, &pg.Error{Side: r.db.Side, Object: s.a.Label().String(), Err: errWhole,
			Hint: "stage a backfill with bf-stage: then bf-caggs keeps them; or update TimescaleDB to 2.12 or later"}
	}
	return []Window{{Span: span{From: s.logged[0].From, Until: s.logged[len(s.logged)-1].Until}}}, nil
}

// A window covers that many chunks of raw data, or one bucket if that is more:
// what is lost when it is interrupted.
const windowChunks = 4

func (s *scene) step() int64 { return max(windowChunks*s.raw.Dimensions[0].Interval, s.width) }

// cut cuts spans into windows.
func (r *Refresher) cut(ctx context.Context, s *scene, spans []span) ([]Window, error) {
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

// cutAt returns where a window that begins at from ends.
func (s *scene) cutAt(ctx context.Context, from, until int64) (int64, error) {
	if until-from <= s.step() {
		return until, nil
	}
	at, err := s.floor1(ctx, from+s.step())
	if err == nil && at <= from {
		at, err = s.end(ctx, from)
	}
	return min(at, until), err
}

// keep cuts spans into windows that keep their rows. Where there are no rows
// there is nothing to keep, and no window. The bucket before a shifted one is
// kept, too: TimescaleDB up to 2.22 logs changes as if buckets were not shifted.
func (r *Refresher) keep(ctx context.Context, s *scene, spans []span) ([]Window, error) {
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
			first, ok, err := r.db.First(ctx, s.a.Hypertable, from, todo.Until)
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
			if !s.a.Shifted { // else it would touch rows of the next window
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
