package tsdb

import (
	"context"
	_ "embed"
	"slices"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed skippable.sql
	skippableSQL string
	//go:embed unbound.sql
	unboundSQL string
)

// Chunk skipping (enable_chunk_skipping, 2.16 and newer): compress_chunk writes
// down the range of a column's values in the chunk, and queries leave out chunks
// by it. Rows that come into a chunk afterwards are found only if its ranges are
// no longer relied upon:
//
//   - the first row that is written beside batches, or taken out of them, makes all
//     ranges of the chunk invalid, as does attaching batches to a chunk with rows;
//   - decompress_chunk and TRUNCATE unbind the range of one column only, the first
//     by name (seen on all versions up to 2.30): with several columns the others
//     stay as they were, and rows that are inserted then are not found;
//   - attaching batches to an empty chunk changes no range;
//   - compress_chunk takes new ranges, but not of a column without values;
//   - a chunk made in a session where the setting timescaledb.enable_chunk_skipping
//     is off has no ranges at all, and sessions where it is on always leave it out.

// Skips reports whether the server leaves chunks of the hypertable out of queries
// by the ranges of columns.
func Skips(ctx context.Context, db *DB, h *Hypertable) (skips bool, err error) {
	if !skipsChunks(db) {
		return false, nil
	}
	err = db.QueryRow(ctx, "select exists (select from _timescaledb_catalog.chunk_column_stats "+
		"where hypertable_id = $1)", h.ID).Scan(&skips)
	return skips, db.Wrap(err, "column ranges of %s", h.Name)
}

// skipsChunks reports whether the server may do so (2.16 and newer).
func skipsChunks(db *DB) bool { return db.columns["chunk_column_stats.valid"] }

// Skippable returns those of the hypertable's chunks that a query may leave out by
// the range of a column: rows that are added to them might not be found.
func Skippable(ctx context.Context, db *DB, h *Hypertable, chunks ...*Chunk) ([]*Chunk, error) {
	if skips, err := Skips(ctx, db, h); !skips || err != nil {
		return nil, err
	}
	ids := make([]int32, len(chunks))
	for i, c := range chunks {
		ids[i] = c.ID
	}
	rows, err := db.Query(ctx, skippableSQL, h.ID, ids)
	if err != nil {
		return nil, db.Wrap(err, "column ranges of %s", h.Name)
	}
	bound, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return nil, db.Wrap(err, "column ranges of %s", h.Name)
	}
	return slices.DeleteFunc(slices.Clone(chunks), func(c *Chunk) bool { return !slices.Contains(bound, c.ID) }), nil
}

// Unbound makes no query leave the chunk out until it is compressed again. It
// writes to the catalog, which takes a superuser.
func Unbound(ctx context.Context, db *DB, h *Hypertable, c *Chunk) error {
	_, err := db.Exec(ctx, unboundSQL, h.ID, c.ID)
	return db.Wrap(err, "column ranges of chunk %s", c.Name)
}
