// Package cagg brings the continuous aggregates of the target to the state of
// the source's without losing a bucket.
//
// A refresh deletes the buckets of all ranges in the invalidation log and computes
// them from raw rows. The log of a new aggregate contains all of time. So where
// retention has dropped raw rows, the next refresh of the target would delete the
// buckets that were copied. Two things prevent that:
//
//   - When a backfill is staged, Prime refreshes the range that is still empty.
//     This computes and deletes nothing, but removes the range from the log.
//   - The copy of raw rows logs its own range again, and bf-load takes that back where it
//     may and the buckets are equal (target/unlog.go). What stays logged does no harm,
//     except to buckets that have lost some of their raw rows. Plan finds those, and
//     other logged buckets without raw rows; Refresh copies their rows to a table,
//     refreshes, and restores them.
package cagg

import (
	"context"
	"math"
	"slices"
	"time"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Planned is a continuous aggregate of a plan.
type Planned struct {
	View      task.Name
	Watermark int64  // of the source
	Until     *int64 // its buckets before this are copied; nil for none
	Staged    bool   // its chunks are to be copied: prime it
}

// Prime prepares continuous aggregates of the target for copied buckets, parents
// first: it refreshes the range before the source's watermark in which neither
// the aggregate nor its raw hypertable has rows. It also stores the source's
// watermarks. It can be run again at any time: a range that is not in the
// invalidation log is not refreshed.
func Prime(ctx context.Context, db *tsdb.DB, plan []Planned, say func(format string, args ...any)) error {
	marks := map[task.Name]int64{}
	for _, p := range plan {
		marks[p.View] = p.Watermark
	}
	if err := queue.SetMarks(ctx, db.Conn, marks); err != nil {
		return err
	}
	for _, p := range plan {
		if err := queue.SetCopied(ctx, db.Conn, p.View, p.Until); err != nil {
			return err
		}
	}
	all, err := db.Hypertables(ctx)
	if err != nil {
		return err
	}
	var staged []*tsdb.Hypertable
	for _, p := range plan {
		if h := tsdb.Counterpart(all, task.Name{}, &p.View); h != nil && p.Staged {
			staged = append(staged, h)
		}
	}
	aggregates, err := db.Aggregates(ctx, staged)
	if err != nil {
		return err
	}
	for _, a := range aggregates {
		i := slices.IndexFunc(all, func(h *tsdb.Hypertable) bool { return h.ID == a.Raw })
		until, primed, err := prime(ctx, db, a, all[i], marks[*a.View])
		if err != nil {
			return err
		}
		if primed {
			say("%s: empty before %s, marked as refreshed there", a.Label(), until)
		}
	}
	return nil
}

// prime refreshes the empty range of one aggregate and returns its end, for people.
func prime(ctx context.Context, db *tsdb.DB, a *tsdb.Aggregate, raw *tsdb.Hypertable,
	mark int64) (end string, primed bool, err error) {
	until, err := emptyUntil(ctx, db, a, raw, mark)
	if err != nil {
		return "", false, err
	}
	logged, err := a.Invalid(ctx, db)
	if err != nil {
		return "", false, err
	}
	from, err := beginning(ctx, db, a)
	if err != nil || len(clip(merge(logged), max(from, a.Lowest()), until)) == 0 {
		return "", false, err
	}
	if err := retryLocked(ctx, func() error { return a.Refresh(ctx, db, span{From: from, Until: until}) }); err != nil {
		return "", false, err
	}
	if err := queue.SetPrimed(ctx, db.Conn, *a.View, until); err != nil {
		return "", false, err
	}
	texts, err := a.Hypertable.Text(ctx, db, []int64{until})
	return texts[until], true, err
}

// Beyond lists aggregates of the source that are not staged and that have buckets
// older than the staged raw rows: the target cannot compute those.
func Beyond(ctx context.Context, src *tsdb.DB, staged []*tsdb.Hypertable) (views []task.Name, err error) {
	all, err := src.Hypertables(ctx)
	if err != nil {
		return nil, err
	}
	aggregates, err := src.Aggregates(ctx, tsdb.Affected(all, staged))
	if err != nil {
		return nil, err
	}
	for _, a := range aggregates {
		i := slices.IndexFunc(all, func(h *tsdb.Hypertable) bool { return h.ID == a.Raw })
		planned := func(id int32) bool {
			return slices.ContainsFunc(staged, func(h *tsdb.Hypertable) bool { return h.ID == id })
		}
		if i < 0 || planned(a.ID) || !planned(a.Raw) {
			continue
		}
		first, ok, err := tsdb.First(ctx, src, a.Hypertable, task.MinBound, task.MaxBound)
		if err != nil {
			return nil, err
		}
		row, any, err := tsdb.First(ctx, src, all[i], task.MinBound, task.MaxBound)
		if err != nil {
			return nil, err
		}
		if ok && any && first < row {
			b, err := a.Buckets(ctx, src, row)
			if err != nil {
				return nil, err
			}
			any = first >= b[0]
		}
		if ok && !any {
			views = append(views, a.Label())
		}
	}
	return views, nil
}

// emptyUntil returns the end of the range to prime: the source's watermark, the
// target's first raw row or its first bucket, whichever is first; task.MinBound
// if there is nothing to prime.
func emptyUntil(ctx context.Context, db *tsdb.DB, a *tsdb.Aggregate, raw *tsdb.Hypertable, mark int64) (int64, error) {
	if mark <= a.Lowest() {
		return task.MinBound, nil
	}
	until := mark
	for _, h := range []*tsdb.Hypertable{raw, a.Hypertable} {
		first, ok, err := tsdb.First(ctx, db, h, task.MinBound, until)
		if err != nil {
			return 0, err
		}
		if ok {
			until = first
		}
	}
	if until == mark {
		return mark, nil
	}
	b, err := a.Buckets(ctx, db, until)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// beginning returns where priming begins: at the lowest value; of a bigint half way to it.
// ≤ 2.14: a refresh from the lowest bigint leaves a few values in the log, and a later
// refresh of everything fails on them ("timestamp out of range").
func beginning(ctx context.Context, db *tsdb.DB, a *tsdb.Aggregate) (int64, error) {
	if a.Lowest() != math.MinInt64 {
		return task.MinBound, nil
	}
	b, err := a.Buckets(ctx, db, math.MinInt64/2)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// How long a refresh waits for another one of the same aggregate, a policy's for
// example: TimescaleDB lets only one run at a time and refuses the second.
const (
	otherRefresh = time.Minute
	retryAfter   = time.Second
)

func retryLocked(ctx context.Context, refresh func() error) error {
	for deadline := time.Now().Add(otherRefresh); ; {
		err := refresh()
		if pg.Code(err) != pg.LockNotAvailable || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
