package tsdb

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Sizes are the rows of a compressed chunk, and its bytes with toast and indexes, as
// the server wrote them down when it compressed it; zero where it did not.
type Sizes struct {
	Rows         int64 `json:"rows,omitempty"`
	Uncompressed int64 `json:"uncompressed,omitempty"`
	Compressed   int64 `json:"compressed,omitempty"`
}

// ChunkSizes returns those of compressed chunks, by their id.
func ChunkSizes(ctx context.Context, db *DB, chunks []int32) (map[int32]Sizes, error) {
	rows, err := db.Query(ctx, `select chunk_id, coalesce(numrows_pre_compression, 0),
        uncompressed_heap_size + uncompressed_toast_size + uncompressed_index_size,
        compressed_heap_size + compressed_toast_size + compressed_index_size
        from _timescaledb_catalog.compression_chunk_size where chunk_id = any($1)`, chunks)
	if err != nil {
		return nil, db.Wrap(err, "sizes of compressed chunks")
	}
	all := map[int32]Sizes{}
	var id int32
	var s Sizes
	_, err = pgx.ForEachRow(rows, []any{&id, &s.Rows, &s.Uncompressed, &s.Compressed}, func() error {
		all[id] = s
		return nil
	})
	return all, db.Wrap(err, "sizes of compressed chunks")
}
