package tsdb

import (
	"context"
	_ "embed"
)

var (
	//go:embed logging.sql
	loggingSQL string
	//go:embed relog.sql
	relogSQL string
)

// Log is the invalidation log of a hypertable: what a refresh of the continuous aggregates
// on it has to compute again.
type Log struct {
	db *DB
	h  *Hypertable
}

// LogOf is that of a hypertable.
func LogOf(db *DB, h *Hypertable) Log { return Log{db, h} }

func (l Log) wrap(err error) error { return l.db.Wrap(err, "invalidation log of %s", l.h.Label()) }

// Transactions returns the numbers of the transaction and of those of its subtransactions
// that have logged something: TRUNCATE does at once, the rest comes with the commit. None
// where the role may not change the log.
func (l Log) Transactions(ctx context.Context) (transactions []string, err error) {
	return transactions, l.wrap(l.db.QueryRow(ctx, loggingSQL, l.h.ID).Scan(&transactions))
}

// TakeBack takes back what transactions, by their numbers, have logged, but for what is in
// some spans. The lock lasts for that moment: writers wait for it with their commit, and
// refreshes with reading the log, as they fail over an entry that goes meanwhile.
func (l Log) TakeBack(ctx context.Context, transactions []string, keep []Span) error {
	from, until := make([]int64, len(keep)), make([]int64, len(keep))
	for i, s := range keep {
		from[i], until[i] = s.From, s.Until
	}
	_, err := l.db.Exec(ctx, "lock table _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log "+
		"in share row exclusive mode nowait")
	if err == nil {
		_, err = l.db.Exec(ctx, relogSQL, l.h.ID, transactions, from, until)
	}
	return l.wrap(err)
}

// Add has a refresh compute some spans again.
func (l Log) Add(ctx context.Context, spans []Span) error {
	for _, s := range spans {
		if _, err := l.db.Exec(ctx, "insert into _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log "+
			"(hypertable_id, lowest_modified_value, greatest_modified_value) values ($1, $2, $3)",
			l.h.ID, s.From, s.Until-1); err != nil {
			return l.wrap(err)
		}
	}
	return nil
}
