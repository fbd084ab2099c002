package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// # The order of locks
//
// The application, and other lanes, want the hypertable and its chunks as well. So
// there are two kinds of locks, and every way of writing a chunk keeps to this
// order:
//
//  1. Weak ones, which readers and writers do not notice, held for as long as a
//     copy takes: the task's row, pg.LockClear and pg.LockSweep, ROW EXCLUSIVE on
//     the chunk or on the hypertable, and whatever the lane alone knows of (the
//     relation that it fills, a twin).
//  2. The turn (pg.LockTurn). One lane at a time goes on; the others queue here,
//     in the order in which they came, and hold nothing that anybody wants.
//  3. The hypertable: ACCESS EXCLUSIVE where its settings have to be altered, else
//     ACCESS SHARE, which attaching, compressing and decompressing take anyway.
//  4. The chunk: SHARE to attach, ACCESS EXCLUSIVE to truncate it.
//  5. What statements take besides: the chunk's compressed relation, catalogs, the
//     tables that the hypertable references, and from 2.22 on, for ALTER TABLE …
//     RESET, SHARE UPDATE EXCLUSIVE on every chunk.
//
// 2 to 5 are taken by briefly, in a transaction of their own, or by atLast, at the
// end of a copy, and by nothing else but quietly: that compresses a chunk for as long
// as it takes, with pg.LockQuiet in the place of the turn, waits for each lock once,
// and gives everything back as soon as anybody waits for it. The two wait for moments only, and when one of
// the locks is not to be had, give back all of them from 2 on before they try
// again: to wait with the chunk locked for the hypertable would be a deadlock with
// a reader who has the hypertable and waits for the chunk, and one that the server
// does not see, because nobody waits until it looks.

// How long the first lock that could hold up the application is waited for at a
// time, and each further one, while what we hold holds up the application; and how
// long all of it is tried: longer than another lane copies, as a rule.
const (
	lockWait = 30 * time.Millisecond
	moreWait = 10 * time.Millisecond
	patience = 5 * time.Minute
)

// afterStop is how long locks are tried for when the lane has been asked to stop:
// what was copied is not thrown away over a lock that is free in a moment.
const afterStop = 5 * time.Second

// ErrStopped is a copy that was given up because it waited for a lock when the
// lane was asked to stop. The task stays pending.
var ErrStopped = errors.New("stopped while it waited for a lock, and rolled back")

// turn is step 2.
func turn(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, fmt.Sprintf("set local lock_timeout = 0; select pg_advisory_xact_lock(%d, 0)", pg.LockTurn))
	return err
}

// within sets how long locks are waited for.
func within(ctx context.Context, tx pgx.Tx, d time.Duration) error {
	_, err := tx.Exec(ctx, fmt.Sprintf("set local lock_timeout = %d", d.Milliseconds()))
	return err
}

// briefly runs f, with the turn, in a transaction of its own whose locks are waited
// for only briefly, again and again.
func (l *Loader) briefly(ctx context.Context, f func(tx pgx.Tx) error) error {
	return l.untilLocked(ctx, func() error {
		return pgx.BeginFunc(ctx, l.db.Conn.Conn, func(tx pgx.Tx) error {
			if err := turn(ctx, tx); err != nil {
				return err
			}
			if err := within(ctx, tx, lockWait); err != nil {
				return err
			}
			return l.brief(func() error { return f(tx) })
		})
	})
}

// brief marks that f runs within briefly or atLast: whoever waits there, waits once.
func (l *Loader) brief(f func() error) error {
	defer func(was bool) { l.inBrief = was }(l.inBrief)
	l.inBrief = true
	return f()
}

// lockHypertable is step 3.
func (l *Loader) lockHypertable(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, alter bool) error {
	mode := "access share"
	if alter {
		mode = "access exclusive"
	}
	_, err := tx.Exec(ctx, "lock table only "+pg.Ident(ht.Name.Schema, ht.Name.Name)+" in "+mode+" mode")
	if err == nil && alter {
		err = within(ctx, tx, moreWait)
	}
	return l.db.Wrap(err, "%s", ht.Label())
}

// end is what atLast locks, and inChunk.
type end struct {
	ht    *tsdb.Hypertable
	task  *task.Task
	chunk *tsdb.Chunk // nil if there is none yet
	mode  string      // of the lock on the chunk
	r     *relation   // that is attached to it; nil for none
	rel   string      // its name, once it is built
}

// atLast runs f at the end of a copy, which only the commit may follow. c is the
// chunk as it is once it is locked; alter says that f may alter the hypertable's
// settings: where that is what it takes, the hypertable is locked for it first.
// Locks are given back, and what f has done is undone, as often as it takes.
func (l *Loader) atLast(
	ctx context.Context, tx pgx.Tx, e end, f func(tx pgx.Tx, c *tsdb.Chunk, alter bool) error,
) error {
	run := func(alter bool) error {
		return l.patiently(ctx, tx, func(tx pgx.Tx) error {
			if err := turn(ctx, tx); err != nil {
				return err
			}
			if err := within(ctx, tx, lockWait); err != nil {
				return err
			}
			return l.brief(func() error {
				if err := l.lockHypertable(ctx, tx, e.ht, alter); err != nil {
					return err
				}
				if e.chunk == nil {
					return f(tx, nil, alter)
				}
				c, err := l.lock(ctx, tx, e.chunk.Name, e.task, e.mode)
				if err != nil {
					return err
				}
				return f(tx, c, alter)
			})
		})
	}
	return l.altering(e.ht, e.r, run)
}

