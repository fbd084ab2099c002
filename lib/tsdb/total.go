package tsdb

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// Total scans aggregates, without groups, of the rows that a FROM clause with its
// conditions names.
//
// 2.12 to 2.18: the server may aggregate each chunk into a hash table that has no key,
// which has no row if the chunk has none. Where this is so of all chunks, so is the
// result, instead of one row that says zero: no rows at all are asked for it then, of
// no chunk.
func Total(ctx context.Context, db *DB, aggregates, from string, dest ...any) error {
	err := db.QueryRow(ctx, "select "+aggregates+"\nfrom "+from).Scan(dest...)
	if errors.Is(err, pgx.ErrNoRows) {
		err = db.QueryRow(ctx, "select "+aggregates+"\nfrom (select * from "+from+") r where false").Scan(dest...)
	}
	return err
}
