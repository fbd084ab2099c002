package target

import (
	"context"
	"errors"
	"slices"
	"time"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// What a copy changes is logged for the aggregates, and the next refresh computes all
// of it again, although their own chunks may have been copied as well. Where they hold
// what the source's aggregates held for the same rows, nothing has to be computed: that
// is taken back from the log, which takes a superuser, or rights on the log.

// unlogger takes back what the copy has logged. It knows that by the numbers of the
// copy's transaction, so that what the application has logged meanwhile stays.
type unlogger struct {
	*load
	transactions []string // and of the subtransactions
	descendants  []*tsdb.Descendant
	covers       []tsdb.Span // of each of them: the whole buckets that the task's range changes
}

// newUnlogger comes last in the transaction of a copy; nil where nothing can be
// taken back.
func newUnlogger(ctx context.Context, ld *load) (*unlogger, error) {
	from, until := ld.task.Range.Bounds()
	if len(ld.image.Aggregates) == 0 || !ld.dep.Aggregated ||
		from == task.MinBound || until == task.MaxBound {
		return nil, nil
	}
	u := &unlogger{load: ld}
	err := ld.savepoint(ctx, func() (err error) {
		u.transactions, err = tsdb.LogOf(ld.DB, ld.ht).Transactions(ctx)
		return err
	})
	if err == nil && u.transactions == nil || err != nil && pg.Code(err) != "" && !ld.Lost() {
		return nil, nil
	}
	return u, err
}

// How long a refresh that is at one of the aggregates, or another lane that copies it,
// is waited for.
const (
	refreshPatience = 3 * time.Second
	refreshPause    = 50 * time.Millisecond
)

// run takes back what needs no refresh, after the commit. It is never wrong to leave
// something in the log, so no error is one of the task's.
func (u *unlogger) run(ctx context.Context) {
	err := u.prepare(ctx)
	for deadline := time.Now().Add(refreshPatience); err == nil; {
		err = u.transaction(ctx, takeTurn, func() error { return u.inTurn(func() error { return u.takeBack(ctx) }) })
		if pg.Code(err) != pg.LockNotAvailable || time.Now().After(deadline) {
			return
		}
		select {
		case <-time.After(refreshPause):
			err = nil
		case <-ctx.Done():
			return
		}
	}
}

// errKept leaves the log as it is.
var errKept = errors.New("has to be computed again")

// prepare looks up what has to be known before anything is locked.
func (u *unlogger) prepare(ctx context.Context) (err error) {
	from, until := u.task.Range.Bounds()
	if u.descendants, err = tsdb.Descendants(ctx, u.DB, u.ht); err != nil {
		return err
	}
	for _, a := range u.descendants {
		if !a.Comparable() {
			return errKept
		}
	}
	u.covers, err = tsdb.Covers(ctx, u.DB, u.descendants, tsdb.Span{From: from, Until: until})
	return err
}

// takeBack does so. While it compares, nobody writes to the aggregates: neither a
// refresh nor another lane. An aggregate on an aggregate learns of rows when that one is
// refreshed over them, and where that does not happen, of what it has to compute here: a
// refresh by hand may have deleted its buckets while the rows were still missing.
func (u *unlogger) takeBack(ctx context.Context) error {
	if err := u.lockAggregates(ctx); err != nil {
		return err
	}
	var needed []tsdb.Span
	for i, a := range u.descendants {
		some, err := u.needed(ctx, a, u.covers[i])
		if err == nil && a.On != nil {
			err = tsdb.LogOf(u.DB, a.On.Hypertable).Add(ctx, tsdb.Merge(some))
		}
		if err != nil {
			return err
		}
		if a.On == nil {
			needed = append(needed, some...)
		}
	}
	from, until := u.task.Range.Bounds()
	whole := []tsdb.Span{{From: from, Until: until}}
	needed = tsdb.Within(tsdb.Merge(needed), whole)
	if slices.Equal(needed, whole) {
		return nil
	}
	return tsdb.LogOf(u.DB, u.ht).TakeBack(ctx, u.transactions, needed)
}

// lockAggregates keeps refreshes and lanes from the aggregates until the commit. It
// does not wait: steps 3 and 4 of the order of locks, of several hypertables.
func (u *unlogger) lockAggregates(ctx context.Context) error {
	var roots, chunks []string
	for i, a := range u.descendants {
		s := u.covers[i]
		cs, err := a.ChunksIn(ctx, u.DB, task.NewRange(a.Dimensions[0].Column, s.From, s.Until))
		if err != nil {
			return err
		}
		roots = append(roots, pg.Ident(a.Name.Schema, a.Name.Name))
		for _, c := range cs {
			chunks = append(chunks, c.Quoted())
		}
	}
	for _, relation := range append(roots, chunks...) {
		if _, err := u.Exec(ctx, "lock table only "+relation+" in share mode nowait"); err != nil {
			return u.Wrap(err, "lock %s", relation)
		}
	}
	return nil
}

// needed are the spans of one aggregate that have to be computed again: s is the
// whole buckets that the copy has changed.
func (u *unlogger) needed(ctx context.Context, a *tsdb.Descendant, s tsdb.Span) ([]tsdb.Span, error) {
	all := []tsdb.Span{s}
	i := slices.IndexFunc(u.image.Aggregates, func(img tsdb.AggregateImage) bool { return img.View == *a.View })
	if i < 0 || u.image.Aggregates[i].Definition != tsdb.Spelling(a.Definition) {
		return all, nil
	}
	img := u.image.Aggregates[i]
	if whole, err := u.copied(ctx, s); err != nil || !whole {
		return all, err
	}
	var equal []tsdb.Span
	for _, b := range img.Spans {
		mine, err := a.Sum(ctx, u.DB, tsdb.Span{From: b.From, Until: b.Until})
		if err != nil {
			return nil, err
		}
		if mine == b {
			equal = append(equal, tsdb.Span{From: b.From, Until: b.Until})
		}
	}
	// A refresh that is at some of them may have looked before the rows came.
	handed, err := a.Handed(ctx, u.DB)
	if err == nil {
		handed, err = a.CoverAll(ctx, u.DB, append(handed, u.last(a, img)...), s)
	}
	return tsdb.Without(all, tsdb.Without(tsdb.Merge(equal), handed)), err
}

// last is the end of the last bucket, which only a superuser can let be: for others
// bf-caggs has to refresh it, so that the watermark moves.
func (u *unlogger) last(a *tsdb.Descendant, img tsdb.AggregateImage) []tsdb.Span {
	if u.Superuser || a.Watermark >= img.Watermark {
		return nil
	}
	return []tsdb.Span{{From: img.Watermark - 1, Until: img.Watermark}}
}

// copied reports whether all rows of a span are copied, or going to be: those of the
// source, and the target has no others.
func (u *unlogger) copied(ctx context.Context, s tsdb.Span) (bool, error) {
	theirs := slices.DeleteFunc(slices.Clone(u.image.Around), func(c tsdb.ChunkImage) bool {
		return c.Until <= s.From || c.From >= s.Until
	})
	mine, err := u.ht.ChunksIn(ctx, u.DB, task.NewRange(u.ht.Dimensions[0].Column, s.From, s.Until))
	if err != nil {
		return false, err
	}
	tasks, err := queue.Beside(ctx, u.Conn, u.task, s.From, s.Until)
	if err != nil {
		return false, err
	}
	covers := func(t *task.Task, c tsdb.Span) bool {
		from, until := t.Range.Bounds()
		return from <= max(c.From, s.From) && until >= min(c.Until, s.Until)
	}
	for _, c := range append(theirs, tsdb.ChunkImage{Chunk: u.task.Chunk, From: s.From, Until: s.Until}) {
		if c.Chunk == u.task.Chunk {
			c.From, c.Until = u.task.Slices[0].Bounds()
		}
		if !slices.ContainsFunc(tasks, func(t *task.Task) bool {
			return t.Chunk == c.Chunk && covers(t, tsdb.Span{From: c.From, Until: c.Until})
		}) {
			return false, nil
		}
	}
	for _, c := range mine {
		from, until := c.Slices[0].Bounds()
		if slices.ContainsFunc(tasks, func(t *task.Task) bool {
			return c.SameSlices(t.Slices) && covers(t, tsdb.Span{From: from, Until: until})
		}) {
			continue
		}
		if some, err := u.some(ctx, c.Quoted()); some || err != nil {
			return false, err
		}
	}
	return true, nil
}

// logReload comes before an aggregate's chunk is copied into one that has buckets
// already: as far as the rows that they are computed from were copied before, and their
// log may have been taken back, a refresh has to compute the new ones again.
func (ld *load) logReload(ctx context.Context) error {
	if ld.task.View == nil || ld.chunk == nil {
		return nil
	}
	some, err := ld.some(ctx, ld.chunk.Quoted())
	if err != nil || !some {
		return err
	}
	raw, err := ld.Hypertable(ctx, ld.ht.Raw)
	if err != nil || raw == nil {
		return err
	}
	if transactions, err := tsdb.LogOf(ld.DB, raw).Transactions(ctx); err != nil || transactions == nil {
		return err
	}
	from, until := ld.task.Range.Bounds()
	done, err := queue.DoneIn(ctx, ld.Conn, raw.Label(), from, until)
	var spans []tsdb.Span
	for _, t := range done {
		s := tsdb.Span{}
		s.From, s.Until = t.Range.Bounds()
		s.From, s.Until = max(s.From, from), min(s.Until, until)
		if err == nil {
			_, some, err = tsdb.First(ctx, ld.DB, raw, s.From, s.Until)
		}
		if some && err == nil { // else the refresh would delete the buckets
			spans = append(spans, s)
		}
	}
	if err != nil {
		return err
	}
	return tsdb.LogOf(ld.DB, raw).Add(ctx, tsdb.Merge(spans))
}