// altering runs f, and again, with alter, where the settings of the hypertable are
// in its way. That is remembered for relations of this kind: f has mostly been
// for nothing then, with the application kept out.
func (l *Loader) altering(ht *tsdb.Hypertable, r *relation, f func(alter bool) error) error {
	if r == nil {
		return f(false)
	}
	k, err := kind(ht, r)
	if err != nil {
		return err
	}
	if l.alters == k {
		return f(true)
	}
	err = f(false)
	var misfit *misfitError
	if errors.As(err, &misfit) && misfit.settings {
		l.alters = k
		err = f(true)
	}
	return err
}

// kind tells relations apart that get into a chunk in different ways.
func kind(ht *tsdb.Hypertable, r *relation) (string, error) {
	b, err := json.Marshal([]any{ht.ID, r.Columns, r.Indexes, r.Settings})
	return string(b), err
}

// untilLocked runs f again and again until it gets the locks that it needs and
// nobody is in its way.
func (l *Loader) untilLocked(ctx context.Context, f func() error) error {
	if l.inBrief { // whoever is around us tries again
		return f()
	}
	deadline := time.Now().Add(patience)
	stop := l.Stop
	stopped := false
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f()
		if code := pg.Code(err); code != pg.LockNotAvailable && code != pg.Deadlock {
			return err
		}
		if time.Now().After(deadline) {
			if stopped {
				return ErrStopped
			}
			return err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-stop:
			stop, stopped = nil, true
			deadline = time.Now().Add(afterStop)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// patiently runs f inside of the transaction, with locks that are waited for
// only briefly, again and again: what was copied so far is not lost over a
// lock, and nobody queues behind us for long.
func (l *Loader) patiently(ctx context.Context, tx pgx.Tx, f func(tx pgx.Tx) error) error {
	if l.inBrief {
		return f(tx)
	}
	return l.untilLocked(ctx, func() error {
		err := l.attempt(ctx, tx, lockWait, f)
		if pg.Code(err) != pg.LockNotAvailable {
			return err
		}
		// Whoever waits for a row of ours, and is in our way, would wait as long as
		// we do: neither of us waits in one go until the server looks for deadlocks.
		var awaited bool
		if e := tx.QueryRow(ctx, `select exists (select from pg_locks where not granted and locktype = 'transactionid'
            and pg_backend_pid() = any(pg_blocking_pids(pid)))`).Scan(&awaited); e != nil {
			return e
		}
		if awaited {
			return &pg.Error{Side: pg.Target, Hint: "run the task again",
				Err: errors.New("a deadlock: the application waits for a row that is being copied or replaced, and the copy for the application")}
		}
		return err
	})
}

// attempt runs f in a savepoint. When it fails, all that it locked is given back.
func (l *Loader) attempt(ctx context.Context, tx pgx.Tx, wait time.Duration, f func(tx pgx.Tx) error) error {
	timeout, err := l.ownLockTimeout(ctx, tx)
	if err != nil {
		return err
	}
	begin := fmt.Sprintf("savepoint patiently; set local lock_timeout = %d", wait.Milliseconds())
	if _, err := tx.Exec(ctx, begin); err != nil {
		return err
	}
	if err = f(tx); err == nil {
		_, err = tx.Exec(ctx, "release patiently; set local lock_timeout = "+timeout)
		return err
	}
	if _, e := tx.Exec(context.WithoutCancel(ctx), "rollback to patiently; release patiently"); e != nil {
		return fmt.Errorf("%v; and then: %w", err, e)
	}
	return err
}

// unhurried takes an advisory lock of step 1, which other lanes hold for as long as
// they copy.
func (l *Loader) unhurried(ctx context.Context, tx pgx.Tx, class pg.LockClass, number int32) error {
	take := func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, fmt.Sprintf("select pg_advisory_xact_lock(%d, %d)", class, number))
		return err
	}
	if l.inBrief { // with the turn that another lane may need to come to its end
		return take(tx)
	}
	for {
		err := l.attempt(ctx, tx, time.Second, take)
		if pg.Code(err) != pg.LockNotAvailable {
			return err
		}
		select {
		case <-l.Stop:
			return ErrStopped
		default:
		}
	}
}

// ownLockTimeout returns the lock_timeout of the session, quoted.
func (l *Loader) ownLockTimeout(ctx context.Context, tx pgx.Tx) (string, error) {
	if l.lockTimeout != "" {
		return l.lockTimeout, nil
	}
	err := tx.QueryRow(ctx, "select quote_literal(current_setting('lock_timeout'))").Scan(&l.lockTimeout)
	return l.lockTimeout, err
}
