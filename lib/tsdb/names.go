package tsdb

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5"
)

// index is one of a compressed relation.
type index struct {
	oid     uint32
	name    *string // quoted; nil if no client can name it
	columns []string
}

// indexesOf lists the indexes of a compressed relation.
// ≤ 2.13: none; the server names them after those of the table that all are children of.
func indexesOf(ctx context.Context, db *DB, relation string) (all []index, err error) {
	if !db.SettingsPerChunk() {
		return nil, nil
	}
	rows, err := db.Query(ctx, strings.Replace(relationIndexesSQL, "$1", "$1::text::regclass", 1), relation)
	if err != nil {
		return nil, db.Wrap(err, "indexes of the compressed relation")
	}
	var id uint32
	var column []byte
	var ic IndexColumn
	if _, err = pgx.ForEachRow(rows, []any{&id, &column, &ic.Desc, &ic.NullsFirst}, func() error {
		if len(all) == 0 || all[len(all)-1].oid != id {
			all = append(all, index{oid: id})
		}
		i := &all[len(all)-1]
		i.columns = append(i.columns, string(column))
		return nil
	}); err != nil {
		return nil, db.Wrap(err, "indexes of the compressed relation")
	}
	for n := range all {
		if err := db.QueryRow(ctx, renameSQL, all[n].oid, "").Scan(&all[n].name); err != nil {
			return nil, db.Wrap(err, "name of relation %d", all[n].oid)
		}
	}
	return all, nil
}

// nativeNameSQL is the query for the name that the server would have given to the
// compressed relation of the chunk with the OID $1 and the number $2. It is known only
// once there is one.
func nativeNameSQL(db *DB) string {
	if db.columns["chunk.compressed_chunk_id"] {
		return `select format('compress_hyper_%s_%s_chunk', z.hypertable_id, z.id) from _timescaledb_catalog.chunk z
            where z.id = (select compressed_chunk_id from _timescaledb_catalog.chunk where id = $2)
                and $1::oid is not null`
	}
	return "select relname || '_compressed' from pg_class where oid = $1 and $2::int is not null"
}

// NameLike gives b, the compressed relation of a chunk, and its indexes the
// names that the server's own have: people and their scripts look for
// compress_hyper_N_M_chunk (≥ 2.29: for the chunk's name and _compressed). A name that is
// taken is left to whoever has it. The chunk is locked, so that all of it is one
// statement, but where a name is taken.
func (b *Built) NameLike(ctx context.Context, db *DB, seen *Attached) error {
	name := clip(seen.native, maxName)
	sql := "savepoint bf; alter table " + b.Name + " rename to " + pg.Ident(name)
	for _, i := range b.indexes {
		if i.name != nil {
			sql += "; alter index " + *i.name + " rename to " + pg.Ident(i.called(name))
		}
	}
	_, err := db.Exec(ctx, sql+"; release bf")
	if pg.Code(err) != pg.DuplicateTable {
		return db.Wrap(err, "rename %s", b.Name)
	}
	if _, err := db.Exec(ctx, "rollback to bf; release bf"); err != nil {
		return err
	}
	indexes, err := indexesOf(ctx, db, b.Name)
	if err != nil {
		return err
	}
	if err := rename(ctx, db, seen.Chunk.RelationOID, "table", name); err != nil {
		return err
	}
	for _, i := range indexes {
		if err := rename(ctx, db, i.oid, "index", i.called(name)); err != nil {
			return err
		}
	}
	return nil
}

// called is the name of the index of a relation of that name.
func (i *index) called(relation string) string {
	return objectName(relation, strings.Join(i.columns, "_"), "_idx")
}

//go:embed rename.sql
var renameSQL string

// rename renames a relation unless there is one of that name, or no client can name it: in
// a database of SQL_ASCII the server cuts names within characters.
func rename(ctx context.Context, db *DB, oid uint32, kind, to string) error {
	var from *string
	err := db.QueryRow(ctx, renameSQL, oid, to).Scan(&from)
	if err != nil || from == nil {
		return db.Wrap(err, "name of relation %d", oid)
	}
	_, err = db.Exec(ctx, fmt.Sprintf("alter %s %s rename to %s", kind, *from, pg.Ident(to)))
	return db.Wrap(err, "rename %s", *from)
}
