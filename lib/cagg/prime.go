// Package cagg brings the continuous aggregates of the target to the state of
// the source's without losing a bucket.
//
// A refresh looks at what is logged as changed; there it deletes the buckets
// and computes them from the raw data. A new aggregate has all of time in its
// log. So a refresh of a target whose raw data does not reach back as far as
// the copied buckets (retention) deletes the rest. Two things prevent it:
//
//   - Prime, when a backfill is staged, refreshes what is still empty. It
//     computes and deletes nothing, but takes all that out of the log.
//   - The copy of raw data puts its own range back into the log, which is right
//     but for buckets that it covers in part. Plan finds those, and what else
//     is in the log of copied buckets without raw data, and Refresh keeps their
//     rows: it puts them aside, refreshes, and puts them back.
package cagg

import (
	"context"
	"math"
	"slices"
	"time"

	"bf/lib/pg"
	"bf/lib/stage"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Prime readies the plan's continuous aggregates on the target for copied
// buckets, parents first: what is empty there, raw data and aggregate, and ends
// before the source's watermark, counts as refreshed from now on. It remembers
// the source's watermarks. Nothing happens where nothing is logged, so it may
// be run at any time, again too.
func Prime(ctx context.Context, db *tsdb.DB, p *stage.Plan, say func(format string, args ...any)) error {
	marks := map[task.Name]int64{}
	for _, a := range p.Aggregates {
		marks[a.View] = a.Watermark
	}
	if err := Remember(ctx, db.Conn, marks); err != nil {
		return err
	}
	for _, a := range p.Aggregates {
		if _, err := db.Exec(ctx, `update __backfill.aggregate set copied_until = greatest(copied_until, $3)
            where view_schema = $1 and view_name = $2`, a.View.Schema, a.View.Name, a.Until); err != nil {
			return db.Wrap(err, "remember %s", a.View)
		}
	}
	all, err := db.Hypertables(ctx)
	if err != nil {
		return err
	}
	byID := map[int32]*tsdb.Hypertable{}
	for _, h := range all {
		byID[h.ID] = h
	}
	var staged []*tsdb.Hypertable
	for _, s := range p.Hypertables {
		if h := tsdb.Counterpart(all, s.Name, s.View); h != nil && h.View != nil {
			staged = append(staged, h)
		}
	}
	aggregates, err := db.Aggregates(ctx, staged)
	if err != nil {
		return err
	}
	for _, a := range aggregates {
		until, err := emptyUntil(ctx, db, a, byID[a.Raw], marks[*a.View])
		if err != nil {
			return err
		}
		logged, err := db.Invalid(ctx, a)
		if err != nil {
			return err
		}
		from, err := beginning(ctx, db, a)
		if err != nil {
			return err
		}
		if len(clip(merge(logged), max(from, a.Lowest()), until)) == 0 {
			continue
		}
		if err := patiently(ctx, func() error { return db.Refresh(ctx, a, span{From: from, Until: until}) }); err != nil {
			return err
		}
		if _, err := db.Exec(ctx, "update __backfill.aggregate set primed = $3 where view_schema = $1 and view_name = $2", a.View.Schema, a.View.Name, until); err != nil {
			return db.Wrap(err, "prime %s", a.Label())
		}
		texts, err := db.Text(ctx, a.Hypertable, []int64{until})
		if err != nil {
			return err
		}
		say("%s: empty before %s, marked as refreshed there", a.Label(), texts[until])
	}
	return nil
}

// Beyond lists the aggregates of the source that the plan leaves out although
// raw data is copied to which they reach back further: nothing can compute those
// buckets on the target.
func Beyond(ctx context.Context, src *tsdb.DB, p *stage.Plan) (views []task.Name, err error) {
	all, err := src.Hypertables(ctx)
	if err != nil {
		return nil, err
	}
	aggregates, err := src.Aggregates(ctx, tsdb.Affected(all, p.Hypertables))
	if err != nil {
		return nil, err
	}
	for _, a := range aggregates {
		i := slices.IndexFunc(all, func(h *tsdb.Hypertable) bool { return h.ID == a.Raw })
		planned := func(id int32) bool {
			return slices.ContainsFunc(p.Hypertables, func(h *tsdb.Hypertable) bool { return h.ID == id })
		}
		if i < 0 || planned(a.ID) || !planned(a.Raw) {
			continue
		}
		first, ok, err := src.First(ctx, a.Hypertable, task.MinBound, task.MaxBound)
		if err != nil {
			return nil, err
		}
		row, any, err := src.First(ctx, all[i], task.MinBound, task.MaxBound)
		if err != nil {
			return nil, err
		}
		if ok && any && first < row {
			b, err := src.Buckets(ctx, a, row)
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

// emptyUntil returns the end of the range that is worth priming: before the
// source's watermark, the first raw row and the first bucket of the target.
// task.MinBound if there is none.
func emptyUntil(ctx context.Context, db *tsdb.DB, a *tsdb.Aggregate, raw *tsdb.Hypertable, mark int64) (int64, error) {
	if mark <= a.Lowest() {
		return task.MinBound, nil
	}
	until := mark
	for _, h := range []*tsdb.Hypertable{raw, a.Hypertable} {
		first, ok, err := db.First(ctx, h, task.MinBound, until)
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
	b, err := db.Buckets(ctx, a, until)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// beginning returns where priming begins: at the beginning of time. A bigint is
// an exception: from there a refresh leaves the first few values behind in the
// log, on which a later refresh of everything fails up to 2.14 ("timestamp out
// of range"). Half way to the lowest bigint does as well.
func beginning(ctx context.Context, db *tsdb.DB, a *tsdb.Aggregate) (int64, error) {
	if a.Lowest() != math.MinInt64 {
		return task.MinBound, nil
	}
	b, err := db.Buckets(ctx, a, math.MinInt64/2)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// How long a refresh waits for another one of the same aggregate (a policy's):
// TimescaleDB refuses the second.
const (
	otherRefresh = time.Minute
	retryAfter   = time.Second
)

func patiently(ctx context.Context, refresh func() error) error {
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
