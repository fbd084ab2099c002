package target

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"bf/lib/pg"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// session is a lane's only connection. What runs over it belongs to the
// transaction that is open: there is no other handle for that.
type session struct {
	*tsdb.DB
	stop  <-chan struct{} // closed when the lane is asked to stop
	brief bool            // locks are held that others want: who waits, waits once
}

// transaction runs f in a transaction that begins with the statement first. READ
// COMMITTED (the session's default): rows that the application commits in the meantime
// have to be seen.
func (s *session) transaction(ctx context.Context, first string, f func() error) error {
	defer s.Rollback(ctx)
	if _, err := s.Exec(ctx, "begin; "+first); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	tag, err := s.Exec(ctx, "commit")
	if err == nil && tag.String() == "ROLLBACK" {
		err = pgx.ErrTxCommitRollback
	}
	return err
}

// savepoint runs f in a subtransaction. When it fails, all that it locked is given
// back.
func (s *session) savepoint(ctx context.Context, f func() error) error {
	return s.subtransaction(ctx, "", "", f)
}

// subtransaction begins with the statements first and ends with last, where f does
// not fail; nil for none.
func (s *session) subtransaction(ctx context.Context, first, last string, f func() error) error {
	if f == nil {
		_, err := s.Exec(ctx, "savepoint bf; "+first+"; release bf; "+last)
		return undone(ctx, s, err)
	}
	_, err := s.Exec(ctx, "savepoint bf; "+first)
	if err == nil {
		err = f()
	}
	if err == nil {
		_, err = s.Exec(ctx, "release bf; "+last)
		return err
	}
	return undone(ctx, s, err)
}

// undone goes back to the savepoint after an error.
func undone(ctx context.Context, s *session, err error) error {
	if err == nil || s.Lost() {
		return err
	}
	if _, e := s.Exec(context.WithoutCancel(ctx), "rollback to bf; release bf"); e != nil && !s.Lost() {
		return fmt.Errorf("%v; and then: %w", err, e)
	}
	return err
}

// The search_path and the time zone that database and role set, and bf's own.
const (
	userSettings = "set local search_path to default; set local timezone to default"
	ownSettings  = "set local search_path = pg_catalog, pg_temp; set local timezone = 'UTC'"
)

// asUser runs f with the search_path and the time zone that database and role set:
// functions of the user (of triggers, constraints, expression indexes, of a
// dimension) may rely on them, and calendar chunks that are made by a row are cut in
// the session's time zone.
func (s *session) asUser(ctx context.Context, f func() error) error {
	if !s.InTx() {
		return s.transaction(ctx, "", func() error { return s.asUser(ctx, f) })
	}
	if _, err := s.Exec(ctx, userSettings); err != nil {
		return s.Wrap(err, "search_path and time zone")
	}
	if err := f(); err != nil {
		return err
	}
	_, err := s.Exec(ctx, ownSettings)
	return s.Wrap(err, "search_path and time zone")
}

// execAsUser runs statements as asUser does, in one round trip, and returns how many
// rows the last one concerned.
func (s *session) execAsUser(ctx context.Context, sql string) (int64, error) {
	results, err := s.PgConn().Exec(ctx, strings.Join([]string{userSettings, sql, ownSettings}, "; ")).ReadAll()
	if err != nil {
		return 0, err
	}
	return results[len(results)-3].CommandTag.RowsAffected(), nil
}

// scanAsUser reads the first row of a query as asUser does.
func (s *session) scanAsUser(ctx context.Context, sql string, into ...any) error {
	return s.asUser(ctx, func() error { return s.QueryRow(ctx, sql).Scan(into...) })
}

// some reports whether there are rows in what comes after FROM.
func (s *session) some(ctx context.Context, from string) (some bool, err error) {
	// Not prepared: the next chunk is another relation.
	err = s.QueryRow(ctx, "select exists (select from "+from+")", pgx.QueryExecModeSimpleProtocol).Scan(&some)
	return some, s.Wrap(err, "look into %s", from)
}

// deleteCopy deletes the row that was added to a chunk, and fails if that is not
// what would be deleted.
func (s *session) deleteCopy(ctx context.Context, chunk, ctid, where string) error {
	n, err := s.execAsUser(ctx, "delete from only "+chunk+" where ctid = "+pg.Literal(ctid)+"::tid and "+where)
	if err == nil && n != 1 {
		err = errNotOne
	}
	return err
}

var errNotOne = errors.New("another row than the one that was added would be deleted")

// analyze gives a relation the statistics that a native chunk has after its
// first autoanalyze, before anybody queries it. It comes after the commit: in
// the transaction of the COPY it would not keep the server from doing the same
// again, because the rows are counted as changes when that ends. A failure does
// no harm: an expression index whose function relies on a search_path makes
// ANALYZE fail from PostgreSQL 17 on, natively too. countsFirst has come before it.
func (s *session) analyze(ctx context.Context, relation string) {
	if _, err := s.Exec(ctx, "begin; set local search_path to default; analyze "+relation+"; commit"); err != nil {
		_, _ = s.Exec(ctx, "rollback")
	}
}

// countsFirst has the counts of a transaction's changes, which are sent once a second,
// not arrive after the ANALYZE that follows.
func countsFirst(s *session) string {
	if s.Postgres < 150000 {
		return ""
	}
	return "select pg_stat_force_next_flush()"
}

// fault is an error of the target with what to do next.
func fault(object, hint, format string, args ...any) error {
	return &pg.Error{Side: pg.Target, Object: object, Err: fmt.Errorf(format, args...), Hint: hint}
}

// errOr returns err, or instead where there is none.
func errOr(err, instead error) error {
	if err == nil {
		return instead
	}
	return err
}
