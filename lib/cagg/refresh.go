package cagg

import (
	"context"
	"errors"
	"fmt"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

var errLegacy = errors.New("is a continuous aggregate of the old, partial form (finalized = false): " +
	"bf does not refresh it")

// Lock keeps other bf-caggs from this aggregate until the connection ends.
func (r *Refresher) Lock(ctx context.Context, a *tsdb.Aggregate) error {
	var ok bool
	err := r.db.QueryRow(ctx, "select pg_try_advisory_lock($1, $2)", pg.LockAggregate, a.ID).Scan(&ok)
	if err == nil && !ok {
		err = errors.New("another bf-caggs is refreshing it")
	}
	return r.db.Wrap(err, "%s", a.Label())
}

// Resume restores the rows that a bf-caggs had put aside when it died, and
// finishes its window. ok is false if there was no window.
func (r *Refresher) Resume(ctx context.Context, a *tsdb.Aggregate) (w Window, ok bool, err error) {
	if r.planless {
		return w, false, nil
	}
	if err := r.showAbove(ctx, a); err != nil {
		return w, false, err
	}
	w.Keep = true
	if w.Span.From, w.Span.Until, ok, err = queue.Keeping(ctx, r.db.Conn, *a.View); err != nil || !ok {
		return w, false, err
	}
	return w, true, r.putBack(ctx, a, w)
}

// Refresh refreshes one window.
func (r *Refresher) Refresh(ctx context.Context, a *tsdb.Aggregate, w Window) error {
	if !w.Keep {
		return r.refresh(ctx, a, w.Span)
	}
	where, err := a.Hypertable.Condition(w.Span)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, r.db.Conn.Conn, func(tx pgx.Tx) error {
		sql := fmt.Sprintf("create table %s as select %s from %s where %s", kept(a), columns(a), table(a), where)
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
		return queue.SetKeeping(ctx, tx, *a.View, w.Span.From, w.Span.Until)
	})
	if err != nil {
		return r.db.Wrap(err, "put aside rows of %s", a.Label())
	}
	return r.putBack(ctx, a, w)
}

// putBack refreshes a window whose rows are put aside, and replaces the result by
// those rows. It can be repeated after a crash at any point.
func (r *Refresher) putBack(ctx context.Context, a *tsdb.Aggregate, w Window) error {
	if err := r.refresh(ctx, a, w.Span); err != nil {
		return err
	}
	where, err := a.Hypertable.Condition(w.Span)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, r.db.Conn.Conn, func(tx pgx.Tx) error {
		for _, sql := range []string{
			"delete from " + table(a) + " where " + where,
			fmt.Sprintf("insert into %s (%s) select %[2]s from %s", table(a), columns(a), kept(a)),
			"drop table " + kept(a),
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return queue.ClearKeeping(ctx, tx, *a.View)
	})
	return r.db.Wrap(err, "put back rows of %s", a.Label())
}

// refresh refreshes a span. TimescaleDB sets the watermark to the end of the last
// bucket in the materialization hypertable, even if the refresh did not compute
// that bucket. A copied bucket above the source's watermark (somebody inserted it
// by hand) would raise the watermark, and a real-time view would no longer show
// the raw rows below it. So such buckets are put aside during the refresh.
func (r *Refresher) refresh(ctx context.Context, a *tsdb.Aggregate, s span) error {
	refresh := func() error { return retryLocked(ctx, func() error { return a.Refresh(ctx, r.db, s) }) }
	if r.planless {
		return refresh()
	}
	if err := r.hideAbove(ctx, a, s.Until); err != nil {
		return err
	}
	return errors.Join(refresh(), r.showAbove(ctx, a))
}

