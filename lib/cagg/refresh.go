package cagg

import (
	"context"
	"errors"
	"fmt"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

var errLegacy = errors.New("is a continuous aggregate of the old, partial form (finalized = false): bf does not refresh it")

// Lock makes sure that no other bf-caggs is at the aggregate, for as long as
// the connection lives.
func (r *Refresher) Lock(ctx context.Context, a *tsdb.Aggregate) error {
	var ok bool
	err := r.db.QueryRow(ctx, "select pg_try_advisory_lock($1, $2)", pg.LockAggregate, a.ID).Scan(&ok)
	if err == nil && !ok {
		err = errors.New("another bf-caggs is at it")
	}
	return r.db.Wrap(err, "%s", a.Label())
}

// Resume ends the window that a bf-caggs was in when it died. ok is false if
// there was none.
func (r *Refresher) Resume(ctx context.Context, a *tsdb.Aggregate) (w Window, ok bool, err error) {
	if r.planless {
		return w, false, nil
	}
	if err := r.showAbove(ctx, a); err != nil {
		return w, false, err
	}
	s, err := keeping(ctx, r.db.Conn, *a.View)
	if err != nil || s == nil {
		return w, false, err
	}
	w = Window{Span: *s, Keep: true}
	return w, true, r.putBack(ctx, a, w)
}

// Refresh refreshes one window.
func (r *Refresher) Refresh(ctx context.Context, a *tsdb.Aggregate, w Window) error {
	if !w.Keep {
		return r.refresh(ctx, a, w.Span)
	}
	where, err := r.db.Condition(a.Hypertable, w.Span)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, r.db.Conn.Conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("create table %s as select %s from %s where %s", kept(a), columns(a), table(a), where)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "update __backfill.aggregate set keeping = int8range($3, $4) where view_schema = $1 and view_name = $2",
			a.View.Schema, a.View.Name, w.Span.From, w.Span.Until)
		return err
	})
	if err != nil {
		return r.db.Wrap(err, "put aside rows of %s", a.Label())
	}
	return r.putBack(ctx, a, w)
}

// putBack refreshes a window whose rows are put aside and puts them back in
// place of what the refresh has made of it. Whatever dies when, it can be done
// again.
func (r *Refresher) putBack(ctx context.Context, a *tsdb.Aggregate, w Window) error {
	if err := r.refresh(ctx, a, w.Span); err != nil {
		return err
	}
	where, err := r.db.Condition(a.Hypertable, w.Span)
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
		_, err := tx.Exec(ctx, "update __backfill.aggregate set keeping = null where view_schema = $1 and view_name = $2", a.View.Schema, a.View.Name)
		return err
	})
	return r.db.Wrap(err, "put back rows of %s", a.Label())
}

// refresh refreshes a span. TimescaleDB moves the watermark to the end of the
// last row of the materialization hypertable, wherever that is. Rows above the
// source's watermark (somebody inserted a bucket by hand there, and it was
// copied) would take it along, and a real-time view would show nothing of the
// raw rows in between. They are put aside meanwhile.
func (r *Refresher) refresh(ctx context.Context, a *tsdb.Aggregate, s span) error {
	refresh := func() error { return patiently(ctx, func() error { return r.db.Refresh(ctx, a, s) }) }
	if r.planless {
		return refresh()
	}
	if err := r.hideAbove(ctx, a, s.Until); err != nil {
		return err
	}
	return errors.Join(refresh(), r.showAbove(ctx, a))
}

// hideAbove moves the rows that no refresh up to until can have made to table
// above: those behind both sides' watermarks.
func (r *Refresher) hideAbove(ctx context.Context, a *tsdb.Aggregate, until int64) error {
	now, err := r.current(ctx, a)
	if err != nil {
		return err
	}
	until = max(until, r.marks[*a.View], now.Watermark)
	if _, some, err := r.db.First(ctx, a.Hypertable, until, task.MaxBound); err != nil || !some {
		return err
	}
	where, err := r.db.Condition(a.Hypertable, span{From: until, Until: task.MaxBound})
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, r.db.Conn.Conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("create table %s as select %s from %s where %s", above(a), columns(a), table(a), where)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "delete from "+table(a)+" where "+where)
		return err
	})
	return r.db.Wrap(err, "put aside rows of %s", a.Label())
}

// showAbove puts back what hideAbove has moved, if it has: the table is there
// for as long as its rows are missing. Buckets that a refresh of somebody else
// has made meanwhile stay as that made them.
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

func kept(a *tsdb.Aggregate) string { return pg.Ident("__backfill", fmt.Sprintf("kept_%d", a.ID)) }

func above(a *tsdb.Aggregate) string { return pg.Ident("__backfill", fmt.Sprintf("above_%d", a.ID)) }

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
	Moved          bool   // by hand: there was no raw data to refresh
	Hidden         *int64 // the first bucket that is there and a real-time view does not show
}

// Finish brings the watermark to the source's where refreshing could not:
// TimescaleDB moves it to the end of the last bucket that a refresh has
// computed, and without raw data there is none. Only a superuser can move it
// then.
func (r *Refresher) Finish(ctx context.Context, a *tsdb.Aggregate) (*Mark, error) {
	now, err := r.current(ctx, a)
	if err != nil {
		return nil, err
	}
	m := &Mark{Source: r.marks[*a.View], Target: now.Watermark}
	if m.Target >= m.Source {
		return m, nil
	}
	hidden, any, err := r.db.First(ctx, a.Hypertable, m.Target, task.MaxBound)
	if err != nil {
		return nil, err
	}
	// Without a plan nothing says that raw rows will not come yet.
	if r.db.Superuser && r.Pending(a) == 0 && (any || !r.planless) {
		m.Moved = true
		return m, r.db.SetWatermark(ctx, a, m.Source)
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
