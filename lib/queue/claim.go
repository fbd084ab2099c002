package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed complete.sql
	completeSQL string
	//go:embed verdict.sql
	verdictSQL string
)

// ErrBusy is returned by Claim when another transaction holds the task.
var ErrBusy = errors.New("another bf-load is at this task")

// ErrDone is returned by Claim when the task is done already.
var ErrDone = errors.New("the task is done already")

// busyFor is how long Claim waits for another transaction to end. After a bf-load
// was killed, its task is handed out again at once, but its server process may
// roll back only at its next client_connection_check_interval.
const busyFor = 15 * time.Second

// Claim begins the transaction that copies the task's chunk and locks the task's row
// in it. A second transaction gets ErrBusy after a while. Complete marks the task in
// the same transaction, so it is done exactly once, whatever crashes. t is what will be
// copied: Claim fails if bf-stage has widened the task's range since t was read,
// because completing the task would then lose the added rows. After an error, too, the
// transaction is the caller's to roll back.
func Claim(ctx context.Context, c *pg.Conn, t *task.Task, again bool) error {
	deadline, first := time.Now().Add(busyFor), "begin"
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := claim(ctx, c, first, t, again)
		if err != ErrBusy || time.Now().Add(wait).After(deadline) {
			return err
		}
		first = ""
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const claimSQL = ` where priority = $1
        and pg_advisory_xact_lock_shared($2, $1::bigint::int) is not null
        for no key update skip locked`

// claim tries once, behind the statement first.
func claim(ctx context.Context, c *pg.Conn, first string, t *task.Task, again bool) error {
	var ask pgx.Batch
	if first != "" {
		ask.Queue(first)
	}
	var found []*Entry
	ask.Queue(listSQL+claimSQL, t.Task, pg.LockInHand).Query(func(rows pgx.Rows) (err error) {
		found, err = pgx.CollectRows(rows, scanEntry)
		return err
	})
	err := c.SendBatch(ctx, &ask).Close()
	switch {
	case err != nil:
		return c.Wrap(err, "task %d", t.Task)
	case len(found) == 0:
		return ErrBusy
	case found[0].Worked != "" && !again:
		return ErrDone
	}
	if differs, same := t.SameWork(&found[0].Task); !same {
		return &pg.Error{Side: c.Side, Object: fmt.Sprintf("task %d", t.Task), Hint: "run the task again",
			Err: fmt.Errorf("was staged again in the meantime: %s", differs)}
	}
	return nil
}

// Complete marks the task as done in the transaction that copied its chunk, commits,
// and runs the statement after it, "" for none. The start of the transaction counts as
// the start of the copy.
func Complete(ctx context.Context, c *pg.Conn, r *task.Result, after string) error {
	var ask pgx.Batch
	ask.Queue(completeSQL, r.Task, storable(message(r)), r.Rows, r.Bytes, string(r.LeftUncompressed))
	ask.Queue("commit")
	if after != "" {
		ask.Queue(after)
	}
	return c.Wrap(c.SendBatch(ctx, &ask).Close(), "complete task %d", r.Task)
}

func message(r *task.Result) string {
	s := r.Way
	if r.WhyNotRaw != "" {
		s += ": " + r.WhyNotRaw
	}
	if s != "" && r.Message != "" {
		s += "; "
	}
	return s + r.Message
}

// storable makes a message valid for a text column: messages quote names, which
// servers may have cut inside a character.
func storable(message string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(message, "\ufffd"), "\x00", "\ufffd")
}

// Fail stores the message of a failed attempt, in a transaction of its own after
// the rollback.
func Fail(ctx context.Context, c *pg.Conn, number int64, message string) error {
	_, err := c.Exec(ctx, `update __backfill.task
        set attempts = attempts + 1, failed = clock_timestamp(), copy_message = $2
        where priority = $1 and worked is null`, number, storable(message))
	return c.Wrap(err, "task %d", number)
}

// FailRows is Fail for a chunk whose compressed relation the target cannot take. It
// stores the reason as well: the next record of the task has it as rows_only.
func FailRows(ctx context.Context, c *pg.Conn, number int64, message, why string) error {
	if _, err := c.Exec(ctx, "update __backfill.task set rows_only = $2 where priority = $1", number,
		storable(why)); err != nil {
		return c.Wrap(err, "task %d", number)
	}
	return Fail(ctx, c, number, message)
}

// Verdict stores the result of a comparison; verified is null unless both sides
// were equal. It stores nothing and returns false if the task was copied again
// since e was read.
func Verdict(ctx context.Context, c *pg.Conn, e *Entry, r *task.Result) (stored bool, err error) {
	tag, err := c.Exec(ctx, verdictSQL, r.Task, r.Status == task.Verified, r.Seconds,
		storable(r.Message), e.Worked)
	return tag.RowsAffected() == 1, c.Wrap(err, "task %d", r.Task)
}