// hideAbove moves the rows above until and above both sides' watermarks to table
// above_N: no refresh has computed those.
func (r *Refresher) hideAbove(ctx context.Context, a *tsdb.Aggregate, until int64) error {
	now, err := r.current(ctx, a)
	if err != nil {
		return err
	}
	until = max(until, r.marks[*a.View], now.Watermark)
	if _, some, err := tsdb.First(ctx, r.db, a.Hypertable, until, task.MaxBound); err != nil || !some {
		return err
	}
	where, err := a.Hypertable.Condition(span{From: until, Until: task.MaxBound})
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, r.db.Conn.Conn, func(tx pgx.Tx) error {
		sql := fmt.Sprintf("create table %s as select %s from %s where %s", above(a), columns(a), table(a), where)
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "delete from "+table(a)+" where "+where)
		return err
	})
	return r.db.Wrap(err, "put aside rows of %s", a.Label())
}

// showAbove puts back what hideAbove has moved; the table exists exactly as long
// as the rows are missing. A bucket that another refresh has computed meanwhile
// is left as it is.
func (r *Refresher) showAbove(ctx context.Context, a *tsdb.Aggregate) error {
	var hidden bool
	if err := r.db.QueryRow(ctx, "select to_regclass($1) is not null", above(a)).Scan(&hidden); err != nil || !hidden {
		return r.db.Wrap(err, "look for rows of %s put aside", a.Label())
	}
	bucket := pg.Ident(a.Dimensions[0].Column)
	err := pgx.BeginFunc(ctx, r.db.Conn.Conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, fmt.Sprintf(`insert into %[1]s (%[2]s) select %[2]s from %[3]s o
            where not exists (select from %[1]s m where m.%[4]s = o.%[4]s)`, table(a), columns(a), above(a), bucket))
		if err == nil {
			_, err = tx.Exec(ctx, "drop table "+above(a))
		}
		return err
	})
	return r.db.Wrap(err, "put back rows of %s", a.Label())
}

func table(a *tsdb.Aggregate) string { return pg.Ident(a.Name.Schema, a.Name.Name) }

func kept(a *tsdb.Aggregate) string  { kept, _ := queue.Aside(a.ID); return kept }
func above(a *tsdb.Aggregate) string { _, above := queue.Aside(a.ID); return above }

func columns(a *tsdb.Aggregate) string {
	var names []string
	for _, c := range a.Copied() {
		names = append(names, c.Name)
	}
	return pg.Idents(names)
}

// Mark is where the watermark of an aggregate stands after its refresh.
type Mark struct {
	Source, Target int64
	Moved          bool   // by bf itself, in the catalog: there were no raw rows to refresh
	Hidden         *int64 // the first bucket that exists and that a real-time view does not show
}

// Finish sets the watermark to the source's where no refresh has done so: a
// refresh moves it only if it computes a bucket, which takes raw rows. Only a
// superuser can set it.
func (r *Refresher) Finish(ctx context.Context, a *tsdb.Aggregate) (*Mark, error) {
	now, err := r.current(ctx, a)
	if err != nil {
		return nil, err
	}
	m := &Mark{Source: r.marks[*a.View], Target: now.Watermark}
	if m.Target >= m.Source {
		return m, nil
	}
	hidden, any, err := tsdb.First(ctx, r.db, a.Hypertable, m.Target, task.MaxBound)
	if err != nil {
		return nil, err
	}
	// Without a plan, raw rows may still be going to be loaded: a higher watermark
	// would hide them.
	if r.db.Superuser && r.Pending(a) == 0 && (any || !r.planless) {
		m.Moved = true
		return m, a.SetWatermark(ctx, r.db, m.Source)
	}
	if any && !a.MaterializedOnly {
		m.Hidden = &hidden
	}
	return m, nil
}

// current reads an aggregate anew.
func (r *Refresher) current(ctx context.Context, a *tsdb.Aggregate) (*tsdb.Aggregate, error) {
	now, err := r.db.Aggregates(ctx, []*tsdb.Hypertable{a.Hypertable})
	if err == nil && len(now) == 0 {
		err = &pg.Error{Side: r.db.Side, Object: a.Label().String(), Err: errors.New("was dropped meanwhile")}
	}
	if err != nil {
		return nil, err
	}
	return now[0], nil
}
