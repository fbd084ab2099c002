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
func (db *DB) AttachSQL(c *Chunk, b *Built) string {
	sql := fmt.Sprintf("select %s(%d::oid::regclass, %s::regclass, %d, %d, %d, %d, %d, %d, %d, %d)",
		db.Fn("create_compressed_chunk"), c.OID, pg.Literal(b.Name), b.Before[0], b.Before[1], b.Before[2],
		b.after[0], b.after[1], b.after[2], b.Rows, b.Batches)
	if b.parent != "" {
		sql = "alter table " + b.Name + " inherit " + b.parent + "; " + sql
	}
	return sql
}

// WithSettingsSQL is a script that runs while the hypertable has these settings, and
// puts its own back.
func (db *DB) WithSettingsSQL(h *Hypertable, s *Settings, sparse []SparseIndex, script string,
	own *Settings, configured []SparseIndex) string {
	table := pg.Ident(h.Name.Schema, h.Name.Name)
	sql := []string{db.setSQL(h, s, sparse), script}
	if db.ListsSparseIndexes() {
		sql = append(sql, "alter table "+table+" reset (timescaledb.compress_index)")
	}
	if own.OrderBy == nil || own.SegmentBy == nil && db.ListsSparseIndexes() {
		sql = append(sql, "alter table "+table+" reset (timescaledb.compress_segmentby, timescaledb.compress_orderby)")
	}
	if own.OrderBy != nil || own.SegmentBy != nil || len(configured) > 0 {
		sql = append(sql, db.setSQL(h, own, configured))
	}
	return strings.Join(sql, "; ")
}

func (db *DB) setSQL(h *Hypertable, s *Settings, sparse []SparseIndex) string {
	return "alter table " + pg.Ident(h.Name.Schema, h.Name.Name) + " set (" + db.SettingsSQL(s, sparse) + ")"
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
func (db *DB) Attached(ctx context.Context, h *Hypertable, c *Chunk, b *Built) (*Attached, error) {
	var seen Attached
	var ask pgx.Batch
	ask.Queue(db.chunksWhere("{named}"), c.Name.Schema, c.Name.Name).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, scanChunk)
		if len(found) > 0 {
			seen.Chunk = found[0]
		}
		return err
	})
	db.queueSettings(&ask, h.OID, h.ID, &seen.Own)
	if db.columns["compression_settings.compress_relid"] {
		db.queueSettings(&ask, c.OID, h.ID, &seen.Settings)
	}
	if b != nil {
		ask.Queue(keysOfBatchesSQL, h.OID, c.OID, b.Name).QueryRow(scanInto(&seen.keys))
		ask.Queue("select exists (select from only " + c.Quoted() + ")").QueryRow(scanInto(&seen.Beside))
		ask.Queue(db.nativeNameSQL(), c.OID, c.ID).QueryRow(scanInto(&seen.native))
	}
	err := db.SendBatch(ctx, &ask).Close()
	if err == nil && seen.Chunk != nil && seen.Settings == nil { // before: the relation has them
		seen.Settings, err = db.ChunkSettings(ctx, seen.Chunk)
	}
	return &seen, db.Wrap(err, "look at chunk %s", c.Name)
}

func scanInto(to any) func(pgx.Row) error { return func(r pgx.Row) error { return r.Scan(to) } }

// Differs says in what the compressed relation and the settings s of a chunk are not
// those of b, columns aside; "" for nothing.
func (db *DB) Differs(c *Chunk, s *Settings, b *Built) string {
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
func (db *DB) ColumnsDiffer(ctx context.Context, c *Chunk, b *Built) (string, error) {
	have, _, err := db.RelationColumns(ctx, c.RelationOID)
	if err != nil {
		return "", err
	}
	if differs, same := SameColumns(b.Kept, have); !same {
		return "the target's compressed relation has " + differs, nil
	}
	return "", nil
}

// AddKeys gives the compressed relation of a chunk the foreign keys of the hypertable
// that 2.14 and 2.15 have there, and do not move when a relation is attached.
func (db *DB) AddKeys(ctx context.Context, seen *Attached, b *Built) error {
	if len(seen.keys) == 0 {
		return nil
	}
	_, err := db.Exec(ctx, "alter table "+b.Name+" add "+strings.Join(seen.keys, ", add "))
	return db.Wrap(err, "foreign keys of chunk %s", seen.Chunk.Name)
}
