package target

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"bf/lib/pg"
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
//     relation that it fills, a scratch hypertable).
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
// and releases everything as soon as another session waits for it. The two wait for
// moments only. When one of the locks is not granted in time, they release all of
// them from 2 on before they try again: to hold the chunk while waiting for the
// hypertable would be a deadlock with a reader who holds the hypertable and waits
// for the chunk. The server would not detect it, because no wait lasts for
// deadlock_timeout.

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

// waiting is savepoint with locks that are waited for so long. The statements lock come
// first; f may be nil.
func (s *session) waiting(ctx context.Context, d time.Duration, lock string, f func() error) error {
	return s.subtransaction(ctx, lockTimeout(d)+"; "+lock, lockTimeout(pg.LockTimeout), f)
}

func lockTimeout(d time.Duration) string {
	return fmt.Sprintf("set local lock_timeout = %d", d.Milliseconds())
}

// briefly runs f, with the turn, in a transaction of its own whose locks are waited
// for only briefly, again and again.
func (s *session) briefly(ctx context.Context, f func() error) error {
	return s.untilLocked(ctx, func() error {
		return s.transaction(ctx, takeTurn, func() error { return s.inTurn(f) })
	})
}

// brieflyRun runs a query as briefly does, in one round trip, and returns the OID that is
// its result.
func (s *session) brieflyRun(ctx context.Context, sql string) (oid uint32, err error) {
	err = s.untilLocked(ctx, func() error {
		defer s.Rollback(ctx)
		results, err := s.PgConn().Exec(ctx, "begin; "+takeTurn+"; "+sql+"; commit").ReadAll()
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(string(results[len(results)-2].Rows[0][0]), 10, 32)
		oid = uint32(n)
		return err
	})
	return oid, err
}

// takeTurn makes lanes wait for each other until the transaction or subtransaction
// ends. So at most one of them is in the queue of a lock that the application wants,
// too; else the application would wait for all of them.
var takeTurn = fmt.Sprintf("%s; select pg_advisory_xact_lock(%d, 0); %s",
	lockTimeout(0), pg.LockTurn, lockTimeout(lockWait))

// inTurn runs f, which has the turn.
func (s *session) inTurn(f func() error) error {
	defer func(was bool) { s.brief = was }(s.brief)
	s.brief = true
	return f()
}

// errRehearsal ends a transaction that was only to show that it can be done.
var errRehearsal = errors.New("a rehearsal")

// rehearse runs f as briefly does, and rolls back.
func (s *session) rehearse(ctx context.Context, f func() error) error {
	err := s.briefly(ctx, func() error { return errOr(f(), errRehearsal) })
	if err == errRehearsal {
		return nil
	}
	return err
}

// patiently runs f in a savepoint of the transaction, with a short lock timeout, again
// and again: a lock timeout does not undo what was copied so far, and no session
// queues behind ours for long. The statements lock come first, in the same round trip; f
// may be nil.
func (s *session) patiently(ctx context.Context, lock string, f func() error) error {
	if s.brief {
		_, err := s.Exec(ctx, lock)
		if err == nil && f != nil {
			err = f()
		}
		return err
	}
	return s.untilLocked(ctx, func() error {
		err := s.waiting(ctx, lockWait, lock, f)
		if pg.Code(err) != pg.LockNotAvailable {
			return err
		}
		// Whoever waits for a row of ours, and is in our way, would wait as long as
		// we do: neither of us waits in one go until the server looks for deadlocks.
		var awaited bool
		if e := s.QueryRow(ctx, awaitedSQL).Scan(&awaited); e != nil {
			return e
		}
		if awaited {
			return fault("", "run the task again", "a deadlock: the application waits for a row that is being copied "+
				"or replaced, and the copy for the application")
		}
		return err
	})
}

const awaitedSQL = `select exists (select from pg_locks
    where not granted and locktype = 'transactionid' and pg_backend_pid() = any(pg_blocking_pids(pid)))`

