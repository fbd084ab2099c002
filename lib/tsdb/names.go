package tsdb

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5"
)

// NameCompressed gives the compressed relation of a chunk, which was attached to it,
// and its indexes the names that the server's own have: people and their scripts look
// for compress_hyper_N_M_chunk (≥ 2.29: for the chunk's name and _compressed). The
// numbers are known only once it is attached. A name that is taken is left to whoever
// has it. c is the chunk as it is then: it is locked, so that no question is asked twice.
func (db *DB) NameCompressed(ctx context.Context, c *Chunk) error {
	native := "select relname || '_compressed' from pg_class where oid = $1"
	if db.columns["chunk.compressed_chunk_id"] {
		native = `select format('compress_hyper_%s_%s_chunk', z.hypertable_id, z.id) from _timescaledb_catalog.chunk z
            where z.id = (select compressed_chunk_id from _timescaledb_catalog.chunk where id = $2)
            and $1::oid is not null`
	} else {
		native += " and $2::int is not null"
	}
	var name string
	if err := db.QueryRow(ctx, native, c.OID, c.ID).Scan(&name); err != nil {
		return db.Wrap(err, "name of the compressed relation of %s", c.Name)
	}
	name = clip(name, maxName)
	if err := db.rename(ctx, c.RelationOID, "table", name); err != nil || !db.SettingsPerChunk() {
		return err // ≤ 2.13: its indexes are called after their parent's
	}
	rows, err := db.Query(ctx, relationIndexesSQL, c.RelationOID)
	if err != nil {
		return db.Wrap(err, "indexes of the compressed relation")
	}
	columns := map[uint32][]string{}
	var id uint32
	var column []byte
	var ic IndexColumn
	if _, err = pgx.ForEachRow(rows, []any{&id, &column, &ic.Desc, &ic.NullsFirst}, func() error {
		columns[id] = append(columns[id], string(column))
		return nil
	}); err != nil {
		return db.Wrap(err, "indexes of the compressed relation")
	}
	for id, cols := range columns {
		if err := db.rename(ctx, id, "index", objectName(name, strings.Join(cols, "_"), "_idx")); err != nil {
			return err
		}
	}
	return nil
}

//go:embed rename.sql
var renameSQL string

// rename renames a relation unless there is one of that name, or its own cannot be
// told: in a database of SQL_ASCII the server cuts names within characters.
func (db *DB) rename(ctx context.Context, oid uint32, kind, to string) error {
	var from *string
	err := db.QueryRow(ctx, renameSQL, oid, to).Scan(&from)
	if err != nil || from == nil {
		return db.Wrap(err, "name of relation %d", oid)
	}
	_, err = db.Exec(ctx, fmt.Sprintf("alter %s %s rename to %s", kind, *from, pg.Ident(to)))
	return db.Wrap(err, "rename %s", *from)
}
