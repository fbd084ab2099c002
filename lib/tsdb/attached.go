package tsdb

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5"
)

// How a compressed relation becomes a chunk's. The application is locked out
// meanwhile, for as long as it takes to ask, to wait for the answer and to ask again: so
// statements come as one script, and questions are sent together.

//go:embed keys_of_batches.sql
var keysOfBatchesSQL string

// AttachSQL makes b the compressed relation of the chunk, which has none. What it writes
// down for compression_chunk_size are the sizes before (the source's) and after.
func (b *Built) AttachSQL(db *DB, c *Chunk) string {
	sql := fmt.Sprintf("select %s(%d::oid::regclass, %s::regclass, %d, %d, %d, %d, %d, %d, %d, %d)",
		db.Fn("create_compressed_chunk"), c.OID, pg.Literal(b.Name), b.Before[0], b.Before[1], b.Before[2],
		b.after[0], b.after[1], b.after[2], b.Rows, b.Batches)
	if b.parent != "" {
		sql = "alter table " + b.Name + " inherit " + b.parent + "; " + sql
	}
	return sql
}

// ResetSQL gives a hypertable its own settings back, and its configured sparse indexes.
func ResetSQL(db *DB, h *Hypertable, own *Settings, configured []SparseIndex) string {
	table := "alter table " + pg.Ident(h.Name.Schema, h.Name.Name)
	var sql []string
	if db.ListsSparseIndexes() {
		sql = append(sql, table+" reset (timescaledb.compress_index)")
	}
	if own.OrderBy == nil || own.SegmentBy == nil && db.ListsSparseIndexes() {
		sql = append(sql, table+" reset (timescaledb.compress_segmentby, timescaledb.compress_orderby)")
	}
	if own.OrderBy != nil || own.SegmentBy != nil || len(configured) > 0 {
		sql = append(sql, own.SetSQL(db, h, configured))
	}
	return strings.Join(sql, "; ")
}

// SetSQL gives the settings to a hypertable.
func (s *Settings) SetSQL(db *DB, h *Hypertable, sparse []SparseIndex) string {
	return "alter table " + pg.Ident(h.Name.Schema, h.Name.Name) + " set (" + s.SQL(db, sparse) + ")"
}

// Attached is what there is to see once a chunk has got a compressed relation.
type Attached struct {
	Chunk    *Chunk    // nil for none
	Settings *Settings // that it has
	Own      *Settings // of the hypertable
	Beside   bool      // there are rows beside its batches

	keys   []string // foreign keys that its relation lacks
	native string   // name that the server would have given to the relation
}

// Attached looks at the chunk; b is the relation that it has got, nil for one that the
// server has made.
func (c *Chunk) Attached(ctx context.Context, db *DB, h *Hypertable, b *Built) (*Attached, error) {
	var seen Attached
	var ask pgx.Batch
	askChunk(db, &ask, c.Name, &seen.Chunk)
	queueSettings(db, &ask, h.OID, h.ID, &seen.Own)
	if db.columns["compression_settings.compress_relid"] {
		queueSettings(db, &ask, c.OID, h.ID, &seen.Settings)
	}
	if b != nil {
		ask.Queue(keysOfBatchesSQL, h.OID, c.OID, b.Name).QueryRow(pg.Into(&seen.keys))
		ask.Queue("select exists (select from only " + c.Quoted() + ")").QueryRow(pg.Into(&seen.Beside))
		ask.Queue(nativeNameSQL(db), c.OID, c.ID).QueryRow(pg.Into(&seen.native))
	}
	err := db.SendBatch(ctx, &ask).Close()
	if err == nil && seen.Chunk != nil && seen.Settings == nil { // before: the relation has them
		seen.Settings, err = seen.Chunk.Settings(ctx, db)
	}
	return &seen, db.Wrap(err, "look at chunk %s", c.Name)
}

// Differs says in what the compressed relation and the settings s of a chunk are not
// those of b, columns aside; "" for nothing.
func (b *Built) Differs(db *DB, c *Chunk, s *Settings) string {
	switch {
	case c == nil || c.RelationOID == 0:
		return "the target's chunk has no compressed relation"
	case s == nil || !s.SameLayout(&b.Settings):
		return "the target's chunk has other compression settings"
	case !db.ListsSparseIndexes():
		return ""
	}
	sparse, err := s.Sparse(false)
	switch {
	case err != nil:
		return err.Error()
	case !SameSparse(sparse, b.Sparse):
		return "the target's chunk has other sparse indexes"
	}
	return ""
}

// ColumnsDiffer says which columns of the chunk's compressed relation are not those of
// b; "" for none.
func (b *Built) ColumnsDiffer(ctx context.Context, db *DB, c *Chunk) (string, error) {
	have, _, err := RelationColumns(ctx, db, c.RelationOID)
	if err != nil {
		return "", err
	}
	if differs, same := SameColumns(b.Kept, have); !same {
		return "the target's compressed relation has " + differs, nil
	}
	return "", nil
}

// AddKeys gives the compressed relation of a chunk the foreign keys of the hypertable.
// 2.14 and 2.15 have them there, and not on a relation that was attached.
func (b *Built) AddKeys(ctx context.Context, db *DB, seen *Attached) error {
	if len(seen.keys) == 0 {
		return nil
	}
	_, err := db.Exec(ctx, "alter table "+b.Name+" add "+strings.Join(seen.keys, ", add "))
	return db.Wrap(err, "foreign keys of chunk %s", seen.Chunk.Name)
}