// untilLocked runs f again and again until it gets the locks that it needs and
// nobody is in its way.
func (s *session) untilLocked(ctx context.Context, f func() error) error {
	if s.brief { // whoever is around us tries again
		return f()
	}
	deadline, stop, stopped := time.Now().Add(patience), s.stop, false
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

// awaitLanes takes an advisory lock of step 1, which other lanes hold for as long as
// they copy.
func (s *session) awaitLanes(ctx context.Context, class pg.LockClass, key int32) error {
	take := fmt.Sprintf("select pg_advisory_xact_lock(%d, %d)", class, key)
	if s.brief { // with the turn that another lane may need to come to its end
		_, err := s.Exec(ctx, take)
		return err
	}
	for {
		err := s.waiting(ctx, time.Second, take, nil)
		if pg.Code(err) != pg.LockNotAvailable {
			return err
		}
		select {
		case <-s.stop:
			return ErrStopped
		default:
		}
	}
}

// lock locks a relation (quoted).
func (s *session) lock(ctx context.Context, relation, mode string) error {
	_, err := s.Exec(ctx, "lock table only "+relation+" in "+mode+" mode")
	return s.Wrap(err, "lock %s", relation)
}

// locker takes the locks on the hypertable and on the task's chunk that the application
// wants as well, in the order above.
type locker struct{ *load }

// lockChunk locks the task's chunk and looks at its state then.
func (l locker) lockChunk(ctx context.Context, mode string) error {
	if l.held == "access exclusive" || l.held == "share row exclusive" && mode == "row exclusive" {
		return nil // it is, and nobody else has changed it since
	}
	if err := l.patiently(ctx, l.chunkLock(mode, l.brief), nil); err != nil {
		return l.Wrap(err, "lock chunk %s", l.chunk.Name)
	}
	return l.lookAtChunk(ctx)
}

// chunkLock is step 4 of the order of locks.
func (l locker) chunkLock(mode string, brief bool) string {
	sql := "lock table only " + l.chunk.Quoted() + " in " + mode + " mode"
	if brief {
		sql += "; " + lockTimeout(moreWait)
	}
	return sql
}

// lookAtChunk reads the locked chunk.
func (l locker) lookAtChunk(ctx context.Context) error {
	name := l.chunk.Name
	c, err := l.Chunk(ctx, name)
	if err == nil && (c == nil || !c.SameSlices(l.task.Slices)) {
		err = changed(name)
	}
	l.chunk = c
	return err
}

// hypertableLock is step 3 of the order of locks; alter is for its settings.
func (l locker) hypertableLock(alter bool) string {
	sql := "lock table only " + l.hypertable() + " in "
	if alter {
		return sql + "access exclusive mode; " + lockTimeout(moreWait)
	}
	return sql + "access share mode"
}

func (l locker) lockHypertable(ctx context.Context, alter bool) error {
	_, err := l.Exec(ctx, l.hypertableLock(alter))
	return l.Wrap(err, "lock %s", l.ht.Label())
}

// atLast runs f at the end of a copy, which only the commit may follow, with a lock
// on the hypertable and, unless mode is none, on the chunk. Locks are given back, and
// what f has done is undone, as often as it takes.
func (l locker) atLast(ctx context.Context, mode string, alter bool, f func() error) error {
	lock := takeTurn + "; " + l.hypertableLock(alter)
	if mode != "" {
		lock += "; " + l.chunkLock(mode, true)
	}
	locked := false
	err := l.patiently(ctx, lock, func() error {
		locked = true
		return l.inTurn(func() error {
			if mode == "" {
				return f()
			}
			if err := l.lookAtChunk(ctx); err != nil {
				return err
			}
			l.held = mode
			defer func() { l.held = "" }()
			return f()
		})
	})
	if !locked {
		return l.Wrap(err, "lock %s and its chunk", l.ht.Label())
	}
	return err
}
